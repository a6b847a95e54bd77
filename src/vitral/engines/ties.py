"""Answers that bfloat16 cannot tell apart: computed again in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vitral.engines.base import Engine, Images

# Of the logits' standard deviation in one image: the error of a difference between two of them is
# 0.012 of it (standard deviation; 0.039 in one image of a hundred), in torch's and in OpenVINO's
# bfloat16 alike.
ROUNDING = 0.04


def decided(engine: Engine, images: Images, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits (B, classes) whose largest is the one of float32.

    Images whose two largest logits are closer than rounding, a few of a hundred, are computed again
    in float32, where the engine computed in bfloat16; nothing else changes.
    """
    exact = engine.in_float32()
    if exact is engine or logits.shape[1] < 2:
        return logits
    best = np.partition(logits, -2, axis=1)[:, -2:]
    close = best[:, 1] - best[:, 0] < ROUNDING * logits.std(axis=1)
    if not close.any():
        return logits
    logits = logits.copy()
    logits[close] = exact.logits(images[close])
    return logits
