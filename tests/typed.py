"""A command as it is typed, run in this process: a new one takes seconds to import torch."""

import contextlib
import io
import sys

import pytest

from vitral import cli


def typed(*words: object) -> str:
    """What `vitral WORDS` prints, on both streams; it must end well."""
    text = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(text),
        pytest.raises(SystemExit) as stop,
    ):
        patch.setattr(sys, "argv", ["vitral", *map(str, words)])
        patch.setenv("COLUMNS", "200")
        cli.main()
    assert not stop.value.code, text.getvalue()
    return text.getvalue()
