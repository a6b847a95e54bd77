import pytest
import torch
from torch import nn

from vitral import catalog
from vitral.model import build
from vitral.training.optimizer import Average, adamw, is_kernel, schedule
from vitral.training.recipe import Optimizer


def small() -> nn.Module:
    torch.manual_seed(0)
    return build(catalog.model("mu/16", size=32, classes=3))


def test_one_step_without_gradient_shrinks_kernels_by_lr_times_decay_and_nothing_else() -> None:
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimizer = adamw(model, Optimizer(lr=0.1, weight_decay=0.3))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kernels = 0
    for name, parameter in model.named_parameters():
        expected = 1 - 0.1 * 0.3 if is_kernel(name, parameter) else 1.0
        assert torch.allclose(parameter, torch.full_like(parameter, expected)), name
        kernels += is_kernel(name, parameter)
    assert kernels == 6  # patches, qkv, projection, two of the MLP, head
    decayed = {name for name, p in model.named_parameters() if is_kernel(name, p)}
    assert not any(
        part in name for name in decayed for part in ("cls", "positions", "norm", "bias")
    )


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = small()
    grouped = [id(p) for group in adamw(model, Optimizer()).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_schedule_rises_linearly_and_falls_as_a_cosine() -> None:
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert schedule(0, 10, 0) == 1.0
    assert all(0 < schedule(step, 5, 5) <= 1 for step in range(5))


def test_average_follows_the_weights() -> None:
    model = small()
    average = Average(model, 0.9)
    before = [p.clone() for p in average.model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(model, step=0)  # decay min(0.9, 1 / 10)
    for old, new in zip(before, average.model.parameters(), strict=True):
        assert torch.allclose(new, old + 0.9, atol=1e-6)
    average.update(model, step=10_000)  # decay 0.9
    for old, new in zip(before, average.model.parameters(), strict=True):
        assert torch.allclose(new, old + 0.91, atol=1e-6)


def test_no_average_is_the_model_itself() -> None:
    model = small()
    assert Average(model, 0.0).model is model


def test_layer_decay_lowers_the_rate_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = build(catalog.model("Ti/16", size=32, depth=3, classes=3))
    optimizer = adamw(model, Optimizer(lr=0.1, weight_decay=0.3, layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    scales = {
        names[id(p)]: group["scale"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(scales) == len(names)
    assert optimizer.param_groups[0]["scale"] == 1.0
    assert scales["head.weight"] == scales["norm.bias"] == 1.0
    assert [scales[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert scales["cls"] == scales["patches.bias"] == scales["positions.table"] == 0.0625
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert all(
        (value == 0.3) == name.endswith("weight")
        for name, value in decays.items()
        if "norm" not in name
    )


def test_without_layer_decay_all_learn_alike() -> None:
    optimizer = adamw(small(), Optimizer())
    assert [group["scale"] for group in optimizer.param_groups] == [1.0, 1.0]
