import gc

import numpy as np
import pytest
from PIL import Image

from vitral.images.arrow import channels


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (375, 500), (1, 2000)])
def test_the_memory_holds_the_pixels(size: tuple[int, int]) -> None:
    expected = _noise(*size)
    seen = channels(Image.fromarray(expected))
    assert seen.shape == (*size, 4) and seen.dtype == np.uint8
    assert np.array_equal(seen[:, :, :3], expected)


def test_it_is_no_copy_and_outlives_the_image() -> None:
    expected = _noise(64, 48)
    image = Image.fromarray(expected)
    seen = channels(image)
    image.putpixel((7, 5), (1, 2, 3))
    assert seen[5, 7, :3].tolist() == [1, 2, 3]
    expected[5, 7] = 1, 2, 3
    del image
    gc.collect()
    others = [Image.new("RGB", (48, 64), "white") for _ in range(50)]  # would take freed memory
    assert np.array_equal(seen[:, :, :3], expected)
    assert len(others) == 50


def test_images_in_several_blocks_are_copied() -> None:
    expected = _noise(2500, 2000)  # 20 MB; Pillow's blocks hold 16
    seen = channels(Image.fromarray(expected))
    assert np.array_equal(seen[:, :, :3], expected)


def test_without_the_interface_they_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    expected = _noise(6, 4)
    assert np.array_equal(channels(Image.fromarray(expected)), expected)
