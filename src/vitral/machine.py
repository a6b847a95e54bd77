"""This machine: its cores and memory, what `vitral doctor` tells of it, and how processes end."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.version import VERSION
from vitral.wording import byte_size

if TYPE_CHECKING:
    import torch  # imported where it is needed: a broken one must be reported

NEEDED_DISK = 1 << 30  # one run of a small model with its two resume slots


@dataclass(frozen=True, slots=True)
class Survey:
    """Facts by name, and what stands in the way (empty: ready)."""

    facts: dict[str, str]
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"ready": not self.problems, "facts": self.facts, "problems": self.problems}


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache
def multiplies_bf16() -> bool:
    """Tell whether the processor has instructions that multiply bfloat16 (AMX, AVX-512).

    By what Linux says of it: torch's own answer, torch.cpu.get_capabilities, is of torch 2.11.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def may_have_gpu() -> bool:
    """Tell, without torch, whether there may be a GPU that it could compute on."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or sys.platform == "win32"


def total_memory() -> int | None:
    """Count the bytes of memory in this machine; None where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_memory(device: torch.device) -> int:
    """Count the bytes that are free on a device; of the CPU's, those that its container leaves."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return free_cpu_memory()


def free_cpu_memory() -> int:
    """Count the bytes of the machine's memory that are free, and that its container leaves."""
    free = total_memory() or sys.maxsize
    try:
        table = Path("/proc/meminfo").read_text(encoding="ascii")
        free = 1024 * int(table.split("MemAvailable:")[1].split()[0])
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return min(free, int((group / "memory.max").read_text(encoding="ascii")) - used)
    except (OSError, ValueError, IndexError):  # another system, or no limit ("max")
        return free


def used_memory() -> int:
    """Count the bytes that tensors took on the GPUs at most, or that the process takes now."""
    import torch

    if torch.cuda.is_initialized():  # asking would begin to use a GPU that the run leaves alone
        devices = range(torch.cuda.device_count())
        if most := max((torch.cuda.max_memory_allocated(i) for i in devices), default=0):
            return most
    return _resident("VmRSS")


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` begin anew."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew


def peak_memory(device: torch.device) -> int:
    """Count the bytes that tensors took on a GPU, or the process, at most since forget_peak."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def peak_resident() -> int:
    """Count the bytes that this process took at most; of its own program, not its parent's."""
    return _resident("VmHWM")


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether memory ran out; on a CPU torch says so in words alone."""
    import torch

    typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return typed or any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def survey() -> Survey:
    """Look at versions, devices, memory and disk; nothing is changed."""
    problems: list[str] = []
    facts = {
        "vitral": VERSION,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in _packages():
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            problems.append(f"{package} is not installed: pip install vitral")
    facts |= _devices(problems)
    facts |= _storage(problems)
    return Survey(facts, problems)


def _packages() -> list[str]:
    """Name the packages that Vitral asks for; none if it was never installed."""
    try:
        requirements = metadata.requires("vitral") or []
    except metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", one)[0] for one in requirements if "extra ==" not in one]


def _resident(name: str) -> int:
    """Read a line of /proc/self/status in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split(f"{name}:")[1].split()[0])
    except (OSError, ValueError, IndexError):  # no Linux: the most it ever took, in bytes on macOS
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _devices(problems: list[str]) -> dict[str, str]:
    try:
        import torch  # a broken torch must be reported, not crash the report
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported: {error}")
        return {}
    facts = {"cpu": f"{cores()} cores, {torch.get_num_threads()} torch threads"}
    if memory := total_memory():
        facts["memory"] = byte_size(memory)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            facts[f"cuda:{index}"] = f"{device.name}, {byte_size(device.total_memory)}"
    elif torch.version.cuda:
        problems.append(
            f"torch is built for CUDA {torch.version.cuda} but finds no usable GPU; "
            f"install the driver, or go on with the CPU."
        )
    else:
        facts["gpu"] = "none used: torch is a CPU build (README: how to get CUDA)"
    return facts


def _storage(problems: list[str]) -> dict[str, str]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    if free < NEEDED_DISK:
        problems.append(f"only {byte_size(free)} are free in {folder}; a run needs about 1 GB.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problems.append(f"{folder} is not writable ({error.strerror}); use --out elsewhere.")
    return {"disk": f"{byte_size(free)} free in {folder}"}
