"""The network inside what a training script saved: under a prefix, beside others, under its head.

    found = unwrap(source, Wanted())      # found.source holds one network's tensors alone

A prefix is found by trying: whatever stands before the names, the tensors under it fit a rename
table once it is taken off. What was taken off and what was left is said in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vitral.errors import WeightsError
from vitral.weights import formats
from vitral.weights.axes import UNTOLD, Shape
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import Reading, RenameTable, fitting_tables
from vitral.wording import listed

UnusableHead = Literal["refuse", "drop"]
Sketch = Mapping[str, Tensor]  # of the shapes alone, on the meta device

FEWEST = 8  # tensors under a prefix; the smallest network has more
DEEPEST = 7  # parts of a prefix
# names of modules that stand beside a network and do not classify
BESIDE = re.compile(
    r"proj(ect|$|_)|predict|prototype|decod|queue|loss|criterion|metric|acc|auc|auroc|f1|confus|"
    r"confmat|mean|std|normali[sz]|aux|momentum|center|temperature|logit_scale|log_var|reconstruct|"
    r"n_averaged|initted|step|epoch|best",
    re.IGNORECASE,
)
HEADS = re.compile(
    r"(^|[._])(heads?|fc|classif\w*|cls|linear|logits?|out|output|last|lin|dense)\d*([._]|$)",
    re.IGNORECASE,
)
AVERAGE = re.compile(r"ema|averag|swa|teacher|momentum|target|shadow", re.IGNORECASE)
FIRST = ("model", "state_dict", "model_state_dict", "weights", "net", "params")  # of several
NORMALISATION = re.compile(r"(^|[._])(pixel_|image_)?(mean|std)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A choice among what a file holds.

    Attributes:
        part: the prefix of the network, where there are several; "" for the usual one.
        head: the name of the head, where there are several; "" for the usual one.
        unusable_head: what to do about a head that is no linear layer.
        headless: whether the head is to be left out.
    """

    part: str = ""
    head: str = ""
    unusable_head: UnusableHead = "refuse"
    headless: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Unwrapped:
    """One network of a file.

    Attributes:
        source: with its tensors alone, under the names of its format.
        notes: what was taken off, what was left and what was taken for the head.
        images: fields of ImageSpec that buffers of the file tell.
        dropped: names of a head that was left out.
    """

    source: Source
    notes: tuple[str, ...] = ()
    images: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


class Network(NamedTuple):
    """A network that stands in a file under a prefix."""

    prefix: str
    table: RenameTable
    reading: Reading

    @property
    def reads(self) -> int:
        """Number of values that a head reads: a hidden layer's, or the width."""
        ours = self.reading.ours
        hidden = ours.get("pre_logits.weight")
        first = ours.get("patches.weight", hidden)
        return 0 if first is None else len(first if hidden is None else hidden)

    @property
    def has_head(self) -> bool:
        """True where its own table names a head that is there."""
        return "head.weight" in self.reading.ours


class Module(NamedTuple):
    """A module beside a network: its names, and what its shapes make it."""

    name: str
    tensors: Sketch
    kind: Literal["linear", "layers", "norm", "other"]


def unwrap(source: Source, wanted: Wanted, shape: Shape = UNTOLD) -> Unwrapped:
    """Find the network in a source; the source as it is, where nothing is in its way or fits.

    `shape` is what was told of patches.

    Raises WeightsError where there are several and nothing says which, and for a head of several
    layers unless it is to be dropped.
    """
    sketch = {name: x.to("meta") for name, x in source.tensors.items()}
    if not wanted.part and _is_whole(sketch, shape):
        return Unwrapped(source=source)
    networks = _networks(sketch, formats.of_config(source.config), shape)
    if not networks:
        return Unwrapped(source=source)
    network = _chosen(networks, wanted, source)
    taken = {
        name.removeprefix(network.prefix) for name in sketch if name.startswith(network.prefix)
    }
    taken -= set(network.reading.unexpected_keys)
    others = {
        name: x
        for name, x in sketch.items()
        if not any(name.startswith(one.prefix) for one in networks if one is not network)
        and (not name.startswith(network.prefix) or name[len(network.prefix) :] not in taken)
    }
    tensors = {name: source.tensors[network.prefix + name] for name in taken}
    modules = list(_modules(others, network.prefix))
    head, dropped = _head(network, modules, wanted, source)
    notes = list(_notes(network, networks, sketch, len(taken)))
    if head is not None:
        notes += _take_head(tensors, head, network, source)
    beside = [one for one in modules if one is not head and one.name not in dropped]
    images = _normalisation(source, others)
    if left := [name for one in beside for name in one.tensors]:
        notes.append(f"left out: {listed(left, 4)}")
    if images:
        notes.append("images.mean and images.std are those that the file's own buffers hold")
    if dropped:
        notes.append(f"the head was left behind: {listed(dropped)} is more than one linear layer")
    return Unwrapped(
        source=replace(source, tensors=tensors), notes=tuple(notes), images=images, dropped=dropped
    )


def _is_whole(sketch: Sketch, shape: Shape) -> bool:
    """Whether the names fit a table as they are, and nothing is beside."""
    readings = (_read(table, sketch, shape) for table in fitting_tables(sketch))
    return any(one is not None and not one.unexpected_keys for one in readings)


def _read(table: RenameTable, sketch: Sketch, shape: Shape) -> Reading | None:
    """The sketch under our names; None where a part is missing or has other axes."""
    try:
        reading = table.read(sketch, shape)
    except WeightsError:
        return None
    first = "patches.weight" if table.transformer else "stem.root.weight"
    return reading if first in reading.ours and not reading.missing_keys else None


def _prefixes(names: Sequence[str]) -> list[str]:
    """All beginnings of names that end in a dot or slash, under enough of them; "" is the first."""
    counts: dict[str, int] = {"": len(names)}
    for name in names:
        ends = [match.end() for match in re.finditer(r"[./]", name)][:DEEPEST]
        for end in ends:
            counts[name[:end]] = counts.get(name[:end], 0) + 1
    enough = [prefix for prefix, count in counts.items() if count >= FEWEST]
    return sorted(enough, key=lambda prefix: (prefix.count(".") + prefix.count("/"), prefix))


def _networks(sketch: Sketch, kind: str, shape: Shape) -> list[Network]:
    """The networks in a file, each under the shortest prefix at which it is whole."""
    networks: list[Network] = []
    for prefix in _prefixes(list(sketch)):
        if any(prefix.startswith(one.prefix) for one in networks):
            continue
        inside = {
            name.removeprefix(prefix): x for name, x in sketch.items() if name.startswith(prefix)
        }
        tables = fitting_tables(inside)
        for table in sorted(tables, key=lambda table: table.format != kind):
            reading = _read(table, inside, shape)
            if reading is not None and _is_explained(table, reading, inside):
                networks.append(Network(prefix, table, reading))
                break
    return networks


def _is_explained(table: RenameTable, reading: Reading, inside: Sketch) -> bool:
    """Whether all that no table knows beside the network is a head, or nothing of its kind.

    A norm or a bias table there would belong to another architecture with the same names.
    """
    unexpected = {name: inside[name] for name in reading.unexpected_keys if name in inside}
    if len(unexpected) < len(reading.unexpected_keys):  # under names of a variant: of the network
        return False
    own = {re.split(r"[./]", name)[0] for name in inside if name not in unexpected}
    for module in _modules(unexpected, ""):
        first = re.split(r"[./]", module.name)[0]
        headed = "head.weight" in reading.ours or not table.their_name("head.weight")
        is_head = module.kind in ("linear", "layers") and HEADS.search(module.name)
        counts = not any(x.is_floating_point() for x in module.tensors.values())
        beside = first not in own and (counts or BESIDE.search(module.name))
        if not beside and (headed or not is_head):
            return False
    return True


def _modules(tensors: Sketch, prefix: str) -> Iterator[Module]:
    """The modules that names beside a network make: each the first that is not above it, too."""
    groups: dict[str, dict[str, Tensor]] = {}
    above = re.split(r"[./]", prefix)[:-1]
    for name, x in tensors.items():
        parts = re.split(r"[./]", name)
        shared = 0
        while shared < min(len(above), len(parts) - 1) and parts[shared] == above[shared]:
            shared += 1
        groups.setdefault(".".join(parts[: shared + 1]), {})[name] = x
    for group, members in groups.items():
        yield Module(group, members, _kind(members))


def _kind(members: Sketch) -> Literal["linear", "layers", "norm", "other"]:
    """What shapes make of a module: one matrix with a bias or none is a linear layer."""
    matrices = [name for name, x in members.items() if _is_matrix(name, x)]
    vectors = [name for name, x in members.items() if x.ndim == 1 and len(x) > 1]
    if len(matrices) == 1:
        own = {matrices[0], f"{matrices[0].removesuffix('weight')}bias"}
        return "linear" if members.keys() <= own else "layers"
    if matrices:
        return "layers"
    leaves = {name.rpartition(".")[2] for name in vectors}
    return "norm" if leaves & {"weight", "bias", "running_mean"} and len(vectors) > 1 else "other"


def _is_matrix(name: str, x: Tensor) -> bool:
    """Whether this is the weight of a linear layer by its name and axes; a count is none."""
    return x.ndim == 2 and x.is_floating_point() and name.endswith("weight")


def _chosen(networks: Sequence[Network], wanted: Wanted, source: Source) -> Network:
    """The network that was asked for, else the only one that is no average of another."""
    if wanted.part:
        part = wanted.part.rstrip("./")
        named = [one for one in networks if one.prefix.rstrip("./") == part]
        named = named or [one for one in networks if one.prefix.startswith(f"{part}.")]
        if len(named) != 1:
            raise WeightsError(
                f"{source.path} has no network under '{wanted.part}'; there is "
                f"{listed([_shown(one) for one in networks])}."
            )
        return named[0]
    teachers = [one for one in networks if "teacher" in one.prefix]
    students = [one for one in networks if "student" in one.prefix]
    if len(teachers) == len(students) == 1 and _alike(*teachers, *students):
        return teachers[0]  # of self-distillation, whose authors evaluate the average
    plain = [one for one in networks if not AVERAGE.search(one.prefix)] or list(networks)
    for name in FIRST if len(plain) > 1 else ():
        if first := [one for one in plain if one.prefix.partition(".")[0] == name]:
            plain = first
            break
    if len(plain) > 1:
        raise WeightsError(
            f"{source.path} holds {len(networks)} networks: {listed(map(_shown, networks))}. Say "
            f"which: vitral convert FILE OUT --set weights.part={_shown(plain[0])}."
        )
    return plain[0]


def _alike(first: Network, second: Network) -> bool:
    shapes = [{k: tuple(x.shape) for k, x in one.reading.ours.items()} for one in (first, second)]
    return shapes[0] == shapes[1]


def _shown(network: Network) -> str:
    return network.prefix.rstrip("./") or "the names without a prefix"


def _head(
    network: Network, modules: Sequence[Module], wanted: Wanted, source: Source
) -> tuple[Module | None, tuple[str, ...]]:
    """The linear layer that reads the network, and the names of a head that was dropped instead."""
    if wanted.headless or (network.has_head and wanted.head == _own_head(network)):
        return None, ()
    candidates = _candidates(network, modules, wanted, source)
    above = _reads_outputs(network, candidates, modules)
    norms = [
        one
        for one in modules
        if one.kind == "norm" and not BESIDE.search(one.name)
        and any(x.shape == (network.reads,) for x in one.tensors.values())
    ]  # fmt: skip
    deep = [one for one in candidates if one.kind == "layers"] or [*candidates[:1], *above]
    several = len(candidates) == 1 and (candidates[0].kind == "layers" or above or norms)
    if several or (above and network.has_head):
        return None, _refused([*deep, *norms], network, wanted, source)
    if len(candidates) > 1 or (candidates and network.has_head and not wanted.head):
        raise WeightsError(_two_heads(network, candidates, source))
    if candidates and not network.table.their_name("head.weight"):
        return None, _refused(candidates, network, wanted, source)
    return (candidates[0] if candidates else None), ()


def _candidates(
    network: Network, modules: Sequence[Module], wanted: Wanted, source: Source
) -> list[Module]:
    """The modules that may be the head: those that read what the network gives, by name first."""
    if wanted.head:
        named = [one for one in modules if one.name == wanted.head.rstrip(".")]
        if not named:
            raise WeightsError(
                f"{source.path} has no head '{wanted.head}'; beside the network there is "
                f"{listed([one.name for one in modules]) or 'nothing'}."
            )
        return named
    reading = [
        one
        for one in modules
        if one.kind in ("linear", "layers") and not BESIDE.search(one.name)
        and any(
            _is_matrix(name, x) and x.shape[1] == network.reads for name, x in one.tensors.items()
        )
    ]  # fmt: skip
    headed = [one for one in reading if HEADS.search(one.name)]
    return headed if headed and len(reading) > 1 else reading


def _reads_outputs(
    network: Network, candidates: Sequence[Module], modules: Sequence[Module]
) -> list[Module]:
    """The modules that read what a head gives: a hidden layer stands apart from its outputs."""
    tensors = [each for one in candidates for each in one.tensors.items()]
    outputs = {len(x) for name, x in tensors if _is_matrix(name, x)}
    if network.has_head:
        outputs.add(len(network.reading.ours["head.weight"]))
    outputs.discard(network.reads)
    return [
        one
        for one in modules
        if one not in candidates and not BESIDE.search(one.name)
        and any(_is_matrix(name, x) and x.shape[1] in outputs for name, x in one.tensors.items())
    ]  # fmt: skip


def _refused(
    modules: Sequence[Module], network: Network, wanted: Wanted, source: Source
) -> tuple[str, ...]:
    """The names of a head that is no linear layer; WeightsError unless it may be dropped."""
    layers = [
        f"{name} {'x'.join(map(str, x.shape))}"
        for one in modules
        for name, x in one.tensors.items()
        if name.endswith("weight")
    ]
    if wanted.unusable_head == "drop":
        return tuple(one.name for one in modules)
    headless = not network.table.their_name("head.weight")
    what = (
        f"head ({listed(layers, 4)}), and {network.table.format}'s own program has none for it"
        if headless
        else f"head of more than one linear layer ({listed(layers, 4)}), and Vitral's is one"
    )
    raise WeightsError(
        f"{source.path}: over its {network.table.format} network of width {network.reads} stands a "
        f"{what}. Take the network without it: --set model.classes=0; vitral train --from leaves "
        "it behind by itself."
    )


def _own_head(network: Network) -> str:
    return network.prefix + network.table.their_name("head.weight").removesuffix(".weight")


def _two_heads(network: Network, candidates: Sequence[Module], source: Source) -> str:
    own = [_own_head(network)] if network.has_head else []
    names = [*own, *(one.name for one in candidates)]
    return (
        f"{source.path} has several heads over one network: {listed(names)}. Say which: vitral "
        f"convert FILE OUT --set weights.head={candidates[0].name}, or leave all out with "
        "--set model.classes=0."
    )


def _take_head(
    tensors: dict[str, Tensor], head: Module, network: Network, source: Source
) -> Iterator[str]:
    """Put the head under its table's own name; what was done."""
    theirs = network.table.their_name("head.weight").removesuffix("weight")
    for name in [name for name in tensors if name.startswith(theirs)]:
        del tensors[name]
    weight = next(name for name, x in head.tensors.items() if x.ndim == 2)
    stem = weight.removesuffix("weight")
    tensors[f"{theirs}weight"] = source.tensors[weight]
    bias = source.tensors.get(f"{stem}bias")
    yield f"the head stood under {stem.rstrip('.')}" + (
        "" if bias is not None else ", without bias"
    )
    tensors[f"{theirs}bias"] = (
        torch.zeros(len(source.tensors[weight]), dtype=source.tensors[weight].dtype)
        if bias is None
        else bias
    )


def _notes(
    network: Network, networks: Sequence[Network], sketch: Sketch, count: int
) -> Iterator[str]:
    if network.prefix:
        yield f"read from under '{network.prefix}': {count} of the file's {len(sketch)} tensors"
    if others := [one for one in networks if one is not network]:
        yield (
            f"beside it the file holds {listed(map(_shown, others))}; --set "
            f"weights.part={_shown(others[0])} takes that instead"
        )


def _normalisation(source: Source, others: Sketch) -> dict[str, Any]:
    """The mean and standard deviation that a network subtracts and divides by itself."""
    found: dict[str, list[float]] = {}
    for name in others:
        match = NORMALISATION.search(name)
        x = source.tensors[name]
        if match and 1 <= x.numel() <= 4 and x.is_floating_point():
            found.setdefault(match[3], x.flatten().tolist())
    if found.keys() != {"mean", "std"} or len(found["mean"]) != len(found["std"]):
        return {}
    scale = 255.0 if max(found["std"]) > 1.5 else 1.0
    return {name: [value / scale for value in values] for name, values in found.items()}
