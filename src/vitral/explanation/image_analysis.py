"""Explain the answer for an image: the patches it needs, where the model attended, and a test.

for explanation in explain(model, images, classes=card.classes):
    explanation.save("explained")
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.engines.base import Engine
from vitral.errors import UsageError
from vitral.explanation.attention import normalised_map, readout, rollout, to_patches
from vitral.explanation.faithfulness import faithfulness
from vitral.explanation.figures import details
from vitral.explanation.findings import Faithfulness, Findings, Internals, Numbers
from vitral.explanation.integrated_gradients import integrated_gradients
from vitral.explanation.logit_lens import logit_lens, norms_and_cosines
from vitral.explanation.occlusion import occlusion
from vitral.explanation.relevance import relevance
from vitral.explanation.request import ExplainRequest
from vitral.explanation.save import save as save_findings
from vitral.model import ViT
from vitral.specs import ImageSpec, ModelSpec

_MAX_ATTENTION = 1 << 26  # attention values of one forward and backward pass
_MAX_IMAGES = 16  # of one forward and backward pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation(Findings):
    """One image through one model: what was found, with the ways to look at it and to keep it."""

    def overlay_png(self) -> bytes:
        """Encode the picture under its heatmap, as PNG, large enough for the grid lines."""
        return details.overlay_png(self, self.heatmap)

    def save(self, path: str | Path) -> Path:
        """Write the figures and numbers; returns `path`.

        A name ending in .png or .svg is the overview alone. Any other name is a folder, made if
        need be, that gets everything `save.contents` lists: overview, overlay, patches, wall,
        rollout, occlusion, relevance, lens, tokens.json and attention.npz.
        Raises UsageError for another kind of picture, MachineError when it cannot be written.
        """
        save_findings(self, Path(path))
        return Path(path)


def explain(
    model: ViT,
    images: Tensor,
    image_spec: ImageSpec | None = None,
    classes: Sequence[str] = (),
    request: ExplainRequest | None = None,
    *,
    logits: Tensor | None = None,
    engine: Engine | None = None,
) -> list[Explanation]:
    """Explain each image: which patches the answer needs, and is that so.

    Computed in float32 (masked images in the engine's precision), in parts that bound the memory;
    the network's mode and gradients stay as they were.

    Args:
        model: a vision transformer, a hybrid, or a ResNet (BiT), whose patches are the cells of
            its last map and which keeps no details; it is used in evaluation mode.
        images: float (B, C, H, W), normalised as the model expects them, of any size it takes.
        image_spec: how they were normalised, to show them as pictures again; default ImageSpec().
        classes: K names; "class 0", "class 1", ... without.
        request: which method, class and token; default ExplainRequest().
        logits: float (B, K) that the images were answered by, which another precision or engine
            may have computed: the probabilities shown and the class explained follow from them.
            Default: the network's own.
        engine: computes masked images of the network's own size in its place, since most of the
            time goes there.

    Raises ModelError for what the network has not (attention, a class token, a head), UsageError
    for a class, layer, head or patch that does not exist.
    """
    spec = model.spec
    names = tuple(classes) or tuple(f"class {i}" for i in range(spec.classes))
    if len(names) != spec.classes:
        raise UsageError(
            f"The model has {spec.classes} classes, but {len(names)} names were given."
        )
    spec.check_images(images.shape, any_size=True)
    if not len(images):
        return []
    grid = spec.grid_at((images.shape[2], images.shape[3]))
    resolved = (request or ExplainRequest()).resolve(spec, grid, names)
    resolved = replace(resolved, details=resolved.details and spec.depth > 0)
    values = spec.depth * spec.heads * (grid[0] * grid[1] + spec.prefix) ** 2
    # a ResNet's maps, kept for its gradient, are large: one image at a time
    count = min(_MAX_IMAGES, max(1, _MAX_ATTENTION // values)) if values else 1
    normalised = image_spec or ImageSpec()
    parts = images.split(count)
    answered = [None] * len(parts) if logits is None else logits.to(images.device).split(count)
    scorer = None if engine is None or tuple(images.shape[2:]) != spec.size else _scorer(engine)
    with evaluating(model), torch.autocast(images.device.type, enabled=False):
        return [
            one
            for part, given in zip(parts, answered, strict=True)
            for one in _explain_part(model, part, given, normalised, names, resolved, scorer)
        ]


def _scorer(engine: Engine) -> Callable[[Tensor], Tensor]:
    """The logits of an engine as tensors."""
    return lambda images: torch.from_numpy(engine.logits(images))


def _explain_part(
    model: ViT,
    images: Tensor,
    answered: Tensor | None,
    image_spec: ImageSpec,
    names: tuple[str, ...],
    request: ExplainRequest,
    scorer: Callable[[Tensor], Tensor] | None,
) -> Iterator[Explanation]:
    spec = model.spec
    grid = spec.grid_at((images.shape[2], images.shape[3]))
    seen = _seen(model, images, answered, names, request)
    weights = seen.weights
    relevances = seen.relevances
    targets = seen.targets
    occlusions = None
    if relevances is not None and (request.details or request.method == "occlusion"):
        occlusions = occlusion(model, images, targets, relevances, request, scorer)
    match request.method:
        case "occlusion" if occlusions is not None:
            heatmaps = occlusions
        case "relevance" if relevances is not None:
            heatmaps = relevances
        case "gradient":
            amounts = integrated_gradients(model, images, targets, grid).clamp(min=0)
            heatmaps = normalised_map(amounts.flatten(1), grid, 0)
        case _:
            heatmaps = _attention_heatmaps(spec, grid, weights, request)
    tests: Sequence[Faithfulness | None] = [None] * len(images)
    if request.steps and spec.classes:
        tests = faithfulness(model, images, heatmaps, targets, request, scorer)
    internals: Sequence[Internals | None] = [None] * len(images)
    if request.details:
        internals = _internals(model, images, weights, occlusions, relevances, request)
    pictures = as_pictures(images, image_spec)
    probabilities = request.task.probabilities(seen.answered[:, : spec.classes].float().cpu())
    for i, picture in enumerate(pictures):
        yield Explanation(
            picture=picture,
            grid=grid,
            prefix=_prefix(spec),
            method=request.method or "occlusion",
            query=request.query,
            layer=(request.layer or spec.depth) if request.method == "attention" else None,
            head=request.head,
            target=names[int(targets[i])] if names else None,
            heatmap=_numbers(heatmaps[i]),
            probabilities=probabilities[i],
            classes=names,
            faithfulness=tests[i],
            internals=internals[i],
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at images: what they were answered, the classes to explain, and attention.

    Attributes:
        answered: (B, classes); targets: int64 (B,).
        weights: attention of each block; [] where nobody asks for it.
        relevances: (B, rows, columns), where they were asked for.
    """

    answered: Tensor
    targets: Tensor
    weights: list[Tensor]
    relevances: Tensor | None = None


def _seen(
    model: ViT,
    images: Tensor,
    answered: Tensor | None,
    names: tuple[str, ...],
    request: ExplainRequest,
) -> _Seen:
    spec = model.spec
    if request.method == "gradient" and not request.details:  # in as few passes as can be
        if answered is None:
            with torch.no_grad():
                answered = model(images, any_size=True)
        return _Seen(answered, _targets(answered, names, request), [])
    of_class = request.method in ("occlusion", "relevance")
    needs_gradient = bool(spec.classes) and (request.details or of_class)
    # the images ask for a gradient, since no parameter may: of a frozen network there is one, too
    with torch.set_grad_enabled(needs_gradient):
        inputs = images.detach().clone().requires_grad_(needs_gradient)
        logits, weights = model.forward_with_attention(inputs, any_size=True)
        answered = logits.detach() if answered is None else answered
        targets = _targets(answered, names, request)
        relevances = None
        if needs_gradient:
            grid = spec.grid_at((images.shape[2], images.shape[3]))
            read = readout(spec, grid, weights, None)
            per_token = relevance(spec, logits, weights, targets, read)
            relevances = normalised_map(per_token, grid, spec.prefix)
    return _Seen(answered, targets, [block.detach() for block in weights], relevances)


def _attention_heatmaps(
    spec: ModelSpec, grid: tuple[int, int], weights: list[Tensor], request: ExplainRequest
) -> Tensor:
    """The maps of the methods that need no gradient, (B, rows, columns)."""
    read = readout(spec, grid, weights, request.query)
    blocks = weights[: spec.depth]
    if request.method == "rollout":
        return to_patches(rollout(blocks), read, grid, spec.prefix)
    heads = blocks[(request.layer or spec.depth) - 1]
    chosen = heads.mean(dim=1) if request.head is None else heads[:, request.head - 1]
    return to_patches(chosen, read, grid, spec.prefix)


def _internals(
    model: ViT,
    images: Tensor,
    weights: list[Tensor],
    occlusions: Tensor | None,
    relevances: Tensor | None,
    request: ExplainRequest,
) -> list[Internals]:
    spec = model.spec
    grid = spec.grid_at((images.shape[2], images.shape[3]))
    layer = request.layer or spec.depth
    read = readout(spec, grid, weights, request.query)
    blocks = weights[: spec.depth]
    rolled = rollout(blocks)
    no_residual = rollout(blocks, residual=False)
    rolled_maps = to_patches(rolled, read, grid, spec.prefix)
    no_residual_maps = to_patches(no_residual, read, grid, spec.prefix)
    attention_maps = to_patches(torch.stack(blocks, dim=1), read, grid, spec.prefix)
    with torch.no_grad():
        entered = model.features(images, range(spec.depth + 1), any_size=True)
    norms, cosines = norms_and_cosines(model, entered, layer)
    layer_logits = logit_lens(model, entered)[..., : spec.classes]
    return [
        Internals(
            attention=np.stack([_numbers(block[i]) for block in blocks]),
            rollout=_numbers(rolled[i]),
            rollout_no_residual=_numbers(no_residual[i]),
            rollout_heatmap=_numbers(rolled_maps[i]),
            rollout_no_residual_heatmap=_numbers(no_residual_maps[i]),
            occlusion=None if occlusions is None else _numbers(occlusions[i]),
            relevance=None if relevances is None else _numbers(relevances[i]),
            attention_maps=_numbers(attention_maps[i]),
            layer_logits=_numbers(layer_logits[i]),
            layer_probabilities=request.task.probabilities(_numbers(layer_logits[i])),
            norms=_numbers(norms[i]),
            cosines=_numbers(cosines[i]),
            layer=layer,
        )
        for i in range(len(images))
    ]


def _targets(logits: Tensor, names: tuple[str, ...], request: ExplainRequest) -> Tensor:
    """The class to explain in each image, int64 (B,)."""
    if request.target is None:
        return logits.argmax(dim=1)
    return torch.full((len(logits),), names.index(request.target), device=logits.device)


def _prefix(spec: ModelSpec) -> tuple[str, ...]:
    names = ["class token"] if spec.class_token else []
    names += ["distillation token"] if spec.distillation_token else []
    return (*names, *(f"register {i + 1}" for i in range(spec.registers)))


def _numbers(tensor: Tensor) -> Numbers:
    values: Numbers = tensor.detach().float().cpu().numpy()
    return values


@contextlib.contextmanager
def evaluating(model: ViT) -> Iterator[None]:
    """Put a network into evaluation mode, and back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def as_pictures(images: Tensor, image_spec: ImageSpec) -> NDArray[np.uint8]:
    """Undo the normalisation of (B, C, H, W): uint8 (B, H, W, 3) pictures; C is 1 or 3."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
        for values in (image_spec.mean, image_spec.std)
    )
    pixels = (images.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    pictures: NDArray[np.uint8] = pixels.round().byte().permute(0, 2, 3, 1).numpy()
    return pictures[..., :3] if pictures.shape[-1] >= 3 else pictures[..., :1].repeat(3, axis=-1)
