"""Google's npz files; big_vision's ResNet v1 written from its equations over flax's own axes."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from checkpoints import arrays
from vitral.catalog.checkpoints import labels
from vitral.errors import WeightsError
from vitral.weights import artifact
from vitral.weights.checkpoint_files import Source
from vitral.weights.convert import convert
from vitral.weights.formats import google
from vitral.weights.read import read_weights

Arrays = Mapping[str, np.ndarray]
WIDTH, UNITS, CLASSES = 32, (2, 1), 5


def test_an_npz_file_says_nothing_of_itself():
    assert google.format.facts({}) == {}
    assert google.format.classes({}, 1000) == labels("imagenet-1k")
    assert google.format.classes({}, 21844) is None
    images = google.format.preprocessing(Source(path=Path("B_16.npz"), tensors={}), (224, 384))
    assert images.size == (224, 384)
    assert (images.fit, images.mean, images.std) == ("squash", (0.5,) * 3, (0.5,) * 3)
    assert google.format.config_files(None, None) == {}


def resnet(channels: int = 3, wide: bool = False) -> dict[str, np.ndarray]:
    """The parameters of big_vision's bit.py, every value random."""
    shapes: dict[str, tuple[int, ...]] = {"conv_root/kernel": (7, 7, channels, WIDTH)}
    norms = {"gn_root": WIDTH}
    inputs = WIDTH
    for stage, units in enumerate(UNITS, start=1):
        middle = WIDTH * 2 ** (stage - 1)
        for unit in range(1, units + 1):
            place = f"block{stage}/unit{unit}"
            shapes[f"{place}/conv1/kernel"] = (1, 1, inputs, middle)
            shapes[f"{place}/conv2/kernel"] = (3, 3, middle, middle)
            shapes[f"{place}/conv3/kernel"] = (1, 1, middle, 4 * middle)
            norms |= {f"{place}/gn1": middle, f"{place}/gn2": middle, f"{place}/gn3": 4 * middle}
            if unit == 1:
                shapes[f"{place}/conv_proj/kernel"] = (1, 1, inputs, 4 * middle)
                norms[f"{place}/gn_proj"] = 4 * middle
            inputs = 4 * middle
    shapes |= {"head/kernel": (inputs, CLASSES), "head/bias": (CLASSES,)}
    generator = np.random.default_rng(0)
    found = {name: generator.normal(size=shape) * 0.3 for name, shape in shapes.items()}
    for name, size in norms.items():
        shape = (1, 1, 1, size) if wide else (size,)
        found[f"{name}/scale"] = 1 + 0.2 * generator.normal(size=shape)
        found[f"{name}/bias"] = 0.3 * generator.normal(size=shape)
    return {name: x.astype(np.float32) for name, x in found.items()}


def answer(w: Arrays, images: Tensor) -> Tensor:
    """Its forward: convolutions with standardised kernels and SAME padding, norm after each."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = torch.from_numpy(w[f"{name}/kernel"].astype(np.float64))
        kernel = kernel - kernel.mean((0, 1, 2), keepdim=True)
        kernel = kernel / (kernel.std((0, 1, 2), correction=0, keepdim=True) + 1e-5)
        side = kernel.shape[0]
        return F.conv2d(same_padded(x, side, stride, 0.0), kernel.permute(3, 2, 0, 1), None, stride)

    def norm(x: Tensor, name: str) -> Tensor:
        scale, bias = (torch.from_numpy(w[f"{name}/{leaf}"].ravel()) for leaf in ("scale", "bias"))
        return F.group_norm(x, 32, scale.double(), bias.double(), 1e-6)

    x = F.relu(norm(conv(images, "conv_root", 2), "gn_root"))
    x = F.max_pool2d(same_padded(x, 3, 2, -math.inf), 3, 2)
    for stage, units in enumerate(UNITS, start=1):
        for unit in range(1, units + 1):
            place, stride = f"block{stage}/unit{unit}", 2 if stage > 1 and unit == 1 else 1
            residual = x
            if f"{place}/conv_proj/kernel" in w:
                residual = norm(conv(x, f"{place}/conv_proj", stride), f"{place}/gn_proj")
            y = F.relu(norm(conv(x, f"{place}/conv1"), f"{place}/gn1"))
            y = F.relu(norm(conv(y, f"{place}/conv2", stride), f"{place}/gn2"))
            x = F.relu(residual + norm(conv(y, f"{place}/conv3"), f"{place}/gn3"))
    x = x.mean((2, 3))
    return x @ torch.from_numpy(w["head/kernel"]).double() + torch.from_numpy(w["head/bias"])


def same_padded(x: Tensor, side: int, stride: int, value: float) -> Tensor:
    """XLA's SAME padding: the odd pixel goes below and to the right."""
    border: list[int] = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + side - length, 0)
        border += [total // 2, total - total // 2]
    return F.pad(x, border, value=value)


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(3, (64, 64)), (1, (45, 70))])
def test_a_resnet_of_v1_both_ways(
    tmp_path: Path, prefix: str, wide: bool, channels: int, size: tuple[int, int]
) -> None:
    w = resnet(channels, wide)
    file = {f"{prefix}{name}": x for name, x in w.items()}
    np.savez(tmp_path / "first.npz", **file)
    done = convert(tmp_path / "first.npz", tmp_path / "ours", size=size)
    assert done.exact and done.format == "google"
    values, card = artifact.load_tensors(tmp_path / "ours")
    assert card.model.is_resnet and card.model.resnet.kind == "v1"
    assert (card.model.name, card.model.size) == ("ResNet-R11x0", size)
    network = artifact.network({k: x.double() for k, x in values.items()}, card.model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, *size, generator=generator, dtype=torch.double)
    expected = answer(w, images)
    assert expected.std() > 0.1
    with torch.inference_mode():
        assert (network(images) - expected).abs().max() < 1e-11
    convert(tmp_path / "ours", tmp_path / "again.npz", to="google")
    again = arrays(tmp_path / "again.npz")
    assert again.keys() == file.keys()
    assert all(again[k].tobytes() == x.tobytes() for k, x in file.items())
    assert all(again[k].shape == x.shape for k, x in file.items())


def test_a_hybrid_is_no_resnet_alone_and_a_part_of_one_is_neither(tmp_path: Path) -> None:
    w = resnet()
    gone = {name: x for name, x in w.items() if "gn_proj" not in name}
    for file in (gone, {**w, "extra/kernel": np.ones(3, np.float32)}):
        np.savez(tmp_path / "first.npz", **file)
        with pytest.raises(WeightsError):
            read_weights(tmp_path / "first.npz", size=(64, 64))
