"""Read the header of an image file, and see whether its last bytes are there.

Nothing is decoded unless the end marker of a JPEG or PNG is missing: some cameras append data of
their own, so a missing marker is settled by decoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from vitral.data.sources import Code, Header
from vitral.errors import DataError, TruncatedError
from vitral.images import tiff
from vitral.images.decode import decode, formats, orientation
from vitral.images.decode_errors import RAW, TRUNCATED, not_an_image, of_tiff, translating
from vitral.images.limits import check_bytes, check_pixels, pixel_limit

_ENOUGH = 1 << 16  # bytes of a file that no decoder takes, which tell what it is
_SMALL = 256  # a file that ends within this many bytes of its end marker is complete
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_SAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats that share an extension
_MORE = {".heic": "HEIF", ".heif": "HEIF", ".jpe": "JPEG", ".mpo": "JPEG"}


def read_header(file: BinaryIO, name: str) -> Header:
    """Reads the header of an image called `name`; DataError, with the reason, where it cannot.

    Header.remarks tells an extension of another format, an EXIF turn, more than 8 bits per
    channel, and transparency.
    """
    try:
        start = file.read(512)
        with translating(start):
            try:
                image = Image.open(file, formats=formats())
            except UnidentifiedImageError:
                return _of_bands(file, start)
            if image.format == "TIFF" and (header := tiff.read_header(file)) and header.raw:
                raise DataError(RAW)
            check_pixels(image.size, pixel_limit(image))
            remarks = tuple(_remarks(image, start, name))
        marker = _END_MARKERS.get(image.format or "")
        check_bytes(file.seek(0, os.SEEK_END))
        file.seek(max(0, file.tell() - _SMALL))
        if marker and marker not in file.read():
            file.seek(0)
            decode(file.read())
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror or error}).") from error
    width, height = image.size
    if _turn(image) > 4 and image.format != "TIFF":  # of which Pillow tells the upright size
        height, width = width, height
    return Header(height, width, remarks)


def _of_bands(file: BinaryIO, start: bytes) -> Header:
    """The header of a TIFF of which three bands can be chosen; DataError for any other file."""
    header = tiff.read_header(file) if tiff.is_tiff(start) else None
    if header is None:
        file.seek(0)
        raise DataError(not_an_image(file.read(_ENOUGH)))
    if header.obstacle:
        raise DataError(of_tiff(header))
    check_pixels((header.width, header.height))
    if file.seek(0, os.SEEK_END) < header.end:
        raise TruncatedError(TRUNCATED)
    height = header.height
    width = header.width
    if header.orientation > 4:
        height, width = width, height
    return Header(height, width, ("16-bit",) if header.bits > 8 else (), str(header))


@cache
def suffixes() -> dict[str, str]:
    """Maps each extension to the format that it promises: '.jpg' to JPEG."""
    readable = set(formats())
    registered = Image.registered_extensions().items()
    return {suffix: kind for suffix, kind in registered if kind in readable} | _MORE


def _remarks(image: Image.Image, start: bytes, name: str) -> Iterator[Code]:
    kind = image.format or ""
    promised = suffixes().get(PurePosixPath(name).suffix.lower())
    if "." in PurePosixPath(name).name and promised not in (kind, _SAME.get(kind, kind)):
        yield "extension"
    if _turn(image) > 1:
        yield "rotated"
    if _deep(image, start):
        yield "16-bit"
    if image.has_transparency_data:
        yield "transparent"


def _turn(image: Image.Image) -> int:
    # getexif() decodes a whole PNG in search of a block that may stand behind the pixels
    known = image.format in ("JPEG", "MPO", "TIFF", "WEBP") or "exif" in image.info
    return orientation(image) if known else 1


def _deep(image: Image.Image, start: bytes) -> bool:
    """Whether a channel has more than 8 bits, also where Pillow has already dropped them."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    if image.format == "PNG":
        return start[24:25] == b"\x10"
    bits = getattr(image, "tag_v2", {}).get(258, 8) if image.format == "TIFF" else 8
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8
