"""Probabilities are those of the textbooks, and their logarithms hold at the edges."""

import numpy as np
import torch

from vitral.specs.task import Task


def test_probabilities() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    plain = torch.from_numpy(Task().probabilities(logits))
    torch.testing.assert_close(plain, logits.softmax(dim=1))
    warm = torch.from_numpy(Task(temperature=2.0).probabilities(logits))
    torch.testing.assert_close(warm, (logits / 2).softmax(dim=1))
    multi_label = torch.from_numpy(Task("multi_label").probabilities(logits))
    torch.testing.assert_close(multi_label, logits.sigmoid())
    extreme = torch.tensor([[-200.0, 0.0, 300.0]])
    for task in (Task(), Task(temperature=2.0), Task("multi_label")):
        logarithms = task.log_probabilities(logits)
        torch.testing.assert_close(logarithms.exp().numpy(), task.probabilities(logits))
        assert task.log_probabilities(extreme).isfinite().all()
        assert np.isfinite(task.probabilities(extreme)).all()
    assert Task().probabilities(np.zeros((2, 0))).shape == (2, 0)


def test_half_precision_is_widened_first() -> None:
    logits = torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16)
    assert Task().probabilities(np.zeros((1, 2), np.float16)).dtype == np.float32
    assert Task("multi_label").log_probabilities(logits).dtype == torch.float32
