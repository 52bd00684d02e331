"""Rows of a user's table (CSV, JSON Lines, a Hugging Face `Dataset`), each with its place for messages.

What is wrong is collected and raised together, so that a file is mended in one go and nothing of it is used before.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .sessions import DataError

NEEDED = ("session", "item", "title")
"""Columns without which a table holds no sessions."""
OPTIONAL = ("bundle", "split")
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of the files that are read."""
DELIMITERS = ",;\t"
"""Of CSV: the first with which the first line names the columns."""
SHOWN = 5
"""Problems that a message names; it counts the others."""


class Row(NamedTuple):
    """One item of one session, as it was written."""

    where: str
    """Its place in the source, for messages."""
    fields: Mapping[str, Any]
    """Column, in small letters → value."""
    whole: bool = False
    """Whether all items of the session stand at this one place."""


class Problems:
    """What is wrong with a source.

    Args:
        source: the file, or what else it is, as messages begin.
    """

    def __init__(self, source: object) -> None:
        self.source, self.found = source, 0
        self._shown: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note what is wrong at a place, and what to do about it."""
        self.found += 1
        if self.found <= SHOWN:
            self._shown.append(f"{where}: {what}")

    def check(self) -> None:
        """Refuse the source if anything was noted.

        Raises:
            DataError: names the first places, and counts the others.
        """
        if self.found:
            more = f"; and {self.found - SHOWN} more" if self.found > SHOWN else ""
            raise DataError(f"{self.source}, {'; '.join(self._shown)}{more}")


def file_rows(path: Path, problems: Problems) -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: ends with one of `KINDS`.
        problems: takes what is wrong with single rows.

    Raises:
        DataError: the file is of another kind or encoding, is empty, or lacks a column.
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path}: unknown kind of file: give one that ends with {', '.join(KINDS)}")
    text = _text(path)
    if not text.strip():
        raise DataError(f"{path}: it is empty: give one row for each item of each session")
    return (_csv_rows if path.suffix.lower() in (".csv", ".tsv") else _json_rows)(text, path, problems)


def dataset_rows(dataset: Iterable[Mapping[str, Any]], problems: Problems) -> Iterator[Row]:
    """The rows of a Hugging Face `Dataset`, or of anything else that gives mappings; counted from 1."""
    for number, row in enumerate(dataset, start=1):
        if not isinstance(row, Mapping):
            problems.add(f"row {number}", f"{row!r:.40} is no mapping of columns to values: give a Dataset")
            continue
        yield from _items(f"row {number}", row.items(), problems)


# --- files --------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    content = path.read_bytes()
    save = "save it as UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise DataError(f"{path}: it is no text in UTF-8 (UTF-16, as some programs call Unicode?): {save}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {content[error.start]:#x} is not UTF-8 (Latin-1?): {save}"
        ) from None


def _csv_rows(text: str, path: Path, problems: Problems) -> Iterator[Row]:
    names, delimiter, first = _header(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a title may be of any length
    while True:
        where = f"line {reader.line_num + 1}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # what follows cannot be told apart
            problems.add(where, f"no row of CSV ({error}): mend its quotation marks")
            return
        if not values or reader.line_num <= first:
            continue
        if len(values) != len(names):
            problems.add(where, f"{len(values)} values for {len(names)} columns: put quotation marks around titles")
            continue
        yield Row(where, dict(zip(names, values, strict=True)))


def _header(text: str, path: Path) -> tuple[list[str], str, int]:
    """Names of the columns, what stands between them, and the last line of the header."""
    tried = []
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            names = [name.strip().casefold() for name in next(filter(None, reader), [])]
        except csv.Error:
            continue
        if set(NEEDED) <= set(names):
            if twice := [name for name in (*NEEDED, *OPTIONAL) if names.count(name) > 1]:
                raise DataError(f"{path}, line {reader.line_num}: the column {twice[0]} stands there twice: rename one")
            return names, delimiter, reader.line_num
        tried.append((len(set(NEEDED) & set(names)), names))
    _, names = max(tried, key=lambda one: one[0], default=(0, []))
    missing = ", ".join(name for name in NEEDED if name not in names)
    raise DataError(
        f"{path}, line 1: no column {missing}: the first line must name the columns {', '.join(NEEDED)}, and may name "
        f"{' and '.join(OPTIONAL)}; it names {', '.join(names)[:200] or 'none'}"
    )


def _json_rows(text: str, path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # JSON may hold other marks of a line's end
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            problems.add(where, f"no JSON ({error}): each line must be an object of its own")
            continue
        if not isinstance(pairs, _Pairs):
            problems.add(where, f"{line.strip()[:40]} is no JSON object: write one for each item, or for each session")
            continue
        yield from _items(where, pairs, problems)


class _Pairs(list):
    """The fields of a JSON object, in which one may stand twice."""


def _items(where: str, pairs: Iterable[tuple[str, Any]], problems: Problems) -> Iterator[Row]:
    """The row of an item, or those of all `items` of a session that stands in one place."""
    fields = _fields(where, pairs, problems)
    items = fields.pop("items", None)
    if items is None:
        yield Row(where, fields)
        return
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        problems.add(where, f"items is {items!r:.40}: give a list of objects with item and title")
        return
    for number, item in enumerate(items, start=1):
        place = f"{where}, item {number}"
        if isinstance(item, Mapping):
            item = _Pairs(item.items())
        if not isinstance(item, _Pairs):
            problems.add(place, f"{item!r:.40} is no object: give item and title")
            continue
        yield Row(place, {**fields, **_fields(place, item, problems)}, whole=True)


def _fields(where: str, pairs: Iterable[tuple[str, Any]], problems: Problems) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        column = str(name).strip().casefold()
        if column in found and column in (*NEEDED, *OPTIONAL, "items"):
            problems.add(where, f"the field {column} stands there twice: leave one out")
        found[column] = value
    return found
