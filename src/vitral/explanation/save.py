"""What `Explanation.save` writes: pictures to look at and numbers to go on with.

explanation.png/.svg  the overview            wall.png/.svg    attention of every layer and head
overlay.png           the map on the picture  lens.png/.svg    the head read after every layer
input.png             what the model received tokens.png/.svg  lengths and angles of q, k and v
patches.png           numbered                rollout.png      with the skips and without
occlusion.png         what the answer needs   relevance.png    gradient × attention
tokens.json, attention.npz   all the numbers
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import UsageError
from vitral.explanation.figures import details, overview
from vitral.storage import files

if TYPE_CHECKING:
    from vitral.explanation.explain import Explanation, Inside

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
ANSWERED = ("occlusion.png", "relevance.png")
MOST_CLASSES = 20  # of the lens in tokens.json; attention.npz has all
PICTURES = (".jpg", ".jpeg", ".pdf", ".gif", ".webp", ".tif", ".tiff", ".bmp")


def save(explanation: Explanation, path: Path) -> None:
    """Write an overview (.png or .svg), or the folder; see Explanation.save."""
    match path.suffix.lower():
        case ".png":
            files.write_bytes(path, overview.render(explanation, "png"))
        case ".svg":
            files.write_bytes(path, overview.render(explanation, "svg"))
        case suffix if suffix in PICTURES:
            raise UsageError(f"{path}: figures are .png or .svg (or a folder), not {suffix}.")
        case _:
            earlier = set(names()) if _is_ours(path / "tokens.json") else set()
            for name, content in of(explanation):
                files.write_bytes(path / name, content)
                earlier.discard(name)
            if explanation.inside is not None:
                arrays = _arrays(explanation, explanation.inside)
                files.write_arrays(path / "attention.npz", arrays)
                earlier.discard("attention.npz")
            for name in earlier:  # of the explanation that was here before, not of this one
                if (path / name).is_file():
                    (path / name).unlink()


def _is_ours(path: Path) -> bool:
    """Whether this is the tokens.json of an explanation, and not a file of the user's."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        meaning: object = values["heat"]["meaning"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return meaning == ARRAYS["heat"] and {"grid", "tokens", "probabilities"} <= set(values)


def names() -> tuple[str, ...]:
    """Every file that a folder may get."""
    few = ("explanation.png", "explanation.svg", "overlay.png", "input.png", "tokens.json")
    both = ("wall", "lens", "tokens")
    more = tuple(f"{name}.{kind}" for name in both for kind in ("png", "svg"))
    return (*few, *more, "patches.png", "rollout.png", *ANSWERED, "attention.npz")


def of(explanation: Explanation) -> Iterator[tuple[str, bytes]]:
    """The files of a folder, by name; those of what was not kept are left out."""
    inside = explanation.inside
    yield "explanation.png", overview.render(explanation, "png")
    yield "explanation.svg", overview.render(explanation, "svg")
    yield "overlay.png", explanation.overlay_png()
    yield "input.png", explanation.picture_png()
    yield "patches.png", details.patches(explanation)
    text = json.dumps(numbers(explanation), indent=1, ensure_ascii=False)
    yield "tokens.json", text.encode("utf-8", "backslashreplace")
    if inside is None:
        return
    yield "rollout.png", details.rollouts(explanation, inside)
    for name, heat in zip(ANSWERED, (inside.occlusion, inside.relevance), strict=True):
        if heat is not None:
            yield name, details.window(explanation, heat)
    yield "wall.png", details.wall(explanation, inside, "png")
    yield "wall.svg", details.wall(explanation, inside, "svg")
    yield "tokens.png", details.tokens(explanation, inside, "png")
    yield "tokens.svg", details.tokens(explanation, inside, "svg")
    if explanation.classes:
        yield "lens.png", details.knowledge(explanation, inside, "png")
        yield "lens.svg", details.knowledge(explanation, inside, "svg")


def numbers(explanation: Explanation) -> dict[str, Any]:
    """The content of tokens.json: plain values; layers, heads, rows and columns count from 1."""
    height, width = explanation.picture.shape[:2]
    rows, columns = explanation.grid
    test, inside = explanation.faithfulness, explanation.inside
    order = np.argsort(-explanation.probabilities, kind="stable")
    values: dict[str, Any] = {
        "path": explanation.path,
        "picture": {"height": height, "width": width, "unit": "pixels"},
        "grid": {"rows": rows, "columns": columns},
        "tokens": {
            "prefix": list(explanation.prefix),
            "count": len(explanation.prefix) + rows * columns,
            "order": "the prefix, then the patches row by row",
        },
        "unsure": explanation.unsure,
        "method": explanation.method,
        "target": explanation.target,
        "query": explanation.query,
        "layer": explanation.layer,
        "head": explanation.head,
        "heat": {
            "meaning": ARRAYS["heat"],
            "shape": list(explanation.heat.shape),
            "values": explanation.heat.tolist(),
        },
        "probabilities": {
            explanation.classes[i]: float(explanation.probabilities[i]) for i in order
        },
        "faithfulness": None if test is None else test.to_dict(),
    }
    return values if inside is None else values | _inside(explanation, inside)


def _inside(explanation: Explanation, inside: Inside) -> dict[str, Any]:
    last = [int(i) for i in np.argsort(-inside.lens[-1], kind="stable")[:MOST_CLASSES]]
    lengths = inside.lengths.mean(axis=-1)
    return {
        "layer": inside.layer,
        "lens": {
            "meaning": "logits of the best classes, the head read after each layer; row 0 is the "
            "embedding",
            "shape": [len(inside.lens), len(last)],
            "classes": [explanation.classes[i] for i in last],
            "values": inside.lens[:, last].tolist(),
        },
        "lengths": {
            "meaning": "mean over the tokens of the Euclidean norm: [layer][head]",
            "shape": list(lengths.shape[1:]),
            **{
                name: part.tolist()
                for name, part in zip(("queries", "keys", "values"), lengths, strict=True)
            },
        },
        "attention.npz": {
            name: {"shape": list(array.shape), "type": str(array.dtype), "meaning": ARRAYS[name]}
            for name, array in _arrays(explanation, inside).items()
        },
    }


def _arrays(explanation: Explanation, inside: Inside) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any] | None] = {
        "attention": inside.attention.astype(np.float16),
        "rollout": inside.rollout,
        "rollout_without_residual": inside.plain,
        "occlusion": inside.occlusion,
        "relevance": inside.relevance,
        "heat": explanation.heat,
        "walls": inside.walls,
        "lens": inside.lens,
        "lengths": inside.lengths,
        "cosines": inside.cosines,
    }
    return {name: array for name, array in found.items() if array is not None}
