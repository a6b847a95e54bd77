"""Figures of the model itself: the paper's anchors, and the numbers computed another way."""

import json

import numpy as np
import pytest
import torch
from networks import STEM, randomised, tiny, tiny_bit
from sklearn.decomposition import PCA

from vitral.errors import DataError, ModelError
from vitral.explanation import model_analysis
from vitral.explanation.attention import attention_distance, patches_only, rollout
from vitral.specs import ImageSpec

IMAGES = ImageSpec(size=(32, 48))
MEAN = {"pool": "mean", "class_token": False}


def batches(*counts, size=(32, 48)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, *size, generator=generator).double() for n in counts]


def test_filters_are_the_principal_components_of_scikit_learn():
    model = randomised(tiny(width=64, patch=4))
    components, shares = model_analysis.patch_filters(model)
    flat = model.patches.weight.detach().permute(0, 2, 3, 1).flatten(1).numpy()
    expected = PCA(28, svd_solver="full").fit(flat)
    assert components.shape == (28, 4, 4, 3)
    ours = components.reshape(28, -1)
    cosines = (ours * expected.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-8)
    np.testing.assert_allclose(shares, expected.explained_variance_ratio_, atol=1e-12)
    largest = np.take_along_axis(ours, np.abs(ours).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all(), "a component's sign is nobody's choice"


def test_a_planted_filter_comes_first():
    model = randomised(tiny(width=64, patch=8))
    planted = torch.linspace(-1, 1, 8).double()[:, None].expand(3, 8, 8)
    with torch.no_grad():
        noise = 0.01 * model.patches.weight
        model.patches.weight.copy_(torch.randn(64, 1, 1, 1) * planted + noise)
    components, shares = model_analysis.patch_filters(model, count=3)
    found = components[0] / np.abs(components[0]).max()
    signs = np.sign(found[-1, 0, 0]) * np.linspace(-1, 1, 8)
    np.testing.assert_allclose(found, np.broadcast_to(signs[:, None, None], (8, 8, 3)), atol=0.05)
    assert shares[0] > 0.9
    assert shares.sum() <= 1 + 1e-12


def test_a_stem_shows_the_root_convolution_as_it_is_applied():
    for spec in (tiny(resnet=STEM, patch=1), tiny_bit()):
        model = randomised(spec)
        components, _ = model_analysis.patch_filters(model)
        root = model.stem.root.standardised().detach().permute(0, 2, 3, 1).flatten(1).numpy()
        expected = PCA(28, svd_solver="full").fit(root).components_
        assert components.shape == (28, 7, 7, 3)
        cosines = (components.reshape(28, -1) * expected).sum(axis=1)
        np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-8)


def test_fewer_filters_than_asked_and_filters_all_alike():
    model = randomised(tiny(width=8, heads=2))
    assert len(model_analysis.patch_filters(model)[0]) == 8
    torch.nn.init.ones_(model.patches.weight)
    assert model_analysis.patch_filters(model)[1].tolist() == [0] * 8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 2, "prefix_positions": False},
        {"positions": "learned2d"},
        {"positions": "sincos2d"},
        {"positions_at": "every"},
        {"distillation_token": True},
        MEAN | {"positions": "sincos2d_mae"},
    ],
)
def test_similarity_of_the_positions_as_they_are_added(changes):
    model = randomised(tiny(size=(48, 80), **changes))
    similarity = model_analysis.position_similarity(model)
    assert similarity.shape == (3, 5, 3, 5)
    with torch.no_grad():
        table = model.positions((3, 5), torch.zeros(1).double())[0][-15:].numpy()
    for i, j in ((0, 0), (2, 9), (14, 3)):
        cosine = table[i] @ table[j] / np.linalg.norm(table[i]) / np.linalg.norm(table[j])
        assert similarity[i // 5, i % 5, j // 5, j % 5] == pytest.approx(cosine, abs=1e-12)


def test_rotations_are_as_similar_as_their_angles():
    model = randomised(tiny(size=(48, 80), positions="rope2d"))
    similarity = model_analysis.position_similarity(model)
    np.testing.assert_allclose(np.diagonal(similarity.reshape(15, 15)), 1)
    # a rotation knows offsets alone
    np.testing.assert_allclose(similarity[0, 0, 1, 2], similarity[1, 1, 2, 3], atol=1e-6)
    assert similarity[0, 0, 0, 1] < 1


@pytest.mark.parametrize("spec", [tiny(positions="none"), tiny(positions="relative"), tiny_bit()])
def test_without_positions_there_is_a_reason(spec):
    with pytest.raises(ModelError, match=r"no position embeddings|relative positions"):
        model_analysis.position_similarity(randomised(spec))


@pytest.mark.parametrize(
    ("grid", "patch", "pixels"),
    [((14, 14), 16, 116.49), ((7, 7), 32, 115.50), ((24, 24), 16, 200.05), ((8, 8), 4, 16.55)],
)
def test_even_attention_has_the_distance_of_the_paper(grid, patch, pixels):
    assert model_analysis.uniform_distance(grid, (patch, patch)) == pytest.approx(pixels, abs=0.005)


def test_a_patch_need_not_be_square():
    assert model_analysis.uniform_distance((1, 2), (7, 16)) == 8
    assert model_analysis.uniform_distance((2, 1), (7, 16)) == 3.5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 1, "positions": "rope2d", "qk_norm": True},
        MEAN | {"positions": "sincos2d"},
        {"positions": "relative"},
        {"resnet": STEM, "patch": 1},
        {"pool": "map", "class_token": False},
    ],
)
def test_the_average_over_batches_is_that_of_all_attention_at_once(changes, monkeypatch):
    spec = tiny(**changes)
    model = randomised(spec)
    images = batches(5, 3)
    told: list[int] = []
    # so little may be held that every image is looked at alone
    monkeypatch.setattr(model_analysis, "_MAX_ATTENTION", 1)
    found = model_analysis.attention_statistics(model, images, told.append)
    weights = model.attention_weights(torch.cat(images))
    stride = spec.stride[0]
    expected = [
        attention_distance(patches_only(block, spec.prefix), spec.grid, stride) for block in weights
    ]
    np.testing.assert_allclose(found.distances, torch.stack(expected).detach(), rtol=1e-5)
    for mean, residual in ((found.rollout, True), (found.rollout_no_residual, False)):
        whole = rollout(weights, residual).mean(0).detach()
        np.testing.assert_allclose(mean, whole, atol=1e-6)
        np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-6)
    assert found.images == told[-1] == 8
    assert told == list(range(1, 9))
    assert found.maps.shape == (6, 2, *spec.grid)
    np.testing.assert_allclose(found.maps.sum(axis=(2, 3)), 1, atol=1e-6)
    torch.testing.assert_close(found.examples, torch.cat(images)[:6])


def test_attention_that_is_even_lies_on_the_anchor():
    model = randomised(tiny(size=(96, 96)))
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.qkv.weight)
        torch.nn.init.zeros_(block.attention.qkv.bias)
    found = model_analysis.attention_statistics(model, batches(2, size=(96, 96)))
    np.testing.assert_allclose(found.distances, found.uniform_distance, rtol=1e-5)
    np.testing.assert_allclose(found.rollout_no_residual, 1 / 37, atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = randomised(tiny()).train()
    model_analysis.attention_statistics(model, batches(1))
    assert model.training
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


def test_nothing_to_look_at():
    with pytest.raises(DataError, match="no image"):
        model_analysis.attention_statistics(randomised(tiny()), [])
    with pytest.raises(ModelError, match="no attention"):
        model_analysis.attention_statistics(randomised(tiny_bit()), batches(1))


PLATES = ("filters", "positions", "attention_distance", "rollout")


def test_everything_is_written_and_said(tmp_path):
    model = randomised(tiny())
    written = model_analysis.explain_model(model, tmp_path / "new", batches(2), image_spec=IMAGES)
    expected = {f"{name}.{kind}" for name in PLATES for kind in ("png", "svg")}
    assert {path.name for path in written} == expected | {"model.npz", "model.json"}
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    arrays = np.load(tmp_path / "new" / "model.npz")
    told = json.loads((tmp_path / "new" / "model.json").read_text())
    for name, array in arrays.items():
        assert told[name]["shape"] == list(array.shape)
        assert told[name]["meaning"]
    np.testing.assert_allclose(told["attention_distance"]["values"], arrays["attention_distance"])
    assert told["images"] == 2
    assert told["filters_of"] == "the 32 filters of the patch projection"


@pytest.mark.parametrize(
    ("spec", "given", "left"),
    [
        (tiny(), False, {"attention_distance": "no images", "rollout": "no images"}),
        (tiny(positions="none"), True, {"positions": "no position embeddings"}),
        (tiny(positions="relative"), True, {"positions": "relative positions"}),
        (
            tiny_bit(),
            True,
            {"positions": "no position", "attention_distance": "no attention", "rollout": "no att"},
        ),
    ],
)
def test_what_cannot_be_shown_is_left_out_with_its_reason(spec, given, left, tmp_path):
    given_batches = batches(1) if given else None
    written = model_analysis.explain_model(
        randomised(spec), tmp_path, given_batches, image_spec=IMAGES
    )
    told = json.loads((tmp_path / "model.json").read_text())
    names = {path.stem for path in written}
    assert names == set(PLATES) - set(left) | {"model"}
    for name, words in left.items():
        assert words in told[name]
