"""Recipe: everything that decides a training run, as one frozen value.

A recipe file in vitral/recipes/ is one such value on one screen; `--set optimizer.lr=3e-4` makes a
changed copy; the resolved value is kept as recipe.json in the run folder and repeats the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from vitral.errors import SpecError
from vitral.images.settings import Augment
from vitral.spec import ImageSpec, ModelSpec
from vitral.spec.fields import assign, choice, from_mapping

MOST = 1e12  # epochs or steps: longer than any run, and still exact in a float


@dataclass(frozen=True, slots=True)
class Duration:
    """A length with its unit, so that no number of steps is ever taken for epochs."""

    amount: float
    unit: Literal["epochs", "steps"]

    def __post_init__(self) -> None:
        """Refuse negative lengths, fractions of a step and unknown units."""
        choice(self, "unit", Duration)
        if not 0 <= self.amount <= MOST or (
            self.unit == "steps" and self.amount != int(self.amount)
        ):
            raise SpecError(f"A length is 0 to {MOST:g} {self.unit}, not {self.amount}.")

    def in_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps; a fraction of an epoch is rounded to the nearest step."""
        return round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1))

    @classmethod
    def parse(cls, text: str, where: str = "A length") -> Duration:
        """From '20 epochs' or '500 steps'."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(epoch|step)s?\s*", text)
        if not match:
            raise SpecError(f"{where} is written '20 epochs' or '500 steps', not {text!r}.")
        return cls(float(match[1]), "epochs" if match[2] == "epoch" else "steps")

    def __str__(self) -> str:
        whole = self.amount == int(self.amount)
        return f"{int(self.amount) if whole else self.amount!r} {self.unit}"


def epochs(amount: float) -> Duration:
    """A length in passes over the training images."""
    return Duration(amount, "epochs")


def steps(amount: int) -> Duration:
    """A length in optimizer steps."""
    return Duration(amount, "steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, and how they reach the network.

    Attributes:
        source: class folders, a CSV, tar shards, parquet, hf:NAME, or a built-in name (digits,
            shapes).
        batch: images per optimizer step.
        count: how many images to draw, for sources that draw on demand.
        val_fraction: share held out (stratified) when the source has no split of its own.
        split_seed: of that split; apart from the run's seed, so that no run tests on images that
            another one with the same data learnt from.
        workers: loading processes; None chooses from the machine. Never changes the result.
        allow_unreadable: go on even if more than 1 % of the files cannot be read; also passes over
            rows of a CSV without a file or a label.
    """

    source: str = ""
    batch: int = 64
    count: int | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    workers: int | None = None
    allow_unreadable: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that make no batch and no split."""
        at_least("Data.batch", self.batch, 1)
        if not 0 < self.val_fraction < 1:
            raise SpecError(f"Data.val_fraction is between 0 and 1, not {self.val_fraction}.")
        if self.workers is not None:
            at_least("Data.workers", self.workers, 0)
        if self.count is not None:
            at_least("Data.count", self.count, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """AdamW with decoupled weight decay on kernels only (Table 3 of the paper), clipped gradients.

    Attributes:
        lr: peak learning rate, reached at the end of the warm-up.
        weight_decay: multiplied by the learning rate at every step; biases, norms, tokens and
            position embeddings are not decayed.
        beta1, beta2: decay of the first and second moment.
        clip: largest global norm of the gradient; 0 switches clipping off.
        layer_decay: factor of the learning rate per layer below the head; 1 treats all alike.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no optimizer can use."""
        if not 0 < self.lr < math.inf:
            raise SpecError(f"Optimizer.lr is a positive number, not {self.lr}.")
        at_least("Optimizer.weight_decay", self.weight_decay, 0)
        at_least("Optimizer.clip", self.clip, 0)
        for name in ("beta1", "beta2"):
            fraction(f"Optimizer.{name}", getattr(self, name))
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"Optimizer.layer_decay is in (0, 1], not {self.layer_decay}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One training run. Two equal recipes on equal data give bit-equal weights on a CPU.

    Attributes:
        model, images: the network and its preprocessing; the classes come from the data.
        start: the weights to start from: a run, an artifact, a checkpoint or an id; None draws new
            ones.
        data, augment, optimizer: see there.
        length, warmup: of the run, and of the linear warm-up inside it; cosine decay to 0 after.
        evaluate_every: how often the validation images are counted.
        label_smoothing: mass moved from the true class to all classes.
        ema: decay per step of the averaged weights that are evaluated and kept; 0 keeps the raw.
        drop_path, dropout: noise while training.
        select: which weights become best/: the best on validation, or simply the last. Only with
            "last" is the printed accuracy free of selection.
        precision: "auto" uses bfloat16 autocast where the machine multiplies it fast.
        save_seconds: longest time between two saved states.
        seed: of the weights, the order and every augmentation.
    """

    model: ModelSpec
    images: ImageSpec
    start: str | None = None
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    length: Duration = Duration(20, "epochs")
    warmup: Duration = Duration(1, "epochs")
    evaluate_every: Duration = Duration(1, "epochs")
    label_smoothing: float = 0.0
    ema: float = 0.0
    drop_path: float = 0.0
    dropout: float = 0.0
    select: Literal["best", "last"] = "best"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    save_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        choice(self, "select", Recipe)
        choice(self, "precision", Recipe)
        if tuple(self.model.size) != tuple(self.images.size):
            raise SpecError(
                f"The model reads {self.model.size} pixels but the images are made "
                f"{self.images.size}; set both with --size."
            )
        for name in ("label_smoothing", "ema", "drop_path", "dropout"):
            fraction(f"Recipe.{name}", getattr(self, name))
        at_least("Recipe.save_seconds", self.save_seconds, 0)
        if not 0 <= self.seed < 1 << 63:
            raise SpecError(f"Recipe.seed is a whole number from 0 to 2^63 - 1, not {self.seed}.")
        if self.model.channels != len(self.images.mean) or self.model.channels != 3:
            raise SpecError(
                f"Training reads RGB images, so the model has 3 channels and images.mean and std "
                f"3 values, not {self.model.channels} and {len(self.images.mean)}."
            )
        if self.length.amount == 0 or self.evaluate_every.amount == 0:
            raise SpecError("Recipe.length and Recipe.evaluate_every are longer than 0.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; from_dict(to_dict()) is the same recipe."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of to_dict; SpecError names unknown fields and wrong types."""
        return from_mapping(cls, values)


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A copy with 'a.b=value' assignments applied; see `vitral.spec.fields.assign`."""
    return Recipe.from_dict(assign(recipe.to_dict(), assignments, "Recipe"))


def at_least(name: str, value: float, least: float) -> None:
    """Raise SpecError for a value below `least` (NaN included)."""
    if not least <= value < math.inf:
        raise SpecError(f"{name} is at least {least}, not {value}.")


def fraction(name: str, value: float) -> None:
    """Raise SpecError for a value outside [0, 1)."""
    if not 0 <= value < 1:
        raise SpecError(f"{name} is between 0 and 1, not {value}.")


def plain(value: Any) -> Any:
    """JSON values of a setting: durations as text, tuples as lists, settings as objects."""
    if isinstance(value, Duration):
        return str(value)
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in asdict(value).items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
