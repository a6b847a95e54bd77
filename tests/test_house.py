"""The habits of the house: floors are checked by lint-imports, the rest here."""

import ast
import importlib
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import vitral

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "vitral"
FILES = sorted(SOURCE.rglob("*.py"))
PUBLIC = ["Classifier", "__version__", "create", "load", "train"]
# lines of code: no blanks, comments or docstrings
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_TOGETHER = 18_000
NETWORK_LINES = 900
EQUATION_LINES = 120  # whole: it is read whole


def test_public_names_are_listed_and_resolve() -> None:
    assert sorted(vitral.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(vitral, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vitral.nothing


def code_lines(text: str) -> int:
    """Lines that are neither blank, nor a comment, nor part of a docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            string = node.body[0]
            documented |= set(range(string.lineno, (string.end_lineno or string.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), start=1)
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_ceilings(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert code_lines(text) <= MOST_LINES, f"{file} may hold more than one room"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = code_lines(
                textwrap.dedent(ast.get_source_segment(text, node, padded=True) or "")
            )
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{file.name}:{node.name} has {lines} lines"


def test_the_whole_stays_small() -> None:
    lines = {file: code_lines(file.read_text(encoding="utf-8")) for file in FILES}
    assert sum(lines.values()) <= MOST_LINES_TOGETHER
    network = sum(count for file, count in lines.items() if file.parent.name == "model")
    assert network <= NETWORK_LINES, "the network is read in one sitting"
    equations = (SOURCE / "model" / "equations.py").read_text(encoding="utf-8")
    assert len(equations.splitlines()) <= EQUATION_LINES


ROOMS = sorted({file.parent for file in FILES if file.parent != SOURCE})


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(SOURCE)))
def test_every_room_has_its_tests(room: Path) -> None:
    expected = ROOT / "tests" / "unit" / room.relative_to(SOURCE)
    assert any(expected.glob("test_*.py")), f"{room.relative_to(ROOT)} is tested in {expected}"


def test_nothing_is_unpickled_and_oracles_stay_outside() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            assert not roots & {"pickle", "timm", "transformers"}, file
            if "torchvision" in roots:
                assert file.relative_to(SOURCE).as_posix() == "images/augment.py", file


@pytest.mark.parametrize(
    "module", ["vitral", "vitral.cli", "vitral.catalog.checkpoints", "vitral.specs"]
)
def test_the_doors_open_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_have_no_side_effects() -> None:
    code = "import vitral.classifier, vitral.planning.plan"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b""
    assert done.stderr == b""


def test_the_changelog_knows_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(vitral.__version__)}", changelog, re.MULTILINE)


def test_contributing_is_one_page() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80


def test_pins_satisfy_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for requirement in asked:
        name = re.match(r"[\w-]+", requirement)
        assert name
        assert re.search(rf"^{name[0]}==", pins, re.MULTILINE), f"{name[0]} is not pinned"


def test_why_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    why = (ROOT / "docs" / "why.md").read_text(encoding="utf-8").lower()
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)
        assert name
        assert name[0].lower() in why, f"docs/why.md does not say why {name[0]} is there"


def test_no_module_is_left_out_of_the_architecture() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in SOURCE.iterdir():
        if path.name.startswith("__") or path.name in ("version.py", "py.typed"):
            continue
        name = f"{path.name}/" if path.is_dir() else path.name
        assert name in architecture, f"docs/architecture.md does not know {name}"


def test_every_module_imports() -> None:
    for file in FILES:
        if file.name != "__main__.py":
            parts = file.relative_to(SOURCE.parent).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
