"""The paper's pre-training on ImageNet-21k: what ViTs need millions of images for.

    vitral train IMAGENET21K/ --recipe paper-i21k

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), Table 3; sigmoid loss and head bias as in the
authors' released configurations. L/16: --model L/16 --set model.representation=1024, 90 epochs or
--epochs 30. The JFT row of B/16: --epochs 7 --set optimizer.lr=8e-4 --set
optimizer.weight_decay=0.1 --set noise.dropout=0; of L/16 lr=4e-4, of L/32 6e-4, of H/14 3e-4.
Result: 83.97 % on ImageNet after paper-finetune (Table 5; L/16 85.15).
"""

from vitral import catalog
from vitral.specs import Dropouts, ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs, steps

recipe = Recipe(
    model=catalog.model("B/16", representation=768, classes=21_843),
    images=ImageSpec(size=(224, 224), crop=0.875, interpolation="bilinear"),
    data=Data(batch=4096),
    augment=Augment(flavour="big_vision", crop_scale=(0.05, 1.0)),
    optimizer=Optimizer(lr=1e-3, weight_decay=0.03, clip=0.0),  # clipped on ImageNet only
    schedule=Schedule(kind="linear", warmup=steps(10_000)),
    objective=Classification(loss="sigmoid", head_bias=-10.0),
    noise=Dropouts(dropout=0.1),
    length=epochs(90),
    select="last",
)
