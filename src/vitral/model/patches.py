"""Patch kernels for another patch size (FlexiViT, Beyer et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
