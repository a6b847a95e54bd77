"""AugReg's medium augmentation for S/16, S/32 and B/16: RandAugment (2, 15), mixup 0.5.

    vitral train IMAGENET/ --recipe augreg-medium

Source: Steiner et al. 2021 (arXiv:2106.10270) and their released configurations. This is medium2,
the best on ImageNet for every model from S/16 and B/32 on; medium1, for S/32: --set
augment.mixup=0.2. The other settings: --set optimizer.weight_decay=0.03, and without noise:
--set noise.dropout=0 --set noise.drop_path=0.
Result: 79.00 % on ImageNet, the best of S/16; --model B/16 79.84 % (Table 3).
"""

from dataclasses import replace

from vitral import catalog
from vitral.recipes.augreg_light import recipe as light
from vitral.specs import Dropouts

recipe = replace(
    light,
    model=catalog.model("S/16"),
    augment=replace(light.augment, randaugment=(2, 15), mixup=0.5),
    noise=Dropouts(dropout=0.1, drop_path=0.1, drop_path_rule="linear"),
)
