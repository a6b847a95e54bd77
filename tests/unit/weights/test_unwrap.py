"""What training scripts save: prefixes, averages, containers, other heads and other modules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import HELD, same, store, tensors, theirs
from vitral.errors import WeightsError
from vitral.weights.convert import convert
from vitral.weights.read import read_weights

SPEC = HELD["timm"]["token"]
SAID = {"size": (32, 32), "changes": ["model.heads=4"]}
FILE = theirs("timm", SPEC)
OURS = tensors(SPEC)
PREFIXES = "model. module. backbone. net. encoder. vit. student. ema_model. _orig_mod. my_thing."
NESTED = ["model.backbone.", "module.net.vit.", "model._orig_mod.module.", "0.", "a.b.c.1.net."]
# formats whose names a wrapper may put a prefix before
FORMATS = [("timm", "token"), ("timm", "hybrid"), ("timm", "map"), ("torchvision", "token")]
FORMATS += [("transformers", "token"), ("transformers", "dinov2"), ("transformers", "headless")]
CONTAINERS = ["state_dict", "model_state_dict", "model", "net", "weights", "params", "x"]
HEADS = ["head", "fc", "classifier", "head.1", "mlp_head", "classifier.0.fc", "heads"]
FORMATS += [("vit-pytorch", "token"), ("vit-pytorch", "simple"), ("dino", "token")]


def under(prefix: str, file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x for name, x in file.items()}


def saved(path: Path, values: Mapping[str, Any]) -> Path:
    torch.save(dict(values), path)
    return path


def said(*more: str) -> dict[str, Any]:
    return {"size": (32, 32), "changes": ["model.heads=4", *more]}


def notes(weights: Any) -> str:
    return "; ".join(weights.notes)


@pytest.mark.parametrize("prefix", [*PREFIXES.split(), *NESTED])
def test_any_prefix_is_taken_off(tmp_path: Path, prefix: str) -> None:
    others = {"criterion.weight": torch.ones(5), "train_acc.tp": torch.ones(5)}
    counts = {"val.table": torch.ones(5, 5, dtype=torch.long), "confmat.table": torch.ones(5, 5)}
    beside = read_weights(saved(tmp_path / "counts.pth", under(prefix, FILE) | counts), **SAID)
    assert same(beside.tensors, OURS)
    path = saved(tmp_path / "w.pth", under(prefix, FILE) | others)
    weights = read_weights(path, **SAID)
    assert same(weights.tensors, OURS)
    assert f"read from under '{prefix}'" in notes(weights).replace("_orig_mod.", "") or (
        "_orig_mod" in prefix or prefix == "module."
    )
    assert "left out: criterion.weight, train_acc.tp" in notes(weights)


@pytest.mark.parametrize(("format", "name"), FORMATS)
def test_a_prefix_before_every_format(tmp_path: Path, format: str, name: str) -> None:
    spec = HELD[format][name]
    path = saved(tmp_path / "w.pth", under("model.network.", theirs(format, spec)))
    weights = read_weights(path, **SAID)
    assert same(weights.tensors, tensors(spec)) and weights.format == format


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_container(tmp_path: Path, name: str) -> None:
    values = {name: under("module.", FILE), "optimizer": {"state": {0: {"m": torch.ones(9)}}}}
    values |= {"epoch": 3, "best_acc1": torch.tensor(0.5), "scheduler": {"last_epoch": 3}}
    weights = read_weights(saved(tmp_path / "best.pth.tar", values), **SAID)
    assert same(weights.tensors, OURS)


AVERAGES = [
    {"state_dict": FILE, "state_dict_ema": under("module.", FILE)},
    {"model": FILE, "model_ema": FILE},
    {"state_dict": under("model.", FILE) | under("ema_model.", FILE)},
    {"state_dict": under("net.", FILE) | under("model_ema.module.", FILE)},
    under("online_model.", FILE) | under("ema_model.", FILE) | {"initted": torch.ones(())},
    {"generator": under("teacher.", FILE) | under("big.", FILE)},
]


@pytest.mark.parametrize("values", AVERAGES, ids=range(len(AVERAGES)))
def test_the_network_that_learnt_is_taken_and_its_average_named(
    tmp_path: Path, values: Mapping[str, Any]
) -> None:
    def moved(name: str, x: Any) -> Any:
        if isinstance(x, Mapping):
            return {key: moved(f"{name}.{key}", inner) for key, inner in x.items()}
        return x + 1 if "ema" in name or "teacher" in name else x

    path = saved(tmp_path / "w.pth", moved("", values))
    weights = read_weights(path, **SAID)
    assert same(weights.tensors, OURS)
    assert "beside it the file holds" in notes(weights)
    part = notes(weights).partition("--set ")[2].split()[0]
    average = read_weights(path, **said(part))
    assert same(average.tensors, {name: x + 1 for name, x in OURS.items()})
    with pytest.raises(WeightsError, match="has no network under 'nobody'"):
        read_weights(path, **said("weights.part=nobody"))


def test_several_networks_are_asked_about(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", under("left.", FILE) | under("right.", FILE))
    with pytest.raises(WeightsError, match=r"holds 2 networks: left, right.*weights\.part=left"):
        read_weights(path, **SAID)
    assert same(read_weights(path, **said("weights.part=right")).tensors, OURS)


BODY = {name: x for name, x in FILE.items() if not name.startswith("head.")}
HEAD = {leaf: FILE[f"head.{leaf}"] for leaf in ("weight", "bias")}
VISION = theirs("torchvision", HELD["torchvision"]["token"])
VISION_BODY = {name: x for name, x in VISION.items() if not name.startswith("heads.")}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("place", ["model.backbone.", "backbone.", "beside"])
def test_a_linear_layer_is_the_head(tmp_path: Path, name: str, place: str) -> None:
    prefix = "" if place == "beside" else place
    outer = prefix.rpartition("backbone.")[0]
    body = VISION_BODY if place == "beside" else BODY
    values = under(prefix, body) | under(f"{outer}{name}.", HEAD)
    weights = read_weights(saved(tmp_path / "w.pth", values), **SAID)
    assert torch.equal(weights.tensors["head.weight"], HEAD["weight"])
    assert torch.equal(weights.tensors["head.bias"], HEAD["bias"])
    assert weights.card.model.classes == 5
    assert f"the head stood under {outer}{name}" in notes(weights)


def test_a_head_over_a_network_whose_program_has_none(tmp_path: Path) -> None:
    spec = HELD["transformers"]["dinov3"]
    values = under("backbone.", theirs("transformers", spec)) | under("fc.", HEAD)
    path = saved(tmp_path / "w.pth", values)
    done = convert(path, tmp_path / "a", **SAID)
    weights = read_weights(path, **SAID)
    assert done.exact and weights.card.model.classes == 5
    assert torch.equal(weights.tensors["head.weight"], HEAD["weight"])
    with pytest.raises(WeightsError, match=r"model\.classes is 5, and transformers has 0"):
        convert(tmp_path / "a", tmp_path / "b", to="transformers")
    convert(tmp_path / "a", tmp_path / "b", to="timm")


def test_a_head_without_bias(tmp_path: Path) -> None:
    values = under("backbone.", BODY) | {"fc.weight": HEAD["weight"]}
    weights = read_weights(saved(tmp_path / "w.pth", values), **SAID)
    assert not weights.tensors["head.bias"].any() and "without bias" in notes(weights)


DEEP = {
    "hidden layer": {"head.0.weight": torch.ones(7, 32), "head.0.bias": torch.ones(7),
                     "head.2.weight": torch.ones(3, 7), "head.2.bias": torch.ones(3)},
    "two modules": {"fc1.weight": torch.ones(7, 32), "fc1.bias": torch.ones(7),
                    "fc2.weight": torch.ones(3, 7), "fc2.bias": torch.ones(3)},
    "a norm": {"norm.weight": torch.ones(32), "norm.bias": torch.ones(32),
               "fc.weight": torch.ones(3, 32), "fc.bias": torch.ones(3)},
    "a batch norm": {"head.0.running_mean": torch.ones(32), "head.0.running_var": torch.ones(32),
                     "head.1.weight": torch.ones(3, 32), "head.1.bias": torch.ones(3)},
}  # fmt: skip


@pytest.mark.parametrize("kind", DEEP)
def test_a_head_of_several_layers_is_refused_or_dropped(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "w.pth", under("model.backbone.", BODY) | under("model.", DEEP[kind]))
    with pytest.raises(WeightsError, match=r"head of more than one linear layer.*classes=0"):
        convert(path, tmp_path / "out", **SAID)
    for options in (said("model.classes=0"), {**SAID, "unusable_head": "drop"}):
        weights = read_weights(path, **options)
        assert weights.card.model.classes == 0
        assert same(weights.tensors, {k: x for k, x in OURS.items() if "head" not in k})
        assert "head" in notes(weights) or "left out" in notes(weights)


def test_a_layer_over_the_backbones_own_head(tmp_path: Path) -> None:
    """torchvision's thousand classes under a user's three: neither alone is the classifier."""
    above = {"fc.weight": torch.ones(3, 5), "fc.bias": torch.ones(3)}
    path = saved(tmp_path / "w.pth", under("backbone.", VISION) | above)
    with pytest.raises(WeightsError, match="head of more than one linear layer"):
        read_weights(path, **SAID)


def test_two_heads_are_asked_about(tmp_path: Path) -> None:
    heads = under("colour.", HEAD) | {f"kind.{k}": x + 1 for k, x in HEAD.items()}
    path = saved(tmp_path / "w.pth", under("backbone.", BODY) | heads)
    with pytest.raises(WeightsError, match=r"several heads.*colour, kind.*weights\.head=colour"):
        read_weights(path, **SAID)
    weights = read_weights(path, **said("weights.head=kind"))
    assert torch.equal(weights.tensors["head.weight"], HEAD["weight"] + 1)
    assert "left out: colour.weight, colour.bias" in notes(weights)
    with pytest.raises(WeightsError, match=r"no head 'x'.*colour, kind"):
        read_weights(path, **said("weights.head=x"))
    own = saved(tmp_path / "own.pth", under("backbone.", VISION) | under("kind.", HEAD))
    with pytest.raises(WeightsError, match=r"several heads.*backbone\.heads\.head, kind"):
        read_weights(own, **SAID)
    for name in ("backbone.heads.head", "kind"):
        assert read_weights(own, **said(f"weights.head={name}")).card.model.classes == 5


def test_a_projector_is_no_head(tmp_path: Path) -> None:
    projector = {"projector.0.weight": torch.ones(64, 32), "projector.2.weight": torch.ones(8, 64)}
    weights = read_weights(
        saved(tmp_path / "w.pth", under("encoder.", BODY) | projector), **SAID
    )  # fmt: skip
    assert weights.card.model.classes == 0
    assert "left out: projector.0.weight, projector.2.weight" in notes(weights)


@pytest.mark.parametrize(
    "foreign", ["norm_pre.weight", "rel_pos_bias.table", "blocks.0.mlp.w12.weight", "prompt"]
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_belongs_to_another_architecture_is_never_left_out(
    tmp_path: Path, foreign: str, prefix: str
) -> None:
    values = under(prefix, FILE | {foreign: torch.ones(32)})
    with pytest.raises(WeightsError):
        read_weights(saved(tmp_path / "w.pth", values), **SAID)


def test_normalisation_inside_the_network_is_taken_over(tmp_path: Path) -> None:
    buffers = {
        "0.mean": torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1),
        "0.std": torch.ones(3, 1, 1),
    }
    weights = read_weights(saved(tmp_path / "w.pth", under("1.", FILE) | buffers), **SAID)
    assert weights.card.images.mean == (0.25, 0.5, 0.75)
    assert weights.card.images.std == (1, 1, 1)
    assert "images.mean and images.std" in notes(weights)


def test_a_wrapped_network_goes_on_to_other_formats(tmp_path: Path) -> None:
    path = store(tmp_path / "w.safetensors", under("model.", FILE))
    done = convert(path, tmp_path / "a", **SAID)
    assert done.exact and done.left_over == 0
    convert(tmp_path / "a", tmp_path / "b.pth", to="timm")
    assert same(read_weights(tmp_path / "b.pth", **SAID).tensors, OURS)
