"""The sheet of training views: the loader's own, the same each time, never the end of a run."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.data.datasets import open_dataset
from vitral.data.sources import Arrays, Split
from vitral.images.augment import Augment, View
from vitral.specs import ImageSpec
from vitral.training import sample_sheet

SPEC = ImageSpec(size=(16, 24))
PLAIN = Augment(crop="none", flip=0.0)
LEAD = np.array([0x2B, 0x2B, 0x40])


def colours(count):
    """One-coloured pictures, so that a pane of the sheet tells which image it shows."""
    random = np.random.default_rng(0)
    shades = random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(shades, (count, 16, 24, 3)).copy()
    reader = Arrays(pixels, tuple(f"{i}" for i in range(count)))
    return shades[:, 0, 0], Split("train", np.arange(count) % 2, np.arange(count), reader)


def panes_of(path, rows, columns):
    sheet = np.asarray(Image.open(path)).astype(int)
    height, width = (sheet.shape[0] - 6) / rows, (sheet.shape[1] - 6) / columns
    return [
        sheet[round(6 + (r + 0.5) * height - 3), round(6 + (c + 0.5) * width - 3)]
        for r in range(rows)
        for c in range(columns)
    ]


def test_twelve_different_training_images_in_two_rows_of_leaded_panes(tmp_path):
    shades, split = colours(40)
    sample_sheet.write(tmp_path / "views.jpg", split, View(PLAIN, SPEC), seed=3)
    image = Image.open(tmp_path / "views.jpg")
    assert image.format == "JPEG"
    assert image.size == (6 * (144 + 6) + 6, 2 * (96 + 6) + 6)  # width, height
    assert np.abs(np.asarray(image).astype(int)[:3] - LEAD).max() < 25
    nearest = [
        int(np.abs(shades.astype(int) - pane).sum(axis=1).argmin())
        for pane in panes_of(tmp_path / "views.jpg", 2, 6)
    ]
    assert sorted(nearest) == sorted(split.order(3)[:12])


def test_the_same_for_a_seed_and_random_numbers_are_left_alone(tmp_path):
    split = open_dataset("shapes", count=40, size=32).train
    augment = Augment(trivial=True, mixup=0.5)
    spec = ImageSpec(size=(32, 32))
    before = torch.get_rng_state()
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sample_sheet.write(tmp_path / name, split, View(augment, spec), seed=seed)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_images_are_shown_mixed(tmp_path):
    reader = Arrays(np.array([np.zeros((16, 24, 3)), np.full((16, 24, 3), 255)], np.uint8), "ab")
    split = Split("train", np.array([0, 1]), np.array([0, 1]), reader)
    mixed = Augment(crop="none", flip=0.0, mixup=100.0)  # close to one half
    sample_sheet.write(tmp_path / "views.jpg", split, View(mixed, SPEC), seed=0)
    assert all(60 < pane.mean() < 195 for pane in panes_of(tmp_path / "views.jpg", 1, 2))
    sample_sheet.write(tmp_path / "views.jpg", split, View(PLAIN, SPEC), seed=0)
    assert {round(pane.mean()) for pane in panes_of(tmp_path / "views.jpg", 1, 2)} == {0, 255}


def test_large_views_are_reduced(tmp_path):
    split = open_dataset("shapes", count=20, size=64).train
    sample_sheet.write(
        tmp_path / "views.jpg", split, View(PLAIN, ImageSpec(size=(384, 192))), seed=0
    )
    with Image.open(tmp_path / "views.jpg") as image:
        assert image.size == (6 * (112 + 6) + 6, 2 * (224 + 6) + 6)


@pytest.mark.parametrize("broken", ["images", "folder"])
def test_a_run_does_not_fail_for_it(tmp_path, broken, photos):
    split = open_dataset(photos).train
    out = tmp_path / "views.jpg"
    if broken == "images":
        for path in photos.rglob("*.jpg"):
            path.unlink()
    else:
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "views.jpg"
    sample_sheet.write(out, split, View(PLAIN, SPEC), seed=0)
    assert not out.exists()
