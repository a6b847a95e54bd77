"""One verb = one function. These files parse and print; everything else lives below.

Torch is imported by the verb that needs it, so that `vitral --help` answers at once.
"""
# ruff: noqa: I001

from __future__ import annotations

import io
import os
import sys

# in the order of `vitral --help`: importing a file of verbs hangs them on the application
from vitral.cli import train, evaluate, explain, embed, report  # noqa: F401
from vitral.cli import check, convert, models  # noqa: F401
from vitral.cli.app import app, complain, first_process
from vitral.errors import Interrupted, MachineError, VitralError

__all__ = ["main"]


def main() -> None:
    """The `vitral` command: runs a verb, and turns errors into one sentence and an exit code."""
    # Torch's CPU threads spin while they wait, which beside one busy process made a step of the
    # digits 6 to 13 times slower. Not to spin at all costs it 1.4 times on an idle machine; a
    # thousand turns cost nothing there, and 1.4 times beside a busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # of GCC's OpenMP, and stronger than the policy
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that cannot be shown is escaped instead
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="vitral")
    except SystemExit as stop:
        at_once = isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt)
        if stop.code == Interrupted.exit_code and at_once:
            complain("Stopped at once. A run that has begun goes on: vitral train --resume RUN")
        raise
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (VitralError, OSError) as error:
        if debug:
            raise
        number = "" if first_process() else f"process {os.environ['RANK']}: "
        if first_process() or isinstance(error, MachineError):  # what one says, all would repeat
            complain(f"{number}{error}")
        sys.exit(error.exit_code if isinstance(error, VitralError) else MachineError.exit_code)
