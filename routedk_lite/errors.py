"""How the command ends: what went wrong in one sentence, with the thing, the value and the way out.

Rooms raise errors that say so themselves. This is for those which come from below: the operating system, codecs, JSON.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import typer

from .files import cache_dir

ClickError = typer.BadParameter.__mro__[2]
"""What is wrong with the words of a command. Typer's own name for it has moved between versions."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
LONGEST = 160
"""Characters of a path that are shown."""
_ELSEWHERE = "choose another place, or change its permissions"
if os.name == "nt":  # where a file that a program has open cannot be replaced
    _ELSEWHERE += ", or close the program that has it open"
_ROOM = "make room and give the same command again: what is finished is kept"
_SYSTEM = {
    errno.EACCES: f"permission denied: {_ELSEWHERE}",
    errno.EPERM: f"not permitted: {_ELSEWHERE}",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOSPC: f"the disk is full: {_ROOM}",
    errno.EDQUOT: f"your share of the disk is used up: {_ROOM}",
    errno.EFBIG: f"the file would be larger than the limit (ulimit -f, or the file system's): {_ROOM}",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ELOOP: "its links lead round in a circle: mend or remove them",
    errno.ENOENT: "there is no such file or folder: check the name",
    errno.EISDIR: "it is a folder: give the name of a file",
    errno.ENOTDIR: "it is a file: give the name of a folder",
    errno.EEXIST: "it is a file: give the name of a folder",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.EIO: "the disk cannot be read or written: check it",
}
"""What the operating system means, and the way out."""
_NUMBER = re.compile(r"\(os error (\d+)\)")
"""In the words of libraries that are written in Rust."""


def exit_code(app: typer.Typer, words: Sequence[str]) -> int:
    """Run a command; expected failures end with one sentence instead of a traceback.

    Args:
        app: the command.
        words: what stands behind its name. `--debug`, anywhere among them, shows the traceback as well.

    Returns:
        0, or 1 after a failure, 2 where the words make no sense, 130 after Ctrl-C.

    Raises:
        Exception: one that nobody expects, which is a fault of ours.
    """
    rest = [word for word in words if word != "--debug"]
    return ended(lambda: app(rest, prog_name="routedk", standalone_mode=False), debug=len(rest) < len(words))


def ended(work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Do some work, for a script; it ends as `exit_code` says.

    Args:
        work: may give an exit code.
        debug: show the traceback of a failure as well.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that knows no α shows a question mark
    try:
        code = work() or 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort:
        code = 1
        _say("Stopped: nothing was done.")
    except ClickError as error:
        code = error.exit_code
        _show_usage(error)
    except Exception as error:
        code = 1
        said = sentence(error)
        if debug:
            traceback.print_exception(error)
        elif said is None:
            raise
        _say(f"error: {said or repr(error)}", "red")
    if code == INTERRUPTED:
        _say("Stopped. What is finished is kept: the same command goes on from there.")
    _flush()
    return code


def _show_usage(error: Exception) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        error.show()
        return
    command = error.ctx.command_path if getattr(error, "ctx", None) else "routedk"
    _say(f"error: {error.format_message().rstrip('.')}. See: {command} --help", "red")


def _say(text: str, colour: str | None = None) -> None:
    typer.secho(text, err=True, fg=colour)


def _flush() -> None:
    """Write what is left for the standard output. Where nobody reads it, or the disk is full, Python would complain."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- sentences ----------------------------------------------------------------------------------------------------


def sentence(error: BaseException) -> str | None:
    """One sentence about an error that a user can mend; `None` for any other, which is a fault of ours.

    Args:
        error: as it was caught, with its traceback, from which files are found that the error does not name.
    """
    if isinstance(error, UnicodeDecodeError):
        return _of_codec(error)
    if isinstance(error, json.JSONDecodeError):
        return _of_json(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, ImportError):
        return f"{error.name or 'a package'} cannot be imported ({_flat(error)}): install it, or install it again"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"there is not enough memory ({_flat(error)}): `routedk doctor` says which profiles fit this machine"
    if type(error).__name__ == "SafetensorError":
        return _of_weights(error)
    if isinstance(error, RuntimeError) and "PytorchStreamWriter failed writing" in str(error):
        return f"weights cannot be written ({_flat(error)}); if the disk is full, {_ROOM}"
    return str(error) or type(error).__name__ if isinstance(error, ValueError | RuntimeError) else None


def _flat(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


# --- the operating system -----------------------------------------------------------------------------------------


def _of_system(error: OSError) -> str:
    if error.errno is None:  # of a library, with words of its own
        return _flat(error)
    what = _SYSTEM.get(error.errno, f"{error.strerror}: check it, or choose another place")
    name = error.filename2 or error.filename
    if not isinstance(name, str | bytes | os.PathLike):
        return what
    path = Path(os.fsdecode(name))
    if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR) and (culprit := _in_the_way(path)):
        path = culprit
        what = _SYSTEM[errno.ENOTDIR]
        if path.is_symlink():
            what = f"it is a link to {_shown(path.readlink())}, which is not there: mend or remove it"
    elif path.name.startswith(".") and not os.path.lexists(path):  # a temporary name of ours, which says little
        path = path.parent
    return f"{_shown(path)}: {what}{_other_cache(path)}"


def _in_the_way(path: Path) -> Path | None:
    """The file, or the link to nowhere, that stands in a path where a folder is needed."""
    for part in (*reversed(path.parents), path):
        if os.path.lexists(part) and not part.is_dir():
            return part
    return None


def _other_cache(path: Path) -> str:
    try:
        inside = path.is_relative_to(cache_dir())
    except ValueError:
        return ""
    return "; or set ROUTEDK_CACHE to another folder" if inside else ""


def _of_weights(error: BaseException) -> str:
    """A file of weights that cannot be read or written."""
    if found := _NUMBER.search(str(error)):
        number, said = int(found[1]), _flat(error)  # Windows has numbers of its own
        return _of_system(OSError(0, said, None, number) if os.name == "nt" else OSError(number, said))
    path = _file_of(error, lambda path: path.suffix == ".safetensors")
    return f"{_shown(path) if path else 'a file of weights'} is damaged ({_flat(error)}): fetch or make it again"


# --- what stands in files -----------------------------------------------------------------------------------------


def _of_codec(error: UnicodeDecodeError) -> str:
    path = _file_of(error, lambda path: error.object in path.read_bytes())
    where = f"{_shown(path)}: " if path else ""
    return f"{where}byte {error.start + 1} is not {error.encoding.upper()}: save the file as UTF-8, or make it again"


def _of_json(error: json.JSONDecodeError) -> str:
    def holds(path: Path) -> bool:
        return error.doc.encode() in path.read_bytes()

    path = _file_of(error, holds) if error.doc.strip() else None
    where = f"{_shown(path)}: " if path else ""
    return f"{where}not JSON ({_flat(error)}): mend it, or remove it and make it again"


def _file_of(error: BaseException, fits: Callable[[Path], bool]) -> Path | None:
    """The file that was being read: a path in one of the functions under way, the innermost first."""
    for path in _paths_in(error.__traceback__):
        try:
            if path.is_file() and fits(path):
                return path
        except (OSError, ValueError):
            continue
    return None


def _paths_in(trace: TracebackType | None) -> Iterator[Path]:
    for frame, _ in reversed(list(traceback.walk_tb(trace))):
        yield from (value for value in frame.f_locals.values() if isinstance(value, Path))
