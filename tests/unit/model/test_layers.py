from dataclasses import replace

import pytest
import torch
from networks import pictures, randomised, tiny
from torch.nn import functional as F

from vitral.errors import ModelError
from vitral.model import build
from vitral.model.layers import LONGEST_ANSWERING, LONGEST_LEARNING, Attention, Block, attend, fuses
from vitral.model.positions import position_context
from vitral.specs import Dropouts, ModelSpec

CASES = [
    tiny(),
    tiny(head_width=12, biases="no_qkv"),
    tiny(qk_norm=True, biases="none"),
    tiny(positions="rope2d", registers=2),
    tiny(positions="relative", registers=2),
    tiny(positions="relative", prefix_positions=False, qk_norm=True),
]


@pytest.mark.parametrize("spec", CASES, ids=range(len(CASES)))
def test_weights_are_the_softmax_inside_forward(spec):
    network = randomised(spec)
    attention = network.blocks[0].attention
    x = torch.randn(3, spec.tokens, spec.width, dtype=torch.float64)
    context = position_context(spec, spec.grid, x)
    weights = attention.weights(x, context)
    assert weights.shape == (3, spec.heads, spec.tokens, spec.tokens)
    assert (weights.sum(-1) - 1).abs().max() < 1e-12 and weights.min() >= 0
    _, _, v = attention.project(x, context)
    again = attention.out((weights @ v).transpose(1, 2).flatten(2))
    assert (again - attention(x, context)).abs().max() < 1e-12


def test_weights_of_half_precision_still_sum_to_one():
    attention = randomised(tiny()).blocks[0].attention.bfloat16()
    weights = attention.weights(torch.randn(2, 7, 32, dtype=torch.bfloat16))
    assert weights.dtype == torch.float32
    assert (weights.sum(-1) - 1).abs().max() < 1e-6


def test_relative_logits_are_the_sum_written_out():
    spec = tiny(positions="relative", depth=1)
    attention = randomised(spec).blocks[0].attention
    x = torch.randn(1, spec.tokens, spec.width, dtype=torch.float64)
    context = position_context(spec, spec.grid, x)
    q, k, _ = attention.project(x, context)
    count = spec.tokens
    expected = torch.empty(count, count, dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            relative = attention.relative[i - j + count - 1]
            expected[i, j] = q[0, 1, i] @ (k[0, 1, j] + relative) / 8**0.5
    assert (attention.weights(x, context)[0, 1] - expected.softmax(-1)).abs().max() < 1e-12
    with pytest.raises(ModelError, match="needs position_context"):
        attention(x)


def test_torchs_own_attention_agrees():
    """An independent implementation with the same packed projections."""
    attention = randomised(tiny()).blocks[0].attention
    oracle = torch.nn.MultiheadAttention(32, 4, batch_first=True, dtype=torch.float64)
    oracle.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    expected, weights = oracle(x, x, x, average_attn_weights=False)
    assert (attention(x) - expected).abs().max() < 1e-12
    assert (attention.weights(x) - weights).abs().max() < 1e-12


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_the_gelu_of_the_spec_is_used_and_they_differ(gelu):
    mlp = randomised(tiny(gelu=gelu)).blocks[0].mlp
    x = torch.randn(5, 32, dtype=torch.float64)
    hidden = mlp.fc1(x)
    exact = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    cubic = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
    curve = {"erf": exact, "tanh": 0.5 * hidden * (1 + torch.tanh(cubic))}
    assert (mlp(x) - mlp.fc2(curve[gelu])).abs().max() < 1e-12
    assert 1e-5 < (curve["erf"] - curve["tanh"]).abs().max() < 1e-3


def test_a_block_is_equations_2_and_3_with_layer_scale():
    block = randomised(tiny(layer_scale=0.1)).blocks[1]
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    middle = x + block.scale1 * block.attention(block.norm1(x))
    expected = middle + block.scale2 * block.mlp(block.norm2(middle))
    assert (block(x) - expected).abs().max() < 1e-12


def test_drop_path_drops_whole_branches_of_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    block = randomised(tiny(), drop_path=0.5, drop_path_rule="constant").blocks[0]
    branch = torch.ones(4000, 3, 32, dtype=torch.float64)
    block.train()
    out = block._branch(branch, None, None)
    per_sample = out.flatten(1)
    assert set(per_sample.unique().tolist()) == {0.0, 2.0}
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample.mean().item() == pytest.approx(1, abs=0.05)
    block.eval()
    assert torch.equal(block._branch(branch, None, None), branch)


def test_each_block_has_its_drop_path_rate():
    spec = tiny(depth=3)
    linear = randomised(spec, drop_path=0.2)
    assert [block.drop_path for block in linear.blocks] == pytest.approx([0, 0.1, 0.2])
    constant = randomised(spec, drop_path=0.2, drop_path_rule="constant")
    assert [block.drop_path for block in constant.blocks] == [0.2] * 3


def test_dropout_has_the_papers_places(monkeypatch):
    """After positions, after the attention output, after GELU, after the MLP; none in the head."""
    spec = tiny(depth=1)
    network = randomised(spec, dropout=0.25, attention_dropout=0.125).train()
    seen, attention_rates = [], []
    attend = F.scaled_dot_product_attention

    def dropout(x, rate):
        seen.append((x.shape[-1], rate))
        return x

    def attention(q, k, v, mask, rate):
        attention_rates.append(rate)
        return attend(q, k, v, mask)

    monkeypatch.setattr(F, "dropout", dropout)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    network(pictures(spec))
    assert seen == [(32, 0.25), (32, 0.25), (48, 0.25), (32, 0.25)]
    assert attention_rates == [0.125]
    seen.clear()
    network.eval()(pictures(spec))
    assert seen == [] and attention_rates[-1] == 0


@pytest.mark.parametrize("spec", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("casts", [False, True], ids=["bfloat16", "autocast"])
def test_attention_of_16_bits_is_written_out_on_the_cpu(monkeypatch, spec, casts):
    """torch's fused kernel is slow there; the numbers stay those of float64, to 16 bits."""
    exact = randomised(spec).blocks[0].attention
    x = torch.randn(3, spec.tokens, spec.width, dtype=torch.float64).bfloat16()
    wanted = exact(x.double(), position_context(spec, spec.grid, x.double()))
    called = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args: called.append(1) or fused(*args)
    )
    attention = exact.float() if casts else exact.bfloat16()
    x = x.float() if casts else x
    with torch.autocast("cpu", torch.bfloat16, enabled=casts):
        found = attention(x, position_context(spec, spec.grid, x))
    assert not called
    assert found.dtype == torch.bfloat16
    assert ((found - wanted).norm() / wanted.norm()).item() < 0.02
    exact.float()(x.float(), position_context(spec, spec.grid, x.float()))
    assert called


def test_dropout_of_16_bits_drops_weights():
    """With values that pick out one key each, what comes back are the weights."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, 4, 64, 16, dtype=torch.bfloat16)
    each = torch.eye(64, dtype=torch.bfloat16).expand(8, 4, -1, -1)
    kept, left = attend(q, k, each), attend(q, k, each, dropout=0.25)
    gone = left == 0
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.allclose(left[~gone], kept[~gone] / 0.75, rtol=0.01)


@pytest.mark.parametrize(
    ("dtype", "tokens", "learns", "plain", "fused"),
    [
        (torch.float32, 9, True, True, True),
        (torch.float16, 9, True, True, True),
        (torch.bfloat16, 9, True, True, False),
        (torch.bfloat16, LONGEST_LEARNING, True, True, False),
        (torch.bfloat16, LONGEST_LEARNING + 1, True, True, True),
        (torch.bfloat16, LONGEST_ANSWERING, False, True, False),
        (torch.bfloat16, LONGEST_ANSWERING + 1, False, True, True),
        (torch.bfloat16, LONGEST_LEARNING + 1, True, False, False),
    ],
)
def test_whose_attention_is_left_to_the_kernel(monkeypatch, dtype, tokens, learns, plain, fused):
    called = []

    def kernel(q, k, v, mask, dropout):
        called.append(1)
        return v

    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    q = torch.randn(1, 1, tokens, 8, dtype=dtype)
    with torch.set_grad_enabled(learns):
        attend(q, q, q, None if plain else torch.zeros(1, 1, tokens, tokens, dtype=dtype))
    assert bool(called) == fused
    assert fuses(q.device, dtype, tokens, learns=learns, plain=plain) == fused
    assert fuses(torch.device("cuda"), dtype, tokens, learns=learns, plain=plain)


def test_map_pooling_against_torchs_own_attention():
    spec = tiny(pool="map", class_token=False)
    pool = randomised(spec).pool
    oracle = torch.nn.MultiheadAttention(32, 4, batch_first=True, dtype=torch.float64)
    oracle.load_state_dict(
        {
            "in_proj_weight": pool.attention.qkv.weight,
            "in_proj_bias": pool.attention.qkv.bias,
            "out_proj.weight": pool.attention.out.weight,
            "out_proj.bias": pool.attention.out.bias,
        }
    )
    x = torch.randn(2, 6, 32, dtype=torch.float64)
    probed = oracle(pool.probe.expand(2, -1, -1), x, x)[0][:, 0]
    assert (pool(x) - (probed + pool.mlp(pool.norm(probed)))).abs().max() < 1e-12


def test_biases_are_where_the_spec_says():
    everywhere = Block(tiny(biases="all"), Dropouts(), 0)
    some = Block(tiny(biases="no_qkv"), Dropouts(), 0)
    mlp = Block(tiny(biases="no_attention"), Dropouts(), 0)
    none = Block(tiny(biases="none"), Dropouts(), 0)
    assert everywhere.attention.qkv.bias is not None
    assert some.attention.qkv.bias is None and some.attention.out.bias is not None
    assert mlp.attention.out.bias is None and mlp.mlp.fc1.bias is not None
    linear = (none.attention.qkv, none.attention.out, none.mlp.fc1, none.mlp.fc2)
    assert all(layer.bias is None for layer in linear) and none.norm1.bias is not None


def test_attention_takes_a_head_width_of_its_own():
    attention = Attention(tiny(head_width=5), Dropouts())
    assert attention.qkv.weight.shape == (60, 32) and attention.out.weight.shape == (32, 20)
    assert attention.scale == pytest.approx(5**-0.5)


def test_attention_without_a_projection_gives_its_heads_joined():
    spec = tiny(heads=1, out_projection=False)
    attention = randomised(spec).blocks[0].attention
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    _, _, v = attention.project(x)
    assert (attention(x) - (attention.weights(x) @ v)[:, 0]).abs().max() < 1e-12
    assert {name for name, _ in attention.named_parameters()} == {"qkv.weight", "qkv.bias"}


def sharp(spec):
    """A block whose attention is far from uniform, and normed tokens."""
    torch.manual_seed(0)
    network = build(spec)
    attention = network.blocks[0].attention
    torch.nn.init.normal_(attention.qkv.weight, std=0.5)
    return attention, torch.randn(2, 5, spec.width)


SHARP = ModelSpec(name="x", size=16, patch=8, width=64, depth=1, heads=2, mlp_width=8, classes=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_rebuild_forward_in_half_precision(dtype):
    attention, x = sharp(SHARP)
    attention, x = attention.to(dtype), x.to(dtype)
    with torch.no_grad():
        _, _, v = attention.project(x)
        mixed = attention.weights(x) @ v.float()
        rebuilt = attention.out(mixed.transpose(1, 2).flatten(2).to(dtype))
        expected = attention(x)
    error = (rebuilt - expected).float().norm() / expected.float().norm()
    assert error < 0.0125


def test_weights_do_not_overflow_where_forward_does_not():
    attention, _ = sharp(SHARP)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.weight[:128] = torch.cat([torch.eye(64)] * 2) * 40
        attention, x = attention.half(), torch.randn(1, 5, 64).half()
        assert attention(x).isfinite().all()
        assert attention.weights(x).isfinite().all()


def test_weights_are_float32_under_autocast():
    attention, x = sharp(SHARP)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        weights = attention.weights(x)
    assert weights.dtype == torch.float32
    assert (weights.sum(-1) - 1).abs().max() < 1e-5


def test_rotation_is_never_left_out_silently():
    attention, x = sharp(replace(SHARP, positions="rope2d"))
    with pytest.raises(ModelError, match="position_context"):
        attention(x)
    with pytest.raises(ModelError, match="position_context"):
        attention.weights(x)
