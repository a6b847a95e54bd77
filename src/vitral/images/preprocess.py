"""From the bytes of an image file to the tensor that a model expects; nothing else does this.

    tensor(data, spec) == normalise(pixels(data, spec), spec)        # float32 (3, height, width)

Training, evaluation, prediction, serving and export all come through here, so that none of them
can see an image differently. The result is the same to the bit on every call.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from vitral.errors import DataError
from vitral.images.decode import (
    PIXEL_LIMIT,
    Source,
    check_bytes,
    check_pixels,
    check_scans,
    pixel_limit,
    reading,
)
from vitral.specs import ImageSpec

# Ghostscript (EPS), Windows (WMF) and programs that the user installed (stubs) run foreign code; an
# IPTC file is opened by Pillow as a wrapper around a file of any format, EPS too.
_REFUSED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "IPTC"}

# Bytes that a decoder is fed at once. Pillow's own 64 kB make JPEG stop and begin again.
_FEED = 1 << 20

# Above this many pixels an image is halved in whole steps before it is resized: time and memory.
_LARGE = 1 << 25

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
    """The file formats that Vitral reads, as Pillow names them; the common ones first."""
    Image.init()
    common = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
    others = [name for name in Image.ID if name not in common and name not in _REFUSED]
    return tuple(name for name in common + others if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged block must not cost the picture
        return 1
    return value if value in _TURNS else 1


class Picture:
    """An image that is opened and not yet decoded, so that only what is needed is decoded.

    Attributes:
        size: (height, width) of the upright image, in pixels, before any shrinking.

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """

    def __init__(self, source: Source) -> None:
        with reading(source):
            check_bytes(len(source) if isinstance(source, bytes) else 0)
            self._image = _opened(source)
            check_pixels(self._image.size, pixel_limit(self._image))
            self._lazy = self._image.format in ("JPEG", "MPO")
            if self._lazy:
                check_scans(source, self._image.size)
                if isinstance(self._image, ImageFile.ImageFile):
                    self._image.decodermaxblock = _FEED
            else:  # other formats tell their orientation only once they are loaded
                self._image = _upright_rgb(self._image)
            width, height = self._image.size
            turned = self._lazy and orientation(self._image) > 4
            self.size = (width, height) if turned else (height, width)
        self._source = source

    def decode(self, shrink_to: tuple[int, int] | None = None) -> Image.Image:
        """The upright RGB image; see the function decode. Call it once."""
        with reading(self._source):
            image = self._image
            if self._lazy:
                if shrink_to:
                    turned = orientation(image) > 4
                    image.draft(None, shrink_to if turned else (shrink_to[1], shrink_to[0]))
                image = _upright_rgb(image)
            if shrink_to and image.width * image.height > _LARGE:
                factor = min(image.height // shrink_to[0], image.width // shrink_to[1])
                image = image.reduce(factor) if factor > 1 else image
            return image


def decode(source: Source, *, shrink_to: tuple[int, int] | None = None) -> Image.Image:
    """The upright RGB image in a file's bytes, a PIL image, or an array (H, W), (H, W, 3 or 4).

    Turned by EXIF; transparency pasted on white; 16-bit, 32-bit and float values scaled by their
    range; the first frame of an animation. With shrink_to = (height, width) the image may come
    back smaller, never below that size: JPEG then decodes only what is needed.

    Raises DataError, with the reason in a sentence, for anything that cannot be read.
    """
    return Picture(source).decode(shrink_to)


def pixels(source: Source, spec: ImageSpec) -> Tensor:
    """The evaluation view of an image: uint8 (3, height, width) of spec.size, in any strides.

    Resized by whom spec.resize names; by Pillow it is equal to the bit to what timm, torchvision
    and transformers give for the same spec. Every pixel of the file is decoded and counts. Only
    above 33 megapixels is the image halved first, in whole steps that leave at least eight times
    what is needed.

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """
    if _is_ready(source, spec):
        return torch.from_numpy(np.array(source)).permute(2, 0, 1)
    picture = Picture(source)
    goal = _resized(picture.size, spec)
    large = picture.size[0] * picture.size[1] > _LARGE
    image = picture.decode(shrink_to=(8 * goal[0], 8 * goal[1]) if large else None)
    return torch.from_numpy(_fit(image, goal, spec)).permute(2, 0, 1)


def normalise(pixels: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 (..., 3, H, W) to float32 of the same shape: (value / 255 - mean) / std."""
    mean = torch.tensor(spec.mean, device=pixels.device).view(-1, 1, 1)
    std = torch.tensor(spec.std, device=pixels.device).view(-1, 1, 1)
    if pixels.ndim == 4 and pixels.device.type == "cpu":  # an image at a time stays in the cache
        values = torch.empty(pixels.shape, dtype=torch.float32)
        for value, image in zip(values, pixels, strict=True):
            value.copy_(image).div_(255).sub_(mean).div_(std)
        return values
    return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)


def tensor(source: Source, spec: ImageSpec) -> Tensor:
    """What the model sees of one image: float32 (3, height, width)."""
    return normalise(pixels(source, spec), spec)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> Tensor:
    """uint8 (H, W, C) to uint8 (C, *size), antialiased; for training views.

    Two to three times as fast as Pillow, and seldom more than a grey level away from it.
    """
    view = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[:2] == size:
        return view
    interpolate = torch.nn.functional.interpolate
    return interpolate(view[None], size=size, mode=interpolation, antialias=True)[0]


def resize_floats(image: np.ndarray, size: tuple[int, int], spec: ImageSpec) -> Tensor:
    """uint8 (H, W, 3) to uint8 (3, *size), computed in float32 and rounded once."""
    values = torch.from_numpy(image).permute(2, 0, 1)[None].to(torch.float32)
    resized = torch.nn.functional.interpolate(
        values, size=size, mode=spec.interpolation, antialias=spec.antialias
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def _is_ready(source: Source, spec: ImageSpec) -> bool:
    """Whether nothing is to be done: a drawn scene, an image of a built-in set."""
    if not isinstance(source, np.ndarray) or source.dtype != np.uint8:
        return False
    return source.shape == (*spec.size, 3) and spec.crop == 1.0


def _fit(image: Image.Image, goal: tuple[int, int], spec: ImageSpec) -> np.ndarray:
    """The image resized to `goal` and its centre cut or padded to uint8 (*spec.size, 3)."""
    height, width = min(goal[0], spec.size[0]), min(goal[1], spec.size[1])
    top, left = (_start(goal[i] - side, spec.centre) for i, side in enumerate((height, width)))
    window = (left, top, left + width, top + height)
    resampling = Image.Resampling[spec.interpolation.upper()]
    if goal[0] * goal[1] > _LARGE:
        # A picture of 1 × 20000 pixels would be blown up to gigabytes, to keep one square.
        across, down = image.width / goal[1], image.height / goal[0]
        right, bottom = (left + width) * across, (top + height) * down
        box = (left * across, top * down, min(right, image.width), min(bottom, image.height))
        part = np.array(image.resize((width, height), resampling, box))
    elif spec.resize == "pillow":
        part = np.array(image.resize(goal[::-1], resampling).crop(window))
    else:
        whole = resize_floats(np.array(image), goal, spec).permute(1, 2, 0).numpy()
        part = whole[top : top + height, left : left + width]
    if part.shape[:2] == spec.size:
        return part
    canvas = np.empty((*spec.size, 3), np.uint8)
    canvas[:] = [round(255 * min(max(value, 0.0), 1.0)) for value in spec.mean]
    top, left = (spec.size[0] - height) // 2, (spec.size[1] - width) // 2
    canvas[top : top + height, left : left + width] = part
    return canvas


def _start(margin: int, centre: str) -> int:
    return margin // 2 if centre == "floor" else round(margin / 2)  # round(58.5) = 58


def _resized(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """(height, width) to which an image of this size is resized before cutting or padding."""
    height, width = size
    goal = (int(spec.size[0] / spec.crop), int(spec.size[1] / spec.crop))
    if spec.fit == "squash":
        return goal
    if spec.fit == "crop" and goal[0] == goal[1]:  # floors the longer side, as torchvision does
        side, short = goal[0], min(size)
        return side * height // short, side * width // short
    # As timm: both sides rounded.
    chosen = min if spec.fit == "crop" else max
    ratio = chosen(height / goal[0], width / goal[1])
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _opened(source: Source) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    if isinstance(source, np.ndarray):
        if source.ndim == 3 and source.shape[2] == 1:
            source = source[:, :, 0]
        return Image.fromarray(np.ascontiguousarray(source))
    return Image.open(io.BytesIO(source), formats=formats())


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Load, turn and convert; each buffer gives its memory back before the next but one is made."""
    image.load()
    turn = orientation(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey_from_range(image)
    if turn > 1:
        image = _instead(image, image.transpose(_TURNS[turn]))
    if image.mode in ("La", "RGBa"):
        image = _instead(image, image.convert("LA" if image.mode == "La" else "RGBA"))
    if image.has_transparency_data:
        if image.mode != "RGBA":
            image = _instead(image, image.convert("RGBA"))
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return _instead(image, white)
    return image if image.mode == "RGB" else _instead(image, image.convert("RGB"))


def _instead(old: Image.Image, new: Image.Image) -> Image.Image:
    old.close()
    return new


def _grey_from_range(image: Image.Image) -> Image.Image:
    """Mode L from 16-bit, 32-bit and float grey, scaled by the range of the values, on white."""
    low, high = _range(image)
    transparent = image.info.get("transparency")
    # Pillow inverts a TIFF whose white is zero (tag PhotometricInterpretation) up to 8 bits alone
    inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
    grey = np.empty((image.height, image.width), np.uint8)
    for top, values in _strips(image):
        part = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
        shown = np.rint(255 * ((part - low) / (high - low)).clip(0, 1)).astype(np.uint8)
        shown = 255 - shown if inverted else shown
        if isinstance(transparent, int):
            shown[values == transparent] = 255
        grey[top : top + len(values)] = shown
    image.close()  # gives its memory back before the next copy is made
    return Image.fromarray(grey)


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
    low, high = np.inf, -np.inf
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise DataError("The image has no finite value.")
    for top in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return (low, high) if high > low else (min(low, 0.0), max(2.0 * high, 1.0))


__all__ = [
    "PIXEL_LIMIT",
    "Picture",
    "decode",
    "formats",
    "normalise",
    "orientation",
    "pixels",
    "resize",
    "resize_floats",
    "tensor",
]
