"""The same weights in Vitral and in the libraries that people know, side by side, in float64."""

import warnings
from dataclasses import replace

import peers
import pytest
import torch
from torch import nn

from vitral.catalog import model
from vitral.model import build
from vitral.specs import ModelSpec

SMALL = {"depth": 2, "classes": 7}  # every architecture, at a depth that a test can pay for


def filled(network: nn.Module) -> nn.Module:
    """Random everywhere: a zero head or zero class token would hide a wrong name."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.double().eval().named_parameters():
            value.normal_(std=0.05, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
    return network


def differences(ours: nn.Module, theirs: nn.Module, images: torch.Tensor) -> tuple[float, float]:
    with torch.no_grad():
        logits, expected = ours(images), theirs(images)
    expected = expected if isinstance(expected, torch.Tensor) else expected.logits
    return (logits - expected).abs().max().item(), expected.std().item()


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch32_224",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch16_siglip_224",
        "flexivit_small",
        "vit_base_r50_s16_224",
        "vit_tiny_r_s16_p8_224",
    ],
)
def test_timm_gives_the_same_logits(name):
    size = (128, 64) if model(name).resnet else tuple(4 * side for side in model(name).patch)
    spec = replace(model(name), size=size, **SMALL)
    ours = filled(build(spec))
    theirs = peers.timm.create_model(name, img_size=size, num_classes=7, depth=2).double().eval()
    theirs.load_state_dict(peers.to_timm(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    difference, spread = differences(ours, theirs, images)
    assert spread > 0.01 and difference < 1e-11


def test_timm_resizes_positions_as_our_timm_rule():
    resize = pytest.importorskip("timm.layers").resample_abs_pos_embed
    spec = replace(model("vit_tiny_patch16_224"), depth=1)
    network = filled(build(spec)).float()
    theirs = resize(network.positions.table, new_size=(9, 20), num_prefix_tokens=1)
    assert (network.positions.on((9, 20))["table"] - theirs).abs().max() < 1e-6


def test_rope_is_timms_dinov3():
    """timm's Eva network with DINOv3's rotation, registers and LayerScale, without a head."""
    name = "vit_small_patch16_dinov3"
    theirs = peers.timm.create_model(name, img_size=(64, 96), num_classes=0, depth=2)
    spec = ModelSpec(
        name=name,
        size=(64, 96),
        width=384,
        depth=2,
        heads=6,
        mlp_width=1536,
        classes=0,
        registers=4,
        positions="rope2d",
        layer_scale=1e-5,
        gelu="erf",
        norm_eps=1e-5,
        biases="no_qkv",
    )
    ours, theirs = filled(build(spec)), theirs.double().eval()
    renamed = peers.to_timm(ours.state_dict())
    for i in range(spec.depth):
        for branch in (1, 2):
            renamed[f"blocks.{i}.gamma_{branch}"] = renamed.pop(f"blocks.{i}.ls{branch}.gamma")
    theirs.load_state_dict(renamed, strict=True)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        features = ours.features(images)
        expected = theirs.forward_features(images)
    assert (features.cls - expected[:, 0]).abs().max() < 1e-5  # timm computes its angles in float32
    assert (features.patches - expected[:, 5:]).abs().max() < 1e-5


def test_torchvision_gives_the_same_logits():
    spec = replace(model("vit_b_16"), size=64, width=96, heads=4, mlp_width=200, **SMALL)
    ours = filled(build(spec))
    theirs = peers.torchvision.models.VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=4,
        hidden_dim=96,
        mlp_dim=200,
        num_classes=7,
    )
    theirs.double().eval().load_state_dict(peers.to_torchvision(ours.state_dict()), strict=True)
    difference, spread = differences(ours, theirs, torch.randn(2, 3, 64, 64, dtype=torch.float64))
    assert spread > 0.01 and difference < 1e-11


def test_torchvision_resizes_positions_as_our_torchvision_rule():
    interpolate = peers.torchvision.models.vision_transformer.interpolate_embeddings
    network = filled(build(replace(model("vit_b_16"), depth=1))).float()
    weights = {"encoder.pos_embedding": network.positions.table.detach()}
    theirs = interpolate(384, 16, weights)["encoder.pos_embedding"]
    assert (network.positions.on((24, 24))["table"] - theirs).abs().max() < 1e-6


def test_transformers_gives_the_same_logits_and_positions():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about optional packages
        config = peers.transformers.ViTConfig(
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=200,
            image_size=64,
            patch_size=16,
            num_labels=7,
        )
        theirs = peers.transformers.ViTForImageClassification(config).double().eval()
    spec = replace(
        model("vit_b_16"), size=64, width=96, heads=4, mlp_width=200, norm_eps=1e-12,
        resample="transformers", **SMALL
    )  # fmt: skip
    ours = filled(build(spec))
    theirs.load_state_dict(peers.to_transformers(ours.state_dict()), strict=True)
    difference, spread = differences(ours, theirs, torch.randn(2, 3, 64, 64, dtype=torch.float64))
    assert spread > 0.01 and difference < 1e-11
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images, interpolate_pos_encoding=True).logits
        assert (ours(images, any_size=True) - expected).abs().max() < 1e-11
