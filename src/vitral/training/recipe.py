"""Recipe: everything that decides a training run, as one frozen value.

A recipe file in vitral/recipes/ is one such value on one screen; `--set optimizer.lr=3e-4` makes a
changed copy; the resolved value is kept as recipe.json in the run folder and repeats the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from vitral.errors import SpecError
from vitral.specs import Dropouts, ImageSpec, ModelSpec
from vitral.specs.augment import Augment
from vitral.specs.fields import assign, choice, from_mapping
from vitral.training.duration import Duration, epochs, steps

LORA_RANK = 8  # of --tune lora
MOVED = {
    "warmup": "schedule.warmup",
    "label_smoothing": "objective.label_smoothing",
    "drop_path": "noise.drop_path",
    "dropout": "noise.dropout",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The images of a run, and their way to the network.

    Attributes:
        source: class folders, a CSV, tar shards, parquet, hf:NAME, or a built-in name (digits,
            shapes).
        batch: images per optimizer step.
        count: how many images to draw, for sources that draw on demand.
        val_fraction: share held out (stratified) when the source has no split of its own.
        split_seed: of that split; apart from the run's seed, so that no run tests on images that
            another one with the same data learnt from.
        known: classes that are learnt beside those of the images, since the weights know them.
        tree: the groups of the classes: a file, "folders" for folders within folders, "none"; None
            looks for classes.csv beside the images.
        class_file: of class names (--classes); "" for none but one that lies beside the images.
        label_file: of corrections of labels (--labels); "" for none.
        groups: "auto" keeps pictures of one patient or the like on one side of the split that is
            made here, where a column of a table says whose they are; "none" does not.
        label_column: the column of a table that holds the labels; "" where its name tells it.
        workers: loading processes; None chooses from the machine. Never changes the result.
        allow_unreadable: go on even if more than 1 % of the files cannot be read; also passes over
            rows of a CSV without a file or a label.
    """

    source: str = ""
    batch: int = 64
    count: int | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    known: tuple[str, ...] = ()
    tree: str | None = None
    class_file: str = ""
    label_file: str = ""
    groups: Literal["auto", "none"] = "auto"
    label_column: str = ""
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
    """The optimizer of a run; decay is decoupled, times the rate, on kernels only, for every kind.

    Attributes:
        kind: "adamw"; "sgd", with momentum (Table 4 of the paper); "lamb" (arXiv:1904.00962).
        lr: peak learning rate, reached at the end of the warm-up.
        weight_decay: multiplied by the learning rate at every step; biases, norms, tokens and
            position embeddings are not decayed.
        beta1, beta2: decay of the first and second moment of adamw and lamb.
        momentum: of sgd.
        clip: largest global norm of the gradient; 0 switches clipping off.
        layer_decay: factor of the learning rate per layer below the head; 1 treats all alike.
    """

    kind: Literal["adamw", "sgd", "lamb"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    clip: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no optimizer can use."""
        choice(self, "kind", Optimizer)
        positive("Optimizer.lr", self.lr)
        at_least("Optimizer.weight_decay", self.weight_decay, 0)
        at_least("Optimizer.clip", self.clip, 0)
        for name in ("beta1", "beta2", "momentum"):
            fraction(f"Optimizer.{name}", getattr(self, name))
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"Optimizer.layer_decay is in (0, 1], not {self.layer_decay}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The course of the learning rate over a run; `vitral.training.schedule` has the formulas.

    Attributes:
        kind: the shape after the warm-up; "staircase" is divided by 10 at each drop (BiT).
        warmup: the linear rise to the peak, part of the run's length.
        start, end: shares of the peak where the warm-up begins, and where cosine and linear end.
        timescale, cooldown: of rsqrt alone: after how long the rate is 1 / sqrt(2), and the linear
            fall to 0 at the end.
        drops: of staircase alone: shares of the run's length, rising.
    """

    kind: Literal["cosine", "linear", "rsqrt", "constant", "staircase"] = "cosine"
    warmup: Duration = field(default=epochs(1))
    start: float = 0.0
    end: float = 0.0
    timescale: Duration = field(default=steps(10_000))
    cooldown: Duration = field(default=steps(0))
    drops: tuple[float, ...] = (0.3, 0.6, 0.9)

    def __post_init__(self) -> None:
        """Refuse shares outside the run, and what the kind would ignore."""
        choice(self, "kind", Schedule)
        share("Schedule.start", self.start)
        share("Schedule.end", self.end)
        if self.end and self.kind not in ("cosine", "linear"):
            raise SpecError(f"Schedule.end is for cosine and linear; {self.kind} needs end = 0.")
        if self.cooldown.amount and self.kind != "rsqrt":
            raise SpecError(f"Schedule.cooldown is for rsqrt; {self.kind} needs '0 steps'.")
        if self.timescale.amount == 0:
            raise SpecError("Schedule.timescale is longer than 0.")
        rising = list(self.drops) == sorted(set(self.drops))
        if not rising or not all(0 < drop < 1 for drop in self.drops):
            raise SpecError(f"Schedule.drops rise between 0 and 1, unlike {list(self.drops)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """Learning labels; `vitral.training.objectives.classification` has the formulas.

    Attributes:
        kind: tells it from other objectives.
        loss: "softmax" cross-entropy; "sigmoid" cross-entropy summed over the classes (the
            authors'); "bce", its mean over the classes with mixes counted as whole (DeiT-III).
        label_smoothing: mass moved from the true class to all classes.
        class_weights: "balanced" counts every class alike, however many images it has.
        head_bias: first value of a new head's bias.
        teacher: an artifact or id whose answers are learnt beside the labels (DeiT).
        distill: the teacher's best class ("hard"), or its probabilities ("soft"), of a teacher
            that knows all classes; "known": its probabilities of those that it knows, so that a
            network which learns others does not forget them.
        distill_share: share of the loss that the teacher's part has.
        temperature: of the probabilities of "soft" and "known".
    """

    kind: Literal["classification"] = "classification"
    loss: Literal["softmax", "sigmoid", "bce"] = "softmax"
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    head_bias: float = 0.0
    teacher: str | None = None
    distill: Literal["hard", "soft", "known"] = "hard"
    distill_share: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse unknown kinds and values out of range."""
        for name in ("kind", "loss", "class_weights", "distill"):
            choice(self, name, Classification)
        fraction("Objective.label_smoothing", self.label_smoothing)
        if self.loss == "sigmoid" and self.label_smoothing:
            raise SpecError(
                "Objective.label_smoothing has no meaning for the authors' sigmoid loss; "
                "set it to 0, or loss to bce."
            )
        if not math.isfinite(self.head_bias):
            raise SpecError(f"Objective.head_bias is a number, not {self.head_bias}.")
        share("Objective.distill_share", self.distill_share)
        positive("Objective.temperature", self.temperature)


@dataclass(frozen=True, slots=True)
class Tune:
    """The part of a network that learns; as text (JSON, --tune) full, probe, last:N or lora:RANK.

    Attributes:
        kind: "full", everything; "probe", the head; "last", the last blocks and the head; "lora",
            the head and low-rank additions, merged at the end.
        blocks: of "last".
        rank: of "lora".
    """

    kind: Literal["full", "probe", "last", "lora"] = "full"
    blocks: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and a number that is missing or of another kind."""
        choice(self, "kind", Tune)
        if (self.kind == "last") != (self.blocks > 0) or (self.kind == "lora") != (self.rank > 0):
            raise SpecError(f"Tune.blocks is for last, Tune.rank for lora, each above 0: {self}.")

    @classmethod
    def parse(cls, text: str, name: str = "Recipe.tune") -> Tune:
        """Read 'full', 'probe', 'last:2', 'lora:4', or 'lora' for a rank of LORA_RANK."""
        match = re.fullmatch(r"(full|probe|lora)|(last|lora):0*([1-9]\d{0,5})", text)
        if match is None:
            raise SpecError(
                f"{name} is full, probe, last:N (blocks), lora or lora:RANK, not {text!r}."
            )
        kind: Any = match[1] or match[2]
        number = int(match[3] or LORA_RANK)
        return cls(kind, *{"last": (number, 0), "lora": (0, number)}.get(kind, ()))

    def __str__(self) -> str:
        number = self.blocks or self.rank
        return f"{self.kind}:{number}" if number else self.kind


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPatches:
    """Learning the colours of corrupted patches, without labels (appendix B.1.2 of the paper).

    `vitral.training.objectives.masked_patches` has the formulas. Pre-training is judged by what
    comes after it, so the weights of the last step are kept: `Recipe.select` is "last".

    Attributes:
        kind: tells it from other objectives.
        corrupted: share of each image's patches whose colour is asked for.
        masked: share of those in whose place stands the mask token.
        swapped: share of those in whose place stands another patch of the image. The rest stays.
    """

    kind: Literal["masked-patches"] = "masked-patches"
    corrupted: float = 0.5
    masked: float = 0.8
    swapped: float = 0.1

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to learn, or nothing to learn from."""
        choice(self, "kind", MaskedPatches)
        if not 0 < self.corrupted < 1:
            raise SpecError(
                f"MaskedPatches.corrupted is between 0 and 1 (both excluded), not {self.corrupted}."
            )
        share("MaskedPatches.masked", self.masked)
        share("MaskedPatches.swapped", self.swapped)
        if self.masked + self.swapped > 1:
            raise SpecError(
                f"MaskedPatches.masked and swapped are shares of the corrupted patches, and "
                f"{self.masked} + {self.swapped} is more than all of them."
            )


Objective = Classification | MaskedPatches


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One training run. Two equal recipes on equal data give bit-equal weights on a CPU.

    Attributes:
        model, images: the network and its preprocessing; the classes come from the data.
        start: the weights to start from: a run, an artifact, a checkpoint or an id; None draws new
            ones.
        rename: (old, new) names of classes of `start`.
        data, augment, optimizer, schedule, objective, noise: see there.
        tune: what learns.
        length: of the run, warm-up and cooldown included.
        evaluate_every: how often the validation images are counted.
        ema: decay per step of the averaged weights that are evaluated and kept; 0 keeps the raw.
        select: which weights become best/: the best on validation, or simply the last. Only with
            "last" is the printed accuracy free of selection.
        patience: validations in a row without a better one that end the run early; None: never.
        precision: "auto" uses bfloat16 autocast where the machine multiplies it fast.
        accumulate: parts into which each process cuts its piece of a step; the gradients are those
            of the whole.
        compile: whether the blocks are compiled. checkpointing: whether the backward pass computes
            them again instead of keeping them in memory.
        save_seconds: longest time between two saved states.
        seed: of the weights, the order and every augmentation.
    """

    model: ModelSpec
    images: ImageSpec
    start: str | None = None
    rename: tuple[tuple[str, str], ...] = ()
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    objective: Objective = field(default_factory=Classification)
    noise: Dropouts = field(default_factory=Dropouts)
    tune: Tune = field(default=Tune())
    length: Duration = field(default=epochs(20))
    evaluate_every: Duration = field(default=epochs(1))
    ema: float = 0.0
    select: Literal["best", "last"] = "best"
    patience: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: int = 1
    compile: bool = False
    checkpointing: bool = False
    save_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        choice(self, "select", Recipe)
        choice(self, "precision", Recipe)
        fraction("Recipe.ema", self.ema)
        at_least("Recipe.save_seconds", self.save_seconds, 0)
        at_least("Recipe.accumulate", self.accumulate, 1)
        if not 0 <= self.seed < 1 << 63:
            raise SpecError(f"Recipe.seed is a whole number from 0 to 2^63 - 1, not {self.seed}.")
        if self.length.amount == 0 or self.evaluate_every.amount == 0:
            raise SpecError("Recipe.length and Recipe.evaluate_every are longer than 0.")
        self._check_images()
        if self.accumulate > self.data.batch:
            raise SpecError(
                f"Recipe.accumulate cuts a batch of {self.data.batch} images into at most as many "
                f"parts, not {self.accumulate}."
            )
        if isinstance(self.objective, MaskedPatches) and self.select != "last":
            raise SpecError(
                "Masked patches are no accuracy to choose weights by: set select=last, which keeps "
                "those of the last step."
            )
        if self.patience is not None:
            at_least("Recipe.patience", self.patience, 1)
            if self.select != "best":
                raise SpecError("Recipe.patience waits for a better validation: set select=best.")

    def _check_images(self) -> None:
        if tuple(self.model.size) != tuple(self.images.size):
            raise SpecError(
                f"The model reads {self.model.size} pixels but the images are made "
                f"{self.images.size}; set both with --size."
            )
        if self.model.channels != len(self.images.mean) or self.model.channels != 3:
            raise SpecError(
                f"Training reads RGB images, so the model has 3 channels and images.mean and std "
                f"3 values, not {self.model.channels} and {len(self.images.mean)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; from_dict(to_dict()) is the same recipe."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @property
    def labelled(self) -> bool:
        """Return whether the objective needs the labels of the images."""
        return isinstance(self.objective, Classification)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of to_dict; SpecError names unknown fields and wrong types."""
        _refuse_moved(values)
        data = values.get("data")
        if isinstance(data, dict) and "groups" not in data:  # a run of before there were groups
            values = {**values, "data": {**data, "groups": "none"}}
        return from_mapping(cls, values)


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A copy with 'a.b=value' assignments applied; see `vitral.specs.fields.assign`."""
    return Recipe.from_dict(assigned(recipe.to_dict(), assignments))


def assigned(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The plain values of a recipe with 'a.b=value' assignments applied, the names checked."""
    _refuse_moved(assignment.partition("=")[0].strip() for assignment in assignments)
    return assign(values, assignments, "Recipe")


def _refuse_moved(names: Iterable[str]) -> None:
    for name in names:
        if name in MOVED:
            raise SpecError(f"The recipe's '{name}' is now '{MOVED[name]}'.")


def at_least(name: str, value: float, least: float) -> None:
    """Raise SpecError for a value below `least` (NaN included)."""
    if not least <= value < math.inf:
        raise SpecError(f"{name} is at least {least}, not {value}.")


def positive(name: str, value: float) -> None:
    """Raise SpecError for a value that is not a finite number above 0."""
    if not 0 < value < math.inf:
        raise SpecError(f"{name} is a positive number, not {value}.")


def fraction(name: str, value: float) -> None:
    """Raise SpecError for a value outside [0, 1)."""
    if not 0 <= value < 1:
        raise SpecError(f"{name} is between 0 and 1, not {value}.")


def share(name: str, value: float) -> None:
    """Raise SpecError for a value outside [0, 1]."""
    if not 0 <= value <= 1:
        raise SpecError(f"{name} is a share from 0 to 1, not {value}.")


def plain(value: Any) -> Any:
    """JSON values of a setting: what has a text of its own as that, tuples as lists."""
    if isinstance(value, Duration | Tune):
        return str(value)
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
