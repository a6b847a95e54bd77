"""The one step of a probe: every training image is looked at once, then its head is solved for."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.evaluation.probes import logistic
from vitral.images import preprocess
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import local, shard_like
from vitral.training.ema import EMA
from vitral.training.session import Session
from vitral.training.step import StepResult
from vitral.training.validation import outputs_of


def solve(session: Session) -> StepResult:
    """Put the head of a logistic regression on the frozen features into the network.

    Each process looks at its share of the images; all solve for the same head. Raises DataError
    when too many images cannot be read.
    """
    session.backbone.eval()
    x, y, _ = outputs_of(session, session.run.data.train, partial(_features, session))
    session.backbone.train()
    weight, bias = logistic(x, y, len(session.run.data.classes))
    _put(session, weight, bias)
    logits = torch.from_numpy(x @ weight.T + bias)
    targets = torch.from_numpy(y)
    loss = nn.functional.cross_entropy(logits, targets).item()
    right = int((logits.argmax(1) == targets).sum())
    rate: float = session.optimizer.param_groups[0]["lr"]
    return StepResult(loss=loss, images=len(y), measures={"accuracy": float(right)}, lr=rate)


@torch.no_grad()
def _put(session: Session, weight: np.ndarray, bias: np.ndarray) -> None:
    """The head into the network, sharded or not, and into its average."""
    wrap.reshard(session.objective)
    for head in (session.backbone.head, session.backbone.distillation_head):
        if isinstance(head, nn.Linear):
            for parameter, value in ((head.weight, weight), (head.bias, bias)):
                local(parameter).copy_(local(shard_like(torch.from_numpy(value), parameter)))
    session.ema = EMA(session.objective, session.ema.decay)


def _features(session: Session, batch: Batch) -> Tensor:
    """(B, width): what the head reads."""
    images = preprocess.normalise(batch.images.to(session.device), session.run.recipe.images)
    with session.objective.autocast():
        return session.backbone.representation(images)
