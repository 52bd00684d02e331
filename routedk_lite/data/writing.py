"""Sessions with bundles as tables, which `own.load_sessions` reads again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import atomic_write
from .sessions import Bundle, Session

ENDINGS = (".csv", ".jsonl")


def check_ending(path: Path) -> None:
    """Refuse a name that does not say how the file is to be written.

    Raises:
        ValueError: it ends with none of `ENDINGS`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: give a name that ends with {' or '.join(ENDINGS)}")


def write_sessions(
    path: str | Path,
    sessions: Iterable[Session],
    bundles: Mapping[int, Iterable[Bundle]] | None = None,
    notes: Mapping[int, str] | None = None,
) -> Path:
    """Write sessions with bundles, whole or not at all: CSV with a row for each item, or JSON Lines of sessions.

    Bundles are labelled 1, 2, … within their session. In CSV `|` stands between the labels of an item of several.

    Args:
        path: ends with `.csv` or `.jsonl`.
        sessions: in the order in which they are written, under their owner's names where they have one.
        bundles: session id → bundles; by default the annotated ones.
        notes: session id → a note, in a column `note`; that column is left out if nothing is given.

    Raises:
        ValueError: the path ends otherwise.
        OSError: it cannot be written.
    """
    path = Path(path)
    check_ending(path)
    rows = [_row(session, bundles, notes) for session in sessions]
    text = _csv(rows, notes is not None) if path.suffix.lower() == ".csv" else "".join(map(_line, rows))
    with atomic_write(path, "wb") as file:
        file.write(text.encode())
    return path


def _row(
    session: Session, bundles: Mapping[int, Iterable[Bundle]] | None, notes: Mapping[int, str] | None
) -> dict[str, Any]:
    """As a line of JSON holds a session."""
    found = session.bundles if bundles is None else bundles.get(session.id, ())
    ordered = sorted(set(found), key=sorted)
    items = [
        {"item": item, "title": title, "bundle": [str(k) for k, bundle in enumerate(ordered, 1) if number in bundle]}
        for number, (item, title) in enumerate(zip(session.items, session.titles, strict=True), start=1)
    ]
    row: dict[str, Any] = {"session": session.name or str(session.id), "items": items}
    return row if notes is None else row | {"note": notes.get(session.id, "")}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _csv(rows: Iterable[Mapping[str, Any]], noted: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["session", "item", "title", "bundle", *["note"] * noted])
    for row in rows:
        for item in row["items"]:
            labels = "|".join(item["bundle"])
            writer.writerow([row["session"], item["item"], item["title"], labels, *[row.get("note")] * noted])
    return text.getvalue()
