"""What chapters show of the public sessions where those are not at hand: counts, scores and curves, recorded once.

A chapter computes such values from the sessions where it can. `results/public/<name>.json` keeps them for everybody
else. Only aggregates may stand there, never a title or anything else of the public files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from ..files import UnreadableError, read_json, write_json

RECORD = "ROUTEDK_RECORD"
"""Environment variable: if it is set, values that are new or that changed are written to `results/public/`."""
DIFFERS = "is not what results/public records"
"""Stands in what a page prints where the record has to be written anew."""
HOW_TO_GET = "`routedk data fetch` gets them"


class Recorded(NamedTuple):
    """Values from the public sessions, and when they were recorded."""

    values: Any
    """As JSON knows them: mappings with names, lists, numbers, words."""
    created: str
    """Day, as `2026-11-29`."""
    commit: str | None


def public_values(path: Path, compute: Callable[[], Any], *, at_hand: bool) -> Any:
    """What a chapter shows of the public sessions: computed where they are at hand, else as it was recorded.

    Both ways give the same: plain lists and mappings with names as keys, numbers of five digits, `None` for NaN.
    One line is printed where the values are recorded ones, differ from the record, or are missing.

    Args:
        path: where they are recorded.
        compute: gives them from the sessions; nothing where runs that it needs are not recorded.
        at_hand: whether the sessions are.

    Returns:
        The values; `None` if there are none.

    Raises:
        UnreadableError: the record cannot be read.
    """
    known = read(path)
    if not at_hand:
        if known is None:
            print(f"Not recorded, and the public sessions are not on this machine: {HOW_TO_GET}.")
            return None
        print(f"From the public sessions, recorded {known.created}, commit {str(known.commit)[:7]}.")
        return known.values
    values = plain(compute())
    if not values:
        return None
    if known is None or not agree(values, known.values):
        if os.environ.get(RECORD):
            write(path, values)
        elif known is not None:
            print(f"{path.stem}: this {DIFFERS} ({known.created}). {RECORD}=yes make book writes it anew.")
    return values


def read(path: Path) -> Recorded | None:
    """Read a record; `None` if there is none.

    Raises:
        UnreadableError: it is no such record.
    """
    if not path.exists():
        return None
    fields = {"values": object, "created": str, "commit": (str, type(None))}
    remedy = f"remove it, and {RECORD}=yes make book writes it anew"
    what = "a record of public values"
    found = read_json(path, what, fields=fields, remedy=remedy)
    if unknown := sorted(found.keys() - fields.keys()):
        raise UnreadableError(f"{path}: not {what}: {unknown[0]!r} is no field of one; {remedy}")
    return Recorded(**found)


def write(path: Path, values: Any) -> None:
    """Record values, with the day and the commit."""
    from ..study.machine import git_state

    write_json(path, Recorded(values, datetime.now(UTC).date().isoformat(), git_state()[0])._asdict())


def plain(value: Any) -> Any:
    """A value as JSON keeps it: names as keys, lists, five digits, `None` for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if type(value).__module__ == "numpy" and value.ndim == 0:  # numpy's own bool is none of the above
        return plain(value.item())
    return [plain(one) for one in value]


def agree(a: Any, b: Any) -> bool:
    """Whether two values are the same but for the last digits of their numbers."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4)
    return a == b
