"""What training minimises."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy, averaged over the batch, in float32.

    Args:
        logits: (B, classes).
        targets: class indices (B,), or mixed labels (B, classes) whose rows sum to 1.
        label_smoothing: mass spread evenly over all classes.
    """
    return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
