"""A head on frozen weights, solved in one pass over the images: a first model within a minute.

    vitral train PHOTOS/ --from timm/vit_small_patch16_224.augreg_in21k --tune probe

Linear classification of frozen features (section 4.1 of the paper, arXiv:2010.11929, has it for
few images); no augmentation, and nothing of the network changes but the head.
Result: see the README's table.
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Recipe, Schedule, Tune, epochs

recipe = Recipe(
    model=catalog.model("S/16"),
    images=ImageSpec(size=(224, 224)),
    start="WEIGHTS",
    augment=Augment(crop="none", flip=0.0),
    schedule=Schedule(kind="constant", warmup=epochs(0)),
    tune=Tune("probe"),
    length=epochs(1),
    select="last",
)
