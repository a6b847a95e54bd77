"""What a header tells: the size of the upright image, and what is unusual."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vitral.data.headers import read_header, suffixes
from vitral.errors import DataError
from vitral.images.limits import FILE_LIMIT


def encoded(image: Image.Image, format: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    buffer.seek(0)
    return buffer


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PLAIN = Image.new("RGB", (12, 10), "red")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *[("a.jpg", "JPEG"), ("a.JFIF", "JPEG"), ("a.mpo", "JPEG"), ("train/12", "JPEG")],
        *[("a.png", "PNG"), ("a.tif", "TIFF"), ("a.webp", "WEBP"), ("a.bmp", "BMP")],
    ],
)
def test_an_ordinary_file_has_no_remarks(name, format):
    header = read_header(encoded(PLAIN, format), name)
    assert (header.height, header.width, header.remarks) == (10, 12, ())


@pytest.mark.parametrize("name", ["a.png", "a.txt", "deep/a.b.gif"])
def test_an_extension_that_promises_something_else(name):
    assert read_header(encoded(PLAIN, "JPEG"), name).remarks == ("extension",)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photo_is_measured_upright(format):
    suffix = format.lower()
    header = read_header(encoded(PLAIN, format, exif=turned(6)), f"a.{suffix}")
    assert (header.height, header.width, header.remarks) == (12, 10, ("rotated",))
    assert read_header(encoded(PLAIN, format, exif=turned(3)), f"a.{suffix}").height == 10


def test_more_than_8_bits():
    grey = Image.fromarray(np.zeros((4, 5), np.uint16))
    for format in ("PNG", "TIFF"):
        assert read_header(encoded(grey, format), f"a.{format.lower()}").remarks == ("16-bit",)
    ihdr = bytearray(encoded(PLAIN, "PNG").getvalue())
    ihdr[24] = 16  # 16-bit colour: Pillow would say RGB
    import zlib

    ihdr[29:33] = zlib.crc32(bytes(ihdr[12:29])).to_bytes(4, "big")
    assert read_header(io.BytesIO(bytes(ihdr)), "a.png").remarks == ("16-bit",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency(mode):
    assert read_header(encoded(PLAIN.convert(mode), "PNG"), "a.png").remarks == ("transparent",)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_cut_off_file_is_found(format):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, format)
    data = buffer.getvalue()
    assert read_header(io.BytesIO(data + b"more" * 1000), "a").width == 64
    with pytest.raises(DataError, match="truncated"):
        read_header(io.BytesIO(data[: len(data) // 2]), "a")


def test_a_file_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(PLAIN, "JPEG").getvalue())
    with path.open("r+b") as file:
        file.truncate(FILE_LIMIT + 1)  # sparse: it takes no room
        with pytest.raises(DataError, match="450 MB, above the safety limit"):
            read_header(file, "a.jpg")


def test_no_image_at_all():
    with pytest.raises(DataError, match="web page"):
        read_header(io.BytesIO(b"<html>"), "a.jpg")


def test_extensions_are_those_that_are_read():
    assert suffixes()[".jpg"] == "JPEG" and ".eps" not in suffixes()
