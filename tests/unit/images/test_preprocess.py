"""Bytes to tensor: every kind of file becomes the picture that a viewer shows."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from shared import SHARED
from vitral import machine
from vitral.errors import DataError
from vitral.images.decode import Picture, decode
from vitral.images.preprocess import normalise, pixels, tensor
from vitral.specs import ImageSpec

CPU = torch.device("cpu")
ARCHIVE = SHARED / "data" / "badinputs.tar.gz"


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth coloured picture without any symmetry."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    picture = np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=-1)
    picture[: height // 4, : width // 4] = (250, 10, 10)
    return picture.astype(np.uint8)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_upright_by_exif_in_every_format(turn, format):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(photo())
    stored = upright.transpose(undo[turn]) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encoded(stored, format, exif=exif, **options.get(format, {}))
    picture = Picture(data)
    assert picture.size == (60, 80)
    shown = np.asarray(picture.decode(), dtype=int)
    assert np.abs(shown - photo()).max() <= (6 if format == "JPEG" else 0)


def test_transparency_is_pasted_on_white_in_every_mode():
    colour = np.zeros((4, 4, 4), np.uint8)
    colour[:2] = (255, 0, 0, 0)  # a hidden colour
    colour[2:] = (0, 0, 255, 128)
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(colour))))[0, 0], [255] * 3)
    assert np.array_equal(
        np.asarray(decode(encoded(Image.fromarray(colour))))[3, 3], [127, 127, 255]
    )
    grey = Image.fromarray(colour).convert("LA")
    assert np.asarray(decode(encoded(grey)))[0, 0].tolist() == [255] * 3
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    shown = np.asarray(decode(encoded(palette, transparency=0)))
    assert shown[0].tolist() == [[255, 255, 255], [0, 255, 0]]
    shown = np.asarray(decode(encoded(palette, transparency=bytes([0, 255]))))
    assert shown[0].tolist() == [[255, 255, 255], [0, 255, 0]]
    key = Image.new("RGB", (2, 2), (9, 8, 7))
    key.putpixel((1, 1), (1, 2, 3))
    shown = np.asarray(decode(encoded(key, transparency=(9, 8, 7))))
    assert shown.tolist() == [[[255] * 3] * 2, [[255] * 3, [1, 2, 3]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format):
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    shown = np.asarray(decode(encoded(Image.fromarray(ramp), format)))[..., 0]
    assert np.abs(shown.astype(int) - np.rint(ramp / 257)).max() == 0
    assert len(np.unique(shown)) == 256


def test_16_bit_pnm_and_transparent_16_bit_grey():
    ramp = np.linspace(0, 65535, 256).astype(">u2").reshape(16, 16)
    shown = np.asarray(decode(b"P5 16 16 65535\n" + ramp.tobytes()))[..., 0]
    assert np.array_equal(shown, np.rint(ramp / 257))
    dark = np.full((4, 4), 300, np.uint16)
    dark[0, 0] = 0
    data = encoded(Image.fromarray(dark))
    chunk = b"tRNS" + (0).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    at = data.index(b"IDAT") - 4
    assert np.asarray(decode(data[:at] + chunk + data[at:]))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 32768]], np.int32), [0, 128]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[-5.0, 0.0, 5.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.0, np.inf, 1.0]], np.float32), [0, 0, 255, 255]),
        (np.array([[7e8, 7e8]], np.float32), [128, 128]),
    ],
)
def test_32_bit_integers_and_floats_are_scaled_by_their_range(values, expected):
    shown = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0]
    assert shown.tolist() == expected
    assert np.asarray(decode(values))[0, :, 0].tolist() == expected


def test_a_12_bit_tiff_is_scaled_by_its_12_bits():
    data = bytearray(encoded(Image.fromarray(np.zeros((1, 4), np.uint16)), "TIFF"))
    at = data.index(struct.pack("<HHI", 258, 3, 1))  # BitsPerSample
    data[at + 8] = 12
    start = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 273, 4, 1)) + 8)[0]
    data[start : start + 6] = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x00])  # 0, 2048, 4095, 0
    assert np.asarray(decode(bytes(data)))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_unsigned_32_bit_tiff_is_not_read_as_negative():
    data = bytearray(encoded(Image.fromarray(np.array([[0, 1 << 30, -1]], np.int32)), "TIFF"))
    at = data.index((339).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[at + 8] = 1  # SampleFormat: unsigned
    assert np.asarray(decode(bytes(data)))[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_whose_white_is_zero_is_no_negative(kind):
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    data = bytearray(encoded(Image.fromarray(np.array([[0, top]], kind)), "TIFF"))
    assert np.asarray(decode(bytes(data)))[0, :, 0].tolist() == [0, 255]
    data[data.index(struct.pack("<HHI", 262, 3, 1)) + 8] = 0  # PhotometricInterpretation
    assert np.asarray(decode(bytes(data)))[0, :, 0].tolist() == [255, 0]


def test_cmyk_bilevel_grey_and_the_first_frame():
    cmyk = Image.fromarray(photo()).convert("CMYK")
    shown = np.asarray(decode(encoded(cmyk, "JPEG", quality=100)), dtype=int)
    assert np.abs(shown - photo()).mean() < 3
    bilevel = Image.fromarray(np.eye(8, dtype=bool))
    assert np.array_equal(np.asarray(decode(encoded(bilevel)))[..., 1], 255 * np.eye(8))
    grey = Image.fromarray(photo()[..., 0])
    assert np.array_equal(np.asarray(decode(encoded(grey)))[..., 2], photo()[..., 0])
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    movie = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(movie))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 3), (6, 7, 4)])
def test_arrays_are_images_too(shape):
    values = np.full(shape, 90, np.uint8)
    image = decode(values)
    assert image.mode == "RGB" and image.size == (7, 6)


# ------------------------------------------------------------------ what cannot be read


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The file is empty"),
        (b"<html><body>404</body></html>", "web page"),
        (b"\0" * 100, "only zeros"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"hello world", "not an image"),
        # an IPTC wrapper, which Pillow would open whatever is inside: an EPS, by Ghostscript
        (
            b"\x1c\x03\x3c\0\x02\1\0\x1c\x03\x41\0\1\0\x1c\x03\x14\0\2\0\x09\x1c\x03\x1e\0\2\0\x09"
            b"\x1c\x03\x78\0\1\5\x1c\x08\x0a\0\x30"
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "not an image",
        ),
        (encoded(Image.fromarray(photo()))[:-900], "truncated"),
        (encoded(Image.fromarray(photo()), "JPEG")[:-700], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + b"\xff" * 30, "PNG|damaged"),
    ],
)
def test_what_cannot_be_read_says_why(data, sentence):
    with pytest.raises(DataError, match=sentence):
        decode(data)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2, 2, 2), np.uint8), np.zeros((3, 3, 3), "f8"), np.zeros((0, 4, 3), "u1")],
)
def test_arrays_that_are_no_image_are_refused(array):
    with pytest.raises(DataError):
        decode(array)


def test_no_warning_leaves_and_the_filters_stay_as_they_were():
    before = list(warnings.filters)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12" * 20  # damaged
    data = encoded(Image.fromarray(photo()), "JPEG", exif=exif)
    assert decode(data).size == (80, 60)
    assert warnings.filters == before


def test_real_bad_files_give_an_image_or_a_sentence(tmp_path, capfd):
    if not ARCHIVE.exists():
        pytest.skip("shared/data/badinputs.tar.gz is not here")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "badinputs"
    lines = (root / "manifest.jsonl").read_text().splitlines()
    known = {entry["file"]: entry for entry in map(json.loads, lines)}
    spec = ImageSpec(size=(32, 32))
    read, unread, slowest = 0, [], 0.0
    machine.forget_peak(CPU)
    before = machine.peak_memory(CPU)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        started = time.perf_counter()
        try:
            assert pixels(path.read_bytes(), spec).shape == (3, 32, 32)
            read += 1
        except DataError as error:
            assert str(error).endswith((".", ")"))
            unread.append(path.relative_to(root).as_posix())
        slowest = max(slowest, time.perf_counter() - started)
    assert capfd.readouterr().err == ""
    sound = [name for name in unread if known.get(name, {}).get("pillow") == "decodes"]
    assert read > 340 and len(sound) < 6, sound
    assert slowest < 10
    assert machine.peak_memory(CPU) - before < 2 << 30


# ------------------------------------------------------------------ size and values


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("centre", "left"), [("round", 16), ("floor", 15)])
def test_the_centre_crop_is_pillows_resize_cut_by_the_rule(interpolation, centre, left):
    picture = Image.fromarray(photo(150, 205))
    spec = ImageSpec(size=(56, 56), crop=0.875, centre=centre, interpolation=interpolation)
    resampling = getattr(Image.Resampling, interpolation.upper())
    resized = picture.resize((87, 64), resampling)  # 64 = 56 / 0.875; 87 = int(64 · 205 / 150)
    expected = np.asarray(resized.crop((left, 4, left + 56, 60)))  # 31 / 2 = 15.5
    shown = pixels(np.asarray(picture), spec).permute(1, 2, 0).numpy()
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("resize", ["torch", "tensorflow"])
def test_the_resizes_in_floats_are_rounded_once(resize):
    picture = torch.from_numpy(photo(90, 70)).permute(2, 0, 1)[None].float()
    spec = ImageSpec(size=(40, 24), fit="squash", interpolation="bilinear", resize=resize)
    interpolate = torch.nn.functional.interpolate
    expected = interpolate(picture, (40, 24), mode="bilinear", antialias=resize == "torch")[0]
    assert (pixels(photo(90, 70), spec) - expected).abs().max() <= 0.5


def test_a_crop_below_one_cuts_after_squash_and_pad_too():
    picture = photo(60, 80)
    whole = pixels(picture, ImageSpec(size=(40, 40), fit="squash"))
    cut = pixels(picture, ImageSpec(size=(32, 32), fit="squash", crop=0.8))
    assert torch.equal(cut, whole[:, 4:36, 4:36])
    whole = pixels(picture, ImageSpec(size=(40, 40), fit="pad"))
    cut = pixels(picture, ImageSpec(size=(32, 32), fit="pad", crop=0.8))
    assert torch.equal(cut, whole[:, 4:36, 4:36])
    bright = ImageSpec(size=(32, 32), fit="pad", mean=(2.0, 0.0, -1.0))
    assert pixels(picture, bright)[:, 0, 0].tolist() == [255, 0, 0]


def test_a_picture_too_long_to_be_resized_whole_shows_its_middle():
    image = np.random.default_rng(0).integers(0, 256, (2, 40_000, 3), np.uint8)
    view = pixels(image, ImageSpec(size=(64, 64))).permute(1, 2, 0).numpy().astype(int)
    middle = Image.fromarray(image[:, 19_990:20_010]).resize((640, 64))  # bicubic
    assert np.abs(view - np.asarray(middle.crop((288, 0, 352, 64)))).max() <= 1


def test_squash_and_pad():
    picture = photo(40, 80)
    squashed = pixels(picture, ImageSpec(size=(32, 32), fit="squash"))
    assert squashed.shape == (3, 32, 32)
    spec = ImageSpec(size=(32, 32), fit="pad", mean=(0.0, 0.5, 1.0))
    padded = pixels(picture, spec)
    assert padded[:, 0, 0].tolist() == [0, 128, 255] and padded[:, 31, 31].tolist() == [0, 128, 255]
    inner = pixels(picture, ImageSpec(size=(16, 32), fit="squash"))
    assert torch.equal(padded[:, 8:24], inner)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (3, 500), (32, 48), (7, 5)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_any_shape_gives_the_size_asked_for(fit, shape, size):
    image = np.full((*shape, 3), 77, np.uint8)
    view = pixels(image, ImageSpec(size=size, fit=fit, crop=0.9))
    assert view.shape == (3, *size) and view.dtype == torch.uint8
    assert (view == 77).any()


def test_training_may_draft_but_the_evaluation_view_counts_every_pixel():
    big = Image.fromarray(photo(960, 1280))
    data = encoded(big, "JPEG", quality=95)
    assert decode(data, shrink_to=(200, 200)).size == (320, 240)
    assert decode(data, shrink_to=(960, 1280)).size == (1280, 960)
    spec = ImageSpec(size=(32, 32))
    full = pixels(np.array(Image.open(io.BytesIO(data))), spec)
    assert torch.equal(pixels(data, spec), full)


def test_above_33_megapixels_the_image_is_halved_first_and_looks_the_same():
    picture = Image.fromarray(photo(590, 600)).resize((6000, 5900))
    spec = ImageSpec(size=(64, 64), crop=0.9)
    whole = np.asarray(picture.resize((72, 71), Image.Resampling.BICUBIC), dtype=int)[4:68, 4:68]
    for data in (encoded(picture, "JPEG", quality=95), encoded(picture, "BMP")):
        shown = pixels(data, spec).permute(1, 2, 0).numpy()
        assert np.abs(shown - whole).mean() < 1


def test_the_same_bits_every_time_and_for_any_number_of_threads():
    data = encoded(Image.fromarray(photo(300, 400)), "JPEG")
    spec = ImageSpec(size=(64, 64), crop=0.9)
    first = tensor(data, spec)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    again = tensor(data, spec)
    torch.set_num_threads(threads)
    assert torch.equal(first, again)
    assert first.dtype == torch.float32 and first.shape == (3, 64, 64)


def test_an_array_is_not_shared_and_may_be_read_only_or_flipped():
    picture, spec = photo(32, 32), ImageSpec(size=(32, 32))
    view = pixels(picture, spec)
    view.zero_()
    assert picture.any()
    frozen = photo(32, 48)
    frozen.flags.writeable = False
    assert pixels(frozen, spec).shape == (3, 32, 32)
    assert torch.equal(pixels(picture[:, ::-1], spec), pixels(picture, spec).flip(-1))


def test_normalise_is_the_formula_for_any_leading_shape():
    spec = ImageSpec(size=(4, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    values = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8)
    before = values.clone()
    shown = normalise(values, spec)
    mean, std = (torch.tensor(part).double().view(3, 1, 1) for part in (spec.mean, spec.std))
    assert torch.allclose(shown, ((values / 255 - mean) / std).float(), atol=1e-6)
    assert torch.equal(values, before) and shown.dtype == torch.float32
    paper = normalise(
        torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2).expand(3, 1, 2),
        ImageSpec(size=(1, 2)),
    )
    assert paper[0, 0].tolist() == [-1.0, 1.0]
