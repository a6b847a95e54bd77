"""The authors' own JAX code, run on random weights and recorded, against Vitral."""

from dataclasses import replace

import golden
import pytest
import torch
from torch import Tensor, nn

from vitral.model import build
from vitral.specs import ModelSpec

TRANSFORMERS = ("vitjax_token_48x80", "vitjax_hybrid_64x64", "bv_gap_sincos_rep", "bv_map_scan")


def loaded(spec: ModelSpec, weights: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
    network = build(spec).to(dtype).eval()
    network.load_state_dict(weights, strict=True)
    return network


def transformer(name: str) -> tuple[golden.Recording, ModelSpec, dict[str, Tensor]]:
    recorded = golden.recording(name)
    spec = golden.transformer_spec(recorded.config)
    return recorded, spec, golden.transformer_weights(recorded.arrays, spec.depth)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_agree_with_the_authors_code(name):
    recorded, spec, weights = transformer(name)
    with torch.no_grad():
        double = loaded(spec, weights, torch.float64)(recorded.images)
        single = loaded(spec, weights, torch.float32)(recorded.images.float())
    assert (double - recorded.logits).abs().max() < 1e-11
    floor = 1e-4 if spec.resnet else 2e-5  # flax computes variances as E[x^2] - E[x]^2
    assert (single - torch.from_numpy(recorded.extra["logits"])).abs().max() < floor


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_exact_gelu_or_another_epsilon_would_be_seen(name):
    recorded, spec, weights = transformer(name)
    for wrong in (replace(spec, gelu="erf"), replace(spec, norm_eps=1e-5)):
        with torch.no_grad():
            logits = loaded(wrong, weights, torch.float64)(recorded.images)
        assert 1e-7 < (logits - recorded.logits).abs().max() < 1e-2


def test_the_hybrid_sees_every_wrong_choice_of_its_stem():
    recorded, spec, weights = transformer("vitjax_hybrid_64x64")
    for change, least in (({"norm_eps": 1e-5}, 1e-6), ({"weight_eps_in": "var"}, 1e-5)):
        wrong = replace(spec, resnet=replace(spec.resnet, **change))
        with torch.no_grad():
            logits = loaded(wrong, weights, torch.float64)(recorded.images)
        assert (logits - recorded.logits).abs().max() > least


def test_sincos_positions_are_big_visions_not_maes():
    recorded, spec, weights = transformer("bv_gap_sincos_rep")
    with torch.no_grad():
        wrong = loaded(replace(spec, positions="sincos2d_mae"), weights, torch.float64)
        difference = (wrong(recorded.images) - recorded.logits).abs().max()
    assert difference > 1e-3


@pytest.mark.parametrize("root_pool", ["infinite", "zero"])
def test_bit_agrees_with_both_of_its_codes(root_pool):
    recorded = golden.recording("bit_paper_64x64")
    spec = golden.bit_spec(recorded.config, root_pool)
    weights = golden.bit_weights(recorded.arrays)
    zero = torch.from_numpy(recorded.extra["logits64_zeropad"])
    expected, other = recorded.logits, zero
    if root_pool == "zero":
        expected, other = zero, recorded.logits
    with torch.no_grad():
        logits = loaded(spec, weights, torch.float64)(recorded.images)
    assert (logits - expected).abs().max() < 1e-11
    assert (logits - other).abs().max() > 1e-3
