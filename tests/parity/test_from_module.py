"""vitral.save over the networks of other libraries, and their own words for preprocessing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vitral
from vitral.errors import UsageError
from vitral.images import augment
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.from_module import save
from vitral.weights.image_settings import image_spec

augment.transforms()  # makes torchvision importable beside another torch, which timm needs
NAMES = ["a", "b", "c"]
IMAGES = {"mean": [0.5] * 3, "std": [0.5] * 3}


def timm_model(name: str, **options: Any) -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    options = {"img_size": 32, "num_classes": 3, "depth": 2} | options
    return timm.create_model(name, pretrained=False, **options)


def torchvision_model() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=96,
        num_classes=3,
    )  # fmt: skip


def transformers_model(kind: str = "ViT", **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="an oracle of the dev extra")
    config = getattr(transformers, f"{kind}Config")(
        image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, num_labels=3, **options,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def vit_pytorch_model(**options: Any) -> nn.Module:
    library = pytest.importorskip("vit_pytorch")
    sizes = {"image_size": 32, "patch_size": 8, "num_classes": 3, "dim": 64, "depth": 2}
    return library.ViT(**sizes, heads=3, dim_head=16, mlp_dim=96, **options)


MODELS = {
    "timm": lambda: timm_model("vit_tiny_patch16_224"),
    "timm, rectangular": lambda: timm_model("vit_tiny_patch16_224", img_size=(32, 64)),
    "timm, mean": lambda: timm_model("vit_tiny_patch16_224", global_pool="avg"),
    "timm, map": lambda: timm_model("vit_base_patch16_siglip_224", embed_dim=64, num_heads=4),
    "timm, deit3": lambda: timm_model("deit3_small_patch16_224"),
    "timm, distilled": lambda: timm_model("deit_tiny_distilled_patch16_224"),
    "timm, registers": lambda: timm_model("vit_small_patch14_reg4_dinov2", img_size=28),
    "timm, three heads of its own": lambda: timm_model("vit_small_patch16_224", num_heads=3),
    "torchvision": torchvision_model,
    "transformers": transformers_model,
    "transformers, tanh": lambda: transformers_model(hidden_act="gelu_new", layer_norm_eps=1e-5),
    "transformers, dinov2": lambda: transformers_model("Dinov2", mlp_ratio=2),
    "vit-pytorch": vit_pytorch_model,
    "vit-pytorch, mean": lambda: vit_pytorch_model(pool="mean"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_networks_of_other_libraries(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    for x in model.parameters():  # nothing may hide behind zeros
        nn.init.normal_(x, mean=float(x.ndim == 1), std=0.1)
    folder = save(model, NAMES, IMAGES, tmp_path / "a")
    card = artifact.load_card(folder)
    assert card.classes == tuple(NAMES)
    proof = card.made_by["saved"]
    assert proof["difference"] < 1e-4 * max(proof["largest"], 1)
    network = vitral.load(folder).model
    images = torch.randn(3, 3, *card.model.size)
    with torch.inference_mode():
        expected = model.eval()(images)
        expected = getattr(expected, "logits", expected)
        assert (network(images) - expected).abs().max() < 1e-4 * max(proof["largest"], 1)


class OfOnesOwn(nn.Module):
    """The most taught way: a backbone without its head, dropout, and a linear layer."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(width, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone(images))


def test_a_head_of_ones_own(tmp_path: Path) -> None:
    backbone = torchvision_model()
    backbone.heads = nn.Identity()
    card = artifact.load_card(save(OfOnesOwn(backbone, 64), NAMES, IMAGES, tmp_path / "a"))
    assert "the head stood under classifier.1" in card.made_by["saved"]["notes"]
    save(OfOnesOwn(timm_model("vit_tiny_patch16_224", num_classes=0), 192), NAMES, IMAGES,
         tmp_path / "b")  # fmt: skip
    model = torchvision_model()
    model.heads = nn.Linear(64, 3)
    save(model, NAMES, IMAGES, tmp_path / "c")


def test_timms_data_configuration() -> None:
    data = pytest.importorskip("timm.data")
    told = {"input_size": (3, 32, 32)}
    config = data.resolve_data_config(told, model=timm_model("vit_tiny_patch16_224"))
    spec = image_spec(config, (32, 32))
    assert (spec.mean, spec.interpolation) == ((0.5, 0.5, 0.5), "bicubic")
    assert int(32 / spec.crop) == int(32 / 0.9)


def test_image_processors_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    for given in (processor, processor.to_dict()):
        spec = image_spec(given, (32, 32))
        assert (spec.fit, spec.interpolation, spec.mean) == ("squash", "bilinear", (0.5, 0.5, 0.5))


def test_evaluation_transforms_of_torchvision() -> None:
    v1 = augment.transforms()
    import torchvision

    models = torchvision.models
    old = torchvision.transforms
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = ImageSpec(crop=0.875, interpolation="bilinear", mean=mean, std=std)
    steps = [old.Resize(256), old.CenterCrop(224), old.ToTensor(), old.Normalize(mean, std)]
    new = [v1.ToImage(), v1.Resize(256), v1.CenterCrop(224), v1.ToDtype(torch.float32, scale=True)]
    for transform in (
        models.ViT_B_16_Weights.IMAGENET1K_V1.transforms(),
        old.Compose(steps),
        v1.Compose([*new, v1.Normalize(mean, std)]),
    ):
        assert image_spec(transform, (224, 224)) == expected
    squashed = old.Compose([old.Resize((224, 224), old.InterpolationMode.BICUBIC), old.ToTensor()])
    spec = image_spec(squashed, (224, 224))
    assert (spec.fit, spec.crop, spec.mean, spec.std) == ("squash", 1, (0, 0, 0), (1, 1, 1))
    for wrong, match in (
        ([old.RandomResizedCrop(224)], "RandomResizedCrop of the transform is one of training"),
        ([old.Resize(224)], r"Resize\(224\) without CenterCrop"),
        ([old.ToTensor()], "resizes nothing"),
        ([old.Resize(256), old.CenterCrop(192)], "reads 224x224 pixels.*192x192"),
        ([old.Resize(256), old.CenterCrop(224), old.Grayscale(3)], "Grayscale.*cannot be said"),
    ):
        with pytest.raises(UsageError, match=match):
            image_spec(old.Compose(wrong), (224, 224))
