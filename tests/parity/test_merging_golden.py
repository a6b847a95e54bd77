"""Token merging is that of the authors' code: every recording of its kind that is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import store
from shared import GOLDEN
from vitral.model.merging import Matching, match, mean_of_patches
from vitral.specs import ModelSpec
from vitral.specs.merging import merge_counts
from vitral.weights import artifact
from vitral.weights.convert import convert

FILES = sorted((GOLDEN / "selfsup").glob("tome*.npz"))


@pytest.fixture(params=FILES or [None], ids=lambda path: path.stem if path else "none")
def recording(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param is None:
        pytest.skip(f"no recordings of token merging in {GOLDEN / 'selfsup'}")
    with np.load(request.param) as file:
        return {key: file[key] for key in file.files}


def tensor(recording: dict[str, Any], name: str) -> Tensor:
    return torch.from_numpy(recording[name].astype(np.float64))


def sources(matching: Matching, tokens: int, batch: int) -> Tensor:
    return matching.sums(torch.eye(tokens).expand(batch, -1, -1).double())


def test_matching(recording: dict[str, Any]) -> None:
    config = json.loads(str(recording["config"]))
    metric = tensor(recording, "metric")
    x = tensor(recording, "x")
    size = tensor(recording, "size")
    batch, tokens, _ = x.shape
    for count, class_token, distillation in config["cases"]:
        prefix = int(class_token) + int(distillation)
        case = f"r{count}_cls{int(class_token)}_dist{int(distillation)}"
        matching = match(metric, min(count, (tokens - prefix) // 2), prefix)
        source = sources(matching, tokens, batch)
        sizes = matching.sums(size)
        merged = matching.sums(x * size) / sizes
        assert torch.equal(source, tensor(recording, f"{case}:source"))
        torch.testing.assert_close(sizes, tensor(recording, f"{case}:size"), rtol=0, atol=1e-11)
        torch.testing.assert_close(merged, tensor(recording, f"{case}:x"), rtol=0, atol=1e-11)
        if not distillation:  # there the authors' way back takes the tokens in another order
            unmerged = tensor(recording, f"{case}:unmerged")
            torch.testing.assert_close(source.mT @ merged, unmerged, rtol=0, atol=1e-11)


def test_schedules(recording: dict[str, Any]) -> None:
    for key, counts in json.loads(str(recording["schedules"])).items():
        depth, r = json.loads(key)
        text = str(r) if isinstance(r, int) else f"{r[0]},{r[1]}"
        spec = ModelSpec(
            name="deep", size=(1024, 1024), patch=(8, 8), width=16, depth=depth, heads=1,
            mlp_width=16, classes=2,
        )  # fmt: skip
        assert list(merge_counts(text, spec)) == counts


def test_whole_network(recording: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads(str(recording["config"]))
    vit = config["vit"]
    names = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.", "head.")
    weights = {
        key: torch.from_numpy(value)
        for key, value in recording.items()
        if key.startswith(names) and ":" not in key
    }
    convert(
        store(tmp_path / "recorded.pth", weights),
        tmp_path / "ours",
        size=(vit["img_size"], vit["img_size"]),
        changes=[f"model.heads={vit['num_heads']}"],
    )
    values, card = artifact.load_tensors(tmp_path / "ours")
    spec = card.model
    network = artifact.network({name: x.double() for name, x in values.items()}, spec).eval()
    images = tensor(recording, "image")
    plain = network(images)
    torch.testing.assert_close(plain, tensor(recording, "logits64_plain"), rtol=0, atol=1e-11)
    for number, r in enumerate(config["r"]):
        match r:
            case int():
                network.merge = merge_counts(str(r), spec)
            case [int(), float()]:
                network.merge = merge_counts(f"{r[0]},{r[1]}", spec)
            case _:
                network.merge = tuple(r)
        expected = tensor(recording, f"vit{number}:logits64")
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-11)
    network.merge = ()
    assert torch.equal(network(images), plain)


def test_a_mean_over_merged_tokens_is_that_of_the_patches() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 16, 8, dtype=torch.float64)
    matching = match(torch.randn(3, 16, 4), 5, 0)
    ones = torch.ones(3, 16, 1, dtype=torch.float64)
    sizes = matching.sums(ones)
    merged = matching.sums(x) / sizes
    assert sizes.sum(1).eq(16).all()
    torch.testing.assert_close(mean_of_patches(merged, sizes), x.mean(1))
