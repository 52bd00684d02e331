"""Locks: of several processes that want to make the same file or folder, one makes it, and the others wait."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .files import naming_the_cache

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What file systems answer that cannot lock a file."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, of all that want to make the same file or folder.

    Raises:
        DownloadError: the path is in the cache, which cannot be written.
        OSError: the folder of another path cannot be written.
    """
    path = Path(path)
    with naming_the_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path.with_name(f".{path.name}.lock"))
    try:
        yield
    finally:
        lock.release()


def launched_together() -> str:
    """How many processes were launched together to share one training (`accelerate launch`); nothing if one runs alone.

    As `WORLD_SIZE` has it, be it a number or not.
    """
    processes = os.environ.get("WORLD_SIZE", "").strip()
    return "" if processes in ("0", "1") else processes


def _acquired(path: Path) -> BaseFileLock:
    """The lock of that file, waited for; where the file system has no locks, a file whose presence is the lock."""
    from filelock import FileLock, SoftFileLock

    try:
        lock = FileLock(path)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_suffix(".softlock"))  # the other file stays, and would count as taken
        lock.acquire()
    return lock
