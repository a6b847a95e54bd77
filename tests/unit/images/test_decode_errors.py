"""Reasons in sentences, and quiet that does not last."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import sys
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitral.data.headers import read_header
from vitral.errors import DataError, TruncatedError
from vitral.images.decode import Picture, decode, formats
from vitral.images.decode_errors import translating
from vitral.images.limits import PIXEL_LIMIT, check_pixels, check_scans, pixel_limit


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("image file is truncated (3 bytes not processed)"), "truncated"),
        (EOFError(), "truncated"),
        (MemoryError(), "more memory"),
        (KeyError("x"), "damaged"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_whatever_a_decoder_raises_becomes_a_sentence(error, sentence):
    with pytest.raises(DataError, match=sentence), translating(b"data"):
        raise error


def test_a_reason_that_is_known_is_kept():
    with pytest.raises(DataError, match="mine"), translating(b"data"):
        raise DataError("mine")


def test_interrupts_pass():
    with pytest.raises(KeyboardInterrupt), translating(b"data"):
        raise KeyboardInterrupt


def test_size_limits():
    check_pixels((PIXEL_LIMIT // 1000, 1000))
    with pytest.raises(DataError, match="megapixels"):
        check_pixels((PIXEL_LIMIT, 2))
    with pytest.raises(DataError, match="no side is above 1000000"):
        check_pixels((1, PIXEL_LIMIT))  # Pillow takes 2 GiB for these rows
    with pytest.raises(DataError, match="empty"):
        check_pixels((0, 5))


def test_overlapping_threads_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with translating(b""):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with translating(b""):
        thread.start()
        entered.wait(5)
        warnings.warn("hidden", stacklevel=1)
    warnings.warn("still hidden", stacklevel=1)  # the other thread is inside
    leave.set()
    thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", stacklevel=1)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"\0\0\0\x18ftypheim", r"HEIC header is damaged|vitral\[heif\]"),
        (b"\0\0\0\x18ftypavif", "AVIF header is damaged|Pillow 11.3"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"\xff\x0a\x01", "JPEG XL"),
        (b"II*\0\x08\0", "TIFF header is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'{"error": 404}', "a text, not an image"),
        (b"\x01\x02\x03", "starts with"),
    ],
)
def test_files_that_no_decoder_takes_are_named(start, sentence):
    with pytest.raises(DataError, match=sentence), translating(start):
        Image.open(io.BytesIO(start))


def damaged_tiff():
    data = bytearray(encoded(Image.new("1", (40, 40)), "TIFF", compression="group4"))
    at = data.index(struct.pack("<HHI", 279, 4, 1))  # StripByteCounts: one LONG
    data[at + 8 : at + 12] = struct.pack("<I", 1 << 20)
    return bytes(data)


def test_libtiff_is_silent_inside_and_speaks_again_outside(capfd):
    def load():
        Image.open(io.BytesIO(damaged_tiff())).load()

    with pytest.raises(OSError, match=r"."):
        load()
    assert capfd.readouterr().err  # otherwise this test shows nothing
    with pytest.raises(DataError), translating(damaged_tiff()):
        load()
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError, match=r"."):
        load()
    assert capfd.readouterr().err


def test_what_pillow_logs_is_not_printed():
    assert logging.getLogger("PIL").hasHandlers()


def test_decoders_that_are_slow_or_need_much_memory_have_a_lower_limit():
    limits = {
        format: pixel_limit(Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 8)), format))))
        for format in ("PNG", "JPEG", "WEBP", "JPEG2000", "DDS", "QOI")
    }
    assert limits["PNG"] == limits["JPEG"] == PIXEL_LIMIT
    assert limits["WEBP"] == 100_000_000 and limits["JPEG2000"] == 64_000_000
    assert limits["DDS"] == limits["QOI"] == 2_000_000
    with pytest.raises(DataError, match="4 megapixels, above the safety limit of its file format"):
        check_pixels((2000, 2000), limits["DDS"])


def test_a_jpeg_of_a_thousand_scans_is_refused():
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    check_scans(data, (12_000, 12_000))
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="scans"):
        check_scans(data[:-2] + 300 * last + data[-2:], (12_000, 12_000))


def test_decompression_bombs_are_refused_without_decoding():
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big")
    bomb += b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    with pytest.raises(DataError, match="400 megapixels"):
        decode(bomb)
    side = 9_500  # over the limit at which Pillow warns, under ours
    assert side * side < PIXEL_LIMIT
    assert decode(encoded(Image.new("1", (side, side)), "PNG")).size == (side, side)


def sized(start: bytes, place: int = 0) -> bytes:
    return (bytes(place) + start).ljust(512, b"\1")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (sized(b"DICM", 128), "a DICOM file.*as PNG"),
        (sized(b"n+1\0", 344), "a NIfTI file"),
        (gzip.compress(sized(b"n+1\0", 344), mtime=0), "a NIfTI file"),
        (gzip.compress(b"<svg xmlns='x'></svg>", mtime=0), "an SVG"),
        (gzip.compress(b"anything", mtime=0), "a gzip file"),
        (sized(b"\x93NUMPY\1\0"), "an array of NumPy"),
        (sized(b"\x89HDF\r\n\x1a\n"), "HDF5"),
        (sized(b"FUJIFILMCCD-RAW 0201"), "camera's raw file"),
        (b"\0\0\0\x18ftypcrx ", "camera's raw file"),
        (b"\0\0\0\x18ftypmp42", "a video.*ffmpeg"),
        (sized(b"RIFF\x24\0\0\0AVI LIST"), "an AVI video"),
        (sized(b"\x1aE\xdf\xa3\x01"), "Matroska"),
        (sized(b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\4\0\0\0\4\0\x10\0\3"), "a Photoshop file"),
        (sized(b"8BPS"), "PSD header is damaged"),
        (b"\xef\xbb\xbf  <svg viewBox='0 0 1 1'/>", "an SVG"),
        (b"\xff\xd8\xff\xc1\0\x11\x0c\0\4\0\4\3" + bytes(40), "JPEG has 12 bits"),
        (b"gimp xcf file", "a GIMP file"),
        (b"PK\3\4....", "a ZIP file"),
    ],
)
def test_files_of_other_kinds_are_named(data, sentence):
    with pytest.raises(DataError, match=sentence):
        decode(data)
    with pytest.raises(DataError, match=sentence):
        read_header(io.BytesIO(data), "a.png")


def test_a_heic_photo_without_its_library_names_the_extra(monkeypatch):
    data = heic(Image.new("RGB", (40, 30), "red"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    formats.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'vitral\[heif\]'"):
        decode(data)
    monkeypatch.undo()
    formats.cache_clear()
    assert decode(data).size == (40, 30)


def heic(image: Image.Image, **options: Any) -> bytes:
    pytest.importorskip("pillow_heif")
    assert "HEIF" in formats()
    return encoded(image, "HEIF", **options)


def corners() -> Image.Image:
    values = np.zeros((60, 90, 3), np.uint8)
    values[:30, :45] = (255, 0, 0)
    values[30:, 45:] = (0, 0, 255)
    return Image.fromarray(values)


def test_a_heic_photo_is_read_upright():
    image = corners()
    exif = image.getexif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    data = heic(image, quality=95)
    assert b"irot" in data
    shown = np.asarray(decode(data)).astype(int)
    expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 4
    header = read_header(io.BytesIO(data), "IMG_0001.HEIC")
    assert (header.height, header.width, header.remarks) == (90, 60, ())


def test_of_several_pictures_in_a_heic_the_primary_one_is_read():
    others = [Image.new("RGB", (64, 64), "blue")]
    first = Image.new("RGB", (40, 30), "red")
    image = decode(heic(first, save_all=True, append_images=others, primary_index=1))
    assert image.size == (64, 64)
    assert image.getpixel((5, 5))[2] > 200


def test_a_damaged_heic_photo_is_a_sentence():
    data = heic(corners())
    for end in (12, 40, len(data) // 2, len(data) - 5):
        with pytest.raises(DataError):
            decode(data[:end])
    with pytest.raises(TruncatedError):
        decode(data[:-5])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_where_nothing_would_be_seen_the_colours_beneath_are(mode):
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8))
    if mode == "P":
        hidden = rgb.convert("P")
        data = encoded(hidden, "PNG", transparency=bytes(256))
        expected = hidden.convert("RGB")
    else:
        hidden = rgb.convert(mode)
        hidden.putalpha(0)
        data = encoded(hidden, "PNG")
        expected = rgb if mode == "RGBA" else rgb.convert("L").convert("RGB")
    picture = Picture(data)
    assert picture.unseen
    np.testing.assert_array_equal(np.asarray(picture.decode()), np.asarray(expected))
    if mode == "RGBA":  # one pixel that is seen decides otherwise
        hidden.putpixel((0, 0), (1, 2, 3, 255))
        picture = Picture(encoded(hidden, "PNG"))
        assert not picture.unseen
        assert picture.decode().getpixel((3, 3)) == (255, 255, 255)
