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
from vitral.engines import choose, merge_choices, openvino_engine
from vitral.engines.base import Engine, Precision
from vitral.engines.choose import EngineName
from vitral.errors import ModelError, UsageError, WeightsError
from vitral.evaluation.fit import Fitted
from vitral.specs.merging import AUTO, OFF, merge_counts
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
    merge: str = OFF,
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
        merge: tokens that each block merges, such as "13" or "13,-1", for speed; see
            `specs.merging.merge_counts`. "auto" takes the fastest schedule that costs half a point
            of accuracy at most on the images held out for the model, measured once.
        announce: told what was assumed, and which engine was chosen, a sentence each.

    Raises WeightsError when it is not one, or when the tensors do not fit exactly; MachineError for
    a device or an engine that is not there; UsageError for a schedule that the network cannot keep.
    """
    named = choose.check_name(engine)
    computed_in = choose.check_precision(precision)
    ready = _ready(run, device, named, computed_in, merge)
    if ready is not None:
        return ready
    from vitral.weights.read import read_weights

    weights = read_weights(run, announce=announce)
    for decision in weights.decisions:
        announce(decision.sentence)
    return from_weights(
        weights,
        device=device,
        engine=named,
        precision=computed_in,
        merge=merge,
        announce=announce,
    )


def _ready(
    run: str | os.PathLike[str],
    device: str | None,
    engine: EngineName,
    precision: Precision,
    merge: str,
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
            return _exported(folder, card, precision, merge)
        name = digest.of_artifact(folder, card.model)
        if name is None:
            return None
        schedule = merge_choices.kept(name, engine, precision) if merge == AUTO else merge
        if schedule is None:
            return None
        counts = merge_counts(schedule, card.model)
        merged = merge_choices.digest_of(name, counts)
        compiled = choose.kept(card.model, merged, engine, precision)
        if compiled is None:
            return None
        fitted = Fitted.read(card, cards.load_fitted(folder))
        network = StoredNetwork(folder, name)
        foreign = None if counts else fitted.foreign
        return Classifier(network, compiled, card, foreign, fitted.sets, counts)

    try:
        return files.read_folder(cards.locate(path), read)
    except WeightsError:  # another program's folder, or a damaged one, which read_weights tells of
        return None


def _exported(folder: Path, card: Card, precision: Precision, merge: str) -> Classifier:
    """The classifier of a folder that `vitral export --to openvino` wrote."""
    if merge != OFF:
        raise UsageError(
            f"{folder} is an export, which merges what it was made to: leave --merge out, or "
            f"export again with it."
        )
    found: Any = card.made_by.get("export")
    stored: dict[str, Any] = found if isinstance(found, dict) else {}
    named = str(stored.get("precision", "fp32"))
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
    merged: Any = card.made_by.get("merge")
    counts = tuple(merged) if isinstance(merged, list) else ()
    network = StoredNetwork(folder, "")
    return Classifier(network, engine, card, fitted.foreign, fitted.sets, counts)


def from_weights(
    weights: Weights,
    *,
    device: str | None = None,
    engine: EngineName = "torch",
    precision: Precision = "auto",
    merge: str = OFF,
    announce: Callable[[str], None] = print,
) -> Classifier:
    """The classifier of weights that were read; raises as `load` does."""
    from vitral.engines.torch_engine import TorchEngine, best_device
    from vitral.weights import artifact

    chosen = best_device(device)
    card = weights.card
    model = artifact.network(weights.tensors, card.model).to(chosen)
    fitted = Fitted.read(card, weights.fitted)
    if chosen.type != "cpu" and engine == "openvino":
        raise UsageError(f"OpenVINO computes on the CPU here, not on {chosen}: --device cpu.")
    name = None if weights.folder is None else digest.of_artifact(weights.folder, card.model)
    name = name or digest.of_tensors(weights.tensors, card.model)

    def computing(counts: tuple[int, ...]) -> Engine:
        network = model.merged(counts) if counts else model
        torch_engine = TorchEngine(network, chosen, precision)
        if chosen.type != "cpu":
            return torch_engine
        return choose.choose(
            torch_engine,
            network,
            merge_choices.digest_of(name, counts),
            engine=engine,
            precision=precision,
            announce=announce,
        )

    if merge != AUTO:
        counts = merge_counts(merge, card.model)
    else:
        from vitral import merging

        schedule = merge_choices.kept(name, engine, precision)
        if schedule is None:
            asked = (engine, precision)
            plain = computing(())
            schedule = merging.choose(model, card, name, plain, asked, announce=announce).merge
        counts = merge_counts(schedule, card.model)
    # what tells foreign pictures was fitted to tokens that were not merged
    foreign = None if counts else fitted.foreign
    return Classifier(model, computing(counts), card, foreign, fitted.sets, counts)
