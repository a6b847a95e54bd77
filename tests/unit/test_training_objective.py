import math

import pytest
import torch

from vitral.training.objective import cross_entropy


def test_against_the_definition() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    labels = torch.tensor([1, 0])
    log = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -(log[0, 1] + log[1, 0]) / 2
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item())
    onehot = torch.eye(3)[labels]
    assert cross_entropy(logits, onehot).item() == pytest.approx(expected.item())
    smooth = 0.7 * onehot + 0.3 / 3
    assert cross_entropy(logits, labels, 0.3).item() == pytest.approx(
        -(smooth * log).sum(1).mean().item()
    )


def test_equal_logits_cost_the_logarithm_of_the_classes_in_float32() -> None:
    loss = cross_entropy(torch.zeros(4, 10, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(10))
