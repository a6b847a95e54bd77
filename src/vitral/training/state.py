"""Resume: two slots that are written in turn, so that one whole state is always on the disk.

A slot is one safetensors file: weights, averaged weights, optimizer, and the progress as JSON in
its metadata with a digest of the tensors. There is no random state to keep, because every random
choice derives from (seed, step) or (seed, epoch, sample).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitral.errors import MachineError, WeightsError
from vitral.weights import storage

SLOTS = ("a.safetensors", "b.safetensors")


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        validated_step: at which validation was last done.
        best_accuracy, best_step: of the evaluation that best/ holds; -1 before the first.
        loss_sum, loss_count: the mean since the last line of metrics.jsonl.
        seconds: spent so far, over all sittings.
    """

    step: int = 0
    validated_step: int = 0
    best_accuracy: float = -1.0
    best_step: int = -1
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0


def gather(
    model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Every tensor of a run under one flat set of names (views, not copies)."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not model:
        tensors |= {f"average/{name}": tensor for name, tensor in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    return tensors


def scatter(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put gathered tensors back; WeightsError when they belong to another recipe."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    try:
        model.load_state_dict(parts["model"])
        if average is not model:
            average.load_state_dict(parts["average"])
    except RuntimeError as error:
        raise WeightsError(
            f"The saved state belongs to another recipe: {str(error).splitlines()[-1].strip()}."
        ) from None
    parameters = dict(model.named_parameters())
    for name, tensor in parts["optimizer"].items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        # AdamW keeps its step count on the CPU unless it is fused on the parameter's own device.
        device = parameter.device if tensor.ndim or _fused(optimizer) else torch.device("cpu")
        optimizer.state[parameter][key] = tensor.to(device)


def save(folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    """Write the slot that is not the newest; read it back before it counts."""
    digest = _digest(tensors)
    metadata = {"progress": json.dumps(asdict(progress)), "digest": digest}
    held = [(_read_progress(folder / slot), slot) for slot in SLOTS]
    slot = min(held, key=lambda pair: pair[0].step if pair[0] else -1)[1]

    def write(temporary: Path) -> None:
        storage.write_tensors(temporary, tensors, metadata)
        if _read(temporary) is None:
            raise MachineError(
                f"The state written to {folder} does not read back as it was written. The disk "
                f"may be failing; the state before it is kept."
            )

    storage.write_file(folder / slot, write)


def load(folder: Path) -> tuple[dict[str, Tensor], Progress] | None:
    """The newest slot that is whole, or None when there is none."""
    slots = [(_read_progress(folder / slot), folder / slot) for slot in SLOTS]
    for progress, path in sorted(
        ((p, path) for p, path in slots if p), key=lambda pair: pair[0].step, reverse=True
    ):
        tensors = _read(path)
        if tensors is not None:
            return tensors, progress
    return None


def damaged(folder: Path) -> list[str]:
    """Slots that are there and not whole."""
    return [slot for slot in SLOTS if (folder / slot).exists() and _read(folder / slot) is None]


def _read_progress(path: Path) -> Progress | None:
    try:
        with safe_open(path, "pt") as file:
            return Progress(**json.loads(file.metadata()["progress"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = file.metadata()["digest"] == _digest(tensors)
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return tensors if whole else None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))
