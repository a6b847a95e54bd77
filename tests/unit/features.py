"""Features of drawn classes, as a network might give them."""

from dataclasses import replace

import numpy as np

from vitral.evaluation.foreign import Sample

WIDTH = 12
CLASSES = 4
EARLY = 3


def drawn(
    each: int, seed: int, *, classes: int = CLASSES, apart: float = 1.0, noise: float = 4.0
) -> Sample:
    """Classes that differ in the first half of the features, with much noise in the second."""
    random = np.random.default_rng(seed)
    means = np.zeros((classes, WIDTH))
    means[:, :6] = np.random.default_rng(99).normal(0, 2 * apart, (classes, 6))
    labels = np.repeat(np.arange(classes), each)
    spread = np.where(np.arange(WIDTH) < 6, 0.5, noise)
    features = means[labels] + random.normal(0, 1, (len(labels), WIDTH)) * spread
    logits = random.normal(0, 1, (len(labels), classes))
    patches = random.normal(0, 1, (len(labels), 6 * EARLY))
    return Sample(
        features=features.astype(np.float32),
        logits=logits.astype(np.float32),
        labels=labels,
        patches=patches.astype(np.float32),
    )


def several(sample: Sample) -> Sample:
    labels = sample.labels[:, None] == np.arange(CLASSES)
    return replace(sample, labels=labels)
