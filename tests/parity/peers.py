"""timm, transformers and torchvision as oracles, importable beside a CPU build of torch."""

import importlib

import pytest
from torch import Tensor

from vitral.images import augment

augment.transforms()  # makes torchvision importable where its wheel was built for another torch
torchvision = importlib.import_module("torchvision")
timm = pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
transformers = pytest.importorskip("transformers", reason="an oracle of the dev extra")

Weights = dict[str, Tensor]
TIMM = (
    ("patches.", "patch_embed.proj."),
    ("stem.stages.", "patch_embed.backbone.stages."),
    ("stem.root_norm.", "patch_embed.backbone.stem.norm."),
    ("stem.root.", "patch_embed.backbone.stem.conv."),
    ("attention.", "attn."),
    ("attn.out.", "attn.proj."),
    ("scale1", "ls1.gamma"),
    ("scale2", "ls2.gamma"),
    ("pool.", "attn_pool."),
    ("attn_pool.probe", "attn_pool.latent"),
    ("distillation_head.", "head_dist."),
)
WHOLE = {
    "cls": "cls_token",
    "distillation": "dist_token",
    "registers": "reg_token",
    "positions.table": "pos_embed",
}


def timm_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    for ours, theirs in TIMM:
        name = name.replace(ours, theirs)
    if "backbone.stages" in name:
        head, _, tail = name.partition("stages.")
        stage, unit, rest = tail.split(".", 2)
        rest = rest.replace("shortcut_norm.", "downsample.norm.")
        rest = rest.replace("shortcut.", "downsample.conv.")
        name = f"{head}stages.{stage}.blocks.{unit}.{rest}"
    return name


def to_timm(weights: Weights) -> Weights:
    """Ours under timm's names; timm keeps the MAP head's query apart from its key and value."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith("pool.attention.qkv."):
            q, kv = value.tensor_split([len(value) // 3])
            leaf = name.rpartition(".")[2]
            renamed |= {f"attn_pool.q.{leaf}": q, f"attn_pool.kv.{leaf}": kv}
        elif name.startswith("pool.attention.out."):
            renamed[name.replace("pool.attention.out.", "attn_pool.proj.")] = value
        else:
            renamed[timm_name(name)] = value
    if "patch_embed.backbone.stages.0.blocks.0.conv1.weight" not in renamed:
        # Without stages timm's backbone is the stem itself.
        renamed = {k.replace("backbone.stem.", "backbone."): v for k, v in renamed.items()}
    return renamed


def to_torchvision(weights: Weights) -> Weights:
    rules = (
        ("patches.", "conv_proj."),
        ("positions.table", "encoder.pos_embedding"),
        ("blocks.", "encoder.layers.encoder_layer_"),
        ("norm1.", "ln_1."),
        ("norm2.", "ln_2."),
        ("attention.qkv.weight", "self_attention.in_proj_weight"),
        ("attention.qkv.bias", "self_attention.in_proj_bias"),
        ("attention.out.", "self_attention.out_proj."),
        ("mlp.fc1.", "mlp.0."),
        ("mlp.fc2.", "mlp.3."),
        ("head.", "heads.head."),
    )
    renamed = {}
    for name, value in weights.items():
        for ours, theirs in rules:
            name = name.replace(ours, theirs)  # noqa: PLW2901
        name = "encoder.ln." + name.removeprefix("norm.") if name.startswith("norm.") else name  # noqa: PLW2901
        renamed["class_token" if name == "cls" else name] = value
    return renamed


def to_transformers(weights: Weights) -> Weights:
    """transformers 5 in memory: layers.{i}.attention.{q,k,v,o}_proj."""
    rules = (
        ("patches.", "vit.embeddings.patch_embeddings.projection."),
        ("positions.table", "vit.embeddings.position_embeddings"),
        ("blocks.", "vit.layers."),
        ("norm1.", "layernorm_before."),
        ("norm2.", "layernorm_after."),
        ("attention.out.", "attention.o_proj."),
        ("head.", "classifier."),
    )
    renamed = {}
    for name, value in weights.items():
        for ours, theirs in rules:
            name = name.replace(ours, theirs)  # noqa: PLW2901
        if ".qkv." in name:
            for part, projection in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".qkv.", f".{part}_proj.")] = projection
        elif name.startswith("norm."):
            renamed["vit.layernorm." + name.removeprefix("norm.")] = value
        else:
            renamed["vit.embeddings.cls_token" if name == "cls" else name] = value
    return renamed
