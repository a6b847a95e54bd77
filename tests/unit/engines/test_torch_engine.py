import numpy as np
import pytest
import torch

from vitral import catalog
from vitral.data.loader import Batch
from vitral.data.sources import Problem
from vitral.engines.torch_engine import NARROW, Engine, autocast, best_device, uses_bf16
from vitral.errors import MachineError
from vitral.model import build
from vitral.specs import ImageSpec

CPU = torch.device("cpu")


@pytest.fixture
def engine() -> Engine:
    torch.manual_seed(0)
    model = build(catalog.model("mu/16", size=32, classes=3), dropout=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return Engine(model.train(), ImageSpec(size=(32, 32)), CPU, "fp32")


def test_logits_are_those_of_evaluation_mode_and_the_mode_is_given_back(engine: Engine) -> None:
    images = torch.randn(4, 3, 32, 32)
    first, second = engine.logits(images), engine.logits(images)
    assert torch.equal(first, second)
    assert engine.model.training
    with torch.no_grad():
        assert torch.equal(engine.model.eval()(images), first)


def test_a_stream_keeps_its_order_and_its_failures(engine: Engine) -> None:
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(5) % 3
    problem = Problem("broken.jpg", "cannot be read")
    parts = [slice(0, 2), slice(2, 2), slice(2, 5)]
    batches = [
        Batch((pixels[part],), labels[part], torch.arange(5)[part], (problem,) * (i == 1))
        for i, part in enumerate(parts)
    ]
    outputs = engine.run(batches)
    whole = engine.run([Batch((pixels,), labels, torch.arange(5))])
    np.testing.assert_allclose(outputs.logits, whole.logits, atol=1e-5)
    assert outputs.labels.tolist() == labels.tolist()
    assert outputs.indices.tolist() == list(range(5))
    assert outputs.failed == (problem,)


def test_nothing_in_nothing_out(engine: Engine) -> None:
    assert len(engine.run([]).labels) == 0


def test_devices() -> None:
    assert best_device("cpu") == CPU
    for wrong in ("cuda:77", "abacus"):
        with pytest.raises(MachineError, match="vitral doctor"):
            best_device(wrong)
    with pytest.raises(MachineError, match="called cpu, cuda, cuda:1 or mps"):
        best_device("gpu")


def test_precision() -> None:
    assert uses_bf16("bf16", CPU, 32)
    assert not uses_bf16("fp32", CPU, 1024)
    assert not uses_bf16("auto", CPU, NARROW - 1)
    capabilities = torch.cpu.get_capabilities()
    fast = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    assert uses_bf16("auto", CPU, NARROW) == fast
    with autocast("bf16", CPU, 32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("fp32", CPU, 1024):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
