"""transformers' config.json, preprocessor_config.json and id2label."""

from __future__ import annotations

import importlib
import json
import math
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitral.errors import WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import pair
from vitral.weights import preprocessing
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, NotComparableError, Oracle, Tensors
from vitral.weights.rename import Layout, RenameTable

GELUS = {"gelu": "erf", "gelu_python": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
# settings of a network that we do not have, and the value that leaves it out
FIXED = {"use_swiglu_ffn": False, "use_gated_mlp": False, "pooler_act": "tanh"}
SEVERAL = "multi_label_classification"
# Pillow's numbers, which transformers writes.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

KEEPS_SHAPE = ("Bit", "CLIP", "Siglip")  # an integer size is their shorter side, not a square


class Transformers(Format):
    """The format of transformers' ViT, DeiT, DINOv2 and DINOv3."""

    configured = True

    def detect(self, config: Config) -> bool:
        """Tell transformers' configuration by its model type."""
        return "model_type" in config

    def facts(self, config: Config) -> dict[str, Any]:
        """Read heads, GELU, epsilon, size and the base of the rotation."""
        kind = config.get("model_type")
        if kind not in TYPES:
            raise WeightsError(
                f"config.json is of the model type '{kind}'; Vitral reads {', '.join(TYPES)}."
            )
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise WeightsError(
                    f"config.json sets {name}={config[name]!r}, a network that Vitral does not "
                    "have."
                )
        act = config.get("hidden_act", "gelu")
        if str(act) not in GELUS:
            raise WeightsError(
                f"config.json sets hidden_act={act!r}; Vitral has {', '.join(GELUS)}."
            )
        eps = {"vit": 1e-12, "deit": 1e-12, "dinov3_vit": 1e-5}.get(str(kind), 1e-6)
        facts = {
            "heads": config.get("num_attention_heads", 6 if kind == "dinov3_vit" else 12),
            "gelu": GELUS[act],
            "norm_eps": config.get("layer_norm_eps", eps),
            "size": config.get("image_size", 224),
        }
        same = {"hidden_size": "width", "num_hidden_layers": "depth"}
        facts |= {ours: config[theirs] for theirs, ours in same.items() if theirs in config}
        if kind == "dinov3_vit":
            rope = config.get("rope_parameters")
            base = rope.get("rope_theta", 100.0) if isinstance(rope, Mapping) else 100.0
            facts["rope_base"] = config.get("rope_theta", base)
        return facts

    def classes(self, config: Config, count: int) -> tuple[str, ...] | None:
        """Read id2label, unless it is the placeholder LABEL_0, LABEL_1, ..."""
        names = config.get("id2label")
        if isinstance(names, Mapping) and len(names) == count:
            ordered = [names.get(str(i), names.get(i)) for i in range(count)]
            placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(ordered))
            if None not in ordered and not placeholders:
                return tuple(str(name) for name in ordered)
        return super().classes(config, count)

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Read preprocessor_config.json, or take ViTImageProcessor's where there is none."""
        config = dict(source.preprocessor or {})
        if not config:
            config = {"image_processor_type": "ViTImageProcessor"}
            config["size"] = {"height": size[0], "width": size[1]}
        return read_preprocessing(config)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that its ViTImageProcessor is taken where there is no preprocessor_config.json."""
        if source.preprocessor:
            return ""
        return "no preprocessor_config.json: the defaults of ViTImageProcessor are assumed"

    def labels(self, config: Config) -> Literal["one", "several"]:
        """Read problem_type."""
        return "several" if config.get("problem_type") == SEVERAL else "one"

    def refuse_head(self, config: Config) -> str:
        """Refuse a regression, and a problem_type that transformers does not have."""
        kind = config.get("problem_type")
        if kind == "regression":
            return "its outputs are amounts and no classes (problem_type=regression)"
        if kind not in (None, SEVERAL, "single_label_classification"):
            return f"transformers has no problem_type={kind!r}"
        return ""

    def refuse_unexpected(self, keys: Sequence[str]) -> str:
        """Refuse ForMaskedImageModeling, whose decoder no classifier has."""
        if {"embeddings.mask_token", "decoder.0.weight"} <= set(keys):
            return (
                "paints masked patches (ForMaskedImageModeling in transformers): it has a decoder "
                "where a classifier has its head, and Vitral has no such network."
            )
        return ""

    def table_for(self, spec: ModelSpec) -> str:
        """Choose by rotation, distillation token, layer scale and a register with a position."""
        if spec.positions == "rope2d":
            return "transformers_dinov3"
        if spec.distillation_token:
            return "transformers_deit"
        if spec.layer_scale is not None:
            return "transformers_dinov2"
        return "transformers_deit_single" if spec.register_positions else "transformers_vit"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Iterator[str]:
        """Refuse another pooling than its own under DINOv2's classifier."""
        joined = spec.pool == "cls_mean"
        if table.name == "transformers_dinov2" and joined != (spec.classes > 0):
            yield (
                "transformers' DINOv2 reads the class token beside the mean of the patches under a "
                "head, and the class token alone without one (model.pool; --set model.classes=0 "
                "leaves the head out)"
            )

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Name the network that stands under DINOv2's classifier."""
        layout = super().layout(table, spec)
        if table.name != "transformers_dinov2" or not spec.classes:
            return layout
        return replace(layout, prefix="dinov2_with_registers." if spec.registers else "dinov2.")

    def config_files(self, card: Card, table: RenameTable) -> dict[str, Config]:
        """Return config.json and preprocessor_config.json."""
        spec = card.model
        kind, classifier, plain = table.architectures
        config = _shared(spec)
        if table.name == "transformers_dinov2" and spec.registers:
            kind = "dinov2_with_registers"
            classifier = classifier.replace("Dinov2", "Dinov2WithRegisters")
            plain = plain.replace("Dinov2", "Dinov2WithRegisters")
        if kind in ("dinov2_with_registers", "dinov3_vit"):
            config["num_register_tokens"] = spec.registers
        if table.name == "transformers_dinov2":
            ratio, rest = divmod(spec.mlp_width, spec.width)
            if rest:
                raise WeightsError(
                    f"transformers' DINOv2 has an MLP of a whole multiple of the width, not "
                    f"{spec.mlp_width} of {spec.width}."
                )
            config |= {
                "mlp_ratio": ratio,
                "qkv_bias": spec.biases == "all",
                "use_swiglu_ffn": False,
            }
        elif kind == "dinov3_vit":
            for name in ("query_bias", "value_bias"):
                config[name] = spec.biases == "all"
            config |= {"key_bias": False, "rope_theta": spec.rope_base, "use_gated_mlp": False}
            config |= dict.fromkeys(("proj_bias", "mlp_bias"), spec.biases != "none")
        else:
            config["qkv_bias"] = spec.biases == "all"
        if spec.representation:
            config |= {"pooler_output_size": spec.representation, "pooler_act": "tanh"}
        if spec.classes:
            config["id2label"] = {str(i): name for i, name in enumerate(card.classes)}
            config["label2id"] = {name: i for i, name in enumerate(card.classes)}
        if card.labels == "several":
            config["problem_type"] = SEVERAL
        config |= {"model_type": kind, "architectures": [classifier if spec.classes else plain]}
        processor = write_preprocessing(card.images)
        return {"config.json": config, "preprocessor_config.json": processor}

    def preprocessing_differences(self, images: ImageSpec) -> list[str]:
        """Say what differs where a cut is rounded down."""
        return preprocessing.differences(images, "transformers", centre="floor")

    def oracle(self, spec: ModelSpec, tensors: Tensors, config: Config) -> Oracle:
        """Open the architecture of the configuration from a folder, as a user would."""
        transformers = importlib.import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if not config:
            raise NotComparableError("there is no config.json")
        kind = getattr(transformers, config["architectures"][0])
        with tempfile.TemporaryDirectory() as place:
            ready = {name: x.contiguous() for name, x in tensors.items()}
            save_file(ready, Path(place) / "model.safetensors", metadata={"format": "pt"})
            (Path(place) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
            model, report = kind.from_pretrained(
                place, output_loading_info=True, dtype=torch.float32
            )
        pooler = {name for name in report["missing_keys"] if name.startswith("pooler.")}
        if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]} - pooler):
            raise ValueError(f"it found other names: {', '.join(wrong[:4])}")
        model.eval()

        def answer(images: Tensor) -> Tensor:
            out = model(pixel_values=images)
            if hasattr(out, "logits"):
                return out.logits
            return out.last_hidden_state[:, 0] if pooler else out.pooler_output

        return answer


def read_preprocessing(config: Mapping[str, Any]) -> ImageSpec:
    """Return the spec of a preprocessor_config.json, of this or an older transformers.

    Known are the image processors (and, before them, feature extractors) of ViT, DeiT, Bit (which
    DINOv2 uses), DINOv3ViT, CLIP and Siglip; a file that does not name one is ViT's.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or "ViT"
    stem = str(kind)
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        stem = stem.removesuffix(suffix)
    processors = _processors()
    if stem not in processors:
        known = ", ".join(processors)
        raise WeightsError(f"The image processor '{kind}' is not known; known: {known}.")
    own = {key: value for key, value in config.items() if value is not None}
    values = {"do_resize": True, "do_rescale": True, "do_normalize": True} | processors[stem] | own
    for key, wanted in (("do_resize", True), ("do_pad", False), ("do_flip_channel_order", False)):
        if values.get(key, wanted) is not wanted:
            raise WeightsError(f"An ImageSpec cannot say {key} = {not wanted} of '{kind}'.")
    resample = values["resample"]
    with preprocessing.refusals_named("transformers"):
        goal, fit = _goal(values["size"], square=stem not in KEEPS_SHAPE)
        cut = bool(values.get("do_center_crop"))
        if fit == "crop" and not cut:
            raise WeightsError("Without do_center_crop each image keeps its own shape.")
        size = _sides("crop_size", values.get("crop_size", 224)) if cut else goal
        mean, std = _normalisation(values)
        return ImageSpec.from_dict(
            {
                "size": size,
                "fit": fit,
                "crop": preprocessing.crop_fraction(size, goal),
                "centre": "floor" if cut else "round",
                "interpolation": RESAMPLING.get(resample, resample)
                if isinstance(resample, int)
                else resample,
                "resize": "torch" if stem == "DINOv3ViT" else "pillow",
                "mean": mean,
                "std": std,
            }
        )


@cache
def _processors() -> dict[str, dict[str, Any]]:
    """What each image processor does with a key that its file does not hold, by name."""
    text = files("vitral.weights.formats").joinpath("transformers_processors.toml")
    return tomllib.loads(text.read_text(encoding="utf-8"))


def write_preprocessing(spec: ImageSpec) -> dict[str, Any]:
    """Return a preprocessor_config.json with which transformers gives the same tensor.

    Raises WeightsError for fit = "pad" and what else it has no words for; see
    `preprocessing_differences` too.
    """
    goal = preprocessing.resized(spec)
    if spec.fit == "pad":
        raise WeightsError('transformers cannot say fit = "pad": choose "crop" or "squash".')
    if spec.fit == "crop" and goal[0] != goal[1]:
        raise WeightsError(f"transformers cannot resize to cover {goal}, which is not square.")
    cut = spec.fit == "crop" or goal != spec.size
    sides = dict(zip(("height", "width"), goal, strict=True))
    values: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": goal[0]} if spec.fit == "crop" else sides,
        "resample": {name: number for number, name in RESAMPLING.items()}[spec.interpolation],
        "do_center_crop": cut,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
    if cut:
        values["crop_size"] = dict(zip(("height", "width"), spec.size, strict=True))
    kind = "Bit" if spec.fit == "crop" else "DeiT" if cut else "ViT"
    kind = "DINOv3ViT" if spec.resize == "torch" else kind  # the only one that resizes floats
    return {"image_processor_type": f"{kind}ImageProcessor", **values}


def _shared(spec: ModelSpec) -> dict[str, Any]:
    def side(pair: tuple[int, int]) -> int | list[int]:
        return pair[0] if pair[0] == pair[1] else list(pair)

    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": "gelu" if spec.gelu == "erf" else "gelu_pytorch_tanh",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": spec.norm_eps,
        "image_size": side(spec.size),
        "patch_size": side(spec.patch),
        "num_channels": spec.channels,
    }


def _goal(size: Any, *, square: bool) -> tuple[tuple[int, int], str]:
    """((height, width), fit) from transformers' size: an integer, a pair or named sides."""
    if isinstance(size, int) and not square:
        size = {"shortest_edge": size}
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return pair("shortest_edge", size["shortest_edge"]), "crop"
    return _sides("size", size), "squash"


def _sides(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        if set(value) != {"height", "width"}:
            raise WeightsError(f"An ImageSpec cannot say transformers' {name} = {dict(value)}.")
        value = (value["height"], value["width"])
    return pair(name, value)


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of values in [0, 1] for transformers' (pixel × factor - mean) / std."""
    factor = values.get("rescale_factor", 1 / 255) if values["do_rescale"] else 1.0
    if not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise WeightsError(f"transformers' rescale_factor is a number above 0, not {factor!r}.")
    scale = 1.0 if math.isclose(255 * factor, 1) else 255 * factor
    mean = values["image_mean"] if values["do_normalize"] else 0.0
    std = values["image_std"] if values["do_normalize"] else 1.0
    mean, std = (preprocessing.per_channel(part) for part in (mean, std))
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


format = Transformers()
