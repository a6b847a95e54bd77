import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
from checkpoints import CASES, HALF, HELD, SUFFIX, of, said, same, store, stored, theirs
from vitral.errors import MachineError, UsageError, WeightsError
from vitral.weights import artifact, infer_spec, read, rename, write
from vitral.weights.convert import convert


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


module_of_convert = importlib.import_module("vitral.weights.convert")
DTYPES = sorted(HALF)
TURNS = [(format, name, DTYPES[i % 3]) for i, (format, name) in enumerate(CASES)]
REST = [(*case, dtype) for case in CASES for dtype in DTYPES if (*case, dtype) not in TURNS]


@pytest.mark.parametrize(
    ("format", "name", "dtype"),
    [*TURNS, *(pytest.param(*case, marks=pytest.mark.proof) for case in REST)],
)
def test_home_to_vitral_to_the_same_home_is_bit_exact(
    tmp_path: Path, format: str, name: str, dtype: str
) -> None:
    spec, kind = HELD[format][name], HALF[dtype]
    first = store(tmp_path / f"first{SUFFIX[format]}", theirs(format, spec, kind))
    done = convert(first, tmp_path / "ours", **said(spec))
    assert (done.format, done.to, done.exact, done.left_over) == (format, "vitral", True, 0)
    assert set(done.difference) | set(done.not_compared) == {format}
    tensors, card = artifact.load_tensors(tmp_path / "ours")
    assert same(tensors, checkpoints.tensors(spec, dtype=kind))
    assert of(card.model, name=spec.name) == spec
    convert(tmp_path / "ours", tmp_path / f"again{SUFFIX[format]}", to=format)
    assert same(stored(tmp_path / f"again{SUFFIX[format]}"), stored(first))


def linen(name: str) -> str:
    name = name.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
    return name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")


def in_memory(name: str) -> str:
    name = name.replace("encoder.layer.", "layers.").replace("attention.attention.", "attention.")
    for part in ("query", "key", "value"):
        name = name.replace(f"attention.{part}.", f"attention.{part[0]}_proj.")
    name = name.replace("attention.output.dense", "attention.o_proj")
    name = name.replace("intermediate.dense", "mlp.fc1")
    return name.replace("output.dense", "mlp.fc2")


def stacked(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Blocks on a leading axis, as big_vision's scan leaves them."""
    whole = {k: x for k, x in values.items() if "encoderblock_" not in k}
    for name in values:
        if "encoderblock_0/" in name:
            parts = [values[name.replace("block_0/", f"block_{i}/")] for i in range(2)]
            whole[name.replace("block_0/", "block/")] = torch.stack(parts)
    return whole


def by(rename: Callable[[str], str]) -> Callable[..., dict[str, torch.Tensor]]:
    return lambda values: {rename(name): x for name, x in values.items()}


def with_tower(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {f"params/img/{linen(name)}": x for name, x in values.items()}
    return found | {"params/txt/head/kernel": torch.ones(3, 4), "params/t": torch.ones(1)}


VARIANTS: dict[str, tuple[str, str, Callable[..., dict[str, torch.Tensor]]]] = {
    "linen": ("google", "token", by(linen)),
    "params/": ("google", "token", by(lambda k: f"params/{linen(k)}")),
    "opt/target/": ("google", "token", by(lambda k: f"opt/target/{k}")),
    "a text tower beside": ("google", "map", with_tower),
    "stacked": ("google", "mean", stacked),
    "stacked and prefixed": (
        "google",
        "map",
        lambda x: by(lambda k: f"params/{k}")(stacked(x)),
    ),
    "early names": ("google", "token", by(lambda k: k.replace("posembed_input/", ""))),
    "early probe": ("google", "map", by(lambda k: k.replace("MAPHead_0/probe", "probe"))),
    "narrow group norms": (
        "google",
        "hybrid",
        lambda x: {k: v.flatten() if "/gn" in k or "gn_" in k else v for k, v in x.items()},
    ),
    "bit without prefix": ("google", "bit", by(lambda k: k.removeprefix("resnet/"))),
    "first torchvision": (
        "torchvision",
        "token",
        by(lambda k: k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")),
    ),
    "deit3's authors": ("timm", "deit3", by(lambda k: re.sub(r"ls(\d)\.gamma", r"gamma_\1", k))),
    "dinov2's authors": (
        "timm",
        "registers",
        lambda x: {
            **by(lambda k: k.replace("reg_token", "register_tokens"))(x),
            "mask_token": torch.randn(1, 32),
        },
    ),
    "in memory": ("transformers", "token", by(in_memory)),
    "in memory, distilled": ("transformers", "distilled", by(in_memory)),
    "in memory, without prefix": (
        "transformers",
        "token",
        by(lambda k: in_memory(k).removeprefix("vit.")),
    ),
    "on disk, with prefix": ("transformers", "pooler", by(lambda k: f"vit.{k}")),
    "in memory, dinov2": (
        "transformers",
        "dinov2",
        by(
            lambda k: re.sub(r"attention\.attention\.(.)\w+", r"attention.\1_proj", k).replace(
                "attention.output.dense", "attention.o_proj"
            )
        ),
    ),
    "in memory, dinov3": (
        "transformers",
        "dinov3",
        by(lambda k: f"model.{k}" if k.startswith("layer.") else k),
    ),
    "dinov2 with prefix": ("transformers", "dinov2", by(lambda k: f"dinov2.{k}")),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_names_of_the_same_home_come_back_too(tmp_path: Path, variant: str) -> None:
    format, name, change = VARIANTS[variant]
    spec = HELD[format][name]
    first = store(tmp_path / f"first{SUFFIX[format]}", change(theirs(format, spec)))
    assert set(stored(first)) != set(theirs(format, spec)) or "narrow" in variant
    done = convert(first, tmp_path / "ours", **said(spec))
    assert done.exact
    assert same(artifact.load_tensors(tmp_path / "ours")[0], checkpoints.tensors(spec))
    convert(tmp_path / "ours", tmp_path / f"again{SUFFIX[format]}", to=format)
    mine = {k: x for k, x in stored(first).items() if not k.startswith(("params/t",))}
    assert same(stored(tmp_path / f"again{SUFFIX[format]}"), mine)


ROUTES = [
    ("google", "token", "timm"),
    ("google", "token", "transformers"),
    ("google", "big_vision token", "transformers"),  # rows of zeros for the class token
    ("google", "map", "timm"),
    ("timm", "token", "torchvision"),
    ("timm", "token", "transformers"),
    ("timm", "tanh", "google"),
    ("timm", "headless deit3", "transformers"),
    ("timm", "headless registers", "transformers"),
    ("timm", "headless eva", "transformers"),
    ("timm", "distilled", "transformers"),
    ("transformers", "eps", "google"),
    ("transformers", "dinov2 registers", "timm"),  # the class token's row folds into it
    ("transformers", "dinov3 bias", "timm"),
    ("torchvision", "token", "timm"),
    ("torchvision", "token", "transformers"),
]


@pytest.mark.parametrize(("format", "name", "other"), ROUTES)
def test_another_home_gives_the_same_logits(
    tmp_path: Path, format: str, name: str, other: str
) -> None:
    short = name.removeprefix("headless ")
    spec = of(HELD[format][short], classes=0) if short != name else HELD[format][name]
    first = store(tmp_path / f"first{SUFFIX[format]}", theirs(format, spec))
    convert(first, tmp_path / "ours", **said(spec))
    done = convert(first, tmp_path / f"other{SUFFIX[other]}", to=other, **said(spec))
    assert set(done.difference) | set(done.not_compared) == {format, other}
    moved = of(spec, norm_eps=1e-5) if other == "google" and not spec.depth else spec
    convert(tmp_path / f"other{SUFFIX[other]}", tmp_path / "again", **said(moved))
    before, after = (checkpoints.logits(tmp_path / name) for name in ("ours", "again"))
    assert before.std() > 0.05
    # adding a row into the token rounds to float32; everything else is exact
    assert (before - after).abs().max() <= (1e-5 if "registers" in name and other == "timm" else 0)
    layout = artifact.load_card(tmp_path / "again").made_by["layout"]["table"]
    assert layout.startswith(other)


def test_the_way_through_an_artifact_is_the_direct_one(tmp_path: Path) -> None:
    spec = HELD["timm"]["token"]
    first = store(tmp_path / "first.pth", theirs("timm", spec))
    convert(first, tmp_path / "direct.bin", to="transformers", **said(spec))
    convert(first, tmp_path / "ours", **said(spec))
    convert(tmp_path / "ours", tmp_path / "through.bin", to="transformers")
    assert same(stored(tmp_path / "direct.bin"), stored(tmp_path / "through.bin"))


@pytest.mark.parametrize("format", HELD)
def test_a_folder_tells_what_tensors_do_not(tmp_path: Path, format: str) -> None:
    """No option is needed for what a format's own configuration says."""
    spec = HELD[format][{"transformers": "eps", "dino": "classifier"}.get(format, "token")]
    checkpoints.save_artifact(tmp_path / "a", spec)
    done = convert(tmp_path / "a", tmp_path / "folder", to=format)
    assert json.loads((tmp_path / "folder" / "proof.json").read_text()) == json.loads(
        json.dumps(done.to_dict())
    )
    told = format in ("timm", "transformers")
    convert(tmp_path / "folder", tmp_path / "b", changes=() if told else said(spec)["changes"])
    (first, one), (second, two) = (artifact.load_tensors(tmp_path / name) for name in "ab")
    assert same(first, second)
    assert of(two.model, name=spec.name) == spec
    assert (one.classes == two.classes) == told


@pytest.mark.parametrize("nest", [{"model": ...}, {"state_dict": ...}, {"epoch": 3, "model": ...}])
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_training_scripts(
    tmp_path: Path, nest: dict[str, object], wrapper: str
) -> None:
    spec = HELD["timm"]["token"]
    inner = {f"{wrapper}{name}": x for name, x in theirs("timm", spec).items()}
    torch.save({k: inner if x is ... else x for k, x in nest.items()}, tmp_path / "w.pth")
    convert(tmp_path / "w.pth", tmp_path / "ours", **said(spec))
    assert same(artifact.load_tensors(tmp_path / "ours")[0], checkpoints.tensors(spec))


def test_odd_class_names_survive(tmp_path: Path) -> None:
    spec = of(HELD["transformers"]["eps"], classes=4)
    names = ("고양이 🐈", "x" * 100_000, 'a "quoted"\nname', "x" * 100_000)
    folder = checkpoints.save_artifact(tmp_path / "a", spec)
    tensors, card = artifact.load_tensors(folder)
    artifact.save(folder, tensors, of(card, classes=names))
    for format in ("timm", "transformers"):
        convert(folder, tmp_path / format, to=format)
        convert(tmp_path / format, tmp_path / f"back from {format}")
        assert artifact.load_card(tmp_path / f"back from {format}").classes == names


# ---- nothing is written


def refused(tmp_path: Path, kind: type[Exception], match: str, *args: Path, **options: Any) -> None:
    before = contents(tmp_path)
    with pytest.raises(kind, match=match):
        convert(*args, **options)
    assert contents(tmp_path) == before


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    source = checkpoints.save_artifact(tmp_path / "a", HELD["timm"]["token"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.pth").write_text("")
    for target in (tmp_path / "full", tmp_path / "mine.pth", Path("/dev/null"), source):
        refused(tmp_path, UsageError, "exists already", source, target, to="timm")
    for target, to, match in (
        ("x.npz", "timm", "does not read .npz"),
        ("x.pth", "google", "are .npz files"),
        ("x.safetensors", "vitral", "An artifact is a folder"),
        ("x", "keras", "no format 'keras'; --to is vitral, dino, google, timm"),
    ):
        refused(tmp_path, UsageError, match, source, tmp_path / target, to=to)
    below = tmp_path / "mine.pth" / "below"
    refused(tmp_path, MachineError, "Cannot write", source, below, to="timm")
    convert(source, tmp_path / "empty", to="timm")  # an empty folder is a new place
    assert (tmp_path / "empty" / "model.safetensors").exists()


def test_links_are_followed_and_sources_are_left_alone(tmp_path: Path) -> None:
    spec = HELD["timm"]["token"]
    real = store(tmp_path / "real.safetensors", theirs("timm", spec))
    (tmp_path / "link.safetensors").symlink_to(real)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").symlink_to(real)
    content = real.read_bytes()
    for source in ("link.safetensors", "folder"):
        convert(tmp_path / source, tmp_path / f"from {source[:4]}", **said(spec))
    assert real.read_bytes() == content
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(tmp_path, WeightsError, "does not exist", tmp_path / "dangling", tmp_path / "x")


@pytest.mark.parametrize("kind", ["sincos2d", "sincos2d_mae"])
@pytest.mark.parametrize(
    ("format", "changes"),
    [
        ("timm", {}),
        ("timm", {"pool": "mean", "class_token": False}),
        ("timm", {"pool": "mean", "registers": 2}),
        ("transformers", {"norm_eps": 1e-12}),
        ("torchvision", {}),
    ],
)
def test_fixed_positions_become_a_table_where_a_home_has_no_waves(
    tmp_path: Path, format: str, changes: dict[str, Any], kind: str
) -> None:
    if importlib.util.find_spec(format) is None:
        pytest.skip("an oracle of the dev extra")
    spec = of(checkpoints.GOOGLE, positions=kind, prefix_positions=False, gelu="erf")
    spec = of(spec, **changes)
    source = checkpoints.save_artifact(tmp_path / "ours", spec)
    done = convert(source, tmp_path / "theirs.safetensors", to=format)
    assert any(
        f"no {kind} positions: they became a table, of this size" in note for note in done.notes
    )
    assert done.not_compared == {}
    assert done.difference[format] < 1e-5
    convert(
        tmp_path / "theirs.safetensors", tmp_path / "back", **said(of(spec, positions="learned"))
    )
    images = torch.randn(2, 3, *spec.size)
    with torch.no_grad():
        ours, back = (artifact.load(tmp_path / name)[0](images) for name in ("ours", "back"))
    assert (ours - back).abs().max() < 1e-5


def test_what_a_home_cannot_hold_is_not_written(tmp_path: Path) -> None:
    source = checkpoints.save_artifact(tmp_path / "a", HELD["google"]["sincos"])
    refused(
        tmp_path,
        WeightsError,
        "torchvision cannot hold tiny: its model.gelu is 'tanh'",
        source,
        tmp_path / "x.pth",
        to="torchvision",
    )


@pytest.mark.parametrize("to", ["vitral", "timm", "google"])
def test_a_broken_row_is_caught_by_the_home_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """Queries for keys: the shapes fit, the file comes back bit for bit, the logits are wrong."""
    pytest.importorskip("transformers", reason="an oracle of the dev extra")
    spec = HELD["transformers"]["eps"]
    first = store(tmp_path / "first.bin", theirs("transformers", spec))
    table = rename.tables()["transformers_vit"]
    rows = tuple(
        row._replace(theirs=(row.theirs[1], row.theirs[0], row.theirs[2]))
        if ".qkv." in row.ours
        else row
        for row in table.rows
    )
    broken = {**rename.tables(), "transformers_vit": dataclasses.replace(table, rows=rows)}
    for module in (rename, infer_spec, read, write, module_of_convert):
        if hasattr(module, "tables"):
            monkeypatch.setattr(module, "tables", lambda: broken)
    options = said(spec) | {"to": to}
    with pytest.raises(WeightsError, match="answers differently"):
        convert(first, tmp_path / "x", **options)
    assert contents(tmp_path) == {"first.bin"}
