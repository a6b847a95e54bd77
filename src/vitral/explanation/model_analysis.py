"""What a model is, before it sees a picture, and how it looks at many: figures 6, 7, 10 and 11.

    explain_model(model, Path("figures"), batches, image_spec=card.images)

Filters and positions are read from the weights; attention distance and mean rollout need images,
which are streamed: the attention of one block for a few images is all that is ever held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vitral.errors import DataError, ModelError
from vitral.explanation.attention import attention_distance, looked, patches_only, rollout
from vitral.explanation.explain import as_pictures
from vitral.explanation.figures import model as model_figures
from vitral.model import position_context
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
_SHORT = 4096  # values that model.json holds as well
_SHOWN = 6  # pictures of the rollout figure
_HELD = 1 << 26  # values of one block's attention held at once: 256 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Looking:
    """How a model looks at images, on average.

    Attributes:
        images: how many there were.
        distances: (blocks, heads) float64, mean attention distance in pixels (figures 7 right, 11).
        uniform: the distance, in pixels, if every patch attended to all patches alike.
        rollout, plain: (N, N) float64, the mean over the images of attention rollout with the
            residual and without it; every row sums to 1.
        shown: (n, C, H, W), the first images, normalised.
        maps: (n, 2, rows, columns), where their rollout with and without the residual leads from
            the output; each sums to 1.
    """

    images: int
    distances: Array = field(repr=False)
    uniform: float
    rollout: Array = field(repr=False)
    plain: Array = field(repr=False)
    shown: Tensor = field(repr=False)
    maps: Array = field(repr=False)


def patch_filters(model: nn.Module, count: int = 28) -> tuple[Array, Array]:
    """The first principal components of the filters that see pixels (figure 7 left of the paper).

    PCA over the D filters of the patch projection. A hybrid or BiT projects maps of its ResNet,
    which have no colours: there it is the filters of the root convolution, as they are applied.

    Returns (count, rows, columns, channels) components of length 1, and the share of the variance
    that each explains, (count,); fewer than `count` where there are fewer.
    """
    network: Any = model
    of_stem = network.spec.resnet is not None
    with torch.no_grad():
        weight = network.stem.root.standardised() if of_stem else network.patches.weight
    filters = weight.detach().double().cpu().permute(0, 2, 3, 1).numpy()  # d c h w -> d h w c
    flat = filters.reshape(len(filters), -1)
    _, lengths, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes = axes * np.where(largest < 0, -1, 1)  # a component has no sign of its own
    shares = lengths**2 / max(float((lengths**2).sum()), np.finfo(float).tiny)
    return axes[:count].reshape(-1, *filters.shape[1:]), shares[:count]


def position_similarity(model: nn.Module) -> Array:
    """Cosine similarity of every two patches' positions (figures 7 centre and 10 of the paper).

    Learned and fixed tables as they are added to the patches; of one table per block, the first;
    of rotations the vectors (cos, sin) of their angles, so the mean cosine of the angle between.

    Returns (rows, columns, rows, columns) float64 in [-1, 1]: tile [r, c] is that patch's map.
    Raises ModelError where a patch has no position to compare.
    """
    network: Any = model
    spec: ModelSpec = network.spec
    like = next(model.parameters()).detach()
    if reason := _without_positions(spec):
        raise ModelError(reason)
    with torch.no_grad():
        if spec.positions == "rope2d":
            context = position_context(spec, spec.grid, like)
            assert context is not None
            assert context.cos_sin is not None
            table = context.cos_sin.transpose(0, 1).flatten(1)  # (2, N, d) -> (N, 2 d)
        else:
            table = network.positions(spec.grid, like)[0, network.spec.prefix :]
        unit = F.normalize(table.double().cpu(), dim=1)
    return (unit @ unit.T).clamp(-1, 1).numpy().reshape(*spec.grid, *spec.grid)


def looking(
    model: nn.Module, batches: Iterable[Tensor], progress: Callable[[int], None] | None = None
) -> Looking:
    """Attention distance per head and rollout, averaged over images.

    Args:
        model: a vision transformer, or a hybrid with one; it is used in evaluation mode.
        batches: float (B, C, H, W) each, normalised, of the model's size.
        progress: told the number of images done so far.

    The class token and the like are left out of the distances, their share spread over the patches
    (`patches_only`); the pixels of a hybrid's patch are those of the image that it stands for.
    Raises ModelError for a network without attention, DataError without any image.
    """
    network: Any = model
    spec: ModelSpec = network.spec
    if spec.depth == 0:
        raise ModelError(_NO_ATTENTION)
    sums: dict[str, Any] = dict.fromkeys(("distances", "rollout", "plain"), 0.0)
    shown: list[Tensor] = []
    maps: list[Tensor] = []
    done, training = 0, model.training
    device = next(model.parameters()).device
    few = max(1, _HELD // (spec.heads * spec.tokens**2))
    model.eval()
    try:
        for images in (part for batch in batches for part in batch.split(few)):
            distances, rolled = _looked(model, images.to(device))
            sums["distances"] += len(images) * distances
            for name, product in zip(("rollout", "plain"), rolled, strict=True):
                sums[name] += product.double().sum(dim=0).cpu()
            if done < _SHOWN:
                # a "map" head weighs the patches by a probe of its own; their mean stands in for it
                read = rolled[0].new_zeros(rolled[0].shape[:2])
                prefix = network.spec.prefix
                first = 1 + spec.distillation_token
                tokens = slice(first) if spec.pool == "cls" else slice(prefix, None)
                read[:, tokens] = 1
                both = [looked(product, read, spec.grid, prefix) for product in rolled]
                shown.append(images[: _SHOWN - done].cpu())
                maps.append(torch.stack(both, dim=1)[: _SHOWN - done].cpu())
            done += len(images)
            if progress is not None:
                progress(done)
    finally:
        model.train(training)
    if not done:
        raise DataError("There is no image to measure attention on; give at least one.")
    return Looking(
        images=done,
        **{name: (total / done).numpy() for name, total in sums.items()},
        uniform=uniform_distance(spec.grid, spec.stride),
        shown=torch.cat(shown),
        maps=torch.cat(maps).numpy(),
    )


def uniform_distance(grid: tuple[int, int], stride: tuple[int, int]) -> float:
    """Mean distance in pixels of attention that is the same everywhere: 116.49 for 14×14 of 16."""
    count = grid[0] * grid[1]
    return float(_distance(torch.full((1, 1, count, count), 1 / count), grid, stride))


def explain_model(
    model: nn.Module,
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
        progress: told the number of images done so far.

    Raises DataError when batches hold no image, MachineError when a file cannot be written.
    """
    network: Any = model
    spec: ModelSpec = network.spec
    components, shares = patch_filters(model)
    arrays: dict[str, Array] = {"filters": components, "explained_variance": shares}
    told: dict[str, Any] = {"model": spec.name, "filters_of": _filters_of(spec)}
    drawn = {"filters": model_figures.filters(components, shares, _filters_of(spec))}
    if reason := _without_positions(spec):
        told["positions"] = reason
    else:
        arrays["positions"] = position_similarity(model)
        drawn["positions"] = model_figures.positions(arrays["positions"])
    if spec.depth == 0:
        told["attention_distance"] = told["rollout"] = _NO_ATTENTION
    elif batches is None:
        told["attention_distance"] = told["rollout"] = "left out: no images were given"
    else:
        found = looking(model, batches, progress)
        arrays |= {"attention_distance": found.distances, "rollout": found.rollout}
        arrays |= {"rollout_without_residual": found.plain, "maps": found.maps}
        told |= {"images": found.images, "uniform_attention_distance": found.uniform}
        drawn["attention_distance"] = model_figures.distances(
            found.distances, found.uniform, found.images
        )
        drawn["rollout"] = model_figures.rollouts(as_pictures(found.shown, image_spec), found.maps)
    written = [
        path for name, draw in drawn.items() for path in model_figures.save(out / name, draw)
    ]
    return [*written, *_write_numbers(out, told, arrays)]


def _write_numbers(out: Path, told: dict[str, Any], arrays: dict[str, Array]) -> list[Path]:
    """model.npz, and model.json that says what is in it; short arrays stand there as well."""
    for name, array in arrays.items():
        told[name] = {"shape": list(array.shape), "meaning": _MEANINGS[name]}
        if array.size <= _SHORT:
            told[name]["values"] = array.tolist()

    files.write_arrays(out / "model.npz", arrays)
    files.write_text(out / "model.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return [out / "model.npz", out / "model.json"]


def _looked(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(blocks, heads) mean distances of some images, and their two (B, N, N) rollouts.

    Block by block, so that the attention of one is held at a time.
    """
    network: Any = model
    spec: ModelSpec = network.spec
    distances: list[Tensor] = []
    products: list[Tensor | None] = [None, None]
    with torch.no_grad():
        seen = network.features(images, range(spec.depth))
        context = position_context(spec, seen.grid, seen.patches)
        for index, block in enumerate(network.blocks):
            weights = block.attention.weights(block.norm1(seen.per_block[index]), context).float()
            among = patches_only(weights, network.spec.prefix)
            distances.append(_distance(among, seen.grid, spec.stride).cpu())
            for i, residual in enumerate((True, False)):
                step, before = rollout([weights], residual), products[i]
                products[i] = step if before is None else step @ before
    return torch.stack(distances), [product for product in products if product is not None]


def _distance(weights: Tensor, grid: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """(heads,) mean distances in pixels of (B, heads, N, N) attention among patches."""
    sides: Any = torch.tensor(stride, device=weights.device)  # a patch need not be square
    return attention_distance(weights, grid, sides)


def _filters_of(spec: ModelSpec) -> str:
    """Whose filters `patch_filters` takes."""
    if spec.resnet is not None:
        return f"the {spec.resnet.width} filters of the root convolution"
    return f"the {spec.width} filters of the patch projection"


def _without_positions(spec: ModelSpec) -> str:
    """Why there is no similarity of positions to show; empty where there is."""
    match spec.positions:
        case "none":
            return f"{spec.name} has no position embeddings, so there is no similarity to show."
        case "relative":
            return (
                f"{spec.name} has relative positions: keys per offset inside attention, and no "
                f"embedding of a place that could be compared."
            )
        case _:
            return ""
