"""peft's folders: merged into their base as W + scale * B A, or refused by what they are."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import HELD, same, save_artifact, store, tensors, theirs
from vitral.errors import UsageError, VitralError, WeightsError
from vitral.weights.convert import convert
from vitral.weights.read import read_weights

SPEC = HELD["transformers"]["token"]
QUERY = "vit.encoder.layer.{}.attention.attention.query"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["query"]}
HUGGING = {
    "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 32,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "num_hidden_layers": 2,
    "intermediate_size": 48, "id2label": {str(i): f"old {i}" for i in range(5)},
}  # fmt: skip
DICE = torch.Generator().manual_seed(0)


def drawn(*sides: int) -> Tensor:
    return torch.randn(*sides, generator=DICE) / 4


def based(folder: Path) -> Path:
    folder.mkdir()
    store(folder / "model.safetensors", theirs("transformers", SPEC))
    (folder / "config.json").write_text(json.dumps(HUGGING))
    return folder


def adapter(folder: Path, values: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir()
    named = {f"base_model.model.{name}": x for name, x in values.items()}
    store(folder / "adapter_model.safetensors", named)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def updates(layer: str = QUERY, rank: int = 4, **more: Tensor) -> dict[str, Tensor]:
    values = {}
    for i in range(2):
        values[f"{layer.format(i)}.lora_A.weight"] = drawn(rank, 32)
        values[f"{layer.format(i)}.lora_B.weight"] = drawn(32, rank)
    return values | more


def expected(values: dict[str, Tensor], scale: float, layer: str = QUERY) -> dict[str, Tensor]:
    """W + scale * B A in the rows of the queries, written out."""
    ours = tensors(SPEC)
    for i in range(2):
        down, up = (values[f"{layer.format(i)}.lora_{part}.weight"] for part in "AB")
        ours[f"blocks.{i}.attention.qkv.weight"][:32] += scale * (up @ down)
    return ours


def close(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(x, second[name], atol=1e-6) for name, x in first.items()
    )


@pytest.mark.parametrize(("config", "scale"), [
    ({}, 1.5), ({"lora_alpha": 2}, 0.5), ({"use_rslora": True}, 6 / math.sqrt(4)),
    ({"alpha_pattern": {"query": 10}}, 2.5), ({"r": 8, "rank_pattern": {"query": 4}}, 1.5),
    ({"alpha_pattern": {r"vit\.encoder\.layer\.\d+\.attention\.attention\.query": 4}}, 1.0),
])  # fmt: skip
def test_the_update_is_added(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    base = based(tmp_path / "base")
    values = updates()
    folder = adapter(tmp_path / "a", values, base_model_name_or_path=str(base), **config)
    weights = read_weights(folder)
    assert close(dict(weights.tensors), expected(values, scale))
    assert weights.card.classes == tuple(f"old {i}" for i in range(5))
    assert "changed 2 of the base's layers" in weights.notes[0]
    done = convert(folder, tmp_path / "out")
    pytest.importorskip("transformers", reason="transformers is an oracle of the dev extra")
    assert done.difference["transformers"] < 1e-5


def test_dora_brings_each_row_to_its_length(tmp_path: Path) -> None:
    base = based(tmp_path / "base")
    for suffix in ("", ".weight"):
        lengths = {f"{QUERY.format(i)}.lora_magnitude_vector{suffix}": drawn(32) for i in range(2)}
        values = updates()
        folder = adapter(tmp_path / f"a{suffix}", values | lengths, use_dora=True)
        ours = expected(values, 1.5)
        for i, length in enumerate(lengths.values()):
            rows = ours[f"blocks.{i}.attention.qkv.weight"]
            rows[:32] = length[:, None] * rows[:32] / rows[:32].norm(dim=1, keepdim=True)
        assert close(dict(read_weights(folder, base=base).tensors), ours)
    folder = adapter(tmp_path / "without", updates(), use_dora=True)
    with pytest.raises(WeightsError, match="use_dora"):
        read_weights(folder, base=base)


@pytest.mark.parametrize("name", ["classifier.{}", "classifier.modules_to_save.{}",
                                  "classifier.modules_to_save.default.{}"])  # fmt: skip
def test_a_head_that_came_with_the_updates(tmp_path: Path, name: str) -> None:
    base = based(tmp_path / "base")
    head = {name.format("weight"): drawn(3, 32), name.format("bias"): drawn(3)}
    head |= {"classifier.original_module.weight": drawn(5, 32)}
    weights = read_weights(adapter(tmp_path / "a", updates() | head), base=base)
    assert torch.equal(weights.tensors["head.weight"], head[name.format("weight")])
    assert weights.card.classes == ("0", "1", "2")
    assert (
        "whole tensors came with the updates: classifier.bias, classifier.weight"
        in weights.notes[1]
    )


@pytest.mark.parametrize("prefix", ["", "net.backbone."])
def test_other_programs_and_other_layers(tmp_path: Path, prefix: str) -> None:
    """timm's joined queries, keys and values; the patches' convolution; biases of their own."""
    spec = HELD["timm"]["token"]
    path = store(tmp_path / "base.safetensors", theirs("timm", spec))
    values = {
        f"{prefix}blocks.0.attn.qkv.lora_A.weight": drawn(4, 32),
        f"{prefix}blocks.0.attn.qkv.lora_B.weight": drawn(96, 4),
        f"{prefix}patch_embed.proj.lora_A.weight": drawn(4, 3, 8, 8),
        f"{prefix}patch_embed.proj.lora_B.weight": drawn(32, 4, 1, 1),
        f"{prefix}blocks.0.mlp.fc1.bias": drawn(48),
    }
    ours = tensors(spec)
    down, up, convolution, mixing, bias = values.values()
    ours["blocks.0.attention.qkv.weight"] += 1.5 * (up @ down)
    ours["patches.weight"] += 1.5 * torch.einsum("orxy,rihw->oihw", mixing, convolution)
    ours["blocks.0.mlp.fc1.bias"] = bias
    weights = read_weights(
        adapter(tmp_path / "a", values), base=path, size=(32, 32), changes=["model.heads=4"]
    )
    assert close(dict(weights.tensors), ours)


def test_on_an_artifact(tmp_path: Path) -> None:
    base = based(tmp_path / "base")
    convert(base, tmp_path / "ours")
    values = updates()
    weights = read_weights(adapter(tmp_path / "a", values), base=tmp_path / "ours")
    assert close(dict(weights.tensors), expected(values, 1.5))
    first = read_weights(base).card
    assert (weights.card.model, weights.card.classes) == (first.model, first.classes)
    ours = save_artifact(tmp_path / "trained", SPEC)  # it never had their names
    again = read_weights(tmp_path / "a", base=ours)
    assert close(dict(again.tensors), expected(values, 1.5))
    assert replace(again.card.model, name="tiny") == SPEC
    assert again.card.classes == tuple(f"class {i}" for i in range(5))
    assert "assumed" not in " ".join(again.notes)
    layer = "blocks.{}.attention.out"
    values = updates(layer)
    own = read_weights(adapter(tmp_path / "b", values), base=ours).tensors
    down, up = (values[f"{layer.format(0)}.lora_{part}.weight"] for part in "AB")
    out = tensors(SPEC)["blocks.0.attention.out.weight"] + 1.5 * (up @ down)
    assert torch.allclose(own["blocks.0.attention.out.weight"], out, atol=1e-6)


def test_an_update_of_nothing_leaves_every_bit(tmp_path: Path) -> None:
    base = based(tmp_path / "base")
    values = {name: x * 0 for name, x in updates().items()}
    weights = read_weights(adapter(tmp_path / "a", values), base=base)
    assert same(weights.tensors, tensors(SPEC))


REFUSED: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
    (updates(), {"peft_type": "IA3"}, r"of the kind 'IA3'.*merge_and_unload"),
    (updates(), {"init_lora_weights": "pissa_niter_16"}, "changes the base weights, too"),
    (updates(), {"r": 8}, "says r=8 .*rank 4"),
    (updates(), {"lora_alpha": None}, "lora_alpha=None"),
    (updates(), {"alpha_pattern": {"(": 3}}, "has no pattern"),
    (updates(), {"alpha_pattern": [3]}, "holds values by pattern"),
    (updates("vit.encoder.layer.{}.nowhere"), {}, "the base has no such layer"),
    ({f"{QUERY.format(0)}.lora_A.weight": drawn(4, 32)}, {}, "is not whole"),
    ({f"{QUERY.format(0)}.lora_A.weight": drawn(4, 16),
      f"{QUERY.format(0)}.lora_B.weight": drawn(32, 4)}, {}, "is 32x16, and the base has 32x32"),
    (updates(**{"vit.extra.weight": drawn(3)}), {}, "Left over"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "config", "match"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_merged(
    tmp_path: Path, values: dict[str, Tensor], config: dict[str, Any], match: str
) -> None:
    base = based(tmp_path / "base")
    with pytest.raises(WeightsError, match=match) as no:
        convert(adapter(tmp_path / "a", values, **config), tmp_path / "out", base=base)
    assert len(str(no.value)) < 500 and not (tmp_path / "out").exists()


def test_the_base_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = adapter(tmp_path / "a", updates())
    with pytest.raises(WeightsError, match=r"does not name their base.*--base WEIGHTS"):
        read_weights(folder)
    for named in ("nobody/nothing", "./nowhere"):
        config = {**CONFIG, "base_model_name_or_path": named}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(VitralError, match=r"The base of .*--base WEIGHTS"):
            read_weights(folder)
    base = based(tmp_path / "base")
    with pytest.raises(UsageError, match="--base is for the low-rank updates"):
        read_weights(base, base=base)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match=r"LoRA updates alone.*--base"):
        read_weights(folder)
