from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vitral import catalog
from vitral.model import build as network
from vitral.training.lamb import Lamb
from vitral.training.optimizer import build, is_kernel
from vitral.training.recipe import Optimizer

KINDS = ("adamw", "sgd", "lamb")


def small(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return network(catalog.model("mu/16", size=32, classes=3, **changes))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """One step with gradients that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            gradient = distribute_tensor(gradient, mesh, placements)
        parameter.grad = gradient
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_without_gradient_shrinks_kernels_and_nothing_else(kind: Any) -> None:
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimizer = build(model, Optimizer(kind=kind, lr=0.1, weight_decay=0.3))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # LAMB's trust ratio makes any update as long as the kernel
    shrunk = 1 - 0.1 if kind == "lamb" else 1 - 0.1 * 0.3
    kernels = 0
    for name, parameter in model.named_parameters():
        expected = shrunk if is_kernel(name, parameter) else 1.0
        assert torch.allclose(parameter, torch.full_like(parameter, expected)), name
        kernels += is_kernel(name, parameter)
    assert kernels == 6  # patches, qkv, projection, two of the MLP, head
    decayed = {name for name, p in model.named_parameters() if is_kernel(name, p)}
    assert not any(
        part in name for name in decayed for part in ("cls", "positions", "norm", "bias")
    )


def test_each_kind_is_what_the_settings_say() -> None:
    settings: dict[str, Any] = {"lr": 0.3, "beta1": 0.8, "beta2": 0.95, "momentum": 0.7}
    adamw, sgd, lamb = (build(small(), Optimizer(kind=kind, **settings)) for kind in KINDS)
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(lamb, Lamb)
    for optimizer in (adamw, lamb):
        assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)
        assert all(group["eps"] == 1e-8 for group in optimizer.param_groups)
    assert all(group["momentum"] == 0.7 for group in sgd.param_groups)
    assert all(g["lr"] == 0.3 for o in (adamw, sgd, lamb) for g in o.param_groups)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_decay_sgd_is_torchs(momentum: float) -> None:
    ours, theirs = small(), small()
    mine = build(ours, Optimizer(kind="sgd", lr=0.1, momentum=momentum, weight_decay=0.0))
    oracle = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum)
    for seed in range(20):
        for group in (*mine.param_groups, *oracle.param_groups):
            group["lr"] = 0.1 / (1 + seed)
        step(ours, mine, seed)
        step(theirs, oracle, seed)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_sgds_decay_stays_out_of_the_momentum() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    optimizer = build(model, Optimizer(kind="sgd", lr=0.1, momentum=0.9, weight_decay=0.5))
    value, velocity = 2.0, 0.0
    for number in range(30):
        gradient = (-1.0) ** number * number
        velocity = 0.9 * velocity + gradient
        value = value * (1 - 0.1 * 0.5) - 0.1 * velocity
        model.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        assert model.weight.item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_exactly_one_group(kind: Any) -> None:
    model = small()
    settings = Optimizer(kind=kind, layer_decay=0.9)
    grouped = [id(p) for group in build(model, settings).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_is_left_out_and_keeps_its_neighbours_rates(kind: Any) -> None:
    model = small(depth=3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("head", "blocks.1")))
    optimizer = build(model, Optimizer(kind=kind, layer_decay=0.5))
    grouped = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(s == (1.0 if "head" in names[i] else 0.25) for i, s in grouped.items())


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_its_tensors(kind: Any) -> None:
    settings = Optimizer(kind=kind, lr=0.01, layer_decay=0.8)
    model, again = small(), small()
    optimizer = build(model, settings)
    for seed in range(3):
        step(model, optimizer, seed)
    again.load_state_dict(model.state_dict())
    resumed = build(again, settings)
    for old, new in zip(model.parameters(), again.parameters(), strict=True):
        for key, value in optimizer.state[old].items():
            assert isinstance(value, Tensor)
            resumed.state[new][key] = value.clone()
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(again, resumed, seed)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone, so that a network can be sharded."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs alone"
)
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_network_moves_alike(kind: Any) -> None:
    whole, pieces = small(), small()
    fully_shard(pieces, mesh=init_device_mesh("cpu", (1,)))
    settings = Optimizer(kind=kind, lr=0.05, layer_decay=0.8)
    one, many = build(whole, settings), build(pieces, settings)
    for seed in range(3):
        step(whole, one, seed)
        step(pieces, many, seed)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert isinstance(b, DTensor)
        assert torch.equal(a, b.full_tensor())
        assert all(isinstance(x, DTensor) for x in many.state[b].values() if x.ndim)


def test_layer_decay_lowers_the_rate_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = network(catalog.model("Ti/16", size=32, depth=3, classes=3))
    optimizer = build(model, Optimizer(lr=0.1, weight_decay=0.3, layer_decay=0.5))
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
    optimizer = build(small(), Optimizer())
    assert [group["scale"] for group in optimizer.param_groups] == [1.0, 1.0]
