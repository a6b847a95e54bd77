"""Resume: two slots that are written in turn, so that one whole state is always on the disk.

A slot holds weights, averaged weights, optimizer, and the progress with a digest of the rest: one
safetensors file, or a folder of torch's distributed checkpoint where processes share the weights.
There is no random state to keep, because every random choice derives from (seed, step) or (seed,
epoch, sample).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitral.errors import MachineError, WeightsError
from vitral.storage import files
from vitral.training.distributed import sharded_state
from vitral.training.distributed.process_group import ProcessGroup, is_sharded, shard_like
from vitral.training.ema import EMA
from vitral.training.objectives.base import short_name

SLOTS = ("a", "b")


@dataclass(slots=True)
class Progress:
    """The progress of a run.

    Attributes:
        step: optimizer steps done.
        validated_step: at which validation was last done.
        best_score, best_step: of the evaluation that best/ holds; -1 before the first.
        validations_without_gain: in a row since then.
        loss_sum, loss_count: the mean since the last line of metrics.jsonl.
        measures, seen: likewise sums of what the objective measures, and their images.
        seconds: spent so far, over all sittings.
        retries, rate: returns after a step that was not finite, and what is left of the rate.
        accumulate: parts of a step, where memory asked for more than the recipe.
    """

    step: int = 0
    validated_step: int = 0
    best_score: float = -1.0
    best_step: int = -1
    validations_without_gain: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    seconds: float = 0.0
    retries: int = 0
    rate: float = 1.0
    accumulate: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Return the progress of a slot; TypeError or ValueError for what is none."""
        correct = values.pop("correct", 0)  # of slots written before objectives had measures
        if "waited" in values:
            values["validations_without_gain"] = values.pop("waited")
        if correct:
            values["measures"] = {"accuracy": float(correct)}
        return cls(**values)


def gather(module: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return every tensor of a run under one flat set of names (views, not copies)."""
    tensors = {f"model/{short_name(n)}": tensor for n, tensor in module.state_dict().items()}
    tensors |= {f"average/{short_name(n)}": tensor for n, tensor in ema.tensors.items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{short_name(name)}/{key}"] = torch.as_tensor(value)
    return tensors


def scatter(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put gathered tensors back; WeightsError when they belong to another recipe."""
    held = gather(module, ema, optimizer)
    wanted = {name for name in held if not name.startswith("optimizer/")}
    saved = {name for name in tensors if not name.startswith("optimizer/")}
    parameters = {short_name(name): p for name, p in module.named_parameters()}
    for name in sorted(wanted ^ saved) + sorted(wanted & saved):
        if name not in wanted or name not in saved or held[name].shape != tensors[name].shape:
            raise WeightsError(f"The saved state belongs to another recipe: '{name}' differs.")
    with torch.no_grad():
        for name in wanted:
            held[name].copy_(shard_like(tensors[name], held[name]))
    for name in tensors.keys() - saved:
        owner, _, key = name.removeprefix("optimizer/").rpartition("/")
        parameter = parameters[owner]
        value = tensors[name]
        if value.ndim:
            value = shard_like(value, parameter).to(parameter.device)
        elif optimizer.defaults.get("fused"):  # otherwise step counts stay on the CPU
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value


def save(
    folder: Path, tensors: Mapping[str, Tensor], progress: Progress, group: ProcessGroup
) -> None:
    """Write the slot that is not the newest; read it back before it counts.

    All processes call it together: the first one writes, or each its own piece where the tensors
    are sharded.
    """
    held = group.broadcast([(_read_progress(folder, slot), slot) for slot in SLOTS])
    slot = min(held, key=lambda pair: pair[0].step if pair[0] else -1)[1]
    if any(is_sharded(tensor) for tensor in tensors.values()):
        sharded_state.write(folder / slot, tensors, asdict(progress), group)
        if group.is_main:
            _file(folder, slot).unlink(missing_ok=True)
        return
    with group.on_main() as main:
        if main:
            _write(_file(folder, slot), tensors, progress)
            sharded_state.remove(folder / slot)


def load(
    folder: Path, like: Callable[[str, bool], Tensor] | None = None
) -> tuple[dict[str, Tensor], Progress] | None:
    """The newest slot that is whole, or None when there is none.

    `like(name, scalar)` gives a tensor that is sharded as that one is to be read; without it, and
    from a slot that one process wrote, whole tensors come.
    """
    slots = [(_read_progress(folder, slot), slot) for slot in SLOTS]
    for progress, slot in sorted(
        ((p, slot) for p, slot in slots if p), key=lambda pair: pair[0].step, reverse=True
    ):
        tensors = _read(folder, slot, like)
        if tensors is not None:
            return tensors, progress
    return None


def forget(folder: Path, step: int) -> None:
    """Remove the slots of this step and of later ones."""
    for slot in SLOTS:
        progress = _read_progress(folder, slot)
        if progress is not None and progress.step >= step:
            _file(folder, slot).unlink(missing_ok=True)
            sharded_state.remove(folder / slot)


def progress_of(folder: Path) -> Progress | None:
    """Return where the newest slot stands, by what it says of itself."""
    saved = [progress for slot in SLOTS if (progress := _read_progress(folder, slot))]
    return max(saved, key=lambda progress: progress.step, default=None)


def exists(folder: Path) -> bool:
    """Return whether a whole slot is there."""
    return any(_read_progress(folder, slot) and _whole(folder, slot) for slot in SLOTS)


def damaged(folder: Path) -> list[str]:
    """Slots that are there and not whole."""
    existing = [s for s in SLOTS if _file(folder, s).exists() or (folder / s).exists()]
    return [slot for slot in existing if not _whole(folder, slot)]


def target(name: str, scalar: bool, module: nn.Module, ema: EMA) -> Tensor:
    """Return an empty tensor, sharded as the tensor of that name is, to be read into."""
    part, _, rest = name.partition("/")
    if scalar:
        return torch.zeros(())
    averaged = {short_name(n): tensor for n, tensor in ema.tensors.items()}
    if part == "average" and rest in averaged:
        return torch.empty_like(averaged[rest])
    rest = rest.rpartition("/")[0] if part == "optimizer" else rest
    held = {short_name(n): tensor for n, tensor in module.state_dict().items()}
    if rest not in held:
        raise WeightsError(f"The saved state belongs to another recipe: '{name}' differs.")
    return torch.empty_like(held[rest])


def _file(folder: Path, slot: str) -> Path:
    return folder / f"{slot}.safetensors"


def _write(path: Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    metadata = {"progress": json.dumps(asdict(progress)), "digest": _digest(tensors)}

    def write(temporary: Path) -> None:
        files.write_tensors(temporary, tensors, metadata)
        if _read_file(temporary) is None:
            raise MachineError(
                f"The state written to {path.parent} does not read back as it was written. The "
                f"disk may be failing; the state before it is kept."
            )

    files.write_file(path, write, needed=files.bytes_of(tensors))


def _read_progress(folder: Path, slot: str) -> Progress | None:
    try:
        if (folder / slot).is_dir():
            return Progress.from_dict(sharded_state.facts(folder / slot))
        with safe_open(_file(folder, slot), "pt") as file:
            return Progress.from_dict(json.loads(file.metadata()["progress"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _whole(folder: Path, slot: str) -> bool:
    if (folder / slot).is_dir():
        return sharded_state.whole(folder / slot)
    return _read_file(_file(folder, slot)) is not None


def _read(
    folder: Path, slot: str, like: Callable[[str, bool], Tensor] | None
) -> dict[str, Tensor] | None:
    if (folder / slot).is_dir():
        return (
            sharded_state.read(folder / slot, like) if sharded_state.whole(folder / slot) else None
        )
    return _read_file(_file(folder, slot))


def _read_file(path: Path) -> dict[str, Tensor] | None:
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
