import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import DINOV2, DINOV3, HELD, SINGLE, TRANSFORMERS, logits, of, save_artifact
from vitral.errors import WeightsError
from vitral.images import augment
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.convert import convert
from vitral.weights.formats import transformers
from vitral.weights.write import table_for

VIT = {"model_type": "vit", "num_attention_heads": 3, "image_size": [32, 48]}


def test_what_a_configuration_tells():
    told = transformers.format.facts({**VIT, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5})
    assert told == {"heads": 3, "gelu": "tanh", "norm_eps": 1e-5, "size": [32, 48]}


@pytest.mark.parametrize(
    ("kind", "eps"),
    [("vit", 1e-12), ("deit", 1e-12), ("dinov2", 1e-6), ("dinov2_with_registers", 1e-6)],
)
def test_what_it_means_where_it_is_silent(kind, eps):
    told = transformers.format.facts({"model_type": kind})
    assert (told["norm_eps"], told["heads"], told["gelu"]) == (eps, 12, "erf")


def test_the_base_of_the_rotation():
    dino = {"model_type": "dinov3_vit"}
    assert transformers.format.facts(dino)["rope_base"] == 100.0
    assert transformers.format.facts({**dino, "rope_theta": 50.0})["rope_base"] == 50.0
    assert (
        transformers.format.facts({**dino, "rope_parameters": {"rope_theta": 7.0}})["rope_base"]
        == 7.0
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "swin"}, "model type 'swin'; Vitral reads vit, deit"),
        ({"hidden_act": "relu"}, "hidden_act='relu'; Vitral has gelu"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn=True, a network that Vitral does not have"),
        ({"use_gated_mlp": True}, "use_gated_mlp=True"),
        ({"pooler_act": "relu"}, "pooler_act='relu'"),
    ],
)
def test_networks_that_we_do_not_have(change, match):
    with pytest.raises(WeightsError, match=match):
        transformers.format.facts({**VIT, **change})


def test_classes():
    names = {"0": "고양이", "1": "dog"}
    assert transformers.format.classes({"id2label": names}, 2) == ("고양이", "dog")
    assert transformers.format.classes({"id2label": {0: "a", 1: "b"}}, 2) == ("a", "b")
    for other in ({"0": "LABEL_0", "1": "LABEL_1"}, {"0": "a"}, {"0": "a", "2": "b"}, ["a", "b"]):
        assert transformers.format.classes({"id2label": other}, 2) is None
    assert transformers.format.classes({}, 1000)[0] == "tench"


def test_images():
    source = Source(path=Path("w"), tensors={})
    assert transformers.format.preprocessing(source, (32, 48)).size == (32, 48)
    values = {"size": {"height": 30, "width": 30}, "image_mean": [0.1, 0.2, 0.3]}
    told = transformers.format.preprocessing(replace(source, preprocessor=values), (32, 48))
    assert told.mean == (0.1, 0.2, 0.3)


def configured(spec):
    names = tuple(f"c{i}" for i in range(spec.classes))
    card = Card(model=spec, images=ImageSpec(size=spec.size, fit="squash"), classes=names)
    return transformers.format.config_files(card, table_for("transformers", spec))["config.json"]


def test_the_configuration_that_is_written():
    config = configured(TRANSFORMERS)
    assert config["architectures"] == ["ViTForImageClassification"]
    assert config["id2label"] == {str(i): f"c{i}" for i in range(5)}
    assert (config["image_size"], config["patch_size"]) == (32, 8)
    assert configured(of(TRANSFORMERS, classes=0))["architectures"] == ["ViTModel"]
    assert configured(of(DINOV2, registers=2))["model_type"] == "dinov2_with_registers"
    single = configured(SINGLE)
    assert single["architectures"] == ["DeiTForImageClassification"]
    assert single["model_type"] == "deit" and "num_register_tokens" not in single
    assert configured(of(SINGLE, classes=0))["architectures"] == ["DeiTModel"]
    assert configured(DINOV2)["mlp_ratio"] == 2
    assert configured(DINOV3)["num_register_tokens"] == 2
    assert configured(of(TRANSFORMERS, size=(16, 32)))["image_size"] == [16, 32]
    with pytest.raises(WeightsError, match="whole multiple of the width, not 33 of 32"):
        configured(of(DINOV2, mlp_width=33))


OPENED = [name for name in HELD["transformers"] if name != "headless"]  # its pooler is random


@pytest.mark.parametrize("name", OPENED)
def test_transformers_itself_opens_what_is_written(tmp_path: Path, name: str) -> None:
    augment.transforms()
    oracle = pytest.importorskip("transformers", reason="an oracle of the dev extra")
    spec = HELD["transformers"][name]
    save_artifact(tmp_path / "a", spec)
    done = convert(tmp_path / "a", tmp_path / "theirs", to="transformers")
    assert set(done.difference) == {"transformers"}, done.not_compared
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, spec.channels, *spec.size, generator=generator, dtype=torch.double)
    kind = "AutoModelForImageClassification" if spec.classes else "AutoModel"
    if spec.distillation_token:
        kind = "DeiTForImageClassificationWithTeacher"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # theirs, about optional packages
        network = getattr(oracle, kind).from_pretrained(tmp_path / "theirs").double().eval()
        for module in network.modules():  # the angles are float32 in any network of theirs
            if hasattr(module, "inv_freq"):
                module.inv_freq = 1 / 100 ** torch.arange(0, 1, 4 / 8, dtype=torch.double)
        answer = network(pixel_values=images)
    theirs = answer.logits if spec.classes else answer.pooler_output
    if not spec.classes and not spec.representation and "pooler" in dict(network.named_children()):
        theirs = answer.last_hidden_state[:, 0]
    bound = 1e-10 if spec.positions != "rope2d" else 1e-6
    assert (theirs - logits(tmp_path / "a")).abs().max() < bound
    if spec.classes:
        assert network.config.id2label[spec.classes - 1] == f"class {spec.classes - 1}"
    convert(tmp_path / "theirs", tmp_path / "b")
    found = artifact.load_card(tmp_path / "b").model
    assert replace(found, name="tiny", layer_scale=spec.layer_scale) == spec
