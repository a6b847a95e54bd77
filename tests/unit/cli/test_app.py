import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Vitral = Callable[..., tuple[int, str, str]]
VERBS = ("demo", "train", "evaluate", "predict", "explain", "convert", "models", "doctor")


def test_help_names_every_verb_and_each_verb_has_help(vitral: Vitral) -> None:
    code, out, _ = vitral("--help")
    assert code == 0
    for verb in VERBS:
        assert verb in out
        code, text, _ = vitral(verb, "--help")
        assert code == 0
        assert len(text) > 100


def test_version_and_no_arguments(vitral: Vitral) -> None:
    assert vitral("--version")[1].startswith("vitral ")
    assert "Usage" in vitral()[1]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vitral", "evaluate", str(tmp_path / "none"), "digits"]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    assert plain.returncode == 4
    assert "Traceback" not in plain.stderr
    debug = subprocess.run([*words, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in debug.stderr
