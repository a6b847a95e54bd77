"""DeiT III, B/16: trained at 192 px, then 20 epochs at 224.

    vitral train IMAGENET/ --recipe deit3-b --out RUN
    vitral train IMAGENET/ --from RUN --recipe deit3-b --size 224 --epochs 20 --set
        optimizer.kind=adamw --set optimizer.lr=1e-5 --set optimizer.weight_decay=0.1

Source: Touvron et al. 2022 (arXiv:2204.07118), the ImageNet-1k settings. L/16: --model
deit3_large_patch16_224 --size 192 --set model.layer_scale=1e-4 --set noise.drop_path=0.45.
Result: 83.8 % on ImageNet (L/16 84.9), after both.
"""

from dataclasses import replace

from vitral import catalog
from vitral.recipes.deit3 import recipe as small
from vitral.specs import Dropouts
from vitral.training.recipe import Schedule, epochs

recipe = replace(
    small,
    model=catalog.model("deit3_base_patch16_224", layer_scale=1e-4, size=192),
    images=replace(small.images, size=(192, 192)),
    optimizer=replace(small.optimizer, lr=3e-3),
    schedule=Schedule(warmup=epochs(5), start=1 / 3000, end=1 / 300),  # from 1e-6 and to 1e-5
    noise=Dropouts(drop_path=0.2, drop_path_rule="constant"),
)
