"""Training from scratch on a few thousand photographs, on a CPU or one GPU: the default.

    vitral train PHOTOS/ --recipe scratch-small

A hybrid (section 3.1 of arXiv:2010.11929): what few images cannot teach, convolutions bring
(arXiv:2106.14881). Mean pooling and fixed positions start better, too (arXiv:2205.01580).
`--model Ti/16` is the plain network. Result: see the README's table.
"""

import math
from dataclasses import replace

from vitral import catalog
from vitral.specs import ImageSpec, ModelSpec, ResNetSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs


def network(side: int) -> ModelSpec:
    """Four blocks of Ti on the 8 x 8 map of a ResNet half as wide as the paper's."""
    stem = ResNetSpec(blocks=(2,) * int(math.log2(side / 16)), width=32)
    spec = catalog.model("Ti/1", size=side, pool="mean", positions="sincos2d", resnet=stem, depth=4)
    return replace(spec, name=f"thin-R+Ti/{stem.stride}")


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """Half a million views in 50 to 300 epochs of at least ten steps."""
    side = max(side for side in (32, 64, 128) if side <= max(32, *size))
    batch = 8 * 2 ** min(2, int(math.log2(max(1, count / 80))))
    long = min(300, max(50, round(500_000 / count)))
    return Recipe(
        model=network(side),
        images=ImageSpec(size=(side, side), crop=0.95),
        data=Data(batch=batch),
        augment=Augment(crop_scale=(0.35, 1.0)),
        optimizer=Optimizer(lr=1e-3 * math.sqrt(batch / 32), weight_decay=0.05),
        schedule=Schedule(warmup=epochs(long / 10)),
        objective=Classification(label_smoothing=0.1),
        length=epochs(long),
        ema=0.999,
        evaluate_every=epochs(max(1, long // 50)),
    )


recipe = rule(10_000, (128, 128))
