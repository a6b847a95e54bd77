import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitral import cli
from vitral.cli.app import parse_size, refuse_overwrite, refuse_part_of
from vitral.cli.printing import print_lines, print_note, print_skipped
from vitral.cli.tables import evaluation_lines
from vitral.data.sources import Problem
from vitral.errors import UsageError, WeightsError
from vitral.evaluation import Table
from vitral.training.display import Display

Vitral = Callable[..., tuple[int, str, str]]
GROUPS = {
    "Learn from images": ["demo", "train", "label"],
    "Use a model": ["predict", "fit", "embed"],
    "Look around": ["check", "models", "bench", "doctor"],
    "Move weights and images": ["convert", "export", "push", "shard"],
    "Understand a model": ["evaluate", "explain", "report", "repeat"],
}


def test_help_groups_every_verb_by_what_one_wants(vitral: Vitral) -> None:
    code, out, _ = vitral("--help")
    assert code == 0
    found: dict[str, list[str]] = {}
    group = ""
    for line in out.splitlines():
        if line.startswith("╭─ "):
            group = line.strip("╭─╮ ")
        elif group in GROUPS and line.startswith("│ ") and line[2] != " ":
            found.setdefault(group, []).append(line.split()[1])
    assert found == GROUPS and list(found) == list(GROUPS)


def test_every_verb_is_a_file_and_has_help(vitral: Vitral) -> None:
    verbs = [verb for group in GROUPS.values() for verb in group]
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert files == {*verbs, "__init__", "app", "class_file", "in_parts", "printing", "tables"}
    for verb in verbs:
        code, text, _ = vitral(verb, "--help")
        assert code == 0
        assert len(text) > 100


def test_the_shell_completes_verbs_and_options() -> None:
    for typed, completed in (("vitral ev", "evaluate"), ("vitral train --dr", "--dry-run")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", "from vitral.cli import main; main()"],
            env=os.environ | words | {"_VITRAL_COMPLETE": "complete_bash"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [completed]


def test_version_and_no_arguments(vitral: Vitral) -> None:
    assert vitral("--version")[1].startswith("vitral ")
    assert "Usage" in vitral()[1]


def test_debug_shows_the_traceback(vitral: Vitral, tmp_path: Path) -> None:
    code, _, err = vitral("evaluate", tmp_path / "none", "digits")
    assert code == 4
    assert "Traceback" not in err
    with pytest.raises(WeightsError, match="none"):
        vitral("evaluate", tmp_path / "none", "digits", "--debug")


def test_sizes() -> None:
    assert parse_size(None) is None
    assert parse_size("224") == (224, 224)
    assert parse_size("224X320") == (224, 320)
    for wrong in ("", "0", "3x", "1x2x3", "big", "-1"):
        with pytest.raises(UsageError, match="like 224x320"):
            parse_size(wrong)


def test_what_was_given_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    image = tmp_path / "photos" / "a.jpg"
    image.write_text("")
    link = tmp_path / "link.jpg"
    link.symlink_to(image)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    refuse_overwrite([image], None)
    refuse_overwrite([image, tmp_path / "none.jpg"], tmp_path / "new.jpg")
    with pytest.raises(UsageError, match="one of the images"):
        refuse_overwrite([tmp_path / "none.jpg", image], tmp_path / "new.jpg", link)
    refuse_part_of(None, str(tmp_path))
    refuse_part_of(tmp_path / "photos" / "new.csv", str(tmp_path / "photos"))
    refuse_part_of(image, str(tmp_path / "others"), str(loop), "digits")
    for source in (image, tmp_path / "photos"):
        with pytest.raises(UsageError, match="is part of"):
            refuse_part_of(link, str(source))


def test_the_first_of_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem(f"{i}.jpg", "[It is empty.]") for i in range(7)]
    print_skipped(problems, "; see elsewhere")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "vitral: 0.jpg: [It is empty.]"
    assert lines[5:] == ["vitral: ... and 2 more; see elsewhere"]


NAME = "\x1b[31mred\n[b]x[/b]"  # of a class, a file or a table's cell


def test_names_are_printed_on_their_line_and_command_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table(headings=("class", "images"), rows=((NAME, "3"),))
    print_lines([f"a {NAME}", *evaluation_lines(SimpleNamespace(lines=lambda: [table]))])
    print_note(f"b {NAME}")
    Display().note(f"c {NAME}")
    out, err = capsys.readouterr()
    escaped = r"\x1b[31mred\n[b]x[/b]"
    assert out.splitlines()[0] == f"a {escaped}" and out.count(escaped) == 2
    assert err == "b \\x1b[31mred\n[b]x[/b]\n" + f"c {escaped}\n"
    assert "\x1b" not in out + err
