"""Before any label: the colours of hidden patches (appendix B.1.2 of arXiv:2010.11929).

    vitral train PICTURES/ --recipe masked-patches --out start
    vitral train PHOTOS/ --from start

PICTURES/ needs no class folders. Source: the paper's shares of masked, swapped and unchanged
patches; crop, flip and AdamW's moments are MAE's (arXiv:2111.06377); the rest is our own, for few
images. The paper: B/16 on JFT, then 79.9 % on ImageNet, 2 points above learning from scratch.
Result: see docs/recipes.md.
"""

import math

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, MaskedPatches, Optimizer, Recipe, Schedule, epochs


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """Half a million views in 50 to 400 epochs; 8 x 8 patches of pictures below 224 pixels."""
    side = max(side for side in (32, 64, 128, 224) if side <= max(32, *size))
    name = f"Ti/{min(16, side // 8)}"
    batch = 8 * 2 ** min(3, int(math.log2(max(1, count / 80))))
    long = min(400, max(50, round(500_000 / count)))
    return Recipe(
        model=catalog.model(name, size=side, classes=0, pool="mean", positions="sincos2d"),
        images=ImageSpec(size=(side, side)),
        data=Data(batch=batch),
        augment=Augment(crop_scale=(0.2, 1.0)),
        optimizer=Optimizer(lr=1e-3 * math.sqrt(batch / 64), beta2=0.95, weight_decay=0.05),
        schedule=Schedule(warmup=epochs(long / 20)),
        objective=MaskedPatches(),
        length=epochs(long),
        evaluate_every=epochs(max(1, long // 20)),
        select="last",
    )


recipe = rule(10_000, (64, 64))
