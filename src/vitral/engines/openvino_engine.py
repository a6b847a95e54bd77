"""The engine that is OpenVINO, on a CPU, and its compiled networks in the cache.

cache/engines/KEY/          KEY: a digest of the weights, precision, versions and processor
└── model.xml, model.bin    the graph, its weights in 16 bits where it computes in bfloat16

OpenVINO's own cache of what it makes of a graph is left alone: it saves no time here, and read back
by 2026.4.1 it gives other means over the patches.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vitral import machine
from vitral.engines.openvino_runtime import processor, runtime
from vitral.errors import MachineError, ModelError
from vitral.storage import cache, files

if TYPE_CHECKING:
    import torch

    from vitral.engines.base import Images
    from vitral.model import ViT

GRAPH = "model.xml"
KIND = "engines"
PATIENCE = 300  # seconds for another process that builds the same
HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class OpenVINOEngine:
    """An `Engine` that computes with OpenVINO.

    Attributes:
        compiled: openvino.CompiledModel with the outputs of `openvino_graph.to_openvino`.
        precision: what it computes in.
    """

    compiled: Any
    precision: Literal["fp32", "bf16"]
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name the engine as `--engine` does."""
        return "openvino"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        import torch  # noqa: PLC0415 - answers for files need none

        return torch.device("cpu")

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Compute the logits of images, float32 (B, classes)."""
        return self._computed(images, 0)[0]

    def representation(self, images: Images) -> NDArray[np.float32]:
        """Compute what the head reads, y of equation 4: float32 (B, width)."""
        return self._computed(images, 1)[0]

    def logits_and_detector_features(
        self, images: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what foreign images may be told by, in one pass."""
        logits, features = self._computed(images, 0, 2)
        return logits, features

    def _computed(self, images: Images, *outputs: int) -> list[NDArray[np.float32]]:
        """Copies of some outputs; a request belongs to the thread that asks."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self.compiled.create_infer_request()
            self._local.request = request
        values = np.ascontiguousarray(np.asarray(images), np.float32)
        expected = self.compiled.inputs[0].get_partial_shape()
        if values.ndim != 4 or any(
            side.is_static and side.get_length() != length
            for side, length in zip(list(expected)[1:], values.shape[1:], strict=True)
        ):
            raise ModelError(f"The network reads images of {expected}, not {values.shape}.")
        if not len(values):
            widths = [self.compiled.outputs[i].get_partial_shape()[1].get_length() for i in outputs]
            return [np.zeros((0, width), np.float32) for width in widths]
        request.infer([values], share_inputs=True)
        return [np.array(request.get_output_tensor(i).data, np.float32) for i in outputs]


def key_of(digest: str, precision: str) -> str:
    """Name the cache's entry of weights with this digest, compiled here for a precision."""
    openvino = runtime()
    return cache.key_of((digest, precision, getattr(openvino, "__version__", ""), processor()))


def from_cache(digest: str, precision: Literal["fp32", "bf16"]) -> OpenVINOEngine | None:
    """Load what was compiled before; None of what is not there, or was broken."""
    folder = cache.folder() / KIND / key_of(digest, precision)
    if not (folder / GRAPH).exists():
        return None
    try:
        return compiled(folder / GRAPH, precision)
    except (RuntimeError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def build(model: ViT, digest: str, precision: Literal["fp32", "bf16"]) -> OpenVINOEngine:
    """Compile a network and keep the result in the cache, where that can be written.

    Raises MachineError without OpenVINO, ModelError for a network that it cannot take.
    """
    folder = cache.folder() / KIND / key_of(digest, precision)
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=PATIENCE):
            ready = from_cache(digest, precision)
            if ready is not None:
                return ready
            graph = _graph(model)
            try:
                files.write_folder(folder, lambda fresh: _save(graph, fresh / GRAPH, precision))
                return compiled(folder / GRAPH, precision)
            except MachineError:  # a full disk: this process does without
                return compiled(graph, precision)
    except (OSError, Timeout):  # a cache that cannot be written
        return compiled(_graph(model), precision)


def _graph(model: ViT) -> Any:
    from vitral.engines.openvino_graph import to_openvino  # noqa: PLC0415 - it needs torch

    return to_openvino(model)


def _save(graph: Any, path: Path, precision: str) -> None:
    openvino = runtime()
    assert openvino is not None
    openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")


def compiled(graph: Any, precision: Literal["fp32", "bf16"]) -> OpenVINOEngine:
    """Compile an openvino.Model, or the file of one."""
    openvino = runtime()
    if openvino is None:
        raise MachineError("OpenVINO is not installed, or too old: pip install 'openvino>=2026.0'.")
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
    }
    return OpenVINOEngine(openvino.Core().compile_model(graph, "CPU", settings), precision)


def runs_in(precision: str) -> Literal["fp32", "bf16"]:
    """Say what a stored network is computed in: bf16 and 8 bits in bfloat16 where that is fast."""
    fast = precision not in ("fp32", "fp16") and machine.multiplies_bf16()
    return "bf16" if fast else "fp32"


def size() -> int:
    """Count the bytes of all compiled networks in the cache."""
    folder = cache.folder() / KIND
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
