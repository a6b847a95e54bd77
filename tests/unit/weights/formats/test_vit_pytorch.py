"""vit-pytorch: the form of 2021 written from its equations, and the library that is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoints import HELD, logits, of, same, save_artifact, store, stored, theirs
from vitral.errors import WeightsError
from vitral.weights import artifact
from vitral.weights.checkpoint_files import Source
from vitral.weights.convert import convert
from vitral.weights.formats import vit_pytorch
from vitral.weights.read import read_weights
from vitral.weights.write import table_for

EPS = 1e-5


class Sizes(NamedTuple):
    image: tuple[int, int] = (16, 16)
    patch: tuple[int, int] = (4, 4)
    channels: int = 3
    dim: int = 24
    depth: int = 2
    heads: int = 3
    dim_head: int = 16
    mlp_dim: int = 40
    classes: int = 7
    pool: str = "cls"


def of_2021(sizes: Sizes) -> dict[str, Tensor]:
    """Its state dict, every value random."""
    dim, inner = sizes.dim, sizes.heads * sizes.dim_head
    patches = sizes.image[0] // sizes.patch[0] * sizes.image[1] // sizes.patch[1]
    flat = sizes.patch[0] * sizes.patch[1] * sizes.channels
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embedding": (1, patches + 1, dim),
        "cls_token": (1, 1, dim),
        "to_patch_embedding.1.weight": (dim, flat),
        "to_patch_embedding.1.bias": (dim,),
        "mlp_head.0.weight": (dim,),
        "mlp_head.0.bias": (dim,),
        "mlp_head.1.weight": (sizes.classes, dim),
        "mlp_head.1.bias": (sizes.classes,),
    }
    for i in range(sizes.depth):
        layer = f"transformer.layers.{i}"
        for part in (0, 1):
            shapes[f"{layer}.{part}.norm.weight"] = shapes[f"{layer}.{part}.norm.bias"] = (dim,)
        shapes[f"{layer}.0.fn.to_qkv.weight"] = (3 * inner, dim)
        if not (sizes.heads == 1 and sizes.dim_head == dim):
            shapes[f"{layer}.0.fn.to_out.0.weight"] = (dim, inner)
            shapes[f"{layer}.0.fn.to_out.0.bias"] = (dim,)
        shapes[f"{layer}.1.fn.net.0.weight"] = (sizes.mlp_dim, dim)
        shapes[f"{layer}.1.fn.net.0.bias"] = (sizes.mlp_dim,)
        shapes[f"{layer}.1.fn.net.3.weight"] = (dim, sizes.mlp_dim)
        shapes[f"{layer}.1.fn.net.3.bias"] = (dim,)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else 0.2)
        + ("norm.weight" in name or name == "mlp_head.0.weight")
        for name, shape in shapes.items()
    }


def answer_of_2021(sizes: Sizes, file: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """x + A(LN(x)), then x + MLP(LN(x)); LN after pooling, and the mean is of all tokens."""
    w = {name: x.double() for name, x in file.items()}

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (sizes.dim,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    rows, columns = (side // p for side, p in zip(sizes.image, sizes.patch, strict=True))
    x = images.unflatten(3, (columns, sizes.patch[1])).unflatten(2, (rows, sizes.patch[0]))
    x = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # b c h p w q -> b (h w) (p q c)
    x = F.linear(x, w["to_patch_embedding.1.weight"], w["to_patch_embedding.1.bias"])
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1) + w["pos_embedding"]
    for i in range(sizes.depth):
        layer = f"transformer.layers.{i}"
        qkv = F.linear(normed(x, f"{layer}.0.norm"), w[f"{layer}.0.fn.to_qkv.weight"])
        q, k, v = (part.unflatten(2, (sizes.heads, -1)).mT.mT for part in qkv.chunk(3, -1))
        dots = torch.einsum("bihd,bjhd->bhij", q, k) * sizes.dim_head**-0.5
        mixed = torch.einsum("bhij,bjhd->bihd", dots.softmax(-1), v).flatten(2)
        if f"{layer}.0.fn.to_out.0.weight" in w:
            out = f"{layer}.0.fn.to_out.0"
            mixed = F.linear(mixed, w[f"{out}.weight"], w[f"{out}.bias"])
        x = x + mixed
        net = f"{layer}.1.fn.net"
        hidden = F.gelu(
            F.linear(normed(x, f"{layer}.1.norm"), w[f"{net}.0.weight"], w[f"{net}.0.bias"])
        )
        x = x + F.linear(hidden, w[f"{net}.3.weight"], w[f"{net}.3.bias"])
    x = x.mean(1) if sizes.pool == "mean" else x[:, 0]
    return F.linear(normed(x, "mlp_head.0"), w["mlp_head.1.weight"], w["mlp_head.1.bias"])


FORMS = {
    "usual": (Sizes(), ["model.heads=3"]),
    "oblong": (Sizes(image=(16, 24), patch=(2, 8)), ["model.heads=3", "model.patch=[2, 8]"]),
    "grey": (Sizes(channels=1), ["model.heads=3"]),
    "five channels": (Sizes(channels=5), ["model.heads=3", "model.channels=5"]),
    "one head": (Sizes(heads=1, dim_head=24), []),
    "one narrow head": (Sizes(heads=1, dim_head=16), ["model.heads=1"]),
    "heads of 64": (Sizes(heads=2, dim_head=64), []),
    "one of all": (Sizes(depth=1, classes=2, image=(4, 4)), ["model.heads=3"]),
    "mean": (Sizes(pool="mean"), ["model.heads=3", "model.pool=mean_all"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_2021_gives_its_logits_and_its_file_again(tmp_path: Path, form: str) -> None:
    sizes, changes = FORMS[form]
    file = of_2021(sizes)
    first = store(tmp_path / "first.pt", file)
    done = convert(first, tmp_path / "ours", size=sizes.image, changes=changes)
    assert done.exact and done.format == "vit-pytorch"
    spec = artifact.load_card(tmp_path / "ours").model
    assert (spec.heads, spec.patch, spec.size) == (sizes.heads, sizes.patch, sizes.image)
    assert not spec.patch_norms and spec.biases == "no_qkv"
    values, _ = artifact.load_tensors(tmp_path / "ours")
    network = artifact.network({name: x.double() for name, x in values.items()}, spec)
    shape = (2, sizes.channels, *sizes.image)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    expected = answer_of_2021(sizes, file, images)
    assert expected.std() > 0.01
    with torch.inference_mode():
        assert (network(images) - expected).abs().max() < 1e-12
    convert(tmp_path / "ours", tmp_path / "again.pt", to="vit-pytorch")
    assert same(stored(tmp_path / "again.pt"), file)


SMALL: dict[str, Any] = {
    "image_size": (16, 24), "patch_size": (4, 8), "num_classes": 5, "dim": 24, "depth": 2,
    "heads": 3, "dim_head": 16, "mlp_dim": 40,
}  # fmt: skip
LIBRARY: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "cls": ("ViT", {}, ["model.heads=3"]),
    "mean": ("ViT", {"pool": "mean"}, ["model.heads=3"]),
    "one head": ("ViT", {"heads": 1, "dim_head": 24}, []),
    "headless": ("ViT", {"num_classes": 0}, ["model.heads=3"]),
    "grey": ("ViT", {"channels": 1}, ["model.heads=3"]),
    "simple": ("SimpleViT", {}, ["model.heads=3"]),
    "simple, one head": ("SimpleViT", {"heads": 1, "dim_head": 24}, ["model.heads=1"]),
}


def installed(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    library = pytest.importorskip("vit_pytorch", reason="an oracle of the dev extra")
    network: nn.Module = getattr(library, kind)(**{**SMALL, **arguments})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            x = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(x + 1 if value.ndim == 1 and name.endswith("weight") else x)
    return network.eval()


@pytest.mark.parametrize("case", LIBRARY)
def test_the_library_of_today_both_ways(tmp_path: Path, case: str) -> None:
    kind, arguments, changes = LIBRARY[case]
    network = installed(kind, arguments)
    first = store(tmp_path / "first.pt", network.state_dict())
    changes = [*changes, "model.patch=[4,8]"]
    done = convert(first, tmp_path / "ours", size=(16, 24), changes=changes)
    assert done.exact and done.difference["vit-pytorch"] < 1e-5
    spec = artifact.load_card(tmp_path / "ours").model
    generator = torch.Generator().manual_seed(1)
    shape = (2, spec.channels, *spec.size)
    images = torch.randn(shape, generator=generator, dtype=torch.double)
    network = network.double()
    if kind == "SimpleViT":  # it keeps its waves in float32
        network.pos_embedding = network.pos_embedding.double()
    with torch.inference_mode():
        expected = network(images)
    expected = expected if spec.classes else expected[:, 0]
    bound = 1e-6 if kind == "SimpleViT" else 1e-12
    values, _ = artifact.load_tensors(tmp_path / "ours")
    ours = artifact.network({name: x.double() for name, x in values.items()}, spec)
    with torch.inference_mode():
        assert (ours(images) - expected).abs().max() < bound
    convert(tmp_path / "ours", tmp_path / "again.pt", to="vit-pytorch")
    again = stored(tmp_path / "again.pt")
    assert same(again, stored(first))
    network.load_state_dict(again)


@pytest.mark.parametrize("name", HELD["vit-pytorch"])
def test_a_network_that_was_never_a_file_of_it(tmp_path: Path, name: str) -> None:
    """Written as the release that has it writes; the installed one opens what is its own."""
    spec = HELD["vit-pytorch"][name]
    first = store(tmp_path / "first.pt", theirs("vit-pytorch", spec))
    changes = [f"model.heads={spec.heads}", f"model.patch={list(spec.patch)}"]
    changes += [f"model.pool={spec.pool}"]
    convert(first, tmp_path / "a", size=spec.size, changes=changes)
    convert(tmp_path / "a", tmp_path / "again.pt", to="vit-pytorch")
    convert(tmp_path / "again.pt", tmp_path / "b", size=spec.size, changes=changes)
    assert logits(tmp_path / "a").std() > 0.01
    assert torch.equal(logits(tmp_path / "a"), logits(tmp_path / "b"))


@pytest.mark.parametrize("name", ["token", "mean", "grey", "wide heads", "simple"])
def test_the_library_opens_what_is_written(tmp_path: Path, name: str) -> None:
    library = pytest.importorskip("vit_pytorch", reason="an oracle of the dev extra")
    spec = HELD["vit-pytorch"][name]
    save_artifact(tmp_path / "a", spec)
    done = convert(tmp_path / "a", tmp_path / "b.pt", to="vit-pytorch")
    assert done.difference["vit-pytorch"] < 1e-5
    sizes = {
        "image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 2, "mlp_dim": 48,
        "heads": spec.heads, "dim_head": spec.attention_width // spec.heads,
        "channels": spec.channels,
    }  # fmt: skip
    pooled = {} if name == "simple" else {"pool": spec.pool}
    network = (library.SimpleViT if name == "simple" else library.ViT)(**sizes, **pooled)
    network.load_state_dict(stored(tmp_path / "b.pt"))


def test_what_no_tensor_tells_is_said(tmp_path: Path) -> None:
    first = store(tmp_path / "first.pt", of_2021(Sizes(heads=2, dim_head=64)))
    notes = " ".join(read_weights(first, size=(16, 16)).notes)
    assert "model.patch=4x4, model.heads=2 and model.pool=cls; they are taken" in notes
    assert "prescribes no preprocessing" in notes


BAD: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "no square": ({"patch": (1, 8)}, [], r"values of a patch do not fit"),
    "patch": ({}, ["model.patch=[3, 3]"], "values of a patch do not fit"),
    "channels": ({}, ["model.channels=2"], "values of a patch do not fit"),
    "patch that is none": ({}, ["model.patch=big"], r"model\.patch"),
    "channels that are none": ({}, ["model.channels=many"], r"model\.channels"),
    "heads": ({}, ["model.heads=5"], r"divides 48"),
    "a field that is none": ({}, ["model.hads=5"], "did you mean"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_a_sentence(tmp_path: Path, case: str) -> None:
    changed, changes, match = BAD[case]
    first = store(tmp_path / "first.pt", of_2021(Sizes()._replace(**changed)))
    with pytest.raises(Exception, match=match) as caught:
        read_weights(first, size=(16, 16), changes=["model.heads=3", *changes])
    assert "\n" not in str(caught.value)


def test_the_form_of_2020_scaled_otherwise(tmp_path: Path) -> None:
    file = {}
    for name, x in of_2021(Sizes()).items():
        wrapped = name.replace(".fn.", ".fn.fn.").replace(".norm.", ".fn.norm.")
        file[wrapped.replace("to_patch_embedding.1.", "patch_to_embedding.")] = x
    with pytest.raises(WeightsError, match="vit-pytorch"):
        read_weights(store(tmp_path / "first.pt", file), size=(16, 16))


def test_its_other_networks_are_refused(tmp_path: Path) -> None:
    """They share names; what they have beside them is left over."""
    file = theirs("vit-pytorch", HELD["vit-pytorch"]["simple"])
    more = {**file, "register_tokens": torch.ones(4, 32)}
    with pytest.raises(WeightsError, match=r"Left over: register_tokens"):
        read_weights(store(tmp_path / "first.pt", more), size=(32, 32))


def test_images_are_vitrals_own() -> None:
    images = vit_pytorch.format.preprocessing(Source(path=Path("w.pt"), tensors={}), (24, 32))
    assert images.size == (24, 32)


def test_what_no_release_has_together() -> None:
    spec = HELD["vit-pytorch"]["token"]
    together = {
        "last norm": of(spec, patch_norms=False, classes=0),
        "after a single head": of(spec, heads=1),
        "averages the class token": of(spec, pool="mean"),
        "norms after pooling": of(spec, patch_norms=False, pool="mean_all"),
        "had a class token": of(
            spec, patch_norms=False, class_token=False, pool="mean_all", pool_norm="after"
        ),
    }
    for match, changed in together.items():
        with pytest.raises(WeightsError, match=match):
            table_for("vit-pytorch", changed)
