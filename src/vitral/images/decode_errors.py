"""Say what goes wrong in an image file in one sentence, and keep the decoders themselves quiet."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from vitral.errors import DataError, TruncatedError
from vitral.images import tiff
from vitral.images.limits import PIXEL_LIMIT, too_large

Source = bytes | np.ndarray | Image.Image  # what an image may come as

# Python prints the errors that a library logs where nobody listens; ours are sentences.
logging.getLogger("PIL").addHandler(logging.NullHandler())


_DAMAGED = "The {} header is damaged."
_DAMAGED_OR_ODD = (  # Pillow does not say which
    "The {} header is damaged, or of a kind that Vitral does not read; save it as PNG."
)
_OTHER = "This is {}, not an image that Vitral reads; save it as PNG or JPEG."
_MEDICAL = (
    "This is {}, which Vitral does not read; write its pictures as PNG, with the window of values "
    "that a reader looks at."
)
_ARRAY = "This is {}, not an image; write its pictures as PNG, or as TIFF with their bands."
_VIDEO = "This is {}, not a picture; save its frames as JPEG: ffmpeg -i FILE frame_%05d.jpg."
TRUNCATED = "The image data ends early: the file is truncated."
RAW = "This is a camera's raw file, of which only a preview could be read; develop it to JPEG."
HEIC_MISSING = (
    "This is a HEIC photo; reading it takes pillow-heif: pip install 'vitral[heif]'. Or save it as "
    "JPEG."
)
_AVIF_MISSING = (
    "This is an AVIF picture; reading it takes Pillow 11.3 or newer: pip install -U pillow."
)

_PAGE = "This is a web page, not an image: probably a failed download."
_SVG = "This is an SVG or XML text, not a photograph; save it as PNG."
_TEXTS = {b"<!doctype html": _PAGE, b"<html": _PAGE, b"<?xml": _SVG, b"<svg": _SVG}

# How a file may start that no decoder took, and what to say of it: (place, bytes, sentence).
_STARTS = (
    (0, b"GIF8", _DAMAGED.format("GIF")),
    (0, b"BM", _DAMAGED_OR_ODD.format("BMP")),
    (0, b"RIFF....WEBP", _DAMAGED.format("WebP")),
    (0, b"\0\0\0\x0cjP  ", _DAMAGED_OR_ODD.format("JPEG 2000")),
    (0, b"%PDF", _OTHER.format("a PDF file")),
    (0, b"%!PS", _OTHER.format("an EPS file")),
    (0, b"\xc5\xd0\xd3\xc6", _OTHER.format("an EPS file")),
    (0, b"PK\x03\x04", _OTHER.format("a ZIP file")),
    (0, b"7z\xbc\xaf", _OTHER.format("a 7-Zip file")),
    (0, b"Rar!", _OTHER.format("a RAR file")),
    (257, b"ustar", _OTHER.format("a tar file")),
    (0, b"\xff\x0a", _OTHER.format("a JPEG XL file")),
    (0, b"\0\0\0\x0cJXL ", _OTHER.format("a JPEG XL file")),
    (0, b"gimp xcf", _OTHER.format("a GIMP file")),
    (0, b"v/1\x01", _OTHER.format("an OpenEXR file")),
    (0, b"#?RADIANCE", _OTHER.format("a Radiance HDR file")),
    (0, b"PAR1", _OTHER.format("a parquet file")),
    (0, b"SQLite format 3", _OTHER.format("a database")),
    (128, b"DICM", _MEDICAL.format("a DICOM file")),
    (344, b"n+1\0", _MEDICAL.format("a NIfTI file")),
    (344, b"ni1\0", _MEDICAL.format("a NIfTI file")),
    (4, b"n+2\0", _MEDICAL.format("a NIfTI file")),
    (0, b"NRRD", _MEDICAL.format("an NRRD file")),
    (0, b"ObjectType", _MEDICAL.format("a MetaImage file")),
    (0, b"\x93NUMPY", _ARRAY.format("an array of NumPy")),
    (0, b"\x89HDF", _ARRAY.format("an HDF5 file")),
    (0, b"CDF\x01", _ARRAY.format("a NetCDF file")),
    (0, b"MATLAB", _ARRAY.format("a MATLAB file")),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"IIU\0", RAW),
    (0, b"FOVb", RAW),
    (0, b"\0MRM", RAW),
    (0, b"RIFF....AVI ", _VIDEO.format("an AVI video")),
    (0, b"\x1aE\xdf\xa3", _VIDEO.format("a Matroska or WebM video")),
    (0, b"\0\0\x01\xba", _VIDEO.format("an MPEG video")),
    (0, b"\0\0\x01\xb3", _VIDEO.format("an MPEG video")),
    (0, b"FLV\x01", _VIDEO.format("a Flash video")),
    (0, b"0&\xb2u\x8ef", _VIDEO.format("a Windows Media video")),
    (
        0,
        b"version https://git-lfs",
        "This is a Git LFS pointer, not the image; run `git lfs pull`.",
    ),
)
# What follows b"ftyp" in the family of MP4, to which pictures belong as well.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
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
        return not_an_image(source)
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", str(error))
        return too_large(int(found.group()) if found else PIXEL_LIMIT)
    if isinstance(error, MemoryError):
        return "The image needs more memory than there is."
    if _ends_early(error):
        return TRUNCATED
    text = str(error).strip() or type(error).__name__
    return f"The image data is damaged ({' '.join(text.split())[:120]})."


def _ends_early(error: Exception) -> bool:
    """Whether a decoder says that the bytes of a file stop in the middle of the image."""
    said = str(error).lower()
    return isinstance(error, EOFError) or "truncated" in said or "unexpected end of file" in said


def not_an_image(data: bytes) -> str:
    """Says in a sentence what the bytes of a file are that no decoder takes; 64 kB are enough."""
    if not data:
        return "The file is empty."
    start = data[:512]
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    for beginning, sentence in _TEXTS.items():
        if text.startswith(beginning):
            return sentence
    if start[4:8] == b"ftyp":
        return _of_mp4(start[8:12])
    if start.startswith((b"\x89PNG", b"\xff\xd8", b"8BPS")) or tiff.is_tiff(start):
        return _of_header(data)
    if start.startswith(b"\x1f\x8b"):
        return _of_gzip(data)
    for place, magic, sentence in _STARTS:
        if re.match(re.escape(magic).replace(rb"\.\.\.\.", b"...."), start[place:], re.DOTALL):
            return sentence
    return _unknown(start)


def _unknown(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "The file holds only zeros."
    if _TEXT.fullmatch(start):
        return f"This is a text, not an image (it starts with {start[:20].decode()!r})."
    return f"This is not an image that Vitral reads (it starts with {start[:8]!r})."


def _of_mp4(brand: bytes) -> str:
    if brand in _HEIC:
        installed = importlib.util.find_spec("pillow_heif") is not None
        return _DAMAGED.format("HEIC") if installed else HEIC_MISSING
    if brand in _AVIF:
        return _DAMAGED.format("AVIF") if features.check("avif") else _AVIF_MISSING
    if brand == b"crx ":
        return RAW
    return _VIDEO.format("a video")


def _of_header(data: bytes) -> str:
    """What keeps Pillow from a file of a format that it reads: damage, or pixels of another kind.

    Such headers are sound where they can be read on; then nothing is said of damage.
    """
    if data.startswith(b"\xff\xd8"):
        frame = re.search(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..(.)", data, re.DOTALL)
        if frame is not None and frame[1][0] in (12, 16):
            return f"The JPEG has {frame[1][0]} bits, of which Vitral reads 8; save it as PNG."
        return _DAMAGED.format("JPEG")
    if data.startswith(b"8BPS"):
        known = len(data) >= 26 and data[4:6] in (b"\0\1", b"\0\2")
        how = "a Photoshop file of a kind that Vitral does not read (8 bits alone)"
        return _OTHER.format(how) if known else _DAMAGED.format("PSD")
    if data.startswith(b"\x89PNG"):
        return _DAMAGED.format("PNG")
    header = tiff.read_header(io.BytesIO(data))
    return _DAMAGED.format("TIFF") if header is None else of_tiff(header)


def of_tiff(header: tiff.TiffHeader) -> str:
    """Says what a sound TIFF is whose pixels are of no kind that a screen shows."""
    if header.obstacle:
        return f"The TIFF has {header}; {header.obstacle}: save it as PNG, or as another TIFF."
    return (
        f"The TIFF has {header}, and a picture has 1, 3 or 4 of 8 or 16 bits. Three of them can be "
        f"chosen, counted from 1: --set images.bands=[3,2,1]; or write three as an RGB picture."
    )


def _of_gzip(data: bytes) -> str:
    try:
        inside = zlib.decompressobj(31).decompress(data, 512)
    except zlib.error:
        inside = b""
    if inside[344:348] in (b"n+1\0", b"ni1\0") or inside[4:8] == b"n+2\0":
        return _MEDICAL.format("a NIfTI file")
    if b"<svg" in inside:
        return _SVG
    return _OTHER.format("a gzip file")


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
