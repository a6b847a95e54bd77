"""Say what goes wrong in an image file in one sentence, and keep the decoders themselves quiet."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitral.errors import DataError, TruncatedError
from vitral.images.limits import PIXEL_LIMIT, too_large

Source = bytes | np.ndarray | Image.Image  # what an image may come as

# Python prints the errors that a library logs where nobody listens; ours are sentences.
logging.getLogger("PIL").addHandler(logging.NullHandler())


# How a file may start that no decoder took, and what to say of it.
_DAMAGED = "The {} header is damaged."
_DAMAGED_OR_ODD = (  # Pillow does not say which: colours in floats, 64 bits, rare compressions
    "The {} header is damaged, or of a kind that Vitral does not read; save it as PNG."
)
_OTHER = "This is {}, not an image that Vitral reads; save it as PNG or JPEG."
_STARTS = (
    (b"\x89PNG", _DAMAGED.format("PNG")),
    (b"\xff\xd8", _DAMAGED.format("JPEG")),
    (b"GIF8", _DAMAGED.format("GIF")),
    (b"II*\0", _DAMAGED_OR_ODD.format("TIFF")),
    (b"MM\0*", _DAMAGED_OR_ODD.format("TIFF")),
    (b"8BPS", _DAMAGED.format("PSD")),
    (b"%PDF", _OTHER.format("a PDF file")),
    (b"%!PS", _OTHER.format("an EPS file")),
    (b"\xc5\xd0\xd3\xc6", _OTHER.format("an EPS file")),
    (b"PK\x03\x04", _OTHER.format("a ZIP file")),
    (b"\x1f\x8b", _OTHER.format("a gzip file")),
    (b"\xff\x0a", _OTHER.format("a JPEG XL file")),
    (b"\0\0\0\x0cJXL ", _OTHER.format("a JPEG XL file")),
    (b"version https://git-lfs", "This is a Git LFS pointer, not the image; run `git lfs pull`."),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")


@contextmanager
def translating(source: Source) -> Iterator[None]:
    """Turns whatever a decoder raises into a DataError with its reason, and hides its warnings."""
    with _quiet:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # decoders raise anything: KeyError, struct.error, SyntaxError
            kind = TruncatedError if _ends_early(error) else DataError
            raise kind(_reason(error, source)) from error


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
        return too_large(int(found.group()) if found else PIXEL_LIMIT)
    if isinstance(error, MemoryError):
        return "The image needs more memory than there is."
    if _ends_early(error):
        return "The image data ends early: the file is truncated."
    text = str(error).strip() or type(error).__name__
    return f"The image data is damaged ({' '.join(text.split())[:120]})."


def _ends_early(error: Exception) -> bool:
    """Whether a decoder says that the bytes of a file stop in the middle of the image."""
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _not_an_image(start: bytes) -> str:
    text = start.lstrip()[:64].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "This is a web page, not an image: probably a failed download."
    if text.startswith((b"<?xml", b"<svg")):
        return "This is an SVG or XML text, not a photograph; save it as PNG."
    if start[4:8] == b"ftyp":  # the family of MP4
        if start[8:12] in _HEIC:
            return "This is a HEIC photo, which Vitral does not read; save it as JPEG."
        if start[8:12] in (b"avif", b"avis"):
            return _DAMAGED.format("AVIF")
        return _OTHER.format("a video or a camera's raw file")
    for magic, sentence in _STARTS:
        if start.startswith(magic):
            return sentence
    if not start.strip(b"\0"):
        return "The file holds only zeros."
    if _TEXT.fullmatch(start):
        return f"This is a text, not an image (it starts with {start[:20].decode()!r})."
    return f"This is not an image that Vitral reads (it starts with {start[:8]!r})."


@cache
def _set_libtiff_handler() -> Callable[[int | None], int | None] | None:
    """libtiff's function that sets where its messages go and gives the old place, if found."""
    try:
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):  # Pillow without libtiff, or a linker that hides it
        return None
    set_handler.argtypes = [ctypes.c_void_p]
    set_handler.restype = ctypes.c_void_p
    return set_handler


class _Quiet:
    """Ignore warnings, and what libtiff prints by itself, while at least one thread is inside.

    warnings.catch_warnings alone is not safe here: two threads that overlap would restore each
    other's filters and leave every warning of the process off for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()
        self._handler: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
                if set_handler := _set_libtiff_handler():
                    self._handler = set_handler(None)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)
                if set_handler := _set_libtiff_handler():
                    set_handler(self._handler)


_quiet = _Quiet()
