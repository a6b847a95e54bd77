"""Further places for the numbers of a run: tensorboard, wandb, mlflow, trackio (`--log NAME`).

    with Loggers(("tensorboard",), out, recipe.to_dict(), note=display.note) as loggers:
        loggers.log({"step": 10, "loss": 1.5})

metrics.jsonl has everything whatever happens here: the libraries work in a thread of their own, so
that training waits for none of them, and one that fails is reported once and then left alone.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import importlib
import importlib.util
import json
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from vitral.errors import MachineError, UsageError
from vitral.specs.fields import flat
from vitral.wording import did_you_mean

Name = Literal["tensorboard", "wandb", "mlflow", "trackio"]
_LOGGER = logging.getLogger(__name__)
CLOSING_SECONDS = 60.0  # for what is still on its way at the end of a run


@dataclass(frozen=True, slots=True)
class Logger:
    """One library's run: `log(step, scalars)` writes, `close()` flushes."""

    name: str
    log: Callable[[int, dict[str, float]], object]
    close: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Run:
    """The run as a logging library needs it.

    Attributes:
        out, recipe: the folder and the resolved recipe.
        step: the last one in metrics.jsonl, from which a resumed run goes on; 0 in a new run.
        identity: finds the library's run again at a resume, wherever the folder has moved.
    """

    out: Path
    recipe: dict[str, Any]
    step: int
    identity: str


class Loggers:
    """All loggers of a run; a context manager.

    Args:
        names: libraries; none is fine.
        out: the run folder. On entering, its recipe.json tells this run from others of the same
            name, and its metrics.jsonl where it goes on: steps after that are replaced
            (tensorboard) or come a second time with the same numbers.
        recipe: the resolved recipe as plain values, kept with the run where the library can.
        note: takes the one line about a logger that failed.

    Raises UsageError for an unknown name, MachineError for a library that is not installed, and on
    entering for one that cannot begin; where a run goes on, that is a note as well.
    """

    def __init__(
        self,
        names: Sequence[str],
        out: Path,
        recipe: dict[str, Any],
        *,
        note: Callable[[str], object] = _LOGGER.warning,
    ) -> None:
        for name in names:
            if name not in get_args(Name):
                raise UsageError(
                    f"There is no tracker '{name}'; {did_you_mean(name, get_args(Name))}"
                )
            if importlib.util.find_spec(name) is None:
                raise MachineError(f"--log {name} needs {name}: pip install 'vitral[{name}]'")
        self.names = tuple(dict.fromkeys(names))
        self.note = note
        self.out = out
        self.recipe = recipe
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.open: list[Logger] = []
        self.thread = threading.Thread(target=self._work, name="loggers", daemon=True)

    def __enter__(self) -> Self:
        run = _Run(self.out, self.recipe, _last_step(self.out), _identity(self.out))
        for name in self.names:
            try:
                self.open.append(_begin(name, run))
            except Exception as error:  # whatever a library raises
                if run.step == 0:
                    self._close()
                    raise MachineError(
                        f"{name} cannot begin ({_first_line(error)}). Set it up, or leave out "
                        f"--log {name}."
                    ) from None
                self._lost(name, error)
        if self.open:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.thread.is_alive():
            self.lines.put(None)
            self.thread.join(CLOSING_SECONDS)
            if self.thread.is_alive():  # a daemon: it does not keep the process
                waiting = ", ".join(logger.name for logger in self.open)
                self.note(f"{waiting} did not finish in {CLOSING_SECONDS:.0f} s and was left.")

    def log(self, line: dict[str, Any]) -> None:
        """Pass on the finite numbers of a line of metrics.jsonl; returns at once."""
        if self.open:
            self.lines.put(dict(line))

    def _work(self) -> None:
        while (line := self.lines.get()) is not None:
            scalars = _scalars(line)
            for logger in list(self.open):
                try:
                    logger.log(line["step"], scalars)
                except Exception as error:  # a logger must never stop a run
                    self.open.remove(logger)
                    self._lost(logger.name, error)
        self._close()

    def _close(self) -> None:
        while self.open:
            try:
                self.open[0].close()
            except Exception as error:
                self._lost(self.open[0].name, error)
            del self.open[0]

    def _lost(self, name: str, error: Exception) -> None:
        self.note(
            f"{name} is left out from here on ({_first_line(error)}); metrics.jsonl has everything."
        )


def _begin(name: str, run: _Run) -> Logger:
    """The library's own run, a new one or the one that goes on."""
    match name:
        case "tensorboard":
            return _tensorboard(run)
        case "wandb":
            return _wandb(run)
        case "mlflow":
            return _mlflow(run)
        case "trackio":
            return _trackio(run)
        case _:
            raise UsageError(f"There is no tracker '{name}'.")


def _tensorboard(run: _Run) -> Logger:
    """Events in `out`/tensorboard; what was written of steps that are done again is hidden."""
    library: Any = importlib.import_module("torch.utils.tensorboard")
    folder = str(run.out / "tensorboard")
    newest = run.step
    writer = library.SummaryWriter(folder, purge_step=newest + 1 if newest else None)

    def log(step: int, scalars: dict[str, float]) -> None:
        nonlocal newest, writer
        if step < newest:  # the run returned to an earlier state
            writer.close()
            writer = library.SummaryWriter(folder, purge_step=step)
        newest = step
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # the writer's own two minutes are long for who watches

    return Logger("tensorboard", log, lambda: writer.close())  # noqa: PLW0108 - the newest one


def _wandb(run: _Run) -> Logger:
    """A run of the project `vitral`, or of WANDB_PROJECT; WANDB_MODE=offline writes into `out`."""
    library: Any = importlib.import_module("wandb")
    settings = library.Settings(silent=True, console="off", finish_timeout=CLOSING_SECONDS / 2)
    opened = library.init(
        project=os.environ.get("WANDB_PROJECT", "vitral"),
        name=run.out.resolve().name,
        id=run.identity,
        resume="allow",
        dir=str(run.out),
        config=run.recipe,
        settings=settings,
    )
    # its own count of steps would refuse those that are done again after a resume
    opened.define_metric("step")
    opened.define_metric("*", step_metric="step")
    return Logger(
        "wandb", lambda step, scalars: opened.log({"step": step, **scalars}), opened.finish
    )


def _mlflow(run: _Run) -> Logger:
    """A run of the experiment `vitral`, or of MLFLOW_EXPERIMENT_NAME, where MLflow is set to."""
    library: Any = importlib.import_module("mlflow")
    entities: Any = importlib.import_module("mlflow.entities")
    client = library.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vitral")
    existing = client.get_experiment_by_name(name)
    experiment = existing.experiment_id if existing else client.create_experiment(name)
    runs = client.search_runs([experiment], f"tags.`vitral.run` = '{run.identity}'")
    if runs:
        number = runs[0].info.run_id
        client.update_run(number, "RUNNING")
    else:
        tags = {"vitral.run": run.identity}
        opened = client.create_run(experiment, run_name=run.out.resolve().name, tags=tags)
        number = opened.info.run_id
        settings = [entities.Param(name, str(value)) for name, value in flat(run.recipe).items()]
        for first in range(0, len(settings), 100):  # MLflow takes no more at once
            client.log_batch(number, params=settings[first : first + 100])

    def log(step: int, scalars: dict[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [entities.Metric(name, value, now, step) for name, value in scalars.items()]
        client.log_batch(number, metrics=metrics)

    return Logger("mlflow", log, lambda: client.set_terminated(number))


def _trackio(run: _Run) -> Logger:
    """A run of the project `vitral`, in Trackio's own folder or the Space that it is set to."""
    library: Any = importlib.import_module("trackio")
    with contextlib.redirect_stdout(None):  # six lines that belong to no table of ours
        opened = contextvars.copy_context().run(  # or it finishes once more, aloud, at exit
            library.init,
            project="vitral",
            name=f"{run.out.resolve().name}-{run.identity[:6]}",
            config=run.recipe,
            resume="allow",
            embed=False,
        )

    def close() -> None:
        with contextlib.redirect_stdout(None):
            opened.finish()

    return Logger("trackio", lambda step, scalars: opened.log(scalars, step=step), close)


def _identity(out: Path) -> str:
    """The same for every sitting of a run, and for no other run."""
    try:
        content = (out / "recipe.json").read_bytes()  # written once, with the time
    except OSError:
        content = os.fsencode(out.resolve())
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _last_step(out: Path) -> int:
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _scalars(line: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a line: 'val_loss' as val/loss, 'loss' as train/loss."""
    return {
        f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}": float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:160]
