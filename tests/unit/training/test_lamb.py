import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from vitral.images.augment import transforms
from vitral.training.lamb import Lamb

SHAPES = [(7, 5), (3, 4, 2, 2), (9,), (1, 6)]


def problem(seed: int = 0) -> tuple[list[nn.Parameter], list[list[Tensor]]]:
    """Parameters, one of them all zero, and 25 steps of gradients; one is once all zero."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    with torch.no_grad():
        parameters[3].zero_()
    gradients = [[torch.randn(s, generator=generator) for s in SHAPES] for _ in range(25)]
    gradients[0][0].zero_()
    return parameters, gradients


def apply(optimizer: torch.optim.Optimizer, values: list[nn.Parameter], step: list[Tensor]) -> None:
    for parameter, gradient in zip(values, step, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def grouped(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    return [
        {"params": [parameters[i] for i in (0, 1, 3)], "weight_decay": decay},
        {"params": [parameters[2]], "weight_decay": 0.0},
    ]


@pytest.fixture(scope="module")
def timm_lamb() -> Any:
    transforms()  # makes torchvision importable, which timm needs
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    return importlib.import_module("timm.optim.lamb").Lamb


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("decay", "eps"), [(0.05, 1e-8), (0.3, 1e-6), (0.0, 1e-6)])
def test_it_moves_as_timms(timm_lamb: Any, seed: int, decay: float, eps: float) -> None:
    ours, gradients = problem(seed)
    theirs, _ = problem(seed)
    mine = Lamb(grouped(ours, decay), lr=0.02, betas=(0.9, 0.99), eps=eps)
    oracle = timm_lamb(
        grouped(theirs, decay), lr=0.02, betas=(0.9, 0.99), eps=eps, max_grad_norm=None
    )
    for number, step in enumerate(gradients):
        for group in (*mine.param_groups, *oracle.param_groups):
            group["lr"] = 0.02 * (1 - number / 50)
        apply(mine, ours, step)
        apply(oracle, theirs, step)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_kernels_step_is_as_long_as_the_rate_times_the_kernel() -> None:
    parameters, gradients = problem()
    optimizer = Lamb([{"params": parameters[:1], "weight_decay": 0.1}], lr=0.03)
    before = parameters[0].detach().clone()
    apply(optimizer, parameters[:1], gradients[1][:1])
    moved = (parameters[0] - before).norm() / before.norm()
    assert moved.item() == pytest.approx(0.03, rel=1e-5)


def test_it_goes_on_from_its_tensors() -> None:
    through, gradients = problem()
    optimizer = Lamb(grouped(through, 0.1), lr=0.02)
    for step in gradients[:5]:
        apply(optimizer, through, step)
    again = [nn.Parameter(p.detach().clone()) for p in through]
    resumed = Lamb(grouped(again, 0.1), lr=0.02)
    for old, new in zip(through, again, strict=True):
        for key, value in optimizer.state[old].items():
            assert isinstance(value, Tensor)
            resumed.state[new][key] = value.clone()
    for step in gradients[5:10]:
        apply(optimizer, through, step)
        apply(resumed, again, step)
    assert all(torch.equal(a, b) for a, b in zip(through, again, strict=True))


def test_parameters_without_a_gradient_stay() -> None:
    parameters, gradients = problem()
    before = parameters[1].detach().clone()
    optimizer = Lamb(grouped(parameters, 0.1), lr=0.02)
    parameters[0].grad = gradients[1][0]
    optimizer.step()
    assert torch.equal(parameters[1], before)
    assert parameters[1] not in optimizer.state


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone, so that tensors can be sharded."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_sharded_parameters_move_alike() -> None:
    whole, gradients = problem()
    mesh = init_device_mesh("cpu", (1,))
    pieces = [nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in whole]
    one, many = Lamb(grouped(whole, 0.1), lr=0.02), Lamb(grouped(pieces, 0.1), lr=0.02)
    for step in gradients[:3]:
        apply(one, whole, step)
        apply(many, pieces, [distribute_tensor(g, mesh, [Shard(0)]) for g in step])
    for a, b in zip(whole, pieces, strict=True):
        assert torch.equal(a, b.full_tensor())  # type: ignore[attr-defined]
