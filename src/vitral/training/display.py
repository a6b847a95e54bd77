"""What a person sees while a run works: one live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0
WINDOW = 50


class Display:
    """Shows steps, evaluations and notes; use it as a context manager.

    Nothing is printed with quiet=True; the rates are measured all the same, since metrics.jsonl
    keeps them.
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
        self.accuracy = ""
        self.printed = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        self.task = self.bar.add_task("training", total=None, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False)

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

    def step(self, done: int, total: int, images: int, *, loss: float, lr: float) -> None:
        """After an optimizer step over `images` images."""
        self.marks.append((time.monotonic(), images))
        rate = self.images_per_second
        left = clock((total - done) * images / rate) if rate else "-:--"
        facts = (
            f"step {done}/{total}  loss {loss:.3f}  lr {lr:.1e}  {rate:,.0f} images/s  "
            f"{left} left{self.accuracy}"
        )
        if self.live:
            self.bar.update(self.task, completed=done, total=total, facts=facts)
        elif time.monotonic() - self.printed >= LINE_SECONDS and rate:
            self.printed = time.monotonic()
            self.note(facts)

    def evaluating(self, done: int, total: int) -> None:
        """While validation images are counted."""
        if self.live:
            self.bar.update(self.task, facts=f"validating {done}/{total}{self.accuracy}")

    def evaluated(self, epoch: float, accuracy: float, interval: tuple[float, float]) -> None:
        """After validation."""
        self.accuracy = f"  val {100 * accuracy:.1f} %"
        low, high = (100 * bound for bound in interval)
        if not self.live:
            self.note(
                f"epoch {epoch:g}  val accuracy {100 * accuracy:.2f} % ({low:.1f}-{high:.1f})"
            )


def clock(seconds: float) -> str:
    """1:05 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
