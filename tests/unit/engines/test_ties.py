"""Answers that bfloat16 cannot tell apart are those of float32, and nothing else changes."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitral import catalog
from vitral.engines.ties import decided
from vitral.engines.torch_engine import TorchEngine
from vitral.model import build

EXACT = np.array([[1.0, 1.01, -3], [2, 0, 0], [0, 5, 4.99], [0, 0, 9]], np.float32)
ROUNDED = np.array([[1.01, 1.0, -3], [2, 0, 0], [0, 4.99, 5], [0, 0, 9]], np.float32)


@dataclass(frozen=True)
class Recorded:
    """Gives rounded logits, or exact ones, of images that are their own numbers."""

    values: NDArray[np.float32]
    asked: list[int] = field(default_factory=list)

    def in_float32(self) -> Any:
        return self if self.values is EXACT else replace(self, values=EXACT)

    def logits(self, images: Any) -> NDArray[np.float32]:
        rows = np.asarray(images)[:, 0].astype(int)
        self.asked.extend(rows.tolist())
        return self.values[rows]


def test_close_answers_are_computed_again() -> None:
    engine: Any = Recorded(ROUNDED)
    images = np.arange(4, dtype=np.float32)[:, None]
    for given in (images, torch.from_numpy(images)):
        engine.asked.clear()
        logits = decided(engine, given, ROUNDED)
        assert engine.asked == [0, 2]
        assert np.array_equal(logits, EXACT)
    assert ROUNDED[0, 0] == np.float32(1.01)  # what was given stays as it was


def test_float32_and_single_classes_are_left_alone() -> None:
    exact: Any = Recorded(EXACT)
    assert decided(exact, np.zeros((4, 1), np.float32), ROUNDED) is ROUNDED
    single = np.ones((2, 1), np.float32)
    assert decided(exact, np.zeros((2, 1), np.float32), single) is single


def test_torch_in_bfloat16_gives_the_labels_of_float32() -> None:
    torch.manual_seed(0)
    model = build(catalog.model("mu/16", size=32, classes=500))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    engine = TorchEngine(model, torch.device("cpu"), "bf16")
    in_float32 = engine.in_float32()
    assert in_float32.in_float32() is in_float32
    images = torch.randn(256, 3, 32, 32)
    exact = in_float32.logits(images)
    rounded = engine.logits(images)
    assert (rounded.argmax(1) != exact.argmax(1)).any()  # otherwise nothing is tested
    assert np.array_equal(decided(engine, images, rounded).argmax(1), exact.argmax(1))
