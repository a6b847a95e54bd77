from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from vitral import catalog, machine
from vitral.engines.torch_engine import NARROW, TorchEngine, autocast, best_device, uses_bf16
from vitral.errors import MachineError
from vitral.model import build
from vitral.specs import Dropouts

CPU = torch.device("cpu")


@pytest.fixture
def engine() -> TorchEngine:
    torch.manual_seed(0)
    model = build(catalog.model("mu/16", size=32, classes=3), Dropouts(dropout=0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return TorchEngine(model.train(), CPU, "fp32")


def test_it_is_in_evaluation_mode_from_the_beginning(engine: TorchEngine) -> None:
    images = torch.randn(4, 3, 32, 32)
    assert not any(module.training for module in engine.model.modules())
    first = engine.logits(images)
    with torch.no_grad():
        assert np.array_equal(engine.model(images), first)
        expected = engine.model.representation(images)
        assert np.array_equal(expected, engine.representation(images))
    assert np.array_equal(engine.logits(images), first)
    assert np.array_equal(engine.logits(images.numpy()), first)


def test_several_threads_ask_at_a_time(engine: TorchEngine) -> None:
    """As a server does; nobody switches the network's mode, or records for a gradient."""
    batches = [torch.randn(1 + i % 3, 3, 32, 32) for i in range(60)]
    alone = [engine.logits(images) for images in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine.logits, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


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
    assert uses_bf16("auto", CPU, NARROW) == machine.multiplies_bf16()
    with autocast("bf16", CPU, 32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("fp32", CPU, 1024):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
