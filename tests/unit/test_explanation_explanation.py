"""explain() on real small networks of every kind, and what save() writes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.errors import ModelError, UsageError
from vitral.explanation import explain
from vitral.explanation.explanation import as_pictures
from vitral.model import build
from vitral.spec import ImageSpec, ModelSpec, ResNetSpec


def network(**changes):
    settings = {"name": "tiny", "size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}
    settings |= {"mlp_width": 48, "classes": 4} | changes
    return build(ModelSpec(**settings))


def images(model, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, *model.spec.size, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 2},
        {"distillation_token": True},
        {"pool": "mean", "class_token": False},
        {"pool": "mean"},
        {"pool": "map", "class_token": False},
        {"size": (24, 40)},
        {"resnet": ResNetSpec(blocks=(1,), width=32), "patch": 1},
        {"positions": "rope2d", "width": 48},
    ],
    ids=str,
)
def test_every_kind_of_network_is_explained(changes):
    model = network(**changes)
    found = explain(model, images(model))
    assert len(found) == 2
    rows, columns = model.spec.grid
    tokens = rows * columns + model.num_prefix
    for explanation in found:
        assert explanation.grid == (rows, columns)
        assert explanation.heat.shape == (rows, columns)
        assert explanation.heat.sum() == pytest.approx(1, abs=1e-5)
        assert explanation.heads.shape == (3, rows, columns)
        assert explanation.attention.shape == (2, 3, tokens, tokens)
        np.testing.assert_allclose(explanation.attention.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(explanation.rollout.sum(-1), 1, atol=1e-5)
        assert explanation.picture.shape == (*model.spec.size, 3)
        assert explanation.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_the_mode_of_the_network_and_its_gradients_are_left_alone():
    model = network().train()
    explain(model, images(model))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_explains_each_image_as_if_alone():
    model = network()
    batch = images(model, 3)
    together, alone = explain(model, batch), explain(model, batch[1:2])
    np.testing.assert_allclose(together[1].heat, alone[0].heat, atol=1e-6)


def test_top_and_names():
    model = network()
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([0.0, 3.0, 1.0, 2.0])
    explanation = explain(model, images(model, 1), classes=["가", "나", "다", "라"])[0]
    assert [name for name, _ in explanation.top()] == ["나", "라", "다"]
    assert explain(model, images(model, 1))[0].top(1)[0][0] == "class 1"
    with pytest.raises(UsageError, match="4 classes, but 2 names"):
        explain(model, images(model, 1), classes=["a", "b"])


def test_pictures_are_what_the_model_received():
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    spec = ImageSpec(size=(5, 4), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    pictures = as_pictures((pixels / 255 - mean) / std, spec)
    assert (pictures == pixels.permute(0, 2, 3, 1).numpy()).all()
    grey = as_pictures(torch.zeros(1, 1, 5, 4), ImageSpec(size=(5, 4), mean=(0.5,), std=(0.5,)))
    assert grey.shape == (1, 5, 4, 3)


def test_save_writes_a_picture_or_a_folder(tmp_path):
    model = network()
    explanation = explain(model, images(model, 1))[0]
    assert explanation.save(tmp_path / "one.png") == tmp_path / "one.png"
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    explanation.save(str(tmp_path / "one.SVG"))
    assert "<svg" in (tmp_path / "one.SVG").read_text(encoding="utf-8")
    explanation.save(tmp_path / "run.v2" / "cat")
    written = {path.name for path in (tmp_path / "run.v2" / "cat").iterdir()}
    assert written == {"explanation.png", "explanation.svg", "overlay.png"}
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        explanation.save(tmp_path / "one.jpg")
    assert not (tmp_path / "one.jpg").exists()


def test_overlay_and_picture_as_png():
    model = network()
    explanation = explain(model, images(model, 1))[0]
    assert Image.open(io.BytesIO(explanation.picture_png())).size == (32, 32)
    assert Image.open(io.BytesIO(explanation.overlay_png())).size == (224, 224)


def test_a_network_without_attention_is_one_sentence():
    spec = ModelSpec(
        name="BiT",
        size=64,
        patch=1,
        width=64 * 4,
        depth=0,
        heads=0,
        mlp_width=0,
        classes=4,
        class_token=False,
        positions="none",
        pool="mean",
        resnet=ResNetSpec(kind="v2", blocks=(1,), width=64, norm_eps=1e-5, root_pool="zero"),
    )
    model = build(spec)
    with pytest.raises(ModelError, match="has no attention to explain"):
        explain(model, torch.zeros(1, 3, 64, 64))


def test_a_model_without_a_head_still_looks():
    model = network(classes=0)
    explanation = explain(model, images(model, 1))[0]
    assert explanation.top() == []
    assert explanation.heat.sum() == pytest.approx(1, abs=1e-5)
