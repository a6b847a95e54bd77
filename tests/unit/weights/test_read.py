import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, same, save_artifact, store, tensors, theirs
from vitral.errors import UsageError, WeightsError
from vitral.weights import artifact
from vitral.weights.convert import convert
from vitral.weights.read import is_artifact, read_weights

SPEC = HELD["timm"]["token"]
SAID = {"size": (32, 32), "changes": ["model.heads=4"]}


def written(tmp_path: Path, changes=None, config=None, spec=SPEC, format="timm") -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    values = {**theirs(format, spec), **(changes or {})}
    path = store(folder / "model.safetensors", values)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder if config is not None else path


def test_what_a_file_becomes(tmp_path: Path) -> None:
    weights = read_weights(written(tmp_path), **SAID)
    assert same(weights.tensors, tensors(SPEC))
    assert (weights.format, weights.layout.table) == ("timm", "timm_vit")
    assert weights.card.classes == ("0", "1", "2", "3", "4")
    assert weights.card.images.size == weights.card.model.size == (32, 32)
    guessed, assumed, numbered = weights.notes
    assert "no config.json beside the tensors" in guessed
    assert "timm's defaults are assumed (a picture is resized until it covers 36x36" in assumed
    assert "mean 0.485, 0.456, 0.406" in assumed and "--set images.mean=[0.485," in assumed
    assert [one.topic for one in weights.decisions] == ["start", "start"]
    assert numbered == "nothing names the classes; they are numbered from 0"


def test_a_thousand_logits_are_imagenets(tmp_path: Path) -> None:
    weights = read_weights(written(tmp_path, spec=replace(SPEC, classes=1000)), **SAID)
    assert weights.card.classes[:2] == ("tench", "goldfish")
    assert "numbered" not in " ".join(weights.notes)


def test_notes_say_what_was_met(tmp_path: Path) -> None:
    half = {name: x.half() for name, x in theirs("timm", SPEC).items()}
    zero = {"head.weight": torch.zeros(5, 32).half(), "head.bias": torch.zeros(5).half()}
    notes = " ".join(read_weights(written(tmp_path, {**half, **zero}), **SAID).notes)
    assert "stored as float16; exact in float32" in notes
    assert "the head is all zeros" in notes and "cannot classify until it is fine-tuned" in notes
    double = {name: x.double() for name, x in theirs("timm", SPEC).items()}
    notes = " ".join(read_weights(written(tmp_path, double), **SAID).notes)
    assert "stored as float64; rounded to float32" in notes
    values = {f"params/img/{k}": x for k, x in theirs("google", HELD["google"]["token"]).items()}
    path = store(tmp_path / "two.npz", {**values, "params/txt/x": torch.ones(1)})
    assert "1 tensors of other networks" in " ".join(read_weights(path).notes)
    path = store(tmp_path / "sincos.npz", theirs("google", HELD["google"]["sincos"]))
    notes = " ".join(read_weights(path, size=(32, 32)).notes)
    assert "no table of positions; model.positions=sincos2d is taken" in notes


def test_the_head_can_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    changes = [*SAID["changes"], "model.classes=0"]
    weights = read_weights(path, size=(32, 32), changes=changes)
    assert weights.card.model.classes == 0 and weights.card.classes == ()
    assert not [name for name in weights.tensors if "head" in name]
    assert "the head was left out (head.bias, head.weight)" in weights.notes


def test_dinov2s_classifier_reads_twice_the_width(tmp_path: Path) -> None:
    spec = HELD["transformers"]["dinov2"]
    values = {f"dinov2.{name}": x for name, x in theirs("transformers", spec).items()}
    head = {"classifier.weight": torch.ones(5, 64), "classifier.bias": torch.ones(5)}
    path = store(tmp_path / "w.safetensors", {**values, **head})
    found = read_weights(path, **SAID).card.model
    assert (found.pool, found.pool_blocks, found.classes) == ("cls_mean", 1, 5)
    weights = read_weights(path, size=(32, 32), changes=["model.heads=4", "model.classes=0"])
    assert same(weights.tensors, tensors(spec)) and weights.card.model.pool == "cls"


@pytest.mark.parametrize("width", [33, 64, 96])
def test_a_head_that_reads_what_its_program_does_not_pool(tmp_path: Path, width: int) -> None:
    with pytest.raises(WeightsError, match=r"cls_mean, and timm has cls|shape"):
        read_weights(written(tmp_path, {"head.weight": torch.ones(5, width)}), **SAID)


@pytest.mark.parametrize("change", ["optimizer.lr=1", "heads=4", "modelheads=4"])
def test_changes_are_of_the_model_or_the_images(tmp_path: Path, change: str) -> None:
    with pytest.raises(UsageError, match=r"model\.NAME or images\.NAME"):
        read_weights(written(tmp_path), size=(32, 32), changes=["model.heads=4", change])


def test_changes_of_the_images(tmp_path: Path) -> None:
    changes = [*SAID["changes"], "images.crop=0.5", "images.mean=[0, 0, 0]"]
    card = read_weights(written(tmp_path), size=(32, 32), changes=changes).card
    assert (card.images.crop, card.images.mean) == (0.5, (0, 0, 0))


TIMM = {"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "num_heads": 4}}
HUGGING = {
    "model_type": "vit", "hidden_size": 32, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8, "num_hidden_layers": 2,
}  # fmt: skip
BROKEN = [
    {**TIMM, "model_args": "x"}, {**TIMM, "model_args": [1]}, {**TIMM, "pretrained_cfg": "x"},
    {**TIMM, "pretrained_cfg": {"mean": "x"}}, {**TIMM, "pretrained_cfg": {"crop_pct": -3}},
    {**TIMM, "model_args": {"num_heads": "four"}}, {**TIMM, "model_args": {"num_heads": 0}},
    {**TIMM, "model_args": {"img_size": "big"}}, {**TIMM, "model_args": {"img_size": -32}},
    {**TIMM, "model_args": {"act_layer": ["gelu"]}}, {**TIMM, "global_pool": "max"},
    {**TIMM, "global_pool": ["avg"]}, {"architecture": "vit_tiny_patch16_224"},
    {"architecture": 3},
    {**HUGGING, "model_type": "swin"}, {**HUGGING, "model_type": ["vit"]},
    {**HUGGING, "num_attention_heads": "four"}, {**HUGGING, "num_attention_heads": -4},
    {**HUGGING, "num_attention_heads": None}, {**HUGGING, "num_attention_heads": 4.5},
    {**HUGGING, "hidden_act": "relu"}, {**HUGGING, "hidden_act": ["gelu"]},
    {**HUGGING, "layer_norm_eps": "small"}, {**HUGGING, "layer_norm_eps": 0},
    {**HUGGING, "image_size": -1}, {**HUGGING, "image_size": {"height": 32}},
    {**HUGGING, "image_size": 224}, {**HUGGING, "use_gated_mlp": True},
]  # fmt: skip


@pytest.mark.parametrize("config", BROKEN, ids=range(len(BROKEN)))
def test_a_configuration_with_wrong_values(tmp_path: Path, config: dict[str, object]) -> None:
    format = "transformers" if "model_type" in config else "timm"
    folder = written(tmp_path, spec=HELD[format]["token"], config=config, format=format)
    good = {**TIMM} if format == "timm" else {**HUGGING}
    with pytest.raises(WeightsError) as caught:
        convert(folder, tmp_path / "out")
    assert caught.value.exit_code == 4 and len(str(caught.value)) < 400
    assert not (tmp_path / "out").exists()
    (folder / "config.json").write_text(json.dumps(good))
    assert read_weights(folder).card.model.heads == 4


def test_a_configuration_of_another_program_is_ignored(tmp_path: Path) -> None:
    config = {"lr": 3, "pretrained_cfg": "x", "label_names": 7, "model_args": []}
    folder = written(tmp_path, config=config)
    weights = read_weights(folder, **SAID)
    assert weights.source.config is None
    config = {**config, "model_type": "llama"}  # of a language model in the same folder
    assert read_weights(written(tmp_path, config=config), **SAID).format == "timm"


def test_an_artifact_is_read_as_it_is(tmp_path: Path) -> None:
    folder = save_artifact(tmp_path / "a", SPEC)
    weights = read_weights(folder, changes=["model.norm_eps=0.001"])
    assert weights.card.model == replace(SPEC, norm_eps=1e-3)
    assert (weights.format, weights.layout, weights.source) == ("vitral", None, None)
    with pytest.raises(UsageError, match="an artifact does"):
        read_weights(folder, size=(64, 64))
    assert is_artifact(folder) and not is_artifact(tmp_path)


def test_an_artifact_remembers_its_file(tmp_path: Path) -> None:
    spec = HELD["transformers"]["dinov2"]
    path = store(tmp_path / "w.safetensors", theirs("transformers", spec))
    convert(path, tmp_path / "a", **SAID)
    first = read_weights(path, **SAID)
    again = read_weights(tmp_path / "a")
    assert again.layout == first.layout
    assert same(again.passthrough, first.passthrough) and set(again.passthrough) == {
        "embeddings.mask_token"
    }
    kept = tmp_path / "a" / artifact.KEPT
    kept.write_bytes(kept.read_bytes()[:-5])
    with pytest.raises(WeightsError, match=r"kept\.safetensors cannot be read"):
        read_weights(tmp_path / "a")


@pytest.mark.parametrize(
    "layout",
    [{"table": "timm_vit"}, {"table": "timm_vit", "variants": ["x"], "prefix": 3},
     {"table": "timm_vit", "variants": ["nonsense"]}, {"table": "timm_vit", "variants": [], "a": 1},
     {"table": "timm_vit", "variants": [], "dtypes": {"*": "load"}}, {"table": ["timm_vit"]}],
)  # fmt: skip
def test_a_layout_that_was_edited(tmp_path: Path, layout: dict[str, object]) -> None:
    folder = save_artifact(tmp_path / "a", SPEC)
    values, card = artifact.load_tensors(folder)
    artifact.save(folder, values, replace(card, made_by={"layout": layout}))
    with pytest.raises(WeightsError, match=r"model\.json"):
        convert(folder, tmp_path / "w.pth", to="timm")


def test_a_changed_network_forgets_its_file(tmp_path: Path) -> None:
    """Names of a file may tell the pooling, so that another network needs names of its own."""
    spec = HELD["timm"]["mean"]
    path = store(tmp_path / "w.safetensors", theirs("timm", spec))
    convert(path, tmp_path / "a", size=(32, 32), changes=["model.heads=4"])
    assert read_weights(tmp_path / "a").layout.variants == ("mean",)
    changed = read_weights(tmp_path / "a", changes=["model.pool=cls", "model.pool_norm=before"])
    assert changed.layout is None
    convert(
        tmp_path / "a",
        tmp_path / "b.safetensors",
        to="timm",
        changes=["model.pool=cls", "model.pool_norm=before"],
    )
    assert read_weights(tmp_path / "b.safetensors", **SAID).card.model.pool == "cls"
