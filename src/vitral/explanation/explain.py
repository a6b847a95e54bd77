"""What one image looked like to the model, where the model looked, and whether that is true.

for explanation in explain(model, images, classes=card.classes):
    explanation.save("explained")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitral.drawing.pictures import Picture, overlay, png, upscale
from vitral.errors import UsageError
from vitral.explanation.attention import as_map, looked, reader, rollout
from vitral.explanation.faithfulness import Faithfulness, faithfulness
from vitral.explanation.logit_lens import lens, projections
from vitral.explanation.occlusion import occlusion
from vitral.explanation.relevance import relevance
from vitral.explanation.request import Method, Query, Question
from vitral.explanation.save import save as save_explanation
from vitral.specs import ImageSpec, ModelSpec

Numbers = NDArray[np.float32]

_SHARPEST = 448  # pixels of the shorter side from which a pane and its leading are drawn crisply
_MOST, _IMAGES = 1 << 26, 16  # attention values, and images, of one forward and backward pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Inside:
    """What happened to one image inside the network; L layers, H heads, N tokens, prefix first.

    Attributes:
        attention: (L, H, N, N), softmax rows.
        rollout, plain: (N, N), attention rollout with the residual and without; rows sum to 1.
        rollout_heat, plain_heat: (rows, columns), the same from the query; each sums to 1.
        occlusion, relevance: (rows, columns), how much hiding a patch lowers the target, and
            gradient × attention for it; each sums to 1; None without a head.
        walls: (L, H, rows, columns), attention from the query; each sums to 1.
        lens: (L + 1, K), logits after each layer; row 0 is the embedding.
        knew: (L + 1, K), their probabilities, calibrated as the answer's.
        lengths: (3, L, H, N), norms of q, k and v.
        cosines: (patches, patches), of query and key in `layer`, mean over the heads.
        layer: counted from 1.
    """

    attention: Numbers = field(repr=False)
    rollout: Numbers = field(repr=False)
    plain: Numbers = field(repr=False)
    rollout_heat: Numbers = field(repr=False)
    plain_heat: Numbers = field(repr=False)
    occlusion: Numbers | None = field(repr=False)
    relevance: Numbers | None = field(repr=False)
    walls: Numbers = field(repr=False)
    lens: Numbers = field(repr=False)
    knew: Numbers = field(repr=False)
    lengths: Numbers = field(repr=False)
    cosines: Numbers = field(repr=False)
    layer: int

    @property
    def heads(self) -> Numbers:
        """(H, rows, columns) of `layer`."""
        return self.walls[self.layer - 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """One image through one model.

    Attributes:
        path: where the image came from; "" for pixels given directly.
        picture: uint8 (H, W, 3), the image as the model received it.
        grid: (rows, columns) of patches.
        prefix: names of the tokens before the patches.
        method, query, layer, head: how `heat` was found (question.Question).
        target: the class that is explained; None for a model without a head.
        heat: (rows, columns), the map of the method; sums to 1.
        probabilities: (K,); classes: K names; empty for a model without a head.
        unsure: whether the best probability is below the threshold of the model's calibration.
        faithfulness: whether the map is true; None where it was not tested.
        inside: what happened inside the network; None where it was not kept, and of a ResNet.
    """

    path: str = ""
    picture: Picture = field(repr=False)
    grid: tuple[int, int]
    prefix: tuple[str, ...] = ()
    method: Method = "occlusion"
    query: Query | None = None
    layer: int | None = None
    head: int | None = None
    target: str | None = None
    heat: Numbers = field(repr=False)
    probabilities: Numbers = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    unsure: bool = False
    faithfulness: Faithfulness | None = field(default=None, repr=False)
    inside: Inside | None = field(default=None, repr=False)

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The most probable classes and their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def picture_png(self) -> bytes:
        """The image as the model received it, as PNG."""
        return png(self.picture)

    def overlay_png(self) -> bytes:
        """The picture as a window lit by `heat`, as PNG, large enough for its leading."""
        return png(overlay(upscale(self.picture, _SHARPEST // 2), self.heat))

    def save(self, path: str | Path) -> Path:
        """Write the figures and numbers; returns `path`.

        A name ending in .png or .svg is the overview alone. Any other name is a folder, made if
        need be, that gets everything `files.of` lists: overview, overlay, patches, wall, rollout,
        occlusion, relevance, lens, tokens.json and attention.npz.
        Raises UsageError for another kind of picture, MachineError when it cannot be written.
        """
        save_explanation(self, Path(path))
        return Path(path)


def explain(
    model: nn.Module,
    images: Tensor,
    image_spec: ImageSpec | None = None,
    classes: Sequence[str] = (),
    question: Question | None = None,
) -> list[Explanation]:
    """Explain each image: which patches the answer needs, and is that so.

    Computed in float32, in parts that bound the memory; the network's mode and gradients stay as
    they were.

    Args:
        model: a vision transformer, a hybrid, or a ResNet (BiT), whose patches are the cells of
            its last map and which keeps no details; it is used in evaluation mode.
        images: float (B, C, H, W), normalised as the model expects them, of any size it takes.
        image_spec: how they were normalised, to show them as pictures again; default ImageSpec().
        classes: K names; "class 0", "class 1", ... without.
        question: which method, class and token; default Question().

    Raises ModelError for what the network has not (attention, a class token, a head), UsageError
    for a class, layer, head or patch that does not exist.
    """
    network: Any = model  # a ViT; nn.Module knows nothing of what one offers
    spec: ModelSpec = network.spec
    names = tuple(classes) or tuple(f"class {i}" for i in range(spec.classes))
    if len(names) != spec.classes:
        raise UsageError(
            f"The model has {spec.classes} classes, but {len(names)} names were given."
        )
    spec.check_images(images.shape, any_size=True)
    if not len(images):
        return []
    grid = spec.grid_at((images.shape[2], images.shape[3]))
    asked = (question or Question()).settled(spec, grid, names)
    values = spec.depth * spec.heads * (grid[0] * grid[1] + spec.prefix) ** 2
    # a ResNet's maps, kept for its gradient, are large: one image at a time
    count = min(_IMAGES, max(1, _MOST // values)) if values else 1
    with _evaluating(model), torch.autocast(images.device.type, enabled=False):
        return [
            explanation
            for part in images.split(count)
            for explanation in _explained(model, part, image_spec or ImageSpec(), names, asked)
        ]


def _explained(
    model: nn.Module,
    images: Tensor,
    image_spec: ImageSpec,
    names: tuple[str, ...],
    asked: Question,
) -> Iterator[Explanation]:
    network: Any = model
    spec: ModelSpec = network.spec
    grid = spec.grid_at((images.shape[2], images.shape[3]))
    asked = replace(asked, details=asked.details and spec.depth > 0)
    needs = bool(spec.classes) and (asked.details or asked.method in ("occlusion", "relevance"))
    with torch.set_grad_enabled(needs):  # the images ask for a gradient where no parameter does
        ready = images.detach().clone().requires_grad_(needs)
        logits, weights = network.forward_with_attention(ready, any_size=True)
        targets = _targets(logits, names, asked)
        relevant = None
        if needs:
            read = reader(spec, grid, weights, None)
            tokens = relevance(logits, weights, targets, read, spec.depth)
            relevant = as_map(tokens, grid, spec.prefix)
    logits, weights = logits.detach(), [block.detach() for block in weights]
    occluded = None
    if relevant is not None and (asked.details or asked.method == "occlusion"):
        occluded = occlusion(model, images, targets, relevant, asked)
    maps = {"occlusion": occluded, "relevance": relevant}
    heat = maps.get(asked.method or "")
    heat = _attention_map(spec, grid, weights, asked) if heat is None else heat
    scores: Sequence[Faithfulness | None] = [None] * len(images)
    if asked.steps and spec.classes:
        scores = faithfulness(model, images, heat, targets, asked)
    insides: Sequence[Inside | None] = [None] * len(images)
    if asked.details:
        insides = _insides(model, images, weights, maps, asked)
    pictures = as_pictures(images, image_spec)
    probabilities = asked.task.probabilities(logits[:, : spec.classes]).cpu().numpy()
    for i, picture in enumerate(pictures):
        yield Explanation(
            picture=picture,
            grid=grid,
            prefix=_prefix(spec),
            method=asked.method or "occlusion",
            query=asked.query,
            layer=(asked.layer or spec.depth) if asked.method == "attention" else None,
            head=asked.head,
            target=names[int(targets[i])] if names else None,
            heat=_numbers(heat[i]),
            probabilities=probabilities[i],
            classes=names,
            faithfulness=scores[i],
            inside=insides[i],
        )


def _attention_map(
    spec: ModelSpec, grid: tuple[int, int], weights: list[Tensor], asked: Question
) -> Tensor:
    """(B, rows, columns) of the methods that need no gradient."""
    read, blocks = reader(spec, grid, weights, asked.query), weights[: spec.depth]
    if asked.method == "rollout":
        return looked(rollout(blocks), read, grid, spec.prefix)
    heads = blocks[(asked.layer or spec.depth) - 1]
    chosen = heads.mean(dim=1) if asked.head is None else heads[:, asked.head - 1]
    return looked(chosen, read, grid, spec.prefix)


def _insides(
    model: nn.Module,
    images: Tensor,
    weights: list[Tensor],
    maps: Mapping[str, Tensor | None],
    asked: Question,
) -> list[Inside]:
    network: Any = model
    spec: ModelSpec = network.spec
    grid, layer = spec.grid_at((images.shape[2], images.shape[3])), asked.layer or spec.depth
    read, blocks = reader(spec, grid, weights, asked.query), weights[: spec.depth]
    rolled, plain = rollout(blocks), rollout(blocks, residual=False)
    heats = [looked(each, read, grid, spec.prefix) for each in (rolled, plain)]
    walls = looked(torch.stack(blocks, dim=1), read, grid, spec.prefix)
    lengths, cosines = projections(model, images, layer)
    knows = lens(model, images)[..., : spec.classes]
    return [
        Inside(
            attention=np.stack([_numbers(block[i]) for block in blocks]),
            rollout=_numbers(rolled[i]),
            plain=_numbers(plain[i]),
            rollout_heat=_numbers(heats[0][i]),
            plain_heat=_numbers(heats[1][i]),
            occlusion=_numbers_of(maps["occlusion"], i),
            relevance=_numbers_of(maps["relevance"], i),
            walls=_numbers(walls[i]),
            lens=_numbers(knows[i]),
            knew=_numbers(asked.task.probabilities(knows[i])),
            lengths=_numbers(lengths[i]),
            cosines=_numbers(cosines[i]),
            layer=layer,
        )
        for i in range(len(images))
    ]


def _targets(logits: Tensor, names: tuple[str, ...], asked: Question) -> Tensor:
    """int64 (B,): the class to explain in each image."""
    if asked.target is None:
        return logits.detach().argmax(dim=1)
    return torch.full((len(logits),), names.index(asked.target), device=logits.device)


def _prefix(spec: ModelSpec) -> tuple[str, ...]:
    special = ("class token",) * spec.class_token + ("distillation token",) * (
        spec.distillation_token
    )
    return (*special, *(f"register {i + 1}" for i in range(spec.registers)))


def _numbers(tensor: Tensor) -> Numbers:
    values: Numbers = tensor.detach().float().cpu().numpy()
    return values


def _numbers_of(maps: Tensor | None, place: int) -> Numbers | None:
    return None if maps is None else _numbers(maps[place])


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def as_pictures(images: Tensor, image_spec: ImageSpec) -> NDArray[np.uint8]:
    """uint8 (B, H, W, 3) pictures from normalised float (B, C, H, W); C is 1 or 3."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
        for values in (image_spec.mean, image_spec.std)
    )
    pixels = (images.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    pictures: NDArray[np.uint8] = pixels.round().byte().permute(0, 2, 3, 1).numpy()
    return pictures[..., :3] if pictures.shape[-1] >= 3 else pictures[..., :1].repeat(3, axis=-1)
