import torch
from networks import pictures, randomised, tiny
from torch.nn import functional as F

from vitral.model.patches import resample_patches


@torch.no_grad()
def test_norms_stand_before_and_after_the_projection() -> None:
    """Patch by patch, cut by hand: LayerNorm of its values, the linear map, LayerNorm."""
    spec = tiny(patch=(8, 16), patch_norms=True, norm_eps=1e-5)
    network, images = randomised(spec), pictures(spec)
    projection = network.patches
    maps = projection(images)
    assert maps.shape == (2, 32, 4, 3)
    for row in range(4):
        for column in range(3):
            patch = images[:, :, 8 * row : 8 * row + 8, 16 * column : 16 * column + 16].flatten(1)
            normed = projection.norm1(patch)
            assert normed.shape == (2, 3 * 8 * 16)
            token = projection.norm2(normed @ projection.weight.flatten(1).T + projection.bias)
            assert (maps[:, :, row, column] - token).abs().max() < 1e-12
    shifted = network(images * 3 + 1)  # the first norm takes the level and contrast of a patch away
    assert projection.norm1.eps == 1e-5 and (shifted - network(images)).abs().max() < 1e-4


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
