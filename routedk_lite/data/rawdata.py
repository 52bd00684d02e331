"""The raw SIGIR 2022 files: published counts, and the label leak that a careless loader would train on.

Only statistics and chapter 01 use these; sessions are loaded by `data` from the AICL files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from .domains import load_domain
from .public import public_file
from .sessions import PUBLIC_DOMAINS, SPLITS, DataError


class RawCounts(NamedTuple):
    """Size of one raw domain, as its authors count it."""

    users: int
    """With at least one annotated session."""
    items: int
    """That belong to a bundle."""
    sessions: int
    """Annotated or not."""
    bundles: int
    intents: int
    """Distinct texts."""
    bundle_size: float
    """Mean number of items in a bundle."""


class DomainCounts(NamedTuple):
    """Size of one domain as the loader gives it."""

    sessions: Sequence[int]
    """With at least one bundle: training, validation, test."""
    bundles: int
    """After AICL's de-duplication, all splits."""
    bundle_size: float
    """Mean number of items in a bundle."""
    session_size: float
    """Mean number of items in a session."""
    distractors: float
    """Share of item occurrences that belong to no bundle."""
    overlapping: int
    """Sessions in which two different bundles share an item."""


class TitleLeak(NamedTuple):
    """How well "has a title in the raw files" gives away the labels of one domain."""

    untitled_items: int
    """Distinct session items without a title."""
    untitled_in_bundle: int
    """How many of them belong to a bundle."""
    titled_outside: int
    """Distinct session items with a title that belong to no bundle."""
    sessions_touched: int
    """Sessions with at least one untitled item."""


@cache
def raw_table(domain: str, name: str) -> list[dict[str, str]]:
    """One raw CSV file as rows by column name.

    Args:
        domain: a public domain.
        name: file name without `.csv`, for example `session_item`.

    Raises:
        ValueError: no such domain or file.
        DataError: it is not a table in UTF-8 with as many values in every row as there are columns.
    """
    path = public_file("bundlerec", f"dataset/{domain}/{name}.csv")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # with or without a mark at its beginning
            rows = list(csv.DictReader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8 ({error}): remove it, and it is fetched again") from error
    if not rows:
        raise DataError(f"{path}: no rows: remove it, and it is fetched again")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            columns = ", ".join(name for name in row if name)
            raise DataError(f"{path}: row {number} does not have one value for each of {columns}")
    return rows


def raw_counts(domain: str) -> RawCounts:
    """Count users, items, sessions, bundles and intents of a raw domain."""
    members = raw_table(domain, "bundle_item")
    annotated = {row["session ID"] for row in raw_table(domain, "session_bundle")}
    bundles = {row["bundle ID"] for row in members}
    return RawCounts(
        users=len({row["user ID"] for row in raw_table(domain, "user_session") if row["session ID"] in annotated}),
        items=len({row["item ID"] for row in members}),
        sessions=len({row["session ID"] for row in raw_table(domain, "session_item")}),
        bundles=len(bundles),
        intents=len({row["intent"] for row in raw_table(domain, "bundle_intent")} - {""}),
        bundle_size=len(members) / len(bundles),
    )


def domain_counts(domain: str) -> DomainCounts:
    """Count what `load_domain` gives for a public domain."""
    splits = [load_domain(domain, split) for split in SPLITS]
    sessions = [session for split in splits for session in split]
    bundles = [bundle for session in sessions for bundle in session.bundles]
    n_items = sum(map(len, sessions))
    inside = sum(len(frozenset().union(*s.bundles)) for s in sessions)
    return DomainCounts(
        sessions=[len(split) for split in splits],
        bundles=len(bundles),
        bundle_size=sum(map(len, bundles)) / len(bundles),
        session_size=n_items / len(sessions),
        distractors=1 - inside / n_items,
        overlapping=sum(
            any(a & b for i, a in enumerate(unique) for b in unique[:i])
            for unique in (list(dict.fromkeys(s.bundles)) for s in sessions)
        ),
    )


def title_leak(domain: str) -> TitleLeak:
    """Compare which session items have a title in the raw files with which belong to a bundle."""
    titled = {row["item ID"] for row in raw_table(domain, "item_titles")}
    in_bundle = {row["item ID"] for row in raw_table(domain, "bundle_item")}
    session_items = raw_table(domain, "session_item")
    annotated = {row["session ID"] for row in raw_table(domain, "session_bundle")}
    rows = [row for row in session_items if row["session ID"] in annotated]
    seen = {row["item ID"] for row in rows}
    return TitleLeak(
        untitled_items=len(seen - titled),
        untitled_in_bundle=len((seen - titled) & in_bundle),
        titled_outside=len((seen & titled) - in_bundle),
        sessions_touched=len({row["session ID"] for row in rows if row["item ID"] not in titled}),
    )


def all_counts() -> dict[str, tuple[RawCounts, DomainCounts]]:
    """Both counts of every public domain."""
    return {name: (raw_counts(name), domain_counts(name)) for name in PUBLIC_DOMAINS}
