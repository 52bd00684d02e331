"""What a training leaves beside its weights, and whether it is there: one training, one process, one time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..files import read_json, sha256_file, write_json
from ..locks import launched_together, locked


@contextmanager
def one_at_a_time(folder: Path, run_id: str) -> Iterator[None]:
    """Let one process at a time train this into the folder: two chapters that run side by side may want the same.

    Processes that were launched together share their training, and do not wait for each other here.
    """
    with nullcontext() if launched_together() else locked(folder.with_name(f"{folder.name}.{run_id}")):
        yield


def write_summary(path: Path, summary: dict[str, Any], beside: Iterable[str]) -> None:
    """Write what is to be known of a training, with the hashes of the files that it has left beside it."""
    write_json(path, {**summary, "sha256": {name: sha256_file(path.with_name(name)) for name in beside}})


def copy_summary(source: Path, path: Path, beside: Iterable[str]) -> None:
    """Write a summary again, beside files that a library may have written in another way.

    Raises:
        UnreadableError: the source is no summary of a training.
    """
    write_summary(path, read_json(source, "the summary of a training"), beside)


def finished_summary(
    path: Path, run_id: str, beside: Iterable[str], fields: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any] | None:
    """What a training of this digest left in its summary file; `None` if there is no such file, or of another one.

    Args:
        path: the summary file.
        run_id: the digest.
        beside: files that belong to it. If one is missing or is not what the training wrote, it counts for nothing.
        fields: what the summary must hold, and of which type, beside digest, seconds and history.

    Warns:
        UserWarning: of such a file.

    Raises:
        UnreadableError: the file is there, and is no summary of a training.
    """
    if not path.exists():
        return None
    remedy = f"remove {path.parent} to train again"
    fields = {"digest": str, "seconds": (int, float), "history": list, **fields}
    summary = read_json(path, "the summary of a training", fields=fields, remedy=remedy)
    if summary["digest"] != run_id:
        return None
    hashes = summary.get("sha256", {})  # summaries of earlier versions have none
    for name in beside:
        other = path.with_name(name)
        if not other.exists() or (name in hashes and sha256_file(other) != hashes[name]):
            warnings.warn(f"{other} is missing, or not what {path.name} belongs to: trained again", stacklevel=2)
            return None
    return summary
