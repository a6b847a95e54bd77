"""Networks in 8 bits, by NNCF: calibrated on training images, behind a gate of accuracy.

The gate: where the accuracy on held-out images falls by more than DROP, or more than UNEQUAL of the
answers change, the layers that do it are found and stay in floating point.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.engines import openvino_engine
from vitral.engines.openvino_runtime import runtime, without_telemetry
from vitral.errors import MachineError
from vitral.export.proof import in_batches

DROP = 0.005  # of the accuracy
UNEQUAL = 0.02  # of the answers
CALIBRATION = 300  # images


@dataclass(frozen=True, slots=True)
class Quantised:
    """A graph in 8 bits.

    Attributes:
        graph: the openvino.Model.
        kept: names of the layers that stay in floating point.
    """

    graph: Any
    kept: tuple[str, ...] = ()


def nncf() -> Any:
    """Import NNCF, or raise MachineError; it sends nothing of its use."""
    runtime()
    try:
        with without_telemetry():
            import nncf as library  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MachineError(
            "8 bits need a few libraries more: pip install 'vitral[export]'."
        ) from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return library


def weights_alone(graph: Any) -> Quantised:
    """Store the weights in 8 bits; what is computed stays in floating point."""
    library = nncf()
    with _silent():
        small = library.compress_weights(graph, mode=library.CompressWeightsMode.INT8_ASYM)
    return Quantised(small)


def quantise(
    graph: Callable[[], Any],
    calibration: NDArray[np.float32],
    held_out: NDArray[np.float32],
    labels: NDArray[Any],
    reference: NDArray[np.float32],
    announce: Callable[[str], None],
) -> Quantised:
    """Quantise weights and activations of a graph, as far as the gate allows.

    Args:
        graph: makes the openvino.Model anew.
        calibration: ready training images (N, C, H, W).
        held_out: ready images for the gate, of these `labels`.
        reference: the logits of torch in float32 for them.
        announce: told when the gate closes.
    """
    library = nncf()
    dataset = library.Dataset([calibration[i : i + 1] for i in range(len(calibration))])
    with _silent():
        whole = library.quantize(
            graph(),
            dataset,
            model_type=library.ModelType.TRANSFORMER,
            preset=library.QuantizationPreset.MIXED,
            subset_size=len(calibration),
        )
    drop, unequal = _loss(whole, held_out, labels, reference)
    if drop <= DROP and unequal <= UNEQUAL:
        return Quantised(whole)
    announce(
        f"int8      accuracy falls by {100 * drop:.2f} points and {100 * unequal:.1f} % of the "
        f"answers change; looking for the layers that do it"
    )
    return _with_some_layers_kept(library, graph, dataset, whole, held_out, labels, reference)


def _with_some_layers_kept(
    library: Any,
    graph: Callable[[], Any],
    dataset: Any,
    whole: Any,
    held_out: NDArray[np.float32],
    labels: NDArray[Any],
    reference: NDArray[np.float32],
) -> Quantised:
    """Keep the layers in floating point whose activations lose most, twice as many each time."""
    ranked = _most_lossy(graph(), whole, held_out[:32])
    count = max(1, len(ranked) // 16)
    best = Quantised(whole)
    while count <= len(ranked):
        names = ranked[:count]
        with _silent():
            part = library.quantize(
                graph(),
                dataset,
                model_type=library.ModelType.TRANSFORMER,
                preset=library.QuantizationPreset.MIXED,
                subset_size=dataset_size(dataset),
                ignored_scope=library.IgnoredScope(names=names),
            )
        best = Quantised(part, tuple(names))
        drop, unequal = _loss(part, held_out, labels, reference)
        if drop <= DROP and unequal <= UNEQUAL:
            break
        count *= 2
    return best


def dataset_size(dataset: Any) -> int:
    """Count the images of an nncf.Dataset."""
    return sum(1 for _ in dataset.get_data())


def _most_lossy(graph: Any, whole: Any, images: NDArray[np.float32]) -> list[str]:
    """Names of the layers with weights, by the relative error of what they give in 8 bits."""
    layers = [
        op.get_friendly_name()
        for op in graph.get_ordered_ops()
        if op.get_type_name() in ("MatMul", "Convolution")
    ]
    exact = _outputs_of(graph, layers, images)
    rough = _outputs_of(whole, layers, images)
    errors = {
        name: float(
            np.linalg.norm(exact[name] - rough[name]) / (np.linalg.norm(exact[name]) + 1e-9)
        )
        for name in layers
        if name in rough
    }
    # an error is handed on; what a layer adds to the one before it is its own
    order = [name for name in layers if name in errors]
    added = {
        name: errors[name] - (errors[order[i - 1]] if i else 0.0) for i, name in enumerate(order)
    }
    return sorted(order, key=lambda name: -added[name])


def _outputs_of(
    graph: Any, names: Iterable[str], images: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """What some layers of a graph give, in float32."""
    openvino = runtime()
    assert openvino is not None
    copy = graph.clone()
    wanted = [op for op in copy.get_ordered_ops() if op.get_friendly_name() in set(names)]
    copy.add_outputs([op.output(0) for op in wanted])
    compiled = openvino.Core().compile_model(copy, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = list(compiled([images]).values())[-len(wanted) :] if wanted else []
    return {
        op.get_friendly_name(): np.array(value) for op, value in zip(wanted, values, strict=True)
    }


def _loss(
    graph: Any,
    images: NDArray[np.float32],
    labels: NDArray[Any],
    reference: NDArray[np.float32],
) -> tuple[float, float]:
    """How much of the accuracy a graph loses, and the share of other answers."""
    engine = openvino_engine.opened(graph, openvino_engine.runs_in("int8"))
    logits = in_batches(engine.logits, images)
    if labels.ndim > 1:
        before = ((reference >= 0) == labels).all(axis=1)
        after = ((logits >= 0) == labels).all(axis=1)
        unequal = ((logits >= 0) != (reference >= 0)).any(axis=1)
    else:
        before = reference.argmax(axis=1) == labels
        after = logits.argmax(axis=1) == labels
        unequal = logits.argmax(axis=1) != reference.argmax(axis=1)
    return float(before.mean() - after.mean()), float(unequal.mean())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF draws progress bars and tables."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
