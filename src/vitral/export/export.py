"""Export a run to another runtime, and prove it there.

result = export("runs/flowers", "openvino", "flowers-int8", precision="int8")
result.proof.equal_labels
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitral.data.fitting_sets import FittingSet, open_for_fitting
from vitral.data.loader import ready_images
from vitral.engines.openvino_graph import to_openvino
from vitral.engines.torch_engine import TorchEngine, best_device
from vitral.errors import DataError, ModelError, UsageError
from vitral.export import int8, proof, run, write
from vitral.export.proof import LIMIT, Proof
from vitral.loading import load
from vitral.model import ViT
from vitral.specs.merging import AUTO, OFF, merge_counts
from vitral.storage import files
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.read import Weights, read_weights

MOST = 1000  # images of a proof
MERGED = 64  # of those, by which merging there is compared with torch's
Target = Literal["openvino", "onnx", "torch", "executorch", "web"]
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8", "int8-weights"]
POSSIBLE: dict[Target, tuple[ExportPrecision, ...]] = {
    "openvino": ("fp32", "bf16", "fp16", "int8", "int8-weights"),
    "onnx": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
    "executorch": ("fp32",),
    "web": ("fp32",),  # with the smaller files that transformers.js may ask for beside it
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        folder: where it lies.
        to, precision: what it is.
        proof: of its main file.
        more: of its other files, by name.
        kept: layers that stay in floating point beside 8 bits.
    """

    folder: Path
    to: Target
    precision: ExportPrecision
    proof: Proof
    more: dict[str, Proof]
    kept: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "out": str(self.folder),
            "to": self.to,
            "precision": self.precision,
            "proof": self.proof.to_dict(),
            "more": {name: each.to_dict() for name, each in self.more.items()},
            "kept_in_floating_point": list(self.kept),
        }

    def lines(self) -> list[str]:
        """Write it for a terminal."""
        lines = self.proof.lines()
        for name, each in self.more.items():
            lines += [f"{name}", *(f"  {line}" for line in each.lines())]
        if self.kept:
            lines.append(f"kept      in floating point: {', '.join(self.kept)}")
        return lines


def export(
    source: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    data: str | os.PathLike[str] | None = None,
    merge: str = OFF,
    announce: Callable[[str], None] = print,
) -> Export:
    """Write a network for another runtime into a new folder, proved on real images.

    Args:
        source: a run, an artifact, a checkpoint or its id.
        to: "openvino", "onnx", "torch", "executorch" or "web".
        out: a folder that does not exist yet.
        precision: "fp32", "bf16", "fp16", "int8" or "int8-weights", as far as `to` has it.
        data: labelled images for the proof, and of 8 bits for the calibration; those of the
            training by default.
        merge: tokens that each block merges, as `vitral.load` reads it; the proof says what that
            costs and saves.
        announce: told of what takes long, and of layers that stay in floating point.

    Raises UsageError for settings that do not go together or a folder that exists, DataError
    without images, ModelError for a network that the runtime cannot take or that computes
    something else there; nothing is left behind then.
    """
    target, chosen = _checked(to, precision)
    folder = Path(out)
    files.refuse_existing(folder)
    weights = read_weights(source, announce=announce)
    card = weights.card
    if not card.classes:
        raise ModelError("This model has no head: there is nothing that an export could answer.")
    if merge == AUTO:
        counts = load(source, device="cpu", merge=merge, announce=announce).merge
    else:
        counts = merge_counts(merge, card.model)
    plain = artifact.network(weights.tensors, card.model)
    model = plain.merged(counts)
    if counts:
        # what tells foreign pictures was fitted to tokens that were not merged
        kept = {name: x for name, x in weights.fitted.items() if not name.startswith("foreign.")}
        card = replace(card, made_by={**card.made_by, "merge": list(counts)})
        weights = replace(weights, card=card, fitted=kept)
    images = _images(card, data)
    ready, labels = ready_images(images.held_out, card.images, MOST)
    before = TorchEngine(plain, best_device("cpu"), "fp32").logits
    made: dict[str, Any] = {}

    def fill(fresh: Path) -> None:
        try:
            made["export"] = _fill(
                fresh, target, chosen, weights, model, images, before, ready, labels, announce
            )
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    files.write_folder(folder, fill, 2 * files.bytes_of(weights.tensors))
    result: Export = made["export"]
    return replace(result, folder=folder)


def _checked(to: str, precision: str) -> tuple[Target, ExportPrecision]:
    for target in get_args(Target):
        if to == target:
            break
    else:
        raise UsageError(f"--to is one of {', '.join(get_args(Target))}, not '{to}'.")
    for chosen in POSSIBLE[target]:
        if precision == chosen:
            return target, chosen
    raise UsageError(
        f"An export to {to} has --precision {' or '.join(POSSIBLE[target])}, not '{precision}'."
    )


def _images(card: Card, data: str | os.PathLike[str] | None) -> FittingSet:
    """The images for calibration and proof; DataError where there are none."""
    source = None if data is None else os.fspath(data)
    if source is None:
        recipe: Any = card.made_by.get("recipe") or {}
        source = (recipe.get("data") or {}).get("source")
    if not source:
        raise DataError(
            "An export is proved on real images, and this model does not say which it learnt "
            "from. Name labelled ones of its classes: --data PHOTOS/."
        )
    try:
        return open_for_fitting(
            source, card.classes, division=card.division, size=max(card.images.size)
        )
    except DataError as error:
        raise DataError(
            f"The images for the proof cannot be opened ({str(error).rstrip('.')}). Name where "
            f"they, or others of the classes, are: --data PHOTOS/."
        ) from None


def _fill(  # noqa: PLR0913, PLR0917 - everything that an export is made of
    folder: Path,
    to: Target,
    precision: ExportPrecision,
    weights: Weights,
    model: ViT,
    images: FittingSet,
    before: run.Run,
    ready: NDArray[np.float32],
    labels: NDArray[Any],
    announce: Callable[[str], None],
) -> Export:
    card = replace(
        weights.card, made_by={**weights.card.made_by, "export": {"to": to, "precision": precision}}
    )
    more: dict[str, Proof] = {}
    kept: tuple[str, ...] = ()
    match to:
        case "openvino":
            quantised = _openvino_graph(
                precision, model, card, images, before, ready, labels, announce
            )
            kept = quantised.kept
            write.openvino(quantised.graph, card, folder, precision)
            write.fitted(dict(weights.fitted), folder)
            after = run.openvino(folder / "model.xml", precision)
        case "onnx":
            write.onnx(model, card, folder / "model.onnx")
            _shrink(folder / "model.onnx", precision)
            after = run.onnx(folder / "model.onnx")
        case "torch":
            write.torch_program(model, card, folder / "model.pt2")
            after = run.torch_program(folder / "model.pt2")
        case "executorch":
            write.executorch(model, card, folder / "model.pte")
            after = run.executorch(folder / "model.pte")
        case "web":
            more = _web(model, card, folder, before, ready, labels)
            after = run.onnx(folder / "onnx" / "model.onnx")
    main = proof.compare(before, after, ready, labels, _size(folder))
    if precision == "fp32":
        _refuse_another(model, card, after, ready, main)
    result = Export(folder=folder, to=to, precision=precision, proof=main, more=more, kept=kept)
    write.script(card, to, folder)
    write.readme(card, to, precision, result.lines(), folder)
    files.write_json(folder / "proof.json", result.to_dict() | {"out": ""})
    return result


def _refuse_another(
    model: ViT, card: Card, after: run.Run, ready: NDArray[np.float32], main: Proof
) -> None:
    """Raise ModelError where the exported network computes something else in float32."""
    difference = main.max_difference
    if model.merge:  # which changes the answers itself: torch merges here too
        images = ready[:MERGED]
        logits = TorchEngine(model, best_device("cpu"), "fp32").logits(images)
        difference = float(np.abs(logits - after(images)).max())
    if difference > LIMIT:
        raise ModelError(
            f"The exported network computes something else: logits differ by up to "
            f"{difference:.2g}, more than {LIMIT:g}. Nothing was written; please report "
            f"the model {card.model.name}."
        )


def _openvino_graph(  # noqa: PLR0913, PLR0917 - what int8.quantise has
    precision: ExportPrecision,
    model: ViT,
    card: Card,
    images: FittingSet,
    before: run.Run,
    ready: NDArray[np.float32],
    labels: NDArray[Any],
    announce: Callable[[str], None],
) -> int8.Quantised:
    match precision:
        case "int8":
            calibration, _ = ready_images(images.learnt, card.images, int8.CALIBRATION)
            announce(f"int8      calibrating on {len(calibration):,} training images")
            return int8.quantise(
                lambda: to_openvino(model),
                calibration,
                ready,
                labels,
                proof.in_batches(before, ready),
                announce,
            )
        case "int8-weights":
            return int8.weights_alone(to_openvino(model))
        case _:
            return int8.Quantised(to_openvino(model))


def _shrink(path: Path, precision: ExportPrecision) -> None:
    """Replace an ONNX file by one of a smaller precision."""
    smaller = path.with_name("smaller.onnx")
    if precision == "fp16":
        write.half(path, smaller)
    elif precision == "int8":
        write.dynamic_int8(path, smaller)
    else:
        return
    smaller.replace(path)


def _web(
    model: ViT,
    card: Card,
    folder: Path,
    before: run.Run,
    ready: NDArray[np.float32],
    labels: NDArray[Any],
) -> dict[str, Proof]:
    """Write transformers.js's folder, and prove the smaller files that it may ask for."""
    inside = folder / "onnx"
    inside.mkdir()
    whole = inside / "model.onnx"
    write.onnx(model, card, whole, name="pixel_values")
    write.half(whole, inside / "model_fp16.onnx")
    write.dynamic_int8(whole, inside / "model_quantized.onnx")
    write.web_settings(card, folder)
    proofs: dict[str, Proof] = {}
    for name in ("model_fp16.onnx", "model_quantized.onnx"):
        path = inside / name
        proofs[name] = proof.compare(before, run.onnx(path), ready, labels, path.stat().st_size)
    return proofs


def _size(folder: Path) -> int:
    """Count the bytes of the network's main files."""
    names = ("model.xml", "model.bin", "model.onnx", "model.pt2", "model.pte", "onnx/model.onnx")
    return sum((folder / name).stat().st_size for name in names if (folder / name).exists())
