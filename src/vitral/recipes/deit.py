"""DeiT-S/16: ImageNet alone, with strong augmentation.

    vitral train IMAGENET/ --recipe deit

Source: Touvron et al. 2020 (arXiv:2012.12877), Table 9. Others: --model deit_tiny_patch16_224 or
deit_base_patch16_224. Then at 384 px, again with --recipe deit: --from RUN --size 384 --epochs 30
--set optimizer.lr=5e-6 --set optimizer.weight_decay=1e-8.
Result: 79.9 % on ImageNet (tiny 72.2, base 81.8).
"""

from vitral import catalog
from vitral.specs import Dropouts, ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=catalog.model("deit_small_patch16_224"),
    images=ImageSpec(
        size=(224, 224), crop=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    data=Data(batch=1024),
    augment=Augment(  # its colour jitter of 0.3 does nothing beside RandAugment, in timm
        flavour="timm", randaugment=(2, 9), erase=0.25, mixup=0.8, cutmix=1.0, repeats=3
    ),
    optimizer=Optimizer(lr=1e-3, weight_decay=0.05, clip=0.0),  # 5e-4 * batch / 512
    schedule=Schedule(warmup=epochs(5), start=1e-3, end=1e-2),  # from 1e-6 and to 1e-5
    objective=Classification(label_smoothing=0.1),
    noise=Dropouts(drop_path=0.1),
    length=epochs(300),
    ema=0.99996,
)
