"""The artifact folder: model.safetensors and model.json, the one thing that passes between verbs.

my-model/
├── model.safetensors   the tensors, under the network's own names
├── model.json          format, model (ModelSpec), images (ImageSpec), classes, made_by, metrics,
│                       "labels": "several" where the classes do not exclude each other, and
│                       "calibration" where one was fitted
├── README.md           the model card, as the Hugging Face hub reads it
├── calibration.safetensors   sometimes: what else was fitted to images after training, by names
│                       such as foreign.points; evaluation/fit.py gives them their meaning. Versions
│                       that do not know the file pass over it, so that model.json has no key of it
└── kept.safetensors    sometimes: tensors of a converted file that only its format uses
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitral.errors import WeightsError
from vitral.model import ViT
from vitral.specs import Dropouts, ModelSpec
from vitral.storage import files
from vitral.weights import model_card
from vitral.weights.card import (
    CARD,
    FITTED,
    FORMAT,
    TENSORS,
    Card,
    is_card,
    load_card,
    load_fitted,
    locate,
    sides,
)

# what needs no torch stands in card.py, and belongs to an artifact all the same
__all__ = [
    "CARD",
    "FITTED",
    "FORMAT",
    "KEPT",
    "TENSORS",
    "Card",
    "check",
    "edited_card",
    "is_card",
    "load",
    "load_card",
    "load_fitted",
    "load_tensors",
    "locate",
    "network",
    "save",
    "save_fitted",
]

Arrays = Mapping[str, np.ndarray]

KEPT = "kept.safetensors"


def save(
    folder: Path,
    tensors: Mapping[str, Tensor],
    card: Card,
    kept: Mapping[str, Tensor] | None = None,
    fitted: Arrays | None = None,
) -> None:
    """Write an artifact; `folder` is replaced as a whole or left as it was.

    `tensors` is the state_dict of the network that `card.model` describes, checked key by key;
    `kept` are tensors for the way back to the format of converted weights; `fitted` is what was
    fitted beside the card's calibration.
    """
    check(tensors, card.model, folder)

    def fill(fresh: Path) -> None:
        files.write_tensors(fresh / TENSORS, tensors)
        if kept:
            files.write_tensors(fresh / KEPT, kept)
        _write_fitted(fresh, card, fitted)

    needed = files.bytes_of(tensors) + files.bytes_of(kept or {})
    files.write_folder(folder, fill, needed)


def save_fitted(folder: Path, card: Card, fitted: Arrays) -> None:
    """Replace what was fitted in an artifact and its card, whose network stays; all or nothing.

    A kill leaves the artifact as it was; a model card that somebody changed stays, too. Raises
    MachineError where it cannot be written.
    """
    changed = edited_card(folder) is not None

    def fill(fresh: Path) -> None:
        _write_fitted(fresh, card, fitted)
        for file in folder.iterdir():  # the tensors, and whatever the user laid beside them
            if file.name == model_card.FILE and changed:
                (fresh / file.name).unlink()
                files.link_or_copy(file, fresh / file.name)
            elif file.name not in (CARD, FITTED, model_card.FILE):
                files.link_or_copy(file, fresh / file.name)

    files.write_folder(folder, fill)


def _write_fitted(fresh: Path, card: Card, fitted: Arrays | None) -> None:
    if fitted:
        tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in fitted.items()}
        files.write_tensors(fresh / FITTED, tensors)
    # a name that is no valid text keeps its stray bytes as JSON escapes
    files.write_json(fresh / CARD, card.to_dict())
    files.write_bytes(fresh / model_card.FILE, _model_card(card))


def edited_card(folder: Path) -> str | None:
    """Read the model card of an artifact where somebody changed it; None where it is as written."""
    told = folder / model_card.FILE
    if not told.exists() or told.read_bytes() == _model_card(load_card(folder)):
        return None
    return told.read_text(encoding="utf-8", errors="replace")


def _model_card(card: Card) -> bytes:
    return model_card.text(card.to_dict()).encode("utf-8", "backslashreplace")


def load(folder: Path) -> tuple[ViT, Card]:
    """Return the network in evaluation mode, and its card.

    Raises WeightsError when a file is missing or broken, or when the keys or shapes of the tensors
    are not exactly those of the network.
    """
    tensors, card = load_tensors(folder)
    return network(tensors, card.model), card


def network(tensors: Mapping[str, Tensor], spec: ModelSpec) -> ViT:
    """Build the network of a spec with these tensors, in evaluation mode."""
    with torch.device("meta"):  # first values would be drawn only to be replaced
        model = ViT(spec, Dropouts())
    model.load_state_dict(dict(tensors), assign=True)
    return model.eval()


def load_tensors(folder: Path) -> tuple[dict[str, Tensor], Card]:
    """Read the tensors and the card that they fit; see load."""
    card = load_card(folder)
    try:
        tensors = load_file(folder / TENSORS)
    except FileNotFoundError:
        if (folder / "model.xml").exists():
            raise WeightsError(
                f"{folder} is an export for OpenVINO: it predicts, evaluates and embeds, and has "
                f"no tensors to look into or to learn from. Use the run that it was made of."
            ) from None
        raise WeightsError(
            f"{folder} has no {TENSORS}. Copy the whole artifact folder, not model.json alone."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{folder / TENSORS} cannot be read ({error}). It is damaged or incomplete; "
            f"copy it again or use another checkpoint."
        ) from None
    check(tensors, card.model, folder)
    return tensors, card


def check(tensors: Mapping[str, Tensor], spec: ModelSpec, where: Path) -> None:
    """Raise WeightsError unless the tensors have exactly the names and shapes of the network."""
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in ViT(spec, Dropouts()).state_dict().items()}
    present = {name: tuple(t.shape) for name, t in tensors.items()}
    if set(expected) != set(present):
        raise WeightsError(
            f"The tensors in {where} do not fit the model '{spec.name}'. "
            f"{sides(set(expected), set(present))}"
        )
    for name, shape in expected.items():
        if present[name] != shape:
            raise WeightsError(
                f"{where}: tensor '{name}' has shape {present[name]}, the model '{spec.name}' "
                f"needs {shape}. They belong to different models."
            )
