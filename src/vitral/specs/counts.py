"""Parameters and floating-point operations of a ModelSpec by arithmetic, without torch."""

from __future__ import annotations

from vitral.specs.fields import pair
from vitral.specs.model import ModelSpec


def parameters(spec: ModelSpec) -> int:
    """Count the learned values of the model that a spec describes."""
    resnet = spec.resnet.parameters(spec.channels) if spec.resnet else 0
    if spec.is_resnet:
        return resnet + _linear(spec.width, spec.classes)
    inputs = spec.resnet.outputs if spec.resnet else spec.channels
    patch = inputs * spec.patch[0] * spec.patch[1]
    patches = _linear(patch, spec.width) + spec.patch_norms * 2 * (patch + spec.width)
    tokens = spec.prefix * spec.width
    blocks = spec.depth * _block(spec)
    return resnet + patches + tokens + _positions(spec) + blocks + 2 * spec.width + _head(spec)


def flops(spec: ModelSpec, size: int | tuple[int, int] | None = None) -> int:
    """Count floating-point operations of one image's forward pass: two per multiplication.

    Counted as torch's FlopCounterMode counts them: matrix products, convolutions and attention;
    norms, activations and additions are left out. The size is the spec's unless given. (torch 2.13
    does not count its fused attention kernel on the CPU; on the meta device or with
    SDPBackend.MATH the two agree.)
    """
    size = spec.size if size is None else pair("size", size)
    rows, columns = spec.grid_at(size)
    total = spec.resnet.flops(spec.channels, size) if spec.resnet else 0
    if not spec.is_resnet:
        inputs = spec.resnet.outputs if spec.resnet else spec.channels
        patches = rows * columns
        tokens = patches + spec.prefix
        total += 2 * patches * inputs * spec.patch[0] * spec.patch[1] * spec.width
        total += spec.depth * _block_flops(spec, tokens, patches)
        if spec.pool == "map":
            total += _attention_flops(spec, queries=1, keys=tokens) + _mlp_flops(spec, 1)
        if spec.representation:
            total += 2 * spec.pooled_width * spec.representation
    heads = 1 + spec.distillation_token
    return total + heads * 2 * (spec.representation or spec.pooled_width) * spec.classes


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return outputs * (inputs + bias)


def _attention(spec: ModelSpec) -> int:
    inner = spec.attention_width
    normed = 4 * (inner // spec.heads) if spec.qk_norm else 0
    total = 3 * _linear(spec.width, inner, spec.biases == "all") + normed
    if spec.out_projection:
        total += _linear(inner, spec.width, spec.biases in ("all", "no_qkv"))
    return total


def _mlp(spec: ModelSpec) -> int:
    bias = spec.biases != "none"
    return _linear(spec.width, spec.mlp_width, bias) + _linear(spec.mlp_width, spec.width, bias)


def _block(spec: ModelSpec) -> int:
    norms = 4 * spec.width
    scales = 2 * spec.width if spec.layer_scale is not None else 0
    return norms + _attention(spec) + _mlp(spec) + scales


def _positions(spec: ModelSpec) -> int:
    rows, columns = spec.grid
    positions = rows * columns + spec.position_prefix
    tables = spec.depth if spec.positions_at == "every" else 1
    match spec.positions:
        case "none" | "sincos2d" | "sincos2d_mae" | "rope2d":
            return 0
        case "learned":
            return tables * positions * spec.width
        case "learned2d":
            both = (rows + columns) * (spec.width // 2)
            return tables * (both + spec.position_prefix * spec.width)
        case "relative":
            return spec.depth * (2 * positions - 1) * (spec.attention_width // spec.heads)
        case _:
            raise AssertionError(spec.positions)


def _head(spec: ModelSpec) -> int:
    total = _linear(spec.pooled_width, spec.representation) if spec.representation else 0
    if spec.pool == "map":  # a probe, attention, norm and MLP of their own
        normed = 4 * (spec.attention_width // spec.heads) if spec.qk_norm else 0
        total += spec.width + _attention(spec) - normed + 2 * spec.width + _mlp(spec)
    heads = 1 + spec.distillation_token
    return total + heads * _linear(spec.representation or spec.pooled_width, spec.classes)


def _attention_flops(spec: ModelSpec, queries: int, keys: int) -> int:
    inner = spec.attention_width
    of_queries = 1 + spec.out_projection  # the maps of queries and of what comes out
    projections = spec.width * inner * (of_queries * queries + 2 * keys)
    return 2 * (projections + 2 * queries * keys * inner)


def _mlp_flops(spec: ModelSpec, tokens: int) -> int:
    return 4 * tokens * spec.width * spec.mlp_width


def _block_flops(spec: ModelSpec, tokens: int, patches: int) -> int:
    total = _attention_flops(spec, tokens, tokens) + _mlp_flops(spec, tokens)
    if spec.positions == "relative":  # every query with the key of every offset
        offsets = 2 * (patches + spec.position_prefix) - 1
        total += 2 * tokens * offsets * spec.attention_width
    return total
