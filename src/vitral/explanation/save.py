"""Files of an explanation: pictures to look at and numbers to go on with.

explanation.png/.svg  the overview            wall.png/.svg    attention of every layer and head
overlay.png           the map on the picture  lens.png/.svg    the head read after every layer
input.png             what the model received tokens.png/.svg  norms and angles of q, k and v
patches.png           numbered                rollout.png      with the skips and without
occlusion.png         what the answer needs   relevance.png    gradient × attention
tokens.json, attention.npz   all the numbers

The names of files, arrays and JSON keys are a contract; some are older than those in the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.figure import Kind
from vitral.drawing.pictures import png
from vitral.errors import UsageError
from vitral.explanation.figures import details, overview
from vitral.explanation.findings import Findings, Internals
from vitral.storage import files

ARRAYS = {
    "attention": "softmax rows: [layer, head, query token, key token]; every row sums to 1",
    "rollout": "attention rollout with 0.5 A + 0.5 I: [output token, input token]; rows sum to 1",
    "rollout_without_residual": "the same with A alone",
    "occlusion": "fall of log p of the target while hidden: [row, column] of patches; sums to 1",
    "relevance": "gradient x attention for the target: [row, column] of patches; sums to 1",
    "heat": "the map of the method: [row, column] of patches; sums to 1",
    "walls": "attention from the query: [layer, head, row, column]; each map sums to 1",
    "lens": "logits of the head read after each layer: [layer, class]; layer 0 is the embedding",
    "lengths": "Euclidean norms: [query key or value, layer, head, token]",
    "cosines": "cosine of query and key, mean over heads: [query patch, key patch] of one layer",
}
MAX_CLASSES = 20  # of the lens in tokens.json; attention.npz has all
PICTURES = (".jpg", ".jpeg", ".pdf", ".gif", ".webp", ".tif", ".tiff", ".bmp")


def save(findings: Findings, path: Path) -> None:
    """Write an overview (.png or .svg), or the folder; see Explanation.save."""
    match path.suffix.lower():
        case ".png":
            files.write_bytes(path, overview.draw(findings, "png").to_bytes("png"))
        case ".svg":
            files.write_bytes(path, overview.draw(findings, "svg").to_bytes("svg"))
        case suffix if suffix in PICTURES:
            raise UsageError(f"{path}: figures are .png or .svg (or a folder), not {suffix}.")
        case _:
            _save_folder(findings, path)


def _save_folder(findings: Findings, folder: Path) -> None:
    earlier = set(file_names()) if _is_ours(folder / "tokens.json") else set()
    for name, content in contents(findings):
        files.write_bytes(folder / name, content)
        earlier.discard(name)
    if findings.internals is not None:
        files.write_arrays(folder / "attention.npz", _arrays(findings, findings.internals))
        earlier.discard("attention.npz")
    for name in earlier:  # of the explanation that was here before, not of this one
        if (folder / name).is_file():
            (folder / name).unlink()


def _is_ours(path: Path) -> bool:
    """Tell whether this is the tokens.json of an explanation, and not a file of the user's."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        meaning: object = values["heat"]["meaning"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return meaning == ARRAYS["heat"] and {"grid", "tokens", "probabilities"} <= set(values)


def file_names() -> tuple[str, ...]:
    """List every file that a folder may get."""
    both = ("explanation", "wall", "lens", "tokens")
    pictures = ("overlay", "input", "patches", "rollout", "occlusion", "relevance")
    drawn = (*(f"{name}.svg" for name in both), *(f"{name}.png" for name in both + pictures))
    return (*drawn, "tokens.json", "attention.npz")


def contents(findings: Findings) -> Iterator[tuple[str, bytes]]:
    """Draw the files of a folder, by name; those of what was not kept are left out."""
    yield "explanation.png", overview.draw(findings, "png").to_bytes("png")
    yield "explanation.svg", overview.draw(findings, "svg").to_bytes("svg")
    yield "overlay.png", details.overlay_png(findings, findings.heatmap)
    yield "input.png", png(findings.picture)
    yield "patches.png", details.patches(findings)
    text = json.dumps(tokens_json(findings), indent=1, ensure_ascii=False)
    yield "tokens.json", text.encode("utf-8", "backslashreplace")
    internals = findings.internals
    if internals is None:
        return
    yield "rollout.png", details.rollouts(findings, internals)
    if internals.occlusion is not None:
        yield "occlusion.png", details.overlay_png(findings, internals.occlusion)
    if internals.relevance is not None:
        yield "relevance.png", details.overlay_png(findings, internals.relevance)
    kinds: tuple[Kind, ...] = ("png", "svg")
    for kind in kinds:
        yield f"wall.{kind}", details.attention_maps(findings, internals, kind)
        yield f"tokens.{kind}", details.norms_and_cosines(findings, internals, kind)
        if findings.classes:
            yield f"lens.{kind}", details.logit_lens(findings, internals, kind)


def tokens_json(findings: Findings) -> dict[str, Any]:
    """Gather the content of tokens.json; layers, heads, rows and columns count from 1."""
    height, width = findings.picture.shape[:2]
    rows, columns = findings.grid
    test = findings.faithfulness
    order = np.argsort(-findings.probabilities, kind="stable")
    values: dict[str, Any] = {
        "path": findings.path,
        "picture": {"height": height, "width": width, "unit": "pixels"},
        "grid": {"rows": rows, "columns": columns},
        "tokens": {
            "prefix": list(findings.prefix),
            "count": len(findings.prefix) + rows * columns,
            "order": "the prefix, then the patches row by row",
        },
        "unsure": findings.unsure,
        "foreign": findings.answer.get("foreign"),
        "method": findings.method,
        "target": findings.target,
        "query": findings.query,
        "layer": findings.layer,
        "head": findings.head,
        "heat": {
            "meaning": ARRAYS["heat"],
            "shape": list(findings.heatmap.shape),
            "values": findings.heatmap.tolist(),
        },
        "probabilities": {findings.classes[i]: float(findings.probabilities[i]) for i in order},
        "faithfulness": None if test is None else test.to_dict(),
    }
    if findings.internals is not None:
        values |= _internals_json(findings, findings.internals)
    return values


def _internals_json(findings: Findings, internals: Internals) -> dict[str, Any]:
    logits = internals.layer_logits
    best = [int(i) for i in np.argsort(-logits[-1], kind="stable")[:MAX_CLASSES]]
    norms = internals.norms.mean(axis=-1)
    return {
        "layer": internals.layer,
        "lens": {
            "meaning": "logits of the best classes, the head read after each layer; row 0 is the "
            "embedding",
            "shape": [len(logits), len(best)],
            "classes": [findings.classes[i] for i in best],
            "values": logits[:, best].tolist(),
        },
        "lengths": {
            "meaning": "mean over the tokens of the Euclidean norm: [layer][head]",
            "shape": list(norms.shape[1:]),
            "queries": norms[0].tolist(),
            "keys": norms[1].tolist(),
            "values": norms[2].tolist(),
        },
        "attention.npz": {
            name: {"shape": list(array.shape), "type": str(array.dtype), "meaning": ARRAYS[name]}
            for name, array in _arrays(findings, internals).items()
        },
    }


def _arrays(findings: Findings, internals: Internals) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any] | None] = {
        "attention": internals.attention.astype(np.float16),
        "rollout": internals.rollout,
        "rollout_without_residual": internals.rollout_no_residual,
        "occlusion": internals.occlusion,
        "relevance": internals.relevance,
        "heat": findings.heatmap,
        "walls": internals.attention_maps,
        "lens": internals.layer_logits,
        "lengths": internals.norms,
        "cosines": internals.cosines,
    }
    return {name: array for name, array in arrays.items() if array is not None}
