"""The largest memory that a run has taken so far."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

from .allocator import give_back


def peak_memory_mb() -> float:
    """Largest memory since `forget_peak`, in MiB: of the GPU if one is in use, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 2**20
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak() -> None:
    """Let the peak begin at what is held now, so that one run of a process does not count for the next.

    What earlier runs have freed is given back first. Only Linux can do this for a process; elsewhere the peak of a
    process is that of all its runs.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
