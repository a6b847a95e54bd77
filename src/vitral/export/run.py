"""Compute with an exported network in its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.engines import openvino_engine
from vitral.errors import MachineError

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # ready images -> logits


def openvino(path: Path, precision: str) -> Run:
    """Return logits of model.xml as `vitral.load` computes them."""
    return openvino_engine.opened(path, openvino_engine.runs_in(precision)).logits


def onnx(path: Path) -> Run:
    """Return logits by ONNX Runtime, on the CPU."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # what it could not fold into a constant is of no consequence
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def compute(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {name: images})[0], np.float32)

    return compute


def onnxruntime() -> Any:
    """Import ONNX Runtime, or raise MachineError."""
    try:
        import onnxruntime as runtime  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MachineError(
            "Exporting to ONNX needs a few libraries more: pip install 'vitral[export]'."
        ) from None
    return runtime


def torch_program(path: Path) -> Run:
    """Return logits of a torch.export program."""
    import torch  # noqa: PLC0415 - the others need none

    program = torch.export.load(path).module()

    def compute(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = program(torch.from_numpy(images)).float().numpy()
        return logits

    return compute


def executorch(path: Path) -> Run:
    """Return logits of an ExecuTorch program, image by image."""
    import torch  # noqa: PLC0415 - as above

    method = executorch_runtime().Runtime.get().load_program(str(path)).load_method("forward")

    def compute(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = [method.execute([torch.from_numpy(image[None])])[0].numpy() for image in images]
        return np.concatenate([np.array(logits, np.float32) for logits in found])

    return compute


def executorch_runtime() -> Any:
    """Import ExecuTorch's runtime, or raise MachineError."""
    try:
        from executorch import runtime  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MachineError(
            "Exporting to ExecuTorch needs its library: pip install 'vitral[executorch]'."
        ) from None
    return runtime
