"""Better plain ViT-S/16: 76.5 % on ImageNet in 90 epochs with nothing but a plain ViT.

    vitral train IMAGENET/ --recipe s16-i1k-90

Source: Beyer et al. 2022 (arXiv:2205.01580), and big_vision's vit_s16_i1k.
Result: 76.5 % at 90 epochs, 78.5 % with --epochs 150, 80.0 % with --epochs 300. A linear head
(--set model.representation=0) gives 76.7, 78.6 and 79.8.
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, epochs, steps

recipe = Recipe(
    model=catalog.model("S/16", pool="mean", positions="sincos2d", representation=384),
    images=ImageSpec(size=(224, 224), crop=0.875, interpolation="bilinear"),
    data=Data(batch=1024),
    augment=Augment(flavour="big_vision", crop_scale=(0.05, 1.0), randaugment=(2, 10), mixup=0.2),
    optimizer=Optimizer(lr=1e-3, weight_decay=0.1, clip=1.0),  # big_vision's 1e-4 = 1e-3 * 0.1
    schedule=Schedule(kind="cosine", warmup=steps(10_000)),
    length=epochs(90),
    select="last",
)
