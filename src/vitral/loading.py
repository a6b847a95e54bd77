"""Load what was trained or converted: `vitral.load` returns a classifier that is ready to answer.

clf = vitral.load("runs/flowers", engine="openvino")
"""
# ruff: noqa: PLC0415 - with a compiled network an answer needs no torch, which takes a second

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral import machine
from vitral.classifier import Classifier
from vitral.engines import choose, openvino_engine
from vitral.engines.base import Engine, Precision
from vitral.engines.choose import EngineName
from vitral.errors import ModelError, UsageError, WeightsError
from vitral.evaluation.fit import Fitted
from vitral.storage import files
from vitral.weights import card as cards
from vitral.weights import digest
from vitral.weights.card import Card
from vitral.weights.stored_network import StoredNetwork

if TYPE_CHECKING:
    from vitral.weights.read import Weights


def load(
    run: str | os.PathLike[str],
    *,
    device: str | None = None,
    engine: str = "auto",
    precision: str = "auto",
    announce: Callable[[str], None] = print,
) -> Classifier:
    """The classifier in a run folder (its best/), an artifact, or any checkpoint or its id.

    A timm, transformers, torchvision or Google checkpoint is read as `vitral convert` would, and
    `announce` is called before a download begins, and with each sentence about what was assumed.

    Args:
        run: what is loaded.
        device: "cpu", "cuda", "cuda:1", ...; None is the fastest there is.
        engine: "torch", "openvino" (on a CPU), or "auto": on a CPU the one measured to be faster.
        precision: "fp32", "bf16", or "auto": bf16 where the device multiplies it.
        announce: told what was assumed, and which engine was chosen, a sentence each.

    Raises WeightsError when it is not one, or when the tensors do not fit exactly; MachineError for
    a device or an engine that is not there.
    """
    named = choose.check_name(engine)
    computed_in = choose.check_precision(precision)
    ready = _ready(run, device, named, computed_in)
    if ready is not None:
        return ready
    from vitral.weights.read import read_weights

    weights = read_weights(run, announce=announce)
    for decision in weights.decisions:
        announce(decision.sentence)
    return from_weights(
        weights, device=device, engine=named, precision=computed_in, announce=announce
    )


def _ready(
    run: str | os.PathLike[str], device: str | None, engine: EngineName, precision: Precision
) -> Classifier | None:
    """The classifier of an artifact whose compiled network the cache has; None of any other."""
    path = Path(run)
    if engine == "torch" or device not in (None, "cpu") or not files.current(path).is_dir():
        return None
    if device is None and machine.may_have_gpu():
        return None

    def read(folder: Path) -> Classifier | None:
        card = cards.load_card(folder)
        graph = folder / openvino_engine.GRAPH
        if graph.exists() and not (folder / cards.TENSORS).exists():
            return _exported(folder, card, precision)
        name = digest.of_artifact(folder, card.model)
        compiled = None if name is None else choose.kept(card.model, name, engine, precision)
        if name is None or compiled is None:
            return None
        fitted = Fitted.read(card, cards.load_fitted(folder))
        network = StoredNetwork(folder, name)
        return Classifier(network, compiled, card, fitted.foreign, fitted.sets)

    try:
        return files.read_folder(cards.locate(path), read)
    except WeightsError:  # another program's folder, or a damaged one, which read_weights tells of
        return None


def _exported(folder: Path, card: Card, precision: Precision) -> Classifier:
    """The classifier of a folder that `vitral export --to openvino` wrote."""
    stored: Any = card.made_by.get("export") or {}
    named = str(stored.get("precision", "fp32")) if isinstance(stored, dict) else "fp32"
    chosen = openvino_engine.runs_in(named) if precision == "auto" else precision
    try:
        engine = openvino_engine.opened(
            folder / openvino_engine.GRAPH, chosen, eight_bits=named.startswith("int8")
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise ModelError(
            f"{folder / openvino_engine.GRAPH} cannot be read ({reason}); export it again."
        ) from None
    fitted = Fitted.read(card, cards.load_fitted(folder))
    return Classifier(StoredNetwork(folder, ""), engine, card, fitted.foreign, fitted.sets)


def from_weights(
    weights: Weights,
    *,
    device: str | None = None,
    engine: EngineName = "torch",
    precision: Precision = "auto",
    announce: Callable[[str], None] = print,
) -> Classifier:
    """The classifier of weights that were read; raises as `load` does."""
    from vitral.engines.torch_engine import TorchEngine, best_device
    from vitral.weights import artifact

    chosen = best_device(device)
    card = weights.card
    model = artifact.network(weights.tensors, card.model).to(chosen)
    fitted = Fitted.read(card, weights.fitted)
    computing: Engine = TorchEngine(model, chosen, precision)
    if chosen.type == "cpu":
        name = None if weights.folder is None else digest.of_artifact(weights.folder, card.model)
        computing = choose.choose(
            computing,
            model,
            name or digest.of_tensors(weights.tensors, card.model),
            engine=engine,
            precision=precision,
            announce=announce,
        )
    elif engine == "openvino":
        raise UsageError(f"OpenVINO computes on the CPU here, not on {chosen}: --device cpu.")
    return Classifier(model, computing, card, fitted.foreign, fitted.sets)
