"""BiT-HyperRule: how BiT's networks are fine-tuned, by the number and the size of the images.

    vitral train PHOTOS/ --from timm/resnetv2_50x1_bit.goog_in21k

Source: Kolesnikov et al. 2019 (arXiv:1912.11370), section 3.3: nothing to tune. A random
square is cut out of the squashed image.
Result: CIFAR-10 97.4 %, CIFAR-100 86.6 %, ImageNet 80.68 % from BiT-M R50x1.
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, steps


def rule(count: int, size: tuple[int, int]) -> Recipe:
    """The recipe for `count` training images of about `size` (height, width) in pixels."""
    resized, side = (160, 128) if size[0] * size[1] < 96 * 96 else (512, 480)
    long = 500 if count < 20_000 else 10_000 if count < 500_000 else 20_000
    share = (side / resized) ** 2
    drops = (0.4, 0.6, 0.8) if long == 500 else (0.3, 0.6, 0.9)  # as their released code has it
    return Recipe(
        model=catalog.model("BiT-R50x1", size=side),
        images=ImageSpec(size=(side, side), fit="squash", interpolation="bilinear"),
        start="WEIGHTS",
        data=Data(batch=512),
        augment=Augment(
            crop_scale=(share, share), crop_ratio=(1.0, 1.0), mixup=0.0 if long == 500 else 0.1
        ),
        optimizer=Optimizer(kind="sgd", lr=0.003, momentum=0.9, weight_decay=0.0, clip=0.0),
        schedule=Schedule(kind="staircase", warmup=steps(100 if long == 500 else 500), drops=drops),
        length=steps(long),
        evaluate_every=steps(long // 10),
        select="last",
    )


recipe = rule(50_000, (32, 32))  # CIFAR, where nothing is known of the images
