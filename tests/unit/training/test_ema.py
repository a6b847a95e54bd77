import copy

import torch
from torch import nn

from vitral import catalog
from vitral.model import build
from vitral.training.ema import EMA


def small() -> nn.Module:
    torch.manual_seed(0)
    return build(catalog.model("mu/16", size=32, classes=3))


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def test_average_follows_the_weights() -> None:
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    average = EMA(model, 0.9)
    move(model, 1.0)
    average.update(model, step=0)  # decay min(0.9, 1 / 10)
    assert set(average.tensors) == set(before)
    for name, old in before.items():
        assert torch.allclose(average.tensors[name], old + 0.9, atol=1e-6)
    average.update(model, step=10_000)  # decay 0.9
    for name, old in before.items():
        assert torch.allclose(average.tensors[name], old + 0.91, atol=1e-6)


def test_applied_for_a_while_and_both_come_back_whole() -> None:
    model = small()
    average = EMA(model, 0.9)
    move(model, 1.0)
    raw, kept = copy.deepcopy(model.state_dict()), copy.deepcopy(average.tensors)
    with average.swapped_in(model) as seen:
        assert seen is model
        assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())
    assert all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in average.tensors.items())


def test_no_average_is_the_model_itself() -> None:
    model = small()
    average = EMA(model, 0.0)
    move(model, 1.0)
    average.update(model, 5)
    assert not average.tensors
    before = copy.deepcopy(model.state_dict())
    with average.swapped_in(model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_what_learns_is_averaged() -> None:
    model = small()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head."))
    assert set(EMA(model, 0.9).tensors) == {"head.weight", "head.bias"}


def test_weights_in_bfloat16_are_averaged_beyond_their_own_precision() -> None:
    """A step of 1 / 1000 of a value is lost in bfloat16, not in its average."""
    model = small()
    average = EMA(model, 0.999)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(1, 3, 32, 32))
    assert all(tensor.dtype == torch.float32 for tensor in average.tensors.values())
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    move(model, 1e-3)
    average.update(model, 10_000_000)
    for name, old in before.items():
        assert torch.allclose(average.tensors[name] - old, torch.tensor(1e-6), atol=5e-7), name
