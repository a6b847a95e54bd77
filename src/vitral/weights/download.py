"""Weights by id: fetch("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", announce=print).

Ids are `org/name` (with `@revision`, with or without `hf-hub:`) of the Hugging Face hub, kept in
the hub's own cache, and the ids of weights.toml that have a url, kept in Vitral's.
What is there already is used without any contact; nothing is opened or unpickled here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo

from vitral.catalog.checkpoints import Checkpoint, checkpoint, checkpoints
from vitral.errors import DataError, MachineError, VitralError, WeightsError
from vitral.storage import cache, files, remote
from vitral.wording import byte_size, closest, listed

HUB_ID = re.compile(
    r"(?P<prefix>hf[-_]hub:)?(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?"
)
FILES = re.compile(r"\.(safetensors|npz|pth?|bin|ckpt|json|toml|csv|tar|zip)$", re.IGNORECASE)
SHARD = re.compile(r"(?:pytorch_)?model-\d+-of-(\d+)(\.safetensors|\.bin)")
INDICES = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")  # low-rank updates of peft
# how the model, its images and its updates are made
SMALL = ("config.json", "preprocessor_config.json", "adapter_config.json")
# of an artifact that `vitral push` put there
OURS = ("model.json", "calibration.safetensors", "kept.safetensors")
OF_THE_DISK = (*files.NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def is_id(text: str) -> bool:
    """Tell whether a text means published weights and not a path.

    A row of weights.toml or a `hf-hub:` prefix always does; `org/name` does unless there is such
    a file here or a folder `org`, so that a mistyped path is not looked for on the network.
    """
    if checkpoint(text) is not None:
        return True
    found = HUB_ID.fullmatch(text)
    if found is None or found["prefix"]:
        return found is not None
    here = Path(text)
    return not (here.exists() or Path(here.parts[0]).is_dir() or FILES.search(text))


def fetch(id: str, *, announce: Callable[[str], None], offline: bool | None = None) -> Path:
    """Return a local folder with the weights of an id, a file or shards, and its config files.

    The cache is asked first. Before a download `announce` gets one line: id, file, size, licence.
    `offline` forbids the network; None asks HF_HUB_OFFLINE.

    Raises:
        WeightsError: no such id or revision, gated, or without weights that Vitral reads.
        MachineError: the network may not or cannot be used, or the disk does not take the file.
    """
    if offline is None:
        named = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
        offline = constants.HF_HUB_OFFLINE or named.upper() in constants.ENV_VARS_TRUE_VALUES
    row = checkpoint(id)
    if row is not None and row.url:
        return _from_url(row, row.url, announce, offline)
    return _from_hub(id, announce, offline)


def hub_cache() -> Path:
    """Name the hub's own folder of files: HF_HUB_CACHE, or HF_HOME/hub, as they are now."""
    home = os.environ.get("HF_HOME")
    place = os.environ.get("HF_HUB_CACHE") or (home and f"{home}/hub") or constants.HF_HUB_CACHE
    return Path(os.path.expandvars(place)).expanduser()


def _from_hub(id: str, announce: Callable[[str], None], offline: bool) -> Path:
    found = HUB_ID.fullmatch(id)
    if found is None:
        raise WeightsError(f"'{id}' is no id of published weights; ids look like timm/NAME.")
    repo = found["repo"]
    revision = found["revision"] or constants.DEFAULT_REVISION
    folder = _cached(repo, revision)
    if folder and (offline or _is_complete(repo, folder)):
        return folder
    if offline:
        raise MachineError(
            f"{id} is not on this computer and the network may not be used. "
            + _by_hand(repo, revision)
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    # weights that are here already get the small files of their own commit
    at = folder.name if folder else revision
    wanted: list[str] = []
    size = 0
    try:
        info = api.model_info(
            repo, revision=at, files_metadata=True, timeout=remote.TIMEOUT_SECONDS
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        weights = [] if folder else _weights(sizes)
        wanted = [*weights, *(name for name in (*SMALL, *OURS) if name in sizes)]
        size = sum(sizes[name] for name in wanted)
        if folder is None:
            if not weights:
                raise WeightsError(_without_weights(id, sizes))
            _check_space(id, size)
            announce(
                f"Downloading {id}: {listed(weights, 1)}, {byte_size(size)}, "
                f"licence {_licence(info, repo)}."
            )
        return Path(
            api.snapshot_download(repo, revision=at, cache_dir=hub_cache(), allow_patterns=wanted)
        )
    except (HTTPError, HFValidationError, OSError, RuntimeError) as error:  # the last: hf_xet
        if folder is not None:  # enough to work with
            return folder
        file = wanted[0] if wanted else None
        raise _explained(error, id, repo, revision, file, size) from None


def _cached(repo: str, revision: str) -> Path | None:
    """Find the snapshot with all weights of a repository in the cache; None if it is not there."""
    try:
        folder = Path(
            HfApi().snapshot_download(
                repo,
                revision=revision,
                cache_dir=hub_cache(),
                local_files_only=True,
                allow_patterns=[],
            )
        )
    except (HFValidationError, OSError):
        return None
    # a link whose blob was never finished leads nowhere
    return folder if _weights(file.name for file in folder.iterdir() if file.is_file()) else None


def _is_complete(repo: str, folder: Path) -> bool:
    """Tell whether config.json is here too, or known not to exist, or not needed (npz, ours)."""
    if any(folder.glob("*.npz")) or (folder / OURS[0]).is_file():
        return True
    return try_to_load_from_cache(repo, SMALL[0], hub_cache(), revision=folder.name) is not None


def _weights(names: Iterable[str]) -> list[str]:
    """Pick the files of a repository that hold its weights; a pickle only without others."""
    present = set(names)
    if "model.safetensors" in present:
        return ["model.safetensors"]
    for suffix, index in INDICES.items():
        shards = sorted(x for x in present if SHARD.fullmatch(x) and x.endswith(suffix))
        if index in present and shards and all(_total(name) == len(shards) for name in shards):
            return [*shards, index]
        if suffix == ".bin" and "pytorch_model.bin" in present:
            return ["pytorch_model.bin"]
    if updates := [name for name in ADAPTERS if name in present]:
        return updates[:1]
    arrays = [name for name in present if name.endswith(".npz") and "/" not in name]
    return arrays if len(arrays) == 1 else []


def _total(shard: str) -> int:
    found = SHARD.fullmatch(shard)
    return int(found[1]) if found else 0


def _licence(info: ModelInfo, repo: str) -> str:
    card = info.card_data
    stated = card and (card.get("license_name") or card.get("license"))
    row = checkpoint(repo)
    return str(stated or (row.licence if row else "not stated"))


def _without_weights(id: str, names: Iterable[str]) -> str:
    there = listed(sorted(names), 8) or "nothing"
    return (
        f"{id} has no weights that Vitral reads (model.safetensors, pytorch_model.bin, one .npz); "
        f"it holds {there}. If one of them is a ViT, download it and give its path."
    )


def _by_hand(repo: str, revision: str, file: str | None = None) -> str:
    """Say how to do without the network of this machine."""
    row = checkpoint(repo)
    file = file or (row.file if row else "model.safetensors")
    return (
        f"On a connected computer download {hf_hub_url(repo, file, revision=revision)} and the "
        f"config.json beside it, put both into a folder here, then `vitral convert FOLDER OUT`."
    )


def _explained(
    error: Exception, id: str, repo: str, revision: str, file: str | None, size: int
) -> VitralError:
    """Make the sentence for what the hub's client raised."""
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError():  # one kind of RepositoryNotFoundError
            return WeightsError(
                f"{id} is gated: accept its licence at {page}, log in with `hf auth login` (or set "
                f"HF_TOKEN), and repeat the command."
            )
        case RepositoryNotFoundError():
            close = closest(repo, [row.id for row in checkpoints()])
            hint = f"did you mean {close}?" if close else f"look for it at {page}."
            return WeightsError(
                f"The hub has no {repo}, or it is private (`hf auth login` opens your own); {hint}"
            )
        case RevisionNotFoundError():
            return WeightsError(
                f"{repo} has no revision '{revision}'. Leave the @ and what follows out, or choose "
                f"one of {page}/tree/main."
            )
        case HFValidationError():
            return WeightsError(f"'{id}' is no id of the hub; ids look like timm/NAME.")
        case OSError() if not isinstance(error, HfHubHTTPError) and error.errno in OF_THE_DISK:
            return _disk(error, hub_cache(), size)
        case _:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return MachineError(
                f"{id} is not on this computer and the hub did not give it ({lines[0]:.120}). "
                + _by_hand(repo, revision, file)
            )


def _from_url(row: Checkpoint, url: str, announce: Callable[[str], None], offline: bool) -> Path:
    folder = cache.folder() / "weights" / re.sub(r"[^\w.+-]+", "--", row.id)
    path = folder / row.file
    if path.is_file():
        return folder
    by_hand = (
        f"On a connected computer download {url}, bring it here, then "
        f"`vitral convert {row.file} OUT`."
    )
    if offline:
        raise MachineError(
            f"{row.id} is not on this computer and the network may not be used. {by_hand}"
        )
    announce(f"Downloading {row.id}: {row.file}, {byte_size(row.bytes)}, licence {row.licence}.")
    try:
        remote.fetch(url, path, accept=partial(_check_size, row), check=partial(_check_digest, url))
    except DataError as error:
        raise MachineError(f"{row.id} is not on this computer: {error}. {by_hand}") from None
    return folder


def _check_size(row: Checkpoint, size: int) -> None:
    if not 0.9 * row.bytes < size < 1.1 * row.bytes:
        raise WeightsError(
            f"{row.url} answered with {byte_size(size)} instead of about {byte_size(row.bytes)}: a "
            f"page of a proxy or a log-in, not the weights. Open it in a browser, save the file, "
            f"and give its path."
        )


def _check_digest(url: str, path: Path) -> None:
    """Compare a file with the first digits of its SHA-256, in which torchvision's names end."""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", url)
    if digits is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(digits[1]):
        raise WeightsError(
            f"What {url} gave is damaged: its SHA-256 begins with {digest[:8]}, not {digits[1]}. "
            "Repeat the command."
        )


def _disk(error: OSError, path: Path, size: int) -> MachineError:
    if error.errno in files.NO_ROOM:
        return files.write_error(error, path, size)
    return MachineError(
        f"Cannot write {path}: {error.strerror or error}. Set HF_HOME to a folder that you may "
        "write."
    )


def _check_space(id: str, size: int) -> None:
    place = hub_cache().absolute()
    free = shutil.disk_usage(files.nearest_parent(place)).free
    if size > free:
        raise MachineError(
            f"{id} needs {byte_size(size)}, but {place} has {byte_size(free)} free. Free some "
            "space, or set HF_HOME to a folder on a larger disk."
        )
