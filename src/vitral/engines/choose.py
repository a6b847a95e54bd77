"""The choice of an engine: on a CPU OpenVINO where it is there and measured to be faster, or torch.

What was measured is kept in the cache for the weights, precision, versions and processor, and so is
the compiled network, so that the next process needs no torch to answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from vitral import machine
from vitral.engines import openvino_engine
from vitral.engines.base import Precision
from vitral.engines.measure import interleaved
from vitral.engines.openvino_runtime import LEAST, runtime
from vitral.errors import MachineError, ModelError, UsageError
from vitral.specs import ModelSpec, counts
from vitral.storage import cache

if TYPE_CHECKING:
    from vitral.engines.base import Engine
    from vitral.model import ViT

EngineName = Literal["auto", "torch", "openvino"]
LIGHT = 5e8  # FLOPs for an image, below which compiling costs more than it will ever save
BATCHES = (1, 8)  # that both engines are measured on
ROUNDS = 3
_KIND = "engine_choices"
_COPIES = 4  # of the weights, in memory while they are compiled


def check_name(engine: str) -> EngineName:
    """Return the name of an engine; UsageError for another."""
    for name in get_args(EngineName):
        if engine == name:
            return name
    raise UsageError(f"engine is one of {', '.join(get_args(EngineName))}, not {engine!r}.")


def check_precision(precision: str) -> Precision:
    """Return the name of a precision; UsageError for another."""
    for name in get_args(Precision):
        if precision == name:
            return name
    raise UsageError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}.")


def openvino_precision(precision: Precision) -> Literal["fp32", "bf16"]:
    """Decide what OpenVINO computes in; bfloat16 where the processor multiplies it.

    Raises MachineError for bfloat16 that the processor lacks.
    """
    if precision == "auto":
        return "bf16" if machine.multiplies_bf16() else "fp32"
    if precision == "bf16" and not machine.multiplies_bf16():
        raise MachineError(
            "This processor has no instructions that multiply bfloat16, and OpenVINO would "
            "compute in float32: leave --precision out."
        )
    return precision


def kept(
    spec: ModelSpec, digest: str, engine: EngineName, precision: Precision
) -> openvino_engine.OpenVINOEngine | None:
    """Load OpenVINO's network from the cache, where it is there and is to be used; no torch.

    None where torch is to be asked, where nothing was compiled or measured yet.
    """
    if engine == "torch" or not _worth(spec, engine) or runtime() is None:
        return None
    chosen = openvino_precision(precision)
    if engine == "auto":
        times = cache.load(_KIND, openvino_engine.key_of(digest, chosen))
        if not isinstance(times, dict) or not _faster(times):
            return None
    return openvino_engine.from_cache(digest, chosen)


def choose(
    torch_engine: Engine,
    network: ViT,
    digest: str,
    *,
    engine: EngineName,
    precision: Precision,
    announce: Callable[[str], None],
) -> Engine:
    """Return the faster engine of a network on a CPU, or the one that was asked for by name.

    `announce` is told in one line what was measured, or why OpenVINO is not taken. Raises
    MachineError or ModelError where OpenVINO was asked for and cannot be had.
    """
    spec = network.spec
    if engine == "torch" or not _worth(spec, engine):
        return torch_engine
    if runtime() is None:
        if engine == "openvino":
            raise MachineError(
                f"OpenVINO is not installed, or older than {LEAST[0]}.{LEAST[1]}: "
                f"pip install 'openvino>={LEAST[0]}.{LEAST[1]}'."
            )
        announce("engine    torch: OpenVINO, two to four times as fast here, is not installed")
        return torch_engine
    chosen = openvino_precision(precision)
    needed = _COPIES * 4 * counts.parameters(spec)
    if engine == "auto" and needed > machine.free_cpu_memory():
        announce("engine    torch: there is not enough free memory to compile for OpenVINO")
        return torch_engine
    key = openvino_engine.key_of(digest, chosen)
    times = cache.load(_KIND, key)
    known = isinstance(times, dict) and engine == "auto"
    if known and not _faster(times):
        return torch_engine
    try:
        if openvino_engine.from_cache(digest, chosen) is None:
            announce("engine    compiling the network for OpenVINO, once")
        compiled = openvino_engine.build(network, digest, chosen)
    except (ModelError, RuntimeError) as error:
        if engine == "openvino":
            raise
        announce(f"engine    torch: {error}")
        return torch_engine
    if engine == "openvino" or known:
        return compiled
    times = {str(batch): _measured(torch_engine, compiled, spec, batch) for batch in BATCHES}
    cache.store(_KIND, key, times)
    ratios = " and ".join(
        f"{times[str(batch)]['torch'] / times[str(batch)]['openvino']:.1f}" for batch in BATCHES
    )
    announce(
        f"engine    OpenVINO in {chosen} takes 1 and {BATCHES[-1]} images {ratios} times as fast "
        f"as torch; {'it' if _faster(times) else 'torch'} is taken from now on"
    )
    return compiled if _faster(times) else torch_engine


def _worth(spec: ModelSpec, engine: EngineName) -> bool:
    return engine == "openvino" or counts.flops(spec) >= LIGHT


def _measured(
    torch_engine: Engine, compiled: Engine, spec: ModelSpec, batch: int
) -> dict[str, float]:
    """Measure seconds for a batch by engine: the medians of interleaved rounds."""
    shape = (batch, spec.channels, *spec.size)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    calls = [partial(engine.logits, images) for engine in (torch_engine, compiled)]
    one, other = (float(np.median(seconds)) for seconds in interleaved(calls, ROUNDS))
    return {"torch": one, "openvino": other}


def _faster(times: dict[str, Any]) -> bool:
    """Whether OpenVINO wins, over both batches together; what cannot be read is no measurement."""
    try:
        return bool(
            np.prod(
                [times[str(batch)]["torch"] / times[str(batch)]["openvino"] for batch in BATCHES]
            )
            > 1
        )
    except (KeyError, TypeError, ZeroDivisionError):
        return False
