"""Reasons in sentences, and quiet that does not last."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib

import pytest
from PIL import Image

from vitral.errors import DataError
from vitral.images.decode import decode
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
        (b"\0\0\0\x18ftypheim", "HEIC photo"),
        (b"\0\0\0\x18ftypavif", "AVIF header is damaged"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"\xff\x0a\x01", "JPEG XL"),
        (b"II*\0\x08\0", "TIFF header is damaged, or of a kind"),
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
