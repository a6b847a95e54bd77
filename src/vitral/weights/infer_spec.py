"""The format of a checkpoint is told by its names, its spec by shapes, defaults and settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from torch import Tensor

from vitral import catalog
from vitral.errors import SpecError, WeightsError
from vitral.specs import ModelSpec
from vitral.specs.fields import assign, coerce, from_mapping, pair
from vitral.weights import architectures, formats
from vitral.weights.axes import Shape
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import Reading, RenameTable, fitting_tables
from vitral.wording import listed

SHOWN = 4  # names in a message
ROWS = ("prefix_positions", "register_positions")  # by the format's rule, else by the table's rows
AXES = {  # of the tensors whose shapes tell the spec, where the file has them
    "patches.weight": 4,
    "stem.root.weight": 4,
    "stem.norm.weight": 1,
    "positions.table": 3,
    "registers": 3,
    "blocks.0.attention.qkv.weight": 2,
    "blocks.0.attention.out.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
    "pre_logits.weight": 2,
    "head.weight": 2,
}


def detect_format(source: Source) -> RenameTable:
    """Find the table of a checkpoint; WeightsError when none fits, or several."""
    fitting = fitting_tables(source.tensors)
    kind = formats.of_config(source.config)
    if len(fitting) > 1 and kind:
        fitting = [table for table in fitting if table.format == kind] or fitting
    if len(fitting) > 1:
        raise WeightsError(
            f"{source.path} could come from {' or '.join(table.name for table in fitting)}, and "
            "its names do not decide. Give its folder with config.json, or remove what does not "
            "belong to the model."
        )
    if not fitting and (reason := formats.refuse_unexpected(list(source.tensors))):
        raise WeightsError(f"{source.path} {reason}")
    if not fitting:
        known = ", ".join([*formats.names(), formats.OWN])
        raise WeightsError(
            f"{source.path} is no Vision Transformer, hybrid or BiT of {known}: its "
            f"{len(source.tensors)} tensors begin with {_shown(list(source.tensors))}. "
            f"{_other_kind(source)}Other architectures cannot be converted."
        )
    return fitting[0]


def shape_from_changes(source: Source, changes: Sequence[str]) -> Shape:
    """Read the patch and its channels from changes such as "model.patch=[8,4]"."""
    told: Any = {"model": {"patch": None, "channels": None}}
    named = [each for each in changes if each.partition("=")[0].strip()[6:] in told["model"]]
    told = assign(told, named, "convert")["model"]
    try:
        patch = (0, 0) if told["patch"] is None else pair("model.patch", told["patch"])
        channels = coerce(int, told["channels"] or 0, "model.channels")
    except SpecError as error:
        raise WeightsError(f"{source.path}: {error}") from None
    return Shape(channels=channels, patch=patch)


def check_complete(table: RenameTable, reading: Reading, path: object) -> None:
    """Raise WeightsError if a tensor is left over, in part missing, or no weight."""
    if reason := formats.named(table.format).refuse_unexpected(reading.unexpected_keys):
        raise WeightsError(f"{path} {reason}")
    if reading.unexpected_keys or reading.missing_keys:
        kind = architectures.named(reading.unexpected_keys)
        raise WeightsError(
            f"{path} is not a model that Vitral has. Left over: {_shown(reading.unexpected_keys)}. "
            f"Missing: {_shown(reading.missing_keys)}.{f' It is {kind}.' if kind else ''}"
        )
    if ("patches.weight" if table.transformer else "stem.root.weight") not in reading.ours:
        raise WeightsError(f"{path} is not whole: nothing in it projects the patches.")
    first, second = (reading.ours.get(f"blocks.0.mlp.fc{n}.weight") for n in (1, 2))
    if first is not None and second is not None and len(first) == 2 * second.shape[-1]:
        raise WeightsError(f"{path} has gated MLPs (SwiGLU), which no model here has.")
    for name, x in reading.ours.items():
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise WeightsError(f"{path}: '{name}' holds {kind}; weights are float numbers.")
        if not x.float().isfinite().all():
            raise WeightsError(
                f"{path}: '{name}' holds values that are not finite. The training diverged, or "
                "the file is damaged; take an earlier checkpoint."
            )
        if x.ndim != AXES.get(name, x.ndim):
            raise WeightsError(
                f"{path}: '{name}' has shape {tuple(x.shape)}; {AXES[name]} axes belong there."
            )


def infer_spec(
    source: Source,
    table: RenameTable,
    reading: Reading,
    *,
    size: tuple[int, int] | None = None,
    changes: Sequence[str] = (),
) -> ModelSpec:
    """Return the spec of the tensors that a table has read.

    What shapes cannot tell comes from `changes` ("model.heads=6"), else the format's configuration,
    else its code's rule (the table), else, for the heads, from the catalogue's sizes. `size` is
    (height, width) in pixels.

    Raises WeightsError, naming the option, where something is still missing.
    """
    values: dict[str, Any] = {
        field.name: None if field.default is MISSING else field.default
        for field in fields(ModelSpec)
    }
    resnet_rules = table.defaults.get("resnet", {})
    values |= {name: x for name, x in table.defaults.items() if name not in ("resnet", "positions")}
    values |= {"size": None, **{name: table.defaults.get(name) for name in ROWS}}
    values |= _shapes(reading.ours, resnet_rules)
    if "positions.table" not in reading.ours:
        values["positions"] = table.defaults.get("positions", "none")
    if "pool" in table.defaults and values["pool"] != "cls_mean":
        values["pool"] = table.defaults["pool"]
    if source.config is not None and formats.of_config(source.config) == table.format:
        values |= _configured(source, table, values)
    values |= reading.facts
    values["size"] = values["size"] or table.defaults.get("size")
    unlisted = values.pop("unlisted", "")
    given = assign({"model": values}, changes, "convert")["model"]
    if unlisted and given["heads"] is None:
        raise WeightsError(
            f"{source.path}: Vitral does not list the architecture {unlisted}, and some share the "
            "names of a ViT's tensors but compute something else. If it is a plain ViT, say its "
            "heads once: vitral convert FILE MODEL/ --set model.heads=NUMBER (and model.gelu, "
            "model.pool where they differ)."
        )
    try:
        spec = from_mapping(ModelSpec, _resolve(table, _typed(given), reading, size))
    except SpecError as error:
        raise WeightsError(f"{source.path}: {error}") from None
    pooling = ("pool", "pool_blocks") if len(spec.readout) > 1 else ()
    for name in ("positions", "biases", "class_token", "out_projection", *pooling):
        value = getattr(spec, name)
        held = table.supports.get(name, [])
        if held and value not in held and not spec.is_resnet:
            raise WeightsError(
                f"{source.path} is not whole: its tensors make model.{name}={value}, and "
                f"{table.format} has {' or '.join(map(str, held))}."
            )
    if reason := formats.named(table.format).refuse_spec(spec):
        raise WeightsError(f"{source.path} {reason}")
    return spec


def _configured(source: Source, table: RenameTable, values: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json tells; WeightsError if it is of a network of another size."""
    told = formats.named(table.format).facts(source.config or {})
    for name in ("width", "depth"):
        if (wanted := told.get(name, values[name])) != values[name]:
            raise WeightsError(
                f"{source.path}: its config.json is of another model: the {name} is {wanted!r} "
                f"there and {values[name]} in the tensors. Put the right one beside them."
            )
    return told


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as ModelSpec's fields want them, before anything is computed with them."""
    hints = get_type_hints(ModelSpec)
    pairs = {k: pair(f"model.{k}", values[k]) for k in ("size", "patch") if values[k] is not None}
    values = {**values, **pairs}
    return {k: x if x is None else coerce(hints[k], x, f"model.{k}") for k, x in values.items()}


def _shapes(ours: Mapping[str, Tensor], resnet_rules: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ModelSpec that the shapes of our tensors tell."""
    shape = {name: tuple(x.shape) for name, x in ours.items()}
    values: dict[str, Any] = {"classes": shape["head.weight"][0] if "head.weight" in shape else 0}
    if "stem.root.weight" in shape:
        kind = "v1" if "stem.root_norm.weight" in shape else "v2"
        values["channels"] = shape["stem.root.weight"][1]
        values["resnet"] = {
            **resnet_rules,
            "kind": kind,
            "blocks": _units(shape),
            "width": shape["stem.root.weight"][0],
            "root_pool": "same" if kind == "v1" else resnet_rules.get("root_pool", "zero"),
        }
    if "patches.weight" not in shape:
        absent = {"depth": 0, "heads": 0, "mlp_width": 0, "class_token": False, "patch": (1, 1)}
        width = values["resnet"]["width"] * 2 ** (len(values["resnet"]["blocks"]) + 1)
        return values | absent | {"width": width, "pool": "mean"}
    width, inputs, *patch = shape["patches.weight"]
    depth = len({k.split(".")[1] for k in shape if k.startswith("blocks.")})
    mean = "pool.probe" not in shape and "cls" not in shape
    values |= {
        "channels": values.get("channels", inputs),
        "patch": tuple(patch),
        "width": width,
        "depth": depth,
        "mlp_width": shape.get("blocks.0.mlp.fc1.weight", (0,))[0],
        "class_token": "cls" in shape,
        "distillation_token": "distillation" in shape,
        "registers": shape["registers"][1] if "registers" in shape else 0,
        "pool": "map" if "pool.probe" in shape else "mean" if mean else "cls",
        "representation": shape.get("pre_logits.weight", (0,))[0],
        "layer_scale": 1e-5 if "blocks.0.scale1" in shape else None,
        "qk_norm": "blocks.0.attention.q_norm.weight" in shape,
        "patch_norms": "patches.norm1.weight" in shape,
    }
    return values | _pool_of_the_head(shape, width) | _shapes_of_a_block(shape)


def _pool_of_the_head(shape: Mapping[str, tuple[int, ...]], width: int) -> dict[str, Any]:
    """A head that reads several vectors has class tokens and the mean of the patches (DINOv2)."""
    first = next((name for name in ("pre_logits.weight", "head.weight") if name in shape), "")
    vectors, rest = divmod(shape[first][1], width) if first else (1, 0)
    if "cls" not in shape or "pool.probe" in shape or vectors < 2 or rest:
        return {}
    return {"pool": "cls_mean", "pool_blocks": vectors - 1}


def _shapes_of_a_block(shape: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Biases, and whether a linear map follows the heads."""
    qkv, out, mlp = (
        f"blocks.0.{name}.bias" in shape for name in ("attention.qkv", "attention.out", "mlp.fc1")
    )
    projected = "blocks.0.attention.out.weight" in shape
    partly = "no_attention" if mlp and projected and not out else "no_qkv" if mlp else "none"
    # a block without any map after its heads is not whole, where its format has no such network
    return {"biases": "all" if qkv else partly, "out_projection": projected}


def _units(shape: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Units of each stage of a stem."""
    numbers = {tuple(k.split(".")[2:4]) for k in shape if k.startswith("stem.stages.")}
    stages = Counter(int(stage) for stage, _ in numbers)
    return tuple(stages[stage] for stage in sorted(stages))


def _resolve(
    table: RenameTable, values: dict[str, Any], reading: Reading, size: tuple[int, int] | None
) -> dict[str, Any]:
    """Heads, head width, name, and the size with the rows of the position table."""
    values = dict(values)
    known = catalog.size_of(values["width"], values["depth"], values["mlp_width"])
    if values["depth"]:
        values |= _heads(table, values, reading, known)
    if values["pool"] == "cls":
        values["pool_norm"] = "before"  # of one token it is the same
    if values["name"] is None:
        values["name"] = _name(values, known)
    table_of_positions = reading.ours.get("positions.table")
    return values | _size_and_rows(values, table_of_positions, size or values["size"])


def _heads(
    table: RenameTable, values: Mapping[str, Any], reading: Reading, known: str | None
) -> dict[str, Any]:
    """Number and width of the heads: told, or by the program's rule, or the catalogue's."""
    qkv = reading.ours.get("blocks.0.attention.qkv.weight")
    width = values["width"]
    inner = width if qkv is None else len(qkv) // 3
    head_width = values["head_width"] or table.head_width
    heads = values["heads"]
    if heads is None and not values["out_projection"]:
        heads = 1
    elif heads is None and head_width and inner % head_width == 0:
        heads = inner // head_width
    elif heads is None and known:
        heads = catalog.model(f"{known}/16").heads
    if heads is None:
        raise SpecError(
            f"the tensors do not tell the number of heads of width {width}. Say it "
            "once: vitral convert FILE MODEL/ --set model.heads=NUMBER."
        )
    if heads != reading.facts.get("heads", heads):
        raise SpecError(f"model.heads is {reading.facts['heads']} in the tensors; {heads} is not.")
    if heads < 1 or inner % heads:
        raise SpecError(f"model.heads divides {inner}, the width of all heads; {heads} does not.")
    shared = inner == width and width % heads == 0
    return {"heads": heads, "head_width": values["head_width"] if shared else inner // heads}


def _size_and_rows(
    values: Mapping[str, Any], table: Tensor | None, asked: tuple[int, int] | None
) -> dict[str, Any]:
    """The size in pixels, and which tokens before the patches have rows in the table."""
    stem = values["resnet"].stride if values["resnet"] is not None else 1
    step = (values["patch"][0] * stem, values["patch"][1] * stem)
    if table is None and asked is None:
        raise SpecError("no tensor tells the size of the images. Say it: --size HEIGHTxWIDTH.")
    if table is None:
        told, beside = (values[name] for name in ROWS)
        flags = dict(zip(ROWS, (told is not False, beside is True), strict=True))
        return {"size": pair("--size", asked), **flags}
    rows = table.shape[1]
    counts = _counts(values)
    if asked is not None:
        height, width = pair("--size", asked)
        spare = (step[0] - 1, step[1] - 1) if stem > 1 else (0, 0)  # a stem pads, patches cut off
        grid = (height + spare[0]) // step[0], (width + spare[1]) // step[1]
        if (count := rows - grid[0] * grid[1]) not in counts:
            raise SpecError(
                f"{rows} positions do not fit {height}x{width} pixels, which are "
                f"{grid[0]}x{grid[1]} patches. Say the size that the model was trained at: "
                "--size HEIGHTxWIDTH."
            )
        return {"size": (height, width), **counts[count]}
    for count, flags in sorted(counts.items(), reverse=True):
        side = math.isqrt(max(rows - count, 0))
        if side and side * side == rows - count:
            return {"size": (side * step[0], side * step[1]), **flags}
    raise SpecError(
        f"{rows} positions are no square of patches. Say the size that the model was trained at: "
        "--size HEIGHTxWIDTH."
    )


def _counts(values: Mapping[str, Any]) -> dict[int, dict[str, bool]]:
    """How many rows there may be before the patches', and whose they are then."""
    prefix = values["class_token"] + values["distillation_token"]
    registers = values["registers"]
    told, beside = (values[name] for name in ROWS)  # None where a format has both
    owners = {0: (False, False), prefix: (True, False)}  # without any, nothing depends on it
    if registers:
        owners[prefix + registers] = (True, True)
    fitting = {
        count: flags
        for count, flags in owners.items()
        if (not prefix or told in (None, flags[0])) and (beside in (None, flags[1]))
    }
    return {count: dict(zip(ROWS, flags, strict=True)) for count, flags in fitting.items()}


def _name(values: Mapping[str, Any], known: str | None) -> str:
    """What a person would call it."""
    resnet = values["resnet"]
    patch = values["patch"]
    if resnet is not None and not values["depth"]:
        family = "BiT" if resnet.kind == "v2" else "ResNet"
        return f"{family}-R{sum(resnet.blocks) * 3 + 2}x{resnet.width // 64}"
    size = known or f"ViT-{values['width']}x{values['depth']}"
    if resnet is not None:
        stem = f"R{sum(resnet.blocks) * 3 + 2}" if resnet.blocks else "R"
        return f"{stem}+{size}/{resnet.stride * patch[0] if resnet.blocks else 16}"
    return f"{size}/{patch[0]}" + (f"x{patch[1]}" if patch[0] != patch[1] else "")


def _other_kind(source: Source) -> str:
    """A sentence with a space about what the file is, as far as names or config.json tell."""
    if kind := architectures.named(source.tensors):
        return f"It is {kind}. "
    told = (source.config or {}).get("model_type") or (source.config or {}).get("architecture")
    return f"Its config.json says {str(told)[:60]!r}. " if told else ""


def _shown(names: Sequence[str]) -> str:
    return listed((f"{name:.80}" for name in names), SHOWN) or "nothing"
