"""README.md of an artifact: read back by the hub's own parser, whatever the names are."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from networks import randomised, tiny

from vitral.specs import Calibration, ImageSpec
from vitral.weights import artifact, model_card
from vitral.weights.card import Card

NASTY = (
    "cat",
    'the "quoted" one',
    "it's",
    "line\nbreak",
    "<script>alert(1)</script>",
    "`tick` ```fence```",
    "key: value # no comment",
    "--- \n---",
    "고양이 🐈",
    "| table | [link](http://x) ![](y) |",
    "&amp; {{ jinja }} {% raw %}",
    "\u2028 \x07 tab\t",
)


def values(classes: tuple[str, ...] = NASTY, **more: Any) -> dict[str, Any]:
    spec = tiny(classes=len(classes))
    made_by = {
        "recipe": {
            "start": "/home/maria/runs/secret-client",
            "data": {"source": "/home/maria/cats"},
        },
        "data": {"source": "/home/maria/cats", "fingerprint": "ab", "train": 80, "val": 20},
        "environment": {"vitral": "0.1.0", "torch": "2.13.0", "python": "3.11"},
    }
    card = Card(
        model=spec,
        images=ImageSpec(size=spec.size),
        classes=classes,
        made_by=more.pop("made_by", made_by),
        metrics={"accuracy": 0.9, "interval": [0.8, 0.95], "samples": 20, "split": "val"},
        calibration=Calibration(temperature=1.2, threshold=0.6, target=0.95, samples=20),
    )
    return {**card.to_dict(), **more}


def test_the_hubs_parser_reads_the_front_matter_back() -> None:
    card = ModelCard(model_card.text(values(), licence="apache-2.0"))
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "vitral"
    assert data["pipeline_tag"] == "image-classification"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.9)
    assert result.metric_args == {"interval_95": [0.8, 0.95], "samples": 20}
    assert (result.dataset_name, result.dataset_split) == ("cats", "val")
    assert ModelCard(model_card.text(values())).data.license == "unknown"
    assert "Not stated by whoever made it." in model_card.text(values())


def test_every_name_comes_through_unharmed_and_means_nothing() -> None:
    text = model_card.text(values())
    for name in NASTY:
        assert json.dumps(name, ensure_ascii=False) in text
    block = text[text.index("in the order of the logits") :]
    around = next(line for line in block.splitlines() if line.startswith("`"))
    inside = block.split(f"\n{around}\n")[1]
    assert [json.loads(line) for line in inside.split("\n")] == list(NASTY)
    outside = text.replace(inside, "")
    assert "<script>" not in outside and "{{" not in outside


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_source_stays_one_value(name: str) -> None:
    source = {"source": f"hf:{name}", "train": 3, "val": 1}
    text = model_card.text(values(made_by={"data": source}))
    (result,) = ModelCard(text).data.eval_results
    assert result.dataset_name == f"hf:{name}"


def test_nothing_of_the_machine_is_told() -> None:
    text = model_card.text(values())
    assert "maria" not in text and "/home" not in text
    assert "`cats`" in text and "`secret-client`" in text


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("source", "/home/maria/my photos", "my photos"),
        ("source", "photos/cats", "cats"),
        ("source", "../maria/cats/", "cats"),
        ("source", "C:\\Users\\maria\\cats", "cats"),
        ("source", "digits", "digits"),
        ("source", "hf:org/name", "hf:org/name"),
        ("source", "s3://key:secret@bucket/x.tar?token=1", "s3://bucket/x.tar"),
        (
            "start",
            "timm/vit_small_patch16_224.augreg_in21k",
            "timm/vit_small_patch16_224.augreg_in21k",
        ),
        ("start", "/data/run", "run"),
        ("note", "read from /home/maria/w.npz, half a/b", "read from w.npz, half a/b"),
        ("note", "see https://example.org/a/b/c", "see https://example.org/a/b/c"),
        ("note", "C:\\Users\\maria\\x.pth is", "x.pth is"),
    ],
)
def test_paths_become_names(field: str, before: str, after: str) -> None:
    assert model_card.public({field: [before]}) == {field: [after]}


def test_an_artifact_brings_its_card(tmp_path: Path) -> None:
    spec = tiny()
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=tuple("abcde"))
    artifact.save(tmp_path / "a", randomised(spec).float().state_dict(), card)
    text = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert ModelCard(text).data.library_name == "vitral"
    assert "not stated" in text and "How to make it again" not in text


def test_a_network_without_a_head_gives_features() -> None:
    spec = tiny(classes=0)
    card = Card(model=spec, images=ImageSpec(size=spec.size))
    text = model_card.text(card.to_dict())
    assert ModelCard(text).data.pipeline_tag == "image-feature-extraction"
    assert "names no class" in text


def test_foreign_pictures_are_told_of_where_that_is_known() -> None:
    assert "takes for its own was not measured" in " ".join(model_card.text(values()).split())
    foreign = {"kind": "knn", "kept": 0.95, "auroc_of_held_out_classes": {"knn": 0.912}}
    text = " ".join(model_card.text(values(made_by={"fitted": {"foreign": foreign}})).split())
    assert "farther from what was learnt than 95 % of the held-out images do." in text
    assert "the AUROC was 0.912" in text and "was not measured" not in text


def test_converted_weights_name_their_origin_and_its_licence() -> None:
    source = "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
    text = model_card.text(values(made_by={"converted": {"source": source}}))
    assert ModelCard(text).data.base_model == source
    assert f"It was converted from the weights `{source}` (licence: apache-2.0)." in text
    assert "How to make it again" not in text


def test_the_command_that_repeats_it_stands_where_the_recipe_does() -> None:
    assert "vitral repeat org/name PHOTOS/ --out AGAIN" in model_card.text(
        values(), repo="org/name"
    )
    theirs = model_card.text(values(), repo="org/name", library="timm")
    assert "vitral repeat" not in theirs and "Made with vitral 0.1.0" in theirs
    assert "hf-hub:org/name" in theirs
