"""Throughput, latency and memory of a network by engine, precision and batch, on this machine.

for row in bench("S/16", batches=(1, 8)).rows:
    print(row.engine, row.precision, row.batch, row.images_per_second)
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitral import catalog, machine
from vitral.classifier import Classifier
from vitral.engines import measure
from vitral.engines.choose import check_name
from vitral.errors import ModelError, UsageError, VitralError
from vitral.loading import from_weights, load
from vitral.specs import counts
from vitral.weights.card import Card
from vitral.weights.download import is_id
from vitral.weights.read import Weights

ROUNDS = 20
LEAST_SECONDS = 2.0  # of each row, where the rounds end sooner
MOST_ROUNDS = 200
EngineUsed = Literal["torch", "openvino"]
Pair = tuple[EngineUsed, Literal["fp32", "bf16"]]
PAIRS: tuple[Pair, ...] = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The measurement of one engine in one precision at one batch.

    Attributes:
        engine, precision, batch: what was measured.
        images_per_second: at the median latency.
        p50, p99: seconds for a batch.
        of_matrix_rate: the network's operations over those of a large matrix product by torch in
            the same precision, in the same run.
        peak_memory: bytes of a fresh process that loads the network and computes such batches.
        reason: why there is no measurement; then all numbers are None.
    """

    engine: str
    precision: str
    batch: int
    images_per_second: float | None = None
    p50: float | None = None
    p99: float | None = None
    of_matrix_rate: float | None = None
    peak_memory: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """The measurements of a network.

    Attributes:
        model: its name; size: its images, (height, width).
        flops: operations for an image.
        threads: what it computed with.
        matrix_rates: measured operations a second by precision.
        rows: by batch, engine and precision.
    """

    model: str
    size: tuple[int, int]
    flops: int
    threads: int
    matrix_rates: dict[str, float]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def bench(
    run: str | os.PathLike[str],
    *,
    batches: Sequence[int] = (1, 8),
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    memory: bool = True,
    announce: Callable[[str], None] = print,
) -> Bench:
    """Measure a run, an artifact, a checkpoint, or a model of the catalogue with random weights.

    Args:
        run: what is measured.
        batches: images at a time.
        engine, precision: one of them alone; "auto" measures all that there are.
        threads: cores to compute with; all by default.
        memory: whether peak memory is measured, in a process for each engine and precision.
        announce: told what takes long.

    Raises UsageError for batches and threads that cannot be, ModelError for an unknown model.
    """
    if not batches or min(batches) < 1:
        raise UsageError("A batch is at least one image: --batch 1,8,64.")
    if threads is not None and not 1 <= threads <= machine.cores():
        raise UsageError(f"--threads is 1 to {machine.cores()}, the cores that there are here.")
    check_name(engine)
    pairs = [
        pair for pair in PAIRS if engine in ("auto", pair[0]) and precision in ("auto", pair[1])
    ]
    if not pairs:
        raise UsageError(f"precision is one of fp32, bf16 and auto, not '{precision}'.")
    with _threads(threads):
        return _measured(run, batches, pairs, threads, memory, announce)


def _measured(
    run: str | os.PathLike[str],
    batches: Sequence[int],
    pairs: Sequence[Pair],
    threads: int | None,
    memory: bool,
    announce: Callable[[str], None],
) -> Bench:
    ready: dict[Pair, Classifier] = {}
    reasons: dict[Pair, str] = {}
    for pair in pairs:
        announce(f"preparing {pair[0]} {pair[1]}")
        try:
            ready[pair] = _classifier(run, *pair)
        except VitralError as error:
            reasons[pair] = str(error)
    if not ready:
        raise ModelError(next(iter(reasons.values())))
    spec = next(iter(ready.values())).card.model
    flops = counts.flops(spec)
    used: set[Literal["fp32", "bf16"]] = {pair[1] for pair in pairs}
    rates = {each: measure.matrix_rate(each) for each in sorted(used)}
    peaks = {pair: _peak(run, pair, max(batches), threads) if memory else None for pair in ready}
    rows: list[Row] = []
    for batch in batches:
        announce(f"measuring batches of {batch}")
        shape = (batch, spec.channels, *spec.size)
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        calls = [partial(classifier.engine.logits, images) for classifier in ready.values()]
        once = measure.interleaved(calls, 1)
        slowest = max(seconds[0] for seconds in once)
        rounds = int(min(MOST_ROUNDS, max(ROUNDS, LEAST_SECONDS / max(slowest, 1e-6))))
        found = dict(zip(ready, measure.interleaved(calls, rounds), strict=True))
        for pair in pairs:
            if pair in reasons:
                row = Row(engine=pair[0], precision=pair[1], batch=batch, reason=reasons[pair])
            else:
                seconds = np.array(found[pair])
                middle = float(np.median(seconds))
                row = Row(
                    engine=pair[0],
                    precision=pair[1],
                    batch=batch,
                    images_per_second=batch / middle,
                    p50=middle,
                    p99=float(np.quantile(seconds, 0.99)),
                    of_matrix_rate=flops * batch / middle / rates[pair[1]],
                    peak_memory=peaks[pair],
                )
            rows.append(row)
    return Bench(
        model=spec.name,
        size=spec.size,
        flops=flops,
        threads=threads or machine.cores(),
        matrix_rates={str(name): rate for name, rate in rates.items()},
        rows=tuple(rows),
    )


def _classifier(
    run: str | os.PathLike[str], engine: EngineUsed, precision: Literal["fp32", "bf16"]
) -> Classifier:
    """The network of a run, or of a name with weights drawn from a seed."""
    known = os.fspath(run) in catalog.names()
    if not known and (Path(run).exists() or is_id(os.fspath(run))):
        return load(run, device="cpu", engine=engine, precision=precision, announce=_nothing)
    spec = catalog.model(os.fspath(run), classes=1000)
    import torch  # noqa: PLC0415 - compiled runs are measured without it

    from vitral.model import build  # noqa: PLC0415
    from vitral.specs import ImageSpec  # noqa: PLC0415

    torch.manual_seed(0)
    network = build(spec)
    card = Card(
        model=spec,
        images=ImageSpec(size=spec.size),
        classes=tuple(map(str, range(spec.classes))),
    )
    weights = Weights(tensors=network.state_dict(), card=card)
    return from_weights(
        weights, device="cpu", engine=engine, precision=precision, announce=_nothing
    )


def _nothing(_: str) -> None:
    pass


def _peak(run: str | os.PathLike[str], pair: Pair, batch: int, threads: int | None) -> int | None:
    """The most memory of a fresh process that computes such batches."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        try:
            return pool.apply(_compute_and_look, (os.fspath(run), pair, batch, threads))
        except (VitralError, OSError):
            return None


def _compute_and_look(run: str, pair: Pair, batch: int, threads: int | None) -> int:
    with _threads(threads):
        classifier = _classifier(run, *pair)
        spec = classifier.card.model
        images = np.zeros((batch, spec.channels, *spec.size), np.float32)
        for _ in range(3):
            classifier.engine.logits(images)
    return machine.peak_resident()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads on as many cores, whatever the engine."""
    if count is None:
        yield
        return
    import torch  # noqa: PLC0415 - only where it is asked for

    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    torch.set_num_threads(count)
    if cores:
        os.sched_setaffinity(0, sorted(cores)[:count])  # which OpenVINO counts its threads by
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if cores:
            os.sched_setaffinity(0, cores)
