"""The projection of patches (E of equation 1), and its kernel for another size of patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.specs import ModelSpec


class PatchProjection(nn.Conv2d):
    """A linear map of every patch, as a convolution whose stride is its kernel.

    With `spec.patch_norms`, norm1 stands before it, over all values of a patch in the order of the
    kernel (channel, row, column), and norm2 after it.
    """

    def __init__(self, spec: ModelSpec, channels: int) -> None:
        super().__init__(channels, spec.width, spec.patch, spec.patch)
        self.norm1 = self.norm2 = None
        if spec.patch_norms:
            values = channels * spec.patch[0] * spec.patch[1]
            self.norm1 = nn.LayerNorm(values, eps=spec.norm_eps)
            self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, width, rows, columns) of maps (B, channels, H, W)."""
        if self.norm1 is None or self.norm2 is None:
            return super().forward(maps)
        patch = (self.weight.shape[2], self.weight.shape[3])
        grid = (maps.shape[2] // patch[0], maps.shape[3] // patch[1])
        patches = self.norm1(F.unfold(maps, patch, stride=patch).mT)  # b (c p q) n -> b n (c p q)
        tokens = self.norm2(F.linear(patches, self.weight.flatten(1), self.bias))
        return tokens.mT.unflatten(2, grid)


def resample_patches(kernel: Tensor, patch: tuple[int, int]) -> Tensor:
    """Resize patch kernels (width, channels, height, width): FlexiViT's PI-resize, equation 2.

    Of all kernels of the new size, these are the ones whose products with bilinearly resized
    patches are nearest to the old kernels' products with the patches themselves: w' = (B^T)^+ w.
    """
    old = (kernel.shape[2], kernel.shape[3])
    if old == patch:
        return kernel
    basis = torch.eye(old[0] * old[1], dtype=torch.float64, device=kernel.device)
    basis = basis.unflatten(1, old)[:, None]
    resize = F.interpolate(basis, patch, mode="bilinear").flatten(1).T  # B: old pixels to new ones
    moved = kernel.double().flatten(2) @ torch.linalg.pinv(resize)  # row vectors: w (B)^+
    return moved.unflatten(2, patch).to(kernel.dtype)
