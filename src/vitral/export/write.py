"""Write the files of each kind of export, and their README and script."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitral.engines.openvino_runtime import runtime
from vitral.errors import MachineError, ModelError
from vitral.export import metadata
from vitral.export.run import executorch_runtime, onnxruntime
from vitral.model import ViT
from vitral.storage import files
from vitral.weights.card import CARD, FITTED, Card

OPSET = 20
_MOST = 1 << 16  # images of a batch


class _Logits(nn.Module):
    """A network with logits alone, and the keyword that its runtime's users write."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, classes)."""
        logits: Tensor = self.model(images)
        return logits


def openvino(graph: Any, card: Card, folder: Path, precision: str) -> None:
    """Write model.xml and model.bin with ModelAPI's keys, and the card that `vitral.load` reads."""
    library = runtime()
    assert library is not None
    for key, value in metadata.model_info(card).items():
        graph.set_rt_info(value, ["model_info", key])
    library.save_model(graph, folder / "model.xml", compress_to_fp16=precision in ("bf16", "fp16"))
    files.write_json(folder / CARD, card.to_dict())


def fitted(tensors: dict[str, Any], folder: Path) -> None:
    """Write what was fitted to images after training, where there is anything."""
    if tensors:
        files.write_tensors(folder / FITTED, {k: torch.from_numpy(v) for k, v in tensors.items()})


def torch_program(model: ViT, card: Card, path: Path) -> None:
    """Write a torch.export program of any batch size, with the metadata beside the tensors."""
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            _Logits(model.eval()), (_example(card),), dynamic_shapes=(_batch(),)
        )
        torch.export.save(program, path, extra_files=metadata.model_info(card))


def executorch(model: ViT, card: Card, path: Path) -> None:
    """Write an ExecuTorch program for XNNPACK (CPUs of telephones and others), one image at a time.

    Raises MachineError without the library, ModelError for a network that cannot be exported.
    """
    executorch_runtime()
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # noqa: PLC0415
            XnnpackPartitioner,
        )
        from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415

        with _quiet(), torch.no_grad():
            program = torch.export.export(_Logits(model.eval()), (_example(card)[:1],))
            # what standardises the weights of hybrids is not among its operations
            program = program.run_decompositions(
                {torch.ops.aten.var_mean.correction: _variance_and_mean}
            )
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = lowered.to_executorch().buffer
    except Exception as error:  # whatever the exporter makes of what it does not know
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0]
        raise ModelError(f"ExecuTorch cannot take {card.model.name}: {reason[:200]}") from None
    files.write_bytes(path, content)


def _variance_and_mean(
    x: Tensor, dim: list[int], *, correction: float, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    variance = torch.ops.aten.var.correction(x, dim, correction=correction, keepdim=keepdim)
    return variance, torch.ops.aten.mean.dim(x, dim, keepdim)


def onnx(model: ViT, card: Card, path: Path, name: str = "images") -> None:
    """Write an ONNX file of any batch size with ModelAPI's keys in metadata_props.

    Raises MachineError without the libraries, ModelError for a network that cannot be exported.
    """
    try:
        import onnx as library  # noqa: PLC0415 - an optional library
    except ImportError:
        onnxruntime()
        raise MachineError("Exporting to ONNX needs onnx: pip install 'vitral[export]'.") from None
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Logits(model.eval()),
                (_example(card),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[name],
                output_names=["logits"],
                dynamic_shapes=(_batch(),),
                verbose=False,
            )
    except MachineError:
        raise
    except Exception as error:  # whatever the exporter makes of what it does not know
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"ONNX cannot take {card.model.name}: {reason[:200]}") from None
    assert program is not None
    proto = program.model_proto
    del proto.graph.value_info[:]  # shapes of the example batch
    for key, value in metadata.model_info(card).items():
        entry = proto.metadata_props.add()
        entry.key = f"model_info {key}"
        entry.value = value
    library.save(proto, str(path))


def half(path: Path, target: Path) -> None:
    """Write an ONNX file with its numbers in 16 bits; inputs and outputs stay float32."""
    import onnx as library  # noqa: PLC0415 - an optional library
    from onnxruntime.transformers.float16 import (  # noqa: PLC0415
        convert_float_to_float16,
    )

    with _quiet():
        small = convert_float_to_float16(library.load(str(path)), keep_io_types=True)
    library.save(small, str(target))


def dynamic_int8(path: Path, target: Path) -> None:
    """Write an ONNX file whose matrix products are in 8 bits, as transformers.js names `q8`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    with _quiet():
        quantize_dynamic(
            str(path),
            str(target),
            weight_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"EnableSubgraph": True},
        )


def web_settings(card: Card, folder: Path) -> None:
    """Write what transformers.js reads beside onnx/."""
    for name, values in (
        ("config.json", metadata.transformers_config(card)),
        ("preprocessor_config.json", metadata.transformers_preprocessor(card)),
    ):
        files.write_json(folder / name, values)


READ = """import json, sys
import numpy as np
from PIL import Image
info = json.load(open("info.json", encoding="utf-8"))
(height, width), crop, filter = info["size"], info["crop"], Image.Resampling[info["filter"]]
image = Image.open(sys.argv[1]).convert("RGB")
scale = max(int(height / crop) / image.height, int(width / crop) / image.width)
image = image.resize((round(image.width * scale), round(image.height * scale)), filter)
left, top = (image.width - width) // 2, (image.height - height) // 2
pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
x = ((pixels - info["mean"]) / info["std"]).astype(np.float32).transpose(2, 0, 1)[None]
"""
COMPUTE = {
    "openvino": """import openvino
logits = openvino.Core().compile_model("model.xml", "CPU")(x)["logits"][0]
""",
    "onnx": """import onnxruntime
logits = onnxruntime.InferenceSession("model.onnx").run(["logits"], {"images": x})[0][0]
""",
    "torch": """import torch
logits = torch.export.load("model.pt2").module()(torch.from_numpy(x)).detach().numpy()[0]
""",
    "executorch": """import torch
from executorch.runtime import Runtime
method = Runtime.get().load_program("model.pte").load_method("forward")
logits = method.execute([torch.from_numpy(x)])[0].numpy()[0]
""",
    "web": """import onnxruntime
session = onnxruntime.InferenceSession("onnx/model.onnx")
logits = session.run(["logits"], {"pixel_values": x})[0][0]
""",
}
SAY = """for i in np.argsort(-logits)[:3]:
    print(info["classes"][i], round(float(logits[i]), 3))
"""
NEEDS = {
    "openvino": "openvino numpy pillow",
    "onnx": "onnxruntime numpy pillow",
    "torch": "torch numpy pillow",
    "executorch": "executorch torch numpy pillow",
    "web": "onnxruntime numpy pillow",
}


def script(card: Card, to: str, folder: Path) -> None:
    """Write run.py, which needs the runtime alone, and the info.json that it reads."""
    images = card.images
    files.write_json(
        folder / "info.json",
        {
            "classes": list(card.classes),
            "size": list(images.size),
            "crop": images.crop,
            "fit": images.fit,
            "filter": images.interpolation.upper(),
            "mean": list(images.mean),
            "std": list(images.std),
        },
    )
    files.write_text(folder / "run.py", READ + COMPUTE[to] + SAY)


def readme(card: Card, to: str, precision: str, lines: list[str], folder: Path) -> None:
    """Write README.md: what this is, how it is run, and the proof."""
    text = [
        f"# {card.model.name} for {to}, {precision}",
        "",
        f"{len(card.classes):,} classes, pictures of "
        f"{card.images.size[0]}x{card.images.size[1]} pixels. Exported by `vitral export`.",
        "",
        f"    pip install {NEEDS[to]}",
        "    python run.py photo.jpg",
        "",
        "`run.py` needs no Vitral. It resizes as the network was trained where pictures are "
        "cropped (`fit` in info.json is crop). The preprocessing and the classes also stand in "
        "the file itself, under ModelAPI's `model_info`.",
        "",
        *(["    import { pipeline } from '@huggingface/transformers'", ""] if to == "web" else []),
        "## Proof",
        "",
        *(f"    {line}" for line in lines),
        "",
    ]
    files.write_text(folder / "README.md", "\n".join(text))


def _example(card: Card) -> Tensor:
    return torch.zeros(2, card.model.channels, *card.model.size)


def _batch() -> dict[int, Any]:
    return {0: torch.export.Dim("batch", min=1, max=_MOST)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters print and warn of on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
