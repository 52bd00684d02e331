"""What run records and measurements have in common: where they come from, where they lie, how they are read."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..files import UnreadableError
from .wellformed import read_as

REMEDY = "get it anew from where it was made, or remove it: `routedk run` makes it again"
T = TypeVar("T")


class RecordError(ValueError):
    """A record is malformed, or does not agree with its predictions."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where and from what something was made: what run records and measurements have in common."""

    profile: str
    domain: str
    seed: int | None
    """`None` where nothing is left to chance."""
    config: Mapping[str, Any]
    """Every setting."""
    config_hash: str
    created: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the code; `None` outside a checkout."""
    dirty: bool | None
    """Whether the checkout had uncommitted changes."""
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    data_sha256: str
    """Of the sessions: of a run the test split, of a measurement the training split."""
    student: Mapping[str, Any] | None
    """`backbone.StudentInfo`; `None` for floors."""
    adapter_sha256: Mapping[str, str] = field(default_factory=dict)
    """Expert name to the hash of its weights."""
    wall_seconds: float
    """Training and evaluation together."""
    peak_memory_mb: float
    """Largest resident memory of the run, stopped parts included; on a GPU, of the device. In MiB. Records of earlier
    versions have that of the last process, with whatever else it had run before."""
    path: Path | None = field(default=None, compare=False)
    """Where it was read from."""


def record_path(folder: str | Path, profile: str, domain: str, name: str, *, measured: bool = False) -> Path:
    """Where a run's record lies, or a measurement."""
    return Path(folder, profile, domain, *(("measured",) if measured else ()), f"{name}.json")


def record_pattern(profile: str | None, domain: str | None, *, measured: bool = False) -> str:
    """Where records lie below a results folder, as a pattern; `None` is any profile or domain."""
    known = ["*" if name is None else glob.escape(name) for name in (profile, domain)]
    return "/".join([*known, *(["measured"] if measured else []), "*.json"])


def read_fields(kind: type[T], path: Path, what: str) -> T:
    """A record or a measurement with the fields that stand in a file.

    Raises:
        RecordError: no JSON, or a field is missing, unknown, of another type or no finite number.
    """
    try:
        return read_as(kind, path, what, remedy=REMEDY)
    except UnreadableError as error:
        raise RecordError(str(error)) from error


def read_all(folder: str | Path, pattern: str, read: Callable[[Path], T]) -> list[T]:
    """What lies below a folder at its own place; hidden files are not looked at.

    Raises:
        RecordError: one is malformed, or lies where another should: a copy would count twice.
    """
    found = []
    for path in Path(folder).glob(pattern):
        inside = path.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts) and path.is_file():
            found.append(read(path))
            if inside != found[-1].place:
                raise RecordError(f"{path}: belongs at {found[-1].place}: move it there, or out of {folder}")
    return found
