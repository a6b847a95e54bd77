"""OpenVINO itself, imported in one place, so that nothing is sent of its use.

Its package counts every import in the user's home and reports conversions to its makers, unless it
finds no telemetry package, for which it brings a stand-in.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

LEAST = (2026, 0)  # the oldest release that was tried
TELEMETRY = "openvino_telemetry"


@lru_cache
def runtime() -> Any | None:
    """Import OpenVINO; None where it is not installed, too old, or does not start here."""
    try:
        with without_telemetry():
            openvino = importlib.import_module("openvino")
    except (ImportError, OSError, RuntimeError):
        return None
    return openvino if version(openvino) >= LEAST else None


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Let OpenVINO and NNCF not find the package by which they tell of their use."""
    hidden = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # importing it fails from here on
    try:
        yield
    finally:
        if hidden is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = hidden


def version(openvino: Any) -> tuple[int, int]:
    """Return the year and the release of a version such as 2026.4.1."""
    numbers = str(openvino.__version__).split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (ValueError, IndexError):
        return 0, 0


@lru_cache
def processor() -> str:
    """Name the processor: what is compiled or measured on one says nothing of another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    parts = [
        named.get(key, "") for key in ("model name", "cpu family", "model", "stepping", "flags")
    ]
    openvino = runtime()
    name = "" if openvino is None else openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    return " ".join([*parts, str(name)])
