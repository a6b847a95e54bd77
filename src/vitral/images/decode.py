"""Decode the bytes of an image file to an upright RGB picture; nothing else decodes."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from vitral.errors import DataError
from vitral.images import tiff
from vitral.images.decode_errors import RAW, Source, translating
from vitral.images.limits import check_bytes, check_pixels, check_scans, pixel_limit
from vitral.specs import ImageSpec

# Ghostscript (EPS), Windows (WMF) and programs that the user installed (stubs) run foreign code; an
# IPTC file is opened by Pillow as a wrapper around a file of any format, EPS too.
_REFUSED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "IPTC"}

# Bytes that a decoder is fed at once. Pillow's own 64 kB make JPEG stop and begin again.
_FEED = 1 << 20

# Above this many pixels an image is halved in whole steps before it is resized: time and memory.
LARGE = 1 << 25

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def formats() -> tuple[str, ...]:
    """Lists the file formats that Vitral reads, as Pillow names them; the common ones first."""
    Image.init()
    with contextlib.suppress(ImportError):  # HEIC, where the extra `heif` is installed
        importlib.import_module("pillow_heif").register_heif_opener()
    common = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
    others = [name for name in Image.ID if name not in common and name not in _REFUSED]
    return tuple(name for name in common + others if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged block must not cost the picture
        return 1
    return value if value in _TURNS else 1


class Picture:
    """An image that is opened and not yet decoded, so that only what is needed is decoded.

    Attributes:
        size: (height, width) of the upright image, in pixels, before any shrinking.
        unseen: whether it is transparent everywhere, so that the colours beneath were taken; of a
            JPEG, which is never, known from the beginning.

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """

    def __init__(self, source: Source, spec: ImageSpec | None = None) -> None:
        with translating(source):
            check_bytes(len(source) if isinstance(source, bytes) else 0)
            self._image = _opened(source, spec)
            check_pixels(self._image.size, pixel_limit(self._image))
            self._lazy = self._image.format in ("JPEG", "MPO")
            self.unseen = False
            if self._lazy:
                check_scans(source, self._image.size)
                if isinstance(self._image, ImageFile.ImageFile):
                    self._image.decodermaxblock = _FEED
            else:  # other formats tell their orientation only once they are loaded
                self._image.load()
                self.unseen = _is_unseen(self._image)
                self._image = _upright_rgb(self._image, spec)
            width, height = self._image.size
            turned = self._lazy and orientation(self._image) > 4
            self.size = (width, height) if turned else (height, width)
        self._source = source

    def decode(self, shrink_to: tuple[int, int] | None = None) -> Image.Image:
        """Decodes the upright RGB image, as the function decode does. Call it once."""
        with translating(self._source):
            image = self._image
            if self._lazy:
                if shrink_to:
                    turned = orientation(image) > 4
                    image.draft(None, shrink_to if turned else (shrink_to[1], shrink_to[0]))
                image = _upright_rgb(image, None)
            if shrink_to and image.width * image.height > LARGE:
                factor = min(image.height // shrink_to[0], image.width // shrink_to[1])
                image = image.reduce(factor) if factor > 1 else image
            return image


def decode(
    source: Source, spec: ImageSpec | None = None, *, shrink_to: tuple[int, int] | None = None
) -> Image.Image:
    """Decodes a file's bytes, a PIL image, or an array (H, W), (H, W, 3 or 4), to upright RGB.

    Turned by EXIF; transparency pasted on white, unless nothing would be seen: then the colours
    beneath; 16-bit, 32-bit and float values scaled by their range; the first frame of an animation,
    the primary picture of a HEIC. The bands and the range of values are those of `spec`. With
    shrink_to = (height, width) the image may come back smaller, never below that size: JPEG then
    decodes only what is needed.

    Raises DataError, with the reason in a sentence, for anything that cannot be read.
    """
    return Picture(source, spec).decode(shrink_to)


def _opened(source: Source, spec: ImageSpec | None) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    if isinstance(source, np.ndarray):
        if source.ndim == 3 and source.shape[2] == 1:
            source = source[:, :, 0]
        return Image.fromarray(np.ascontiguousarray(source))
    if tiff.is_tiff(source):
        header = tiff.read_header(io.BytesIO(source))
        if header is not None and header.raw:
            raise DataError(RAW)
        if header is not None and spec is not None and spec.bands is not None:
            return _from_bands(source, header, spec)
    return Image.open(io.BytesIO(source), formats=formats())


def _from_bands(source: bytes, header: tiff.TiffHeader, spec: ImageSpec) -> Image.Image:
    """Three bands of a TIFF as an upright RGB image."""
    values = tiff.read_bands(source, header, spec.bands or ())
    if values.dtype != np.uint8 or spec.value_range is not None:
        low, high = spec.value_range or _range_of(values)
        values = _eight_bits(values, low, high)
    image = Image.fromarray(np.ascontiguousarray(values))
    turn = header.orientation
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def _is_unseen(image: Image.Image) -> bool:
    """Whether a loaded image is transparent everywhere."""
    if not image.has_transparency_data:
        return False
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.getextrema()[-1] == (0, 0)
    return image.convert("RGBA").getextrema()[-1] == (0, 0)


def _upright_rgb(image: Image.Image, spec: ImageSpec | None) -> Image.Image:
    """Load, turn and convert; each buffer gives its memory back before the next but one is made."""
    image.load()
    turn = orientation(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey_from_range(image, None if spec is None else spec.value_range)
    if turn > 1:
        image = _instead(image, image.transpose(_TURNS[turn]))
    if image.mode in ("La", "RGBa"):
        image = _instead(image, image.convert("LA" if image.mode == "La" else "RGBA"))
    if image.has_transparency_data:
        if image.mode != "RGBA":
            image = _instead(image, image.convert("RGBA"))
        if image.getextrema()[-1] == (0, 0):  # nobody labels what cannot be seen
            return _instead(image, image.convert("RGB"))
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return _instead(image, white)
    return image if image.mode == "RGB" else _instead(image, image.convert("RGB"))


def _instead(old: Image.Image, new: Image.Image) -> Image.Image:
    old.close()
    return new


def _grey_from_range(image: Image.Image, given: tuple[float, float] | None) -> Image.Image:
    """Mode L from 16-bit, 32-bit and float grey, scaled by the range of the values, on white."""
    low, high = given or _range(image)
    transparent = image.info.get("transparency")
    # Pillow inverts a TIFF whose white is zero (tag PhotometricInterpretation) up to 8 bits alone
    inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
    grey = np.empty((image.height, image.width), np.uint8)
    for top, values in _strips(image):
        shown = _eight_bits(values, low, high)
        shown = 255 - shown if inverted else shown
        if isinstance(transparent, int):
            shown[values == transparent] = 255
        grey[top : top + len(values)] = shown
    image.close()  # gives its memory back before the next copy is made
    return Image.fromarray(grey)


def _eight_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as grey levels, uint8: `low` is black, `high` is white."""
    part = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    return np.rint(255 * ((part - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(top row, values) of strips of a few megapixels, so that no second whole copy is needed."""
    # Pillow reads a 32-bit TIFF as signed whatever its tag SampleFormat (339) says
    tags = getattr(image, "tag_v2", {})
    unsigned = image.format == "TIFF" and image.mode == "I" and tags.get(339, 1) in (1, (1,))
    rows = max(1, (1 << 22) // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(strip)
        yield top, values.view(np.uint32) if unsigned else values


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that become black and white.

    Up to 16 bits: the whole range of the type. Wider numbers do not say what they mean, so the
    smallest usual range that holds them all is taken, and otherwise their own lowest and highest.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        bits = getattr(image, "tag_v2", {}).get(
            258, (16,)
        )  # a TIFF may hold 12, which Pillow keeps
        return 0.0, 2.0 ** min(bits) - 1
    low = np.inf
    high = -np.inf
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        if finite.size:
            low = min(low, float(finite.min()))
            high = max(high, float(finite.max()))
    return _usual_range(low, high, floats=image.mode == "F")


def _range_of(values: np.ndarray) -> tuple[float, float]:
    """The values of an array that become black and white, by the rule of _range."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return 0.0, float(np.iinfo(values.dtype).max)
    finite = values[np.isfinite(values)]
    low = float(finite.min(initial=np.inf))
    return _usual_range(low, float(finite.max(initial=-np.inf)), floats=values.dtype.kind == "f")


def _usual_range(low: float, high: float, *, floats: bool) -> tuple[float, float]:
    if low > high:
        raise DataError("The image has no finite value.")
    for top in (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return (low, high) if high > low else (min(low, 0.0), max(2.0 * high, 1.0))
