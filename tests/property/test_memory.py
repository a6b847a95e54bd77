"""The estimate against what torch's backward pass really keeps, over families of networks."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from networks import tiny_bit
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vitral import catalog
from vitral.model import ViT, build
from vitral.planning.memory import activations, estimate
from vitral.specs import Dropouts, ImageSpec, ModelSpec, ResNetSpec
from vitral.training import finetuning
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Optimizer, Recipe, Tune

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


def recipe(network: ModelSpec, bf16: bool = False, **noise: Any) -> Recipe:
    return Recipe(
        model=network,
        images=ImageSpec(size=network.size),
        precision="bf16" if bf16 else "fp32",
        noise=Dropouts(**noise),
    )


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
    real = kept(build(network, Dropouts(**noise)), bf16)
    assert activations(recipe(network, bf16, **noise), CPU) == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize("bf16", [False, True])
def test_activations_of_a_usual_network(bf16: bool) -> None:
    network = catalog.model("Ti/16")
    assert activations(recipe(network, bf16), CPU) == pytest.approx(
        kept(build(network), bf16), rel=0.01
    )


@pytest.mark.parametrize("tune", ["probe", "last:1", "lora"])
def test_what_is_frozen_keeps_less(tune: str) -> None:
    model = build(spec())
    finetuning.prepare(model, Tune.parse(tune))
    counted = activations(replace(recipe(spec()), tune=Tune.parse(tune)), CPU)
    assert counted == pytest.approx(kept(model, False), rel=0.01)
    assert counted < activations(recipe(spec()), CPU)


def test_checkpointing_keeps_what_enters_the_blocks_and_one_block() -> None:
    deep = [replace(recipe(spec(depth=depth)), checkpointing=True) for depth in (4, 5)]
    fewer, more = (activations(recipe, CPU) for recipe in deep)
    assert more - fewer == 4 * 101 * 96
    blocks = [activations(recipe(spec(depth=depth)), CPU) for depth in (4, 5)]
    assert fewer - 4 * 4 * 101 * 96 > blocks[1] - blocks[0] - 4 * 101 * 96
    last = replace(deep[0], tune=Tune("last", blocks=1))
    assert activations(last, CPU) <= activations(replace(last, checkpointing=False), CPU) * 1.1


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize("tune", ["full", "last:1"])
def test_the_optimizer_keeps_what_was_estimated(kind: Any, tune: str) -> None:
    network = spec(size=32)
    settings = Optimizer(kind=kind)
    recipe = Recipe(
        model=network,
        images=ImageSpec(size=(32, 32)),
        optimizer=settings,
        tune=Tune.parse(tune),
        ema=0.9,
        precision="fp32",
    )
    model = build(network)
    finetuning.prepare(model, Tune.parse(tune))
    optimizer = build_optimizer(model, settings)
    model(torch.rand(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = sum(value.nbytes for value in states if torch.is_tensor(value) and value.ndim)
    found = estimate(recipe, 1, CPU)
    assert found.optimizer == held
    assert found.weights == sum(p.nbytes for p in model.parameters())
    gradients = [p.grad.nbytes for p in model.parameters() if p.grad is not None]
    assert found.gradients == found.average == sum(gradients)
    assert found.total == sum(asdict(found).values())
    quarter = estimate(recipe, 1, CPU, shards=4)
    assert quarter.weights == found.weights // 4
    assert quarter.activations == found.activations
