"""A network of the paper written with flax's own layers: its file, converted, answers the same."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitral.weights import artifact
from vitral.weights.convert import convert

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    jax = pytest.importorskip("jax", reason="flax is an oracle that is installed by hand")
    nn = pytest.importorskip("flax.linen", reason="flax is an oracle that is installed by hand")
    jnp = jax.numpy

pytestmark = pytest.mark.filterwarnings("ignore")  # of threads, forks and their own deprecations

CHOICES: list[dict[str, Any]] = [
    {"pool": "cls"},
    {"pool": "mean"},
    {"pool": "cls", "representation": 20},
    {"pool": "cls", "size": (24, 40)},
]


class Mlp(nn.Module):
    width: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Dense(self.hidden)(x))  # in this order: the layers are counted as made
        return nn.Dense(self.width)(x)


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(y, y)
        y = nn.LayerNorm()(x)
        return x + Mlp(x.shape[-1], self.hidden, name="MlpBlock_0")(y)


class Positions(nn.Module):
    @nn.compact
    def __call__(self, x):
        table = self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        return x + table


class Embedded(nn.Module):
    """Positions and blocks under one name, "Transformer"."""

    @nn.compact
    def __call__(self, x):
        x = Positions(name="posembed_input")(x)
        for i in range(2):
            x = Block(4, 48, name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class Paper(nn.Module):
    """Equations 1 to 4 of the paper; the names come from flax and the layers' own."""

    pool: str = "cls"
    representation: int = 0

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(32, (8, 8), strides=(8, 8), padding="VALID", name="embedding")(images)
        x = x.reshape(len(x), -1, 32)
        if self.pool == "cls":
            token = self.param("cls", nn.initializers.zeros, (1, 1, 32))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = Embedded(name="Transformer")(x)
        x = x[:, 0] if self.pool == "cls" else x.mean(1)
        if self.representation:
            x = nn.tanh(nn.Dense(self.representation, name="pre_logits")(x))
        return nn.Dense(5, name="head")(x)


def flat(tree: Any, before: str = "") -> dict[str, Any]:
    if not hasattr(tree, "items"):
        return {before: tree}
    parts = (flat(x, f"{before}/{name}" if before else name) for name, x in tree.items())
    return {name: array for part in parts for name, array in part.items()}


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = jnp.asarray(array)
    return tree


def filled(names: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random everywhere, exact in float32, the logits of a size that matters."""
    random = np.random.default_rng(0)
    made = {}
    for name, array in names.items():
        fan = 1.0 if array.ndim < 2 else math.prod(array.shape[:-1])
        fan = array.shape[0] if "query" in name or "key" in name or "value" in name else fan
        x = random.normal(size=array.shape) * (1.2 / np.sqrt(fan) if array.ndim > 1 else 0.5)
        made[name] = (x + ("scale" in name)).astype(np.float32)
    return made


def pre_linen(name: str) -> str:
    """The names of the released files: sub-modules are counted through, 0 1 2 3."""
    name = name.replace("LayerNorm_1", "LayerNorm_2").replace("MlpBlock_0", "MlpBlock_3")
    return name.replace("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1")


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice.values())))
def test_flax_gives_the_same_logits(tmp_path: Path, choice: dict[str, Any]) -> None:
    choice = dict(choice)
    size = choice.pop("size", (32, 32))
    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    network = Paper(**choice)
    with jax.enable_x64(True):
        tree = jax.eval_shape(network.init, jax.random.PRNGKey(0), jnp.asarray(images))
        values = filled(flat(tree["params"]))
        double = nested({name: array.astype(np.float64) for name, array in values.items()})
        expected = np.array(network.apply({"params": double}, jnp.asarray(images)))
    assert expected.dtype == np.float64 and expected.std() > 0.1
    assert "Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel" in values
    assert "Transformer/encoderblock_1/LayerNorm_1/scale" in values
    released = {pre_linen(name): array for name, array in values.items()}
    assert "Transformer/encoderblock_1/MlpBlock_3/Dense_1/kernel" in released
    for names, arrays in (("linen", values), ("released", released)):
        np.savez(tmp_path / f"{names}.npz", **arrays)
        done = convert(tmp_path / f"{names}.npz", tmp_path / names, size=size)
        assert done.exact
        tensors, card = artifact.load_tensors(tmp_path / names)
        assert (card.model.heads, card.model.gelu, card.model.size) == (4, "tanh", size)
        ours = artifact.network({k: x.double() for k, x in tensors.items()}, card.model)
        with torch.inference_mode():
            answer = ours(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        assert np.abs(answer - expected).max() < 1e-10
