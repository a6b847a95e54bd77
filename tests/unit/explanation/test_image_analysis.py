"""explain() on real small networks of every kind, and what save() writes."""

import importlib
import io

import numpy as np
import pytest
import torch
from networks import pictures, randomised, tiny_bit
from PIL import Image

from vitral.errors import ModelError, UsageError
from vitral.explanation import ExplainRequest, explain
from vitral.explanation.attention import rollout
from vitral.explanation.image_analysis import as_pictures
from vitral.model import build
from vitral.specs import ImageSpec, ModelSpec, ResNetSpec
from vitral.specs.task import Task


def network(**changes):
    settings = {"name": "tiny", "size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}
    settings |= {"mlp_width": 48, "classes": 4} | changes
    torch.manual_seed(0)
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
        {"pool": "mean_all"},
        {"pool": "cls_mean"},
        {"pool": "cls_mean", "pool_blocks": 2, "registers": 1},
        {"pool": "cls", "pool_blocks": 2},
        {"pool": "map", "class_token": False},
        {"size": (24, 40)},
        {"resnet": ResNetSpec(blocks=(1,), width=32), "patch": 1},
        {"positions": "rope2d", "width": 48},
    ],
    ids=str,
)
def test_every_kind_of_network_is_explained(changes):
    model = network(**changes)
    found = explain(model, images(model), request=ExplainRequest(steps=2))
    assert len(found) == 2
    rows, columns = model.spec.grid
    tokens = rows * columns + model.spec.prefix
    for explanation in found:
        internals = explanation.internals
        assert explanation.method == "occlusion"
        np.testing.assert_array_equal(internals.occlusion, explanation.heatmap)
        assert explanation.target == explanation.top(1)[0][0]
        assert explanation.grid == (rows, columns)
        assert len(explanation.prefix) == model.spec.prefix
        assert internals.attention.shape == (2, 3, tokens, tokens)
        for rows_of in (internals.attention, internals.rollout, internals.rollout_no_residual):
            np.testing.assert_allclose(rows_of.sum(-1), 1, atol=1e-5)
        maps = [
            internals.rollout_heatmap,
            internals.rollout_no_residual_heatmap,
            internals.occlusion,
            internals.relevance,
            *internals.attention_maps.reshape(6, rows, columns),
        ]
        for heat in (explanation.heatmap, *maps):
            assert heat.shape == (rows, columns)
            assert heat.min() >= 0
            assert heat.sum() == pytest.approx(1, abs=1e-5)
        assert internals.head_maps.shape == (3, rows, columns)
        assert internals.norms.shape == (3, 2, 3, tokens)
        assert internals.cosines.shape == (rows * columns,) * 2
        assert np.abs(internals.cosines).max() <= 1 + 1e-5
        assert explanation.picture.shape == (*model.spec.size, 3)
        assert explanation.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "class_token": False}], ids=str)
def test_any_size_and_frozen_weights_are_explained_alike(changes):
    model = network(**changes)
    larger = torch.rand(1, 3, 40, 48)
    first = explain(model, larger, request=ExplainRequest(steps=0))[0]
    assert first.grid == (5, 6)
    assert first.heatmap.shape == (5, 6)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        again = explain(model, larger, request=ExplainRequest(steps=0))[0]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    np.testing.assert_allclose(again.heatmap, first.heatmap, atol=1e-6)


def test_the_methods_are_what_they_say():
    model = network()
    batch = images(model, 1)
    weights = model.attention_weights(batch)
    rows = {
        None: weights[-1].mean(1)[0, 0, 1:],
        "rollout": rollout(weights)[0, 0, 1:],
        "head": weights[0][0, 2, 0, 1:],
        "patch": weights[-1].mean(1)[0, 1 + 4 * 1 + 2, 1:],  # row 2, column 3 of four
    }
    asked = {
        None: ExplainRequest(method="attention", steps=0),
        "rollout": ExplainRequest(method="rollout", steps=0, details=False),
        "head": ExplainRequest(layer=1, head=3, steps=0),
        "patch": ExplainRequest(query=(2, 3), steps=0, details=False),
    }
    for key, row in rows.items():
        found = explain(model, batch, request=asked[key])[0]
        expected = (row / row.sum()).detach().view(4, 4)
        np.testing.assert_allclose(found.heatmap, expected, atol=1e-6, err_msg=str(key))
        assert (found.internals is None) is not asked[key].details
        assert found.faithfulness is None


def test_the_map_is_that_of_the_method_whatever_else_is_kept():
    model = network()
    torch.nn.init.normal_(model.head.weight)
    batch = images(model, 1)
    kept = explain(model, batch, request=ExplainRequest(steps=0))[0].internals
    assert np.abs(kept.occlusion - kept.relevance).max() > 1e-3
    for method in ("occlusion", "relevance"):
        for details in (True, False):
            request = ExplainRequest(method=method, steps=0, details=details)
            found = explain(model, batch, request=request)[0]
            assert found.method == method
            np.testing.assert_allclose(found.heatmap, getattr(kept, method), atol=1e-6)


def test_relevance_alone_is_one_pass_forward():
    model, passes = network(), []
    model.blocks[0].register_forward_hook(lambda *call: passes.append(len(call[2])))
    explain(
        model, images(model), request=ExplainRequest(method="relevance", steps=0, details=False)
    )
    assert passes == [2]


def test_a_class_is_explained_by_name_and_differs_from_another():
    model = network()
    torch.nn.init.normal_(model.head.weight)
    batch, names = images(model, 1), ["a", "b", "c", "d"]
    maps = [
        explain(model, batch, None, names, ExplainRequest(target=name, steps=0, details=False))[0]
        for name in names
    ]
    assert [found.target for found in maps] == names
    assert np.abs(maps[0].heatmap - maps[1].heatmap).max() > 1e-4


def test_multi_labels_and_a_temperature_change_the_probabilities():
    model = network()
    torch.nn.init.normal_(model.head.weight)
    batch = images(model, 1)
    logits = model(batch).detach()[0]
    for request, expected in (
        (ExplainRequest(task=Task("multi_label"), steps=0), logits.sigmoid()),
        (ExplainRequest(task=Task(temperature=2.5), steps=0), (logits / 2.5).softmax(0)),
    ):
        found = explain(model, batch, request=request)[0]
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
        np.testing.assert_allclose(found.internals.layer_logits[-1], logits, atol=1e-5)


def test_the_mode_of_the_network_and_its_gradients_are_left_alone():
    model = network().train()
    explain(model, images(model))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_explains_each_image_as_if_alone():
    model = network()
    batch = images(model, 3)
    together, alone = explain(model, batch), explain(model, batch[1:2])
    np.testing.assert_allclose(together[1].heatmap, alone[0].heatmap, atol=1e-6)
    tests = together[1].faithfulness, alone[0].faithfulness
    np.testing.assert_allclose(tests[0].deletion, tests[1].deletion, atol=1e-6)
    np.testing.assert_allclose(tests[0].random, tests[1].random, atol=1e-6)


def test_parts_that_bound_the_memory_change_nothing(monkeypatch):
    model = network()
    batch = images(model, 3)
    whole = explain(model, batch, request=ExplainRequest(steps=0))
    module = importlib.import_module("vitral.explanation.image_analysis")
    monkeypatch.setattr(module, "_MAX_ATTENTION", 1)
    for one, other in zip(
        whole, explain(model, batch, request=ExplainRequest(steps=0)), strict=True
    ):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-6)


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


def test_overlay_as_png():
    model = network()
    explanation = explain(model, images(model, 1))[0]
    assert Image.open(io.BytesIO(explanation.overlay_png())).size == (224, 224)


def test_a_resnet_is_explained_without_details():
    spec = tiny_bit()
    model = randomised(spec).float()
    batch = pictures(spec).float()
    kept = []
    model.stem.register_forward_hook(
        lambda *call: kept.append(len(call[2]) * call[2].requires_grad)
    )
    found = explain(model, batch, request=ExplainRequest(steps=2))
    assert max(kept) == 1  # its maps are large: a gradient is of one image at a time
    for i, explanation in enumerate(found):
        assert (explanation.method, explanation.grid) == ("occlusion", (4, 6))
        assert explanation.heatmap.sum() == pytest.approx(1, abs=1e-5)
        assert explanation.faithfulness is not None
        assert explanation.internals is None
        one = explain(model, batch[i : i + 1], request=ExplainRequest(steps=0))[0]
        np.testing.assert_allclose(explanation.heatmap, one.heatmap, atol=1e-5)
    quick = explain(model, batch, request=ExplainRequest(method="relevance", steps=0))[0]
    cells = model.features(batch).patches[0].detach()  # class activation map: linear, so each cell
    place = int(found[0].target.removeprefix("class "))
    speaks = (cells @ model.head.weight[place]).clamp(min=0).detach().view(4, 6)
    np.testing.assert_allclose(quick.heatmap, speaks / speaks.sum(), atol=1e-4)
    with pytest.raises(ModelError, match="so it has no attention"):
        explain(model, batch, request=ExplainRequest(method="rollout"))


def test_a_model_without_a_head_still_looks():
    model = network(classes=0)
    explanation = explain(model, images(model, 1))[0]
    assert explanation.top() == []
    assert (explanation.method, explanation.target) == ("rollout", None)
    assert explanation.faithfulness is None
    assert explanation.heatmap.sum() == pytest.approx(1, abs=1e-5)
