"""Small networks of every kind that a format holds, and checkpoint files of them in any format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitral.model import build
from vitral.specs import ImageSpec, ModelSpec, ResNetSpec
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.write import layout_for, table_for

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
GOOGLE = ModelSpec(
    name="tiny", size=32, patch=8, width=32, depth=2, heads=4, mlp_width=48, classes=5
)
MEAN = {"pool": "mean", "class_token": False}
MAP = {"pool": "map", "class_token": False}
STEM = ResNetSpec(blocks=(1, 1), width=32)
ROOT = ResNetSpec(blocks=(), width=32)
ODD = {"heads": 1, "depth": 1, "classes": 2, "mlp_width": 33, "patch": (7, 5), "size": (21, 15)}


def of(base: ModelSpec, **changes: Any) -> ModelSpec:
    return replace(base, **changes)


def bit(resnet: ResNetSpec, **changes: Any) -> ModelSpec:
    absent = {"depth": 0, "heads": 0, "mlp_width": 0, "class_token": False, "positions": "none"}
    values = {"patch": 1, "pool": "mean", "width": resnet.outputs, "resnet": resnet}
    return replace(GOOGLE, **values, **absent, **changes)


TIMM = of(GOOGLE, gelu="erf", resample="timm")
TORCHVISION = of(GOOGLE, gelu="erf", resample="torchvision")
TRANSFORMERS = of(GOOGLE, gelu="erf", resample="transformers", norm_eps=1e-12)
SINGLE = of(TRANSFORMERS, registers=1, register_positions=True)  # DeiT's distilled network
VIT_PYTORCH = of(GOOGLE, gelu="erf", norm_eps=1e-5, biases="no_qkv", patch_norms=True)
SIMPLE = of(VIT_PYTORCH, **MEAN, biases="no_attention", positions="sincos2d")
DINOV2 = of(TRANSFORMERS, norm_eps=1e-6, layer_scale=1e-5, classes=0, mlp_width=64)
DINO = of(TIMM, resample="dino", classes=0)
DINO_LINEAR = of(DINO, classes=5, mlp_width=64, layer_scale=1e-5, pool="cls_mean")
EVA = of(TIMM, norm_eps=1e-5, layer_scale=1e-5, positions="rope2d", registers=2, biases="no_qkv")
DINOV3 = of(EVA, resample="transformers", classes=0)
BIT = ResNetSpec(
    kind="v2", blocks=(1, 2), width=32, norm_eps=1e-5, weight_eps=1e-10, weight_eps_in="var",
    root_pool="zero",
)  # fmt: skip
TIMM_STEM = {"norm_eps": 1e-5, "weight_eps": 1e-8, "weight_eps_in": "var"}

# format, and what is held: every table, and every field that its code can run
HELD: dict[str, dict[str, ModelSpec]] = {
    "google": {
        "token": GOOGLE,
        "odd": of(GOOGLE, **ODD),
        "grey": of(GOOGLE, channels=1),
        "wide heads": of(GOOGLE, heads=2, head_width=24),
        "pre_logits": of(GOOGLE, representation=20),
        "headless": of(GOOGLE, classes=0),
        "big_vision token": of(GOOGLE, prefix_positions=False),
        "mean": of(GOOGLE, **MEAN),
        "sincos": of(GOOGLE, **MEAN, positions="sincos2d", representation=32),
        "map": of(GOOGLE, **MAP),
        "hybrid": of(GOOGLE, resnet=STEM, patch=1),
        "root": of(GOOGLE, resnet=ROOT, patch=2),
        "bit": bit(BIT),
        "resnet": bit(ResNetSpec(blocks=(1, 2), width=32)),
        "resnet, headless": bit(ResNetSpec(blocks=(2,), width=32), classes=0),
    },
    "timm": {
        "token": TIMM,
        "odd": of(TIMM, **ODD),
        "four channels": of(TIMM, channels=4),
        "tanh": of(TIMM, gelu="tanh"),
        "no qkv bias": of(TIMM, biases="no_qkv"),
        "no bias": of(TIMM, biases="none"),
        "qk norm": of(TIMM, qk_norm=True),
        "mean": of(TIMM, pool="mean", pool_norm="after"),
        "mean of normed": of(TIMM, **MEAN),
        "map": of(TIMM, **MAP),
        "no positions": of(TIMM, positions="none"),
        "distilled": of(TIMM, distillation_token=True),
        "deit3": of(TIMM, prefix_positions=False, layer_scale=1e-6),
        "registers": of(TIMM, prefix_positions=False, registers=3, layer_scale=1e-5),
        "registers with positions": of(TIMM, registers=3, register_positions=True),
        "so150m": of(TIMM, **MEAN, registers=4, register_positions=True),
        "so150m2": of(
            TIMM, **MEAN, pool_norm="after", registers=1, register_positions=True, biases="no_qkv"
        ),
        "headless": of(TIMM, classes=0),
        "eva": EVA,
        "eva mean": of(EVA, pool="mean"),
        "eva bias": of(EVA, biases="all", registers=0),
        "hybrid": of(TIMM, resnet=replace(STEM, **TIMM_STEM), patch=1),
        "root": of(TIMM, resnet=replace(ROOT, **TIMM_STEM), patch=2),
        "bit": bit(replace(BIT, weight_eps=1e-8), resample="timm"),
    },
    "torchvision": {
        "token": TORCHVISION,
        "pre_logits": of(TORCHVISION, representation=20),
        "one": of(TORCHVISION, heads=1, depth=1, classes=2, mlp_width=33),
    },
    "transformers": {
        "token": TRANSFORMERS,
        "odd": of(TRANSFORMERS, **ODD),
        "grey": of(TRANSFORMERS, channels=1),
        "eps": of(TRANSFORMERS, norm_eps=1e-6, gelu="tanh"),
        "no qkv bias": of(TRANSFORMERS, biases="no_qkv"),
        "headless": of(TRANSFORMERS, classes=0),
        "pooler": of(TRANSFORMERS, classes=0, representation=32),
        "distilled": of(TRANSFORMERS, distillation_token=True),
        "one head": SINGLE,
        "one head, odd": of(SINGLE, **ODD, biases="no_qkv"),
        "one head, headless": of(SINGLE, classes=0),
        "one head, pooler": of(SINGLE, classes=0, representation=32),
        "dinov2": DINOV2,
        "dinov2 registers": of(DINOV2, registers=3),
        "dinov2 no qkv bias": of(DINOV2, biases="no_qkv"),
        "dinov2 classifier": of(DINOV2, classes=5, pool="cls_mean"),
        "dinov2 registers, classifier": of(DINOV2, classes=5, pool="cls_mean", registers=3),
        "dinov3": DINOV3,
        "dinov3 bias": of(DINOV3, biases="all", registers=0),
        "dinov3 no bias": of(DINOV3, biases="none", gelu="tanh"),
    },
    "dino": {
        "token": DINO,
        "odd": of(DINO, heads=1, depth=1, mlp_width=33),
        "dinov2": of(DINO, layer_scale=1e-5),
        "registers": of(DINO, layer_scale=1e-5, registers=3, resample="timm"),
        "classifier": DINO_LINEAR,
        "classifier of four blocks": of(DINO_LINEAR, depth=5, pool_blocks=4),
        "classifier, registers": of(DINO_LINEAR, registers=3, resample="timm"),
    },
    "vit-pytorch": {
        "token": VIT_PYTORCH,
        "odd": of(VIT_PYTORCH, **ODD, out_projection=False),
        "grey": of(VIT_PYTORCH, channels=1),
        "wide heads": of(VIT_PYTORCH, heads=2, head_width=24),
        "one narrow head": of(VIT_PYTORCH, heads=1, head_width=24),
        "mean": of(VIT_PYTORCH, **MEAN),
        "headless": of(VIT_PYTORCH, classes=0),
        "2021": of(VIT_PYTORCH, patch_norms=False),
        "2021, mean of all": of(
            VIT_PYTORCH, patch_norms=False, pool="mean_all", pool_norm="after"
        ),
        "2022, mean of all": of(VIT_PYTORCH, pool="mean_all", pool_norm="after"),
        "2023, mean of all": of(VIT_PYTORCH, pool="mean_all"),
        "2021, one head": of(VIT_PYTORCH, patch_norms=False, heads=1, out_projection=False),
        "simple": SIMPLE,
        "simple, wide heads": of(SIMPLE, heads=2, head_width=24),
        "simple, 2022": of(SIMPLE, patch_norms=False, pool_norm="after"),
        "simple, 2023": of(SIMPLE, pool_norm="after"),
    },
}  # fmt: skip
CASES = [(format, name) for format, held in HELD.items() for name in held]
SUFFIX = {"google": ".npz", "timm": ".safetensors", "torchvision": ".pth", "transformers": ".bin"}
SUFFIX |= {"vit-pytorch": ".pt", "dino": ".pth"}


def tensors(
    spec: ModelSpec, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """No zero and no one is left; exact in `dtype`. The keys of a rotated network have no bias."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, value in build(spec).state_dict().items():
        spread = 0.5 if value.ndim == 1 else 1.2 / max(value[0].numel(), 1) ** 0.5
        x = torch.randn(value.shape, generator=generator) * spread
        x = x + 1 if "norm" in name and name.endswith("weight") else x
        if spec.positions == "rope2d" and name.endswith("qkv.bias"):
            x.view(3, -1)[1] = 0
        made[name] = x.to(dtype).float()
    return made


def save_artifact(folder: Path, spec: ModelSpec) -> Path:
    names = tuple(f"class {i}" for i in range(spec.classes))
    images = ImageSpec(size=spec.size, fit="squash")
    artifact.save(folder, tensors(spec), Card(model=spec, images=images, classes=names))
    return folder


def theirs(format: str, spec: ModelSpec, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A network's tensors under a format's names, with what only that format has."""
    table = table_for(format, spec)
    extra = {}
    if table.name == "transformers_dinov2":
        extra["embeddings.mask_token"] = torch.randn(1, spec.width)
    if table.name == "transformers_dinov3":
        extra["embeddings.mask_token"] = torch.randn(1, 1, spec.width)
        if not spec.registers:
            extra["embeddings.register_tokens"] = torch.zeros(1, 0, spec.width)
    if table.name == "vit_pytorch_vit" and not spec.class_token:
        extra["cls_token"] = torch.zeros(0, spec.width)
    ours = tensors(spec, dtype=dtype)
    found = table.write(ours, spec.heads, layout_for(table, spec), extra)
    return {name: x.to(dtype) for name, x in found.items()}


def said(spec: ModelSpec) -> dict[str, Any]:
    """What the tensors of this network alone do not tell, as options of convert."""
    changes = [] if spec.is_resnet else [f"model.heads={spec.heads}", f"model.gelu={spec.gelu}"]
    changes.append(f"model.norm_eps={spec.norm_eps}")
    if spec.patch[0] != spec.patch[1]:
        changes += [f"model.patch={list(spec.patch)}"]
    if spec.pool != "map":
        changes += [f"model.pool={spec.pool}"]
    if spec.layer_scale is not None:
        changes.append(f"model.layer_scale={spec.layer_scale}")
    return {"size": spec.size, "changes": changes}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def stored(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, read without Vitral; bfloat16 of an npz as its two void bytes."""
    if path.suffix == ".npz":
        found = {}
        for name, x in arrays(path).items():
            void = x.dtype.kind == "V"
            found[name] = torch.from_numpy(x.view(np.int16) if void else x)
            found[name] = found[name].view(torch.bfloat16) if void else found[name]
        return found
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)


def store(path: Path, values: Mapping[str, Tensor]) -> Path:
    """The inverse of `stored`."""
    if path.suffix == ".npz":
        half = {k: x.dtype == torch.bfloat16 for k, x in values.items()}
        np.savez(
            path,
            **{
                k: x.contiguous().view(torch.int16).numpy().view("V2") if half[k] else x.numpy()
                for k, x in values.items()
            },
        )
    elif path.suffix == ".safetensors":
        save_file({k: x.contiguous() for k, x in values.items()}, path)
    else:
        torch.save(dict(values), path)
    return path


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Names, shapes, dtypes and bits."""
    return set(first) == set(second) and all(
        x.dtype == second[name].dtype
        and x.shape == second[name].shape
        and x.contiguous().view(-1).view(torch.uint8).equal(
            second[name].contiguous().view(-1).view(torch.uint8)
        )
        for name, x in first.items()
    )  # fmt: skip


def logits(folder: Path) -> Tensor:
    """Of an artifact, in float64, on random images of its own size."""
    values, card = artifact.load_tensors(folder)
    network = artifact.network({k: x.double() for k, x in values.items()}, card.model)
    generator = torch.Generator().manual_seed(1)
    shape = (2, card.model.channels, *card.model.size)
    with torch.inference_mode():
        return network(torch.randn(shape, generator=generator, dtype=torch.double))
