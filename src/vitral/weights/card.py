"""The card of an artifact: everything but its tensors, read without torch; see `artifact`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays

from vitral.data.sources import Division
from vitral.errors import SpecError, WeightsError
from vitral.specs import Calibration, ImageSpec, ModelSpec
from vitral.specs.fields import choice
from vitral.specs.task import Task, TaskKind
from vitral.specs.tree import ClassTree
from vitral.storage import files
from vitral.wording import listed

FORMAT = 1
TENSORS = "model.safetensors"
CARD = "model.json"
FITTED = "calibration.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card is everything of an artifact but its tensors; the content of model.json.

    Attributes:
        model: the network.
        images: the preprocessing it was trained with.
        classes: names in the order of the logits; empty for a model without a head.
        made_by: where it came from (recipe, data, versions); plain JSON values.
        metrics: what was measured of it; plain JSON values.
        labels: how many classes an image has: "one" of them, or "several", any number.
        calibration: how far its probabilities may be believed; None where nobody looked.
        tree: groups of the classes; None without any.
    """

    model: ModelSpec
    images: ImageSpec
    classes: tuple[str, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    labels: Literal["one", "several"] = "one"
    calibration: Calibration | None = None
    tree: ClassTree | None = None

    def __post_init__(self) -> None:
        """Refuse class names that do not match the head, and another kind of labels."""
        choice(self, "labels", Card)
        if self.calibration is not None and self.labels != "one":
            raise WeightsError("A calibration is of a softmax; several labels have none.")
        if self.tree is not None and self.labels != "one":
            raise WeightsError(
                "A tree groups classes that exclude each other; several labels do not."
            )
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) != self.model.classes:
            raise WeightsError(
                f"The model has {self.model.classes} classes but {len(self.classes)} class names "
                f"were given; there is one name per logit."
            )

    @property
    def division(self) -> Division | None:
        """Tell how training divided its images; None where nothing is known."""
        recipe: Any = self.made_by.get("recipe")
        data: Any = self.made_by.get("data") or {}
        try:
            settings = recipe["data"]
            return Division(
                source=data.get("source"),
                fingerprint=data.get("fingerprint"),
                seed=settings["split_seed"],
                val_fraction=settings["val_fraction"],
                count=settings["count"],
                known=tuple(settings.get("known") or ()),
                nested=settings.get("tree") == "folders",
                class_file=settings.get("class_file") or "",
                label_file=settings.get("label_file") or "",
                groups="auto" if settings.get("groups") == "auto" else "none",
                label_column=settings.get("label_column") or "",
            )
        except (AttributeError, KeyError, TypeError):  # another version or program wrote it
            return None

    @property
    def task(self) -> Task:
        """Name what the logits mean: the kind of task, with the temperature of the calibration."""
        kind: TaskKind = "multi_label" if self.labels == "several" else "single_label"
        return Task(kind, 1.0 if self.calibration is None else self.calibration.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of model.json as plain values."""
        return {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "images": {k: v for k, v in self.images.to_dict().items() if v is not None},
            "classes": list(self.classes),
            "made_by": dict(self.made_by),
            "metrics": dict(self.metrics),
            # absent where there is nothing to say: versions that do not know it refuse its key
            **({"labels": self.labels} if self.labels != "one" else {}),
            **({} if self.calibration is None else {"calibration": self.calibration.to_dict()}),
            **({} if self.tree is None else {"tree": self.tree.to_dict()}),
        }


def load_fitted(folder: Path) -> dict[str, np.ndarray]:
    """Read what was fitted after training, by name; nothing of an artifact without such a file.

    Raises WeightsError for a file that is damaged; `evaluation.fit` refuses names it does not know.
    """
    path = folder / FITTED
    if not path.exists():
        return {}
    try:
        return dict(load_arrays(path))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}). Copy it again, or fit it anew: remove the file, "
            f"then `vitral fit {folder} DATA`."
        ) from None


def load_card(folder: Path) -> Card:
    """Read the card alone, without the tensors."""
    path = folder / CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{folder} is not an artifact: it has no {CARD}. Give a run folder, an artifact "
            f"folder (its best/ or last/), or convert the weights first."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); restore it from a copy.") from None
    expected = {"format", "model", "images", "classes", "made_by", "metrics"}
    optional = {"labels", "calibration", "tree"}
    if not isinstance(values, dict) or set(values) - optional != expected:
        present = set(values) if isinstance(values, dict) else set()
        raise WeightsError(
            f"{path} does not have the right keys. {sides(expected, present - optional)}"
        )
    if values["format"] != FORMAT:
        raise WeightsError(
            f"{path} has format {values['format']}, this version of Vitral reads {FORMAT}. "
            f"Install the version that wrote it."
        )
    kinds = {"model": dict, "images": dict, "classes": list, "made_by": dict, "metrics": dict}
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            raise WeightsError(f"{path}: '{key}' is not a {kind.__name__} but {values[key]!r:.40}.")
    if not all(isinstance(name, str) for name in values["classes"]):
        raise WeightsError(f"{path}: the class names are not all texts: {values['classes']!r:.80}.")
    try:
        return Card(
            model=ModelSpec.from_dict(values["model"]),
            images=ImageSpec.from_dict(values["images"]),
            classes=tuple(values["classes"]),
            made_by=values["made_by"],
            metrics=values["metrics"],
            labels=values.get("labels", "one"),
            calibration=(
                Calibration.from_dict(values["calibration"]) if "calibration" in values else None
            ),
            tree=ClassTree.from_dict(values["tree"]) if "tree" in values else None,
        )
    except (SpecError, TypeError) as error:
        raise WeightsError(f"{path}: {error}") from None


def is_card(path: Path) -> bool:
    """Tell whether a file is a model.json of ours, and not another program's of that name."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"format", "model", "images", "made_by"} <= set(values)


def locate(run: str | Path) -> Path:
    """Find the artifact that RUN means: best/ (or last/) of a run folder, or the folder itself.

    A training may be replacing it: `files.read_folder` reads it whole.
    """
    folder = Path(run)
    for name in ("best", "last"):
        # an incomplete best/ is an error, not a reason for last/
        if files.current(folder / name).is_dir():
            return folder / name
    there = files.current(folder)
    if (there / CARD).exists() or (there / TENSORS).exists():
        return folder
    if not folder.exists():
        raise WeightsError(f"{folder} does not exist. Give a run folder or an artifact folder.")
    if (folder / "recipe.json").exists():
        raise WeightsError(
            f"{folder} is a run that has not been evaluated yet. Finish it with "
            f"`vitral train --resume {folder}`."
        )
    raise WeightsError(
        f"{folder} is neither a run folder nor an artifact: it has no best/, last/ or {CARD}."
    )


def sides(expected: set[str], present: set[str]) -> str:
    """Name what is missing of the names that are expected, and what is unexpected."""
    missing = sorted(expected - present)
    unexpected = sorted(present - expected)
    """Name what is missing of the names that are expected, and what is unexpected."""
    return (
        f"Missing: {listed(missing, 6) or 'none'}. Unexpected: {listed(unexpected, 6) or 'none'}."
    )
