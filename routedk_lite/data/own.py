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

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..places import user_path
from .drafts import SPLIT_NAMES, read_sessions
from .sessions import DOMAINS, SPLITS, DataError, Domain, Session
from .tables import KINDS, NEEDED, OPTIONAL, Problems, Row, dataset_rows, file_rows

if TYPE_CHECKING:
    import datasets

    from ..config import Profile

ALL = "all"
"""Instead of a split: the sessions of all of them."""


def load_sessions(
    source: str | Path | datasets.Dataset | datasets.DatasetDict, split: str = ALL, *, answers: bool = True
) -> Domain:
    """Read sessions of your own, with their bundles where they are known; the whole of them is checked first.

    Nothing is changed: a title may be of any script and length, hold line breaks or the marks of a prompt. A session
    keeps its name (`Session.name`). Its `id` is that name where it is a whole number below 10^15, else from its hash;
    neither other sessions nor their order change it, nor the split that a hash decides on.

    Args:
        source: a file or folder as this module describes it, a `Dataset` with the same columns, or a `DatasetDict` of
            splits.
        split: `train`, `validation`, `test`, or `all`.
        answers: whether bundles and splits are read; without, nothing is wrong with them, and no session has a bundle.

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
        found, where = _of_files(_stamped(files), answers), path
        name = _safe(path.resolve().stem if path.is_file() else path)
    else:
        found, name, where = _of_dataset(source, answers), "dataset", "the dataset"
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
        raise DataError(
            f"domain = {str(domain)!r} is a file: put it into a folder as sessions{path.suffix}, and name it"
        )
    written = str(domain)
    if isinstance(domain, os.PathLike) or written.startswith((".", "~")) or set(written) & {os.sep, os.altsep}:
        raise DataError(f"domain = {written!r}: there is no such folder; give one that holds sessions.csv")
    return None


def folder_for(profile: Profile, domain: str | Path) -> Path | None:
    """The folder of one's own sessions that is meant; `None` where it is a domain of the profile's.

    Raises:
        ValueError: it is neither; or as `own_folder`.
    """
    folder = own_folder(domain)
    if folder is None and domain not in profile.domains:
        raise ValueError(
            f"domain {domain!r} does not go with profile {profile.name!r}: choose one of {', '.join(profile.domains)}, "
            "or a folder of sessions"
        )
    return folder


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

    Warns:
        UserWarning: some have none.
    """
    every = load_sessions(folder, split)
    domain = replace(every, sessions=tuple(session for session in every if session.bundles))
    bare = [session.called for session in every if not session.bundles]
    if bare and domain.sessions:
        warnings.warn(
            f"{folder}: {len(bare)} of {len(every)} {split} sessions, {bare[0]} the first, have no bundle: left out",
            stacklevel=3,
        )
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
        if path.suffix.lower() in KINDS and path.stem.lower() in ("sessions", *SPLIT_NAMES):
            part = SPLIT_NAMES.get(path.stem.lower(), "sessions")
            if part in found:
                raise DataError(f"{folder} holds both {found[part].name} and {path.name}: leave one of them")
            found[part] = path
    if not found:
        raise DataError(f"{folder} holds no sessions.csv, nor {', '.join(KINDS[1:])}: put your sessions there")
    if "sessions" in found and len(found) > 1:
        other = next(path.name for part, path in found.items() if part != "sessions")
        raise DataError(f"{folder} holds both {found['sessions'].name} and {other}: leave all sessions in one, or none")
    return {path: None if part == "sessions" else part for part, path in found.items()}


# --- from files to sessions ----------------------------------------------------------------------------------------

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


def _asked(rows: Iterator[Row], answers: bool) -> Iterator[Row]:
    """Rows as they are, or without what is known of their answers."""
    for row in rows:
        fields = row.fields.items()
        yield row if answers else row._replace(fields={k: v for k, v in fields if k not in OPTIONAL})


@lru_cache(maxsize=4)
def _of_files(stamps: tuple[Stamp, ...], answers: bool) -> tuple[tuple[Session, str], ...]:
    """The sessions of some files with their splits; a study asks for them again and again."""
    found: dict[str, tuple[Session, str, object]] = {}
    for path, part, *_ in stamps:
        problems = Problems(path)
        for session, own_part in read_sessions(_asked(file_rows(path, problems), answers), part, problems):
            if session.name in found:
                raise DataError(f"{path}: session {session.name!r} stands in {found[session.name][2]} too: leave one")
            found[session.name] = session, own_part, path
    return tuple((session, part) for session, part, _ in found.values())


def _of_dataset(source: Any, answers: bool) -> tuple[tuple[Session, str], ...]:
    if not isinstance(source, Mapping):
        parts = {None: source}
    elif unknown := [name for name in source if str(name).lower() not in SPLIT_NAMES]:
        raise DataError(f"the dataset: unknown split {unknown[0]!r}: choose among {', '.join(SPLIT_NAMES)}")
    else:
        parts = {SPLIT_NAMES[str(name).lower()]: rows for name, rows in source.items()}
    found: dict[str, tuple[Session, str]] = {}
    for part, rows in parts.items():
        names = getattr(rows, "column_names", None)
        lower = [str(name).strip().casefold() for name in names or ()]
        if names and "items" not in lower and (missing := [name for name in NEEDED if name not in lower]):
            raise DataError(f"the dataset: no column {', '.join(missing)}: it has {', '.join(names)}; rename_columns")
        problems = Problems("the dataset" if part is None else f"the dataset's {part} split")
        for session, own_part in read_sessions(_asked(dataset_rows(rows, problems), answers), part, problems):
            if session.name in found:
                raise DataError(f"{problems.source}: session {session.name!r} is in another split too: leave one")
            found[session.name] = session, own_part
    return tuple(found.values())
