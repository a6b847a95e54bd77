import pytest

from vitral.catalog import model, names
from vitral.errors import ModelError, SpecError


def test_the_defaults_are_the_authors():
    spec = model("S/16")
    assert (spec.width, spec.depth, spec.heads, spec.mlp_width) == (384, 12, 6, 1536)
    assert (spec.size, spec.patch, spec.classes, spec.channels) == ((224, 224), (16, 16), 1000, 3)
    assert (spec.gelu, spec.norm_eps, spec.resample, spec.pool) == ("tanh", 1e-6, "google", "cls")


@pytest.mark.parametrize(
    ("name", "changes", "patch"),
    [
        ("S/4", {}, (4, 4)),
        ("B/20", {"size": 240}, (20, 20)),
        ("S/16x8", {}, (16, 8)),
        ("Ti/7x28", {}, (7, 28)),
        ("S/16", {"patch": (8, 4)}, (8, 4)),
    ],
)
def test_any_patch_is_parsed_from_the_name(name, changes, patch):
    spec = model(name, **changes)
    assert spec.patch == patch and spec.name == name


def test_changes_win_and_a_pool_decides_about_the_class_token():
    spec = model("S/16", size=128, classes=10, pool="mean")
    assert spec.size == (128, 128) and spec.classes == 10
    assert spec.pool == "mean" and not spec.class_token
    assert model("S/16", pool="mean", class_token=True).class_token
    assert not model("vit_base_patch16_siglip_224").class_token


def test_timm_and_torchvision_names_bring_their_conventions():
    timm, torchvision = model("vit_small_patch16_384"), model("vit_b_16")
    assert (timm.gelu, timm.resample, timm.size) == ("erf", "timm", (384, 384))
    assert (torchvision.gelu, torchvision.resample) == ("erf", "torchvision")
    hybrid = model("vit_base_r50_s16_224").resnet
    assert (hybrid.norm_eps, hybrid.weight_eps, hybrid.weight_eps_in) == (1e-5, 1e-8, "var")
    assert hybrid.blocks == (3, 4, 9)


def test_hybrids_and_bit_beyond_the_listed_ones():
    assert model("R50+S/32").resnet.blocks == (3, 4, 6, 3)
    assert model("BiT-R50x6").width == 6 * 2048
    assert model("μ/16") == model("mu/16").__class__(
        **{**fields_of(model("mu/16")), "name": "μ/16"}
    )


def fields_of(spec):
    return {name: getattr(spec, name) for name in spec.__slots__}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_smal_patch16_224", "did you mean 'vit_small_patch16_224'?"),
        ("s/16", "did you mean 'S/16'?"),
        ("BiT-R51x1", "did you mean 'BiT-R50x1'?"),
        ("R26+B/16", "did you mean"),
        ("S/0", "did you mean"),
        ("resnet", "`vitral models` lists what exists."),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name, hint):
    with pytest.raises(ModelError) as error:
        model(name)
    assert f"There is no model '{name}'" in str(error.value) and hint in str(error.value)


def test_an_unknown_change_is_an_error_with_a_hint():
    with pytest.raises(SpecError, match="no field 'clases'; did you mean 'classes'"):
        model("S/16", clases=10)


def test_names_are_unique_and_cover_the_paper():
    assert len(names()) == len(set(names()))
    assert {"B/16", "L/32", "H/14", "R50+B/16", "BiT-R152x2", "vit_b_16"} < set(names())
    assert len([name for name in names() if name.startswith("BiT")]) == 20
