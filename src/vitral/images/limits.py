"""Limits of a picture, so that the file of a stranger costs neither memory nor minutes."""

from __future__ import annotations

from PIL import Image

from vitral.errors import DataError

PIXEL_LIMIT = 178_956_970  # Pillow's own, past which it speaks of a decompression bomb
SIDE_LIMIT = 1_000_000  # Pillow keeps a pointer and some padding for each row, however short
FILE_LIMIT = 450_000_000  # bytes; with the pixels that they may hold they stay within 2 GiB

# Decoders that take so much memory for a pixel that the common limit would be beyond 2 GiB.
_LIMITS = {"WEBP": 100_000_000, "AVIF": 140_000_000, "JPEG2000": 64_000_000}
_SLOW_LIMIT = 2_000_000  # decoders that Pillow has in Python: some four seconds a megapixel
_SCAN = 10  # bytes of the shortest scan of a JPEG
_PASSES = 4e9  # pixels × scans of a JPEG that decode in some 10 seconds; cameras write ten scans


def pixel_limit(image: Image.Image) -> int:
    """The most pixels of an opened file that are decoded within 2 GiB and 10 seconds."""
    if any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ())):
        return _SLOW_LIMIT
    return _LIMITS.get(image.format or "", PIXEL_LIMIT)


def check_pixels(size: tuple[int, int], limit: int = PIXEL_LIMIT) -> None:
    """Raises DataError if an image of this (width, height) is empty or above the safety limit."""
    count = size[0] * size[1]
    if count > limit:
        raise DataError(too_large(count, limit))
    if max(size) > SIDE_LIMIT:
        raise DataError(
            f"The image is {size[0]} × {size[1]} pixels; no side is above {SIDE_LIMIT}."
        )
    if count < 1:
        raise DataError(f"The image is empty: {size[0]} × {size[1]} pixels.")


def check_bytes(count: int) -> None:
    """Raises DataError if an encoded image of this many bytes is above the safety limit."""
    if count > FILE_LIMIT:
        raise DataError(
            f"The file has {count / 1e6:,.0f} MB, above the safety limit of "
            f"{FILE_LIMIT // 10**6}; save a smaller copy."
        )


def check_scans(source: object, size: tuple[int, int]) -> None:
    """Raises DataError if a JPEG goes over its (width, height) so often that it takes minutes."""
    if not isinstance(source, bytes) or len(source) // _SCAN * size[0] * size[1] <= _PASSES:
        return  # too short to hold so many; counting takes a twentieth of decoding
    scans = source.count(b"\xff\xda")
    if scans * size[0] * size[1] > _PASSES:
        raise DataError(
            f"The JPEG holds {scans} scans of {size[0] * size[1] / 1e6:,.0f} megapixels, more "
            f"than the safety limit; save a new copy."
        )


def too_large(count: int, limit: int = PIXEL_LIMIT) -> str:
    """Makes the sentence for an image of more pixels than are decoded."""
    of_format = "" if limit == PIXEL_LIMIT else " of its file format"
    return (
        f"The image has {count / 1e6:,.0f} megapixels, above the safety limit{of_format} of "
        f"{limit // 10**6}; save a smaller copy."
    )
