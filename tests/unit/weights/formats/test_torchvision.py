from pathlib import Path

import pytest

from vitral.catalog.checkpoints import labels
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats import torchvision


def test_a_state_dict_says_nothing_of_itself():
    assert torchvision.format.facts({}) == {}
    assert torchvision.format.classes({}, 1000) == labels("imagenet-1k")
    assert torchvision.format.classes({}, 10) is None
    assert torchvision.format.config_files(None, None) == {}


@pytest.mark.parametrize(
    ("name", "size", "resized", "interpolation"),
    [
        ("vit_b_16-c867db91.pth", 224, 256, "bilinear"),
        ("vit_l_16-852ce7e3.pth", 224, 242, "bilinear"),
        ("vit_b_16_swag-9ac1b537.pth", 384, 384, "bicubic"),
        ("mine.pth", 224, 256, "bilinear"),
    ],
)
def test_the_name_of_the_file_tells_its_transforms(name, size, resized, interpolation):
    images = torchvision.format.preprocessing(Source(path=Path(name), tensors={}), (size, size))
    assert images.interpolation == interpolation
    assert int(size / images.crop) == resized
    assert images.mean[0] == 0.485
