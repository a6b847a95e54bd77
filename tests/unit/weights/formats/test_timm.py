from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, TIMM, TIMM_STEM, bit, logits, of, save_artifact
from vitral import catalog
from vitral.errors import WeightsError
from vitral.images import augment
from vitral.specs import ImageSpec, ResNetSpec
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.convert import convert
from vitral.weights.formats import timm


def test_an_architecture_tells_what_our_catalogue_knows():
    told = timm.format.facts({"architecture": "vit_small_patch16_224.augreg_in21k"})
    assert (told["heads"], told["gelu"], told["size"]) == (6, "erf", (224, 224))
    assert told["name"] == "vit_small_patch16_224"


def test_arguments_and_sizes_change_it():
    config = {
        "architecture": "vit_small_patch16_224",
        "pretrained_cfg": {"input_size": [3, 96, 128]},
        "model_args": {"num_heads": 4, "act_layer": "gelu_tanh", "depth": 3, "drop_rate": 0.1},
        "global_pool": "avg",
    }
    told = timm.format.facts(config)
    assert (told["heads"], told["gelu"], told["pool"]) == (4, "tanh", "mean")
    assert told["size"] == [96, 128] and "name" not in told
    config["model_args"]["img_size"] = 64
    assert timm.format.facts(config)["size"] == 64
    old = {"architecture": "vit_small_patch16_224", "input_size": [3, 384, 384]}
    assert timm.format.facts(old)["size"] == [384, 384]


@pytest.mark.parametrize(
    "argument", ["pre_norm", "norm_layer", "mlp_layer", "pool_include_prefix", "embed_layer"]
)
def test_arguments_of_networks_that_we_do_not_have(argument):
    config = {"architecture": "vit_small_patch16_224", "model_args": {argument: True}}
    with pytest.raises(WeightsError, match=f"sets {argument}=True, which changes"):
        timm.format.facts(config)
    assert timm.format.facts({**config, "model_args": {argument: None}})["heads"] == 6


def test_classes():
    assert timm.format.classes({"label_names": ["a", "b"]}, 2) == ("a", "b")
    assert timm.format.classes({"pretrained_cfg": {"label_names": ["a", "b"]}}, 2) == ("a", "b")
    assert timm.format.classes({"label_names": ["a", "b"]}, 3) is None
    assert timm.format.classes({}, 1000)[0] == "tench"


def test_images_take_the_size_of_the_tensors():
    config = {"pretrained_cfg": {"input_size": [1, 64, 64], "mean": [0.1], "crop_pct": 0.9}}
    images = timm.format.preprocessing(Source(path=Path("w"), tensors={}, config=config), (32, 48))
    assert (images.size, images.crop, images.mean) == ((32, 48), 0.9, (0.1, 0.1, 0.1))


NAMED = ["vit_small_patch16_224", "deit3_base_patch16_384", "vit_base_patch14_reg4_dinov2"]
NAMED += ["vit_so150m_patch16_reg4_gap_256", "vit_so150m2_patch16_reg1_gap_384"]
NAMED += ["vit_base_r50_s16_224", "vit_base_patch16_siglip_224", "vit_gigantic_patch14_224"]


@pytest.mark.parametrize("name", NAMED)
def test_a_network_of_the_catalogue_has_its_own_name(name):
    spec = catalog.model(name, classes=3)
    found, arguments = timm.architecture_of(spec)
    assert arguments == {"img_size": list(spec.size)}
    # vit_..._384 is vit_..._224 at another size
    free = {"size": spec.size, "classes": 3, "layer_scale": spec.layer_scale}
    assert replace(catalog.model(found, **free), name=name) == spec


def test_other_networks_are_arguments_of_a_plain_one():
    name, arguments = timm.architecture_of(of(TIMM, mlp_width=33, registers=2))
    assert name == "vit_base_patch16_224"
    assert int(32 * arguments["mlp_ratio"]) == 33
    assert (arguments["patch_size"], arguments["reg_tokens"]) == (8, 2)
    with pytest.raises(WeightsError, match=r"no hybrid with stem \(1, 1\) of width 32"):
        timm.architecture_of(HELD["timm"]["hybrid"])
    with pytest.raises(WeightsError, match=r"timm has no architecture for tiny"):
        timm.architecture_of(HELD["timm"]["bit"])


OPENED = ["token", "odd", "four channels", "tanh", "no qkv bias", "no bias", "qk norm", "mean"]
OPENED += ["mean of normed", "map", "no positions", "distilled", "deit3", "registers", "headless"]
OPENED += ["registers with positions", "so150m", "so150m2", "eva", "eva mean", "eva bias"]


@pytest.mark.parametrize("name", OPENED)
def test_timm_itself_opens_what_is_written(tmp_path: Path, name: str) -> None:
    augment.transforms()
    oracle = pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    spec = HELD["timm"][name]
    save_artifact(tmp_path / "a", spec)
    done = convert(tmp_path / "a", tmp_path / "timm", to="timm")
    assert set(done.difference) == {"timm"}
    network = oracle.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert network.pretrained_cfg["input_size"] == (spec.channels, *spec.size)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, spec.channels, *spec.size, generator=generator, dtype=torch.double)
    with torch.inference_mode():
        theirs = network.double().eval()(images)
    assert (theirs - logits(tmp_path / "a")).abs().max() < 1e-10
    convert(tmp_path / "timm", tmp_path / "b")
    found = artifact.load_card(tmp_path / "b").model
    assert replace(found, name="tiny", layer_scale=spec.layer_scale) == spec


@pytest.mark.parametrize("width", [(50, "1"), (101, "3")])
def test_bit_is_named_by_its_units(width):
    depth, factor = width
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    resnet = ResNetSpec(
        kind="v2", blocks=blocks, width=64 * int(factor), root_pool="zero", **TIMM_STEM
    )
    spec = replace(bit(resnet), name=f"BiT-R{depth}x{factor}", gelu="erf")
    assert timm.architecture_of(spec)[0] == f"resnetv2_{depth}x{factor}_bit"
    card = Card(model=replace(spec, classes=0), images=ImageSpec(size=spec.size))
    config = timm.format.config_files(card, None)["config.json"]
    assert config["architecture"] == f"resnetv2_{depth}x{factor}_bit"
