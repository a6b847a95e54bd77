"""The paper's pre-training on ImageNet, to be fine-tuned at 384 px by paper-finetune.

    vitral train IMAGENET/ --recipe paper-i1k

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), Table 3, last row: the same for every ViT, e.g.
--model L/16 --set model.representation=1024. The clipping is of this row alone.
Result: 77.91 % on ImageNet after fine-tuning (Table 5; L/16 76.53).
"""

from vitral import catalog
from vitral.specs import Dropouts, ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Data, Optimizer, Recipe, Schedule, epochs, steps

recipe = Recipe(
    model=catalog.model("B/16", representation=768),  # section 3.1: a hidden layer in pre-training
    images=ImageSpec(size=(224, 224), crop=0.875, interpolation="bilinear"),
    data=Data(batch=4096),
    augment=Augment(flavour="big_vision", crop_scale=(0.05, 1.0)),
    optimizer=Optimizer(lr=3e-3, weight_decay=0.3, clip=1.0),
    schedule=Schedule(kind="cosine", warmup=steps(10_000)),
    noise=Dropouts(dropout=0.1),
    length=epochs(300),
    select="last",
)
