"""DeiT III, S/16: LAMB, binary cross-entropy and 3-Augment, 800 epochs of ImageNet.

    vitral train IMAGENET/ --recipe deit3

Source: Touvron et al. 2022 (arXiv:2204.07118), the ImageNet-1k settings; see deit3-b for B/16.
Result: 81.4 % on ImageNet.
"""

from vitral import catalog
from vitral.specs import Dropouts, ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=catalog.model("deit3_small_patch16_224", layer_scale=1e-4),
    images=ImageSpec(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    data=Data(batch=2048),
    augment=Augment(three=True, jitter=0.3, mixup=0.8, cutmix=1.0, repeats=3),
    optimizer=Optimizer(kind="lamb", lr=4e-3, weight_decay=0.05, clip=1.0),
    schedule=Schedule(warmup=epochs(5), start=2.5e-4, end=2.5e-3),  # from 1e-6 and to 1e-5
    objective=Classification(loss="bce"),
    noise=Dropouts(drop_path=0.05, drop_path_rule="constant"),
    length=epochs(800),
)
