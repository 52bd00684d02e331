"""Measurements: what was found out about students and no answers belong to.

A measurement is one JSON file `results/<profile>/<domain>/measured/<name>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data.sessions import Domain
from ..files import write_json
from ..student.peak import peak_memory_mb
from .machine import surroundings
from .provenance import Provenance, read_all, read_fields, record_path, record_pattern


@dataclass(frozen=True, kw_only=True)
class Measurement(Provenance):
    """Something that was measured on students and that no answers belong to, beside its `Provenance`.

    It lies in `<folder>/<profile>/<domain>/measured`.
    """

    name: str
    values: Mapping[str, Any]
    """What was found."""

    @property
    def place(self) -> Path:
        """Where the measurement lies in a results folder."""
        return record_path("", self.profile, self.domain, self.name, measured=True)


def write_measurement(
    folder: str | Path,
    *,
    profile: str,
    train: Domain,
    name: str,
    seed: int | None,
    config: Mapping[str, Any],
    config_hash: str,
    wall_seconds: float,
    peak_before: float = 0.0,
    **made: Any,
) -> Measurement:
    """Write what was measured; `made` are the remaining fields of `Measurement`."""
    found = Measurement(
        profile=profile,
        domain=train.name,
        name=name,
        seed=seed,
        config=config,
        config_hash=config_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        data_sha256=train.sha256,
        wall_seconds=round(wall_seconds, 1),
        peak_memory_mb=round(max(peak_before, peak_memory_mb())),
        path=record_path(folder, profile, train.name, name, measured=True),
        **made,
    )
    write_json(found.path, {k: v for k, v in asdict(found).items() if k != "path"})
    return found


def read_measurement(path: str | Path) -> Measurement:
    """Read one measurement.

    Raises:
        RecordError: no JSON, or a field is missing, unknown, of another type or no finite number.
    """
    return read_fields(Measurement, Path(path), "a measurement")


def load_measurements(
    folder: str | Path = "results", *, profile: str | None = None, domain: str | None = None
) -> list[Measurement]:
    """All measurements below a folder, sorted by profile, domain and name; hidden files are none.

    Args:
        folder: the results folder.
        profile, domain: read only those of this profile or domain; others may be malformed.

    Raises:
        RecordError: one is malformed, or lies where another should.
    """
    found = read_all(folder, record_pattern(profile, domain, measured=True), read_measurement)
    return sorted(found, key=lambda m: (m.profile, m.domain, m.name))
