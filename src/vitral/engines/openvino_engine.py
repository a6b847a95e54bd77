"""The engine that is OpenVINO, on a CPU, and its compiled networks in the cache.

cache/engines/KEY/          KEY: a digest of the weights, precision, versions and processor
└── model.xml, model.bin    the graph, its weights in 16 bits where it computes in bfloat16

OpenVINO's own cache of what it makes of a graph is left alone: it saves no time here, and read back
by 2026.4.1 it gives other means over the patches.
"""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, field, replace
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
GROUPS = 4  # of cores at most, and so the images from which on a batch is shared out
SHARE = 16  # images at most that a group takes at a time, so that layers hand over near the cores

_Key = tuple[tuple[int, ...], str, str]  # outputs, goal, precision


@dataclass(frozen=True, slots=True)
class OpenVINOEngine:
    """An `Engine` that computes with OpenVINO.

    A graph is compiled when it is first asked: once for each choice of its outputs, since one that
    gives logits alone takes a twentieth less time, and once more for batches. Those are shared out
    among groups of cores, each with images of its own, which need not wait for one another at every
    layer; fewer than GROUPS images have all cores together.

    Attributes:
        graph: openvino.Model with the outputs of `openvino_graph.to_openvino`.
        precision: what it computes in.
        eight_bits: whether it holds products of 8 bits, or weights in as many.
    """

    graph: Any
    precision: Literal["fp32", "bf16"]
    eight_bits: bool = False
    _compiled: dict[_Key, _Compiled] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
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

    def in_float32(self) -> OpenVINOEngine:
        """Return an engine of the same network that computes in float32; itself if it does.

        A network in 8 bits is what it is: it returns itself too.
        """
        if self.precision == "fp32" or self.eight_bits:
            return self
        return replace(self, precision="fp32")  # with what was compiled of it before

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Compute the logits of images, float32 (B, classes)."""
        return self._computed(images, (0,))[0]

    def representation(self, images: Images) -> NDArray[np.float32]:
        """Compute what the head reads, y of equation 4: float32 (B, width)."""
        return self._computed(images, (1,))[0]

    def logits_and_detector_features(
        self, images: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what foreign images may be told by, in one pass."""
        logits, features = self._computed(images, (0, 2))
        return logits, features

    def _computed(self, images: Images, outputs: tuple[int, ...]) -> list[NDArray[np.float32]]:
        """Copies of some outputs of the graph."""
        values = np.ascontiguousarray(np.asarray(images), np.float32)
        expected = self.graph.inputs[0].get_partial_shape()
        if values.ndim != 4 or any(
            side.is_static and side.get_length() != length
            for side, length in zip(list(expected)[1:], values.shape[1:], strict=True)
        ):
            raise ModelError(f"The network reads images of {expected}, not {values.shape}.")
        if not len(values):
            widths = [self.graph.outputs[i].get_partial_shape()[1].get_length() for i in outputs]
            return [np.zeros((0, width), np.float32) for width in widths]
        goal = "LATENCY" if len(values) < GROUPS else "THROUGHPUT"
        groups = self._network(outputs, goal).groups
        parts = np.array_split(values, groups * -(-len(values) // (groups * SHARE)))
        requests = self._requests(outputs, goal, len(parts))
        for request, part in zip(requests, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()
        return [
            np.concatenate([request.get_output_tensor(i).data for request in requests], axis=0)
            for i in range(len(outputs))
        ]

    def _network(self, outputs: tuple[int, ...], goal: str) -> _Compiled:
        """Compile the graph for some outputs and a goal, or take what was compiled for them."""
        with self._lock:
            key = (outputs, goal, self.precision)
            if key not in self._compiled:
                self._compiled[key] = _compile(self.graph, outputs, goal, self.precision)
            return self._compiled[key]

    def _requests(self, outputs: tuple[int, ...], goal: str, count: int) -> list[Any]:
        """Return requests that belong to the thread that asks, and to no other."""
        network = self._network(outputs, goal)
        kept: Any = self._local.__dict__
        requests = kept.setdefault((outputs, goal, self.precision), [])
        while len(requests) < count:
            requests.append(network.compiled.create_infer_request())
        return requests[:count]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """An openvino.CompiledModel, and how many groups of cores it shares a batch out among."""

    compiled: Any
    groups: int


def _compile(graph: Any, outputs: tuple[int, ...], goal: str, precision: str) -> _Compiled:
    openvino = runtime()
    assert openvino is not None
    chosen = openvino.Model([graph.outputs[i] for i in outputs], graph.get_parameters(), "vitral")
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": goal,
    }
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):  # the share of one of several processes
        settings["INFERENCE_NUM_THREADS"] = int(threads)
    if goal == "THROUGHPUT":  # more groups than images would leave cores idle
        settings["PERFORMANCE_HINT_NUM_REQUESTS"] = GROUPS
    compiled = openvino.Core().compile_model(chosen, "CPU", settings)
    groups = 1 if goal == "LATENCY" else int(compiled.get_property("NUM_STREAMS"))
    return _Compiled(compiled, groups)


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
        return opened(folder / GRAPH, precision)
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
                return opened(folder / GRAPH, precision)
            except MachineError:  # a full disk: this process does without
                return opened(graph, precision)
    except (OSError, Timeout):  # a cache that cannot be written
        return opened(_graph(model), precision)


def _graph(model: ViT) -> Any:
    from vitral.engines.openvino_graph import to_openvino  # noqa: PLC0415 - it needs torch

    return to_openvino(model)


def _save(graph: Any, path: Path, precision: str) -> None:
    openvino = runtime()
    assert openvino is not None
    openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")


def opened(
    graph: Any, precision: Literal["fp32", "bf16"], *, eight_bits: bool = False
) -> OpenVINOEngine:
    """Open an openvino.Model, or the file of one; RuntimeError for a file that cannot be read."""
    openvino = runtime()
    if openvino is None:
        raise MachineError("OpenVINO is not installed, or too old: pip install 'openvino>=2026.0'.")
    if isinstance(graph, Path):
        graph = openvino.Core().read_model(graph)
    return OpenVINOEngine(graph, precision, eight_bits)


def runs_in(precision: str) -> Literal["fp32", "bf16"]:
    """Say what a stored network is computed in: bf16 and 8 bits in bfloat16 where that is fast."""
    fast = precision not in ("fp32", "fp16") and machine.multiplies_bf16()
    return "bf16" if fast else "fp32"


def size() -> int:
    """Count the bytes of all compiled networks in the cache."""
    folder = cache.folder() / KIND
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
