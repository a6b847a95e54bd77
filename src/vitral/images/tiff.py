"""TIFFs of any number of bands: what the header says, and three chosen bands as a picture.

Pillow opens the kinds of pixels that a screen shows. A satellite's file has thirteen bands of 16
bits, stored pixel by pixel or band by band; either way its bytes are those of a grey picture of 8
bits (26 times as wide, or one for each band, twice as wide), which Pillow and its libtiff read and
decompress. So a directory of tags that says that is written behind the same bytes, and nothing
else decodes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vitral.errors import DataError
from vitral.images.limits import check_pixels

Kind = Literal["unsigned", "signed", "float", "complex"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS: dict[int, Kind] = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
_WORDS = {"unsigned": "", "signed": "signed ", "float": "float ", "complex": "complex "}
_READ = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, deflate, PackBits, deflate, Zstandard
_NAMES = {6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50001: "WebP"}
_DIFFERENCES = 2  # the predictor that stores each value less the one to its left, of its band
_FLOAT_DIFFERENCES = 3  # the same of bytes, of which a row has all the first ones first
_MOST_BANDS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class TiffHeader:
    """The first picture of a TIFF, as its tags describe it.

    Attributes:
        height, width: pixels, as stored.
        bands: values of a pixel.
        bits, kind: of each value.
        planar: whether each band is stored for itself.
        compression, predictor, orientation: the numbers of these tags.
        raw: whether it is a camera's raw file, whose first picture is a small preview.
        big: whether it is a BigTIFF.
        tags: all of them.
    """

    height: int
    width: int
    bands: int
    bits: int
    kind: Kind
    planar: bool
    compression: int
    predictor: int
    orientation: int
    raw: bool
    big: bool
    tags: Any

    def __str__(self) -> str:
        bands = "1 band" if self.bands == 1 else f"{self.bands} bands"
        return f"{bands} of {_WORDS[self.kind]}{self.bits} bits"

    @property
    def end(self) -> int:
        """Counts the bytes of a file that has all its pixels."""
        places = (324, 325) if 324 in self.tags else (273, 279)
        offsets, counts = (_numbers(self.tags, place) for place in places)
        return max(offset + count for offset, count in zip(offsets, counts, strict=False))

    @property
    def obstacle(self) -> str:
        """Says why its bands cannot be read; "" where they can."""
        bits = (16, 32, 64) if self.kind == "float" else (8, 16, 32, 64)
        if self.kind == "complex" or self.bits not in bits:
            return "Vitral reads whole numbers of 8, 16, 32 and 64 bits and floats of 16, 32 and 64"
        if self.compression not in _READ:
            name = _NAMES.get(self.compression, f"number {self.compression}")
            return f"Vitral does not read its compression ({name})"
        if self.big:
            return "Vitral does not read bands of a BigTIFF"
        return ""


def is_tiff(start: bytes) -> bool:
    """Tells whether a file that starts so is a TIFF."""
    return start[:4] in _MAGIC


def read_header(file: BinaryIO) -> TiffHeader | None:
    """Reads the tags of the first picture; None where they are damaged. The file is sought."""
    try:
        file.seek(0)
        start = file.read(16)
        big = b"+" in start[2:4]
        tags = ImageFileDirectory_v2(start if big else start[:8])
        file.seek(tags.next)
        tags.load(file)
        bits = _numbers(tags, 258, 1)
        bands = _numbers(tags, 277, len(bits))[0]
        header = TiffHeader(
            height=_numbers(tags, 257)[0],
            width=_numbers(tags, 256)[0],
            bands=bands,
            bits=max(bits),
            kind=_KINDS.get(_numbers(tags, 339, 1)[0], "unsigned"),
            planar=bands > 1 and _numbers(tags, 284, 1)[0] == 2,
            compression=_numbers(tags, 259, 1)[0],
            predictor=_numbers(tags, 317, 1)[0],
            orientation=_numbers(tags, 274, 1)[0],
            raw=start[8:10] == b"CR"  # Canon's; then DNG, then Nikon's and Sony's
            or 50706 in tags
            or (330 in tags and _numbers(tags, 254, 0)[0] == 1),
            big=big,
            tags=tags,
        )
        same = len(set(bits)) == 1 and len(set(_numbers(tags, 339, 1))) == 1
        return header if same and 0 < bands <= _MOST_BANDS else None
    except Exception:  # a damaged directory makes Pillow raise anything
        return None


def read_bands(data: bytes, header: TiffHeader, bands: Sequence[int]) -> np.ndarray:
    """Reads bands, counted from 1: (height, width, len(bands)) of the file's own type.

    Raises DataError for a band that is not there and a kind of pixels that is not read; what Pillow
    raises for damage.
    """
    if max(bands) > header.bands:
        raise DataError(
            f"The TIFF has {header}, and band {max(bands)} is asked for (images.bands counts "
            f"from 1)."
        )
    if header.obstacle:
        raise DataError(f"The TIFF has {header}; {header.obstacle}.")
    check_pixels((header.width * (1 if header.planar else header.bands), header.height))
    if header.planar:
        read = {band: _values(data, header, band)[:, :, 0] for band in set(bands)}
        return np.stack([read[band] for band in bands], axis=-1)
    return _values(data, header, None)[:, :, [band - 1 for band in bands]]


def _values(data: bytes, header: TiffHeader, band: int | None) -> np.ndarray:
    """The values of one band, or of all that stand beside one another: (height, width, bands)."""
    count = 1 if header.planar else header.bands
    each = header.bits // 8
    order = "<" if data[:2] == b"II" else ">"
    kind = np.dtype(f"{order}{header.kind[0]}{each}".replace("s", "i"))
    rows = _rows(data, header, band, count * each)
    across = _numbers(header.tags, 322, header.width)[0]
    parts = []
    for left in range(0, header.width, across):  # a predictor begins anew in each tile
        part = np.ascontiguousarray(rows[:, left * count * each : (left + across) * count * each])
        if header.predictor == _FLOAT_DIFFERENCES:
            part = part.reshape(header.height, -1, count).cumsum(axis=1, dtype=np.uint8)
            planes = part.reshape(header.height, each, -1).transpose(0, 2, 1)
            values = np.ascontiguousarray(planes).view(f">f{each}")
        else:
            values = part.view(kind)
        values = values.astype(kind.newbyteorder("=")).reshape(header.height, -1, count)
        if header.predictor == _DIFFERENCES:
            values = values.cumsum(axis=1, dtype=values.dtype)
        parts.append(values)
    return np.concatenate(parts, axis=1)[:, : header.width]


def _rows(data: bytes, header: TiffHeader, band: int | None, times: int) -> np.ndarray:
    """The bytes of every row, decompressed: uint8 (height, a whole number of tiles)."""
    tiled = 324 in header.tags
    offsets = _numbers(header.tags, 324 if tiled else 273)
    counts = _numbers(header.tags, 325 if tiled else 279)
    if band is not None:
        each = len(offsets) // header.bands
        offsets = offsets[(band - 1) * each : band * each]
        counts = counts[(band - 1) * each : band * each]
    across = _numbers(header.tags, 322, header.width)[0]
    width = -(-header.width // across) * across * times
    tags = {256: [width], 257: [header.height], 258: [8], 259: [header.compression]}
    tags |= {262: [1], 277: [1], 284: [1], 317: [1], 339: [1]}
    if tiled:
        tags |= {322: [across * times], 323: _numbers(header.tags, 323)}
        tags |= {324: offsets, 325: counts}
    else:
        tags |= {273: offsets, 278: _numbers(header.tags, 278, header.height), 279: counts}
    with Image.open(io.BytesIO(_with_directory(data, tags)), formats=("TIFF",)) as image:
        return np.asarray(image)


def _with_directory(data: bytes, tags: dict[int, list[int]]) -> bytes:
    """The file with a directory of these tags (all as 32-bit numbers) in place of its own."""
    order = "<" if data[:2] == b"II" else ">"
    at = len(data) + len(data) % 2
    beyond = at + 2 + 12 * len(tags) + 4
    entries = b""
    extra = b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            extra += packed
            packed = struct.pack(f"{order}I", beyond + len(extra) - len(packed))
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = data[:4] + struct.pack(f"{order}I", at)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra
    return b"".join([head, data[8:], bytes(at - len(data)), directory])


def _numbers(tags: Any, tag: int, *otherwise: int) -> list[int]:
    """The whole numbers of a tag, or what stands for it where it is not there."""
    if tag not in tags and otherwise:
        return list(otherwise)
    value = tags[tag]
    return [int(each) for each in value] if isinstance(value, tuple) else [int(value)]
