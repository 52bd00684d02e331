"""What this machine can run, and what is missing."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Profile, known_profiles
from ..data.domains import domain_is_cached
from ..data.sessions import PUBLIC_DOMAINS
from ..files import cache_dir
from ..places import check_writable, user_folder
from ..student.backbone import choose_dtype, has_fast_bf16, is_cached
from ..study.machine import hardware, package_versions
from .tables import text_table

USABLE = 0.875
"""Of the memory that a machine or a GPU is sold with (`Profile.memory_gb`), how much there is at least: its system and
its driver keep some."""


def report() -> str:
    """Facts about the machine, then a line per profile."""
    import torch

    machine, versions = hardware(), package_versions()
    folder = cache_dir()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [
        f"Python {versions.pop('python')} at {sys.executable}",
        "packages: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"processor: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB of memory",
        "bfloat16 in hardware: " + ("yes" if has_fast_bf16() else "no (this CPU trains in float32, far slower)"),
        f"GPU: {_gpu(machine)}",
        f"compute type: {str(choose_dtype('auto', device)).removeprefix('torch.')} on {device}",
        f"cache: {folder}, {_room(folder)}",
        "public data: "
        + ", ".join(f"{name} {'cached' if domain_is_cached(name) else 'missing'}" for name in PUBLIC_DOMAINS),
    ]
    if not all(map(domain_is_cached, PUBLIC_DOMAINS)):
        lines.append("  get them with: routedk data fetch")
    rows = [[name, profile.student.id, verdict(profile)] for name, profile in known_profiles().items()]
    return "\n".join(lines) + "\n\n" + text_table(["profile", "student", "can run?"], rows, text_columns=3)


def _gpu(machine: Mapping[str, Any]) -> str:
    import torch

    if "gpu" in machine:
        return f"{machine['gpu']}, capability {machine['capability']}"
    return "Apple's, which is not used" if torch.backends.mps.is_available() else "none"


def _room(cache: Path) -> str:
    """How much fits into a folder, or why nothing does."""
    try:
        check_writable(user_folder(cache, "ROUTEDK_CACHE"), "ROUTEDK_CACHE")
    except ValueError as error:
        return f"to be read only: {error}"
    existing = next(part for part in (cache, *cache.parents) if part.is_dir())
    return f"{shutil.disk_usage(existing).free / 2**30:.0f} GB free"


def verdict(profile: Profile) -> str:
    """Whether a profile can run here, or what is missing."""
    if lacking := missing(profile):
        return "no: " + ", ".join(lacking)
    return "yes" if is_cached(profile.student) else "yes, after fetching the student"


def missing(profile: Profile) -> list[str]:
    """What a profile needs and this machine has not; empty where it can run."""
    import psutil
    import torch

    on_gpu, lacking = profile.student.load_in_4bit, []
    if on_gpu and not torch.cuda.is_available():
        lacking.append("no GPU")
    else:
        memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total
        if memory < USABLE * profile.memory_gb * 2**30:
            lacking.append(
                f"{memory / 2**30:.0f} GB of {'GPU ' * on_gpu}memory, a machine with {profile.memory_gb:g} needed"
            )
    if on_gpu and importlib.util.find_spec("bitsandbytes") is None:
        lacking.append("bitsandbytes (pip install 'routedk-lite[gpu]')")
    return lacking
