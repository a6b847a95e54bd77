"""Handwritten digits in a minute on two CPU cores: the run of `vitral demo`.

    vitral train digits

1,438 images to learn from, 359 to test on (scikit-learn's, 8x8 pixels). `select="last"`: the test
images choose nothing, so their accuracy is an honest one.
"""

from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.augment import Augment
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Schedule, epochs

recipe = Recipe(
    model=ModelSpec(
        name="digits-vit", size=(24, 24), patch=(6, 6), width=64, depth=4, heads=4, mlp_width=256
    ),
    images=ImageSpec(size=(24, 24), interpolation="bilinear"),
    data=Data(source="digits", batch=64),
    augment=Augment(
        crop="none", flip=0.0, rotate=12.0, translate=0.1, zoom=(0.85, 1.2), shear=12.0, mixup=0.2
    ),
    optimizer=Optimizer(lr=1.5e-3, weight_decay=0.1),
    schedule=Schedule(warmup=epochs(10)),
    objective=Classification(label_smoothing=0.1),
    length=epochs(100),
    evaluate_every=epochs(20),
    ema=0.99,
    select="last",
)
