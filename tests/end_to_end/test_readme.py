"""Every command and snippet of the README runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drawn import draw_folder

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [
    line.split("  #")[0].strip()
    for block in blocks("console")
    for line in block.splitlines()
    if line
]


def drawn_place(folder: Path) -> Path:
    """A folder with PHOTOS/ and photo.jpg, where the commands run in their order."""
    draw_folder(folder / "PHOTOS", kinds=3, each=5, size=64)
    shutil.copyfile(next((folder / "PHOTOS").rglob("*.jpg")), folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_place(tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def other_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_place(tmp_path_factory.mktemp("readme"))


def test_the_readme_has_its_two_commands_first() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.skipif(not (ROOT / ".venv" / ".dev").exists(), reason="needs `make env`")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_commands_mean_what_the_readme_says(command: str) -> None:
    """`make demo` is run whole by a proof; `make test` is what runs this."""
    done = subprocess.run(
        [*command.split(), "--dry-run", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("vitral demo" if "demo" in command else "pytest") in done.stdout
    assert "pip install" not in done.stdout, "a second run reuses the environment"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vitral")])
def test_vitral_commands_run(
    command: str,
    place: Path,
    demo: Any,
    vitral: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other in this process; proofs start a process for each.

    Those that load OpenVINO have a process of their own here too: after it a test process can die
    when it collects garbage, in modules that have nothing to do with it.
    """
    _, verb, *words = shlex.split(command)
    if verb == "demo":
        assert demo.run.exists()
        return
    if verb in ("bench", "export") or "--merge" in words:
        alone = [sys.executable, "-m", "vitral", verb, *words]
        done = subprocess.run(alone, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    monkeypatch.chdir(place)
    code, _, err = vitral(verb, *words)
    assert code == 0, err


@pytest.mark.proof
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vitral")])
def test_vitral_commands_run_each_in_its_own_process(
    command: str, other_place: Path, whole_demo: Any
) -> None:
    words = shlex.split(command)
    if words[1] == "demo":
        assert whole_demo.run.exists()  # `make demo OUT=RUN` is `vitral demo --out RUN`
        return
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=other_place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_python_snippets_run(place: Path, demo: Any) -> None:
    shutil.copyfile(demo.run / "digit.png", place / "digit.png")
    code = "\n".join(blocks("python"))
    assert "vitral.train" in code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()
    assert (place / "explained.png").exists()


def test_every_file_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_its_figures_are_those_of_the_benchmarks() -> None:
    command = [sys.executable, "benchmarks/readme.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
