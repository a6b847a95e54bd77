from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contexts import context
from drawn import draw_folder
from planned import resolve
from vitral.errors import ModelError
from vitral.planning.plan import open_data
from vitral.planning.request import Request
from vitral.training import recovery, run_folder, state
from vitral.training.display import Display
from vitral.training.loop import run_steps, save_state
from vitral.training.session import Session, begin_run
from vitral.training.step import Diverged

SMALL = ["data.workers=0", "precision=fp32", "schedule.warmup=0 epochs", "length=9 steps"]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    photos = draw_folder(tmp_path / "photos", kinds=3, each=12)
    recipe = resolve(Request(data=str(photos), model="mu/8", size=32, batch=8, changes=SMALL))
    data = open_data(recipe.data, recipe.images.size)
    recipe, out = run_folder.with_data(recipe, data), tmp_path / "run"
    torch.manual_seed(recipe.seed)
    begun = begin_run(context(recipe, data, out, Display(quiet=True)))
    run_folder.create(out, recipe, data)
    return begun


def weights(session: Session) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in session.backbone.named_parameters()}


def test_a_state_that_is_bad_itself_is_thrown_away(session: Session) -> None:
    """Two slots, of steps 4 and 7: first the newer, then the older, then the start."""
    first = weights(session)
    saved: dict[int, dict[str, torch.Tensor]] = {0: first}
    for step in (4, 7):
        session.progress.step = step
        with torch.no_grad():
            session.backbone.get_parameter("cls").add_(1.0)
        saved[step] = weights(session)
        save_state(session)
    for expected in (7, 4, 0):
        session = recovery.roll_back(session, Diverged("bad"))
        assert session.progress.step == expected
        assert all(p.equal(saved[expected][n]) for n, p in session.backbone.named_parameters())
    assert (session.progress.retries, session.progress.rate) == (3, 0.125)
    assert state.progress_of(session.run.out / "state") is None
    with pytest.raises(ModelError, match="3 times with half"):
        recovery.roll_back(session, Diverged("bad"))


def test_progress_between_two_returns_keeps_the_newest_state(session: Session) -> None:
    for step in (4, 7):
        session.progress.step = step
        save_state(session)
    session = recovery.roll_back(session, Diverged("bad"))
    session.progress.step = 8  # one step was fine
    session = recovery.roll_back(session, Diverged("bad"))
    assert session.progress.step == 7


def test_smaller_parts_until_there_are_none(session: Session) -> None:
    session.run = replace(session.run, recipe=replace(session.run.recipe, accumulate=3))
    for parts in (6, 8):  # of 8 images
        recovery.split_further(session)
        assert session.grad_accumulation == parts
    with pytest.raises(Exception, match="too small for 1 images"):
        recovery.split_further(session)
    run_steps(session, [])
    assert session.progress.step == session.total
    assert load_file(session.run.out / "best" / "model.safetensors")


def test_a_run_without_a_whole_state_begins_as_it_began(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    first = weights(session)
    for step in (4, 7):
        session.progress.step = step
        save_state(session)
    for slot in (session.run.out / "state").iterdir():
        content = bytearray(slot.read_bytes())
        content[-5] ^= 1
        slot.write_bytes(content)
    again = recovery.restore(replace(session.run, display=Display()))
    assert "no whole state is left: the run begins again" in capsys.readouterr().err
    assert again.progress.step == 0
    assert all(p.equal(first[name]) for name, p in again.backbone.named_parameters())
