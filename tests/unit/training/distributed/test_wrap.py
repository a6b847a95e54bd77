import copy

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from vitral import catalog
from vitral.model import ViT, build
from vitral.specs import ImageSpec
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import ProcessGroup, full, initialised
from vitral.training.objectives import Objective


def objective_of(network: ViT) -> Objective:
    return Objective(network, ImageSpec(size=(32, 32)), views=(), precision="fp32")


def test_a_process_alone_calls_the_objective_itself() -> None:
    objective = objective_of(build(catalog.model("mu/16", size=32, classes=3)))
    forward = wrap.wrap_ddp(objective, ProcessGroup(torch.device("cpu")), sharded=False)
    assert forward is objective
    wrap.sync_gradients(forward, False)  # nothing to exchange: no effect


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs alone"
)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_sharded_network_computes_the_same(bf16: bool) -> None:
    torch.manual_seed(0)
    network = build(catalog.model("mu/16", size=32, classes=3))
    torch.nn.init.normal_(network.head.weight)
    images, sharded = torch.randn(2, 3, 32, 32), copy.deepcopy(network)
    with initialised("cpu", alone=False) as group:
        wrap.shard(objective_of(sharded), group, bf16=bf16)
        assert isinstance(sharded, FSDPModule)
        assert set(sharded.state_dict()) == set(network.state_dict()), "no name changes"
        wrap.sync_gradients(objective_of(sharded), True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            (logits,) = sharded.logits_per_head(images)
            (expected,) = network.logits_per_head(images)
            represented = sharded.representation(images)
        last_bits = 0.01 * float(expected.detach().abs().max())  # two of bfloat16's eight
        assert torch.allclose(logits, expected, atol=last_bits if bf16 else 1e-6)
        assert represented.shape == (2, network.spec.width)
        logits.float().square().sum().backward()
        expected.float().square().sum().backward()
        for (name, mine), theirs in zip(
            sharded.named_parameters(), network.parameters(), strict=True
        ):
            assert mine.dtype == torch.float32
            tolerance = 0.05 * float(theirs.grad.abs().max()) if bf16 else 1e-5
            assert torch.allclose(full(mine.grad), theirs.grad, atol=tolerance + 1e-6), name


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, in its trace
def test_compiled_blocks_keep_their_names_and_results() -> None:
    torch.manual_seed(0)
    network = build(catalog.model("mu/16", size=32, classes=3))
    torch.nn.init.normal_(network.head.weight)
    images, names = torch.randn(2, 3, 32, 32), set(network.state_dict())
    expected = network(images)
    wrap.compile_blocks(network)
    assert set(network.state_dict()) == names
    assert torch.allclose(network(images), expected, atol=1e-5)
