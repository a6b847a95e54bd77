"""The learning rate of every step, as a share of its peak.

multiplier(recipe.schedule, step, total, epoch_steps)      # times optimizer.lr
"""

from __future__ import annotations

import math

from vitral.errors import SpecError
from vitral.training.recipe import Schedule

FACTOR = 0.1  # of each drop of a staircase (BiT)


def multiplier(settings: Schedule, step: int, total: int, epoch_steps: int) -> float:
    """The rate of a step in [0, total) over the peak, as the authors' big_vision computes it.

    With w the warm-up, T the total and p = clip((t - w) / (T - w), 0, 1):

        cosine     end + (1 - end) (1 + cos(pi p)) / 2
        linear     end + (1 - end) (1 - p)
        rsqrt      1 / sqrt(1 + max(t - w, 0) / timescale), times min(1, (T - t) / cooldown)
        constant   1
        staircase  0.1 to the power of the drops passed, each at its share of T (BiT)

    times the warm-up, which rises from `start`, counts from 1 so that the first step already
    learns, and reaches 1 at its last step.
    """
    warmup = settings.warmup.in_steps(epoch_steps)
    progress = min(max((step - warmup) / max(total - warmup, 1), 0.0), 1.0)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    rise = settings.start + (1.0 - settings.start) * rise
    match settings.kind:
        case "cosine":
            shape = 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            shape = 1.0 - progress
        case "rsqrt":
            timescale = max(1, settings.timescale.in_steps(epoch_steps))
            cooldown = settings.cooldown.in_steps(epoch_steps)
            rise *= min(1.0, (total - step) / cooldown) if cooldown else 1.0
            shape = 1.0 / math.sqrt(1.0 + max(step - warmup, 0) / timescale)
        case "constant":
            shape = 1.0
        case "staircase":
            shape = FACTOR ** sum(step >= round(drop * total) for drop in settings.drops)
        case _:
            raise SpecError(f"There is no schedule '{settings.kind}'.")
    return rise * (settings.end + (1.0 - settings.end) * shape)


def check(settings: Schedule, total: int, epoch_steps: int) -> None:
    """Raise SpecError where the warm-up and the cooldown are longer than the run, in steps."""
    warmup = settings.warmup.in_steps(epoch_steps)
    cooldown = settings.cooldown.in_steps(epoch_steps)
    if warmup + cooldown <= total:
        return
    what = f"a warm-up of {settings.warmup}"
    setting = f"--set schedule.warmup='{total // 10} steps'"
    few = "is"
    if cooldown:
        what += f" and a cooldown of {settings.cooldown}"
        setting = f"{setting} and schedule.cooldown likewise"
        few = "are"
    raise SpecError(
        f"The schedule is longer than the run: {what} {few} {warmup + cooldown} steps of {total}; "
        f"train longer, or {setting}."
    )
