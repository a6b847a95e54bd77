"""TIFFs of many bands: every way of storing them gives the same values; sound is not damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tiffs import tiff
from vitral.data.headers import read_header
from vitral.errors import DataError, SpecError, TruncatedError
from vitral.images import tiff as reader
from vitral.images.decode import decode
from vitral.images.preprocess import pixels
from vitral.specs import ImageSpec

DICE = np.random.default_rng(0)


def values(kind: str, bands: int = 5, height: int = 21, width: int = 37) -> np.ndarray:
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return DICE.normal(size=(height, width, bands)).astype(dtype)
    info = np.iinfo(dtype)
    return DICE.integers(info.min, info.max, (height, width, bands), dtype, endpoint=True)


def read(data: bytes, bands: tuple[int, ...]) -> np.ndarray:
    header = reader.read_header(io.BytesIO(data))
    assert header is not None
    return reader.read_bands(data, header, bands)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("how", [{}, {"rows": 5}, {"tile": 16}, {"deflate": True, "rows": 4}])
def test_bands_come_back_bit_for_bit(kind, order, planar, how):
    there = values(kind)
    back = read(tiff(there, order=order, planar=planar, **how), (5, 1, 3))
    assert back.dtype == there.dtype
    np.testing.assert_array_equal(back, there[:, :, [4, 0, 2]])


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("how", [{"rows": 4}, {"tile": 16}])
def test_stored_differences_are_added_up(kind, planar, how):
    there = values(kind)
    data = tiff(there, planar=planar, deflate=True, differences=True, **how)
    np.testing.assert_array_equal(read(data, (2, 2, 4)), there[:, :, [1, 1, 3]])


def test_two_bands_and_one_of_another_kind_can_be_shown():
    there = values("f4", bands=2)
    image = decode(tiff(there), ImageSpec(bands=(1, 2, 2), value_range=(-1, 1)))
    expected = np.rint(255 * ((there + 1) / 2).clip(0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(image), expected[:, :, [0, 1, 1]])


def test_bands_are_turned_upright():
    there = values("u1")
    image = decode(tiff(there, extra=((274, [6]),)), ImageSpec(bands=(1, 2, 3)))
    np.testing.assert_array_equal(np.asarray(image), np.rot90(there[:, :, :3], -1))


def test_the_range_of_values_is_that_of_the_spec():
    spec = ImageSpec(size=(16, 16), bands=(4, 3, 2), value_range=(0, 3000))
    there = np.full((16, 16, 13), 1500, np.uint16)
    assert pixels(tiff(there), spec).unique().tolist() == [128]
    grey = io.BytesIO()
    Image.fromarray(there[:, :, 0]).save(grey, "PNG")
    assert pixels(grey.getvalue(), ImageSpec(size=(16, 16))).unique().tolist() == [6]
    assert pixels(grey.getvalue(), spec).unique().tolist() == [128]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (tiff(values("u2", bands=13)), "has 13 bands of 16 bits, and a picture has 1, 3 or 4"),
        (tiff(values("f4", bands=2)), "has 2 bands of float 32 bits, and a picture"),
        (tiff(values("f8", bands=1)), "has 1 band of float 64 bits, and a picture"),
        (tiff(values("f4", bands=3).astype("c8")), "3 bands of complex 64 bits"),
        (tiff(values("u2", bands=5), extra=((259, [34887]),)), r"its compression \(LERC\)"),
        (tiff(values("u1", bands=3), extra=((254, [1]), (330, [8]))), "a camera's raw file"),
    ],
)
def test_a_sound_file_is_named_for_what_it_is(data, sentence):
    with pytest.raises(DataError, match=sentence) as raised:
        decode(data)
    assert "damaged" not in str(raised.value)


def test_a_header_tells_of_bands_and_of_an_end_that_is_missing():
    data = tiff(values("u2", bands=13, height=20, width=30))
    header = read_header(io.BytesIO(data), "a.tif")
    assert (header.height, header.width, header.bands) == (20, 30, "13 bands of 16 bits")
    assert header.remarks == ("16-bit",)
    start = tiff(values("u2", bands=13), extra=((279, [1 << 20]),))
    with pytest.raises(TruncatedError):
        read_header(io.BytesIO(start), "a.tif")


def test_a_band_that_is_not_there():
    with pytest.raises(DataError, match="5 bands of 8 bits, and band 6 is asked for"):
        decode(tiff(values("u1")), ImageSpec(bands=(6, 1, 2)))


@pytest.mark.parametrize("bands", [(0, 1, 2), (1, 2), (1, 2, -3)])
def test_bands_that_cannot_be(bands):
    with pytest.raises(SpecError, match="three bands, counted from 1"):
        ImageSpec(bands=bands)
    with pytest.raises(SpecError, match="become black and white"):
        ImageSpec(value_range=(3, 3))


def test_any_damage_of_the_directory_is_a_sentence():
    data = bytearray(tiff(values("u2")))
    for at in [*range(4, 8), *range(len(data) - 260, len(data))]:
        spoilt = bytes(data[:at]) + bytes([data[at] ^ 0xFF]) + bytes(data[at + 1 :])
        try:
            decode(spoilt, ImageSpec(bands=(1, 2, 3)))
        except DataError as error:
            assert str(error).endswith(".")
