"""AugReg's light augmentation for Ti/16: RandAugment (2, 0), no mixup.

    vitral train IMAGENET/ --recipe augreg-light

Source: Steiner et al. 2021 (arXiv:2106.10270) and their released configurations. This is light1;
light2: --set augment.randaugment=[2,10] --set augment.mixup=0.2. All 28 settings take weight decay
0.1 or 0.03, and none or --set noise.dropout=0.1 --set noise.drop_path=0.1. ImageNet-21k: --epochs
30 or 300 --set objective.head_bias=-10.
Result: 72.59 % on ImageNet, the best of Ti/16 (Table 3).
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs, steps

recipe = Recipe(
    model=catalog.model("Ti/16"),
    images=ImageSpec(size=(224, 224), crop=0.875, interpolation="bilinear"),
    data=Data(batch=4096),
    augment=Augment(
        flavour="big_vision", crop_scale=(0.05, 1.0), randaugment=(2, 0)
    ),  # 0 is not nothing
    optimizer=Optimizer(lr=1e-3, weight_decay=0.1, clip=1.0),  # the authors' 1e-4, over the rate
    schedule=Schedule(kind="cosine", warmup=steps(10_000)),
    objective=Classification(loss="sigmoid", head_bias=-6.9),
    length=epochs(300),
    select="last",
)
