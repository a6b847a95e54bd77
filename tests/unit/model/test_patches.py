import torch
from torch.nn import functional as F

from vitral.model.patches import resample_patches


@torch.no_grad()
def test_the_enlarged_patch_of_an_enlarged_image_has_the_same_token() -> None:
    """FlexiViT, section 3.4."""
    kernel = torch.randn(7, 3, 8, 8, dtype=torch.float64)
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    larger = F.interpolate(image, (16, 16), mode="bilinear")
    token = F.conv2d(image, kernel)
    assert torch.allclose(F.conv2d(larger, resample_patches(kernel, (16, 16))), token)
    assert resample_patches(kernel, (8, 8)) is kernel


def test_a_resampled_kernel_carries_gradients() -> None:
    kernel = torch.randn(7, 3, 8, 8, requires_grad=True)
    resample_patches(kernel, (4, 16)).square().sum().backward()
    assert kernel.grad is not None and kernel.grad.abs().sum() > 0
