"""The tensors in a checkpoint file of any format, read without running what is in it.

.npz (arrays alone), .safetensors, and torch's own under any of its endings (.pth .pt .bin .ckpt
.pth.tar ...), the latter two also in shards.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitral.errors import WeightsError
from vitral.weights import artifact, stand_ins
from vitral.weights.stand_ins import StandIn
from vitral.wording import listed

SUFFIXES = (".npz", ".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# what torch.save writes begins as a zip, or as a pickle in files older than 2020
TORCH = (b"PK\x03\x04", b"\x80\x02")
OTHER_FILES = {  # endings of files that hold a network in a form that is not read here
    ".onnx": "an ONNX graph",
    ".pt2": "a program exported by torch.export",
    ".h5": "a file of Keras",
    ".keras": "a file of Keras",
    ".msgpack": "a flax tree in msgpack",
    ".tflite": "a program for TensorFlow Lite",
    ".pb": "a TensorFlow graph",
    ".gguf": "a quantised file for llama.cpp",
    ".engine": "a program for TensorRT",
    ".mlmodel": "a program for Core ML",
}
# parts of what a training saves that hold no network
BESIDE = re.compile(r"optim|sched|scaler|^loops$|^callbacks$|rng|^amp$", re.IGNORECASE)
DEEPEST = 5  # of the dictionaries in a file
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
# what DataParallel, torch.compile, FSDP and checkpointing put into names
WRAPPERS = ("module.", "_orig_mod.")
INFIXES = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint as it was found, under its own names.

    Attributes:
        path: the file, or the folder.
        tensors: under the format's own names.
        config: what the folder's config.json says; None without one.
        preprocessor: what its preprocessor_config.json says; None without one.
        settings: what stood in the file beside the tensors, as plain values and stand-ins.
        metadata: what torch keeps of each module of a state_dict, by its name; empty without.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = field(default=None)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Content(NamedTuple):
    """The content of one file: its tensors by name, and what `Source` tells beside them."""

    tensors: dict[str, Tensor]
    settings: Mapping[str, Any]
    metadata: Mapping[str, Any]


Joined = Callable[[Mapping[str, Mapping[str, Tensor]]], Mapping[str, Tensor] | None]


def read(path: Path, join: Joined | None = None) -> Source:
    """Read a checkpoint file, or a folder with one and its configuration.

    `join` is asked for the network that several checkpoints of a folder make, by file name; None
    where they make none.

    Raises WeightsError, with the reason in a sentence, for anything else.
    """
    if not path.exists():
        raise WeightsError(
            f"{path} does not exist. Give a run, an artifact, a checkpoint file or its folder, "
            "or an id (`vitral models --weights` lists some)."
        )
    if path.name.endswith(".index.json"):
        path = path.parent
    if path.is_dir():
        content = _folder_content(path, join)
        config = json_file(path / "config.json")
        preprocessor = json_file(path / "preprocessor_config.json")
    else:
        content = file_content(path)
        config = json_file(path.with_name("config.json")) if path.suffix != ".npz" else None
        preprocessor = (
            None if config is None else json_file(path.with_name("preprocessor_config.json"))
        )
    return Source(
        path=path,
        tensors=content.tensors,
        config=config,
        preprocessor=preprocessor,
        settings=content.settings,
        metadata=content.metadata,
    )


def _folder_content(folder: Path, join: Joined | None) -> Content:
    """Of the file that the folder is named for (the safe format first), its shards, or what joins.

    Several files whose names say nothing are one network only where `join` says so.
    """
    named = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    paths = [path for path in named if path.exists()][:1] or _shards(folder)
    beside = (artifact.FITTED, artifact.KEPT)  # of an artifact that lost its model.safetensors
    several = [
        path
        for path in ([] if paths else sorted(folder.iterdir()))
        if path.name.endswith(SUFFIXES) and path.name not in beside
    ]
    if not paths and not several:
        raise WeightsError(
            f"{folder} is neither a run folder nor an artifact, and it holds no checkpoint "
            f"({', '.join(SUFFIXES)}).{_below(folder)}"
        )
    contents = {path.name: file_content(path) for path in paths or several}
    if len(contents) == 1:
        return next(iter(contents.values()))
    files = {name: content.tensors for name, content in contents.items()}
    if paths:
        return Content({name: x for part in files.values() for name, x in part.items()}, {}, {})
    if join is None or (joined := join(files)) is None:
        raise WeightsError(
            f"{folder} holds several checkpoints ({listed(files)}); name one of them."
        )
    return Content(dict(joined), {}, {})


def _below(folder: Path) -> str:
    """Name the folders inside that hold checkpoints, as those of transformers' Trainer do."""
    holding = sorted({file.parent for file in folder.glob("*/*") if file.name.endswith(SUFFIXES)})
    return f" Of its folders these do: {listed(holding)}; name one of them." if holding else ""


def _shards(folder: Path) -> list[Path]:
    """The shards that the folder's index lists; none without an index."""
    index = next((folder / name for name in INDICES if (folder / name).exists()), None)
    if index is None:
        return []
    names = (json_file(index) or {}).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{index} lists no shards; download the folder again.")
    shards = sorted({Path(str(name)).name for name in names.values()})
    if missing := [name for name in shards if not (folder / name).exists()]:
        raise WeightsError(f"{folder} lacks the shard {missing[0]}; download it as well.")
    return [folder / name for name in shards]


def file_content(path: Path) -> Content:
    """Read one file; what it holds decides where its ending says nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise WeightsError(f"{path} is empty. Download it again.")
    if PAGE.match(head):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint. The download met an error page: open the "
            "address in a browser, or fetch the file itself."
        )
    if path.suffix in OTHER_FILES:
        raise WeightsError(
            f"{path} is {OTHER_FILES[path.suffix]}; weights are read from {', '.join(SUFFIXES)}. "
            "Where it was made, save the tensors: torch.save(model.state_dict(), 'weights.pth')."
        )
    if path.suffix == ".safetensors":
        content = Content(_safetensors(path), {}, {})
    elif path.suffix == ".npz":
        content = Content(_npz(path), {}, {})
    elif path.name.endswith(SUFFIXES) or head.startswith(TORCH):
        content = _pickled(path)
    else:
        raise WeightsError(
            f"{path.name} is none of the formats that hold weights ({', '.join(SUFFIXES)})."
        )
    if not content.tensors:
        raise WeightsError(f"{path} holds no tensors.")
    return content._replace(tensors=_without_wrappers(content.tensors))


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that they have in the network without what ran it."""
    plain = {INFIXES.sub(r"\1", name): x for name, x in tensors.items()}
    tensors = plain if len(plain) == len(tensors) else tensors
    for wrapper in (*WRAPPERS, WRAPPERS[0]):  # either may be around the other
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): x for name, x in tensors.items()}
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as opened:  # numpy leaves open what it cannot read
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise WeightsError(f"{path} is a single array, not an archive of named arrays.")
            arrays = {name: file[name] for name in file.files}
    except WeightsError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise WeightsError(
                f"{path} holds Python objects (an object array, or a pickle), which could run "
                "code and are never read. Save plain arrays with numpy.savez."
            ) from None
        raise _damaged(path, error) from None
    except (zipfile.BadZipFile, OSError, EOFError, MemoryError, KeyError, SyntaxError) as error:
        raise _damaged(path, error) from None
    except Exception as error:  # numpy's reader and zlib raise what they like at broken bytes
        raise _damaged(path, error) from None
    return {name: _array(name, array, path) for name, array in arrays.items()}


def _array(name: str, array: np.ndarray | bytes, path: Path) -> Tensor:
    """One array; two void bytes are bfloat16, which numpy cannot name."""
    if isinstance(array, bytes):  # of a member that is not numpy's
        raise WeightsError(f"{path}: '{name}' is no array; the file is damaged, or another zip.")
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape))
    except TypeError:
        raise WeightsError(
            f"{path}: the array '{name}' holds {array.dtype}, which is no tensor; remove it."
        ) from None


def _pickled(path: Path) -> Content:
    """Read torch's own files: tensors, plain containers, and stand-ins for everything else.

    Of several networks in one file, each tensor's name begins with the dictionary that held it.
    """
    try:
        values = stand_ins.load(path)
    except Exception as error:  # broken bytes raise anything at all in there
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript program, not weights alone. Where it was made, save "
                "the tensors: torch.save(model.state_dict(), 'weights.pth')."
            ) from None
        if "DTensor" in str(error) or "Tensor subclass" in str(error):
            raise WeightsError(
                f"{path} holds tensors of a class of their own: parts of one process (FSDP), or "
                "quantised ones. Where it was made, gather plain tensors (full_state_dict=True) "
                "and save those."
            ) from None
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise WeightsError(
                f"{path} holds Python objects beside its tensors ({_reason(error)}), which could "
                "run code and are never read. Where it was made, save the tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth')."
            ) from None
        raise _damaged(path, error) from None
    holders = _holders(values, "", 0)
    if not holders:
        raise WeightsError(f"{path} {_without_tensors(values)}")
    tensors = {
        f"{place}.{name}" if place and len(holders) > 1 else name: x
        for place, held in holders.items()
        for name, x in held.items()
    }
    for name, x in tensors.items():
        if type(x) not in (Tensor, torch.nn.Parameter):
            raise WeightsError(
                f"{path}: '{name}' is a {type(x).__name__}, one process's part of a whole. Gather "
                "the state_dict where it was made (full_state_dict=True) and save that."
            )
        # a shape may be stretched over one number in the file, and fill the memory when copied
        dense = x.layout is torch.strided and x.device.type == "cpu" and not x.is_quantized
        if not dense or x.nbytes > x.untyped_storage().nbytes():
            raise WeightsError(f"{path}: the tensor '{name}' is not stored whole; save it dense.")
    settings = dict(values) if isinstance(values, Mapping) and "" not in holders else {}
    state = values if "" in holders else settings.get(next(iter(holders)))
    metadata = getattr(state, "_metadata", None) if len(holders) == 1 else None
    return Content(
        {name: x.detach() for name, x in tensors.items()},
        {str(name): part for name, part in settings.items() if name not in holders},
        metadata if isinstance(metadata, Mapping) else {},
    )


def _holders(values: Any, place: str, depth: int) -> dict[str, dict[str, Tensor]]:
    """The dictionaries and modules in a file that hold tensors, by where they stand in it."""
    if stand_ins.is_module(values):
        whole = dict(stand_ins.state_dict(values))
        return {place: whole} if whole else {}
    values = values.values if isinstance(values, StandIn) else values
    if isinstance(values, list | tuple):  # (state_dict, epoch)
        held = (x for x in enumerate(values) if isinstance(x[1], Mapping | StandIn))
        values = {str(place): x for place, x in held}
    if not isinstance(values, Mapping) or depth > DEEPEST:
        return {}
    own = {k: x for k, x in values.items() if isinstance(k, str) and isinstance(x, Tensor)}
    holders = {place: own} if own else {}
    for name, inner in values.items():
        if isinstance(name, str) and not BESIDE.search(name):
            holders |= _holders(inner, f"{place}.{name}" if place else name, depth + 1)
    return holders


def _without_tensors(values: Any) -> str:
    """Say what a file holds that holds no tensor by name."""
    if isinstance(values, StandIn):
        return (
            f"holds an object of {values.path} (a whole model, as detectors are saved, or a "
            "script's settings) in which no tensor has a name. Where it was made, save the "
            "tensors alone: torch.save(model.state_dict(), 'weights.pth')."
        )
    if not isinstance(values, Mapping):
        return f"holds a {type(values).__name__}, not a state_dict."
    names = [str(name) for name in values]
    if {"state", "param_groups"} <= set(names) or (names and all(map(BESIDE.search, names))):
        return (
            "holds the state of an optimizer alone, and no network. Give the file of the model "
            "beside it."
        )
    return (
        f"is no state_dict: it holds {listed(names, 6) or 'nothing'}, and no tensor by name. Save "
        "the tensors alone: torch.save(model.state_dict(), 'weights.pth')."
    )


def json_file(path: Path) -> dict[str, Any] | None:
    """Read settings; None where there is no such file. Raises WeightsError for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); fetch it again.") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, not settings by name.")
    return values


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    if not lines:
        return kind
    return lines[0][:120] if any(map(str.isalpha, lines[0])) else f"{kind} {lines[0][:120]}"


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read ({_reason(error)}). It is damaged, incomplete, or of another "
        "format than its name says; download it again."
    )
