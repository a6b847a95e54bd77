"""Copies are found however they were saved; what is not a copy is left alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vitral.data import near_duplicates
from vitral.data.near_duplicates import (
    content,
    count_bits,
    equals,
    groups,
    perceptual_hashes,
    thumbnails_of,
)
from vitral.data.shapes import draw
from vitral.data.sources import Files, Header, ScanResult


def photo(index: int) -> Image.Image:
    return Image.fromarray(draw(1, index, (120, 160)).image)


def thumbnail(image: Image.Image) -> np.ndarray:
    side = near_duplicates.SIDE
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES = {
    "the same": lambda image: image,
    "JPEG 30": lambda image: jpeg(image, 30),
    "half the size": lambda image: image.resize((80, 60), Image.Resampling.BICUBIC),
    "another ratio": lambda image: image.resize((100, 150)),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
}


def alone(count: int) -> list[bytes]:
    return [b""] * count


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_and_nothing_else_is(how):
    pictures = [photo(index) for index in range(40)]
    everything = [*pictures, *map(COPIES[how], pictures)]
    group_ids = groups(np.stack([thumbnail(image) for image in everything]), alone(80))
    assert (group_ids[:40] == np.arange(40)).all(), "no two different pictures are copies"
    found = (group_ids[40:] == np.arange(40)).mean()
    assert found == 1 if how == "the same" else found >= 0.9


def test_the_pairs_that_are_compared_are_all_that_could_be_near():
    dice = np.random.default_rng(0)
    hashes = dice.integers(0, 1 << 63, 300, dtype=np.uint64)
    for row in range(1, 300, 3):  # neighbours in 0 to 8 bits
        flips = dice.choice(64, row % 9, replace=False).astype(np.uint64)
        hashes[row] = hashes[row - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=0)
    offered = {
        pair
        for left, right in near_duplicates._candidates(hashes)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    distances = count_bits(hashes[:, None] ^ hashes[None])
    near = {
        (int(a), int(b)) for a, b in np.argwhere(distances <= near_duplicates.DISTANCE) if a < b
    }
    assert len(near) > 60 and near <= offered
    assert len(offered) < 300 * 299 / 2 / 4, "and by far not all pairs"


def test_a_hash_has_as_many_ones_as_zeros():
    dice = np.random.default_rng(1)
    hashes = perceptual_hashes(dice.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    assert set(count_bits(hashes).tolist()) == {32}


def test_bits_are_counted_with_any_numpy(monkeypatch):
    values = np.random.default_rng(0).integers(0, 1 << 63, (3, 5), dtype=np.uint64) * 2 + 1
    expected = [[int(value).bit_count() for value in row] for row in values]
    assert count_bits(values).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert count_bits(values).tolist() == expected
    assert count_bits(values).dtype == np.uint8


def test_a_hash_is_the_sign_of_the_low_frequencies():
    from scipy.fft import dctn

    picture = thumbnail(photo(3))
    waves = dctn(picture.sum(axis=2, dtype=float))[:9, :9]
    chosen = [*waves[:8, :8].ravel()[1:].tolist()]
    chosen.insert(8 - 1, waves[0, 8])  # the ninth of the first row stands in for the constant
    above = np.array(chosen) > np.median(chosen)
    (value,) = perceptual_hashes(picture[None])
    assert [bool(int(value) >> bit & 1) for bit in range(64)] == above.tolist()


def test_flat_pictures_are_copies_only_if_the_files_are_equal():
    flat = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (90, 91, 90, 92)])
    assert groups(flat, alone(4)).tolist() == [0, 1, 2, 3]
    assert groups(flat, [b"x", b"y", b"x", b""]).tolist() == [0, 1, 0, 3]


def test_the_same_outline_in_another_colour_is_no_copy():
    scenes = []
    for colour in ("red", "blue"):
        image = Image.new("RGB", (64, 64), "white")
        image.paste(colour, (10, 20, 40, 50))
        scenes.append(thumbnail(image))
    assert groups(np.stack(scenes), alone(2)).tolist() == [0, 1]


def test_copies_of_copies_are_copies():
    dice = np.random.default_rng(2)
    start, steps = dice.integers(0, 255, (16, 16, 3)), []
    for _ in range(30):  # a film: each frame is near the last, the ends are not
        start = (start + dice.normal(0, 8, start.shape)).clip(0, 255)
        steps.append(start.astype(np.uint8))
    assert set(groups(np.stack(steps), alone(30)).tolist()) == {0}
    assert groups(np.stack([steps[0], steps[-1]]), alone(2)).tolist() == [0, 1]


def test_equal_contents():
    assert equals([b"a", b"", b"b", b"a", b""]).tolist() == [0, 1, 2, 0, 4]
    assert content(b"1") == content(b"1") != content(b"2")


def test_look_at_reads_everything_and_says_what_it_cannot(tmp_path):
    names = ("a.png", "broken.jpg", "gone.png", "b.png")
    photo(0).save(tmp_path / "a.png")
    photo(0).save(tmp_path / "b.png")
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    found = ScanResult(
        Files(str(tmp_path), names), list(names), headers=[Header(9999, 9999), *[None] * 3]
    )
    seen: list[tuple[int, int]] = []
    thumbnails = thumbnails_of(found, lambda done, total: seen.append((done, total)))
    assert sorted(thumbnails.failed) == [1, 2] and "web page" in thumbnails.failed[1].reason
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert thumbnails.contents[0] == thumbnails.contents[3] and thumbnails.contents[2] == b""
    assert groups(thumbnails.images, thumbnails.contents).tolist() == [0, 1, 2, 0]


def test_nothing_to_compare():
    assert groups(np.zeros((0, 16, 16, 3), np.uint8), []).tolist() == []
    assert groups(np.zeros((1, 16, 16, 3), np.uint8), [b"x"]).tolist() == [0]


@pytest.mark.proof  # seconds
def test_a_hundred_thousand_pictures_are_compared_in_seconds():
    import time

    dice = np.random.default_rng(3)
    thumbnails = dice.integers(0, 256, (100_000, 16, 16, 3), dtype=np.uint8)
    for step in (1, 2, 4):  # smooth, as photographs are: the low frequencies carry the picture
        thumbnails = thumbnails // 2 + np.roll(thumbnails, step, axis=1) // 2
        thumbnails = thumbnails // 2 + np.roll(thumbnails, step, axis=2) // 2
    started = time.process_time()
    group_ids = groups(thumbnails, alone(len(thumbnails)))
    assert time.process_time() - started < 120
    assert len(np.unique(group_ids)) > 99_900
