"""What this machine offers, for `vitral doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vitral.version import VERSION

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
    "matplotlib",
    "jinja2",
    "typer",
    "rich",
)
NEEDED_DISK = 1 << 30  # one run of a small model with its two resume slots


@dataclass(frozen=True, slots=True)
class Survey:
    """Facts by name, and what stands in the way (empty: ready)."""

    facts: dict[str, str]
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"ready": not self.problems, "facts": self.facts, "problems": self.problems}


def survey() -> Survey:
    """Look at versions, devices, memory and disk; nothing is changed."""
    problems: list[str] = []
    facts = {
        "vitral": VERSION,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            problems.append(f"{package} is not installed: pip install vitral")
    facts |= _devices(problems)
    facts |= _storage(problems)
    return Survey(facts, problems)


def _devices(problems: list[str]) -> dict[str, str]:
    try:
        import torch  # a broken torch must be reported, not crash the report
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported: {error}")
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"cpu": f"{cores} cores, {torch.get_num_threads()} torch threads"}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory"] = f"{memory / 1e9:.1f} GB"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            facts[f"cuda:{index}"] = f"{device.name}, {device.total_memory / 1e9:.0f} GB"
    elif torch.version.cuda:
        problems.append(
            f"torch is built for CUDA {torch.version.cuda} but finds no usable GPU; "
            f"install the driver, or go on with the CPU."
        )
    else:
        facts["gpu"] = "none used: torch is a CPU build (README: how to get CUDA)"
    return facts


def _storage(problems: list[str]) -> dict[str, str]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    if free < NEEDED_DISK:
        problems.append(f"only {free / 1e9:.1f} GB are free in {here}; a run needs about 1 GB.")
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        problems.append(f"{here} is not writable ({error.strerror}); use --out elsewhere.")
    return {"disk": f"{free / 1e9:.0f} GB free in {here}"}
