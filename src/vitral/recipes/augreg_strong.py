"""AugReg's strong augmentation for B/16: RandAugment (2, 20), mixup 0.8.

    vitral train IMAGENET/ --recipe augreg-strong

Source: Steiner et al. 2021 (arXiv:2106.10270) and their released configurations. This is strong2;
strong1: --set augment.mixup=0.5. On ImageNet-21k for 30 epochs it hurts.
Result: 79.15 % on ImageNet, the published vit_base_patch16_224.augreg_in1k; augreg-medium 79.84 %.
"""

from dataclasses import replace

from vitral import catalog
from vitral.recipes.augreg_light import recipe as light
from vitral.specs import Dropouts

recipe = replace(
    light,
    model=catalog.model("B/16"),
    augment=replace(light.augment, randaugment=(2, 20), mixup=0.8),
    noise=Dropouts(dropout=0.1, drop_path=0.1, drop_path_rule="linear"),
)
