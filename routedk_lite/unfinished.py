"""Files and folders in the making, and what a killed process has left of them.

Whatever is written whole or not at all is first made beside its place, always under the same name: what a kill leaves
behind is taken up by the next who writes the same, and nothing piles up. Two who write the same at the same time take
different names. Who is still alive the system knows: it holds a lock (`flock`) as long as its process lives.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: every name is a new one there, and leftovers stay
    fcntl = None

ENDING = ".unfinished"
_STATUS = Path("/proc/self/status")
_UMASK = threading.Lock()
_PAUSES = (0.1,) * 20 if os.name == "nt" else ()
"""Seconds between tries to move something, where other programs hold on to it for a moment."""


@contextmanager
def in_the_making(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A file or folder beside `path` that nobody else writes while the block runs.

    What a killed process left in it is still there: overwrite it, or look at it and `clear` it.

    Args:
        path: what is to be written. Its folder exists.
        folder: make a folder, which is removed at the end. A file is expected to be moved away by then, and is removed
            only after an error.
    """
    made, handle = _taken(path, folder)
    try:
        yield made
    except BaseException:
        remove(made)
        raise
    else:
        if folder:
            remove(made)
    finally:
        if handle is not None:
            os.close(handle)


def move(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another one; on Windows for two seconds, since a virus scanner may hold it.

    Raises:
        OSError: it cannot be moved.
    """
    for pause in _PAUSES:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove everything in a folder."""
    for child in folder.iterdir():
        remove(child)


def is_unfinished(name: str) -> bool:
    """Whether a file or folder of this name is one in the making."""
    return name.startswith(".") and ENDING in name


def umask() -> int:
    """What the user takes away from new files' permissions.

    All threads share it, and the usual way to read it is to set it: only where the system does not say it (outside
    Linux), one at a time, and to a value with which files of other threads are rather too private.
    """
    with suppress(OSError):
        if said := re.search(rb"^Umask:\s*([0-7]+)$", _STATUS.read_bytes(), re.MULTILINE):
            return int(said[1], 8)
    with _UMASK:
        found = os.umask(0o077)
        os.umask(found)
    return found


def _taken(path: Path, folder: bool) -> tuple[Path, int | None]:
    """The usual place, and the handle that holds it; a new name where somebody else holds it or nobody can tell."""
    place = path.with_name(f".{path.name}{ENDING}")
    if fcntl is not None and (handle := _held(place, folder)) is not None:
        return place, handle
    make = tempfile.mkdtemp if folder else _new_file
    return Path(make(dir=path.parent, prefix=f"{place.name}.")), None


def _held(place: Path, folder: bool) -> int | None:
    with suppress(OSError):  # held by another process, or on a disk that knows no locks
        if folder:
            place.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
        handle = os.open(place, flags | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.lstat(place)):  # not moved or removed before it was locked
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    return None


def _new_file(**where: object) -> str:
    handle, name = tempfile.mkstemp(**where)
    os.close(handle)
    return name
