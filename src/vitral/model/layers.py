"""The parts of a block: attention (appendix A), MLP, and the residual branches (eq. 2 and 3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.model.merging import Merging
from vitral.model.positions import (
    PositionContext,
    attention_bias,
    relative_table,
    rotate_queries_and_keys,
)
from vitral.specs import Dropouts, ModelSpec

# the most tokens for which a CPU writes out attention in bfloat16: in training, and otherwise
LONGEST_LEARNING = 1024
LONGEST_ANSWERING = 256


class StepSamples(NamedTuple):
    """The samples of an optimizer step that a batch holds.

    Drop path and patch dropout are drawn for all `total` samples of the step, and each batch takes
    the numbers at `indices`, (B,): so they do not depend on how many micro-batches or processes the
    step is cut into. Without it a batch is a step of its own.
    """

    indices: Tensor
    total: int


class Attention(nn.Module):
    """Multi-head attention: [q, k, v] = z U_qkv, A = softmax(q k^T / sqrt(D_h)), A v U_msa.

    A context may say which keys a query sees (see `PositionContext`). A token of padding sees
    none: its row of A is zero, and whatever values it holds reach no other token.
    """

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, *, pooling: bool = False) -> None:
        super().__init__()
        head_width = spec.attention_width // spec.heads
        self.heads = spec.heads
        self.width = spec.attention_width
        # a sum of D_h products of unit variance has variance D_h; the softmax wants it near 1
        self.scale = head_width**-0.5
        self.dropout = dropouts.attention_dropout
        self.positions = "none" if pooling else spec.positions
        self.qkv = nn.Linear(spec.width, 3 * self.width, bias=spec.biases == "all")
        out = nn.Linear(self.width, spec.width, bias=spec.biases in ("all", "no_qkv"))
        self.out = out if spec.out_projection else nn.Identity()
        normed = spec.qk_norm and not pooling
        self.q_norm = nn.LayerNorm(head_width, eps=spec.norm_eps) if normed else None
        self.k_norm = nn.LayerNorm(head_width, eps=spec.norm_eps) if normed else None
        self.relative = None if pooling else relative_table(spec)

    def forward(
        self,
        x: Tensor,
        context: PositionContext | None = None,
        attention_out: list[Tensor] | None = None,
    ) -> Tensor:
        """Return what (B, T, width) tokens gather from one another, of the same shape.

        With `attention_out`, the softmax that the tokens go through is appended to it.
        """
        return self.with_keys(x, context, attention_out)[0]

    def with_keys(
        self,
        x: Tensor,
        context: PositionContext | None = None,
        attention_out: list[Tensor] | None = None,
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return `forward`, and the keys (B, heads, T, head_width), which token merging goes by.

        `key_bias` (B, 1, 1, T) is added to every query's logits.
        """
        q, k, v = self.project(x, context)
        if attention_out is not None:  # a fused kernel keeps no softmax to differentiate by
            weights = self.softmax(q, k, context)
            attention_out.append(weights)
            mixed = weights.to(v.dtype) @ v
        else:
            dropout = self.dropout if self.training else 0.0
            bias = self._bias(q, context)
            if key_bias is not None:
                bias = key_bias.to(q.dtype) if bias is None else bias + key_bias
            mixed = attend(q, k, v, bias, context, dropout)
        return self.out(mixed.transpose(1, 2).flatten(2)), k  # b h t d -> b t (h d)

    def weights(self, x: Tensor, context: PositionContext | None = None) -> Tensor:
        """Return the softmax inside `forward`, (B, heads, T, T), row = query, in float32 or better.

        Rows sum to 1, those of padding to 0; weights @ v, the heads joined, through `out` is
        forward(x). x is normed. Rotated and relative positions need
        `position_context(spec, grid, tokens)`.
        """
        q, k, _ = self.project(x, context)
        return self.softmax(q, k, context)

    def project(
        self, x: Tensor, context: PositionContext | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values as they meet, (B, heads, T, head_width) each."""
        # one product for q, k and v of all heads, then each b t (h d) -> b h t d
        parts = self.qkv(without_padding(x, context)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            q = self.q_norm(q)
            k = self.k_norm(k)
        q, k = rotate_queries_and_keys(self.positions, q, k, context)
        return q, k, v

    def softmax(self, q: Tensor, k: Tensor, context: PositionContext | None) -> Tensor:
        """Return A of queries and keys, (B, heads, T, T), in float32 or better."""
        bias = self._bias(q, context)
        precise = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):  # as the fused kernels accumulate
            logits = (q.to(precise) * self.scale) @ k.to(precise).mT
        return masked_softmax(logits, bias, context)

    def _bias(self, q: Tensor, context: PositionContext | None) -> Tensor | None:
        return attention_bias(self.positions, self.relative, q, self.scale, context)


class Mlp(nn.Module):
    """Two dense layers with a GELU between them."""

    def __init__(self, spec: ModelSpec, dropouts: Dropouts) -> None:
        super().__init__()
        self.gelu = "tanh" if spec.gelu == "tanh" else "none"
        self.dropout = dropouts.dropout
        self.fc1 = nn.Linear(spec.width, spec.mlp_width, bias=spec.biases != "none")
        self.fc2 = nn.Linear(spec.mlp_width, spec.width, bias=spec.biases != "none")

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., width) of (..., width)."""
        x = F.gelu(self.fc1(x), approximate=self.gelu)
        return self.fc2(drop(x, self.dropout, self.training))


class Block(nn.Module):
    """A transformer block: z' = MSA(LN(z)) + z, then MLP(LN(z')) + z' (equations 2 and 3)."""

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, index: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.attention = Attention(spec, dropouts)
        self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec, dropouts)
        scaled = spec.layer_scale is not None
        self.scale1 = nn.Parameter(torch.empty(spec.width)) if scaled else None
        self.scale2 = nn.Parameter(torch.empty(spec.width)) if scaled else None
        self.dropout = dropouts.dropout
        self.drop_path = dropouts.drop_path_of(index, spec.depth)

    def forward(
        self,
        x: Tensor,
        context: PositionContext | None = None,
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
        merging: Merging | None = None,
    ) -> Tensor:
        """Return the tokens (B, T, width) that leave the block; arguments as in `Attention`.

        With `merging`, fewer tokens than came in.
        """
        # Pre-norm: the branches read normed tokens, the residual stream x itself is never normed
        # before the end. Padding is cleared here too, for the gradients of the norms and the MLP.
        x = without_padding(x, context)
        if merging is None:
            # what attention gives has no name, which would hold it while the MLP computes
            x = x + self._branch(
                self.attention(self.norm1(x), context, attention_out), self.scale1, samples
            )
        else:
            bias = merging.key_bias()
            mixed, keys = self.attention.with_keys(self.norm1(x), context, attention_out, bias)
            x = merging.merge(x + self._branch(mixed, self.scale1, samples), keys)
        return x + self._branch(self.mlp(self.norm2(x)), self.scale2, samples)

    def _branch(self, x: Tensor, scale: Tensor | None, samples: StepSamples | None) -> Tensor:
        x = drop(x, self.dropout, self.training)
        x = x if scale is None else x * scale
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            # one number per sample; the branches that stay make up for those that are dropped
            x = x * (uniform(x, (1, 1), samples) < keep).to(x.dtype).div_(keep)
        return x


class AttentionPool(nn.Module):
    """big_vision's MAP head: a learned probe attends over the tokens, then x + MLP(LN(x))."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, spec.width))
        self.attention = Attention(spec, Dropouts(), pooling=True)
        self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec, Dropouts())

    def forward(
        self,
        x: Tensor,
        attention_out: list[Tensor] | None = None,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """Return (B, width) of tokens (B, T, width); the softmax is (B, heads, 1, T).

        `key_bias` (B, 1, 1, T) is added to the probe's logits.
        """
        attention = self.attention
        widths = [attention.width, 2 * attention.width]
        weight = attention.qkv.weight.split(widths)  # the probe alone asks, the tokens answer
        bias = (None, None) if attention.qkv.bias is None else attention.qkv.bias.split(widths)
        q = F.linear(self.probe.expand(x.shape[0], -1, -1), weight[0], bias[0])
        k, v = F.linear(x, weight[1], bias[1]).chunk(2, dim=-1)
        q, k, v = (part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if attention_out is None:
            mixed = attend(q, k, v, None if key_bias is None else key_bias.to(q.dtype))
        else:
            attention_out.append((q * attention.scale @ k.mT).softmax(-1))
            mixed = attention_out[-1] @ v
        x = attention.out(mixed.flatten(1))
        return x + self.mlp(self.norm(x))


def fuses(
    device: torch.device, dtype: torch.dtype, tokens: int, *, learns: bool, plain: bool
) -> bool:
    """Say whether attention is left to torch's fused kernel, which keeps no (T, T) matrix.

    On CPUs it is slow in bfloat16: with its backward 1.4 (1025 tokens) to 5 times (17 tokens) as
    slow as matrices written out, on an EPYC with avx512_bf16; in float32 it is the faster way.
    Of very many tokens the matrices would take too much memory, 2 MB a head and image at 1024,
    unless a bias or dropout (not `plain`) makes torch write them out anyway, in float32.
    """
    longest = LONGEST_LEARNING if learns else LONGEST_ANSWERING  # a backward has more to win
    return device.type != "cpu" or dtype != torch.bfloat16 or (plain and tokens > longest)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    context: PositionContext | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return softmax(q k^T / sqrt(D_h) + bias) v, (B, heads, T, D_h), by the fastest way to it."""
    plain = bias is None and not dropout
    if not fuses(v.device, v.dtype, v.shape[2], learns=torch.is_grad_enabled(), plain=plain):
        logits = (q * q.shape[-1] ** -0.5) @ k.mT
        weights = masked_softmax(logits, bias, context)
        return (F.dropout(weights, dropout) if dropout else weights) @ v
    if context is not None and context.causal and bias is None and context.sequence_ids is None:
        return F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True)  # no matrix
    visible = None if context is None else context.visible(q)
    mask = visible if bias is None else bias
    if bias is not None and visible is not None:
        mask = bias.masked_fill(~visible, -torch.inf)
    mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
    return without_padding(mixed, context)


def masked_softmax(logits: Tensor, bias: Tensor | None, context: PositionContext | None) -> Tensor:
    """Return A of logits (B, heads, T, T): 0 for what a query does not see, and in rows of padding.

    This is the definition that the fused kernels are held to.
    """
    logits = logits if bias is None else logits + bias
    visible = None if context is None else context.visible(logits)
    if visible is not None:
        logits = logits.masked_fill(~visible, -torch.inf)
    return without_padding(logits.softmax(-1), context)


def without_padding(x: Tensor, context: PositionContext | None) -> Tensor:
    """Return (B, ..., T, D) with zeros in the place of padding: 0 times NaN would be NaN."""
    if context is None or context.sequence_ids is None:
        return x
    padding = context.sequence_ids < 0
    between = [1] * (x.ndim - 3)
    return x.masked_fill(padding.view(len(padding), *between, -1, 1), 0)


def uniform(x: Tensor, shape: tuple[int, ...], samples: StepSamples | None) -> Tensor:
    """Return uniform numbers (B, *shape) for the samples of x, cut from those of a whole step."""
    if samples is None:
        return torch.rand(x.shape[0], *shape, device=x.device)
    return torch.rand(samples.total, *shape, device=x.device)[samples.indices]


def drop(x: Tensor, rate: float, training: bool) -> Tensor:
    """Return x after dropout, which costs nothing where there is none."""
    return F.dropout(x, rate) if training and rate else x
