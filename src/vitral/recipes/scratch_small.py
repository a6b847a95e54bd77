"""From scratch on a few thousand photographs, on a CPU or one GPU: the default of `vitral train`.

    vitral train PHOTOS/ --recipe scratch-small

Strong augmentation stands in for the data that is not there (AugReg, arXiv:2106.10270; DeiT,
arXiv:2012.12877); mean pooling and fixed positions start better than learned ones on few images
(arXiv:2205.01580). Fine-tuning pre-trained weights beats it wherever there are some.
"""

from vitral import catalog
from vitral.images.settings import Augment
from vitral.spec import ImageSpec
from vitral.training.recipe import Data, Optimizer, Recipe, epochs

recipe = Recipe(
    model=catalog.model("Ti/16", size=128, pool="mean", positions="sincos2d"),
    images=ImageSpec(size=(128, 128), crop=0.95),
    data=Data(batch=64),
    augment=Augment(crop_scale=(0.25, 1.0), trivial=True),
    optimizer=Optimizer(lr=1e-3, weight_decay=0.05),
    length=epochs(50),
    warmup=epochs(5),
    label_smoothing=0.1,
    ema=0.999,
    drop_path=0.05,
)
