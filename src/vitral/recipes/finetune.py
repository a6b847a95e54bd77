"""Fine-tuning: the default of `vitral train PHOTOS/ --from WEIGHTS`.

    vitral train PHOTOS/ --from timm/vit_small_patch16_224.augreg_in21k

The weights bring their network and preprocessing; `model` and `images` below stand for them. A new
head of zeros (section 3.2 of the paper); a learning rate that falls by 0.75 per layer below it, as
BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377) fine-tune; averaged weights.
"""

from vitral import catalog
from vitral.images.settings import Augment
from vitral.spec import ImageSpec
from vitral.training.recipe import Data, Optimizer, Recipe, epochs

recipe = Recipe(
    model=catalog.model("S/16"),
    images=ImageSpec(size=(224, 224)),
    data=Data(batch=64),
    augment=Augment(crop_scale=(0.35, 1.0)),
    optimizer=Optimizer(lr=5e-4, weight_decay=0.05, layer_decay=0.75),
    length=epochs(20),
    warmup=epochs(2),
    label_smoothing=0.1,
    ema=0.999,
    drop_path=0.1,
)
