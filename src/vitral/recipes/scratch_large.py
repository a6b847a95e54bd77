"""Training from scratch on 50,000 to 2 million images, with a GPU: better plain ViT-S/16, fitted.

    vitral train PHOTOS/ --recipe scratch-large

Source: Beyer et al. 2022 (arXiv:2205.01580), recipe s16-i1k-90; the fit is our own: as many views
as there (90 epochs of ImageNet), in 90 to 300 epochs; a warm-up of 1/11 of the run; of smaller
pictures, 8 x 8 patches. On the images of ImageNet it is s16-i1k-90.
Result: 76.5 % on ImageNet; elsewhere not measured.
"""

from dataclasses import replace

from vitral import catalog
from vitral.recipes.s16_i1k_90 import recipe
from vitral.specs import ImageSpec
from vitral.training.recipe import Recipe, epochs, steps

VIEWS = 90 * 1_281_167


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """The recipe for `count` training images of about `size` (height, width) in pixels."""
    side = max(side for side in (32, 64, 128, 224) if side <= max(32, *size))
    patch = min(16, side // 8)
    name = f"S/{patch}"
    model = catalog.model(
        name, size=side, pool="mean", positions="sincos2d", representation=recipe.model.width
    )
    long = min(300, max(90, round(VIEWS / count)))
    warmup = min(10_000, max(1, count // recipe.data.batch) * long // 11)
    images = recipe.images if side == 224 else ImageSpec(size=(side, side))
    return replace(
        recipe,
        model=model,
        images=images,
        schedule=replace(recipe.schedule, warmup=steps(warmup)),
        length=epochs(long),
    )
