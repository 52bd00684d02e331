"""Where something was run: commit, versions, hardware, memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS_OF = ("routedk-lite", "torch", "transformers", "peft", "datasets", "numpy", "bitsandbytes")


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the package's checkout, and whether tracked files differ from it.

    Where the tree was copied without git's state, or beside an older one, `ROUTEDK_COMMIT` says what it is: forty
    digits, with a `+` if there were changes (`git describe --always --abbrev=40 --exclude='*' --dirty=+` prints it).
    A package that lies in somebody else's repository, as in a virtual environment there, has no commit.

    Raises:
        ValueError: `ROUTEDK_COMMIT` is no commit.
    """
    if told := os.environ.get("ROUTEDK_COMMIT", "").strip():
        if not re.fullmatch(r"[0-9a-f]{40}\+?", told):
            raise ValueError(f"ROUTEDK_COMMIT = {told!r}: must be the forty digits of a commit, then a + if changed")
        return told.removesuffix("+"), told.endswith("+")
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        told = {"capture_output": True, "text": True, "errors": "replace"}
        return subprocess.run(["git", *words], cwd=here.parent, check=True, **told).stdout

    try:
        git("ls-files", "--error-unmatch", here.name)  # or the repository is about something else
        commit = git("rev-parse", "HEAD").strip()
        return commit, bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None


def package_versions() -> dict[str, str]:
    """Python's version and those of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU."""
    import psutil
    import torch

    found = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    return found


def surroundings() -> dict[str, Any]:
    """What a record or a benchmark says of where it was made: `commit`, `dirty`, `versions`, `hardware`."""
    commit, dirty = git_state()
    return {"commit": commit, "dirty": dirty, "versions": package_versions(), "hardware": hardware()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
