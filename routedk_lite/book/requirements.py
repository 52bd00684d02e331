"""Install what a chapter needs where something is missing, as on Colab, and take away what stands in its way there.

Imports nothing but the standard library at first, so that it works before anything is installed.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "routedk-lite"
NEVER_TOUCHED = ("torch", "numpy", "scipy")
"""Compiled against each other and against the machine's CUDA: replacing one in a running kernel breaks it."""


def missing_requirements(extras: Iterable[str] = ()) -> list[str]:
    """Requirements of this package that are not installed, or too old.

    Args:
        extras: optional groups of `pyproject.toml` that are needed too, for example `gpu`.

    Returns:
        Requirements as pip reads them; none in a checkout that was never installed, whose reader chose the packages.
    """
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in map(Requirement, declared):
        wanted = (requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in ("", *extras))
        if not any(wanted):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def install_missing(extras: Iterable[str] = ()) -> list[str]:
    """Install what is missing with pip; torch, numpy and scipy stay what they are.

    Returns:
        What was installed.

    Raises:
        RuntimeError: one of `NEVER_TOUCHED` is missing or too old, or pip failed; the message says what to do.
    """
    missing = missing_requirements(extras)
    if stuck := [need for need in missing if re.match(r"[\w-]+", need)[0] in NEVER_TOUCHED]:
        raise RuntimeError(
            f"{', '.join(stuck)} needed here: install it yourself, since a chapter never replaces it (README, "
            "'Which torch'), then restart the kernel"
        )
    if not missing:
        return []
    print("Installing", ", ".join(missing))
    kept = [f"{name}=={version}\n" for name in NEVER_TOUCHED if (version := _version(name))]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("".join(kept), encoding="utf-8")
        _pip("install", ["--constraint", str(constraints), *missing], f"install {', '.join(missing)}")
    names = {re.match(r"[\w-]+", need)[0].replace("-", "_") for need in missing}
    if replaced := sorted(names & sys.modules.keys()):
        print(f"{', '.join(replaced)} was loaded already: restart the kernel (Runtime → Restart) and run this again.")
    return missing


def refused_integrations() -> dict[str, str]:
    """Packages that are here, but in a version that PEFT refuses to work beside, with what it says.

    PEFT asks for its optional integrations whenever it adapts a model, whether they are used or not. Where one is too
    old, that fails: with torchao 0.10 on the machine, no adapter can be made at all.
    """
    from peft import import_utils

    refused = {}
    for name, ask in vars(import_utils).items():
        package = name.removeprefix("is_").removesuffix("_available")
        if not name.startswith("is_") or not name.endswith("_available") or _version(package) is None:
            continue
        try:
            ask()
        except ImportError as error:
            refused[package] = str(error)
    return refused


def remove_refused(*, allowed: bool) -> list[str]:
    """Take such packages off the machine, or say how.

    Args:
        allowed: whether this machine is one where we may, as Colab's, which is thrown away afterwards.

    Returns:
        What was removed.

    Raises:
        RuntimeError: pip could not.
    """
    removed = []
    for package, reason in refused_integrations().items():
        version = _version(package)
        if not allowed:
            print(f"PEFT will not work beside {package} {version} ({reason}): pip uninstall {package}, or upgrade it.")
            continue
        _pip("uninstall", ["--yes", package], f"remove {package} {version}")
        importlib.invalidate_caches()
        loaded = package in sys.modules
        again = "; it was loaded already: restart the kernel (Runtime → Restart) and run this again" if loaded else ""
        print(f"Removed {package} {version}, which PEFT refuses to work beside and nothing here uses{again}.")
        removed.append(package)
    return removed


def _pip(command: str, arguments: Sequence[str], aim: str) -> None:
    """Run pip of this Python.

    Raises:
        RuntimeError: it failed; the message names the aim and the end of what pip says.
    """
    asked = [sys.executable, "-m", "pip", command, "--quiet", *arguments]
    result = subprocess.run(asked, capture_output=True, text=True, errors="replace")
    if result.returncode:
        raise RuntimeError(f"pip could not {aim}: {result.stderr.strip()[-500:]}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
