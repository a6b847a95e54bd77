"""The paper as it is written: equations 1 to 4 and appendix A, with torch.nn.functional alone.

The readable oracle of `ViT`: `logits(spec, weights, images)` takes ViT's own state dict and gives
its logits. It covers every size, patch, head width, GELU, epsilon and choice of biases, positions
"learned" or "none" at the stem, pooling "cls" or "mean", registers, layer scale and the tanh layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, softmax

from vitral.errors import ModelError
from vitral.specs import ModelSpec

Weights = Mapping[str, Tensor]


def logits(spec: ModelSpec, w: Weights, images: Tensor) -> Tensor:
    """Return logits (B, classes) of images (B, C, H, W)."""
    plain = spec.positions in ("none", "learned") and spec.positions_at == "stem"
    plain = plain and spec.out_projection and not spec.patch_norms
    plain = plain and spec.pool in ("cls", "mean") and spec.pool_blocks == 1
    if not plain or spec.resnet or spec.qk_norm or spec.distillation_token:
        raise ModelError(f"The equations do not cover {spec.name} with these choices.")
    z = z_0(spec, w, images)
    for i in range(spec.depth):
        z = msa(spec, w, f"blocks.{i}.", LN(spec, w, f"blocks.{i}.norm1", z)) + z  # (2)
        z = mlp(spec, w, f"blocks.{i}.", LN(spec, w, f"blocks.{i}.norm2", z)) + z  # (3)
    if spec.pool == "cls":
        y = LN(spec, w, "norm", z[:, 0])  # (4)
    elif spec.pool_norm == "before":
        y = LN(spec, w, "norm", z)[:, spec.prefix :].mean(1)
    else:
        y = LN(spec, w, "norm", z[:, spec.prefix :].mean(1))
    y = torch.tanh(dense(w, "pre_logits", y)) if spec.representation else y
    return dense(w, "head", y) if spec.classes else y


def z_0(spec: ModelSpec, w: Weights, images: Tensor) -> Tensor:
    """(1) z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos; registers follow the class token."""
    E = w["patches.weight"].permute(2, 3, 1, 0).flatten(0, 2)  # d c p q -> (p q c) d
    patches = x_p(spec, images) @ E + w["patches.bias"]
    before = [w[name].expand(len(images), -1, -1) for name in ("cls", "registers") if name in w]
    z = torch.cat([*before, patches], dim=1)
    if spec.positions == "none":
        return z
    first, rest = w["positions.table"][0].tensor_split([spec.position_prefix])
    without = rest.new_zeros(spec.prefix - len(first), spec.width)
    return z + torch.cat([first, without, rest])  # E_pos


def x_p(spec: ModelSpec, images: Tensor) -> Tensor:
    """Patches as rows, (B, N, P^2 C): cut by reshaping, the channels of a pixel together."""
    p, q = spec.patch
    rows, columns = spec.grid
    x = images.unflatten(3, (columns, q)).unflatten(2, (rows, p))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # b c r p k q -> b (r k) (p q c)


def x_p_E_by_convolution(spec: ModelSpec, w: Weights, images: Tensor) -> Tensor:
    """The same x_p E, as a convolution whose stride is its kernel: both embeddings are one."""
    maps = conv2d(images, w["patches.weight"], w["patches.bias"], stride=spec.patch)
    return maps.flatten(2).transpose(1, 2)  # b d r k -> b (r k) d


def msa(spec: ModelSpec, w: Weights, block: str, z: Tensor) -> Tensor:
    """(8) MSA(z) = [SA_1(z); ...; SA_k(z)] U_msa."""
    qkv = dense(w, f"{block}attention.qkv", z).chunk(3, dim=-1)  # (5) [q, k, v] = z U_qkv
    heads = zip(*(part.chunk(spec.heads, dim=-1) for part in qkv), strict=True)
    joined = torch.cat([sa(q, k, v) for q, k, v in heads], dim=-1)
    return dense(w, f"{block}attention.out", joined) * w.get(f"{block}scale1", 1)


def sa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(6) A = softmax(q k^T / sqrt(D_h)) and (7) SA(z) = A v, of one head."""
    A = softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
    return A @ v


def mlp(spec: ModelSpec, w: Weights, block: str, z: Tensor) -> Tensor:
    """Two dense layers with a GELU between them."""
    h = dense(w, f"{block}mlp.fc1", z)
    h = gelu(h, approximate="tanh" if spec.gelu == "tanh" else "none")
    return dense(w, f"{block}mlp.fc2", h) * w.get(f"{block}scale2", 1)


def LN(spec: ModelSpec, w: Weights, name: str, z: Tensor) -> Tensor:
    """Layer norm over the width."""
    return layer_norm(z, (spec.width,), w[f"{name}.weight"], w[f"{name}.bias"], spec.norm_eps)


def dense(w: Weights, name: str, x: Tensor) -> Tensor:
    """A linear map, with a bias where there is one."""
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))
