"""The parts of a block: attention (appendix A), MLP, and the residual branches (eq. 2 and 3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.errors import ModelError
from vitral.model.positions import PositionContext, rotate
from vitral.specs import Dropouts, ModelSpec

LONGEST, LONGEST_AT_ONCE = 1024, 256  # tokens whose attention is written out: to learn, or not


class StepSamples(NamedTuple):
    """Which samples of an optimizer step a batch holds.

    Drop path and patch dropout are drawn for all `total` samples of the step, and each batch takes
    the numbers at `own`, (B,): so they do not depend on how many micro-batches or processes the
    step is cut into. Without it a batch is a step of its own.
    """

    own: Tensor
    total: int


class Attention(nn.Module):
    """Multi-head attention: [q, k, v] = z U_qkv, A = softmax(q k^T / sqrt(D_h)), A v U_msa."""

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, *, pooling: bool = False) -> None:
        super().__init__()
        self.heads, self.inner = spec.heads, spec.attention_width
        head_width = self.inner // self.heads
        self.scale, self.dropout = head_width**-0.5, dropouts.attention_dropout
        self.qkv = nn.Linear(spec.width, 3 * self.inner, bias=spec.biases == "all")
        out = nn.Linear(self.inner, spec.width, bias=spec.biases in ("all", "no_qkv"))
        self.out = out if spec.out_projection else nn.Identity()
        self.turns = spec.positions == "rope2d" and not pooling
        self.q_norm = self.k_norm = self.relative = None
        if spec.qk_norm and not pooling:
            self.q_norm = nn.LayerNorm(head_width, eps=spec.norm_eps)
            self.k_norm = nn.LayerNorm(head_width, eps=spec.norm_eps)
        if spec.positions == "relative" and not pooling:
            positions = spec.position_prefix + spec.grid[0] * spec.grid[1]
            self.relative = nn.Parameter(torch.empty(2 * positions - 1, head_width))

    def forward(
        self,
        x: Tensor,
        context: PositionContext | None = None,
        attention_out: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, T, width) to the same; the softmax it goes through is appended to `attention_out`."""
        q, k, v = self.project(x, context)
        if attention_out is not None:  # a fused kernel has no softmax to differentiate by
            attention_out.append(self._softmax(q, k, context))
            return self.out((attention_out[-1].to(v.dtype) @ v).transpose(1, 2).flatten(2))
        dropout = self.dropout if self.training else 0.0
        mixed = attended(q, k, v, self._relative(q, context), dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))  # b h t d -> b t (h d)

    def weights(self, x: Tensor, context: PositionContext | None = None) -> Tensor:
        """The softmax inside `forward`, (B, heads, T, T), row = query; in float32 or better.

        Rows sum to 1; weights @ v, the heads joined, through `out` is forward(x). x is normed.
        Rotated and relative positions need `position_context(spec, grid, tokens)`.
        """
        q, k, _ = self.project(x, context)
        return self._softmax(q, k, context)

    def _softmax(self, q: Tensor, k: Tensor, context: PositionContext | None) -> Tensor:
        relative, precise = self._relative(q, context), torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):  # as the fused kernels accumulate
            logits = (q.to(precise) * self.scale) @ k.to(precise).mT
        return (logits if relative is None else logits + relative).softmax(-1)

    def project(
        self, x: Tensor, context: PositionContext | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as they meet, (B, heads, T, head_width) each."""
        parts = self.qkv(x).chunk(3, dim=-1)  # each b t (h d) -> b h t d
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.turns:
            if context is None or context.cos_sin is None:
                raise ModelError(
                    "Rotated attention needs position_context(spec, grid, tokens) of its tokens."
                )
            q, k = rotate(q, context.cos_sin), rotate(k, context.cos_sin)
        return q, k, v

    def _relative(self, q: Tensor, context: PositionContext | None) -> Tensor | None:
        """Content query times the key of each offset (appendix D.4), scaled as content logits are.

        Where the paper is silent, as Shaw et al. 2018: one table per block for all its heads.
        """
        if self.relative is None:
            return None
        if context is None or context.relative_index is None:
            raise ModelError(
                "Relative attention needs position_context(spec, grid, tokens) with the tokens."
            )
        offsets = context.relative_index.clamp(min=0).expand(*q.shape[:2], -1, -1)
        logits = (q @ self.relative.T * self.scale).gather(-1, offsets)
        return logits.masked_fill(context.relative_index < 0, 0)


class Mlp(nn.Module):
    """Dense, GELU, dense."""

    def __init__(self, spec: ModelSpec, dropouts: Dropouts) -> None:
        super().__init__()
        self.gelu, self.dropout = "tanh" if spec.gelu == "tanh" else "none", dropouts.dropout
        self.fc1 = nn.Linear(spec.width, spec.mlp_width, bias=spec.biases != "none")
        self.fc2 = nn.Linear(spec.mlp_width, spec.width, bias=spec.biases != "none")

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        x = F.gelu(self.fc1(x), approximate=self.gelu)
        return self.fc2(dropped(x, self.dropout, self.training))


class Block(nn.Module):
    """z' = MSA(LN(z)) + z, then MLP(LN(z')) + z' (equations 2 and 3)."""

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, index: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.attention = Attention(spec, dropouts)
        self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec, dropouts)
        scaled = spec.layer_scale is not None
        self.scale1 = nn.Parameter(torch.empty(spec.width)) if scaled else None
        self.scale2 = nn.Parameter(torch.empty(spec.width)) if scaled else None
        self.dropout, self.drop_path = dropouts.dropout, dropouts.drop_path_of(index, spec.depth)

    def forward(
        self,
        x: Tensor,
        context: PositionContext | None = None,
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
    ) -> Tensor:
        """(B, T, width) to the same; see `Attention.forward` for `attention_out`."""
        mixed = self.attention(self.norm1(x), context, attention_out)
        x = x + self._branch(mixed, self.scale1, samples)
        return x + self._branch(self.mlp(self.norm2(x)), self.scale2, samples)

    def _branch(self, x: Tensor, scale: Tensor | None, samples: StepSamples | None) -> Tensor:
        x = dropped(x, self.dropout, self.training)
        x = x if scale is None else x * scale
        if self.training and self.drop_path:  # one draw per sample; the kept make up for the rest
            keep = 1 - self.drop_path
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

    def forward(self, x: Tensor, attention_out: list[Tensor] | None = None) -> Tensor:
        """(B, T, width) to (B, width); the probe's softmax, (B, heads, 1, T), is appended."""
        qkv, heads, inner = self.attention.qkv, self.attention.heads, self.attention.inner
        weight = qkv.weight.split([inner, 2 * inner])  # the probe alone asks, the tokens answer
        bias = (None, None) if qkv.bias is None else qkv.bias.split([inner, 2 * inner])
        q = F.linear(self.probe.expand(x.shape[0], -1, -1), weight[0], bias[0])
        k, v = F.linear(x, weight[1], bias[1]).chunk(2, dim=-1)
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        if attention_out is None:
            x = self.attention.out(attended(q, k, v).flatten(1))
        else:
            attention_out.append((q * self.attention.scale @ k.mT).softmax(-1))
            x = self.attention.out((attention_out[-1] @ v).flatten(1))
        return x + self.mlp(self.norm(x))


def fuses(
    device: torch.device, dtype: torch.dtype, tokens: int, *, learns: bool, plain: bool
) -> bool:
    """Whether attention is left to torch's fused kernel, which keeps no (T, T) matrix.

    On CPUs it is slow in bfloat16: with its backward 1.4 (1025 tokens) to 5 times (17 tokens) as
    slow as matrices written out, on an EPYC with avx512_bf16; in float32 it is the faster way.
    Of very many tokens the matrices would take too much memory, 2 MB a head and image at 1024,
    unless a bias or dropout (not `plain`) makes torch write them out anyway, in float32.
    """
    longest = LONGEST if learns else LONGEST_AT_ONCE  # without a backward there is less to win
    return device.type != "cpu" or dtype != torch.bfloat16 or (plain and tokens > longest)


def attended(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(D_h) + bias) v, (B, heads, T, D_h), by the fastest way to it."""
    plain, learns = bias is None and not dropout, torch.is_grad_enabled()
    if fuses(v.device, v.dtype, v.shape[2], learns=learns, plain=plain):
        return F.scaled_dot_product_attention(q, k, v, bias, dropout)
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    weights = (logits if bias is None else logits + bias).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ v


def uniform(x: Tensor, shape: tuple[int, ...], samples: StepSamples | None) -> Tensor:
    """Uniform numbers (B, *shape) for the samples of x, cut from those of all samples of a step."""
    if samples is None:
        return torch.rand(x.shape[0], *shape, device=x.device)
    return torch.rand(samples.total, *shape, device=x.device)[samples.own]


def dropped(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout that costs nothing where there is none."""
    return F.dropout(x, rate) if training and rate else x
