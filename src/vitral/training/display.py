"""The display of a run while it works: one live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vitral import machine
from vitral.wording import byte_size, clock, visible

LINE_SECONDS = 10.0
MEMORY_SECONDS = 1.0  # asking a GPU's allocator at every step would cost a small model some speed
WINDOW = 50
AROUND = 38  # columns of a terminal that the word before the bar, the bar and the gaps take


class Display:
    """Shows steps, evaluations and notes; use it as a context manager.

    Nothing is printed with quiet=True; rates and memory are measured all the same, since
    metrics.jsonl keeps them.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(
            file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True, emoji=False
        )
        self.live = self.console.is_terminal and not quiet
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.marks: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.shares: dict[str, deque[float]] = {}
        self.validated: list[str] = []
        self.printed = time.monotonic()
        self.weighed = -MEMORY_SECONDS
        self.held = 0

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        self.task = self.bar.add_task("training", total=None, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.live:  # rich 13 would end with an empty line
            self.bar.stop()

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(visible(text), markup=False)

    def pause(self) -> None:
        """The clock of the rate does not run while the run evaluates or saves."""
        self.marks.clear()

    @property
    def images_per_second(self) -> float:
        """Rate of the last steps; 0 before the second one."""
        if len(self.marks) < 2:
            return 0.0
        images = sum(count for _, count in list(self.marks)[1:])
        return images / max(self.marks[-1][0] - self.marks[0][0], 1e-9)

    @property
    def memory(self) -> int:
        """Bytes: the most that tensors held on the GPUs so far, or what the process holds now."""
        now = time.monotonic()
        if now - self.weighed >= MEMORY_SECONDS:
            self.weighed = now
            self.held = machine.used_memory()
        return self.held

    def step(
        self,
        done: int,
        total: int,
        images: int,
        *,
        loss: float,
        lr: float,
        measures: Mapping[str, float],
    ) -> None:
        """Show an optimizer step over `images` images: its loss, and shares such as the accuracy.

        Of the shares the mean of the last steps is shown; those of one step would only jump.
        """
        for name, share in measures.items():
            self.shares.setdefault(name, deque(maxlen=WINDOW)).append(share)
        self.marks.append((time.monotonic(), images))
        rate = self.images_per_second
        facts = [  # the most important first: a narrow terminal loses the last ones
            f"step {done}/{total}",
            f"{clock((total - done) * images / rate) if rate else '-:--'} left",
            f"loss {loss:.3f}",
            *(f"{name} {100 * fmean(self.shares[name]):.1f} %" for name in measures),
            *self.validated,
            f"{rate:,.0f} images/s",
            f"lr {lr:.1e}",
            byte_size(self.memory),
        ]
        if self.live:
            text = _fitting(facts, self.console.width - AROUND)
            self.bar.update(self.task, completed=done, total=total, facts=text)
        elif time.monotonic() - self.printed >= LINE_SECONDS and rate:
            self.printed = time.monotonic()
            self.note("  ".join(facts))

    def evaluating(self, done: int, total: int) -> None:
        """While validation images are counted."""
        if self.live:
            facts = [f"validating {done}/{total}", *self.validated]
            self.bar.update(self.task, facts=_fitting(facts, self.console.width - AROUND))

    def evaluated(
        self, epoch: float, score: float, interval: tuple[float, float], name: str = "accuracy"
    ) -> None:
        """After validation: its first number, what that is called, and its 95 % interval."""
        self.validated = [f"val {100 * score:.1f} %"]
        low, high = (100 * bound for bound in interval)
        if not self.live:
            self.note(f"epoch {epoch:g}  val {name} {100 * score:.2f} % ({low:.1f}-{high:.1f})")


def _fitting(facts: list[str], columns: int) -> str:
    while len(facts) > 1 and len("  ".join(facts)) > columns:
        facts = facts[:-1]
    return "  ".join(facts)
