"""Probabilities are those of the textbooks, and their logarithms hold at the edges."""

import torch

from vitral.specs.task import Task


def test_probabilities() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    plain = Task().probabilities(logits)
    torch.testing.assert_close(plain, logits.exp() / logits.exp().sum())
    warm = Task(temperature=2.0).probabilities(logits)
    torch.testing.assert_close(warm, (logits / 2).exp() / (logits / 2).exp().sum())
    multi_label = Task("multi_label").probabilities(logits)
    torch.testing.assert_close(multi_label, 1 / (1 + (-logits).exp()))
    extreme = torch.tensor([[-200.0, 0.0, 300.0]])
    for task in (Task(), Task(temperature=2.0), Task("multi_label")):
        logarithms = task.log_probabilities(logits)
        torch.testing.assert_close(logarithms, task.probabilities(logits).log())
        assert task.log_probabilities(extreme).isfinite().all()


def test_half_precision_is_widened_first() -> None:
    logits = torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16)
    assert Task().probabilities(logits).dtype == torch.float32
    assert Task("multi_label").log_probabilities(logits).dtype == torch.float32
