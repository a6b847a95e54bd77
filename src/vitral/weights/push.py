"""An artifact on the Hugging Face hub: push("runs/flowers", "ORG/NAME").

What is pushed is the network, what was fitted beside it, model.json and the model card; no path, no
user name and nothing else of the run folder. HF_ENDPOINT names another hub, HF_TOKEN the token.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from vitral.errors import MachineError, UsageError, VitralError
from vitral.storage import files
from vitral.weights import artifact, model_card
from vitral.weights.convert import convert
from vitral.weights.read import is_artifact
from vitral.wording import byte_size, did_you_mean, listed

Library = Literal["vitral", "timm", "transformers"]

OF_AN_ARTIFACT = (artifact.TENSORS, artifact.FITTED, artifact.KEPT)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A model on the hub.

    Attributes:
        repo: its id; url: of its page.
        commit: that was made.
        library: whose files they are.
        private: whether its owner alone may read it.
        files: what was pushed; bytes: of them together.
    """

    repo: str
    url: str
    commit: str
    library: Library
    private: bool
    files: tuple[str, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "files": list(self.files)}


def push(
    run: str | os.PathLike[str],
    repo: str,
    *,
    to: str = "vitral",
    private: bool = False,
    licence: str | None = None,
    update: bool = False,
    announce: Callable[[str], None] = print,
) -> Pushed:
    """Put an artifact on the hub, as Vitral, timm or transformers read it, and return where it is.

    Args:
        run: a run folder or an artifact.
        repo: the id, ORG/NAME.
        to: "vitral", "timm" or "transformers"; the latter two with a proof, as `convert` makes it.
        private: make the repository readable for its owner alone.
        licence: an identifier of the hub's, such as "apache-2.0"; without one the card says that
            none was stated.
        update: push into a repository that exists; otherwise that is an error.
        announce: told what is pushed before it is.

    Raises UsageError for names that cannot be and a repository that exists, WeightsError for what
    is no artifact or cannot be held by the format, MachineError without a token, a network or the
    right to write there.
    """
    library = _checked(run, repo, to, licence)
    folder = artifact.locate(Path(run))
    card = artifact.load_card(folder)
    if get_token() is None:
        raise MachineError(
            "There is no token of the hub here. Log in with `hf auth login`, or set HF_TOKEN to "
            "one that may write (https://huggingface.co/settings/tokens)."
        )
    with tempfile.TemporaryDirectory() as place:
        made = Path(place)
        paths = _files(folder, made, library)
        # a card that somebody wrote is theirs, and goes as it is
        text = artifact.edited_card(folder) if library == "vitral" else None
        if text is None:
            text = model_card.text(card.to_dict(), licence=licence, library=library, repo=repo)
        elif licence is not None:
            text = model_card.with_licence(text, licence)
        files.write_text(made / model_card.FILE, text)
        paths[model_card.FILE] = made / model_card.FILE
        size = sum(path.stat().st_size for path in paths.values())
        who = "private" if private else "public"
        announce(f"Pushing to {_page(repo)} ({who}): {listed(paths, 9)}, {byte_size(size)}.")
        commit = _sent(repo, paths, private=private, update=update)
    return Pushed(
        repo=repo,
        url=_page(repo),
        commit=commit,
        library=library,
        private=private,
        files=tuple(paths),
        bytes=size,
    )


def _checked(run: str | os.PathLike[str], repo: str, to: str, licence: str | None) -> Library:
    """UsageError for what cannot be pushed, before anything is read or sent."""
    library: Library | None = next((name for name in get_args(Library) if name == to), None)
    if library is None:
        raise UsageError(f"--as is how it is read there; {did_you_mean(to, get_args(Library))}")
    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UsageError(
            f"'{repo}' is no id of the hub: ORG/NAME, of letters, digits, '-', '_' and '.', such "
            f"as {Path(run).name or 'me'}/flowers."
        )
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"--license is an identifier of the hub's list, such as apache-2.0, mit, cc-by-4.0 or "
            f"other, not '{licence}' (https://huggingface.co/docs/hub/repositories-licenses)."
        )
    if not Path(run).exists() and repo and not Path(repo).exists():
        raise UsageError(f"{run} does not exist. Give a run folder or an artifact folder.")
    if not is_artifact(Path(run)):
        raise UsageError(
            f"{run} is no run and no artifact; make one of a checkpoint: vitral convert {run} MINE"
        )
    return library


def _files(folder: Path, made: Path, library: Library) -> dict[str, Path]:
    """Files to push, by their names there; what is written for the push stands in `made`."""
    if library != "vitral":
        convert(folder, made / "converted", to=library)
        proof = made / "converted" / "proof.json"
        values = json.loads(proof.read_text(encoding="utf-8"))
        files.write_json(proof, model_card.public(values))
        return {path.name: path for path in sorted((made / "converted").iterdir())}
    values = model_card.public_card(artifact.load_card(folder).to_dict())
    files.write_json(made / artifact.CARD, values)
    there = {name: folder / name for name in OF_AN_ARTIFACT if (folder / name).is_file()}
    return {artifact.CARD: made / artifact.CARD, **there}


def _sent(repo: str, paths: dict[str, Path], *, private: bool, update: bool) -> str:
    """Make the repository and one commit in it; the id of the commit."""
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    created = False
    try:
        api.create_repo(repo, private=private, repo_type="model", exist_ok=update)
        created = True
        done = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(path)) for name, path in paths.items()],
            commit_message="A model made with Vitral",
        )
    except (HTTPError, HFValidationError, OSError, RuntimeError, ValueError) as error:
        raise _explained(error, repo, created=created) from None
    return str(done.oid)


def _explained(error: Exception, repo: str, *, created: bool) -> VitralError:
    """Make the sentence for what the hub's client raised."""
    again = " The repository is there, empty; repeat the command with --update." if created else ""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "Error while uploading" tells nothing
    status = None
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
    lines = str(error).strip().splitlines() or [type(error).__name__]
    match status:
        case 401:
            return MachineError(
                f"The hub does not know this token. Log in again with `hf auth login`, or set "
                f"HF_TOKEN to one that may write.{again}"
            )
        case 403 | 404:
            return MachineError(
                f"This token may not write to {repo}: it needs the right to write, and "
                f"'{repo.partition('/')[0]}' has to be you or an organisation of yours.{again}"
            )
        case 409:
            return UsageError(
                f"{repo} exists already. Push a new version of it with --update, or choose "
                f"another name."
            )
        case None if isinstance(error, ValueError) and not isinstance(error, HFValidationError):
            return UsageError(f"The hub refuses the model card: {lines[0]:.200}{again}")
        case None:
            other = (
                " A hub without Xet: HF_HUB_DISABLE_XET=1." if "HF_ENDPOINT" in os.environ else ""
            )
            return MachineError(
                f"The hub at {_endpoint()} cannot be reached ({lines[0]:.120}). Try again with a "
                f"network, or push the folder later: what was trained is untouched.{again}{other}"
            )
        case _:
            return MachineError(f"The hub did not take it ({status}: {lines[-1]:.200}).{again}")


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _page(repo: str) -> str:
    return f"{_endpoint()}/{repo}"
