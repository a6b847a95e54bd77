"""timm's config.json: an architecture, its arguments, and a pretrained_cfg."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from vitral import catalog
from vitral.errors import WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights import preprocessing
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, NotComparableError, Oracle, Tensors
from vitral.weights.rename import Layout, RenameTable

NAMED = re.compile(r"(vit|deit3?|flexivit)_(tiny|small|medium|base|large|huge|giant|gigantic|so)")
BIT = re.compile(r"BiT-R(50x1|50x3|101x1|101x3|152x2|152x4)")
STEMS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
POOLS = {"token": "cls", "avg": "mean", "map": "map"}
RENAMED = {"embed_dim": "width", "depth": "depth", "num_heads": "heads", "img_size": "size"}
WORDS = {  # arguments whose values have other names here
    "act_layer": ("gelu", {"gelu": "erf", "gelu_tanh": "tanh", "gelu_erf": "erf"}),
    "pos_embed": ("positions", {"learn": "learned", "none": "none", "": "none"}),
    "global_pool": ("pool", POOLS),
}
# architectures that compute something else with the names of a ViT's tensors
OTHERS = re.compile(r"_(rope|rpn)_")
OF_A_NAME = "heads gelu norm_eps pool pool_norm positions size"
# arguments that the tensors tell as well, or that change nothing once the model is trained
WITHOUT_EFFECT = """
    patch_size in_chans num_classes mlp_ratio qkv_bias proj_bias qk_norm init_values
    class_token no_embed_class reg_tokens num_reg_tokens fc_norm final_norm drop_rate
    pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate weight_init fix_init
    dynamic_img_size dynamic_img_pad strict_img_size
"""
CROP_MODES = {"center": "crop", "squash": "squash", "border": "pad"}


class Timm(Format):
    """The format of timm's models, and of authors with the same names (DeiT, DINO, MAE, DINOv2)."""

    configured = True

    def detect(self, config: Config) -> bool:
        """Tell timm's configuration by its architecture."""
        return "architecture" in config and "model_type" not in config

    def facts(self, config: Config) -> dict[str, Any]:
        """Read heads, GELU, pooling and size: of the catalogue's model, then of its arguments."""
        facts: dict[str, Any] = {}
        arguments = _part(config, "model_args")
        name = str(config.get("architecture", "")).partition(".")[0].removesuffix("_qkvb")
        if OTHERS.search(name):
            raise WeightsError(
                f"config.json is of {name}, which computes something else with the names of a "
                "ViT's tensors; Vitral does not have it."
            )
        if name and name not in catalog.names() and "num_heads" not in arguments:
            facts["unlisted"] = name
        if name in catalog.names():
            spec = catalog.model(name)
            facts |= {key: getattr(spec, key) for key in OF_A_NAME.split()}
            if "num_heads" not in arguments:  # the name's heads belong to the name's sizes
                facts |= {"width": spec.width, "depth": spec.depth}
            facts |= {} if arguments.keys() - {"img_size", "in_chans"} else {"name": name}
        facts |= {"size": size} if (size := _size(config)) else {}
        facts |= _facts_of_arguments(arguments, name)
        pool = config.get("global_pool")
        if pool is not None and "global_pool" not in arguments:
            if str(pool) not in POOLS:
                raise WeightsError(f"config.json pools by {pool!r}; Vitral has {', '.join(POOLS)}.")
            facts["pool"] = POOLS[pool]
        return facts

    def published_config(self, model: str | None) -> dict[str, Any] | None:
        """Return the architecture alone; our catalogue knows the rest."""
        return {"architecture": model}

    def classes(self, config: Config, count: int) -> tuple[str, ...] | None:
        """Read label_names; ImageNet's where there are 1000 logits and no names."""
        names = {**_part(config, "pretrained_cfg"), **config}.get("label_names")
        if isinstance(names, list | tuple) and len(names) == count:
            return tuple(str(name) for name in names)
        return super().classes(config, count)

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Read the pretrained_cfg, or take timm's defaults where there is none."""
        config = source.config or {}
        facts = _part(config, "pretrained_cfg") or config
        # the size is that of the tensors; so are the channels, and colours mean nothing there
        return replace(read_preprocessing({**facts, "input_size": (3, *size)}), size=size)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that timm's defaults are taken where there is no pretrained_cfg."""
        config = source.config or {}
        facts = _part(config, "pretrained_cfg") or config
        if any(facts.get(name) for name in ("mean", "std", "crop_pct", "interpolation")):
            return ""
        return "no pretrained_cfg says how images are prepared: timm's defaults are assumed"

    def refuse_spec(self, spec: ModelSpec) -> str:
        """Refuse a MAP head beside tokens that it would read here."""
        if spec.pool == "map" and spec.prefix:
            return "has tokens that timm's MAP head leaves out; here it reads every token."
        return ""

    def table_for(self, spec: ModelSpec) -> str:
        """Choose BiT's names, Eva's (DINOv3) or the Vision Transformer's."""
        if spec.is_resnet:
            return "timm_bit"
        return "timm_eva" if spec.positions == "rope2d" else "timm_vit"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Iterator[str]:
        """Refuse some distilled models, and MAP heads beside other tokens."""
        if spec.distillation_token and not spec.prefix_positions:
            yield "timm's distilled models have positions for both their tokens"
        if spec.distillation_token and spec.registers:
            yield "timm's distilled models have no registers"
        if spec.pool == "map" and spec.prefix:
            yield "timm's MAP head attends to the patches alone, and here are tokens before them"

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Take other names for a norm after mean pooling, and for a stem without stages."""
        used = []
        if table.name == "timm_vit" and spec.pool == "mean" and spec.pool_norm == "after":
            used.append("mean")
        if table.name == "timm_vit" and spec.resnet is not None and not spec.resnet.blocks:
            used.append("root_only")
        return replace(super().layout(table, spec), variants=tuple(used))

    def config_files(self, card: Card, table: RenameTable) -> dict[str, Config]:
        """Return config.json as timm's save_for_hf writes it, for create_model("local-dir:...")."""
        spec = card.model
        architecture, arguments = architecture_of(spec)
        preprocessed = write_preprocessing(card.images)
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

    def preprocessing_differences(self, images: ImageSpec) -> list[str]:
        """Say how timm rounds, beside the shared differences."""
        sentences = preprocessing.differences(images, "timm", centre="round")
        if images.resize == "torch":
            sentences.append(
                "timm rounds to 8 bits between rows and columns; this model expects floats."
            )
        return sentences

    def oracle(self, spec: ModelSpec, tensors: Tensors, config: Config) -> Oracle:
        """Call create_model with the architecture of the configuration, or of this spec."""
        timm = importlib.import_module("timm")
        if config:
            name = config["architecture"]
            arguments = config.get("model_args") or {}
            if config.get("global_pool") and "global_pool" not in arguments:
                arguments = {**arguments, "global_pool": config["global_pool"]}
        else:
            name, arguments = architecture_of(spec)
        if not timm.is_model(name):  # another name could be an address that timm would fetch
            raise NotComparableError(f"timm has no architecture '{name}'")
        arguments = {**arguments, "num_classes": spec.classes}
        if not spec.is_resnet:
            arguments["img_size"] = tuple(spec.size)
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        model.load_state_dict(dict(tensors))
        return model.eval()


def read_preprocessing(pretrained_cfg: Mapping[str, Any], *, test_size: bool = False) -> ImageSpec:
    """Return the spec of timm.data.create_transform for a model's pretrained_cfg.

    Args:
        pretrained_cfg: as in a model's config.json; a key that is missing, None or empty takes
            timm's default (224, bicubic, crop_pct 0.875, ImageNet's mean and std).
        test_size: take test_input_size and test_crop_pct where the configuration holds them.
    """

    def value(name: str, default: Any) -> Any:
        if test_size and pretrained_cfg.get(f"test_{name}"):
            return pretrained_cfg[f"test_{name}"]
        return pretrained_cfg.get(name) or default

    with preprocessing.refusals_named("timm"):
        size = tuple(value("input_size", (3, 224, 224)))
        if len(size) != 3 or size[0] != 3:
            raise WeightsError(f"timm's input_size is (3, height, width), not {size}.")
        mode = value("crop_mode", "center")
        if mode not in CROP_MODES:
            raise WeightsError(f"timm's crop_mode '{mode}' is none of {', '.join(CROP_MODES)}.")
        return ImageSpec.from_dict(
            {
                "size": size[1:],
                "fit": CROP_MODES[mode],
                "crop": value("crop_pct", 0.875),
                "interpolation": value("interpolation", "bicubic"),
                "mean": preprocessing.per_channel(value("mean", preprocessing.IMAGENET[0])),
                "std": preprocessing.per_channel(value("std", preprocessing.IMAGENET[1])),
            }
        )


def write_preprocessing(spec: ImageSpec) -> dict[str, Any]:
    """Return the keys of a pretrained_cfg with which timm gives the same tensor.

    See `preprocessing_differences`.
    """
    modes = {fit: mode for mode, fit in CROP_MODES.items()}
    return {
        "input_size": [3, *spec.size],
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop,
        "crop_mode": modes[spec.fit],
        "mean": list(spec.mean),
        "std": list(spec.std),
    }


def _facts_of_arguments(arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What an architecture's arguments change; WeightsError for one that we do not have."""
    facts: dict[str, Any] = {}
    for key, value in arguments.items():
        if key in RENAMED and value is not None:
            facts[RENAMED[key]] = value
        elif value is not None and key not in WITHOUT_EFFECT.split():
            ours, words = WORDS.get(key, ("", {}))
            if str(value) not in words:
                raise WeightsError(
                    f"config.json of {name or 'this model'} sets {key}={value!r}, which changes a "
                    "timm model in a way that Vitral does not have."
                )
            facts[ours] = words[value]
    return facts


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


def architecture_of(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Name the timm architecture and arguments of a network; WeightsError if there are none."""
    if spec.is_resnet:
        if not (match := BIT.fullmatch(spec.name)):
            raise WeightsError(
                f"timm has no architecture for {spec.name}; write its tensors alone, to a file "
                "NAME.safetensors."
            )
        return f"resnetv2_{match[1]}_bit", {}
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


format = Timm()
