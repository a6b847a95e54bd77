"""timm's config.json: an architecture, its arguments, and a pretrained_cfg."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitral import catalog
from vitral.catalog.checkpoints import labels
from vitral.errors import WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights import preprocessing
from vitral.weights.artifact import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import RenameTable

NAMED = re.compile(r"(vit|deit3?|flexivit)_(tiny|small|medium|base|large|huge|giant|gigantic|so)")
BIT = re.compile(r"BiT-R(50x1|50x3|101x1|101x3|152x2|152x4)")
STEMS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
POOLS = {"token": "cls", "avg": "mean", "map": "map"}
POSITIONS = {"learn": "learned", "none": "none", "": "none"}
SAME = {"embed_dim": "width", "depth": "depth", "num_heads": "heads", "img_size": "size"}
GELUS = {"gelu": "erf", "gelu_tanh": "tanh", "gelu_erf": "erf"}
# architectures that compute something else with the names of a ViT's tensors
OTHERS = re.compile(r"_(rope|rpn)_")
OF_A_NAME = "heads gelu norm_eps pool pool_norm positions size"
# arguments that the tensors tell as well, or that change nothing once the model is trained
TOLD = """
    patch_size in_chans num_classes mlp_ratio qkv_bias proj_bias qk_norm init_values
    class_token no_embed_class reg_tokens num_reg_tokens fc_norm final_norm drop_rate
    pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate weight_init fix_init
    dynamic_img_size dynamic_img_pad strict_img_size
"""


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, GELU, pooling and size: of the architecture in our catalogue, then its arguments."""
    told: dict[str, Any] = {}
    arguments = _part(config, "model_args")
    name = str(config.get("architecture", "")).partition(".")[0].removesuffix("_qkvb")
    if OTHERS.search(name):
        raise WeightsError(
            f"config.json is of {name}, which computes something else with the names of a ViT's "
            "tensors; Vitral does not have it."
        )
    if name and name not in catalog.names() and "num_heads" not in arguments:
        told["unlisted"] = name
    if name in catalog.names():
        spec = catalog.model(name)
        told |= {key: getattr(spec, key) for key in OF_A_NAME.split()}
        if "num_heads" not in arguments:  # the name's heads belong to the name's sizes
            told |= {"width": spec.width, "depth": spec.depth}
        told |= {} if arguments.keys() - {"img_size", "in_chans"} else {"name": name}
    told |= {"size": size} if (size := _size(config)) else {}
    told |= _told_by(arguments, name)
    pool = config.get("global_pool")
    if pool is not None and "global_pool" not in arguments:
        if str(pool) not in POOLS:
            raise WeightsError(f"config.json pools by {pool!r}; Vitral has {', '.join(POOLS)}.")
        told["pool"] = POOLS[pool]
    return told


def _told_by(arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What an architecture's arguments change; WeightsError for one that we do not have."""
    told: dict[str, Any] = {}
    for key, value in arguments.items():
        if value is None:
            continue
        elif key in SAME:
            told[SAME[key]] = value
        elif key in TOLD.split():
            continue
        elif key == "act_layer" and str(value) in GELUS:
            told["gelu"] = GELUS[value]
        elif key == "pos_embed" and str(value) in POSITIONS:
            told["positions"] = POSITIONS[value]
        elif key == "global_pool" and str(value) in POOLS:
            told["pool"] = POOLS[value]
        else:
            raise WeightsError(
                f"config.json of {name or 'this model'} sets {key}={value!r}, which changes a "
                "timm model in a way that Vitral does not have."
            )
    return told


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of config.json with names of its own; empty where there is none."""
    part = config.get(name) or {}
    if not isinstance(part, Mapping):
        raise WeightsError(f"config.json: {name} holds settings by name, not {part!r:.40}.")
    return part


def _size(config: Mapping[str, Any]) -> list[int] | None:
    """(height, width) of the pretrained_cfg, which may be spread over the root in old files."""
    shape = {**config, **_part(config, "pretrained_cfg")}.get("input_size")
    return list(shape[1:]) if isinstance(shape, list | tuple) and len(shape) == 3 else None


def classes(config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """label_names; ImageNet's where there are 1000 logits and no names."""
    names = {**_part(config, "pretrained_cfg"), **config}.get("label_names")
    if isinstance(names, list | tuple) and len(names) == count:
        return tuple(str(name) for name in names)
    return labels("imagenet-1k") if count == 1000 else None


def images(source: Source, size: tuple[int, int]) -> ImageSpec:
    """The pretrained_cfg, or timm's defaults where there is none."""
    config = source.config or {}
    told = _part(config, "pretrained_cfg") or config
    # the size is that of the tensors; the channels are theirs too, and colours mean nothing there
    return replace(preprocessing.from_timm({**told, "input_size": (3, *size)}), size=size)


def files(card: Card, table: RenameTable) -> dict[str, Mapping[str, Any]]:
    """config.json, as timm's own save_for_hf writes it; create_model("local-dir:...") reads it."""
    spec = card.model
    architecture, arguments = architecture_of(spec)
    preprocessed = preprocessing.to_timm(card.images)
    config = {
        "architecture": architecture,
        "num_classes": spec.classes,
        "num_features": spec.width,
        "global_pool": {pool: name for name, pool in POOLS.items()}[spec.pool],
        "label_names": list(card.classes),
        "model_args": arguments,
        "pretrained_cfg": {
            "architecture": architecture,
            "custom_load": False,
            "num_classes": spec.classes,
            **preprocessed,
            "input_size": [spec.channels, *spec.size],
            "fixed_input_size": True,
        },
    }
    return {"config.json": config}


def architecture_of(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """The timm architecture and arguments that make this network; WeightsError if none does."""
    if spec.is_resnet:
        if not (found := BIT.fullmatch(spec.name)):
            raise WeightsError(
                f"timm has no architecture for {spec.name}; write its tensors alone, to a file "
                "NAME.safetensors."
            )
        return f"resnetv2_{found[1]}_bit", {}
    size = {"img_size": list(spec.size)}
    for name in filter(NAMED.match, catalog.names()):
        same = catalog.model(name)
        alike = (spec.layer_scale is None) == (same.layer_scale is None)  # its first value is free
        if alike and same.patch == spec.patch:
            free = ("name", "size", "classes", "channels", "resample", "layer_scale")
            if replace(spec, **{field: getattr(same, field) for field in free}) == same:
                return name, size | ({"in_chans": spec.channels} if spec.channels != 3 else {})
    if spec.positions == "rope2d":
        biased = "_qkvb" if spec.biases == "all" else ""
        arguments = _shared(spec) | {"num_reg_tokens": spec.registers}
        return f"vit_small_patch16_dinov3{biased}", arguments
    name = "deit_base_distilled_patch16_224" if spec.distillation_token else "vit_base_patch16_224"
    if spec.resnet is not None:
        name = STEMS.get(spec.resnet.blocks, "")
        if not name or spec.resnet.width != 64:
            raise WeightsError(
                f"timm has no hybrid with stem {spec.resnet.blocks} of width {spec.resnet.width}; "
                "write its tensors alone, to a file NAME.safetensors."
            )
    return name, _shared(spec) | {
        "qkv_bias": spec.biases == "all",
        "proj_bias": spec.biases != "none",
        "qk_norm": spec.qk_norm,
        "class_token": spec.class_token,
        "reg_tokens": spec.registers,
        "no_embed_class": spec.position_prefix < spec.prefix,
        "pos_embed": "learn" if spec.positions == "learned" else "none",
        "act_layer": "gelu_tanh" if spec.gelu == "tanh" else "gelu",
        "fc_norm": spec.pool_norm == "after" if spec.pool == "mean" else None,
    }


def _shared(spec: ModelSpec) -> dict[str, Any]:
    """What both of timm's classes take."""
    ratio = spec.mlp_width / spec.width
    while int(spec.width * ratio) < spec.mlp_width:  # timm cuts the product off
        ratio += 2**-40
    square = spec.patch[0] == spec.patch[1]
    return {
        "img_size": list(spec.size),
        "patch_size": spec.patch[0] if square else list(spec.patch),
        "in_chans": spec.channels,
        "embed_dim": spec.width,
        "depth": spec.depth,
        "num_heads": spec.heads,
        "mlp_ratio": ratio,
        "init_values": spec.layer_scale,
        "global_pool": {pool: name for name, pool in POOLS.items()}[spec.pool],
    }
