"""The command `vitral`: one verb = one file. They parse and print; everything else lives below.

Torch is imported by the verb that needs it, so that `vitral --help` answers at once.
"""
# ruff: noqa: I001

from __future__ import annotations

import io
import os
import sys

# in the order of `vitral --help`: importing a verb hangs it on the application
from vitral.cli import demo, train, label  # noqa: F401
from vitral.cli import predict, fit, embed  # noqa: F401
from vitral.cli import check, models, bench, doctor  # noqa: F401
from vitral.cli import convert, export, push, shard  # noqa: F401
from vitral.cli import evaluate, explain, report, repeat  # noqa: F401
from vitral.cli.app import app
from vitral.cli.printing import is_first_process, print_error
from vitral.errors import Interrupted, MachineError, VitralError

__all__ = ["main"]


def main() -> None:
    """Run the verb that was typed, and turn errors into one sentence and an exit code."""
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
            print_error("Stopped at once. A run that has begun goes on: vitral train --resume RUN")
        raise
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (VitralError, OSError) as error:
        if debug:
            raise
        # what one process says, all would repeat; their machines alone may differ
        if is_first_process():
            print_error(str(error))
        elif isinstance(error, MachineError):
            print_error(f"process {os.environ['RANK']}: {error}")
        sys.exit(error.exit_code if isinstance(error, VitralError) else MachineError.exit_code)
