from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import (
    BIT,
    CASES,
    DINOV2,
    GOOGLE,
    HELD,
    MEAN,
    STEM,
    TIMM,
    TRANSFORMERS,
    bit,
    of,
    said,
    same,
    tensors,
)
from vitral.errors import UsageError, WeightsError
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.axes import Shape
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.infer_spec import infer_spec
from vitral.weights.read import Weights
from vitral.weights.write import layout_for, table_for, with_zero_rows

ERF = of(GOOGLE, gelu="erf")


def held(format, spec) -> Weights | None:
    """A network as the format has it; None where it says that it cannot."""
    names = tuple(map(str, range(spec.classes)))
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=names)
    try:
        table = table_for(format, spec)
        return with_zero_rows(Weights(tensors=tensors(spec), card=card), table)[0]
    except WeightsError as error:
        assert f"{format} cannot hold" in str(error) or "classes=0" in str(error)
        return None


@pytest.mark.parametrize("other", HELD)
@pytest.mark.parametrize(("format", "name"), CASES)
def test_what_a_home_accepts_comes_back_as_it_was(format, name, other):
    """Over every pair of a network and a format: it is refused by name, or read back unchanged."""
    weights = held(other, HELD[format][name])
    if format == other:
        assert weights is not None and weights.card.model == HELD[format][name]
    if weights is None:
        return
    spec = weights.card.model
    table = table_for(other, spec)
    file = table.write(weights.tensors, spec.heads, layout_for(table, spec), {})
    reading = table.read(file, Shape(patch=spec.patch, channels=spec.channels))
    assert same(reading.ours, weights.tensors)
    found = infer_spec(Source(path=Path("w"), tensors=file), table, reading, **said(spec))
    assert replace(found, name=spec.name, resample=spec.resample) == spec


@pytest.mark.parametrize(
    ("format", "spec"),
    [
        ("transformers", of(GOOGLE, prefix_positions=False)),
        ("torchvision", of(ERF, prefix_positions=False)),
        ("timm", of(TIMM, registers=3)),
    ],
    ids=["zeros", "zeros", "folded"],
)
def test_rows_of_positions_settle_without_changing_the_logits(format, spec):
    weights = held(format, spec)
    assert weights.card.model.prefix_positions is (format != "timm")
    answers = []
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *spec.size, generator=generator, dtype=torch.double)
    for values, of_spec in (
        (tensors(spec), spec),
        (weights.tensors, weights.card.model),
    ):
        network = artifact.network({k: x.double() for k, x in values.items()}, of_spec)
        with torch.inference_mode():
            answers.append(network(images))
    assert answers[0].std() > 0.1
    assert (answers[0] - answers[1]).abs().max() < 1e-6  # the sum of two float32 is rounded


REFUSED = {
    "google, erf": ("google", ERF, "model.gelu is 'erf', and google has tanh"),
    "google, eps": ("google", of(GOOGLE, norm_eps=1e-12), "model.norm_eps is 1e-12"),
    "google, registers": ("google", of(GOOGLE, registers=2), "model.registers is 2"),
    "google, scale": ("google", of(GOOGLE, layer_scale=1e-5), "model.layer_scale is 1e-05"),
    "google, biases": ("google", of(GOOGLE, biases="no_qkv"), "model.biases is 'no_qkv'"),
    "google, mean of a class token": ("google", of(GOOGLE, pool="mean"), "where it is poo"),
    "google, distilled": ("google", of(GOOGLE, distillation_token=True), "distillation_token"),
    "google, norm": ("google", of(GOOGLE, **MEAN, pool_norm="after"), "model.pool_norm is 'after'"),
    "google, mae": ("google", of(GOOGLE, positions="sincos2d_mae"), "'sincos2d_mae', and google"),
    "google, timm's stem": (
        "google",
        of(GOOGLE, patch=1, resnet=replace(STEM, norm_eps=1e-5)),
        "model.resnet.norm_eps is 1e-05, and google has 1e-06",
    ),
    "timm, google's stem": ("timm", of(TIMM, patch=1, resnet=STEM), "model.resnet.norm_eps is"),
    "timm, google's bit": ("timm", bit(BIT), "model.resnet.weight_eps is 1e-10, and timm has"),
    "timm, tanh layer": ("timm", of(TIMM, representation=8), "model.representation is 8"),
    "timm, eps": ("timm", of(TIMM, norm_eps=1e-12), "model.norm_eps is 1e-12, and timm has 1e-06"),
    "timm, sincos": ("timm", of(TIMM, positions="sincos2d"), "model.positions is 'sincos2d'"),
    "timm, per block": ("timm", of(TIMM, positions_at="every"), "model.positions_at is 'every'"),
    "timm, norms of patches": ("timm", of(TIMM, patch_norms=True), "model.patch_norms is True"),
    "timm, pool": ("timm", of(TIMM, pool="cls_mean"), "model.pool is 'cls_mean', and timm has"),
    "timm, four class tokens": ("timm", of(TIMM, pool_blocks=2), "model.pool_blocks is 2"),
    "timm, no projection": (
        "timm",
        of(TIMM, heads=1, out_projection=False),
        "model.out_projection is False, and timm has True",
    ),
    "timm, biases": ("timm", of(TIMM, biases="no_attention"), "biases is 'no_attention'"),
    "timm, heads": ("timm", of(TIMM, head_width=16), "heads share the width, and these are 64"),
    "timm, distilled rows": (
        "timm",
        of(TIMM, distillation_token=True, prefix_positions=False),
        "positions for both their tokens",
    ),
    "timm, distilled registers": (
        "timm",
        of(TIMM, distillation_token=True, registers=2),
        "distilled models have no registers",
    ),
    "transformers, two registers with positions": (
        "transformers",
        of(TRANSFORMERS, registers=2, register_positions=True),
        "model.registers is 2, and transformers has 1",
    ),
    "transformers, one head under a tanh layer": (
        "transformers",
        of(TRANSFORMERS, registers=1, register_positions=True, representation=8),
        r"no tanh layer \(model.representation\) under a head",
    ),
    "transformers, a register without a position": (
        "transformers",
        of(TRANSFORMERS, registers=1),
        "model.registers is 1, and transformers has 0",
    ),
    "transformers, dinov2's registers with positions": (
        "transformers",
        of(DINOV2, registers=4, register_positions=True),
        "model.register_positions is True, and transformers has False",
    ),
    "timm, distilled registers with positions": (
        "timm",
        of(TIMM, distillation_token=True, registers=2, register_positions=True),
        "distilled models have no registers",
    ),
    "timm, map beside a register with a position": (
        "timm",
        of(TIMM, pool="map", class_token=False, registers=4, register_positions=True),
        "attends to the patches alone",
    ),
    "timm, normed after the probe": (
        "timm",
        of(TIMM, pool="map", class_token=False, pool_norm="after"),
        "norms before a MAP head",
    ),
    "timm, map beside a token": ("timm", of(TIMM, pool="map"), "attends to the patches alone"),
    "timm, base": (
        "timm",
        of(HELD["timm"]["eva"], rope_base=10.0),
        "model.rope_base is 10.0, and timm has 100.0",
    ),
    "torchvision, tanh": ("torchvision", GOOGLE, "model.gelu is 'tanh', and torchvision has erf"),
    "torchvision, sincos": ("torchvision", of(ERF, positions="sincos2d"), "has learned"),
    "torchvision, scale": ("torchvision", of(ERF, layer_scale=0.1), "model.layer_scale is 0.1"),
    "torchvision, eps": ("torchvision", of(ERF, norm_eps=1e-12), "model.norm_eps is 1e-12"),
    "torchvision, grey": ("torchvision", of(ERF, channels=1), "model.channels is 1"),
    "torchvision, mean": ("torchvision", of(ERF, pool="mean"), "model.pool is 'mean'"),
    "torchvision, oblong": ("torchvision", of(ERF, size=(16, 32)), "square images and patches"),
    "torchvision, oblong patch": ("torchvision", of(ERF, patch=(8, 4)), "square images and patch"),
    "torchvision, headless": ("torchvision", of(ERF, classes=0), "no model without a head"),
    "torchvision, stem": ("torchvision", of(ERF, patch=1, resnet=STEM), "no convolutional stem"),
    "torchvision, bit": ("torchvision", bit(BIT, gelu="erf"), "torchvision"),
    "transformers, bit": ("transformers", bit(BIT), "transformers"),
    "transformers, tanh layer": (
        "transformers",
        of(GOOGLE, representation=8),
        r"no tanh layer \(model.representation\) under a head",
    ),
    "transformers, dinov2 with a head": (
        "transformers",
        of(GOOGLE, layer_scale=0.1),
        "DINOv2 reads the class token beside the mean of the patches under a head",
    ),
    "transformers, mean": ("transformers", of(GOOGLE, pool="mean"), "model.pool is 'mean'"),
    "transformers, probe": (
        "transformers",
        of(GOOGLE, pool="map", class_token=False),
        "transformers has",
    ),
}
for _format in HELD:
    REFUSED[f"{_format}, relative"] = (_format, of(ERF, positions="relative"), "")
    REFUSED[f"{_format}, two tables"] = (_format, of(ERF, positions="learned2d"), "")


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_home_cannot_express_is_refused_by_name(case):
    format, spec, match = REFUSED[case]
    with pytest.raises(WeightsError, match=f"^{format} cannot hold tiny: .*{match}"):
        table_for(format, spec)


@pytest.mark.parametrize(
    ("format", "spec", "change"),
    [
        ("google", ERF, {"gelu": "tanh"}),
        ("torchvision", of(ERF, norm_eps=1e-12), {"norm_eps": 1e-6}),
        ("timm", of(TIMM, norm_eps=1e-12), {"norm_eps": 1e-6}),
    ],
)
def test_the_change_that_a_refusal_names_helps(format, spec, change):
    (name, value), *_ = change.items()
    with pytest.raises(WeightsError, match=rf"--set model\.{name}={value} the model is changed"):
        table_for(format, spec)
    assert table_for(format, replace(spec, **change)).format == format


def test_an_unknown_format():
    with pytest.raises(UsageError, match="no format 'keras'"):
        table_for("keras", GOOGLE)


def test_how_each_home_writes_what_never_was_a_file():
    assert layout_for(table_for("google", GOOGLE), GOOGLE).variants == ()
    map_ = HELD["google"]["map"]
    assert layout_for(table_for("google", map_), map_).variants == ("linen", "big_vision")
    mean = HELD["timm"]["mean"]
    assert layout_for(table_for("timm", mean), mean).variants == ("mean",)
    token = HELD["transformers"]["token"]
    assert layout_for(table_for("transformers", token), token).prefix == "vit."
    assert layout_for(table_for("transformers", token), of(token, classes=0)).prefix == ""
    single = HELD["transformers"]["one head"]
    assert layout_for(table_for("transformers", single), single).prefix == "deit."
