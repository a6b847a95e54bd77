from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomised, tiny, tiny_bit

from shared import GOLDEN
from vitral.errors import ModelError, SpecError
from vitral.model import ViT
from vitral.model.positions import resample
from vitral.specs import ImageSpec, ModelSpec, ResNetSpec
from vitral.weights import artifact
from vitral.weights.adapt import adapt
from vitral.weights.card import Card
from vitral.weights.read import Weights, read_weights

NAMES = ("a", "b", "c", "d", "e")
RECORDED = GOLDEN / "flexi_32_to_16.npz"


def weights(spec: ModelSpec, names: Sequence[str] = NAMES) -> Weights:
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=tuple(names))
    return Weights(tensors=randomised(spec).state_dict(), card=card)


def continued(spec: ModelSpec, change: ModelSpec, names: Sequence[str]) -> tuple[ViT, str]:
    tensors, notes = adapt(weights(spec), change, names)
    return artifact.network(tensors, change), " / ".join(notes)


def images(spec: ModelSpec) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, spec.channels, *spec.size, dtype=torch.float64, generator=generator)


@torch.no_grad()
def test_the_same_classes_keep_the_head_by_name() -> None:
    spec, order = tiny(), ("c", "a", "e", "d", "b")
    model, notes = continued(spec, spec, order)
    before = randomised(spec)(images(spec))
    after = model(images(spec))
    assert notes == ""
    expected = before[:, [NAMES.index(name) for name in order]]
    assert torch.allclose(after, expected, rtol=0, atol=1e-13)  # products of other blocks


@pytest.mark.parametrize("old", [tiny(), tiny(representation=24)], ids=["plain", "pre-logits"])
@torch.no_grad()
def test_other_classes_start_at_zero_and_the_pre_logits_are_dropped(old: ModelSpec) -> None:
    new = replace(old, classes=3, representation=0)  # trap 18
    model, notes = continued(old, new, ("x", "y", "z"))
    assert torch.equal(model(images(new)), torch.zeros(2, 3, dtype=torch.float64))
    assert model.pre_logits is None
    assert not model.head.weight.any()
    assert "a new head of zeros for 3 classes" in notes
    assert ("pre-logits" in notes) == bool(old.representation)
    headless = randomised(replace(old, classes=0, representation=0))
    same = dict(headless.named_parameters()).keys() & dict(model.named_parameters()).keys()
    assert len(same) > 20
    assert all(torch.equal(model.state_dict()[k], weights(old).tensors[k]) for k in same)


def test_the_same_names_behind_pre_logits_still_get_a_new_head() -> None:
    old = tiny(representation=24)
    model, _ = continued(old, replace(old, representation=0), NAMES)
    assert not model.head.weight.any()


def test_both_heads_of_a_distilled_model() -> None:
    old = tiny(distillation_token=True)
    model, _ = continued(old, replace(old, classes=2), ("x", "y"))
    assert model.distillation_head.weight.shape == (2, 32)
    assert not model.distillation_head.weight.any()


@pytest.mark.parametrize("rule", ["google", "timm", "transformers", "torchvision", "flexivit"])
def test_positions_move_by_the_rule_of_the_weights(rule: str) -> None:
    old = tiny(resample=rule)
    new = replace(old, size=(64, 64))
    model, notes = continued(old, new, NAMES)
    table = weights(old).tensors["positions.table"]
    assert torch.equal(model.positions.table[:, :1], table[:, :1]), "the class token's row stays"
    assert torch.equal(model.positions.table[:, 1:], resample(table[:, 1:], (2, 3), (4, 4), rule))
    assert f"2x3 patches became 4x4, resized by {rule}'s rule" in notes


def test_tables_of_rows_and_columns_move_too() -> None:
    old = tiny(positions="learned2d")
    model, _ = continued(old, replace(old, size=(64, 64)), NAMES)
    assert model.positions.rows.shape == (1, 4, 16)


def test_relative_positions_do_not_move() -> None:
    old = tiny(positions="relative")
    with pytest.raises(ModelError, match="cannot be resized"):
        adapt(weights(old), replace(old, size=(64, 64)), NAMES)


@torch.no_grad()
def test_another_patch_size_resamples_the_kernel_and_moves_the_positions() -> None:
    old = tiny()
    model, notes = continued(old, replace(old, patch=(8, 8)), NAMES)
    assert model.patches.weight.shape == (32, 3, 8, 8)
    assert "16x16 became 8x8" in notes
    assert "2x3 patches became 4x6" in notes


def test_a_head_that_reads_more_is_new() -> None:
    model, notes = continued(tiny(), tiny(pool="cls_mean", pool_blocks=2), NAMES)
    assert model.head is not None and model.head.weight.shape == (5, 96)
    assert "a new head of zeros for 5 classes" in notes


@pytest.mark.parametrize("change", [{"patch": (8, 8)}, {"channels": 1}], ids=str)
def test_norms_of_patches_belong_to_their_values(change: dict[str, Any]) -> None:
    old = tiny(patch_norms=True)
    with pytest.raises(SpecError, match="norms the 3 x 16x16 values of a patch"):
        adapt(weights(old), replace(old, **change), NAMES)


@torch.no_grad()
def test_flexivit_as_the_authors_run_it(tmp_path: Path) -> None:
    if not RECORDED.exists():
        pytest.skip(f"the recorded tensors of the authors' code are not at {RECORDED}")
    with np.load(RECORDED) as file:
        arrays = {name: file[name] for name in file.files}
    images = torch.from_numpy(arrays["x"].astype(np.float64)).permute(0, 3, 1, 2)
    expected = torch.from_numpy(arrays["logits64"])
    for name in ("x", "logits", "logits64", "config"):
        del arrays[name]
    np.savez(tmp_path / "flexi.npz", **arrays)
    released = read_weights(tmp_path / "flexi.npz")
    exact = {name: x.double() for name, x in released.tensors.items()}
    old = replace(released.card.model, resample="flexivit")
    card = replace(released.card, model=old)
    new = replace(old, patch=(16, 16), size=(80, 80))
    tensors, _ = adapt(replace(released, tensors=exact, card=card), new, card.classes)
    logits = artifact.network(tensors, new)(images)
    assert (logits - expected).abs().max() < 1e-11


@pytest.mark.parametrize("channels", [1, 4, 6])
@torch.no_grad()
def test_other_channels_see_a_grey_image_alike(channels: int) -> None:
    for old in (tiny(), tiny_bit()):
        new = replace(old, channels=channels)
        model, notes = continued(old, new, NAMES)
        grey = torch.randn(2, 1, *old.size, dtype=torch.float64)
        before = randomised(old)(grey.expand(-1, 3, -1, -1))
        after = model(grey.expand(-1, channels, -1, -1))
        assert f"{channels} channels instead of 3" in notes
        if channels % 3 == 0 or (channels == 1 and not old.is_resnet):
            assert torch.allclose(after, before, atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"depth": 3}, {"heads": 2}, {"gelu": "erf"}, {"norm_eps": 1e-5}, {"width": 48}]
)
def test_another_architecture_is_refused_by_name(change: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=f"another architecture: {next(iter(change))}"):
        adapt(weights(tiny()), tiny(**change), NAMES)
    stem = ResNetSpec(blocks=(1, 1), width=32)
    with pytest.raises(SpecError, match="resnet"):
        adapt(weights(tiny()), tiny(resnet=stem, patch=(2, 2)), NAMES)
