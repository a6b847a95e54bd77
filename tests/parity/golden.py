"""Recorded runs of the authors' JAX code as (spec, state dict, images, logits); for tests only.

A name-by-name reading of the npz files in ../shared/golden, kept apart from vitral.weights so that
the library's converter is never its own oracle.
"""

import json
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from shared import GOLDEN
from vitral.specs import ModelSpec, ResNetSpec

NOT_WEIGHTS = ("x", "logits", "logits64", "logits64_zeropad", "config")


class Recording(NamedTuple):
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    images: Tensor
    logits: Tensor
    extra: dict[str, np.ndarray]


def recording(name: str) -> Recording:
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the recorded tensors of the authors' code are not at {path}")
    with np.load(path) as file:
        everything = {key: file[key] for key in file.files}
    arrays = {key: value for key, value in everything.items() if key not in NOT_WEIGHTS}
    return Recording(
        json.loads(str(everything["config"])),
        {key.removeprefix("params/"): value.astype(np.float64) for key, value in arrays.items()},
        torch.from_numpy(everything["x"].astype(np.float64)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(everything["logits64"]),
        {key: everything[key] for key in ("logits", "logits64_zeropad") if key in everything},
    )


def transformer_spec(config: dict[str, Any]) -> ModelSpec:
    big_vision = config["code"] == "big_vision"
    kind = config.get("pool_type") or {"token": "tok"}[config["classifier"]]
    pool = {"tok": "cls", "gap": "mean", "map": "map"}[kind]
    representation = config.get("rep_size") or config.get("representation_size") or 0
    resnet = config.get("resnet")
    return ModelSpec(
        name=config["name"],
        size=tuple(config["image"]),
        patch=tuple(config["patch"]),
        width=config["width"],
        depth=config["layers"],
        heads=config["heads"],
        mlp_width=config["mlp"],
        classes=config["num_classes"],
        class_token=pool == "cls",
        prefix_positions=not big_vision,
        positions="sincos2d" if config.get("posemb") == "sincos2d" else "learned",
        pool=pool,
        representation=config["width"] if representation is True else representation,
        resnet=resnet
        and ResNetSpec(blocks=resnet["num_layers"], width=int(64 * resnet["width_factor"])),
    )


def transformer_weights(arrays: dict[str, np.ndarray], depth: int) -> dict[str, Tensor]:
    """vit_jax (suffixes 1/3/2) and big_vision (0/0/1, blocks maybe stacked) in one reading."""
    flat: dict[str, np.ndarray] = {}
    for key, value in arrays.items():  # unstack scanned blocks; one way of numbering the parts
        if "encoderblock/" in key:
            for i in range(depth):
                flat[key.replace("encoderblock/", f"encoderblock_{i}/")] = value[i]
        else:
            flat[key] = value
    state: dict[str, np.ndarray] = {}
    attention: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, value in flat.items():
        name = re.sub(r"(MultiHeadDotProductAttention|MlpBlock)_\d", r"\1", key)
        name = re.sub(r"Transformer/encoderblock_(\d+)/", r"blocks.\1.", name)
        name = name.replace("MAPHead_0/LayerNorm_0/", "pool.norm.").replace("MAPHead_0/", "pool.")
        name = re.sub(r"LayerNorm_0/", "norm1.", name)
        name = re.sub(r"LayerNorm_[12]/", "norm2.", name)
        name = name.replace("MultiHeadDotProductAttention/", "attention.")
        name = name.replace("MlpBlock/Dense_0/", "mlp.fc1.")
        name = name.replace("MlpBlock/Dense_1/", "mlp.fc2.")
        name = name.replace("Transformer/encoder_norm/", "norm.").replace("embedding/", "patches.")
        if found := re.fullmatch(r"(.*attention)\.(query|key|value)/(kernel|bias)", name):
            part = value.reshape(value.shape[0], -1).T if found[3] == "kernel" else value.ravel()
            attention.setdefault((found[1], found[3]), {})[found[2]] = part
        elif name.endswith("attention.out/kernel"):
            state[name.replace("/kernel", ".weight")] = value.reshape(-1, value.shape[-1]).T
        elif "pos_" in name:
            state["positions.table"] = value
        elif name in ("cls", "pool.probe"):
            state[name] = value
        else:
            state.update([_leaf(_resnet_name(name), value)])
    for (owner, kind), parts in attention.items():
        leaf = "weight" if kind == "kernel" else "bias"
        state[f"{owner}.qkv.{leaf}"] = np.concatenate([parts[k] for k in ("query", "key", "value")])
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in state.items()}


def _resnet_name(name: str) -> str:
    """vit_jax's stem: blocks and units count from 1."""
    name = name.replace("conv_root/", "stem.root.").replace("gn_root/", "stem.root_norm.")
    if found := re.fullmatch(r"block(\d)/unit(\d+)/(\w+)/(\w+)", name):
        part = {"conv_proj": "shortcut", "gn_proj": "shortcut_norm"}.get(found[3])
        part = part or found[3].replace("gn", "norm")
        name = f"stem.stages.{int(found[1]) - 1}.{int(found[2]) - 1}.{part}.{found[4]}"
    return name


def _leaf(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    name = name.replace("/", ".")
    if name.endswith(".kernel"):
        axes = (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
        return name.removesuffix("kernel") + "weight", value.transpose(axes)
    if name.endswith(".scale"):
        name = name.removesuffix("scale") + "weight"
    return name, value.ravel()


def bit_spec(config: dict[str, Any], root_pool: str) -> ModelSpec:
    resnet = ResNetSpec(
        kind="v2",
        blocks=config["depth"],
        width=int(64 * config["width"]),
        norm_eps=1e-5,
        weight_eps=1e-10,
        weight_eps_in="var",
        root_pool=root_pool,
    )
    return ModelSpec(
        name=config["name"],
        size=tuple(config["image"]),
        patch=(1, 1),
        width=resnet.outputs,
        depth=0,
        heads=0,
        mlp_width=0,
        classes=config["num_classes"],
        class_token=False,
        positions="none",
        pool="mean",
        resnet=resnet,
    )


def bit_weights(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    state = {}
    for key, value in arrays.items():
        name = key.removeprefix("resnet/").replace("standardized_conv2d/kernel", "kernel")
        leaf = {"gamma": "scale", "beta": "bias"}.get(name.rpartition("/")[2])
        name = name.rpartition("/")[0] + "/" + leaf if leaf else name
        if found := re.fullmatch(r"block(\d)/unit(\d+)/(\w)/(proj/)?(?:group_norm/)?(\w+)", name):
            number = "abc".index(found[3]) + 1
            part = "norm" if found[5] in ("scale", "bias") else "conv"
            part = "shortcut" if found[4] else f"{part}{number}"
            name = f"stem.stages.{int(found[1]) - 1}.{int(found[2]) - 1}.{part}.{found[5]}"
        name = name.replace("root_block/", "stem.root.").replace("group_norm/", "stem.norm.")
        name, array = _leaf(name.replace("head/conv2d/", "head."), value)
        array = array[:, :, 0, 0] if name == "head.weight" else array
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
    return state
