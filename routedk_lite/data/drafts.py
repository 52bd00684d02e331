"""From the rows of a user's table to sessions: every row is looked at before the first session is made."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .sessions import SPLITS, DataError, Session
from .tables import NEEDED, Problems, Row

TENTHS = ("train",) * 7 + ("validation",) + ("test",) * 2
"""Splits, as a hash deals them out."""
SPLIT_NAMES = {**{name: name for name in SPLITS}, **dict.fromkeys(("valid", "val", "dev"), "validation")}
"""What a split may be called."""
LABELS = "|"
"""Stands between the labels of an item that is in several bundles."""
_OWN = re.compile("0|[1-9][0-9]{0,14}")
"""Names that are numbers, and stay their sessions' ids."""
_HASHED = 2**52
"""Ids from here on are hashes of names: exact as JSON's numbers, and above those of `_OWN`."""


class _Draft:
    """A session of which rows are still read."""

    def __init__(self, row: Row, split: str | None) -> None:
        self.where, self.split, self.whole = row.where, split, row.whole and row.where.rpartition(",")[0]
        self.items: dict[str, str] = {}
        """Name of each item → where it stands."""
        self.titles: list[str] = []
        self.labels: dict[str, dict[int, str]] = {}
        """Label → number of each item in that bundle → where it stands."""


def read_sessions(rows: Iterable[Row], part: str | None, problems: Problems) -> Iterator[tuple[Session, str]]:
    """Sessions with their splits, in the order of their first rows; all rows are looked at before the first is given.

    Args:
        rows: of one source.
        part: the split that all of them are of; `None` where each says so, or a hash decides.
        problems: takes what is wrong with them.

    Raises:
        DataError: something is.
    """
    drafts: dict[str, _Draft] = {}
    for row in rows:
        _read(row, part, drafts, problems)
    for name, draft in drafts.items() if not problems.found else ():  # of a bad row the bundle is not known
        for label, members in draft.labels.items():
            if len(members) < 2:
                (where,) = members.values()
                problems.add(
                    where,
                    f"bundle is {label!r}, which no other item of session {name!r} has: a bundle needs two items or "
                    "more; leave it empty for an item in none",
                )
    problems.check()
    if not drafts:
        raise DataError(f"{problems.source}: it holds no session: give one row for each item of each session")
    known: dict[int, str] = {}
    for name, draft in drafts.items():
        id_ = _id(name)
        if id_ in known:  # 2^-52 for two names
            raise DataError(f"{problems.source}: sessions {known[id_]!r} and {name!r} have the same hash: rename one")
        known[id_] = name
        bundles = tuple(frozenset(members) for members in draft.labels.values())
        session = Session(id=id_, items=tuple(draft.items), titles=tuple(draft.titles), bundles=bundles, name=name)
        yield session, part or draft.split or TENTHS[_hash(name) % len(TENTHS)]


def _read(row: Row, part: str | None, drafts: dict[str, _Draft], problems: Problems) -> None:
    """Add a row to its session, or note all that is wrong with it."""
    before, where = problems.found, row.where

    def fail(what: str) -> None:
        problems.add(where, what)

    name, item = (_named(row.fields, column, fail) for column in ("session", "item"))
    title = _text(row.fields, "title", row.fields.get("title"), "a text", fail)
    labels = _labels_of(row.fields.get("bundle"), fail)
    split = _split_of(row.fields, part, fail)
    if problems.found > before or name is None or item is None or title is None:
        return
    draft = drafts.setdefault(name, _Draft(row, split))
    if draft.whole != (row.whole and where.rpartition(",")[0]):
        fail(f"session {name!r} began in {draft.where}: write a whole session in one place, or one item a line")
    elif item in draft.items:
        fail(f"item {item!r} stands in session {name!r} twice, first in {draft.items[item]}: leave one out")
    elif split != draft.split:
        fail(f"split is {split!r}, in {draft.where} it is {draft.split!r}: a session has one, session {name!r} has two")
    else:
        draft.items[item] = where
        draft.titles.append(title)
        for label in labels:
            draft.labels.setdefault(label, {})[len(draft.titles)] = where


def _named(fields: Mapping[str, Any], column: str, fail: Callable[[str], None]) -> str | None:
    """What a session or an item is called."""
    value = fields.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _text(fields, column, value, "a text or a whole number", fail)


def _text(fields: Mapping[str, Any], column: str, value: Any, rule: str, fail: Callable[[str], None]) -> str | None:
    if column not in fields:
        fail(f"{column} is missing: every item needs {', '.join(NEEDED)}")
    elif not isinstance(value, str):
        fail(f"{column} is {value!r:.60}: give {rule}")
    elif not value.strip():
        fail(f"{column} is empty: every item needs one; leave out an item that has none")
    elif not _writable(value):
        fail(f"{column} is {value!a:.60}, which holds half a character (a lone surrogate): read it with its encoding")
    else:
        return value
    return None


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _labels_of(value: Any, fail: Callable[[str], None]) -> list[str]:
    """The labels of an item's bundles."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    several = value.split(LABELS) if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    found = []
    for label in several:
        if isinstance(label, float) and label.is_integer():  # pandas makes such of whole numbers beside empty cells
            label = int(label)
        if isinstance(label, bool) or not isinstance(label, str | int) or not _writable(str(label)):
            fail(f"bundle is {value!a:.60}: give a label, or a list of labels")
            return []
        if str(label).strip():
            found.append(str(label).strip())
    return list(dict.fromkeys(found))


def _split_of(fields: Mapping[str, Any], part: str | None, fail: Callable[[str], None]) -> str | None:
    """The split that a row says it is of; `None` where it says nothing."""
    value = fields.get("split")
    if value is None and (part or "split" not in fields):
        return part
    split = SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        fail(f"split is {value!r:.60}: choose one of {', '.join(SPLIT_NAMES)}")
    elif part is not None and split != part:
        fail(f"split is {value!r}, in the file of the split {part!r}: move it, or leave the column out")
    return split


def _id(name: str) -> int:
    return int(name) if _OWN.fullmatch(name) else _HASHED + (_hash(name) % _HASHED)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
