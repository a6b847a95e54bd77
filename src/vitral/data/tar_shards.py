"""Read tar shards as webdataset lays them out: files of a sample share their name up to a dot.

    000001.jpg  000001.cls (a class number or name)  000001.json ({"label": ...}, {"labels": [...]})

A shard lies on this machine or anywhere fsspec reaches (s3://…, https://…). Once it is known where
each image starts, a set of shards is read like a set of files, by number: the order of samples,
resume, workers and processes are then those of files. That is known from `index.json`, which
`vitral shard` writes, or from reading the tar headers once, which the user's cache remembers;
nothing is ever written beside the shards. A shard from far away is fetched whole into the cache
when the first of its images is wanted, once per machine; `Split.order` reads such shards a few at
a time, and the least recently used go when the cache holds more than VITRAL_CACHE_GB (64).
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vitral.data import names
from vitral.data.decisions import Decision
from vitral.data.folders import named_like_an_image
from vitral.data.headers import read_header
from vitral.data.sources import DataLayout, Problem, ScanResult, SourceOptions
from vitral.errors import DataError, TruncatedError
from vitral.storage import cache, remote
from vitral.wording import listed

INDEX = "index.json"
MAKER = "vitral shards"
FORMAT = f"{MAKER} 1"


class Sample(NamedTuple):
    """An image inside a shard.

    Attributes:
        name: the path that the user knows it by.
        offset, size: bytes from the start of the shard, and of the image.
        labels: its class names.
        multi_label: whether there may be any number of them.
        part: of a split, where its .json says it.
    """

    name: str
    offset: int
    size: int
    labels: tuple[str, ...]
    multi_label: bool = False
    part: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Images inside shards.

    Attributes:
        shards: where each shard is.
        names: what each image is called.
        places: int64 (n, 3): shard, offset and size of each image.
    """

    shards: tuple[str, ...]
    names: tuple[str, ...]
    places: np.ndarray

    def read(self, row: int) -> bytes:
        """Reads the bytes of an image; DataError if the shard has gone or ends early."""
        shard, offset, size = self.places[row].tolist()
        return _read(self.shards[shard], offset, size)

    def key(self, row: int) -> str:
        """Names an image by the path that the user knows it by."""
        return self.names[row]


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of one split.

    Attributes:
        name: what the user calls them.
        paths: where each is, sorted.
        index: index.json if there is one, already read.
        classes: the names of class numbers, from classes.txt, where there is one.
        labelled: whether each sample has to have a label.
        part: of a split that samples belong to by their .json; "" for all.
    """

    name: str
    paths: tuple[str, ...]
    index: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    labelled: bool = True
    part: str = ""

    def __str__(self) -> str:
        return self.name

    def scan(self) -> ScanResult:
        """Lists every sample with an image and a label; reads headers of images on this machine."""
        remote.forget(self.paths)  # they may be others than when this process saw them last
        is_remote = any(remote.is_remote(path) for path in self.paths)
        scanned = ScanResult(Members(self.paths, (), np.empty((0, 3), np.int64)))
        if self.labelled:
            sentence = "The labels are those of each sample, its .cls or the label in its .json."
            scanned.decisions.append(Decision("labels", sentence))
        places: list[tuple[int, int, int]] = []
        for number, path in enumerate(self.paths):
            if self.index:
                samples = _from_index(self.index, path)
            else:
                samples = _from_headers(path, scanned.problems, self.labelled)
            for sample in samples:
                if self.part and sample.part != self.part:
                    continue
                header = None
                place = (number, sample.offset, sample.size)
                if not is_remote:  # looking at the images would fetch the shards
                    try:
                        header = read_header(io.BytesIO(_read(path, *place[1:])), sample.name)
                    except DataError as error:
                        scanned.problems.append(Problem.left_out(sample.name, error))
                        continue
                places.append(place)
                scanned.add(sample.name, self._named(sample.labels), sample.size, header)
                scanned.multi_label |= sample.multi_label
        table = np.array(places, dtype=np.int64).reshape(-1, 3)
        scanned.reader = Members(self.paths, tuple(scanned.names), table)
        scanned.shards = table[:, 0] if is_remote else None
        return scanned

    def _named(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Class numbers as names, where classes.txt tells them."""
        if not self.classes or not all(label.isdecimal() for label in labels):
            return labels
        if any(int(label) >= len(self.classes) for label in labels):
            raise DataError(
                f"{self} has the class number {max(map(int, labels))}, and classes.txt names "
                f"{len(self.classes)} classes, from 0; they do not belong together."
            )
        return tuple(self.classes[int(label)] for label in labels)


def _read(shard: str, offset: int, size: int) -> bytes:
    try:
        with remote.opened(shard) as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror or error}).") from error
    if len(data) < size:
        raise TruncatedError(f"{shard} ends early: the shard is truncated.")
    return data


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of shards: by their index.json, by a pattern, or by what lies in a folder.

    None for anything that is no tar file, no folder of tar files and not far away.
    """
    is_pattern = source.endswith(".tar") and not Path(source).is_dir()
    if not (is_pattern or remote.is_remote(source) or _holds_shards(Path(source))):
        return None
    folder = source.rstrip("/")
    text = None if is_pattern else _text(f"{folder}/{INDEX}")
    index = None if text is None else read_index(text, f"{folder}/{INDEX}")
    class_names = None if is_pattern else _text(f"{folder}/classes.txt")
    by_split = _by_split(_paths(source, folder, index, is_pattern))
    if not by_split:
        raise DataError(f"No tar shards under {source}, and no {INDEX} that names them.")
    classes = tuple(line.strip() for line in (class_names or "").splitlines())
    sides = {
        name: Shards(f"{source} ({name})", paths, index, classes, options.labelled)
        for name, paths in by_split.items()
    }
    is_path = not remote.is_remote(source)
    decisions: list[Decision] = []
    if len(sides) == 1 and index is None and is_path:
        sides, decisions = _by_samples(sides, source)
    train, held_out, held_name = names.divided(sides)
    said = tuple(decisions)
    return DataLayout("tar shards", train, held_out, held_name, source, is_path, decisions=said)


def find_shards(source: str, *, held_out: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find every shard of a source, sorted, and the names of class numbers, without opening one.

    `held_out` finds those that are held out alone, where the names of shards tell them. Raises
    DataError for a source that is no tar file, no pattern and no folder of them.
    """
    is_pattern = source.endswith(".tar") and not Path(source).is_dir()
    if not (is_pattern or remote.is_remote(source) or _holds_shards(Path(source))):
        raise DataError(
            f"{source} is neither a folder of tar shards nor a pattern such as "
            f"photos-{{0000..0099}}.tar. Write shards with: vitral shard PHOTOS/ OUT/."
        )
    folder = source.rstrip("/")
    text = None if is_pattern else _text(f"{folder}/{INDEX}")
    index = None if text is None else read_index(text, f"{folder}/{INDEX}")
    by_split = _by_split(_paths(source, folder, index, is_pattern))
    if not by_split:
        raise DataError(f"No tar shards under {source}, and no {INDEX} that names them.")
    kept = names.divided(by_split)[1] if held_out else None
    paths = kept or tuple(sorted(path for own in by_split.values() for path in own))
    class_names = None if is_pattern else _text(f"{folder}/classes.txt")
    return paths, tuple(line.strip() for line in (class_names or "").splitlines())


def read_shard(path: str, class_numbers: tuple[str, ...] = ()) -> ScanResult:
    """List the samples of one shard, in their order, without looking at the images.

    A shard that is damaged or cut off gives those before the damage, and a problem that says so;
    one that is not there is DataError.
    """
    shards = Shards(path, (path,), classes=class_numbers, labelled=False)
    scanned = ScanResult(Members(shards.paths, (), np.empty((0, 3), np.int64)))
    place = remote.local(path)
    if not place.is_file():
        raise DataError(f"{path} cannot be read: there is no such shard.")
    places: list[tuple[int, int, int]] = []
    try:
        for sample in _samples(place, path, scanned.problems, labelled=False):
            places.append((0, sample.offset, sample.size))
            scanned.add(sample.name, shards._named(sample.labels), sample.size)
            scanned.multi_label |= sample.multi_label
    except DataError as error:
        scanned.problems.append(Problem.left_out(path, error))
    table = np.array(places, dtype=np.int64).reshape(-1, 3)
    scanned.reader = Members(shards.paths, tuple(scanned.names), table)
    return scanned


def _by_samples(sides: dict[str, Shards], source: str) -> tuple[dict[str, Shards], list[Decision]]:
    """The parts that the samples of shards name; the shards as they are where they name none."""
    (shards,) = sides.values()
    counts: Counter[str] = Counter()
    with contextlib.suppress(DataError):  # scan() says what is wrong with a shard
        for path in shards.paths:
            if Path(path).is_file():
                counts.update(s.part for s in _from_headers(path, [], shards.labelled))
    if not counts["train"] or not (counts["val"] or counts["test"]):
        return sides, []
    parts = [part for part in ("train", "val", "test") if counts[part]]
    told = listed(f"{counts[part]:,} of {part}" for part in parts)
    said = Decision("split", f"The samples of {source} say their part of the split: {told}.")
    name = f"{source} ({{}})"
    return {part: replace(shards, name=name.format(part), part=part) for part in parts}, [said]


def _by_split(paths: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """The shards of each part of a split, by their names and those of the folders they are in."""
    by_split: dict[str, tuple[str, ...]] = {}
    for path, below in sorted(paths.items()):
        text = f"{below} {PurePosixPath(path).name}".lower()
        words = "".join(char if char.isalpha() else " " for char in text).split()
        split = names.split_of(words)
        by_split[split] = (*by_split.get(split, ()), path)
    return by_split


def _holds_shards(path: Path) -> bool:
    """Whether a folder is one of shards, and not class folders beside what they came in."""
    if MAKER in (_text(str(path / INDEX)) or "") or any(path.glob("train/*.tar")):
        return True
    inside = (file.name for depth in ("*/*", "*/*/*") for file in path.glob(depth))
    return any(path.glob("*.tar")) and not any(map(named_like_an_image, inside))


def _paths(
    source: str, folder: str, index: dict[str, Any] | None, is_pattern: bool
) -> dict[str, str]:
    """Every shard, and what the folder between it and the source is called."""
    if is_pattern:
        return dict.fromkeys(remote.expand_braces(source), "")
    if index is not None:
        return {f"{folder}/{shard['name']}": "" for shard in index["shards"]}
    below = ("", *names.TRAIN, *names.HELD_OUT)
    return {path: name for name in below for path in _tars(f"{folder}/{name}".rstrip("/"))}


def _text(path: str) -> str | None:
    if remote.is_remote(path):
        return remote.text(path)
    place = Path(path)
    return place.read_text(encoding="utf-8", errors="replace") if place.is_file() else None


def _tars(folder: str) -> list[str]:
    if remote.is_remote(folder):
        return remote.list_files(folder, ".tar")
    return sorted(str(path) for path in Path(folder).glob("*.tar") if not path.name.startswith("."))


def read_index(text: str, where: str) -> dict[str, Any]:
    """Reads the content of an index.json; DataError where another program or version wrote it."""
    try:
        index = json.loads(text)
        sound = index["format"] == FORMAT and _is_sound(index)
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        raise DataError(f"{where} is not an index of '{FORMAT}'; write the shards again.")
    return dict(index)


def _is_sound(index: dict[str, Any]) -> bool:
    """Whether an index has what is read of it, and no shard outside of its folder or twice."""
    for shard in index["shards"]:
        rows = [(str, int, int, list), *(tuple(map(type, sample)) for sample in shard["samples"])]
        if type(shard["bytes"]) is not int or len(set(rows)) > 1 or "/" in shard["name"]:
            return False
    known = [shard["name"] for shard in index["shards"]]
    return len(set(known)) == len(known) and type(index["multi_label"]) is bool


def entry(path: Path) -> dict[str, Any]:
    """Makes the entry of a finished shard in index.json, read back from the shard itself."""
    samples = [
        [sample.name, sample.offset, sample.size, list(sample.labels)]
        for sample in _samples(path, str(path), [], labelled=True)
    ]
    return {"name": path.name, "bytes": path.stat().st_size, "samples": samples}


def _from_index(index: dict[str, Any], path: str) -> list[Sample]:
    name = PurePosixPath(path).name
    (shard,) = [shard for shard in index["shards"] if shard["name"] == name]
    if not remote.is_remote(path):
        try:
            size = Path(path).stat().st_size
        except OSError as error:
            raise DataError(f"{path} is in the index but cannot be read: {error}.") from None
        if size != shard["bytes"]:
            raise DataError(
                f"{path} has {size:,} bytes and {shard['bytes']:,} in {INDEX}: it is incomplete "
                f"or was changed. Copy it again."
            )
    multi_label = bool(index["multi_label"])
    return [
        Sample(name, offset, size, tuple(labels), multi_label)
        for name, offset, size, labels in shard["samples"]
    ]


def _from_headers(path: str, problems: list[Problem], labelled: bool) -> list[Sample]:
    """Read the tar headers, or remember what they were."""
    place = remote.local(path)
    try:
        status = place.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    # the name of a fetched shard tells its version; its date tells when it was last used
    changed = 0 if remote.is_remote(path) else status.st_mtime_ns
    kind = "headers 3" if labelled else "headers 3 without labels"
    key = cache.key_of([kind, str(place.absolute()), status.st_size, changed])
    known = cache.load("shards", key)
    if known is not None:
        return [Sample(*row)._replace(labels=tuple(row[3])) for row in known]
    before = len(problems)
    samples = list(_samples(place, path, problems, labelled))
    if len(problems) == before:  # what is wrong is told every time
        cache.store("shards", key, samples)
    return samples


def _samples(path: Path, shown: str, problems: list[Problem], labelled: bool) -> Iterator[Sample]:
    """Every sample of a tar file, in its order."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = (member for member in tar if member.isreg())
            for key, parts in groupby(files, key=lambda member: _key(member.name)):
                try:
                    yield _sample(tar, f"{PurePosixPath(shown).name}/{key}", list(parts), labelled)
                except DataError as error:
                    problems.append(Problem(f"{PurePosixPath(shown).name}/{key}", str(error)))
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{shown} is not a whole, uncompressed tar file ({error}); copy it again, or unpack it."
        ) from error


def _check_end(path: Path, offset: int) -> None:
    """ReadError unless nothing but zeros follows the last member: tarfile takes any block that it
    cannot read for the end, and would leave out in silence what stands behind it."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = file.read(1 << 20)
        if not rest:
            raise tarfile.ReadError("its end is missing")
        while rest:
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"it is damaged after {offset:,} bytes")
            rest = file.read(1 << 20)


def _sample(
    tar: tarfile.TarFile, where: str, parts: list[tarfile.TarInfo], labelled: bool
) -> Sample:
    images = [part for part in parts if named_like_an_image(part.name)]
    if len(images) != 1:
        raise DataError(f"The sample has {len(images)} images, not one.")
    extensions = {PurePosixPath(part.name).name.partition(".")[2].lower(): part for part in parts}
    facts = _facts(_content(tar, extensions["json"])) if "json" in extensions else {}
    values = list(facts.values())
    given = [values[i] for i in names.positions(list(facts), names.LABEL_COLUMNS)]
    if "cls" in extensions:
        given.append(_content(tar, extensions["cls"]).decode("utf-8", "replace").strip())
    # a number in .json beside a name in .cls, or the other way round: the name is better
    given.sort(key=lambda value: not isinstance(value, str | list) or str(value).isdecimal())
    if labelled and (not given or given[0] == ""):
        raise DataError("The sample has no label: neither .cls nor a 'label' in .json.")
    label = given[0] if given else []
    own = label if isinstance(label, list) else [label]
    labels = tuple(sorted({unicodedata.normalize("NFC", str(name)) for name in own}))
    name = facts["path"] if isinstance(facts.get("path"), str) else f"{where}.{_suffix(images[0])}"
    several = isinstance(label, list)
    return Sample(name, images[0].offset_data, images[0].size, labels, several, _part(facts))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # members are regular files
    return file.read()


def _facts(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(data)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _part(facts: dict[str, Any]) -> str:
    """The part of a split that a sample's .json names, by the same columns as a table's."""
    values = [facts[name] for name in facts if names.is_one_of(name, names.SPLIT_COLUMNS)]
    parts = [names.part_of(value) for value in values if isinstance(value, str)]
    return next((part for part in parts if part is not None), "")


def _key(name: str) -> str:
    """'a/b' of 'a/b.seg.png', as webdataset groups files."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    return folder + slash + file.partition(".")[0]


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).suffix.lstrip(".")
