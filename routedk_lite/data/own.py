"""Sessions of your own: from a file, a folder or a Hugging Face `Dataset`; a folder of them is a domain.

A table has one row for each item of each session, with these columns (extra ones are left alone):

=========  ===========================================================================================================
session    what you call the session, a text or a whole number
item       what you call the product; once in a session
title      what the student reads: any text that is not blank
bundle     optional: the label of the bundle that the item belongs to, of that session alone. Empty is none; several
           stand between `|`, or in a list. A bundle has two items or more.
split      optional: `train`, `validation` (or `valid`, `val`, `dev`) or `test`, the same for all items of a session.
           Without the column a hash of the session's name decides: about 70 % train, 10 % validation, 20 % test.
=========  ===========================================================================================================

CSV is in UTF-8, with `,`, `;` or tabs between the values. A line of JSON Lines holds an item, with these names as its
fields, or a whole session: `{"session": …, "items": [{"item": …, "title": …, "bundle": …}, …]}`.

A folder holds one such file, `sessions.csv` (or `.tsv`, `.jsonl`, `.ndjson`), or one for each split: `train.csv`,
`validation.csv`, `test.csv`. What a teacher knows about its sessions lies beside them (`teacher.own`).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..places import user_path
from .sessions import DOMAINS, SPLITS, DataError, Domain, Session
from .tables import KINDS, NEEDED, Problems, Row, dataset_rows, file_rows

if TYPE_CHECKING:
    import datasets

ALL = "all"
"""Instead of a split: the sessions of all of them."""
TENTHS = ("train",) * 7 + ("validation",) + ("test",) * 2
"""Splits, as a hash deals them out."""
_SPLIT_NAMES = {**{name: name for name in SPLITS}, **dict.fromkeys(("valid", "val", "dev"), "validation")}
_LABELS = "|"
_MINE = re.compile("0|[1-9][0-9]{0,14}")
_HASHED = 2**52
"""Ids from here on are hashes of names: exact as JSON's numbers, and above those that `_MINE` leaves as they are."""


def load_sessions(source: str | Path | datasets.Dataset | datasets.DatasetDict, split: str = ALL) -> Domain:
    """Read sessions of your own, with their bundles where they are known; the whole of them is checked first.

    Nothing is changed: a title may be of any script and length, hold line breaks or the marks of a prompt. A session
    keeps its name (`Session.name`). Its `id` is that name where it is a whole number below 10^15, else from its hash;
    neither other sessions nor their order change it, nor the split that a hash decides on.

    Args:
        source: a file or folder as this module describes it, a `Dataset` with the same columns, or a `DatasetDict` of
            splits.
        split: `train`, `validation`, `test`, or `all`.

    Returns:
        The sessions in the order of the source, named after the file or folder.

    Raises:
        DataError: a file is missing, of another kind or encoding, or holds what cannot be used; the message names file,
            line and field, of the first few if there are more. Or no session is in that split.
        ValueError: unknown split.
        OSError: a file cannot be read.
    """
    if split not in (*SPLITS, ALL):
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}, {ALL}")
    if isinstance(source, str | os.PathLike):
        path = user_path(os.fspath(source), "source")
        files = _files(path) if path.is_dir() else {path: None}
        found, name, where = _of_files(_stamped(files)), _safe(path.resolve().stem if path.is_file() else path), path
    else:
        found, name, where = _of_dataset(source), "dataset", "the dataset"
    domain = Domain(name=name, split=split, sessions=tuple(s for s, part in found if split in (part, ALL)))
    if not domain.sessions:
        raise DataError(
            f"{where} holds {len(found)} sessions, none of the split {split!r}: give it some in a column named split"
        )
    return domain


# --- a folder as a domain -----------------------------------------------------------------------------------------


def own_folder(domain: str | Path) -> Path | None:
    """The folder that a domain's name means; `None` where it is the name of no folder.

    A name of `DOMAINS` never is one: write `./food` for a folder of that name.

    Args:
        domain: as users write it.

    Raises:
        DataError: it is a path, but of no folder.
        ValueError: it is no path that there can be (`places.user_path`).
    """
    if domain in DOMAINS:
        return None
    path = user_path(domain, "domain")
    if path.is_dir():
        return path
    if path.is_file():
        raise DataError(f"domain = {str(domain)!r} is a file: put it into a folder as sessions{path.suffix}, and name it")
    written = str(domain)
    if isinstance(domain, os.PathLike) or written.startswith((".", "~")) or set(written) & {os.sep, os.altsep}:
        raise DataError(f"domain = {written!r}: there is no such folder; give one that holds sessions.csv")
    return None


def domain_name(domain: str | Path) -> str:
    """What a domain is called in records, figures and folders: of a folder, its name made safe.

    Raises:
        DataError, ValueError: as `own_folder`.
    """
    folder = own_folder(domain)
    return str(domain) if folder is None else _safe(folder)


def load_folder(folder: Path, split: str) -> Domain:
    """One split of a folder of sessions, as a domain: what is learned from and measured on, so with bundles only.

    Raises:
        DataError: as `load_sessions`, or no session of the split has a bundle.
    """
    every = load_sessions(folder, split)
    domain = replace(every, sessions=tuple(session for session in every if session.bundles))
    if not domain.sessions:
        raise DataError(
            f"{folder}: none of {len(every)} {split} sessions has a bundle (column bundle), so nothing can be learned "
            "from them or measured on them; `routedk bundle` answers them with experts that were trained elsewhere"
        )
    return domain


def _safe(path: Path | str) -> str:
    """A name that a folder of records can have, and no domain of this package has."""
    name = path if isinstance(path, str) else path.resolve().name
    name = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "sessions"
    return f"own-{name}" if name.casefold() in DOMAINS else name


def _files(folder: Path) -> dict[Path, str | None]:
    """The files of a folder, each with the split that its name says."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in KINDS and path.stem.lower() in ("sessions", *_SPLIT_NAMES):
            part = _SPLIT_NAMES.get(path.stem.lower(), "sessions")
            if part in found:
                raise DataError(f"{folder} holds both {found[part].name} and {path.name}: leave one of them")
            found[part] = path
    if not found:
        raise DataError(f"{folder} holds no sessions.csv, nor {', '.join(KINDS[1:])}: put your sessions there")
    if "sessions" in found and len(found) > 1:
        other = next(path.name for part, path in found.items() if part != "sessions")
        raise DataError(f"{folder} holds both {found['sessions'].name} and {other}: leave all sessions in one, or none")
    return {path: None if part == "sessions" else part for part, path in found.items()}


# --- from rows to sessions ----------------------------------------------------------------------------------------

Stamp = tuple[Path, str | None, int, int]
"""A file, its split, and what changes when it does: time and size."""


def _stamped(files: Mapping[Path, str | None]) -> tuple[Stamp, ...]:
    stamps = []
    for path, part in files.items():
        try:
            found = path.stat()
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file or folder: check the name") from None
        stamps.append((path, part, found.st_mtime_ns, found.st_size))
    return tuple(stamps)


@lru_cache(maxsize=4)
def _of_files(stamps: tuple[Stamp, ...]) -> tuple[tuple[Session, str], ...]:
    """The sessions of some files with their splits; a study asks for them again and again."""
    found: dict[str, tuple[Session, str, object]] = {}
    for path, part, *_ in stamps:
        problems = Problems(path)
        for session, own_part in _sessions(file_rows(path, problems), part, problems):
            if session.name in found:
                raise DataError(f"{path}: session {session.name!r} stands in {found[session.name][2]} too: leave one")
            found[session.name] = session, own_part, path
    return tuple((session, part) for session, part, _ in found.values())


def _of_dataset(source: Any) -> tuple[tuple[Session, str], ...]:
    if not isinstance(source, Mapping):
        parts = {None: source}
    elif unknown := [name for name in source if str(name).lower() not in _SPLIT_NAMES]:
        raise DataError(f"the dataset: unknown split {unknown[0]!r}: choose among {', '.join(_SPLIT_NAMES)}")
    else:
        parts = {_SPLIT_NAMES[str(name).lower()]: rows for name, rows in source.items()}
    found: dict[str, tuple[Session, str]] = {}
    for part, rows in parts.items():
        names = getattr(rows, "column_names", None)
        lower = [str(name).strip().casefold() for name in names or ()]
        if names and "items" not in lower and (missing := [name for name in NEEDED if name not in lower]):
            raise DataError(f"the dataset: no column {', '.join(missing)}: it has {', '.join(names)}; rename_columns")
        problems = Problems("the dataset" if part is None else f"the dataset's {part} split")
        for session, own_part in _sessions(dataset_rows(rows, problems), part, problems):
            if session.name in found:
                raise DataError(f"{problems.source}: session {session.name!r} is in another split too: leave one")
            found[session.name] = session, own_part
    return tuple(found.values())


class _Draft:
    """A session of which rows are still read."""

    def __init__(self, row: Row, split: str | None) -> None:
        self.where, self.split, self.whole = row.where, split, row.whole and row.where.rpartition(",")[0]
        self.items: dict[str, str] = {}
        """Name of each item → where it stands."""
        self.titles: list[str] = []
        self.labels: dict[str, dict[int, str]] = {}
        """Label → number of each item in that bundle → where it stands."""


def _sessions(rows: Iterable[Row], part: str | None, problems: Problems) -> Iterator[tuple[Session, str]]:
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
    several = value.split(_LABELS) if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
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
    split = _SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        fail(f"split is {value!r:.60}: choose one of {', '.join(_SPLIT_NAMES)}")
    elif part is not None and split != part:
        fail(f"split is {value!r}, in the file of the split {part!r}: move it, or leave the column out")
    return split


def _id(name: str) -> int:
    return int(name) if _MINE.fullmatch(name) else _HASHED + (_hash(name) % _HASHED)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
