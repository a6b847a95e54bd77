"""The network as a graph of OpenVINO's: one pass gives all that an engine can be asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitral.engines.openvino_runtime import runtime
from vitral.errors import MachineError, ModelError
from vitral.model import ViT

INPUT = "images"
OUTPUTS = ("logits", "representation", "detector_features")
_MOST = 1 << 16  # images of a batch; export wants some bound


class _Outputs(nn.Module):
    """A network with the outputs of an engine."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, what the head reads, and detector features, of one pass."""
        logits, detector_features = self.model.logits_and_detector_features(images)
        return logits, detector_features[:, : self.model.spec.read_width], detector_features


def to_openvino(model: ViT) -> Any:
    """Convert a network to an openvino.Model of any batch size.

    Its input is `images`, float32 (B, channels, height, width) and normalised; its outputs are
    float32 `logits` (B, classes), `representation` (B, read width) and `detector_features`, as of
    `ViT.logits_and_detector_features`.

    Raises MachineError without OpenVINO, ModelError for a network that it cannot take.
    """
    openvino = runtime()
    if openvino is None:
        raise MachineError("OpenVINO is not installed, or too old: pip install 'openvino>=2026.0'.")
    from openvino.frontend import FrontEndManager  # noqa: PLC0415 - an optional library
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder  # noqa: PLC0415
    from openvino.passes import ConstantFolding, Manager  # noqa: PLC0415

    spec = model.spec
    device = next(model.parameters()).device
    images = torch.zeros(2, spec.channels, *spec.size, device=device)
    batch = {0: torch.export.Dim("batch", min=1, max=_MOST)}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(_Outputs(model), (images,), dynamic_shapes=(batch,))
            decoder = TorchFXPythonDecoder.from_exported_program(program)
            front_end = FrontEndManager().load_by_framework("pytorch")
            graph = front_end.convert(front_end.load(decoder))
    except Exception as error:  # what either of the two converters makes of what it does not know
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"OpenVINO cannot take the network {spec.name}: {reason[:200]}") from None
    finally:
        model.train(was_training)
    graph.reshape({0: openvino.PartialShape([-1, spec.channels, *spec.size])})
    graph.inputs[0].get_tensor().set_names({INPUT})
    # weights that are standardised first, of hybrids, become constants, which 8 bits can hold
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(graph)
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what both converters say of each other's versions on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
