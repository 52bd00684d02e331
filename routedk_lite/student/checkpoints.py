"""Checkpoints of a training, and which of them are whole.

A process may be killed at any moment, and then its newest checkpoint is a folder with some files in it. So the last
file that is written into a checkpoint is a manifest with the hashes of all others: a folder without one, or with other
files than it names, is damaged and left out. The checkpoint before is removed only after that.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..files import UnreadableError, read_json, sha256_file, write_json

MANIFEST = "manifest.json"


class UnwritableError(RuntimeError):
    """There was no writing a checkpoint, or what was trained."""


def checkpoint_folder(work: str | Path, step: int) -> Path:
    """Where a Trainer puts the checkpoint after so many optimizer steps."""
    return Path(work, f"{PREFIX_CHECKPOINT_DIR}-{step}")


def seal(folder: Path, processes: int) -> None:
    """Write the manifest of a checkpoint: from now on it is whole. Older ones beside it are removed.

    Args:
        folder: the checkpoint, with all its files.
        processes: that train together; each has written files of its own.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
    write_json(folder / MANIFEST, {"processes": processes, "sha256": files})
    for step, other in _checkpoints(folder.parent):
        if step < _step(folder):
            shutil.rmtree(other, ignore_errors=True)


def damage(folder: Path, processes: int) -> str | None:
    """What is wrong with a checkpoint, in words; `None` if it is whole.

    Args:
        folder: the checkpoint.
        processes: that are to go on from it.
    """
    path = folder / MANIFEST
    if not path.exists():
        return f"it has no {MANIFEST}, so writing it was never finished"
    try:
        manifest = read_json(path, "the manifest of a checkpoint", fields={"processes": int, "sha256": dict})
    except UnreadableError as error:
        return str(error)
    if manifest["processes"] != processes:
        return f"it was written by {manifest['processes']} processes, and now there are {processes}"
    for name, sha256 in manifest["sha256"].items():
        if not (folder / name).is_file():
            return f"its {name} is missing"
        if sha256_file(folder / name) != sha256:
            return f"its {name} is not the file that was written"
    return None


def last_whole_checkpoint(work: Path, processes: int = 1, *, warn: bool = True) -> Path | None:
    """The newest checkpoint that is whole, or `None`; damaged ones that are newer are named in a warning.

    Args:
        work: the folder of a training.
        processes: that are to go on from it.
        warn: of several processes, one is enough to warn.
    """
    damaged, found = [], None
    for _, folder in sorted(_checkpoints(work), reverse=True):
        if (wrong := damage(folder, processes)) is None:
            found = folder
            break
        damaged.append(f"{folder.name}: {wrong}")
    if damaged and warn:
        start = f"goes on from {found.name}" if found else "starts again from the beginning"
        warnings.warn(f"{work}: training {start}, without what is damaged: {'; '.join(damaged)}", stacklevel=2)
    return found


def _checkpoints(work: Path) -> list[tuple[int, Path]]:
    found = [(_step(path), path) for path in Path(work).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    return [(step, path) for step, path in found if step is not None]


def _step(folder: Path) -> int | None:
    number = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isascii() and number.isdigit() else None


@contextmanager
def told_if_unwritable(folder: Path) -> Iterator[None]:
    """Within the block, say what to do if a library cannot write into a folder.

    Raises:
        UnwritableError: instead of the several exceptions by which libraries say so.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnwritableError(_unwritable(folder, error)) from error
    except RuntimeError as error:  # torch tells a failed write by its own kind of error
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            raise UnwritableError(_unwritable(folder, error)) from error
        raise


def _unwritable(folder: Path, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return (
        f"cannot write {folder} ({why}): make room there, or choose another folder, and run the same again; a training "
        "goes on from its last whole checkpoint"
    )
