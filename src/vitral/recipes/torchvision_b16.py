"""torchvision's ViT-B/16 from scratch on ImageNet.

    vitral train IMAGENET/ --recipe torchvision-b16

Source: the published command of its weights (pytorch/vision, references/classification, vit_b_16),
8 x 512 images a step. It decays biases and norms too; here the kernels alone.
Result: 81.07 % on ImageNet (ViT_B_16_Weights.IMAGENET1K_V1: 81.072).
"""

from vitral import catalog
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=catalog.model("vit_b_16"),
    images=ImageSpec(
        size=(224, 224),
        crop=0.875,
        interpolation="bilinear",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    data=Data(batch=4096),
    augment=Augment(randaugment=(2, 9), mixup=0.2, cutmix=1.0, repeats=3),
    optimizer=Optimizer(lr=3e-3, weight_decay=0.3, clip=1.0),
    schedule=Schedule(warmup=epochs(30), start=0.033),
    objective=Classification(label_smoothing=0.11),
    length=epochs(300),
    ema=0.99973,  # 1 - 2e-5 * 4096 * 32 / 300 for every 32 steps, as it counts them
)
