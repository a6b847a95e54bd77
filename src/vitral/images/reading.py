"""What goes wrong in an image file, said in one sentence; Pillow's own warnings kept quiet."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitral.errors import DataError

Source = bytes | np.ndarray | Image.Image  # what an image may come as

PIXEL_LIMIT = 178_956_970  # Pillow's own, past which it speaks of a decompression bomb

_KNOWN_STARTS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
}


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Turn whatever a decoder raises into a DataError with its reason, and hide its warnings."""
    with _quiet:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # decoders raise anything: KeyError, struct.error, SyntaxError
            raise DataError(_reason(error, source)) from error


def check_pixels(size: tuple[int, int]) -> None:
    """DataError if an image of this (width, height) is empty or above the safety limit."""
    count = size[0] * size[1]
    if count > PIXEL_LIMIT:
        raise DataError(_too_large(count))
    if count < 1:
        raise DataError(f"The image is empty: {size[0]} × {size[1]} pixels.")


def _too_large(count: int) -> str:
    return (
        f"The image has {count / 1e6:,.0f} megapixels, above the safety limit of "
        f"{PIXEL_LIMIT // 10**6}; save a smaller copy."
    )


def _reason(error: Exception, source: Source) -> str:
    """The sentence for an exception that Pillow or numpy raised while reading."""
    if isinstance(source, np.ndarray):
        return (
            f"An array of shape {source.shape} and type {source.dtype} is not an image; "
            f"give uint8 (height, width, 3)."
        )
    if isinstance(source, Image.Image):
        return f"The PIL image cannot be used ({str(error) or type(error).__name__})."
    if not isinstance(source, bytes):
        return f"An image is bytes, an array or a PIL image, not {type(source).__name__}."
    if not source:
        return "The file is empty."
    if isinstance(error, UnidentifiedImageError):
        return _not_an_image(source[:512])
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", str(error))
        return _too_large(int(found.group()) if found else PIXEL_LIMIT)
    if isinstance(error, MemoryError):
        return "The image needs more memory than there is."
    text = str(error).strip() or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "The image data ends early: the file is truncated."
    return f"The image data is damaged ({' '.join(text.split())[:120]})."


def _not_an_image(start: bytes) -> str:
    text = start.lstrip()[:64].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "This is a web page, not an image: probably a failed download."
    if text.startswith((b"<?xml", b"<svg")):
        return "This is an SVG or XML text, not a photograph; save it as PNG."
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc", b"ftypmsf1"):
        return "This is a HEIC photo, which Vitral does not read; save it as JPEG."
    for magic, name in _KNOWN_STARTS.items():
        if start.startswith(magic):
            if name in ("PNG", "JPEG", "GIF"):
                return f"The {name} header is damaged."
            return f"This is a {name} file, not an image that Vitral reads; save it as PNG."
    if not start.strip(b"\0"):
        return "The file holds only zeros."
    return f"This is not an image that Vitral reads (it starts with {start[:8]!r})."


class _Quiet:
    """Ignore warnings while at least one thread is inside.

    warnings.catch_warnings alone is not safe here: two threads that overlap would restore each
    other's filters and leave every warning of the process off for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()
