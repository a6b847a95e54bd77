from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from checkpoints import CASES, HELD, said, tensors, theirs
from vitral import catalog
from vitral.errors import WeightsError
from vitral.images import augment
from vitral.model import ViT
from vitral.specs import Dropouts, ModelSpec
from vitral.weights import artifact, formats
from vitral.weights.axes import Shape
from vitral.weights.checkpoint_files import Source
from vitral.weights.infer_spec import check_complete, detect_format, infer_spec, shape_from_changes
from vitral.weights.rename import tables
from vitral.weights.write import layout_for, table_for


def source(values, config=None):
    return Source(path=Path("w.pth"), tensors=values, config=config)


def spec_from(values, config=None, **options) -> ModelSpec:
    found = source(values, config)
    table = detect_format(found)
    reading = table.read(values, shape_from_changes(found, options.get("changes", ())))
    check_complete(table, reading, found.path)
    return infer_spec(found, table, reading, **options)


@pytest.mark.parametrize(("format", "name"), CASES)
def test_shapes_tell_the_spec(format, name):
    spec = HELD[format][name]
    assert replace(spec_from(theirs(format, spec), **said(spec)), name="tiny") == spec


@pytest.mark.parametrize("name", ["S/16", "B/32", "vit_b_16", "deit3_small_patch16_224"])
def test_full_sizes_need_nothing_said(name):
    """Heads from the catalogue's sizes; on the meta device, which holds no numbers."""
    spec = catalog.model(name)
    format = "torchvision" if name == "vit_b_16" else "google" if "/" in name else "timm"
    found = spec_from_meta(format, spec)
    told = {"name": spec.name, "layer_scale": spec.layer_scale}
    assert replace(found, **told) == spec
    assert found.heads == spec.heads


RULES = [("google", "token"), ("google", "hybrid"), ("google", "bit"), ("google", "sincos")]
RULES += [("timm", name) for name in ("token", "hybrid", "bit", "map", "eva mean", "deit3")]
RULES += [("torchvision", "token"), ("transformers", "token"), ("transformers", "distilled")]
RULES += [("timm", "registers with positions"), ("timm", "so150m"), ("timm", "so150m2")]
RULES += [("transformers", "one head"), ("transformers", "one head, headless")]
RULES += [("transformers", "dinov2"), ("transformers", "dinov3")]
RULES += [("vit-pytorch", name) for name in ("token", "mean", "2021", "simple", "simple, 2022")]


@pytest.mark.parametrize(("format", "name"), RULES)
def test_where_nothing_is_said_the_homes_code_decides(format, name):
    """GELU, epsilons, pooling and resampling, of a file without a configuration."""
    spec = HELD[format][name]
    heads = [] if spec.is_resnet else [f"model.heads={spec.heads}"]
    found = spec_from(theirs(format, spec), size=spec.size, changes=heads)
    assert replace(found, name="tiny", layer_scale=spec.layer_scale) == spec


def spec_from_meta(format: str, spec: ModelSpec) -> ModelSpec:
    with torch.device("meta"):
        ours = ViT(spec, Dropouts()).state_dict()
    table = table_for(format, spec)
    values = table.write(ours, spec.heads, layout_for(table, spec), {})
    return infer_spec(source(values), table, table.read(values))


def test_what_tensors_cannot_tell_is_asked_for():
    values = theirs("timm", HELD["timm"]["token"])
    with pytest.raises(WeightsError, match=r"number of heads of width 32.*--set model\.heads=NUM"):
        spec_from(values)
    assert spec_from(values, changes=["model.heads=2"]).heads == 2
    # Google's names say the heads
    assert spec_from(theirs("google", HELD["google"]["token"])).heads == 4
    wide = HELD["google"]["wide heads"]
    assert spec_from(theirs("google", wide)).head_width == 24


def test_the_size_is_asked_for_where_no_square_fits():
    spec = replace(HELD["google"]["token"], size=(16, 24))
    values = theirs("google", spec)
    with pytest.raises(WeightsError, match=r"7 positions are no square.*--size HEIGHTxWIDTH"):
        spec_from(values)
    assert spec_from(values, size=(16, 24)).grid == (2, 3)
    with pytest.raises(WeightsError, match=r"7 positions do not fit 32x32 pixels.*4x4 patches"):
        spec_from(values, size=(32, 32))
    without = spec_from(theirs("google", replace(spec, prefix_positions=False)), size=(16, 24))
    assert not without.prefix_positions
    sincos = theirs("google", HELD["google"]["sincos"])
    with pytest.raises(WeightsError, match=r"no tensor tells the size.*--size HEIGHTxWIDTH"):
        spec_from(sincos)
    assert spec_from(sincos, size=(8, 16)).positions == "sincos2d"


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("registers", [1, 3, 4, 7])
@pytest.mark.parametrize("size", [(64, 64), (40, 64)])
def test_the_rows_say_which_tokens_have_a_position(class_token, registers, size):
    """None, the class token (DINOv2's authors), or every one; a square needs no --size."""
    base = replace(HELD["timm"]["token"], size=size, registers=registers)
    base = base if class_token else replace(base, class_token=False, pool="mean")
    kinds = [{"prefix_positions": not class_token}, {"register_positions": True}]
    for kind in [*kinds, {}] if class_token else kinds:
        spec = replace(base, **kind)
        heads = [f"model.heads={spec.heads}"]
        table = table_for("timm", spec)
        values = table.write(tensors(spec), spec.heads, layout_for(table, spec), {})
        square = {} if size[0] == size[1] else {"size": size}
        assert replace(spec_from(values, changes=heads, **square), name="tiny") == spec


def test_a_distilled_deit_is_told_by_its_heads():
    """Two heads, one of its own, or none: by the names alone."""
    two = theirs("transformers", HELD["transformers"]["distilled"])
    assert detect_format(source(two)) == tables()["transformers_deit"]
    for name in ("one head", "one head, headless", "one head, pooler"):
        file = theirs("transformers", HELD["transformers"][name])
        assert detect_format(source(file)) == tables()["transformers_deit_single"]
        spec = spec_from(file, changes=["model.heads=4"])
        assert (spec.registers, spec.register_positions, spec.prefix_positions) == (1, True, True)
        assert spec.size == (32, 32)
    table = file["embeddings.position_embeddings"]
    with pytest.raises(WeightsError, match="17 positions are no square"):
        spec_from(
            {**file, "embeddings.position_embeddings": table[:, 1:]}, changes=["model.heads=4"]
        )
    damaged = {k: x for k, x in two.items() if not k.startswith("cls_")}
    with pytest.raises(WeightsError):
        spec_from(damaged, changes=["model.heads=4"])


CHANGES = (
    "heads=0 heads=-1 heads=5 heads=four heads=2.5 heads=true patch=0 width=wide depth=x gelu=relu "
    "norm_eps=x pool=max class_token=maybe"
)


@pytest.mark.parametrize("change", CHANGES.split())
def test_values_that_cannot_be(change):
    values = theirs("timm", HELD["timm"]["token"])
    with pytest.raises(WeightsError, match=rf"model\.{change.split('=')[0]}"):
        spec_from(values, changes=["model.heads=4", f"model.{change}"])


def test_a_configuration_of_another_home_says_nothing():
    values = theirs("timm", HELD["timm"]["token"])
    config = {"model_type": "vit", "num_attention_heads": 2}
    with pytest.raises(WeightsError, match="number of heads"):
        spec_from(values, config)
    assert formats.of_config(config) == "transformers"
    assert formats.of_config({"architecture": "vit"}) == "timm"
    assert formats.of_config({}) == formats.of_config(None) == formats.of_config({"lr": 3}) == ""


def other_architectures():
    augment.transforms()  # makes torchvision importable beside another torch, which timm needs
    timm = pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    with torch.device("meta"):
        return [
            timm.create_model("resnet50"),
            timm.create_model("convnext_atto"),
            timm.create_model("swin_tiny_patch4_window7_224"),
            timm.create_model("mixer_s32_224"),
            timm.create_model("vit_giant_patch14_dinov2", depth=1),  # SwiGLU
            timm.create_model("vit_base_patch32_clip_224", depth=1),  # a norm before the blocks
            timm.create_model("eva02_tiny_patch14_224", depth=1),
            nn.Sequential(nn.Linear(2, 3)),
        ]


def test_other_architectures_are_refused_by_their_names():
    reasons = r"is no Vision Transformer|is not a model that Vitral has|has gated MLPs"
    for network in other_architectures():
        values = {k: torch.zeros(x.shape) for k, x in network.state_dict().items()}
        with pytest.raises(WeightsError, match=reasons) as no:
            spec_from(values)
        assert len(str(no.value)) < 500


def test_timms_map_head_beside_a_class_token_is_another_network():
    spec = replace(HELD["timm"]["map"], class_token=True)
    ours = tensors(spec)
    plain = replace(spec, class_token=False)
    table = table_for("timm", plain)
    values = table.write(ours, spec.heads, layout_for(table, plain), {})
    with pytest.raises(WeightsError, match="tokens that timm's MAP head leaves out"):
        spec_from(values, **said(spec))


def test_two_homes_in_one_file():
    token = HELD["timm"]["token"]
    both = {**theirs("timm", token), **theirs("google", HELD["google"]["token"])}
    with pytest.raises(WeightsError, match="google_vit or timm_vit, and its names do not decide"):
        detect_format(source(both))
    assert detect_format(source(both, {"architecture": "x"})) == tables()["timm_vit"]


OTHERWISE = {  # a network that the format has, too
    "timm": {"pos_embed", "blocks.0.attn.qkv.bias"},
    "google": {"Transformer/posembed_input/pos_embedding"},
}


@pytest.mark.parametrize("format", HELD)
def test_every_tensor_is_needed(format):
    spec = replace(HELD[format]["token"], depth=1)
    whole = theirs(format, spec)
    for gone in whole.keys() - OTHERWISE.get(format, set()):
        values = {name: x for name, x in whole.items() if name != gone}
        with pytest.raises(WeightsError):
            found = spec_from(values, **said(spec))
            read = table_for(format, spec).read(values, Shape(patch=spec.patch)).ours
            artifact.check(read, found, Path("w"))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 3, 4), (1, 1, 1, 1, 1), (0, 5)])
@pytest.mark.parametrize("format", HELD)
def test_every_wrong_shape_is_a_sentence(format, shape):
    spec = replace(HELD[format]["token"], depth=1)
    whole = theirs(format, spec)
    for name in whole:
        if whole[name].shape == shape:
            continue
        with pytest.raises(WeightsError):
            values = {**whole, name: torch.ones(shape)}
            found = spec_from(values, **said(spec))
            read = table_for(format, spec).read(values, Shape(patch=spec.patch)).ours
            artifact.check(read, found, Path("w"))


@pytest.mark.parametrize("number", ["9998", "9" * 5, "9" * 12, "9" * 5000])
def test_a_number_in_a_name_builds_nothing(number):
    """Blocks and units are counted, not numbered, so that a name cannot ask for a million."""
    for name, key in (
        ("token", f"blocks.{number}.norm1.weight"),
        ("hybrid", f"patch_embed.backbone.stages.0.blocks.{number}.conv1.weight"),
    ):
        spec = HELD["timm"][name]
        values = {**theirs("timm", spec), key: torch.ones(32)}
        try:
            found = spec_from(values, **said(spec))
        except WeightsError as error:
            assert len(str(error)) < 500
        else:
            assert found.depth <= 3 and sum(found.resnet.blocks if found.resnet else ()) <= 3


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_are_real_and_finite(dtype):
    values = theirs("timm", HELD["timm"]["token"])
    with pytest.raises(WeightsError, match=r"'head\.weight' holds .*; weights are float numbers"):
        spec_from({**values, "head.weight": values["head.weight"].to(dtype)})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(WeightsError, match=r"'head\.bias' holds values that are not finite"):
            spec_from({**values, "head.bias": values["head.bias"] * bad})


@pytest.mark.parametrize(("format", "name"), [("google", "token"), ("transformers", "token")])
def test_rows_that_look_square_only_without_the_class_tokens(format, name):
    """3x5 patches and the class token are 16 rows, which is no grid of 4x4."""
    spec = replace(HELD[format][name], size=(24, 40))
    with pytest.raises(WeightsError, match="--size"):
        spec_from(theirs(format, spec), changes=[f"model.heads={spec.heads}"])
    found = spec_from(theirs(format, spec), size=(24, 40), changes=[f"model.heads={spec.heads}"])
    assert (found.size, found.prefix_positions) == ((24, 40), True)


def test_a_configuration_of_another_model_is_refused():
    values = theirs("timm", HELD["timm"]["token"])
    with pytest.raises(WeightsError, match="of another model"):
        spec_from(values, config={"architecture": "vit_small_patch16_224"})
    values = theirs("transformers", HELD["transformers"]["token"])
    config = {"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 2, "image_size": 32}
    with pytest.raises(WeightsError, match="the width is 768 there"):
        spec_from(values, config=config)


@pytest.mark.parametrize("name", ["vit_small_patch16_rope_ape_224", "vit_base_patch16_rpn_224"])
def test_architectures_that_share_a_vits_names_are_refused(name):
    values = theirs("timm", HELD["timm"]["token"])
    arguments = {"num_heads": 4, "embed_dim": 32, "depth": 2}
    with pytest.raises(WeightsError, match=name):
        spec_from(values, config={"architecture": name, "model_args": arguments})


def test_blocks_that_split_their_heads_differently_are_refused():
    values = dict(theirs("google", HELD["google"]["token"]))
    for part in ("query", "key", "value"):
        for leaf in ("kernel", "bias"):
            key = f"Transformer/encoderblock_1/MultiHeadDotProductAttention_1/{part}/{leaf}"
            values[key] = values[key].reshape(*values[key].shape[:-2], 8, 4)
    with pytest.raises(WeightsError, match="heads"):
        spec_from(values)
