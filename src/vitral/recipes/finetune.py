"""Fine-tuning: the default of `vitral train PHOTOS/ --from WEIGHTS`.

    vitral train PHOTOS/ --from timm/vit_small_patch16_224.augreg_in21k

The weights bring their network and preprocessing; `model` and `images` below stand for them. A new
head of zeros (section 3.2 of the paper); a learning rate that falls by 0.75 per layer below it, as
BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377) fine-tune; averaged weights.
Result: see the README's table.
"""

import math
from dataclasses import replace

from vitral import catalog
from vitral.specs import Dropouts, ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=catalog.model("S/16"),
    images=ImageSpec(size=(224, 224)),
    start="WEIGHTS",
    data=Data(batch=64),
    augment=Augment(crop_scale=(0.35, 1.0)),
    optimizer=Optimizer(lr=5e-4, weight_decay=0.05, layer_decay=0.75),
    schedule=Schedule(warmup=epochs(2)),
    objective=Classification(label_smoothing=0.1),
    noise=Dropouts(drop_path=0.1),
    length=epochs(20),
    ema=0.999,
)


def rule(count: int, _: tuple[int, int]) -> Recipe:
    """500 steps at least (as BiT's rule has it), in 20 to 100 epochs of at least ten."""
    batch = 8 * 2 ** min(3, int(math.log2(max(1, count / 80))))
    long = min(100, max(20, math.ceil(500 / max(1, count // batch))))
    return replace(
        recipe,
        data=Data(batch=batch),
        optimizer=replace(recipe.optimizer, lr=recipe.optimizer.lr * math.sqrt(batch / 64)),
        schedule=Schedule(warmup=epochs(long / 10)),
        length=epochs(long),
        evaluate_every=epochs(max(1, long // 20)),
    )
