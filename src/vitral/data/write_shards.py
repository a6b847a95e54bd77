"""Write a data set as tar shards that Vitral and webdataset both read.

A sample is NUMBER.jpg (the file as it was), NUMBER.cls (the class as a number, for webdataset) and
NUMBER.json (its label by name, and its path). Samples are shuffled once, so that shards read one
after the other are well mixed; the same data set always gives the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vitral.data.headers import read_header
from vitral.data.sources import Dataset, Problem, Split
from vitral.data.tar_shards import FORMAT, INDEX, entry
from vitral.errors import DataError, UsageError
from vitral.images.decode import decode
from vitral.images.decode_errors import translating

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}

_SEED = 0  # of the order inside the shards, which has nothing to do with any training's


def parse_size(text: str) -> int:
    """Reads a number of bytes from words like '256MB'; UsageError for anything else."""
    words = text.strip()
    try:
        size = int(float(words[:-2]) * UNITS[words[-2:].upper()])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"--size is a number with KB, MB or GB, like 256MB, not '{text}'.")
    return size


def pack(
    folder: Path, data: Dataset, *, size: int, tick: Callable[[int, int], None] | None = None
) -> tuple[Problem, ...]:
    """Fills a folder with shards of about `size` bytes and their index.json.

    Returns the samples that could not be read and were left out. Raises DataError for a class whose
    name is not UTF-8.
    """
    for name in data.classes:
        if name != _utf8(name):
            raise DataError(
                f"The class name {_utf8(name)} is not UTF-8, which shards need; rename its folder."
            )
    shards: list[dict[str, object]] = []
    problems: list[Problem] = []
    total = len(data.train) + len(data.val)
    done = 0
    for split in (data.train, data.val):
        samples = iter(split.order(_SEED))
        waiting = next(samples, None)
        while waiting is not None:
            path = folder / f"{split.name}-{len(shards):06}.tar"
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
                while waiting is not None and tar.offset < size:
                    try:
                        for name, content in _files(split, waiting, data.classes):
                            _add(tar, f"{done:09}.{name}", content)
                    except DataError as error:
                        problems.append(Problem.left_out(split.key(waiting), error))
                    done += 1
                    if tick is not None:
                        tick(done, total)
                    waiting = next(samples, None)
            shards.append({"split": split.name, **entry(path)})
    index = {
        "format": FORMAT,
        "classes": list(data.classes),
        "multi_label": data.multi_label,
        "shards": shards,
    }
    (folder / INDEX).write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    return tuple(problems)


def _files(split: Split, index: int, classes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(extension, content) of the files of one sample; the image is read before any is given."""
    source = split.read(index)
    label = split.labels[index]
    image = source if isinstance(source, bytes) else _png(source)
    name = split.key(index)
    read_header(io.BytesIO(image), name)
    facts: dict[str, object] = {"path": _utf8(name)}
    if split.labels.ndim > 1:
        facts["labels"] = [classes[number] for number in np.flatnonzero(label)]
    else:
        facts["label"] = classes[label]
    yield _extension(image), image
    if split.labels.ndim == 1:
        yield "cls", str(int(label)).encode()
    yield "json", json.dumps(facts, ensure_ascii=False).encode()


def _utf8(name: str) -> str:
    """The name of a file; bytes of it that are no UTF-8 as \\xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    decode(image).save(file, "PNG")
    return file.getvalue()


def _extension(image: bytes) -> str:
    """'jpg' for the bytes of a JPEG."""
    with translating(image[:512]):
        kind = (Image.open(io.BytesIO(image)).format or "").lower()
    return {"jpeg": "jpg", "mpo": "jpg", "jpeg2000": "jp2"}.get(kind, kind)
