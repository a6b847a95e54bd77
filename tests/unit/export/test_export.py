"""Exports answer as the run does, in their own runtime, without Vitral; bad input is answered."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vitral as package
from drawn import hashes
from vitral.errors import MachineError, ModelError
from vitral.export import export as exporting
from vitral.export import int8, proof
from vitral.weights.card import load_card

pytest.importorskip("openvino")
# apart: OpenVINO's threads do not go well with the tests that fork processes
pytestmark = pytest.mark.proof
Vitral = Callable[..., tuple[int, str, str]]
quiet = [].append


@pytest.fixture
def pictures(trained: Path) -> list[Path]:
    return sorted((trained / "photos").rglob("*.jpg"))[:6]


@pytest.mark.parametrize("to", ["openvino", "onnx", "torch", "executorch"])
def test_what_is_exported_answers_the_same_without_vitral(
    to: str, trained: Path, pictures: list[Path], tmp_path: Path, vitral: Vitral
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxscript")
    if to == "executorch":
        pytest.importorskip("executorch")
    before = hashes(trained)
    out = tmp_path / "out"
    code, text, err = vitral("export", trained / "run", "--to", to, "--out", out, "--json")
    assert code == 0, err
    result = json.loads(text)
    assert result["proof"]["max_difference"] < 1e-3
    assert result["proof"]["equal_labels"] == result["proof"]["images"] == 6
    assert result["proof"]["accuracy"] == result["proof"]["accuracy_before"]
    assert result["proof"]["bytes"] > 1000
    assert json.loads((out / "proof.json").read_text())["proof"] == result["proof"]
    assert "labels equal 6/6" in (out / "README.md").read_text()
    assert hashes(trained) == before
    done = subprocess.run(
        [sys.executable, "-I", "run.py", pictures[0]],
        cwd=out,
        capture_output=True,
        text=True,
        check=True,
    )
    clf = package.load(trained / "run", engine="torch", precision="fp32", announce=quiet)
    logits = clf.logits(clf.prepare(pictures[0])[None])[0]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][0] == clf.classes[int(logits.argmax())]
    assert float(lines[0][1]) == pytest.approx(float(logits.max()), abs=2e-3)


def test_an_openvino_export_is_loaded_like_a_run(
    trained: Path, pictures: list[Path], tmp_path: Path, vitral: Vitral
) -> None:
    out = tmp_path / "export"
    for precision in ("fp32", "int8"):
        if precision == "int8":
            pytest.importorskip("nncf")
        shutil.rmtree(out, ignore_errors=True)
        exporting.export(trained / "run", "openvino", out, precision=precision, announce=quiet)
        clf = package.load(out)
        ours = package.load(trained / "run", engine="torch", announce=quiet)
        for picture in pictures:
            answer = clf.predict(picture)
            assert answer.label == ours.predict(picture).label
            assert answer.foreign is not None
        code, text, err = vitral("evaluate", out, trained / "photos", "--json")
        assert code == 0, err
        assert json.loads(text)["accuracy"] == ours.evaluate(trained / "photos").accuracy
        assert load_card(out).made_by["export"] == {"to": "openvino", "precision": precision}
    code, _, err = vitral("explain", out, pictures[0], "--out", tmp_path / "x")
    assert code == 4 and "Use the run that it was made of" in err
    code, _, err = vitral("train", trained / "photos", "--from", out, "--out", tmp_path / "y")
    assert code == 4 and "is an export for OpenVINO" in err
    (out / "model.xml").write_text("<net")
    code, _, err = vitral("predict", out, pictures[0])
    assert code == 4 and "export it again" in err


def test_metadata_has_the_names_that_others_read(trained: Path, tmp_path: Path) -> None:
    import openvino

    exporting.export(trained / "run", "openvino", tmp_path / "ov", announce=quiet)
    info = openvino.Core().read_model(tmp_path / "ov" / "model.xml").get_rt_info()["model_info"]
    card = load_card(trained / "run" / "best")
    values = {key: info[key].astype(str) for key in info}
    assert values["model_type"] == "Classification"
    assert values["labels"].split(" ") == [name.replace(" ", "_") for name in card.classes]
    assert json.loads(values["classes"]) == list(card.classes)
    mean = [float(value) for value in values["mean_values"].split()]
    assert mean == pytest.approx([255 * value for value in card.images.mean], rel=1e-4)


def test_the_web_folder_is_that_of_transformers_js(
    trained: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    result = exporting.export(trained / "run", "web", tmp_path / "web", announce=quiet)
    names = {path.name for path in (tmp_path / "web" / "onnx").iterdir()}
    assert names == {"model.onnx", "model_fp16.onnx", "model_quantized.onnx"}
    assert set(result.more) == names - {"model.onnx"}
    config = json.loads((tmp_path / "web" / "config.json").read_text())
    card = load_card(trained / "run" / "best")
    assert [config["id2label"][str(i)] for i in range(len(card.classes))] == list(card.classes)
    session = runtime.InferenceSession(tmp_path / "web" / "onnx" / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["pixel_values"]
    settings = json.loads((tmp_path / "web" / "preprocessor_config.json").read_text())
    height, width = card.images.size
    assert settings["size"] == {"shortest_edge": int(height / card.images.crop)}
    assert settings["crop_size"] == {"height": height, "width": width}
    assert settings["image_mean"] == list(card.images.mean)


@pytest.mark.proof
def test_transformers_js_opens_it(trained: Path, pictures: list[Path], tmp_path: Path) -> None:
    """In Node, with the npm package, where both can be had."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    install = [
        "npm",
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "@huggingface/transformers@4",
    ]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, check=False)
    if installed.returncode:
        pytest.skip("@huggingface/transformers cannot be installed")
    exporting.export(trained / "run", "web", tmp_path / "models" / "web", announce=quiet)
    clf = package.load(trained / "run", engine="torch", precision="fp32", announce=quiet)
    script = (
        "import { pipeline, env } from '@huggingface/transformers';"
        "env.allowRemoteModels = false; env.localModelPath = './models/';"
        "for (const dtype of ['fp32', 'fp16', 'q8']) {"
        "const classify = await pipeline('image-classification', 'web', { dtype });"
        f"console.log(JSON.stringify(await classify({json.dumps(str(pictures[0]))})));}}"
    )
    (tmp_path / "run.mjs").write_text(script)
    done = subprocess.run(
        ["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    logits = clf.logits(clf.prepare(pictures[0])[None])
    expected = dict(zip(clf.classes, logits.softmax(dim=1)[0].tolist(), strict=True))
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == 3
    for answer, tolerance in zip(answers, (0.02, 0.02, 0.05), strict=True):
        for each in answer:
            assert each["score"] == pytest.approx(expected[each["label"]], abs=tolerance)


def test_settings_that_cannot_be_are_answered(
    trained: Path, tmp_path: Path, vitral: Vitral
) -> None:
    run = trained / "run"
    out = tmp_path / "out"
    code, _, err = vitral("export", run, "--to", "tflite", "--out", out)
    assert code == 2 and "one of openvino, onnx, torch, executorch, web" in err
    code, _, err = vitral("export", run, "--to", "torch", "--precision", "int8", "--out", out)
    assert code == 2 and "--precision fp32, not 'int8'" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    code, _, err = vitral("export", run, "--to", "openvino", "--out", tmp_path / "mine")
    assert code == 2 and [*(tmp_path / "mine").iterdir()] == [tmp_path / "mine" / "file"]
    code, _, err = vitral("export", run, "--to", "openvino", "--out", out, "--data", "nowhere")
    assert code == 3 and "--data PHOTOS/" in err and not out.exists()


def test_an_export_that_computes_something_else_leaves_nothing(
    trained: Path, tmp_path: Path, vitral: Vitral, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.run.openvino

    def wrong(path: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
        compute = real(path, precision)
        return lambda images: compute(images) + 0.01

    monkeypatch.setattr(exporting.run, "openvino", wrong)
    out = tmp_path / "out"
    code, _, err = vitral("export", trained / "run", "--to", "openvino", "--out", out)
    assert code == 4 and "computes something else" in err
    assert not out.exists() and not list(tmp_path.iterdir())


def test_libraries_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nncf", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MachineError, match=r"pip install 'vitral\[export\]'"):
        int8.nncf()
    with pytest.raises(MachineError, match=r"pip install 'vitral\[export\]'"):
        exporting.run.onnxruntime()


def test_the_gate_keeps_the_layers_that_cost_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNCF's part is played by names: a graph is the set of layers left in floating point."""
    graphs: list[tuple[str, ...]] = []

    def quantise(graph: object, dataset: object, **settings: object) -> tuple[str, ...]:
        scope = settings.get("ignored_scope")
        graphs.append(tuple(scope.names) if isinstance(scope, SimpleNamespace) else ())
        return graphs[-1]

    library = SimpleNamespace(
        Dataset=lambda items: SimpleNamespace(get_data=lambda: items),
        IgnoredScope=lambda names: SimpleNamespace(names=names),
        ModelType=SimpleNamespace(TRANSFORMER=1),
        QuantizationPreset=SimpleNamespace(MIXED=1),
        quantize=quantise,
    )
    monkeypatch.setattr(int8, "nncf", lambda: library)
    ranked = [f"layer {i}" for i in range(32)]
    monkeypatch.setattr(int8, "_most_lossy", lambda *args: ranked)
    monkeypatch.setattr(int8, "_loss", lambda graph, *args: (0.0 if len(graph) >= 4 else 0.1, 0.0))
    images = np.zeros((4, 3, 2, 2), np.float32)
    said: list[str] = []
    result = int8.quantise(
        lambda: "graph", images, images, np.zeros(4), np.zeros((4, 2), np.float32), said.append
    )
    assert result.kept == tuple(ranked[:4]) and graphs == [
        (),
        *map(tuple, (ranked[:2], ranked[:4])),
    ]
    assert "accuracy falls by 10.00 points" in said[0]


def test_numbers_that_are_not_finite_are_no_export() -> None:
    images = np.zeros((2, 3, 4, 4), np.float32)

    def before(x: np.ndarray) -> np.ndarray:
        return np.zeros((len(x), 2), np.float32)

    def after(x: np.ndarray) -> np.ndarray:
        return np.full((len(x), 2), np.nan, np.float32)

    with pytest.raises(ModelError, match="not finite"):
        proof.compare(before, after, images, np.zeros(2, np.int64), 1)
