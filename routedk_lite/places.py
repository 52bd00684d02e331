"""Files and folders as users name them, in options and environment variables."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from urllib.request import url2pathname


def user_path(value: str | Path, name: str) -> Path:
    """A path as users write it: `~` is the home folder, and `file:///…` is understood.

    Args:
        value: what was given.
        name: the option or variable that holds it, for the message.

    Raises:
        ValueError: it is empty, an address of another kind, names another machine or no home folder there is, or
            holds a NUL.
    """
    text = str(value)
    if not text.strip():
        raise ValueError(f"{name} = {text!r} is empty: give the name of a folder, or leave it out")
    if found := re.fullmatch(r"file:(?://([^/]*))?(/.*)", text, re.IGNORECASE | re.DOTALL):
        if (found[1] or "localhost").lower() != "localhost":
            raise ValueError(f"{name} = {text!r} is on the machine {found[1]!r}: give the name of a folder here")
        text = url2pathname(found[2])
    elif re.match(r"file:|[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        raise ValueError(f"{name} = {text!r}: give the name of a folder, or file:///…")
    if "\0" in text:
        raise ValueError(f"{name} = {text!r} holds a NUL character: give the name of a folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{name} = {text!r}: there is no such home folder; write the whole path") from None


def user_folder(value: str | Path, name: str) -> Path:
    """As `user_path`, for a folder: it need not exist, but nothing else may stand in its place.

    Raises:
        ValueError: as `user_path`; a file, or a link to nowhere, stands there or on the way there; or no folder can
            have that name.
    """
    path = user_path(value, name)
    for part in (path, *path.parents):
        try:
            os.lstat(part)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ValueError(f"{name} = {path}: {error.strerror}: give the name of another folder") from error
        if part.is_dir():
            break
        what = f"a link to {os.readlink(part)}, which is not there" if part.is_symlink() else "a file"
        where = "" if part == path else f": {part}"
        raise ValueError(f"{name} = {path}{where} is {what}: give the name of a folder")
    return path


def check_writable(folder: Path, name: str) -> None:
    """Make sure that a folder can be written, or made, before work is done that is to go there.

    Args:
        folder: where it is to go.
        name: the option that says so, for the message.

    Raises:
        ValueError: it cannot be written.
    """
    existing = next(part for part in (folder, *folder.parents) if part.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"{name} = {folder} cannot be written to ({error.strerror}): choose another folder, or change its "
            "permissions"
        ) from error
