"""Arithmetic against what torch's backward pass really keeps, over families of networks."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from networks import tiny_bit
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vitral import catalog
from vitral.model import ViT, build
from vitral.specs import Dropouts, ImageSpec, ModelSpec, ResNetSpec
from vitral.training import finetuning, memory
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Optimizer, Recipe

CPU = torch.device("cpu")


def spec(**changes: Any) -> ModelSpec:
    small = {"size": 80, "depth": 2, "width": 96, "mlp_width": 384, "patch": 8, "classes": 10}
    return catalog.model("Ti/16", **(small | changes))


def kept(model: ViT, bf16: bool) -> int:
    """Bytes of one more image in a real forward pass; the weights and their copies drop out.

    The image itself stays, though autocast's copy is what the backward pass needs.
    """
    held = []
    for count in (2, 3):
        seen: dict[int, Tensor] = {}

        def keep(tensor: Tensor, seen: dict[int, Tensor] = seen) -> Tensor:
            seen[tensor.untyped_storage()._cdata] = tensor
            return tensor

        images = keep(torch.rand(count, 3, *model.spec.size))
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with autocast, saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model.train().logits_per_head(images)
            loss = sum(x.float().logsumexp(1).sum() for x in logits)
        held.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
        del loss, logits
    return held[1] - held[0]


STEM = ResNetSpec(blocks=(1, 2), width=32)
HYBRID = spec(resnet=STEM, patch=1, size=64)
BIT_SPEC = tiny_bit(size=64)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("network", "noise"),
    [
        (spec(), {}),
        (spec(size=(48, 128), heads=6, mlp_width=256), {}),
        (spec(pool="mean", positions="sincos2d", class_token=False), {"drop_path": 0.2}),
        (spec(pool="map", registers=4), {}),
        (spec(layer_scale=1e-4, gelu="erf"), {}),
        (spec(distillation_token=True), {"patch_dropout": 0.5}),
        (spec(qk_norm=True), {}),
        (spec(positions="rope2d"), {}),
        (spec(), {"dropout": 0.1}),
        (spec(positions="relative"), {}),
        (spec(), {"attention_dropout": 0.1}),
        (spec(positions="relative", size=120), {"attention_dropout": 0.1}),
        (spec(positions="relative", size=160), {"patch_dropout": 0.75}),
        (spec(size=264), {}),
        (spec(size=264), {"attention_dropout": 0.1}),
        (HYBRID, {}),
        (BIT_SPEC, {}),
    ],
    ids=[
        "plain",
        "oblong",
        "mean",
        "map",
        "scale",
        "distilled",
        "qk_norm",
        "rope",
        "dropout",
        "relative",
        "attention_dropout",
        "relative_dropout",
        "relative_patches",
        "long",
        "long_dropout",
        "hybrid",
        "bit",
    ],
)
def test_activations_are_what_the_backward_pass_keeps(
    network: ModelSpec, noise: dict[str, float], bf16: bool
) -> None:
    with torch.device("meta"):
        counted = memory.activations(build(network, Dropouts(**noise)), CPU, bf16=bf16)
    real = kept(build(network, Dropouts(**noise)), bf16)
    assert 0.9 * real <= counted <= 1.2 * real


@pytest.mark.parametrize("tune", ["probe", "last:1", "lora"])
def test_what_is_frozen_keeps_less(tune: str) -> None:
    def tuned() -> ViT:
        model = build(spec())
        finetuning.prepare(model, tune)
        return model

    with torch.device("meta"):
        counted = memory.activations(tuned(), CPU, bf16=False)
        everything = memory.activations(build(spec()), CPU, bf16=False)
    real = kept(tuned(), False)
    if tune == "lora":  # counted as if its frozen kernels needed their inputs: never too few
        assert real < counted <= everything
    else:
        assert counted == pytest.approx(real, rel=0.15, abs=20_000)
        assert counted < everything


def test_checkpointing_keeps_what_enters_the_blocks_and_one_block() -> None:
    with torch.device("meta"):
        deep = [build(spec(depth=depth), checkpointing=True) for depth in (4, 5)]
        fewer, more = (memory.activations(model, CPU, bf16=False) for model in deep)
    assert more - fewer == 4 * 101 * 96


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize("tune", ["full", "last:1"])
def test_the_optimizer_keeps_what_arithmetic_says(kind: Any, tune: str) -> None:
    network = spec(size=32)
    settings = Optimizer(kind=kind)
    recipe = Recipe(
        model=network, images=ImageSpec(size=(32, 32)), optimizer=settings, tune=tune, ema=0.9
    )
    model = memory.network(recipe)
    optimizer = build_optimizer(model, settings)
    model(torch.rand(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = sum(value.nbytes for value in states if torch.is_tensor(value) and value.ndim)
    found = memory.arithmetic(recipe, 1, CPU, bf16=False)
    assert found.optimizer == held
    assert found.weights == sum(p.nbytes for p in model.parameters())
    gradients = [p.grad.nbytes for p in model.parameters() if p.grad is not None]
    assert found.gradients == found.average == sum(gradients)
    assert found.total == sum(asdict(found).values())
    quarter = memory.arithmetic(recipe, 1, CPU, bf16=False, pieces=4)
    assert quarter.weights == found.weights // 4
    assert quarter.activations == found.activations


def test_only_words_about_memory_are_taken_for_its_end() -> None:
    assert memory.ended(MemoryError())
    assert memory.ended(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.ended(error.value)
    assert not memory.ended(RuntimeError("shapes do not match"))
