"""Drawn shapes among distractors, 20,000 scenes at 64 px: real learning without a download.

    vitral train shapes

A small hybrid (section 3.1 of arXiv:2010.11929): a thin ResNet, then three blocks over its 8 x 8
map. The class token alone is read, so that its attention has to find the object: masks are known,
and benchmarks/pointing.py tests explanations on this run.
"""

from vitral.specs import ImageSpec, ModelSpec, ResNetSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=ModelSpec(
        name="shapes-hybrid",
        size=(64, 64),
        patch=(1, 1),
        width=128,
        depth=3,
        heads=4,
        mlp_width=512,
        classes=10,
        positions="sincos2d",
        resnet=ResNetSpec(blocks=(2, 2), width=32),
    ),
    images=ImageSpec(size=(64, 64), interpolation="bilinear"),
    data=Data(source="shapes", batch=32, count=20_000, val_fraction=0.1),
    augment=Augment(crop="none"),
    optimizer=Optimizer(lr=1e-3, weight_decay=0.05),
    schedule=Schedule(warmup=epochs(0.4)),
    length=epochs(12),
    ema=0.995,
)
