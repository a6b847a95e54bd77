"""Attention in which not every token sees every other: causal, padded, packed."""

import itertools
from dataclasses import replace

import pytest
import torch
from networks import randomised, tiny
from torch import Tensor
from torch.nn import functional as F

from vitral.model import build
from vitral.model.layers import Attention, attend
from vitral.model.positions import PositionContext, position_context
from vitral.specs import ModelSpec

SPEC = tiny(size=(32, 48))  # a class token and six patches
PACKED = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [4, 4, 3, 3, 3, 3, 3]])
PADDED = torch.tensor([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, -1, -1, -1]])
BOTH = torch.tensor([[0, 0, 1, 1, 1, -1, -1], [-1, 0, 0, 0, -1, 2, 2]])
IDS = {"packed": PACKED, "padded": PADDED, "packed and padded": BOTH}
MASKS = {
    f"{name}{', causal' if causal else ''}": PositionContext(causal=causal, sequence_ids=ids)
    for (name, ids), causal in itertools.product({"": None, **IDS}.items(), [False, True])
    if causal or ids is not None
}
KINDS = [SPEC, tiny(qk_norm=True), tiny(positions="rope2d"), tiny(positions="relative")]


def tokens(spec: ModelSpec = SPEC, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, spec.tokens, spec.width, generator=generator, dtype=torch.float64)


def within(spec: ModelSpec, x: Tensor, mask: PositionContext) -> PositionContext:
    """The places of the tokens, and the mask."""
    places = position_context(spec, spec.grid, x) or PositionContext()
    return places._replace(causal=mask.causal, sequence_ids=mask.sequence_ids)


def sees(mask: PositionContext, sample: int, query: int, key: int) -> bool:
    """Said once more, pair by pair."""
    if mask.causal and key > query:
        return False
    if mask.sequence_ids is None:
        return True
    ids = mask.sequence_ids[sample].tolist()
    return ids[query] == ids[key] and ids[query] >= 0


def written_out(attention: Attention, x: Tensor, context: PositionContext) -> Tensor:
    """A in float64, row by row, over the keys that a query sees alone."""
    bare = context._replace(causal=False, sequence_ids=None)
    everything = attention.weights(x, bare).log()
    result = torch.zeros_like(everything)
    for sample, query in itertools.product(range(2), range(x.shape[1])):
        keys = [key for key in range(x.shape[1]) if sees(context, sample, query, key)]
        if keys:
            logits = everything[sample, :, query, keys]
            result[sample, :, query, keys] = logits.softmax(-1)
    return result


@pytest.mark.parametrize("spec", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masked_attention_is_the_softmax_over_what_is_seen(spec, mask):
    attention = randomised(spec).blocks[0].attention
    x = tokens(spec)
    context = within(spec, x, mask)
    expected = written_out(attention, x, context)
    weights = attention.weights(x, context)
    assert (weights - expected).abs().max() < 1e-12
    _, _, v = attention.project(x, context)
    mixed = attention.out((expected @ v).transpose(1, 2).flatten(2))
    fused = attention(x, context)
    assert (fused - mixed).abs().max() < 1e-12
    kept = []
    assert (attention(x, context, kept) - mixed).abs().max() < 1e-12
    assert torch.equal(kept[0], weights)
    for dtype, most in ((torch.float32, 1e-6), (torch.bfloat16, 0.05)):
        cast = randomised(spec).blocks[0].attention.to(dtype)
        places = within(spec, x.to(dtype), mask)
        error = cast(x.to(dtype), places).double() - mixed
        assert error.norm() / mixed.norm() < most, dtype
        assert (cast.weights(x.to(dtype), places) - expected).abs().max() < most


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_kernel_and_the_matrices_agree_with_their_gradients(mask, dtype, monkeypatch):
    results = []
    for fused in (True, False):
        monkeypatch.setattr("vitral.model.layers.fuses", lambda *_, fused=fused, **__: fused)
        attention = randomised(SPEC).blocks[0].attention.to(dtype)
        x = tokens().to(dtype).requires_grad_()
        out = attention(x, mask)
        out[:, ::2].square().sum().backward()
        results.append([out, x.grad, attention.qkv.weight.grad])
    for one, other in zip(*results, strict=True):
        error = (one - other).norm() / other.norm()
        assert error < (0.05 if dtype == torch.bfloat16 else 1e-5)


def test_causal_alone_needs_no_matrix(monkeypatch):
    seen = []
    kernel = F.scaled_dot_product_attention

    def watched(*args, **kwargs):
        seen.append((args[3], kwargs))
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    q = torch.randn(2, 4, 7, 8)
    attend(q, q, q, context=PositionContext(causal=True))
    assert seen == [(None, {"is_causal": True})]


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("spec", KINDS, ids=range(len(KINDS)))
def test_rubbish_in_padding_changes_nothing(spec, rubbish, causal):
    """Neither what the other tokens become, nor any gradient; padding itself becomes no NaN."""
    mask = PositionContext(causal=causal, sequence_ids=BOTH)
    padding = BOTH < 0
    results = []
    for value in (0.0, rubbish):
        block = randomised(replace(spec, layer_scale=0.5)).blocks[0]
        x = tokens(spec).masked_fill(padding[..., None], value).requires_grad_()
        out = block(x, within(spec, x, mask))
        assert out.isfinite().all()
        out[~padding].square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in block.parameters())])
    for clean, dirty in zip(*results, strict=True):
        assert dirty.isfinite().all() and torch.equal(clean, dirty)
    assert not results[0][1][padding].any()  # nothing comes from there


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_padding_alone_is_zero(dtype):
    ids = torch.tensor([[0] * 7, [-1] * 7])
    mask = PositionContext(sequence_ids=ids)
    attention = randomised(SPEC).blocks[0].attention.to(dtype)
    x = tokens().to(dtype).requires_grad_()
    out = attention(x, mask)
    assert torch.equal(out[1], attention.out.bias.expand(7, -1))
    assert not attention.weights(x, mask)[1].any()
    out.square().sum().backward()
    assert x.grad.isfinite().all() and not x.grad[1].any()
    assert attention.qkv.weight.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_are_each_as_alone(causal, dtype, most):
    """Through whole blocks, outputs and gradients."""
    torch.manual_seed(0)
    lengths = [3, 5, 2, 6]
    ids = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    blocks = build(tiny(depth=3)).to(dtype).blocks
    parts = [torch.randn(1, length, 32, dtype=dtype) for length in lengths]
    packed = torch.cat(parts, dim=1).requires_grad_()
    x = packed
    for block in blocks:
        x = block(x, PositionContext(causal=causal, sequence_ids=ids))
    x.square().sum().backward()
    for part, out, slope in zip(
        parts, x.split(lengths, 1), packed.grad.split(lengths, 1), strict=True
    ):
        alone = part.clone().requires_grad_()
        y = alone
        for block in blocks:
            y = block(y, PositionContext(causal=causal) if causal else None)
        y.square().sum().backward()
        assert (out - y).norm() / y.norm() < most
        assert (slope - alone.grad).norm() / alone.grad.norm() < most


def test_a_padded_batch_is_each_as_alone():
    lengths = [4, 7, 1]
    ids = torch.where(torch.arange(7) < torch.tensor(lengths)[:, None], 0, -1)
    block = randomised(SPEC).blocks[0]
    x = torch.randn(3, 7, 32, dtype=torch.float64)
    out = block(x, PositionContext(sequence_ids=ids))
    for row, length in enumerate(lengths):
        alone = block(x[row : row + 1, :length])
        assert (out[row : row + 1, :length] - alone).abs().max() < 1e-12


def test_no_token_learns_from_a_later_one():
    block = randomised(tiny(depth=1)).blocks[0]
    x = tokens().requires_grad_()
    out = block(x, PositionContext(causal=True))
    (slope,) = torch.autograd.grad(out[:, 3].sum(), x)
    assert slope[:, :4].abs().min() > 0 and not slope[:, 4:].any()


def test_dropout_of_masked_attention_drops_what_is_seen():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, 4, 64, 16)
    each = torch.eye(64).expand(8, 4, -1, -1)  # what comes back are the weights
    dropped = attend(q, k, each, context=PositionContext(causal=True), dropout=0.25)
    whole = attend(q, k, each, context=PositionContext(causal=True))
    earlier = torch.ones(64, 64).tril().bool()
    assert not dropped[..., ~earlier].any() and whole[..., earlier].min() > 0
    gone = (dropped == 0)[..., earlier].float().mean().item()
    assert gone == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_masked_block_is_one_graph(mask):
    torch.compiler.reset()
    block = randomised(SPEC).blocks[0]
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    assert (compiled(tokens(), mask) - block(tokens(), mask)).abs().max() < 1e-12


def test_a_selection_of_tokens_takes_its_mask_along():
    x = tokens()
    chosen = torch.tensor([[0, 2, 3, 6], [0, 1, 4, 5]])
    context = PositionContext(sequence_ids=BOTH).select(chosen, 1)
    assert context.sequence_ids.tolist() == [[0, 1, 1, -1], [-1, 0, -1, 2]]
    attention = randomised(SPEC).blocks[0].attention
    some = x.gather(1, chosen[:, :, None].expand(-1, -1, 32))
    alone = attention(some, context)
    lonely = attention.out(attention.project(x)[2][1, :, 1].flatten())  # token 1 sees itself alone
    assert (alone[1, 1] - lonely).abs().max() < 1e-12
