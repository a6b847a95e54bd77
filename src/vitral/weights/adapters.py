"""Low-rank updates in peft's files, merged into the network that they were learnt on.

A folder of peft holds adapter_config.json and adapter_model.safetensors (or .bin): for each layer
W + scale * B A, whole layers in place of others (`modules_to_save`), and perhaps biases. What can
be merged exactly is merged (LoRA, its rank-stabilised scale, DoRA); everything else is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitral.errors import WeightsError
from vitral.weights import checkpoint_files
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import RenameTable
from vitral.wording import listed

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
WHOLE = ("model.safetensors", "pytorch_model.bin", *checkpoint_files.INDICES)
PREFIX = "base_model.model."
UPDATE = re.compile(
    r"(?P<layer>.+)\.lora_(?P<part>A|B|magnitude_vector)(\.\w+)??(\.(?P<leaf>\w+))?"
)
PARTS = re.compile(r"\.(base_layer|modules_to_save(\.\w+)?)(?=\.(weight|bias)$)")
# starts that change the base weights as well, so that they are not those of the file
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "eva")


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """The updates of one folder.

    Attributes:
        path: the folder.
        config: the content of adapter_config.json.
        tensors: under peft's names.
        preprocessor: its preprocessor_config.json; None without one.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    preprocessor: Mapping[str, Any] | None = None

    @property
    def base(self) -> str:
        """The weights that it was learnt on, as it names them; "" where it does not."""
        return str(self.config.get("base_model_name_or_path") or "")


def is_adapter(path: Path) -> bool:
    """Tell whether this is a folder of updates, or their file, and no whole network."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name in FILES
    whole = path.is_dir() and any((path / name).exists() for name in WHOLE)
    return named and not whole and (folder / CONFIG).exists()


def read(path: Path) -> Adapter:
    """Read updates; WeightsError for those of a kind that is not merged here."""
    folder = path if path.is_dir() else path.parent
    config = checkpoint_files.json_file(folder / CONFIG) or {}
    file = next((folder / name for name in FILES if (folder / name).exists()), None)
    if file is None:
        raise WeightsError(f"{folder} holds {CONFIG} and no {' or '.join(FILES)}.")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise WeightsError(
            f"{folder} is an adapter of the kind {kind!r}, and only LORA is merged here. Where it "
            "was made, peft merges it: model.merge_and_unload().save_pretrained(FOLDER)."
        )
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(CHANGED_BASE):
        raise WeightsError(
            f"{folder} began with init_lora_weights={start}, which changes the base weights, too. "
            "Where it was made, save the whole network: model.merge_and_unload()."
        )
    return Adapter(
        path=folder,
        config=config,
        tensors=checkpoint_files.file_content(file).tensors,
        preprocessor=checkpoint_files.json_file(folder / "preprocessor_config.json"),
    )


def fits(adapter: Adapter, tensors: Mapping[str, Tensor], table: RenameTable) -> bool:
    """Tell whether every layer that is updated stands among tensors under a table's names."""
    named = table.named(tensors)[0]
    updates, _ = _sorted(adapter, table, named)
    return all(f"{layer}.weight" in named for layer in updates)


def merged(adapter: Adapter, base: Source, table: RenameTable) -> tuple[Source, tuple[str, ...]]:
    """Return the base with the updates in its weights, and a line about each thing that was done.

    `base` holds one network under the names of `table`. Raises WeightsError for an update without
    a layer in the base, or of other sides.
    """
    tensors = dict(table.named(base.tensors)[0])
    updates, plain = _sorted(adapter, table, tensors)
    for layer, update in updates.items():
        tensors[f"{layer}.weight"] = _weight(adapter, layer, update, tensors)
        parts = update.parts
        if "B.bias" in parts:
            scale = _scale(adapter, update.layer, len(parts["A"]))
            bias = tensors.get(f"{layer}.bias", torch.zeros(len(parts["B"])))
            tensors[f"{layer}.bias"] = bias.float() + scale * parts["B.bias"].float()
    head = table.their_name("head.weight").removesuffix("weight")
    if any(name not in tensors or tensors[name].shape != x.shape for name, x in plain.items()):
        # a head of other classes, perhaps of another name; what is none is refused where it is read
        tensors = {name: x for name, x in tensors.items() if not (head and name.startswith(head))}
    tensors |= plain
    notes = [f"the updates of {adapter.path} changed {len(updates)} of the base's layers"]
    if plain:
        notes.append(f"whole tensors came with the updates: {listed(plain, 4)}")
    source = replace(
        base,
        path=adapter.path,
        tensors=tensors,
        preprocessor=adapter.preprocessor or base.preprocessor,
    )
    return source, tuple(notes)


class Update(NamedTuple):
    """The update of one layer: its name in the adapter, and the tensors by what they are."""

    layer: str
    parts: dict[str, Tensor]


def _sorted(
    adapter: Adapter, table: RenameTable, base: Mapping[str, Tensor]
) -> tuple[dict[str, Update], dict[str, Tensor]]:
    """The parts of each update by its layer, and the whole tensors, under the base's names."""
    updates: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for name, x in adapter.tensors.items():
        own = PARTS.sub("", name.removeprefix(PREFIX))
        if ".original_module." in own:  # what a whole layer was put in place of
            continue
        found = UPDATE.fullmatch(own)
        if found is None:
            plain[own] = x
            continue
        part = found["part"] + (".bias" if found["leaf"] == "bias" else "")
        updates.setdefault(found["layer"], {})[part] = x
    names = {f"{layer}.weight": torch.empty(0) for layer in updates} | plain
    own_names = dict(zip(names, table.named(names)[0], strict=True))
    renamed = _without_prefix(own_names, updates, base)
    by_layer = {
        renamed[f"{layer}.weight"].removesuffix(".weight"): Update(layer, parts)
        for layer, parts in updates.items()
    }
    return by_layer, {renamed[name]: x for name, x in plain.items()}


def _without_prefix(
    names: Mapping[str, str], updates: Mapping[str, Any], base: Mapping[str, Tensor]
) -> dict[str, str]:
    """The names without what stood before them where they were learnt, and not in the base."""
    layers = [names[f"{layer}.weight"] for layer in updates]
    for prefix in _prefixes(layers[0]) if layers else [""]:
        if all(name.removeprefix(prefix) in base for name in layers):
            return {old: name.removeprefix(prefix) for old, name in names.items()}
    return dict(names)


def _prefixes(name: str) -> Iterator[str]:
    yield ""
    for match in re.finditer(r"\.", name):
        yield name[: match.end()]


def _weight(adapter: Adapter, layer: str, update: Update, base: Mapping[str, Tensor]) -> Tensor:
    """W + scale * B A of a layer; of DoRA with each row brought to its learnt length."""
    parts = update.parts
    before = base.get(f"{layer}.weight")
    if before is None or not {"A", "B"} <= parts.keys():
        raise WeightsError(
            f"{adapter.path} updates '{layer}', and "
            + ("the update is not whole." if before is not None else "the base has no such layer. ")
            + "Give the weights that the adapter was learnt on: --base."
        )
    down = parts["A"].float().flatten(1)
    up = parts["B"].float().flatten(1)
    fits = up.shape[1] == len(down) and up.shape[0] * down.shape[1] == before.numel()
    if not fits:
        raise WeightsError(
            f"{adapter.path}: the update of '{layer}' is {len(up)}x{down.shape[1]}, and the base "
            f"has {'x'.join(map(str, before.shape))} there. Give the weights that it was learnt "
            "on: --base."
        )
    change = _scale(adapter, update.layer, len(down)) * (up @ down)
    change = change.T if adapter.config.get("fan_in_fan_out") else change
    after = before.float() + change.reshape(before.shape)
    length = parts.get("magnitude_vector")
    if bool(adapter.config.get("use_dora")) != (length is not None):
        raise WeightsError(f"{adapter.path}: use_dora and the tensors of '{layer}' do not agree.")
    if length is None:
        return after
    rows = after.flatten(1)
    return (rows * (length.float().flatten() / rows.norm(dim=1))[:, None]).reshape(before.shape)


def _scale(adapter: Adapter, layer: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) where the scale is rank-stabilised; patterns name layers."""
    told = _of_layer(adapter.config, "rank_pattern", layer, adapter.config.get("r"))
    alpha = _of_layer(adapter.config, "alpha_pattern", layer, adapter.config.get("lora_alpha"))
    if told != rank or not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise WeightsError(
            f"{adapter.path / CONFIG} says r={told!r} and lora_alpha={alpha!r} of '{layer}', whose "
            f"update has the rank {rank}. Put the configuration of these tensors beside them."
        )
    return alpha / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank)


def _of_layer(config: Mapping[str, Any], patterns: str, layer: str, otherwise: Any) -> Any:
    """The value of the first pattern that ends a layer's name, as peft matches them."""
    named = config.get(patterns) or {}
    if not isinstance(named, Mapping):
        raise WeightsError(f"{CONFIG}: {patterns} holds values by pattern, not {named!r:.40}.")
    for pattern, value in named.items():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", layer):
                return value
        except re.error:
            raise WeightsError(f"{CONFIG}: {patterns} has no pattern '{pattern}'.") from None
    return otherwise
