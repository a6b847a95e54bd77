"""The paper's fine-tuning on ImageNet: SGD with momentum at 384 px, the whole network.

    vitral train IMAGENET/ --from RUN --recipe paper-finetune

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), Table 4, which tries lr .003 .01 .03 .06; the
warm-up is of the authors' code. Table 2's ImageNet column: --size 512 --set ema=0.9999.
Result: 83.97 % from B/16 of ImageNet-21k, 77.91 % from ImageNet itself (Table 5).
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, steps

recipe = Recipe(
    model=catalog.model("B/16", size=384),
    images=ImageSpec(size=(384, 384), fit="squash", interpolation="bilinear"),
    start="WEIGHTS",
    data=Data(batch=512),
    augment=Augment(flavour="big_vision", crop_scale=(0.05, 1.0)),
    optimizer=Optimizer(kind="sgd", lr=0.03, momentum=0.9, weight_decay=0.0, clip=1.0),
    schedule=Schedule(kind="cosine", warmup=steps(500)),
    length=steps(20_000),
    evaluate_every=steps(1000),
    select="last",
)
