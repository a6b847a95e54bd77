"""What is packed is whole, installs anywhere, and trains there."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = (  # what is no Python, by folder
    "vitral/py.typed",
    "vitral/catalog/*.toml",
    "vitral/catalog/labels/*.txt",
    "vitral/report/templates/*",
    "vitral/weights/formats/tables/*.toml",
)


def run(*words: Any, cwd: Path) -> str:
    """The output of a command that sees no source tree."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(packed: Path) -> Path:
    [path] = packed.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "vitral").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == expected
    for pattern in DATA:
        assert any(Path(name).match(pattern) for name in names), f"no {pattern}"


def test_the_source_package_holds_what_its_tests_need(packed: Path) -> None:
    [path] = packed.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("LICENSE", "Makefile", "constraints.txt", "CITATION.cff", "tests/conftest.py"):
        assert name in names
    assert not any(".venv" in name or "__pycache__" in name for name in names)


def test_its_description_shows_on_a_package_index(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    text = str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "## Two commands" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://"), f"{target} leads nowhere on a package index"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_links_become_absolute_with_an_address() -> None:
    namespace: dict[str, Any] = {}
    exec((ROOT / "hatch_build.py").read_text(encoding="utf-8"), namespace)
    absolute = namespace["absolute"]
    text = "![A 4](docs/4.png) [Why](docs/why.md#images) [paper](https://arxiv.org) [up](#top)"
    assert absolute(text, "https://host/vitral") == (
        "![A 4](https://host/vitral/raw/main/docs/4.png) "
        "[Why](https://host/vitral/blob/main/docs/why.md#images) "
        "[paper](https://arxiv.org) [up](#top)"
    )
    assert absolute(text, None) == " Why [paper](https://arxiv.org) [up](#top)"


def install(wheel: Path, folder: Path, *options: Any) -> Path:
    """The folder of commands of a new environment with the wheel in it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", *options, wheel, cwd=folder)
    return folder / "bin"


def learns(commands: Path, folder: Path) -> None:
    """The first epochs of the demo, and an answer of what they gave."""
    version = run(commands / "vitral", "--version", cwd=folder)
    assert importlib.metadata.version("vitral") in version
    where = run(commands / "python", "-c", "import vitral; print(vitral.__file__)", cwd=folder)
    assert where.startswith(str(commands.parent.resolve()))
    run(commands / "vitral", "train", "digits", "--epochs", 2, "--out", "run", cwd=folder)
    assert (folder / "run" / "best" / "model.safetensors").exists()
    assert "<html" in (folder / "run" / "report.html").read_text(encoding="utf-8")


def test_an_installed_wheel_trains(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which borrows the libraries of this one."""
    folder = tmp_path / "environment"
    options = ("--no-deps", "--no-index", "--ignore-installed")
    commands = install(wheel, folder, *options)
    [packages] = folder.glob("lib/python*/site-packages")
    # a path in a .pth file is added without the .pth files that it holds, such as vitral's own
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    learns(commands, tmp_path)


@pytest.mark.proof
def test_a_wheel_installs_from_nothing(wheel: Path, tmp_path: Path) -> None:
    """With every library from the package index."""
    commands = install(wheel, tmp_path / "environment", "-c", ROOT / "constraints.txt")
    learns(commands, tmp_path)
