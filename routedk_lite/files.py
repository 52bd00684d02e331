"""Files that others rely on: the cache folder, locks, writes that are all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .places import user_path

if TYPE_CHECKING:
    from filelock import BaseFileLock

CHUNK = 1 << 20
"""Bytes read at a time when a file is hashed or copied."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What file systems answer that cannot lock a file."""


class DownloadError(RuntimeError):
    """A file could not be had, or is not the file that was asked for."""


class OccupiedError(ValueError):
    """Something that is not ours stands where a folder should go."""


def cache_dir(*parts: str) -> Path:
    """The folder for things that can be fetched or computed again.

    `ROUTEDK_CACHE` names another folder than the platform's usual one.
    """
    root = os.environ.get("ROUTEDK_CACHE")
    if not root:
        from platformdirs import user_cache_dir

        root = user_cache_dir("routedk-lite")
        if root.startswith("~"):
            raise ValueError("ROUTEDK_CACHE is not set, and there is no home folder: set it to a folder for the cache")
    return user_path(root, "ROUTEDK_CACHE").joinpath(*parts)


@contextmanager
def _naming_the_cache(path: Path) -> Iterator[None]:
    """What cannot be written in the cache is reported with the way out: another cache."""
    try:
        yield
    except OSError as error:
        root = cache_dir()
        if not path.is_relative_to(root):
            raise
        raise DownloadError(
            f"the cache {root} cannot be written to ({error.strerror or error}): set ROUTEDK_CACHE to a folder that "
            "you can write to, with room in it"
        ) from error


def asset(*parts: str) -> Path:
    """A file that ships inside the package."""
    return Path(__file__).with_name("assets").joinpath(*parts)


def own_file(name: str) -> Path:
    """A file or folder at the top of this checkout, or the copy that came with the package."""
    here = Path(__file__).parents[1] / name
    return here if here.exists() else asset(name)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_folder(folder: Path, pattern: str = "*.safetensors") -> str:
    """One SHA-256 for all files of a folder that match `pattern`, names included.

    Raises:
        FileNotFoundError: no file matches.
    """
    files = sorted(Path(folder).glob(pattern))
    if not files:
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return sha256_json({file.name: sha256_file(file) for file in files})


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file that takes the place of `path` only when the block ends without an error.

    A link in its place is replaced; what it leads to stays as it is.
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    with _naming_the_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """What the user takes away from new files' permissions."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def atomic_folder(path: Path, *, ours: Collection[str] = (), force: bool = False) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` only when the block ends without an error.

    What is replaced must be ours: a folder with anything else in it is refused before the block begins. A link in its
    place is replaced; what it leads to stays as it is.

    Args:
        path: where the folder goes.
        ours: names of what we write there, as patterns; a folder that holds nothing else may be replaced.
        force: replace it whatever it holds. For a user who has seen the list.

    Raises:
        OccupiedError: something else stands there.
    """
    path = Path(path)
    with _naming_the_cache(path):
        check_ours(path, ours, force=force)
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        mask = _umask()
        for made in (work, *work.rglob("*")):  # libraries write some files for their owner alone
            if not made.is_symlink():
                made.chmod((0o777 if made.is_dir() else 0o666) & ~mask)
        check_ours(path, ours, force=force)  # the block may have taken hours
        _replace_folder(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def written_beside(folder: Path, *, last: str) -> Iterator[Path]:
    """A temporary folder whose files come to lie in `folder`, beside what else is there, when the block ends.

    Each file is replaced whole. `last`, which names the others by their hashes, comes last: a reader who finds an old
    one beside new files can tell.

    Args:
        folder: made if it does not exist.
        last: name of that file.

    Raises:
        OccupiedError: `folder` is a file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise OccupiedError(f"{folder} is a file: give the name of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing.") as work:
        yield Path(work)
        for made in sorted(Path(work).iterdir(), key=lambda path: path.name == last):
            made.chmod(0o666 & ~_umask())
            os.replace(made, folder / made.name)


def _replace_folder(work: Path, path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        os.replace(work, path)
        return
    before = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.before."))
    os.replace(path, before / path.name)
    os.replace(work, path)
    shutil.rmtree(before)  # of a link, the link


def check_ours(path: Path, ours: Collection[str], *, force: bool = False) -> None:
    """Make sure that nothing of a user's would be lost if a folder were replaced.

    Args:
        path: the folder, which need not exist.
        ours: names of what we write there, as patterns.
        force: allow it whatever the folder holds, as long as nobody stands in it.

    Raises:
        OccupiedError: it is a file, holds something else, or is the working folder or one above it.
    """
    path = Path(path)
    if path.exists() and Path.cwd().resolve().is_relative_to(path.resolve()):
        raise OccupiedError(f"{path} is the folder that you work in, or one above it: give another one")
    if path.is_file():
        raise OccupiedError(f"{path} is a file: give the name of a folder")
    if force:
        return
    if foreign := foreign_files(path, ours):
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise OccupiedError(f"{path} holds {shown}, which is not ours to replace: give another folder, or empty it")


def foreign_files(path: Path, ours: Collection[str]) -> list[str]:
    """What stands in a folder that we did not write, sorted."""
    if not Path(path).is_dir():
        return []
    names = sorted(entry.name for entry in Path(path).iterdir())
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in ours)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, of all that want to make the same file or folder.

    Raises:
        DownloadError: the path is in the cache, which cannot be written.
        OSError: the folder of another path cannot be written.
    """
    path = Path(path)
    with _naming_the_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path.with_name(f".{path.name}.lock"))
    try:
        yield
    finally:
        lock.release()


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


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read_lines(path: Path) -> list[Any]:
    """JSON lines that were appended one by one, if the file exists; a last line that was cut off is removed from it."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    return [json.loads(line) for line in lines]
