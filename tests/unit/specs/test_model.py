import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from networks import BIT, STEM, TINY, tiny, tiny_bit, tiny_resnet

from vitral.catalog import model, names
from vitral.errors import ModelError, SpecError
from vitral.specs import ModelSpec, ResNetSpec


@pytest.mark.parametrize(
    "name", ["S/16", "R50+B/16", "BiT-R50x1", "deit_base_distilled_patch16_224"]
)
def test_a_spec_survives_json(name):
    spec = model(name, classes=7)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_from_dict_names_what_is_unknown_missing_or_of_another_type():
    values = TINY.to_dict()
    with pytest.raises(SpecError, match="no field 'pach'; did you mean 'patch'"):
        ModelSpec.from_dict(values | {"pach": 8})
    with pytest.raises(SpecError, match="width"):
        ModelSpec.from_dict({k: v for k, v in values.items() if k != "width"})
    with pytest.raises(SpecError, match="width is a whole number"):
        ModelSpec.from_dict(values | {"width": "32"})


def test_a_model_json_from_before_a_field_reads_as_it_was():
    """Every field but the sizes has the value that models had before there was a choice."""
    values = tiny(registers=2).to_dict()
    del values["register_positions"]
    assert ModelSpec.from_dict(values) == tiny(registers=2)
    assert not ModelSpec.from_dict(values).register_positions


def test_a_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TINY.width = 64


def test_sizes_and_patches_are_height_then_width():
    spec = tiny(size=(48, 64), patch=(16, 8))
    assert spec.grid == (3, 8) and spec.stride == (16, 8) and spec.tokens == 25
    assert tiny(size=64, patch=8).grid == (8, 8)


def test_a_size_that_does_not_fit_names_the_nearest_that_do():
    with pytest.raises(SpecError) as error:
        model("S/16", size=230)
    assert str(error.value) == (
        "Size 230x230 is not a multiple of the patch 16x16; "
        "the nearest that fit are 224x224 and 240x240."
    )
    with pytest.raises(SpecError, match=r"is not a multiple.*nearest that fits is 16x16\.$"):
        model("S/16", size=10)
    with pytest.raises(
        SpecError, match=r"patch 32x32; the nearest that fit are 224x224 and 256x256"
    ):
        model("R+Ti/16", size=230)


def test_the_sizes_that_are_offered_fit():
    for size in (1, 7, 13, 14, 31, 32, 33, 63, 100):
        for name in ("Ti/16", "Ti/14", "R+Ti/16"):
            try:
                spec = model(name, size=size)
            except SpecError as error:
                offered = [word.rstrip(".") for word in str(error).split("nearest")[1].split()]
                offered = [word for word in offered if word[0].isdigit()]
                assert offered
                for word in offered:
                    assert model(name, size=int(word.split("x")[0])).grid[0] >= 1
            else:
                assert spec.grid[0] * spec.stride[0] >= size


def test_a_hybrid_counts_cells_of_its_stem_and_rounds_up():
    spec = model("R50+B/16")
    assert spec.grid == (14, 14) and spec.stride == (16, 16)
    assert replace(spec, size=(70, 54)).grid == (5, 4)
    assert model("R+Ti/16").grid == (7, 7)  # trap 9: the name says 16, the network does 32
    assert model("R+Ti/16").stride == (32, 32)
    assert model("BiT-R50x1").grid == (7, 7) and model("BiT-R50x1").stride == (32, 32)


def test_prefix_and_position_rows():
    assert tiny().prefix == 1 and tiny().position_prefix == 1
    both = tiny(distillation_token=True, registers=3)
    assert both.prefix == 5 and both.position_prefix == 2
    assert replace(both, prefix_positions=False).position_prefix == 0
    assert tiny(class_token=False, pool="mean").position_prefix == 0
    assert replace(both, register_positions=True).position_prefix == 5
    alone = tiny(class_token=False, pool="mean", registers=3, register_positions=True)
    assert alone.position_prefix == replace(alone, prefix_positions=False).position_prefix == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pool": "cls", "class_token": False}, "needs class_token"),
        ({"heads": 5}, "not a multiple of 5 heads"),
        ({"distillation_token": True, "pool": "mean"}, "needs pool='cls'"),
        ({"distillation_token": True, "representation": 8}, "single linear layers"),
        ({"distillation_token": True, "classes": 0}, "needs classes"),
        ({"positions": "sincos2d", "width": 36, "heads": 4, "head_width": 9}, None),
        ({"positions": "sincos2d", "width": 34, "heads": 2}, "needs a width"),
        ({"positions": "sincos2d_mae", "width": 34, "heads": 2}, "needs a width"),
        ({"positions": "sincos2d", "width": 4}, "needs a width"),
        ({"positions": "learned2d", "width": 33, "heads": 3}, "even width"),
        ({"positions": "rope2d", "head_width": 6}, "steps of 4"),
        ({"positions": "none", "positions_at": "every"}, "adds none"),
        ({"positions": "rope2d", "positions_at": "shared"}, "adds none"),
        ({"positions": "relative", "positions_at": "every"}, "adds none"),
        ({"positions": "sincos2d", "positions_at": "every"}, "fixed"),
        ({"positions": "sincos2d", "positions_at": "shared"}, None),
        ({"positions": "fourier"}, "is one of none | learned"),
        ({"pool": "max"}, "is one of cls | mean | mean_all | cls_mean | map"),
        ({"pool": "cls_mean", "class_token": False}, "pool='cls_mean' needs class_token"),
        ({"pool": "cls_mean", "pool_norm": "after"}, "norms the tokens before"),
        ({"pool": "cls_mean", "distillation_token": True}, "needs pool='cls'"),
        ({"pool_blocks": 2, "distillation_token": True}, "needs pool='cls'"),
        ({"pool_blocks": 2, "pool": "mean"}, "reads class tokens, and pool='mean' none"),
        ({"pool_blocks": 3}, "at most the depth, 2"),
        ({"pool_blocks": 0}, "from 1 to"),
        ({"pool_blocks": 2, "pool": "cls_mean"}, None),
        ({"gelu": "quick"}, "is one of tanh | erf"),
        ({"biases": True}, "is one of all | no_qkv | no_attention | none"),
        ({"out_projection": False, "head_width": 5}, "as wide as the tokens, 32, not 20"),
        ({"out_projection": False}, None),
        ({"patch_norms": 1}, "true or false"),
        ({"resample": "opencv"}, "is one of google"),
        ({"register_positions": True}, "needs registers"),
        ({"registers": 2, "register_positions": 1}, "true or false"),
        (
            {"registers": 2, "register_positions": True, "prefix_positions": False},
            "needs prefix_positions=True",
        ),
        *(
            (
                {"registers": 2, "register_positions": True, "positions": form, "head_width": 8},
                f"'{form}' gives the tokens before the patches none",
            )
            for form in ("none", "sincos2d", "sincos2d_mae", "rope2d")
        ),
        ({"registers": 2, "register_positions": True, "positions": "learned2d"}, None),
        ({"registers": 2, "register_positions": True, "positions": "relative"}, None),
        ({"depth": 0}, "from 1 to"),
        ({"width": 0}, "from 1 to"),
        ({"classes": -1}, "from 0 to"),
        ({"classes": True}, "whole number"),
        ({"head_width": 0}, "from 1 to"),
        ({"layer_scale": 0.0}, "greater than 0"),
        ({"norm_eps": -1.0}, "greater than 0"),
        ({"qk_norm": 1}, "true or false"),
        ({"size": (32, 0)}, "positive number"),
        ({"patch": (16, 16, 3)}, "positive number"),
    ],
)
def test_combinations_without_sense_are_refused_with_the_reason(changes, reason):
    if reason is None:
        tiny(**changes)
    else:
        with pytest.raises(SpecError) as error:
            tiny(**changes)
        assert reason in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 1},
        {"class_token": True},
        {"width": 64},
        {"patch": 2},
        {"register_positions": True},
    ],
)
def test_a_bit_network_has_no_transformer(change):
    spec = tiny_bit()
    assert spec.is_resnet and spec.resnet == BIT and not tiny(resnet=STEM, patch=1).is_resnet
    with pytest.raises(SpecError, match="has no transformer"):
        replace(spec, **change)


def test_a_stem_without_blocks_behind_it_is_a_network_of_its_own():
    assert tiny_resnet().is_resnet and model("ResNet-R50x1").resnet.blocks == (3, 4, 6, 3)
    with pytest.raises(SpecError, match="so class_token stays at False, not True"):
        replace(tiny_resnet(), class_token=True)
    with pytest.raises(SpecError, match="so width stays at 256, not 64"):
        replace(tiny_resnet(), width=64)


def test_images_that_do_not_fit_are_refused_in_one_sentence():
    spec = tiny()
    spec.check_images((2, 3, 32, 48))
    with pytest.raises(ModelError, match=r"takes images \(B, 3, height, width\), not a tensor"):
        spec.check_images((3, 32, 48))
    with pytest.raises(ModelError, match="not a tensor of shape"):
        spec.check_images((2, 1, 32, 48))
    with pytest.raises(ModelError, match="takes 32x48 pixels, not 48x48; resize the images"):
        spec.check_images((2, 3, 48, 48))
    spec.check_images((2, 3, 48, 48), any_size=True)
    with pytest.raises(SpecError, match="nearest that fit are 32x48 and 48x64"):
        spec.check_images((2, 3, 40, 50), any_size=True)


def test_every_listed_name_is_a_valid_spec_and_survives_json():
    for name in names():
        spec = model(name)
        assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_no_torch_is_imported():
    code = (
        "import sys; from vitral.catalog import model; from vitral.specs import counts; "
        "counts.flops(model('S/16')); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize(
    "change",
    [
        {"norm_eps": None},
        {"rope_base": None},
        {"norm_eps": True},
        {"layer_scale": float("inf")},
        {"size": 224.0},
        {"size": None},
        {"size": True},
        {"patch": True},
        {"patch": None},
        {"resnet": "R50"},
        {"resnet": {"blocks": (1,)}},
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_refused_with_a_sentence(change):
    with pytest.raises(SpecError):
        tiny(**change)


@pytest.mark.parametrize(
    "change", [{"blocks": 3}, {"blocks": (True,)}, {"norm_eps": None}, {"weight_eps": float("nan")}]
)
def test_stems_of_the_wrong_kind_are_refused_with_a_sentence(change):
    with pytest.raises(SpecError):
        ResNetSpec(**change)
