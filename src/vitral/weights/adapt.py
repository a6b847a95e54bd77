"""The first weights of a fine-tune: other classes, another size, patch or number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from torch import Tensor

from vitral.errors import SpecError
from vitral.model.patches import resample_patches
from vitral.model.positions import position_context
from vitral.specs import ModelSpec
from vitral.weights import artifact
from vitral.weights.known_classes import KnownClasses
from vitral.weights.read import Weights

# what a fine-tune may change of the network that it starts from
FREE = (
    "name",
    "size",
    "channels",
    "patch",
    "classes",
    "representation",
    "pool",
    "pool_norm",
    "pool_blocks",
)


def adapt(
    weights: Weights, spec: ModelSpec, classes: Sequence[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the state dict of `spec` that continues `weights`, and a line for each change.

    - Heads: rows of classes that the weights know by name are kept, others are zero. Of weights
      with a pre-logits layer that `spec` lacks all are: it is dropped (Dosovitskiy et al., section
      3.2), and what their rows read with it.
    - Positions: the grid is resized by the rule of the weights' format (spec.resample).
    - Patches: the projection is resampled by the pseudo-inverse of FlexiViT (section 3.4).
    - Channels: of the first convolution, summed into one, or repeated and scaled.

    Raises SpecError where `spec` is another architecture, ModelError for positions that cannot be
    resized.
    """
    old = weights.card.model
    notes: list[str] = []
    _check_same(old, spec)
    tensors = {name: x.clone() for name, x in weights.tensors.items()}
    if old.patch_norms and (spec.patch, spec.channels) != (old.patch, old.channels):
        raise SpecError(
            f"{old.name} norms the {old.channels} x {_by(old.patch)} values of a patch before it "
            f"projects them; another patch or number of channels has no such norm."
        )
    if spec.channels != old.channels:
        name = "patches.weight" if spec.resnet is None else "stem.root.weight"
        tensors[name] = _channels(tensors[name], spec.channels)
        notes.append(f"the first layer reads {spec.channels} channels instead of {old.channels}")
    if spec.patch != old.patch:
        tensors["patches.weight"] = resample_patches(tensors["patches.weight"], spec.patch)
        notes.append(
            f"patches of {_by(old.patch)} became {_by(spec.patch)} (FlexiViT's resampling)"
        )
    if spec.grid != old.grid:
        position_context(old, spec.grid, next(iter(tensors.values())))  # raises if nothing can move
    tables = None if spec.grid == old.grid else artifact.network(weights.tensors, old).positions
    if tables is not None:
        moved = {
            f"positions.{name}": x.detach().clone() for name, x in tables.on(spec.grid).items()
        }
        tensors |= moved
        change = f"{_by(old.grid)} patches became {_by(spec.grid)}"
        if moved:
            notes.append(f"positions of {change}, resized by {spec.resample}'s rule")
    notes += _heads(tensors, weights, spec, classes)
    artifact.check(tensors, spec, Path(spec.name))
    return tensors, tuple(notes)


def _check_same(old: ModelSpec, new: ModelSpec) -> None:
    for field in fields(ModelSpec):
        before = getattr(old, field.name)
        after = getattr(new, field.name)
        if field.name not in FREE and before != after:
            raise SpecError(
                f"The weights are of another architecture: {field.name} is {before!r} there and "
                f"{after!r} here. Leave --model out: the weights bring their model (vitral convert "
                f"--set model.NAME=VALUE says what a file of tensors does not)."
            )


def _channels(kernel: Tensor, channels: int) -> Tensor:
    """The first convolution for other channels, so that a grey image gives the same patches."""
    inputs = kernel.shape[1]
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    repeated = kernel.repeat(1, -(-channels // inputs), 1, 1)[:, :channels]
    return repeated * (inputs / channels)


def _heads(
    tensors: dict[str, Tensor], weights: Weights, spec: ModelSpec, classes: Sequence[str]
) -> list[str]:
    """Heads for these classes, in place; what was done, a line each."""
    old = weights.card
    notes = []
    if old.model.representation and not spec.representation:
        for name in [name for name in tensors if name.startswith("pre_logits.")]:
            del tensors[name]
        notes.append("the pre-logits layer was left behind, as the paper fine-tunes")
    heads = ["head", "distillation_head"] if spec.distillation_token else ["head"]
    known = kept_rows(weights, spec, classes)
    like = next(iter(tensors.values()))
    rows = [row for row, place in enumerate(known.places) if place >= 0]
    places = [place for place in known.places if place >= 0]
    for head in heads:
        for part in ("weight", "bias"):
            width = [spec.representation or spec.pooled_width] if part == "weight" else []
            tensor = like.new_zeros(spec.classes, *width)
            if rows:
                tensor[rows] = tensors[f"{head}.{part}"][places]
            tensors[f"{head}.{part}"] = tensor
    if rows:
        return notes
    had = f"{len(old.classes)} others" if old.classes else "none"
    notes.append(f"a new head of zeros for {spec.classes} classes (the weights had {had})")
    return notes


def kept_rows(weights: Weights, spec: ModelSpec, classes: Sequence[str]) -> KnownClasses:
    """Match the classes by name; none where the head of `spec` reads something else, or is empty.

    What is done with the others is not decided here: they are zero.
    """
    old = weights.card.model
    known = KnownClasses.of(weights, classes)
    reads_the_same = (old.pooled_width, old.representation) == (
        spec.pooled_width,
        spec.representation,
    )
    if reads_the_same and old.classes and bool(weights.tensors["head.weight"].any()):
        return known
    return replace(known, places=(-1,) * len(known.classes))


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
