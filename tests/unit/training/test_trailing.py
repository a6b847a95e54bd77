"""A step waits for nothing that a GPU computes, and what it measures is read one step late."""

import contextlib
import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import adam, adamw
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contexts import context
from drawn import draw_folder
from planned import resolve, train
from vitral.errors import Interrupted
from vitral.planning.plan import open_data, resume
from vitral.planning.request import Request
from vitral.training import loop, run_folder, trailing
from vitral.training import step as step_module
from vitral.training.display import Display
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.ema import EMA
from vitral.training.optimizer import build as build_optimizer
from vitral.training.session import Session, begin_run
from vitral.training.step import read, step, steps_left

SMALL = ["data.workers=0", "precision=fp32", "schedule.warmup=0 epochs", "length=6 steps"]


class Watch(TorchDispatchMode):
    """Lists the copies between the CPU and a device for which the caller waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        values = tree_leaves((args, kwargs))
        tensors = [x for x in values if isinstance(x, Tensor) and x.ndim]
        places = {x.device.type for x in tensors} | {
            torch.device(kwargs.get("device") or "cpu").type
        }
        self.calls += "meta" in places
        crosses = "meta" in places and any(x.device.type == "cpu" for x in tensors)
        if crosses and not kwargs.get("non_blocking"):
            self.waits.append(str(func))
        return func(*args, **kwargs)


class Lists(TorchFunctionMode):
    """Tells a `Watch` of tensors that are made of Python's numbers on a device: they are copied."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and torch.device(kwargs.get("device") or "cpu").type != "cpu":
            self.watch.waits.append(str(func))
        return func(*args, **kwargs)


class Sent:
    """`Fetched` without a GPU that could send."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device whose tensors hold no values, so that nobody can read one, in a GPU's place."""
    device = torch.device("meta")
    monkeypatch.setattr(trailing, "works_apart", lambda device: device.type == "meta")
    monkeypatch.setattr(step_module, "Fetched", Sent)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    # torch 2.6 asks in what follows whether the device has a fused kernel
    for module in (adam, adamw):
        monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda _: None, raising=False)
    return device


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("data") / "photos", kinds=3, each=12)


def begin(photos: Path, out: Path, *changes: str) -> Session:
    asked = Request(data=str(photos), model="mu/8", size=32, batch=12, changes=[*SMALL, *changes])
    recipe = resolve(asked)
    data = open_data(recipe.data, recipe.images.size)
    recipe = run_folder.with_data(recipe, data)
    torch.manual_seed(0)
    return begin_run(context(recipe, data, out, Display(quiet=True)))


def moved(session: Session, device: torch.device) -> Session:
    """As one that began there; at the beginning it may read and wait."""
    session.objective.to(device)
    if session.objective.class_weights is not None:
        session.objective.class_weights = session.objective.class_weights.to(device)
    session.optimizer = build_optimizer(session.objective, session.run.recipe.optimizer)
    session.ema = EMA(session.objective, session.run.recipe.ema)
    session.run = replace(session.run, group=ProcessGroup(device))
    return session


KINDS = [
    ("ema=0.99", "noise.drop_path=0.2", "noise.patch_dropout=0.25", "accumulate=2"),
    ("augment.mixup=0.4", "augment.cutmix=1", "checkpointing=true", "optimizer.layer_decay=0.7"),
    ("optimizer.kind=lamb", "objective.loss=bce", "model.positions=rope2d"),
    ("optimizer.kind=sgd", "objective.class_weights=balanced", "noise.dropout=0.1"),
]


@pytest.mark.parametrize("changes", KINDS)
def test_a_step_reads_nothing_from_a_gpu_and_waits_for_no_copy(
    photos: Path, tmp_path: Path, gpu: torch.device, changes: tuple[str, ...]
) -> None:
    """Each would leave the GPU without work while the next step is prepared."""
    session = moved(begin(photos, tmp_path, *changes), gpu)
    with contextlib.closing(steps_left(session)) as steps:
        step(session, next(steps))  # the optimizer makes its state
        with Watch() as watch, Lists(watch):
            taken = step(session, next(steps))
    assert watch.waits == []
    assert watch.calls > 300, "the step was computed"
    values = taken.values.values
    assert values.device == gpu
    assert len(values) == 1 + len(taken.measures) + len(taken.gradients)


def test_the_watch_sees_what_waits(gpu: torch.device) -> None:
    """Each of these stood in the step once."""
    values = torch.zeros(3, device=gpu)
    for reads in (values.sum().item, values.tolist, lambda: bool(values.any())):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            reads()
    with Watch() as watch, Lists(watch):
        torch.tensor([1, 2, 3], device=gpu)
        torch.zeros(3).to(gpu)
        assert len(watch.waits) == 2
        trailing.to_device(torch.zeros(3), gpu)
        assert len(watch.waits) == 2


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps are read one late, as beside a GPU; how many were under way at each."""
    monkeypatch.setattr(trailing, "steps_behind", lambda device: 1)
    under_way: list[int] = []
    record = loop.record

    def watched(session: Session, done: int, result: Any) -> None:
        under_way.append(session.progress.step - done)
        record(session, done, result)

    monkeypatch.setattr(loop, "record", watched)
    return under_way


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "last" / "model.safetensors")


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    changing = ("seconds", "memory", "images_per_second")
    return [{k: v for k, v in line.items() if k not in changing} for line in found]


def asked(photos: Path, *changes: str) -> Request:
    more = [*SMALL, "evaluate_every=4 steps", *changes]
    return Request(data=str(photos), model="mu/8", size=32, batch=12, changes=more)


def test_a_run_that_is_read_late_is_the_same_run(
    photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = resolve(asked(photos))
    train(recipe, tmp_path / "at once", display=Display(quiet=True))
    under_way = request.getfixturevalue("late")
    train(recipe, tmp_path / "late", display=Display(quiet=True))
    assert under_way == [1, 1, 1, 0, 1, 0], "all are read before a validation and at the end"
    first, second = (weights(tmp_path / name) for name in ("at once", "late"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines(tmp_path / "at once") == lines(tmp_path / "late")


class Stopping(Display):
    """Presses Ctrl-C when a step is shown."""

    def step(self, done: int, *rest: Any, **more: Any) -> None:
        super().step(done, *rest, **more)
        if done == 2:
            signal.raise_signal(signal.SIGINT)


def test_what_is_saved_between_two_reads_goes_on_to_the_same_bits(
    photos: Path, tmp_path: Path, late: list[int]
) -> None:
    recipe = resolve(asked(photos))
    train(recipe, tmp_path / "whole", display=Display(quiet=True))
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(recipe, tmp_path / "run", display=Stopping(quiet=True))
    resume(tmp_path / "run", display=Display(quiet=True))
    first, second = (weights(tmp_path / name) for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines(tmp_path / "whole") == lines(tmp_path / "run")


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb"])
def test_a_step_that_is_not_finite_moves_nothing_and_is_told_after_the_next(
    photos: Path, tmp_path: Path, kind: str
) -> None:
    session = begin(photos, tmp_path, f"optimizer.kind={kind}")
    with contextlib.closing(steps_left(session)) as steps:
        read(session, step(session, next(steps)))
        before = {name: p.detach().clone() for name, p in session.backbone.named_parameters()}
        normed = session.backbone.norm.register_full_backward_pre_hook(
            lambda _, gradients: (gradients[0] * math.inf,)
        )
        bad = step(session, next(steps))
        normed.remove()
        assert all(torch.equal(p, before[n]) for n, p in session.backbone.named_parameters())
        session.progress.step += 1
        step(session, next(steps))
        session.progress.step += 1
    with pytest.raises(step_module.Diverged, match=r"Step 0 .*first bad tensor: gradient of"):
        read(session, bad)
    assert session.progress.step == bad.number


@pytest.mark.parametrize("number", [3, 4, 5])
def test_a_return_leaves_no_trace_of_the_steps_that_were_under_way(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Read at once or late, a run that meets a bad step ends with the same bits."""
    recipe = resolve(asked(photos))
    notes: list[str] = []
    monkeypatch.setattr(Display, "note", lambda self, text: notes.append(text))
    count = {"steps": 0}

    class Broken(trailing.Fetched):
        def read(self) -> list[float]:
            count["steps"] += 1
            return (
                [math.nan for _ in super().read()] if count["steps"] == number else super().read()
            )

    monkeypatch.setattr(step_module, "Fetched", Broken)
    for behind in (0, 1):
        count["steps"] = 0
        monkeypatch.setattr(trailing, "steps_behind", lambda device, n=behind: n)
        train(recipe, tmp_path / str(behind), display=Display(quiet=True))
        assert sum(note.startswith(f"Step {number - 1} is not finite") for note in notes) == 1
        assert sum("learning rate at 0.5" in note for note in notes) == 1
        notes.clear()
    first, second = (weights(tmp_path / name) for name in "01")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines(tmp_path / "0") == lines(tmp_path / "1")
