"""The model's own figures (6, 7, 10 and 11 of the paper): filters, positions, attention.

    explain_model(model, Path("figures"), batches, image_spec=card.images)

Filters and positions are read from the weights; attention distance and mean rollout need images,
which are streamed: the attention of one block for a few images is all that is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitral.errors import DataError, ModelError
from vitral.explanation.attention import (
    attention_distance,
    patches_only,
    read_tokens,
    rollout,
    to_patches,
)
from vitral.explanation.figures import model as model_figures
from vitral.explanation.image_analysis import as_pictures, evaluating
from vitral.model import ViT
from vitral.model.layers import Block
from vitral.model.positions import position_context
from vitral.model.resnet import ResNet
from vitral.specs import ImageSpec, ModelSpec
from vitral.storage import files

Array = NDArray[Any]

_NO_ATTENTION = (
    "A ResNet without a transformer has no attention; its filters are all there is to show."
)
_MEANINGS = {
    "filters": "principal components of the filters: (component, row, column, channel)",
    "explained_variance": "share of the variance of each component",
    "positions": "cosine similarity of the positions of two patches: (row, column, row, column)",
    "attention_distance": "mean attention distance in pixels: (block, head)",
    "rollout": "mean attention rollout with the residual: (output token, input token)",
    "rollout_without_residual": "the same without the residual: (output token, input token)",
    "maps": "rollout of the pictures shown: (picture, with or without residual, row, column)",
}
_MAX_JSON = 4096  # values of an array that model.json holds as well
_EXAMPLES = 6  # images of the rollout figure
_MAX_ATTENTION = 1 << 26  # values of one block's attention held at once: 256 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionStatistics:
    """Averages of a model's attention over images.

    Attributes:
        images: how many there were.
        distances: (blocks, heads) float64, mean attention distance in pixels (figures 7 right, 11).
        uniform_distance: in pixels, if every patch attended to all patches alike.
        rollout: (N, N) float64, the mean over the images of attention rollout; rows sum to 1.
        rollout_no_residual: (N, N) float64, the same without the skip connections.
        examples: (n, C, H, W), the first images, normalised.
        maps: (n, 2, rows, columns), where their rollout with and without the residual leads from
            the output; each sums to 1.
    """

    images: int
    distances: Array = field(repr=False)
    uniform_distance: float
    rollout: Array = field(repr=False)
    rollout_no_residual: Array = field(repr=False)
    examples: Tensor = field(repr=False)
    maps: Array = field(repr=False)


def patch_filters(model: ViT, count: int = 28) -> tuple[Array, Array]:
    """Find the principal components of the filters that see pixels (figure 7 left of the paper).

    PCA over the D filters of the patch projection. A hybrid or BiT projects maps of its ResNet,
    which have no colours: there it is the filters of the root convolution, as they are applied.

    Returns (count, rows, columns, channels) components of length 1, and the share of the variance
    that each explains, (count,); fewer than `count` where there are fewer.
    """
    if isinstance(model.stem, ResNet):
        weight = model.stem.root.standardised()
    else:
        weight = model.get_parameter("patches.weight")
    filters = weight.detach().double().cpu().permute(0, 2, 3, 1).numpy()  # d c h w -> d h w c
    flat = filters.reshape(len(filters), -1)
    _, scales, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes = axes * np.where(largest < 0, -1, 1)  # a component has no sign of its own
    shares = scales**2 / max(float((scales**2).sum()), np.finfo(float).tiny)
    return axes[:count].reshape(-1, *filters.shape[1:]), shares[:count]


def position_similarity(model: ViT) -> Array:
    """Compare every two patches' positions by cosine (figures 7 centre and 10 of the paper).

    Learned and fixed tables as they are added to the patches; of one table per block, the first;
    of rotations the vectors (cos, sin) of their angles, so the mean cosine of the angle between.

    Returns (rows, columns, rows, columns) float64 in [-1, 1]: tile [r, c] is that patch's map.
    Raises ModelError where a patch has no position to compare.
    """
    spec = model.spec
    like = next(model.parameters()).detach()
    if reason := _without_positions(spec):
        raise ModelError(reason)
    with torch.no_grad():
        if model.positions is not None:
            table = model.positions(spec.grid, like)[0, spec.prefix :]
        else:
            context = position_context(spec, spec.grid, like)
            assert context is not None
            assert context.cos_sin is not None
            table = context.cos_sin.transpose(0, 1).flatten(1)  # (2, N, d) -> (N, 2 d)
        unit = F.normalize(table.double().cpu(), dim=1)
    return (unit @ unit.T).clamp(-1, 1).numpy().reshape(*spec.grid, *spec.grid)


def attention_statistics(
    model: ViT, batches: Iterable[Tensor], progress: Callable[[int], None] | None = None
) -> AttentionStatistics:
    """Average attention distance per head, and rollout, over images.

    Args:
        model: a vision transformer, or a hybrid with one; it is used in evaluation mode.
        batches: float (B, C, H, W) each, normalised, of the model's size.
        progress: called with the number of images done so far.

    The class token and the like are left out of the distances, their share spread over the patches
    (`patches_only`); the pixels of a hybrid's patch are those of the image that it stands for.
    Raises ModelError for a network without attention, DataError without any image.
    """
    spec = model.spec
    if spec.depth == 0:
        raise ModelError(_NO_ATTENTION)
    distances = torch.zeros(spec.depth, spec.heads, dtype=torch.float64)
    rollouts = torch.zeros(2, spec.tokens, spec.tokens, dtype=torch.float64)
    examples: list[Tensor] = []
    maps: list[Tensor] = []
    done = 0
    device = next(model.parameters()).device
    count = max(1, _MAX_ATTENTION // (spec.heads * spec.tokens**2))
    with evaluating(model):
        for images in (part for batch in batches for part in batch.split(count)):
            pixels, products = _attend(model, images.to(device))
            distances += len(images) * pixels
            rollouts += products.double().sum(dim=0).cpu()
            if done < _EXAMPLES:
                read = read_tokens(spec, products[:, 0, 0])
                heatmaps = to_patches(products, read, spec.grid, spec.prefix)
                examples.append(images[: _EXAMPLES - done].cpu())
                maps.append(heatmaps[: _EXAMPLES - done].cpu())
            done += len(images)
            if progress is not None:
                progress(done)
    if not done:
        raise DataError("There is no image to measure attention on; give at least one.")
    return AttentionStatistics(
        images=done,
        distances=(distances / done).numpy(),
        uniform_distance=uniform_distance(spec.grid, spec.stride),
        rollout=(rollouts[0] / done).numpy(),
        rollout_no_residual=(rollouts[1] / done).numpy(),
        examples=torch.cat(examples),
        maps=torch.cat(maps).numpy(),
    )


def uniform_distance(grid: tuple[int, int], patch: tuple[int, int]) -> float:
    """Average the distance of attention that is the same everywhere: 116.49 for 14×14 of 16.

    Args:
        grid: (rows, columns) of patches.
        patch: (height, width) of a patch in pixels.
    """
    count = grid[0] * grid[1]
    return float(attention_distance(torch.full((1, 1, count, count), 1 / count), grid, patch))


def explain_model(
    model: ViT,
    out: Path,
    batches: Iterable[Tensor] | None,
    *,
    image_spec: ImageSpec,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write the model's own figures as .png and .svg, and their numbers; returns what was written.

    filters, positions and, from images, attention_distance and rollout; model.npz holds the
    numbers, model.json their shapes and meaning, and why a figure was left out.

    Args:
        model: a vision transformer, a hybrid, or BiT, whose filters are all there is.
        out: the folder, made if need be.
        batches: float (B, C, H, W), normalised as `image_spec` says; None: what needs no image.
        image_spec: to show the images as pictures again.
        progress: called with the number of images done so far.

    Raises DataError when batches hold no image, MachineError when a file cannot be written.
    """
    spec = model.spec
    components, shares = patch_filters(model)
    arrays: dict[str, Array] = {"filters": components, "explained_variance": shares}
    facts: dict[str, Any] = {"model": spec.name, "filters_of": _filters_of(spec)}
    drawn = {"filters": model_figures.filters(components, shares, _filters_of(spec))}
    if reason := _without_positions(spec):
        facts["positions"] = reason
    else:
        arrays["positions"] = position_similarity(model)
        drawn["positions"] = model_figures.positions(arrays["positions"])
    if spec.depth == 0:
        facts["attention_distance"] = facts["rollout"] = _NO_ATTENTION
    elif batches is None:
        facts["attention_distance"] = facts["rollout"] = "left out: no images were given"
    else:
        statistics = attention_statistics(model, batches, progress)
        uniform = statistics.uniform_distance
        arrays["attention_distance"] = statistics.distances
        arrays["rollout"] = statistics.rollout
        arrays["rollout_without_residual"] = statistics.rollout_no_residual
        arrays["maps"] = statistics.maps
        facts |= {"images": statistics.images, "uniform_attention_distance": uniform}
        drawn["attention_distance"] = model_figures.distances(
            statistics.distances, uniform, statistics.images
        )
        pictures = as_pictures(statistics.examples, image_spec)
        drawn["rollout"] = model_figures.rollouts(pictures, statistics.maps)
    written = [
        path for name, draw in drawn.items() for path in model_figures.save(out / name, draw)
    ]
    return [*written, *_write_numbers(out, facts, arrays)]


def _write_numbers(out: Path, facts: dict[str, Any], arrays: dict[str, Array]) -> list[Path]:
    """Write model.npz, and model.json that says what is in it; short arrays stand there as well."""
    for name, array in arrays.items():
        facts[name] = {"shape": list(array.shape), "meaning": _MEANINGS[name]}
        if array.size <= _MAX_JSON:
            facts[name]["values"] = array.tolist()

    files.write_arrays(out / "model.npz", arrays)
    files.write_json(out / "model.json", facts)
    return [out / "model.npz", out / "model.json"]


def _attend(model: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Give (blocks, heads) mean distances, and (B, 2, N, N) rollouts with the residual and without.

    Block by block, so that the attention of one is held at a time.
    """
    spec = model.spec
    distances = []
    products = None
    with torch.no_grad():
        features = model.features(images, range(spec.depth))
        context = position_context(spec, features.grid, features.patches)
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            entered = block.norm1(features.per_block[index])
            weights = block.attention.weights(entered, context).float()
            among = patches_only(weights, spec.prefix)
            distances.append(attention_distance(among, features.grid, spec.stride).cpu())
            step = torch.stack([rollout([weights]), rollout([weights], residual=False)], dim=1)
            products = step if products is None else step @ products
    assert products is not None
    return torch.stack(distances), products


def _filters_of(spec: ModelSpec) -> str:
    """Say whose filters `patch_filters` takes."""
    if spec.resnet is not None:
        return f"the {spec.resnet.width} filters of the root convolution"
    return f"the {spec.width} filters of the patch projection"


def _without_positions(spec: ModelSpec) -> str:
    """Say why there is no similarity of positions to show; empty where there is."""
    if spec.positions == "none":
        return f"{spec.name} has no position embeddings, so there is no similarity to show."
    if spec.adds_positions or spec.positions == "rope2d":
        return ""
    return (
        f"{spec.name} has {spec.positions} positions: of pairs of tokens, inside attention, and no "
        f"embedding of a place that could be compared."
    )
