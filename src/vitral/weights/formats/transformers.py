"""transformers' config.json, preprocessor_config.json and id2label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitral.catalog.checkpoints import labels
from vitral.errors import WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights import preprocessing
from vitral.weights.artifact import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import RenameTable

GELUS = {"gelu": "erf", "gelu_python": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
# settings of a network that we do not have, and the value that leaves it out
FIXED = {"use_swiglu_ffn": False, "use_gated_mlp": False, "pooler_act": "tanh"}


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, GELU, eps, size and the base of the rotation."""
    kind = config.get("model_type")
    if kind not in TYPES:
        raise WeightsError(
            f"config.json is of the model type '{kind}'; Vitral reads {', '.join(TYPES)}."
        )
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise WeightsError(
                f"config.json sets {name}={config[name]!r}, a network that Vitral does not have."
            )
    act = config.get("hidden_act", "gelu")
    if str(act) not in GELUS:
        raise WeightsError(f"config.json sets hidden_act={act!r}; Vitral has {', '.join(GELUS)}.")
    eps = {"vit": 1e-12, "deit": 1e-12, "dinov3_vit": 1e-5}.get(str(kind), 1e-6)
    told = {
        "heads": config.get("num_attention_heads", 6 if kind == "dinov3_vit" else 12),
        "gelu": GELUS[act],
        "norm_eps": config.get("layer_norm_eps", eps),
        "size": config.get("image_size", 224),
    }
    same = {"hidden_size": "width", "num_hidden_layers": "depth"}
    told |= {ours: config[theirs] for theirs, ours in same.items() if theirs in config}
    if kind == "dinov3_vit":
        rope = config.get("rope_parameters")
        base = rope.get("rope_theta", 100.0) if isinstance(rope, Mapping) else 100.0
        told["rope_base"] = config.get("rope_theta", base)
    return told


def classes(config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """id2label, unless it is the placeholder LABEL_0, LABEL_1, ..."""
    names = config.get("id2label")
    if isinstance(names, Mapping) and len(names) == count:
        ordered = [names.get(str(i), names.get(i)) for i in range(count)]
        placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(ordered))
        if None not in ordered and not placeholders:
            return tuple(str(name) for name in ordered)
    return labels("imagenet-1k") if count == 1000 else None


def images(source: Source, size: tuple[int, int]) -> ImageSpec:
    """preprocessor_config.json, or that of ViTImageProcessor where there is none."""
    config = dict(source.preprocessor or {})
    if not config:
        config = {"image_processor_type": "ViTImageProcessor"}
        config["size"] = {"height": size[0], "width": size[1]}
    return preprocessing.from_transformers(config)


def files(card: Card, table: RenameTable) -> dict[str, Mapping[str, Any]]:
    """config.json and preprocessor_config.json."""
    spec = card.model
    kinds = {
        "transformers_vit": ("vit", "ViTForImageClassification", "ViTModel"),
        "transformers_deit": ("deit", "DeiTForImageClassificationWithTeacher", ""),
        "transformers_deit_single": ("deit", "DeiTForImageClassification", "DeiTModel"),
        "transformers_dinov2": ("dinov2", "", "Dinov2Model"),
        "transformers_dinov3": ("dinov3_vit", "", "DINOv3ViTModel"),
    }
    kind, classifier, plain = kinds[table.name]
    config = _shared(spec)
    if table.name == "transformers_dinov2" and spec.registers:
        kind, plain = "dinov2_with_registers", "Dinov2WithRegistersModel"
    if kind in ("dinov2_with_registers", "dinov3_vit"):
        config["num_register_tokens"] = spec.registers
    if table.name == "transformers_dinov2":
        ratio, rest = divmod(spec.mlp_width, spec.width)
        if rest:
            raise WeightsError(
                f"transformers' DINOv2 has an MLP of a whole multiple of the width, not "
                f"{spec.mlp_width} of {spec.width}."
            )
        config |= {"mlp_ratio": ratio, "qkv_bias": spec.biases == "all", "use_swiglu_ffn": False}
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
    config |= {"model_type": kind, "architectures": [classifier if spec.classes else plain]}
    processor = preprocessing.to_transformers(card.images)
    return {"config.json": config, "preprocessor_config.json": processor}


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
