"""Files that others rely on: the cache folder, writes that are all or nothing, and JSON."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from .places import user_path
from .unfinished import clear, in_the_making, is_unfinished, move, umask

CHUNK = 1 << 20
"""Bytes read at a time when a file is hashed or copied."""
DESKTOP = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file browsers leave in folders that somebody has looked at: nobody's."""


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
def naming_the_cache(path: Path) -> Iterator[None]:
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


def sha256_folder(folder: Path) -> str:
    """One SHA-256 for all safetensors files of a folder, names included.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no *.safetensors in {folder}")
    return sha256_json({file.name: sha256_file(file) for file in files})


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file that takes the place of `path` only when the block ends without an error.

    A link in its place is replaced; what it leads to stays as it is.
    """
    path = Path(path)
    # The same bytes on every system: records are known by the hashes of their files.
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with ExitStack() as stack:
        stack.enter_context(naming(path))
        with naming_the_cache(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            made = stack.enter_context(in_the_making(path))
        with open(made, mode, **text) as file:
            yield file
        made.chmod(0o666 & ~umask())  # it is made for its owner alone
        move(made, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block, let errors name the file: a full disk does not say what it had no room for."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


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
    with ExitStack() as stack:
        with naming_the_cache(path):
            check_ours(path, ours, force=force)
            path.parent.mkdir(parents=True, exist_ok=True)
            work = stack.enter_context(in_the_making(path, folder=True))
        new, old = work / "new", work / "old"
        if old.exists() and not path.exists():  # a kill between the two moves below
            move(old, path)
        clear(work)
        new.mkdir()
        yield new
        hidden = umask()
        for made in (new, *new.rglob("*")):  # libraries write some files for their owner alone
            if not made.is_symlink():
                made.chmod((0o777 if made.is_dir() else 0o666) & ~hidden)
        check_ours(path, ours, force=force)  # the block may have taken hours
        try:
            if path.exists() or path.is_symlink():
                move(path, old)
            move(new, path)
        except BaseException:  # Ctrl-C too: what is left in `work` is removed with it
            if (old.exists() or old.is_symlink()) and not (path.exists() or path.is_symlink()):
                move(old, path)
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
    with in_the_making(folder / "files", folder=True) as work:
        clear(work)
        yield work
        for made in sorted(work.iterdir(), key=lambda path: path.name == last):
            made.chmod(0o666 & ~umask())
            move(made, folder / made.name)


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
    """What stands in a folder that we did not write, sorted.

    Args:
        path: the folder, which need not exist.
        ours: names of files, as patterns; files in a folder of ours are given with it, as `notes/*/x.json`.
    """
    path = Path(path)
    found = []
    for entry in path.iterdir() if path.is_dir() else ():
        if is_unfinished(entry.name) or entry.name in DESKTOP:
            continue
        shared = entry.is_dir() and not entry.is_symlink() and any(p.startswith(f"{entry.name}/") for p in ours)
        inside = (file for file in entry.rglob("*") if file.is_symlink() or not file.is_dir())
        for file in inside if shared else [entry]:
            name = file.relative_to(path).as_posix()
            known = any(name.count("/") == p.count("/") and fnmatch(name, p) for p in ours)
            if file.is_dir() or not (known or file.name in DESKTOP):
                found.append(name)
    return sorted(found)


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file, sorted by name, in memory of their own.

    A file that is mapped into memory, as libraries have it, cannot be replaced on Windows while a tensor lives. The
    library gives tensors that it reads from bytes in another order each time.

    Raises:
        FileNotFoundError: there is no such file.
        SafetensorError: it is damaged.
    """
    from safetensors.torch import load

    return dict(sorted(load(Path(path).read_bytes()).items()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


class UnreadableError(ValueError):
    """A file is not what we have written under its name."""


def read_json(
    path: str | Path,
    what: str,
    *,
    fields: Mapping[str, type | tuple[type, ...]] | None = None,
    remedy: str = "get it anew from where it was made",
) -> dict[str, Any]:
    """A JSON object from a file of ours.

    Args:
        path: the file.
        what: is expected there, in words.
        fields: what must be in it, and of which type.
        remedy: what to do if it is not so.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it cannot be read, is no JSON object, or has not these fields.
    """
    try:
        value = parse_json(Path(path).read_bytes(), f"{path}: not {what}", remedy)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UnreadableError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{path}: not {what}: expected an object, found a {type(value).__name__}; {remedy}")
    for name, kind in (fields or {}).items():
        if name not in value:
            raise UnreadableError(f"{path}: not {what}: {name} is missing; {remedy}")
        if not isinstance(value[name], kind):
            raise UnreadableError(f"{path}: not {what}: {name} is {value[name]!r:.60}; {remedy}")
    return value


def parse_json(content: bytes, where: str, remedy: str = "get the file anew, or remove it") -> Any:
    """A JSON value of ours: UTF-8, with or without a byte-order mark.

    Raises:
        UnreadableError: it is empty, in another encoding, or no JSON; `where` begins the message, `remedy` ends it.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if not content.removeprefix(codecs.BOM_UTF8).strip(b"\0\t\n\r "):
            why = "it is empty"
        elif isinstance(error, UnicodeDecodeError) or b"\0" in content:
            why = "it is not in UTF-8"
        else:
            why = f"no JSON, or cut off ({error})"
        raise UnreadableError(f"{where}: {why}; {remedy}") from error


def read_lines(path: Path) -> list[Any]:
    """JSON lines that were appended one by one, if the file exists; a last line that was cut off is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [parse_json(line, f"{path}, line {n}") for n, line in enumerate(whole.splitlines(), start=1)]
