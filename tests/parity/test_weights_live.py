"""Random networks of timm, torchvision and transformers, through convert: the same logits.

Each network is built by its own library and every one of its parameters drawn, so that no zero
head or unit scale hides a wrong name; its file is converted, and both answer the same images.
Bounds are for logits of about 1. In float32 the convolutional stems get ten times as much: in some
fifty layers the two codes standardise the same kernels with sums in another order. In float64,
where that does not show, they get nothing more.
"""

import importlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import peers
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from checkpoints import same, stored
from vitral import catalog
from vitral.errors import WeightsError
from vitral.model import ViT
from vitral.specs import Dropouts, counts
from vitral.weights import artifact
from vitral.weights.convert import convert
from vitral.weights.write import layout_for, table_for

SMALL = {
    "patch_size": 16,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 7,
    "img_size": 64,
}
WIDE, HALF = (32, 64), (8, 16)


class Case(NamedTuple):
    """A name of the library, its arguments, and what the tensors alone do not tell."""

    name: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    size: tuple[int, int] = (64, 64)
    told: tuple[str, ...] = ()


PLAIN, HEADS = "vit_base_patch16_224", "model.heads=4"
MEAN, CLS = "model.pool=mean", "model.pool=cls"
BARE = {"class_token": False, "global_pool": "avg", "fc_norm": False}
TIMM = {
    "plain": Case(PLAIN),
    "oblong": Case(PLAIN, {"img_size": WIDE}, WIDE),
    "mean": Case(PLAIN, {"global_pool": "avg"}),
    "mean of normed": Case(PLAIN, {"global_pool": "avg", "fc_norm": False}, told=(MEAN,)),
    "no class token": Case(PLAIN, BARE),
    "map": Case(PLAIN, {"class_token": False, "global_pool": "map"}),
    "qk norm": Case(PLAIN, {"qk_norm": True}),
    "registers": Case(PLAIN, {"init_values": 0.1, "reg_tokens": 3, "no_embed_class": True}),
    "registers, no class": Case(PLAIN, {**BARE, "reg_tokens": 3, "no_embed_class": True}),
    "registers with positions": Case(PLAIN, {"reg_tokens": 3}),
    "so150m": Case("vit_so150m_patch16_reg4_gap_256"),
    "so150m2": Case("vit_so150m2_patch16_reg1_gap_256", {"img_size": WIDE}, WIDE),
    "no qkv bias": Case(PLAIN, {"qkv_bias": False}),
    "no bias": Case(PLAIN, {"qkv_bias": False, "proj_bias": False}),
    "headless": Case(PLAIN, {"num_classes": 0}),
    "grey, oblong patches": Case(PLAIN, {"in_chans": 1, "patch_size": HALF}),
    "tanh": Case(PLAIN, {"act_layer": "gelu_tanh"}, told=("model.gelu=tanh",)),
    "no positions": Case(PLAIN, {"pos_embed": "none"}),
    "one of all": Case(
        PLAIN,
        {"num_heads": 1, "depth": 1, "num_classes": 2},
        told=("model.heads=1",),
    ),
    "odd mlp": Case(PLAIN, {"mlp_ratio": 1.7}),
    "distilled": Case("deit_base_distilled_patch16_224"),
    "deit3": Case("deit3_base_patch16_224"),
    "flexivit": Case("flexivit_small"),
    "siglip": Case("vit_base_patch16_siglip_224"),
    "dinov2": Case("vit_small_patch14_dinov2"),
    "dinov2 registers": Case("vit_small_patch14_reg4_dinov2"),
    "dinov3": Case("vit_small_patch16_dinov3"),
    "dinov3 bias": Case("vit_small_patch16_dinov3_qkvb"),
    "dinov3 oblong": Case(
        "vit_small_patch16_dinov3_qkvb", {"img_size": WIDE, "global_pool": "token"}, WIDE, (CLS,)
    ),
    "root": Case("vit_tiny_r_s16_p8_224", {"patch_size": 8}),
    "hybrid 26": Case("vit_small_r26_s32_224", {"patch_size": 1}),
    "hybrid 50": Case("vit_base_r50_s16_224", {"patch_size": 1}),
    "hybrid 50/32": Case("vit_large_r50_s32_224", {"patch_size": 1, "img_size": WIDE}, WIDE),
    "bit": Case("resnetv2_50x1_bit", {"num_classes": 5}),
}
BASE = {
    "image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 48,
    "mlp_dim": 96, "num_classes": 7,
}  # fmt: skip
TORCHVISION = {"plain": {}, "pre_logits": {"representation_size": 20}, "odd": {"mlp_dim": 97}}
CONFIG = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "image_size": 64, "patch_size": 16, "num_labels": 7,
}  # fmt: skip
DINO = {"mlp_ratio": 2, "layerscale_value": 0.1}
TRANSFORMERS = {
    "vit": ("ViTConfig", "ViTForImageClassification", {}),
    "vit headless": ("ViTConfig", "ViTModel", {}),
    "vit oblong": (
        "ViTConfig",
        "ViTForImageClassification",
        {"image_size": [32, 64], "patch_size": [8, 16]},
    ),
    "vit tanh": (
        "ViTConfig",
        "ViTForImageClassification",
        {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-5, "qkv_bias": False},
    ),
    "vit grey": ("ViTConfig", "ViTForImageClassification", {"num_channels": 1}),
    "deit": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", {}),
    "deit one head": ("DeiTConfig", "DeiTForImageClassification", {}),
    "deit one head 384": ("DeiTConfig", "DeiTForImageClassification", {"image_size": 384}),
    "deit one head oblong": (
        "DeiTConfig",
        "DeiTForImageClassification",
        {
            "image_size": [32, 64],
            "patch_size": [8, 16],
            "qkv_bias": False,
            "hidden_act": "gelu_new",
        },
    ),
    "deit headless": ("DeiTConfig", "DeiTModel", {}),
    "deit headless 384": ("DeiTConfig", "DeiTModel", {"image_size": 384, "pooler_output_size": 31}),
    "dinov2": ("Dinov2Config", "Dinov2Model", DINO),
    "dinov2 registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", DINO),
    "dinov2 classifier": ("Dinov2Config", "Dinov2ForImageClassification", DINO),
    "dinov2 classifier oblong": (
        "Dinov2Config",
        "Dinov2ForImageClassification",
        {**DINO, "image_size": [32, 64], "patch_size": [8, 16], "num_attention_heads": 1},
    ),
    "dinov2 registers classifier": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersForImageClassification",
        {**DINO, "num_labels": 2},
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", {"num_register_tokens": 4}),
    "dinov3 tanh": ("DINOv3ViTConfig", "DINOv3ViTModel", {"hidden_act": "gelu_pytorch_tanh"}),
}


def drawn(network: nn.Module) -> nn.Module:
    """Every parameter random: weights by their fan, scales around 1, the others of that order."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.named_parameters():
            x = torch.randn(value.shape, generator=generator)
            if value.ndim > 1 and not name.endswith(("token", "embed", "embeddings", "tokens")):
                x = x / math.sqrt(value[0].numel())
            elif value.ndim == 1 and name.endswith(("weight", "gamma", "gamma_1", "gamma_2", "a1")):
                x = 1 + 0.2 * x
            else:
                x = 0.3 * x
            value.copy_(x)
    return network.eval()


def in_double(network: nn.Module) -> nn.Module:
    """DINOv3's periods too, which both libraries keep in float32; here by their own formulas."""
    network = network.double()
    for module in network.modules():
        if isinstance(getattr(module, "periods", None), Tensor):  # timm
            exponents = 2 * torch.arange(module.dim // 4, dtype=torch.double) / (module.dim // 2)
            module.periods = module.temperature**exponents
            if module.feat_shape is not None:
                module.pos_embed_cached = module._create_embed(module.feat_shape)
        if isinstance(getattr(module, "inv_freq", None), Tensor):  # transformers
            exponents = torch.arange(0, 1, 4 / module.head_dim, dtype=torch.double)
            module.inv_freq = 1 / module.base**exponents
    return network


@pytest.fixture(autouse=True)
def coordinates_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers multiplies them by a float32 2 pi, whatever the network's precision."""
    name = "transformers.models.dinov3_vit.modeling_dinov3_vit"
    modeling = importlib.import_module(name)
    found = modeling.get_patches_center_coordinates
    monkeypatch.setattr(
        modeling,
        "get_patches_center_coordinates",
        lambda rows, columns, dtype, device: found(rows, columns, torch.double, device),
    )


def answer(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found = network(images)
    if isinstance(found, Tensor):
        return found
    return found.logits if hasattr(found, "logits") else found.pooler_output


def check(first: Path, theirs: nn.Module, out: Path, single: float = 1e-5, **options: Any) -> None:
    """Convert the file at `first` and compare; `single` is the bound in float32."""
    done = convert(first, out / "ours", **options)
    assert done.exact and done.not_compared == {}
    assert done.difference[done.format] <= single * max(1.0, done.largest[done.format])
    values, card = artifact.load_tensors(out / "ours")
    ours, spec = artifact.network(values, card.model), card.model
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, spec.channels, *spec.size, generator=generator)
    expected = answer(theirs, images)
    assert 0.1 < expected.std() < 10
    scale = max(1.0, float(expected.abs().max()))
    assert (answer(ours, images) - expected).abs().max() <= single * scale
    expected = answer(in_double(theirs), images.double())
    assert (answer(ours.double(), images.double()) - expected).abs().max() <= 1e-10
    convert(out / "ours", out / "again.safetensors", to=done.format)
    file = next(first.glob("*.safetensors")) if first.is_dir() else first
    assert same(stored(out / "again.safetensors"), stored(file))


SLOW = ("hybrid 26", "hybrid 50/32")  # seconds each; "hybrid 50" and "bit" have all their layers


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.proof) if case in SLOW else case for case in TIMM],
)
def test_timm(tmp_path: Path, case: str) -> None:
    name, arguments, size, told = TIMM[case]
    whole = arguments if name.endswith("_bit") else {**SMALL, **arguments}
    theirs = drawn(peers.timm.create_model(name, **whole))
    first = tmp_path / "first.safetensors"
    save_file({key: x.contiguous() for key, x in theirs.state_dict().items()}, first)
    heads = () if name.endswith("_bit") else (HEADS,)
    stem = case in ("root", "bit") or case.startswith("hybrid")
    check(first, theirs, tmp_path, 1e-4 if stem else 1e-5, size=size, changes=[*heads, *told])


@pytest.mark.parametrize("case", TORCHVISION)
def test_torchvision(tmp_path: Path, case: str) -> None:
    theirs = drawn(peers.torchvision.models.VisionTransformer(**{**BASE, **TORCHVISION[case]}))
    first = tmp_path / "first.safetensors"
    save_file(theirs.state_dict(), first)
    check(first, theirs, tmp_path, changes=[HEADS])


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers(tmp_path: Path, case: str) -> None:
    config, network, arguments = TRANSFORMERS[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about optional packages
        settings = getattr(peers.transformers, config)(**{**CONFIG, **arguments})
        theirs = drawn(getattr(peers.transformers, network)(settings))
        theirs.save_pretrained(tmp_path / "first")
    check(tmp_path / "first", theirs, tmp_path)


def opened(kind: str, folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return drawn(getattr(peers.transformers, kind).from_pretrained(folder))


DISTILLED = {
    "DeiTForImageClassification": "DeiTForImageClassification",
    "AutoModel": "DeiTModel",
    "DeiTModel": "DeiTModel",
}


@pytest.mark.parametrize("kind", DISTILLED)
def test_a_distilled_deit_opened_and_saved_with_one_head_or_none(tmp_path: Path, kind: str) -> None:
    """As facebook/deit-*-distilled-* are opened by most; written back, AutoModel... finds them."""
    config = peers.transformers.DeiTConfig(**CONFIG)
    teacher = drawn(peers.transformers.DeiTForImageClassificationWithTeacher(config))
    teacher.save_pretrained(tmp_path / "published")
    theirs = opened(kind, tmp_path / "published")
    theirs.save_pretrained(tmp_path / "first")
    check(tmp_path / "first", theirs, tmp_path)
    convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    auto = "AutoModelForImageClassification" if kind.startswith("DeiTFor") else "AutoModel"
    found = getattr(peers.transformers, auto).from_pretrained(tmp_path / "back")
    assert type(found).__name__ == DISTILLED[kind]
    assert same(found.state_dict(), theirs.float().state_dict())
    spec = artifact.load_card(tmp_path / "ours").model
    assert (spec.registers, spec.register_positions, spec.distillation_token) == (1, True, False)
    convert(tmp_path / "published", tmp_path / "two heads")
    assert artifact.load_card(tmp_path / "two heads").model.distillation_token


def test_a_deit_resized_as_transformers_resizes_it(tmp_path: Path) -> None:
    config = peers.transformers.DeiTConfig(**CONFIG)
    theirs = drawn(peers.transformers.DeiTForImageClassification(config))
    theirs.save_pretrained(tmp_path / "first")
    convert(tmp_path / "first", tmp_path / "ours")
    values, card = artifact.load_tensors(tmp_path / "ours")
    ours = artifact.network(values, card.model).double()
    images = torch.randn(2, 3, 96, 144, dtype=torch.double)
    with torch.inference_mode():
        expected = theirs.double()(images, interpolate_pos_encoding=True).logits
        assert (ours(images, any_size=True) - expected).abs().max() <= 1e-10
        resized = ours.resized((96, 144))
        assert (resized(images) - expected).abs().max() <= 1e-10
        assert (resized(images) - ours(images, any_size=True)).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", ["DeiT", "ViT"])
@pytest.mark.parametrize("config", [True, False], ids=["folder", "file"])
def test_a_network_that_paints_masked_patches_is_refused(
    tmp_path: Path, kind: str, config: bool
) -> None:
    settings = getattr(peers.transformers, f"{kind}Config")(**CONFIG)
    network = getattr(peers.transformers, f"{kind}ForMaskedImageModeling")(settings)
    network.save_pretrained(tmp_path / "first")
    first = tmp_path / "first" if config else tmp_path / "first" / "model.safetensors"
    with pytest.raises(WeightsError, match=r"paints masked patches .* no such network"):
        convert(first, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


FOLDERS = ["so150m", "so150m2", "registers with positions"]
FOLDERS += [
    "mean",
    "siglip",
    "deit3",
    "dinov3 bias",
    "tanh",
    "no positions",
    "grey, oblong patches",
]


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_timm_wrote_needs_no_options(tmp_path: Path, case: str) -> None:
    name, arguments, _, _ = TIMM[case]
    whole = {**SMALL, **arguments}
    theirs = drawn(peers.timm.create_model(name, **whole))
    given = {key: x for key, x in whole.items() if key != "num_classes"}
    save = peers.timm.models.save_for_hf
    save(theirs, tmp_path / "first", model_args=given, safe_serialization=True)
    check(tmp_path / "first", theirs, tmp_path)


def shapes(tensors: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}


def written(format: str, spec: Any, **layout: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        ours = ViT(spec, Dropouts()).state_dict()
    # a bias of the keys that is not zero has no place in DINOv3, so that one is looked into
    ours |= {name: torch.zeros(x.shape) for name, x in ours.items() if name.endswith("qkv.bias")}
    table = table_for(format, spec)
    plan = replace(layout_for(table, spec), **layout)
    return shapes(table.write(ours, spec.heads, plan, {}))


OTHERS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
FAMILIES = ("vit_", "deit", "flexivit")
NAMES = [name for name in catalog.names() if name.startswith(FAMILIES) and name not in OTHERS]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_every_timm_model(name: str) -> None:
    """And their number by arithmetic; at two blocks, as the others have the same names."""
    spec = catalog.model(name, depth=2)
    with torch.device("meta"):
        theirs = peers.timm.create_model(name, depth=2, num_classes=1000, img_size=spec.size)
    assert written("timm", spec) == shapes(theirs.state_dict())
    assert counts.parameters(spec) == sum(value.numel() for value in theirs.parameters())


@pytest.mark.proof
@pytest.mark.parametrize("name", [name for name in NAMES if catalog.model(name).resnet is None])
def test_what_the_catalogue_says_of_every_timm_model(tmp_path: Path, name: str) -> None:
    """GELU, epsilon and pooling come from the architecture's row alone."""
    size = tuple(4 * side for side in catalog.model(name).patch)
    given = {"img_size": size, "embed_dim": 48, "depth": 2, "num_heads": 4}
    theirs = drawn(peers.timm.create_model(name, num_classes=7, **given))
    save = peers.timm.models.save_for_hf
    save(theirs, tmp_path / "first", model_args=given, safe_serialization=True)
    check(tmp_path / "first", theirs, tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_names_and_shapes_of_every_torchvision_model(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(peers.torchvision.models, name)(weights=None)
    assert written("torchvision", catalog.model(name)) == shapes(theirs.state_dict())


@pytest.mark.parametrize("depth", ["50x1", "50x3", "101x1", "101x3", "152x2", "152x4"])
def test_names_and_shapes_of_every_bit(depth: str) -> None:
    spec = catalog.model(f"BiT-R{depth}", classes=21843)
    spec = replace(spec, resnet=replace(spec.resnet, weight_eps=1e-8))
    with torch.device("meta"):
        theirs = peers.timm.create_model(f"resnetv2_{depth}_bit", num_classes=21843)
    assert written("timm", spec) == shapes(theirs.state_dict())


B16 = catalog.model("vit_b_16")
S16 = {"width": 384, "heads": 6, "mlp_width": 1536}
DINOS = replace(B16, layer_scale=1.0, classes=0)
DEFAULTS = {
    "ViT": (B16, "ForImageClassification"),
    "DeiT": (replace(B16, distillation_token=True), "ForImageClassificationWithTeacher"),
    "DeiT, one head": (
        replace(B16, registers=1, register_positions=True),
        "ForImageClassification",
    ),
    "Dinov2": (DINOS, "Model"),
    "Dinov2, classifier": (
        replace(DINOS, classes=1000, pool="cls_mean"),
        "ForImageClassification",
    ),
    "Dinov2WithRegisters": (replace(DINOS, registers=4), "Model"),
    "DINOv3ViT": (
        replace(DINOS, **S16, positions="rope2d", biases="all", norm_eps=1e-5),
        "Model",
    ),
}
MASK = "embeddings.mask_token"  # theirs alone


@pytest.mark.parametrize("kind", DEFAULTS)
def test_names_and_shapes_of_transformers_defaults(kind: str) -> None:
    spec, suffix = DEFAULTS[kind]
    kind = kind.partition(",")[0]
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        config = getattr(peers.transformers, f"{kind}Config")()
        config.num_labels = 1000
        theirs = shapes(getattr(peers.transformers, f"{kind}{suffix}")(config).state_dict())
    if kind == "DINOv3ViT":
        assert theirs.pop("embeddings.register_tokens") == (1, 0, 384)  # the default has none
    if kind.startswith("D") and kind != "DeiT":
        mask = MASK if "ForImage" not in suffix else f"dinov2.{MASK}"
        assert theirs.pop(mask)[-1] == spec.width
    spec = replace(spec, size=tuple(2 * [config.image_size]), patch=tuple(2 * [config.patch_size]))
    assert written("transformers", spec, variants=("in_memory",)) == theirs
