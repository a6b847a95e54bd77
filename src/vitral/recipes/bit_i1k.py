"""BiT on ImageNet from scratch, the CNN beside the ViTs: the default of BiT without weights.

    vitral train IMAGENET/ --model BiT-R50x1

Source: Kolesnikov et al. 2019 (arXiv:1912.11370) as in big_vision's bit_i1k: rate and decay in
proportion to the batch. ImageNet-21k: --set optimizer.lr=0.48 --set schedule.warmup="5000 steps"
--set objective.loss=sigmoid --set objective.head_bias=-10.
Result: the authors print none for this configuration. Fewer images take smaller batches (our own).
"""

import math
from dataclasses import replace

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, epochs, steps

recipe = Recipe(
    model=catalog.model("BiT-R50x1"),
    images=ImageSpec(size=(224, 224), crop=0.875, interpolation="bilinear"),
    data=Data(batch=4096),
    augment=Augment(flavour="big_vision", crop_scale=(0.05, 1.0)),
    # 0.1 and 1e-4 for 256 images: big_vision multiplies its decay by the schedule, not by the rate
    optimizer=Optimizer(kind="sgd", lr=1.6, momentum=0.9, weight_decay=1e-3, clip=1.0),
    schedule=Schedule(kind="cosine", warmup=steps(1000)),
    length=epochs(90),
    select="last",
)


def rule(count: int, _: tuple[int, int]) -> Recipe:
    """Fit the recipe to fewer than 65,536 images: 16 steps an epoch or more, 5 % of warm-up."""
    batch = min(4096, max(8, 2 ** int(math.log2(max(8, count / 16)))))
    optimizer = replace(recipe.optimizer, lr=0.1 * batch / 256)
    warmup = min(1000, max(1, count // batch) * 90 // 20)
    schedule = replace(recipe.schedule, warmup=steps(warmup))
    data = replace(recipe.data, batch=batch)
    return replace(recipe, data=data, optimizer=optimizer, schedule=schedule)
