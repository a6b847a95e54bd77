"""A stream of batches keeps its order and its failures."""

import numpy as np
import torch

from vitral.data.loader import Batch
from vitral.data.sources import Problem
from vitral.evaluation.outputs import Outputs, compute_outputs
from vitral.images import preprocess
from vitral.specs import ImageSpec

CPU = torch.device("cpu")
IMAGES = ImageSpec(size=(4, 4))


def means(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


def outputs(*batches: Batch) -> Outputs:
    return compute_outputs(means, batches, IMAGES, CPU)


def test_a_stream_keeps_its_order_and_its_failures() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(5) % 3
    problem = Problem("broken.jpg", "cannot be read")
    parts = [slice(0, 2), slice(2, 2), slice(2, 5)]
    batches = [
        Batch((pixels[part],), labels[part], torch.arange(5)[part], (problem,) * (i == 1))
        for i, part in enumerate(parts)
    ]
    found = outputs(*batches)
    expected = means(preprocess.normalise(pixels, IMAGES))
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-6)
    assert found.labels.tolist() == labels.tolist()
    assert found.indices.tolist() == list(range(5))
    assert found.failed == (problem,)


def test_nothing_in_nothing_out() -> None:
    assert len(outputs().labels) == 0
