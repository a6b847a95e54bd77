"""Find pictures that are the same, or nearly so: re-saved, resized, a little brighter.

Every picture becomes a thumbnail of 16 × 16 pixels. Its 64-bit perceptual hash says which of the
64 lowest frequencies (2-D cosine transform of the brightness) exceed their median; two pictures
are compared only if their hashes differ in at most 6 bits, and are near-duplicates if the
correlation of their thumbnails is at least 0.97 as well. Two hashes that differ in at most 6 of
64 bits agree in at least one of 7 bands (pigeonhole principle), so that only pictures with a
band in common are ever compared: the work grows with the number of such pairs, not with n².

Among 13,394 photographs of Imagenette no pair was claimed, among the 10,000 test pictures of
CIFAR-10 eight, all of them copies to the eye. Of pictures saved again as JPEG of quality 30, at
half the size, with less contrast or in another aspect ratio at least 90 % are found; a picture of
which 5 % are cut off at each side is not.
A picture without structure (one colour) has no near-duplicates, only equal files.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
from PIL import Image

from vitral import machine
from vitral.data.sources import Header, Problem, ScanResult
from vitral.errors import DataError
from vitral.images.decode import Picture
from vitral.specs import ImageSpec

Tick = Callable[[int, int], None]  # called with (pictures done, pictures in all)

SIDE = 16  # of a thumbnail, in pixels
DISTANCE = 6  # bits of the hash that may differ
CORRELATION = 0.97  # of two thumbnails, at least
FLAT = 4.0  # standard deviation of the brightness, in levels of 255, below which all looks alike

_VALUES = 3 * SIDE * SIDE
_LARGE = 1 << 24  # pictures with more pixels are decoded one at a time, for the sake of memory
_BITS = np.array_split(np.arange(64), DISTANCE + 1)
_AHEAD = 4096  # pictures that are waiting for a thread
_PAIRS = 1 << 20  # pairs of hashes that are compared at a time
_SLICE = 1 << 13  # thumbnails that are widened at a time


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Thumbnails of every picture of a source, and the digests of their files.

    Attributes:
        images: uint8 (n, 16, 16, 3); zeros where a picture cannot be decoded.
        contents: 16 bytes each that tell the content of the file; b"" where it cannot be read.
        failed: those that cannot be decoded, by row.
        remarks: on pictures of which nothing, or nothing but one colour, would be seen.
    """

    images: np.ndarray
    contents: list[bytes]
    failed: dict[int, Problem]
    remarks: list[Problem] = field(default_factory=list)


def thumbnails_of(scanned: ScanResult, tick: Tick | None = None) -> Thumbnails:
    """Decodes every picture, JPEG at the coarsest scale, on as many threads as there are cores."""
    count = len(scanned.names)
    one_large = threading.Lock()
    thumbnails = Thumbnails(np.zeros((count, SIDE, SIDE, 3), np.uint8), [b""] * count, {})
    see = partial(_see, scanned, one_large)
    with ThreadPoolExecutor(min(16, machine.cores())) as threads:
        for start in range(0, count, _AHEAD):  # map() would queue a million at once
            ahead = range(start, min(start + _AHEAD, count))
            for row, seen in zip(ahead, threads.map(see, ahead), strict=True):
                thumbnails.contents[row] = seen.digest
                thumbnails.remarks.extend(seen.remarks)
                if seen.failed is not None:
                    thumbnails.failed[row] = seen.failed
                elif seen.thumbnail is not None:
                    thumbnails.images[row] = seen.thumbnail
                if tick is not None:
                    tick(row + 1, count)
    return thumbnails


def content(data: bytes | np.ndarray) -> bytes:
    """Digests the content of a file, so that equal files have the same 16 bytes."""
    return hashlib.blake2b(bytes(data), digest_size=16).digest()


def groups(thumbnails: np.ndarray, contents: list[bytes]) -> np.ndarray:
    """Finds for each picture the first that it is a copy of, near or exact, or itself: int64 (n,).

    Copies of copies are copies too.

    Args:
        thumbnails: uint8 (n, 16, 16, 3).
        contents: what `content` gives for each file; b"" is equal to nothing.
    """
    group_ids = equals(contents)
    flat = thumbnails.reshape(len(thumbnails), _VALUES)
    rows = np.flatnonzero(_structured(thumbnails))
    hashes = perceptual_hashes(thumbnails[rows])
    for left, right in _candidates(hashes):
        close = count_bits(hashes[left] ^ hashes[right]) <= DISTANCE
        one = rows[left[close]]
        other = rows[right[close]]
        for part in _slices(len(one)):
            apart = group_ids[one[part]] != group_ids[other[part]]
            pairs = one[part][apart], other[part][apart]
            alike = _correlation(flat[pairs[0]], flat[pairs[1]]) >= CORRELATION
            if alike.any():
                group_ids = merged(group_ids, pairs[0][alike], pairs[1][alike])
    return group_ids


def count_bits(values: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each number: uint64 (n,) -> uint8 (n,)."""
    if hasattr(np, "bitwise_count"):  # of numpy 2, and ten times as fast
        return np.bitwise_count(values)
    bits = np.unpackbits(np.ascontiguousarray(values)[..., None].view(np.uint8), axis=-1)
    return bits.sum(axis=-1, dtype=np.uint8)


def equals(contents: list[bytes]) -> np.ndarray:
    """Finds for each content the first row with the same: int64 (n,); b"" is equal to nothing."""
    first: dict[bytes, int] = {}
    group_ids = [first.setdefault(c, row) if c else row for row, c in enumerate(contents)]
    return np.array(group_ids, dtype=np.int64)


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Hashes thumbnails, uint8 (n, 16, 16, 3), to uint64 (n,): similar ones differ in few bits.

    Whole numbers throughout: every machine gets the same hash, and so makes the same split.
    """
    # row k is the k-th cosine of the transform; 9 are needed for 64 without the constant one
    angles = np.pi * np.outer(np.arange(9), np.arange(SIDE) + 0.5) / SIDE
    cosines = np.rint(1024 * np.cos(angles)).astype(np.int64)
    down, across = np.divmod(np.arange(81), 9)
    chosen = ((down < 8) & (across < 8) & (down + across > 0)) | ((down == 0) & (across == 8))
    hashes = np.empty(len(thumbnails), np.uint64)
    for part in _slices(len(thumbnails)):
        bright = thumbnails[part].sum(axis=3, dtype=np.int64)
        waves = (cosines @ bright @ cosines.T).reshape(len(bright), 81)[:, chosen]
        above = waves > np.median(waves, axis=1, keepdims=True)
        packed = np.packbits(above, axis=1, bitorder="little")
        hashes[part] = np.ascontiguousarray(packed).view("<u8")[:, 0]
    return hashes


def _structured(thumbnails: np.ndarray) -> np.ndarray:
    """bool (n,): pictures that are not all of one brightness."""
    structured = np.empty(len(thumbnails), bool)
    for part in _slices(len(thumbnails)):
        bright = thumbnails[part].sum(axis=3, dtype=np.int64)
        structured[part] = bright.std(axis=(1, 2)) >= 3 * FLAT
    return structured


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _SLICE) for start in range(0, count, _SLICE))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Seen:
    """What was seen of one picture."""

    digest: bytes
    thumbnail: np.ndarray | None = None
    failed: Problem | None = None
    remarks: tuple[Problem, ...] = ()


def _see(scanned: ScanResult, one_large: threading.Lock, row: int) -> _Seen:
    """The content and the thumbnail of one picture, or why there is none."""
    header = scanned.headers[row]
    name = scanned.names[row]
    large = header is not None and header.height * header.width > _LARGE
    digest = b""
    with one_large if large else nullcontext():
        try:
            data = scanned.reader.read(row)
            digest = content(data)
            spec = None if header is None else _any_bands(header)
            picture = Picture(data, spec)
            image = picture.decode((2 * SIDE, 2 * SIDE))
            small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
            # bands are seen here without their range of values, in which all may be black
            remarks = () if spec else tuple(_remarks(name, picture, image, np.asarray(small)))
        except DataError as error:
            # the error itself would hold on to its pictures
            return _Seen(digest=digest, failed=Problem.left_out(name, error))
    return _Seen(digest=digest, thumbnail=np.asarray(small), remarks=remarks)


def _any_bands(header: Header) -> ImageSpec | None:
    """How to see a TIFF of which bands have to be chosen; None for every other picture."""
    bands = header.three_bands()
    return None if bands is None else ImageSpec(bands=bands)


def _remarks(
    name: str, picture: Picture, image: Image.Image, small: np.ndarray
) -> Iterator[Problem]:
    if picture.unseen:
        reason = "It is transparent everywhere; nothing of it would be seen."
        yield Problem(name, reason, "unseen")
    if np.ptp(small.reshape(-1, 3), axis=0).any():  # most end here, without the whole picture
        return
    levels = np.asarray(image).reshape(-1, 3)
    if not np.ptp(levels, axis=0).any():
        colour = "#" + bytes(levels[0].tolist()).hex()
        yield Problem(name, f"It is of one colour, {colour}: nothing is seen in it.", "flat")


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows, a part at a time, of which the hashes agree in a band; some come twice."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)
    for band in _BITS:
        keys = bits[:, band] @ (1 << np.arange(len(band)))
        order = np.argsort(keys, kind="stable")
        bounds = np.flatnonzero(np.diff(keys[order], prepend=-1, append=1 << len(band)))
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        pairs = 0
        for start, stop in pairwise(bounds.tolist()):
            for first in range(start, stop - 1):  # each with all behind it in its bucket
                others = order[first + 1 : stop]
                waiting.append((np.full(len(others), order[first]), others))
                pairs += len(others)
                if pairs > _PAIRS:
                    yield _joined(waiting)
                    waiting = []
                    pairs = 0
        if waiting:
            yield _joined(waiting)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    left = np.concatenate([part[0] for part in parts])
    right = np.concatenate([part[1] for part in parts])
    return np.minimum(left, right), np.maximum(left, right)


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64 (m,) between thumbnails, uint8 (m, 768) of pixels and colours."""

    def dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:  # at most 768 · 255² < 2³¹
        return np.einsum("ij,ij->i", one, other, dtype=np.int32, casting="unsafe").astype(np.int64)

    sums = [values.sum(axis=1, dtype=np.int64) for values in (left, right)]
    both = _VALUES * dot(left, right) - sums[0] * sums[1]
    norms = [
        _VALUES * dot(values, values) - total * total
        for values, total in zip((left, right), sums, strict=True)
    ]
    return both / np.maximum(np.sqrt(norms[0].astype(float) * norms[1]), 1.0)


def merged(group_ids: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`group_ids` with the groups of each pair joined."""
    from scipy.sparse import coo_array  # noqa: PLC0415 - a fifth of a second, where there are copies
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    count = len(group_ids)
    edges = np.append(np.arange(count), left), np.append(group_ids, right)
    edges = edges[0].astype(np.int32), edges[1].astype(np.int32)  # scipy 1.11 knows no others
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]
