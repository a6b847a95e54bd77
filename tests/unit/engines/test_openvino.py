"""OpenVINO gives torch's numbers, in threads, from its cache, and without being told on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vitral import catalog, machine
from vitral.engines import choose, openvino_engine, openvino_runtime
from vitral.engines.openvino_engine import OpenVINOEngine
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import MachineError, ModelError, UsageError
from vitral.model import ViT, build

pytest.importorskip("openvino")
# apart: OpenVINO's threads do not go well with the tests that fork processes
pytestmark = pytest.mark.proof
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VITRAL_CACHE", str(folder))
    return folder


def drawn(name: str = "mu/16") -> ViT:
    torch.manual_seed(0)
    model = build(catalog.model(name, size=32, classes=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module")
def network() -> ViT:
    return drawn()


@pytest.mark.parametrize(
    "name",
    [
        "mu/16",
        "R+Ti/16",
        pytest.param("BiT-R26x1", marks=pytest.mark.proof),
        pytest.param("deit_tiny_distilled_patch16_224", marks=pytest.mark.proof),
    ],
)
def test_its_numbers_are_torchs(name: str) -> None:
    model = drawn(name)
    ours = TorchEngine(model, CPU, "fp32")
    theirs = openvino_engine.build(model, "digest", "fp32")
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        np.testing.assert_allclose(theirs.logits(images), ours.logits(images), atol=1e-3)
        expected = ours.representation(images)
        np.testing.assert_allclose(theirs.representation(images), expected, atol=1e-3)
        for one, other in zip(
            theirs.logits_and_detector_features(images),
            ours.logits_and_detector_features(images),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, atol=0.02)
    assert theirs.logits(torch.zeros(0, 3, 32, 32)).shape == (0, 3)
    with pytest.raises(ModelError, match="reads images of"):
        theirs.logits(torch.zeros(1, 3, 48, 32))


def test_several_threads_ask_at_a_time(network: ViT) -> None:
    engine = openvino_engine.build(network, "digest", "fp32")
    batches = [torch.randn(1 + i % 3, 3, 32, 32) for i in range(40)]
    alone = [engine.logits(images) for images in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine.logits, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_compiled_is_kept_and_what_is_broken_is_made_anew(
    network: ViT, own_cache: Path
) -> None:
    images = torch.randn(2, 3, 32, 32)
    first = openvino_engine.build(network, "digest", "fp32").logits(images)
    kept = openvino_engine.from_cache("digest", "fp32")
    assert kept is not None and np.array_equal(kept.logits(images), first)
    assert openvino_engine.size() > 1000
    assert openvino_engine.from_cache("another", "fp32") is None
    graph = next((own_cache / "engines").rglob("model.xml"))
    graph.write_text("<net>")
    assert openvino_engine.from_cache("digest", "fp32") is None
    assert not graph.exists()
    assert np.array_equal(openvino_engine.build(network, "digest", "fp32").logits(images), first)


def test_a_cache_that_cannot_be_written_costs_time_alone(
    network: ViT, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_cache / "file").write_text("")
    monkeypatch.setenv("VITRAL_CACHE", str(own_cache / "file" / "below"))
    images = torch.randn(2, 3, 32, 32)
    engine = openvino_engine.build(network, "digest", "fp32")
    np.testing.assert_allclose(
        engine.logits(images), TorchEngine(network, CPU, "fp32").logits(images), atol=1e-3
    )


@pytest.fixture
def said() -> Iterator[list[str]]:
    yield []


def test_the_choice_is_measured_once(
    network: ViT, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = TorchEngine(network, CPU, "fp32")

    def chosen(engine: choose.EngineName) -> object:
        return choose.choose(
            ours, network, "digest", engine=engine, precision="fp32", announce=said.append
        )

    assert chosen("torch") is ours
    assert chosen("auto") is ours and said == []  # so light a network is not worth it
    assert choose.kept(network.spec, "digest", "auto", "fp32") is None
    monkeypatch.setattr(choose, "LIGHT", 0)
    times = {"1": {"torch": 2.0, "openvino": 1.0}, "8": {"torch": 1.0, "openvino": 1.5}}
    monkeypatch.setattr(choose, "_measured", lambda *args: times[str(args[-1])])
    assert isinstance(chosen("auto"), OpenVINOEngine)
    assert "compiling" in said[0] and "2.0 and 0.7 times as fast as torch" in said[1]
    assert isinstance(choose.kept(network.spec, "digest", "auto", "fp32"), OpenVINOEngine)
    said.clear()
    assert isinstance(chosen("auto"), OpenVINOEngine) and said == []
    times["8"]["openvino"] = 3.0
    choose.cache.store("engine_choices", openvino_engine.key_of("digest", "fp32"), times)
    assert chosen("auto") is ours
    assert choose.kept(network.spec, "digest", "auto", "fp32") is None
    assert isinstance(chosen("openvino"), OpenVINOEngine)
    choose.cache.store("engine_choices", openvino_engine.key_of("digest", "fp32"), {"1": "x"})
    assert choose.kept(network.spec, "digest", "auto", "fp32") is None


def test_what_cannot_be_had(network: ViT, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = TorchEngine(network, CPU, "fp32")
    with pytest.raises(UsageError, match="engine is one of auto, torch, openvino"):
        choose.check_name("onnx")
    with pytest.raises(UsageError, match="precision is one of auto, fp32, bf16"):
        choose.check_precision("fp8")
    monkeypatch.setattr(machine, "multiplies_bf16", lambda: False)
    assert choose.openvino_precision("auto") == "fp32"
    with pytest.raises(MachineError, match="multiply bfloat16"):
        choose.openvino_precision("bf16")
    monkeypatch.setattr(choose, "LIGHT", 0)
    monkeypatch.setattr(machine, "free_cpu_memory", lambda: 1000)
    chosen = choose.choose(
        ours, network, "d", engine="auto", precision="fp32", announce=said.append
    )
    assert chosen is ours and "not enough free memory" in said[-1]
    monkeypatch.setattr(choose, "runtime", lambda: None)
    chosen = choose.choose(
        ours, network, "d", engine="auto", precision="fp32", announce=said.append
    )
    assert chosen is ours and "is not installed" in said[-1]
    with pytest.raises(MachineError, match="pip install 'openvino"):
        choose.choose(ours, network, "d", engine="openvino", precision="fp32", announce=said.append)


def test_a_network_that_it_cannot_take_is_computed_by_torch(
    network: ViT, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: ViT) -> None:
        raise ModelError("OpenVINO cannot take the network x: because.")

    monkeypatch.setattr(choose, "LIGHT", 0)
    monkeypatch.setattr(openvino_engine, "_graph", refuse)
    ours = TorchEngine(network, CPU, "fp32")
    chosen = choose.choose(
        ours, network, "new", engine="auto", precision="fp32", announce=said.append
    )
    assert chosen is ours and said[-1].endswith("because.")
    with pytest.raises(ModelError, match="because"):
        choose.choose(
            ours, network, "new", engine="openvino", precision="fp32", announce=said.append
        )


def test_nothing_is_sent_or_counted_of_its_use(tmp_path: Path) -> None:
    code = (
        "import sys; from vitral.engines.openvino_runtime import runtime; assert runtime();"
        "assert 'openvino_telemetry' not in sys.modules"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_versions() -> None:
    class Module:
        __version__ = "2026.4.1-21919-abc"

    assert openvino_runtime.version(Module) == (2026, 4)
    Module.__version__ = "custom"
    assert openvino_runtime.version(Module) == (0, 0)
