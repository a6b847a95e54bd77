"""The one step of a probe: every training image is looked at once, then its head is solved for."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vitral.data.loader import Batch
from vitral.data.sources import Problem
from vitral.engines.torch_engine import autocast
from vitral.evaluation.probes import logistic
from vitral.images import preprocess
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import cut, local
from vitral.training.ema import Average
from vitral.training.session import Session
from vitral.training.step import Learnt, report_unreadable
from vitral.training.validation import watched


def solve_head(session: Session) -> Learnt:
    """Put the head of a logistic regression on the frozen features into the network.

    Each process looks at its share of the images; all solve for the same head. Raises DataError
    when too many images cannot be read.
    """
    split, ranks = session.data.train, session.ranks
    features, labels, failed = [], [], list[Problem]()
    session.model.eval()
    for batch in watched(session, split):
        failed += batch.failed
        if len(batch.images):
            own = batch.indices >= 0  # without what keeps other processes company
            features.append(_features(session, batch)[own.numpy()])
            labels.append(batch.labels[own].numpy())
    session.model.train()
    report_unreadable(session, failed)
    found = ranks.gathered((features, labels))
    x = np.concatenate([part for own, _ in found for part in own])
    y = np.concatenate([part for _, own in found for part in own])
    weight, bias = logistic(x, y, len(session.data.classes))
    _put(session, weight, bias)
    logits = torch.from_numpy(x @ weight.T + bias)
    targets = torch.from_numpy(y)
    loss = nn.functional.cross_entropy(logits, targets).item()
    right = int((logits.argmax(1) == targets).sum())
    return Learnt(loss=loss, images=len(y), correct=right, asked=False, due=False)


@torch.no_grad()
def _put(session: Session, weight: np.ndarray, bias: np.ndarray) -> None:
    """The head into the network, sharded or not, and into its average."""
    wrap.put_back(session.model)
    for head in (session.model.head, session.model.distillation_head):
        if isinstance(head, nn.Linear):
            for parameter, value in ((head.weight, weight), (head.bias, bias)):
                local(parameter).copy_(local(cut(torch.from_numpy(value), parameter)))
    session.average = Average(session.model, session.average.decay)


def _features(session: Session, batch: Batch) -> np.ndarray:
    """(B, width): what the head reads."""
    images = preprocess.normalise(batch.images.to(session.device), session.recipe.images)
    with (
        torch.no_grad(),
        autocast(session.recipe.precision, session.device, session.recipe.model.width),
    ):
        found: np.ndarray = session.model.representation(images).float().cpu().numpy()
    return found
