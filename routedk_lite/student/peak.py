"""The largest memory that a run has taken so far, and a training within it."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

from .allocator import give_back

_before = 0.0
"""Largest memory between `forget_peak` and the last `begin_peak`."""


def peak_memory_mb() -> float:
    """Largest memory since `forget_peak`, in MiB: of the GPU if one is in use, else of this process."""
    return max(_before, peak_since_mb())


def peak_since_mb() -> float:
    """Largest memory since `begin_peak`, as `peak_memory_mb`."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError, StopIteration):  # what getrusage says on Linux begins with what started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 2**20
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def begin_peak() -> None:
    """Let `peak_since_mb` begin at what is held now; what was before still counts in `peak_memory_mb`.

    What was freed before is given back first. Only Linux can do this for a process; elsewhere its peak is that of all
    that it has done.
    """
    global _before
    _before = peak_memory_mb()
    _reset()


def forget_peak() -> None:
    """Let both peaks begin at what is held now, so that one run of a process does not count for the next."""
    global _before
    _before = 0.0
    _reset()


def _reset() -> None:
    import torch

    if torch.cuda.is_initialized():  # or this would start it
        torch.cuda.reset_peak_memory_stats()
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
