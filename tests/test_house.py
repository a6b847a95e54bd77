"""The habits of the house: floors and circles are checked by lint-imports, the rest here."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import vitral

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "vitral"
FILES = sorted(SOURCE.rglob("*.py"))
PUBLIC = ["Classifier", "__version__", "create", "fit", "load", "save", "train"]
# lines of code: no blanks, comments or docstrings
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_TOGETHER = 32_500
NETWORK_LINES = 960
EQUATION_LINES = 120  # whole: it is read whole


def test_public_names_are_listed_and_resolve() -> None:
    assert sorted(vitral.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(vitral, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vitral.nothing


TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def where(file: Path, node: ast.AST | None = None) -> str:
    """A file of the package, and the line: data/check.py:82."""
    return f"{file.relative_to(SOURCE).as_posix()}:{getattr(node, 'lineno', 1)}"


def docstring(node: ast.AST) -> ast.Expr | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    return node.body[0] if ast.get_docstring(node) else None


def code_lines(file: Path) -> set[int]:
    """The numbers of the lines that are neither blank, nor a comment, nor part of a docstring."""
    lines = file.read_text(encoding="utf-8").splitlines()
    code = {n for n, line in enumerate(lines, start=1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(TREES[file]):
        if string := docstring(node):
            code -= set(range(string.lineno, string.end_lineno + 1))
    return code


CODE = {file: code_lines(file) for file in FILES}


def test_ceilings() -> None:
    long = [where(file) for file in FILES if len(CODE[file]) > MOST_LINES]
    assert not long, "may hold more than one room"
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = CODE[file] & set(range(node.lineno, node.end_lineno + 1))
                if len(lines) > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{where(file, node)} {node.name}: {len(lines)}")
    assert not long


def test_the_whole_stays_small() -> None:
    assert sum(map(len, CODE.values())) <= MOST_LINES_TOGETHER
    network = sum(len(lines) for file, lines in CODE.items() if file.parent.name == "model")
    assert network <= NETWORK_LINES, "the network is read in one sitting"
    equations = (SOURCE / "model" / "equations.py").read_text(encoding="utf-8")
    assert len(equations.splitlines()) <= EQUATION_LINES


def unrelated_values(node: ast.AST) -> bool:
    """`a, b = x, y`, unless a value reads what another one is assigned to (`a, b = b, a`)."""
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)):
        return False
    [*_, target] = node.targets
    if not isinstance(target, ast.Tuple) or len(target.elts) != len(node.value.elts):
        return False
    pairs = list(zip(map(ast.unparse, target.elts), node.value.elts, strict=True))
    return not any(
        name != own and name in map(ast.unparse, ast.walk(value))
        for own, value in pairs
        for name, _ in pairs
    )


def text_times_truth(node: ast.AST) -> bool:
    """`"s" * (n > 1)`, `["--shard"] * where.shard`: what `if` is for."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return False
    displays = (ast.JoinedStr, ast.List, ast.Tuple)
    for text, times in ((node.left, node.right), (node.right, node.left)):
        if isinstance(text, displays) or (
            isinstance(text, ast.Constant) and isinstance(text.value, str | bytes)
        ):
            if isinstance(times, ast.Compare | ast.BoolOp):
                return True
            if isinstance(times, ast.UnaryOp) and isinstance(times.op, ast.Not):
                return True
            if isinstance(times, ast.Call) and ast.unparse(times.func) in BOOLEAN_CALLS:
                return True
            if isinstance(times, ast.Attribute) and times.attr in BOOLEAN_FIELDS:
                return True
    return False


BOOLEAN_CALLS = {"bool", "any", "all", "isinstance", "hasattr"}
BOOLEAN_FIELDS = {
    node.target.id
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.AnnAssign)
    and isinstance(node.target, ast.Name)
    and ast.unparse(node.annotation) == "bool"
}
# A first line that begins so needs the signature to be understood.
FRAGMENTS = ("What", "Whether", "How", "Which", "Where", "Why", "Who", "Whose", "Of", "From", "By")
FRAGMENTS += ("In", "Into", "On", "At", "To", "With", "Without", "For", "As", "Until", "Per")


def fragment(node: ast.AST) -> bool:
    """A public docstring whose first line does not stand alone."""
    if docstring(node) is None or getattr(node, "name", "").startswith("_"):
        return False
    return ast.get_docstring(node).split()[0] in FRAGMENTS


@pytest.mark.parametrize("law", [unrelated_values, text_times_truth, fragment])
def test_the_language_is_plain(law: Callable[[ast.AST], bool]) -> None:
    broken = [
        where(file, node) for file, tree in TREES.items() for node in ast.walk(tree) if law(node)
    ]
    assert not broken, law.__doc__


ROOMS = sorted({file.parent for file in FILES if file.parent != SOURCE})


def test_every_room_has_its_tests() -> None:
    for room in ROOMS:
        expected = ROOT / "tests" / "unit" / room.relative_to(SOURCE)
        assert any(expected.glob("test_*.py")), f"{where(room)} is tested in {expected}"


def imports(file: Path) -> set[str]:
    """The modules that a file names in its imports, wherever they stand in it."""
    names = set()
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_nothing_is_unpickled_and_oracles_stay_outside() -> None:
    for file in FILES:
        roots = {name.split(".")[0] for name in imports(file)}
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


def test_the_lowest_versions_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = [*project["dependencies"], *project["optional-dependencies"]["heif"]]
    bounds = dict(requirement.split(";")[0].split(">=") for requirement in asked)
    assert pins.keys() == bounds.keys()
    for name, bound in bounds.items():  # 1.11 is met by 1.11.1, where that was its first release
        assert f"{pins[name]}.".startswith(f"{bound}."), f"`make lowest` runs another {name}"


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
