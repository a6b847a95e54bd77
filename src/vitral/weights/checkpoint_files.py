"""The tensors in a checkpoint file of any format, read without running what is in it.

.npz (arrays alone), .safetensors (also in shards), .pth .pt .bin (torch's weights-only reader).
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitral.errors import WeightsError
from vitral.wording import listed

SUFFIXES = (".npz", ".safetensors", ".pth", ".pt", ".bin")
INDEX = "model.safetensors.index.json"
# where training scripts keep the state_dict inside what they save
NESTED = ("model", "state_dict", "model_state_dict", "weights", "teacher", "net")
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, DistributedDataParallel; torch.compile


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint as it was found, under its own names.

    Attributes:
        path: the file, or the folder.
        tensors: under the format's own names.
        config: what the folder's config.json says; None without one.
        preprocessor: what its preprocessor_config.json says; None without one.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = field(default=None)


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
    if path.is_dir():
        return Source(
            path=path,
            tensors=_folder_tensors(path, join),
            config=_json(path / "config.json"),
            preprocessor=_json(path / "preprocessor_config.json"),
        )
    beside = _json(path.with_name("config.json")) if path.suffix != ".npz" else None
    return Source(path=path, tensors=_file_tensors(path), config=beside)


def _folder_tensors(folder: Path, join: Joined | None) -> Mapping[str, Tensor]:
    """Of the file that the folder is named for (the safe format first), its shards, or what joins.

    Several files whose names say nothing are one network only where `join` says so.
    """
    named = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    paths = _shards(folder) or [path for path in named if path.exists()][:1]
    several = [] if paths else sorted(x for x in folder.iterdir() if x.suffix in SUFFIXES)
    if not paths and not several:
        raise WeightsError(
            f"{folder} is neither a run folder nor an artifact, and it holds no checkpoint "
            f"({', '.join(SUFFIXES)})."
        )
    files = {path.name: _file_tensors(path) for path in paths or several}
    if len(several) < 2:
        return {name: x for tensors in files.values() for name, x in tensors.items()}
    if join is None or (joined := join(files)) is None:
        raise WeightsError(
            f"{folder} holds several checkpoints ({listed(files)}); name one of them."
        )
    return joined


def _shards(folder: Path) -> list[Path]:
    """The shards that the folder's index lists; none without an index."""
    if not (folder / INDEX).exists():
        return []
    names = (_json(folder / INDEX) or {}).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{folder / INDEX} lists no shards; download the folder again.")
    shards = sorted({Path(str(name)).name for name in names.values()})
    if missing := [name for name in shards if not (folder / name).exists()]:
        raise WeightsError(f"{folder} lacks the shard {missing[0]}; download it as well.")
    return [folder / name for name in shards]


def _file_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file; what it holds decides, not its suffix."""
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
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
    elif path.suffix == ".npz":
        tensors = _npz(path)
    elif path.suffix in SUFFIXES:
        tensors = _pickled(path)
    else:
        raise WeightsError(
            f"{path.name} is none of the formats that hold weights ({', '.join(SUFFIXES)})."
        )
    if not tensors:
        raise WeightsError(f"{path} holds no tensors.")
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


def _pickled(path: Path) -> dict[str, Tensor]:
    """torch.load with weights_only: tensors and plain containers, and nothing else."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings of a training
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes raise anything at all in there
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise WeightsError(
                f"{path} holds Python objects beside its tensors (a whole model, as detectors are "
                "saved, or a script's settings), which could run code and are never read. Where it "
                "was made, save the tensors alone: torch.save(model.state_dict(), 'weights.pth')."
            ) from None
        raise _damaged(path, error) from None
    for _ in NESTED:
        if not isinstance(values, dict) or _is_state_dict(values):
            break
        inner = [k for k in NESTED if isinstance(values.get(k), dict)]
        if not inner:
            keys = ", ".join(str(key) for key in list(values)[:6])
            raise WeightsError(
                f"{path} is no state_dict: it holds {keys or 'nothing'}. Save the tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth')."
            )
        values = values[inner[0]]
    if not isinstance(values, dict) or not _is_state_dict(values):
        raise WeightsError(f"{path} holds a {type(values).__name__}, not a state_dict.")
    for name, x in values.items():
        # a shape may be stretched over one number in the file, and fill the memory when copied
        dense = x.layout is torch.strided and x.device.type == "cpu" and not x.is_quantized
        if not dense or x.nbytes > x.untyped_storage().nbytes():
            raise WeightsError(f"{path}: the tensor '{name}' is not stored whole; save it dense.")
    return {name: x.detach() for name, x in values.items()}


def _is_state_dict(values: Mapping[Any, Any]) -> bool:
    return bool(values) and all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in values.items()
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); fetch it again.") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, not settings by name.")
    return values


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = (
        str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
    )
    return WeightsError(
        f"{path} cannot be read ({reason}). It is damaged, incomplete, or of another format than "
        "its name says; download it again."
    )
