"""Masked patch prediction: the paper's own self-supervision (appendix B.1.2 of arXiv:2010.11929).

Half of the patch embeddings are corrupted, and the network says from what is left which mean colour
the corrupted patches had. Nothing but pictures is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch, View
from vitral.errors import ModelError, SpecError
from vitral.evaluation import Prediction, Score
from vitral.evaluation.fit import Fitted
from vitral.evaluation.intervals import Z_95
from vitral.evaluation.score import Table, share_line
from vitral.images import preprocess
from vitral.images.seeds import seed_of
from vitral.model import PatchCorruption, StepSamples, ViT
from vitral.specs import ModelSpec
from vitral.training.objectives.base import Loss, Objective, Observed, StepPosition
from vitral.training.recipe import MaskedPatches, Recipe
from vitral.training.trailing import to_device

LEVELS = 8  # 3 bits for each channel
COLOURS = LEVELS**3


class MaskToken(nn.Module):
    """The learnt embedding that stands where a patch is hidden.

    A module of its own, since a sharded parameter is whole only within its module's forward.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.token, std=0.02)

    def forward(self) -> Tensor:
        """Return the embedding, (width,)."""
        return self.token


class MaskedPatchObjective(Objective):
    """Learns the mean colours of corrupted patches, without labels.

    The mask token and the layer that answers stay behind; the backbone becomes the artifact.

    Args:
        backbone: a plain ViT without a head.
        recipe: its objective is `MaskedPatches`.

    Raises SpecError for a network whose patches are not the picture's own.
    """

    def __init__(self, backbone: ViT, recipe: Recipe) -> None:
        view = View(recipe.augment, recipe.images)
        super().__init__(backbone, recipe.images, [view], recipe.precision)
        assert isinstance(recipe.objective, MaskedPatches)
        _check(backbone.spec)
        self.settings = recipe.objective
        self.seed = recipe.seed
        rows, columns = backbone.spec.grid
        self.patches = rows * columns
        self.mask_token = MaskToken(backbone.spec.width)
        self.answer = nn.Linear(backbone.spec.width, COLOURS)
        nn.init.zeros_(self.answer.weight)  # the first loss is exactly ln 512
        nn.init.zeros_(self.answer.bias)
        self.to(next(backbone.parameters()).device)

    def forward(self, batch: Batch, position: StepPosition) -> Loss:
        """Return the summed loss of the images, each the mean over its corrupted patches."""
        numbers = draw(position.samples, self.patches, self.device)
        pixels = to_device(batch.images, self.device)
        losses, right, _ = self._losses(self.backbone, pixels, numbers, position.samples)
        return Loss(losses.mean(1).sum(), {"patch_accuracy": right.mean(1).sum()})

    def observe(self, batch: Batch, backbone: ViT | None = None) -> Tensor:
        """Return each image's mean loss, its share of right patches, and its targets.

        (B, 2 + K) for K corrupted patches. Which ones are corrupted depends on the image alone, so
        that validations can be compared.
        """
        numbers = [
            torch.rand((3, self.patches), generator=_generator(self.seed, int(index)))
            for index in batch.indices
        ]
        drawn = torch.stack(numbers).to(self.device)
        pixels = to_device(batch.images, self.device)
        losses, right, targets = self._losses(backbone or self.backbone, pixels, drawn, None)
        means = torch.stack([losses.mean(1), right.mean(1)], dim=1)
        return torch.cat([means, targets.to(means)], dim=1)

    def score(self, observed: Observed, fitted: Fitted | None = None) -> Score:
        """Return the share of right colours, with the loss and what guessing would cost."""
        return PatchScore.of(observed.values)

    def remark(self, score: Score) -> str:
        """Return the loss beside that of always guessing by how frequent the colours are."""
        floor = score.measures["unigram_entropy"]
        learnt = "" if score.loss < floor else ": nothing is learnt yet"
        return (
            f"patches  loss {score.loss:.3f} nats, {floor:.3f} by the frequency of the colours "
            f"alone{learnt}"
        )

    def _losses(
        self, backbone: ViT, pixels: Tensor, numbers: Tensor, samples: StepSamples | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each corrupted patch, (B, K), 1 where its colour was right, and the colour.

        The colours are those of the pixels before they are normalised.
        """
        chosen = _chosen(numbers, self.settings)
        targets = colours(pixels, backbone.spec.grid).gather(1, chosen)
        images = preprocess.normalise(pixels, self.images)
        with self.autocast():
            corruption = corrupt(numbers, self.settings, self.mask_token())
            tokens = backbone.forward_patches(images, corruption=corruption, samples=samples)
            read = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
            logits = self.answer(read.flatten(0, 1))
        losses = F.cross_entropy(logits.float(), targets.flatten(), reduction="none")
        right = (logits.detach().argmax(1) == targets.flatten()).float()
        return losses.view(targets.shape), right.view(targets.shape), targets


def colours(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the mean colour of each patch, int64 (B, rows * columns) from 0 to 511.

    Each channel's mean m in 0..255 counts floor(8 m / 256), and a colour is 64 red + 8 green +
    blue: black is 0, white 511, pure red 448. The paper does not say the order of the channels.

    Args:
        pixels: uint8 (B, 3, H, W), not normalised: on another scale all would be one colour.
        grid: (rows, columns) of patches that tile the picture.
    """
    rows, columns = grid
    height = pixels.shape[2] // rows
    width = pixels.shape[3] // columns
    tiles = pixels.unflatten(3, (columns, width)).unflatten(2, (rows, height))
    total = tiles.sum(dim=(3, 5), dtype=torch.int64)  # b c (r h) (k w) -> b c r k, exact
    levels = (LEVELS * total).div(256 * height * width, rounding_mode="floor")
    red, green, blue = levels.flatten(2).unbind(1)
    return (red * LEVELS + green) * LEVELS + blue


def draw(samples: StepSamples, patches: int, device: torch.device) -> Tensor:
    """Return uniform numbers (B, 3, patches) that decide the corruption of each image of a step.

    They are drawn for the whole step, so that micro-batches and processes change nothing.
    """
    return torch.rand((samples.total, 3, patches), device=device)[samples.indices]


def corrupt(numbers: Tensor, settings: MaskedPatches, mask_token: Tensor) -> PatchCorruption:
    """Return what stands in the place of each patch.

    Of the corrupted patches the share `masked` becomes the mask token, the share `swapped` another
    patch of the same image (never itself), and the rest stays as it is: one number decides, so
    that no rule can write over another.

    Args:
        numbers: uniform (B, 3, N): which patches are corrupted, how, and by which other patch.
        settings: the shares.
        mask_token: (width,).
    """
    batch, _, patches = numbers.shape
    chosen = _chosen(numbers, settings)
    kind = numbers[:, 1].gather(1, chosen)
    others = (numbers[:, 2].gather(1, chosen) * (patches - 1)).long().clamp(max=patches - 2)
    others = others + (others >= chosen).long()
    swapped = (kind >= settings.masked) & (kind < settings.masked + settings.swapped)
    source = torch.arange(patches, device=numbers.device).expand(batch, -1)
    source = source.scatter(1, chosen, torch.where(swapped, others, chosen))
    masked = torch.zeros((batch, patches), dtype=torch.bool, device=numbers.device)
    masked = masked.scatter(1, chosen, kind < settings.masked)
    return PatchCorruption(source, masked, mask_token)


def _chosen(numbers: Tensor, settings: MaskedPatches) -> Tensor:
    """The corrupted patches of each image, (B, K): as many in each, without replacement."""
    count = max(1, math.floor(numbers.shape[2] * settings.corrupted))
    return numbers[:, 0].argsort(1)[:, :count]


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, "validation patches", index))


def _check(spec: ModelSpec) -> None:
    """Raise SpecError for a network whose patches are not the picture's own."""
    plain = spec.resnet is None and not spec.distillation_token and spec.pool in ("cls", "mean")
    if not plain or spec.representation:
        raise SpecError(
            f"Masked patches need a plain ViT that ends in its class token or the mean of its "
            f"patches, and {spec.name} does not: a stem sees what its neighbours hide. Take "
            f"--model S/16, or leave --model out."
        )
    if spec.grid[0] * spec.grid[1] < 2:
        raise SpecError(
            f"{spec.name} cuts pictures of {spec.size} pixels into one patch, and nothing is left "
            f"to tell a hidden one by. Choose a larger --size or a smaller patch."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchScore:
    """A `Score` without classes: how well the colours of corrupted patches are predicted.

    Attributes:
        score: share of corrupted patches whose colour was right.
        interval: 95 %, normal over the images.
        samples: images.
        loss: mean cross-entropy per corrupted patch, in nats.
        unigram_entropy: of the colours' frequencies: the loss of who has learnt nothing else.
        commonest: share of the most frequent colour: the score of who has learnt nothing else.
        colours: how many different colours occurred.
    """

    score: float
    interval: tuple[float, float]
    samples: int
    loss: float
    unigram_entropy: float
    commonest: float
    colours: int
    headline: str = "patch accuracy"
    predictions: tuple[Prediction, ...] = ()

    @classmethod
    def of(cls, values: np.ndarray) -> PatchScore:
        """Return the score of what `observe` gave, (N, 2 + K).

        Raises ModelError where the loss of an image is not finite.
        """
        losses = values[:, 0].astype(np.float64)
        shares = values[:, 1].astype(np.float64)
        if not np.isfinite(losses).all():
            bad = int((~np.isfinite(losses)).sum())
            raise ModelError(f"The loss of {bad} of {len(losses)} images is not finite.")
        counts = np.bincount(values[:, 2:].astype(np.int64).ravel(), minlength=COLOURS)
        frequency = counts[counts > 0] / counts.sum()
        mean = float(shares.mean())
        half = Z_95 * float(shares.std(ddof=1)) / math.sqrt(len(shares)) if len(shares) > 1 else 1.0
        return cls(
            score=mean,
            interval=(max(0.0, mean - half), min(1.0, mean + half)),
            samples=len(shares),
            loss=float(losses.mean()),
            unigram_entropy=float(-(frequency * np.log(frequency)).sum()),
            commonest=float(frequency.max()),
            colours=len(frequency),
        )

    @property
    def measures(self) -> Mapping[str, float]:
        """Numbers that metrics.jsonl and model.json keep, by name."""
        return {
            "patch_accuracy": self.score,
            "unigram_entropy": self.unigram_entropy,
            "commonest_colour": self.commonest,
        }

    def mistakes(self, most: int | None = None) -> list[int]:
        """Return no predictions: none are kept."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "patch_accuracy": self.score,
            "interval": list(self.interval),
            "samples": self.samples,
            "loss": self.loss,
            "unigram_entropy": self.unigram_entropy,
            "commonest_colour": self.commonest,
            "colours": self.colours,
        }

    def lines(self) -> Iterator[str | Table]:
        """Yield what a terminal shows."""
        yield share_line(self.headline, self.score, self.interval, 16)
        yield f"loss              {self.loss:.4f} nats ({self.unigram_entropy:.4f} by frequency)"

    def csv_rows(self) -> Iterator[Iterable[str]]:
        """Yield nothing: there are no predictions to write."""
        return iter(())
