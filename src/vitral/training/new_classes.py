"""The head's rows of classes that the weights do not know: they begin at their class means.

For a class c with the mean feature m_c of its training images, u = (m_c - m) / |m_c - m| where m is
the mean of all class means (the origin where no image of a known class is at hand):

    w_c = w + s u                    w: mean row of the old head, s: mean |w_k - w| of its rows
    b_c = b - s u . (m_c + m) / 2    b: its mean bias; halfway between the class and the rest

so that the new row stands as far from the others as they do from one another (a softmax does not
see what all rows share). One number is then added to the b_c of all new classes: that with which
the mean recall of all classes on these images is the highest. Where no image of a known class is
at hand, it is the least that lets `OWN_SHARE` of the new images through.

With several labels each class is a question of its own: w = 0, b = 0, m the mean of the images
without it, and every class has its own number.

Weight imprinting (Qi et al. 2018, arXiv:1712.07136) with the centre and the biases added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.data.sources import Split
from vitral.images import preprocess
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import full, local, shard_like
from vitral.training.ema import EMA
from vitral.training.session import RunContext, Session, begin_run
from vitral.training.validation import outputs_of
from vitral.weights.adapt import kept_rows
from vitral.weights.known_classes import KnownClasses

MOST_IMAGES = 200  # of each class that are looked at
MOST_KNOWN = 20_000  # of the known classes together, one of each at least
OWN_SHARE = 0.75

Head = tuple[np.ndarray, np.ndarray]  # weight (K, D) and bias (K,)


def begin(run: RunContext) -> Session:
    """Return the first state of a run, with the rows of new classes at their class means.

    Raises what `begin_run` raises, and DataError when too many images cannot be read.
    """
    session = begin_run(run)
    if run.weights is None or not run.recipe.labelled:
        return session
    known = kept_rows(run.weights, run.recipe.model, run.data.classes)
    if not known.kept or not known.new or run.recipe.tune.kind == "probe":
        return session
    _start(session, known)
    return session


def _start(session: Session, known: KnownClasses) -> None:
    """Put the rows of the new classes into every head of the network, and into its average."""
    assert session.run.weights is not None
    split = _some(session.run.data.train, known)
    session.backbone.eval()
    values, labels, _ = outputs_of(session, split, partial(_head_inputs, session))
    session.backbone.train()
    wrap.reshard(session.objective)
    heads = [
        h for h in (session.backbone.head, session.backbone.distillation_head) if h is not None
    ]
    names = ("head", "distillation_head")
    inputs = np.split(values.astype(np.float64), len(heads), axis=1)
    for name, head, features in zip(names, heads, inputs, strict=False):
        stored = session.run.weights.tensors
        old = (_array(stored[f"{name}.weight"]), _array(stored[f"{name}.bias"]))
        begun = (_array(full(head.weight)), _array(full(head.bias)))
        rows = [row for row, place in enumerate(known.places) if place < 0]
        weight, bias = at_class_means(features, labels, begun, old, rows)
        _put(head, weight, bias)
    session.ema = EMA(session.objective, session.ema.decay)


def at_class_means(
    features: np.ndarray, labels: np.ndarray, begun: Head, old: Head, new: Sequence[int]
) -> Head:
    """Return a head whose rows `new` begin at the means of their classes.

    Args:
        features: float64 (N, D), what the head reads of N images.
        labels: int64 (N,), or bool (N, K) where an image has several.
        begun: the head with its known rows in place.
        old: the whole head that they are from.
        new: numbers of the rows to begin; one without an image gets the mean row.
    """
    weight = begun[0].copy()
    bias = begun[1].copy()
    several = labels.ndim == 2
    has = labels if several else labels[:, None] == np.arange(len(weight))
    row = np.zeros(weight.shape[1]) if several else old[0].mean(0)
    level = 0.0 if several else float(old[1].mean())
    length = float(np.linalg.norm(old[0] - row, axis=1).mean())
    begun_here = set(new)
    rest = [k for k in range(len(weight)) if k not in begun_here and has[:, k].any()]
    means = {k: features[has[:, k]].mean(0) for k in (*rest, *new) if has[:, k].any()}
    for k in new:
        weight[k] = row
        bias[k] = level
        if k not in means:
            continue
        centre = _centre(features, has, means, rest, k, several=several)
        away = means[k] - centre
        away /= max(float(np.linalg.norm(away)), 1e-12)
        weight[k] += length * away
        bias[k] -= length * float(away @ (means[k] + centre)) / 2
    shown = [k for k in new if k in means]
    logits = features @ weight.T + bias
    if several:
        for k in shown:
            bias[k] += _offset(-logits[:, k], has[:, k], np.ones(len(logits)))
    elif shown:
        begun_here = set(shown)
        theirs = [k for k in range(len(weight)) if k not in begun_here]
        margin = logits[:, theirs].max(1) - logits[:, shown].max(1)
        counts = has.sum(0)
        each = 1.0 / np.maximum(counts, 1)[has.argmax(1)]  # every class counts alike
        bias[shown] += _offset(margin, np.asarray(has[:, shown].any(1)), each)
    return weight, bias


def _centre(
    features: np.ndarray,
    has: np.ndarray,
    means: dict[int, np.ndarray],
    rest: Sequence[int],
    own: int,
    *,
    several: bool,
) -> np.ndarray:
    """Where the other images are, (D,); the origin where there are none of known classes."""
    if several and not has[:, own].all():
        return features[~has[:, own]].mean(0)
    if several or not rest:
        return np.zeros(features.shape[1])
    return np.mean(list(means.values()), axis=0)


def _offset(needed: np.ndarray, own: np.ndarray, weights: np.ndarray) -> float:
    """The number to add, so that own images (needed < number) and others (needed > number) part.

    Args:
        needed: (N,), what an image lacks to be given a new class.
        own: (N,), whether it is of one.
        weights: (N,), what it counts.
    """
    if own.all():
        return float(np.quantile(needed, OWN_SHARE))
    order = np.argsort(needed, kind="stable")
    sorted_needed = needed[order]
    gain = np.where(own, weights, -weights)[order]
    right = np.concatenate([[0.0], np.cumsum(gain)])  # with the first i images let through
    best = np.flatnonzero(right >= right.max() - 1e-12)
    first = int(best[len(best) // 2])
    below = sorted_needed[first - 1] if first else sorted_needed[0] - 1.0
    above = sorted_needed[first] if first < len(order) else sorted_needed[-1] + 1.0
    return float(below + above) / 2


def _some(split: Split, known: KnownClasses) -> Split:
    """Some images of each class, evenly over the split."""
    chosen: set[int] = set()
    of_known = max(1, min(MOST_IMAGES, MOST_KNOWN // max(1, len(known.kept))))
    for k, place in enumerate(known.places):
        own = np.flatnonzero(split.labels[:, k] if split.labels.ndim == 2 else split.labels == k)
        most = min(len(own), MOST_IMAGES if place < 0 else of_known)
        places = np.linspace(0, len(own) - 1, most).round().astype(int)
        chosen |= set(own[places].tolist())
    return split.select(sorted(chosen))


def _head_inputs(session: Session, batch: Batch) -> Tensor:
    """(B, heads x width): what each head reads, side by side."""
    images = preprocess.normalise(batch.images.to(session.device), session.run.recipe.images)
    with session.objective.autocast():
        return torch.cat(session.backbone.inputs_per_head(images), dim=1)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


@torch.no_grad()
def _put(head: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    """Copy a whole head into one that may be sharded."""
    for parameter, value in ((head.weight, weight), (head.bias, bias)):
        whole = torch.from_numpy(value).to(parameter.dtype)
        local(parameter).copy_(local(shard_like(whole, parameter)))
