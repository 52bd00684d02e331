"""The files of the public domains: fetched at a fixed commit, verified, read without running any code in them."""

from __future__ import annotations

import html
import pickle
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..fetching import fetch, mirrored
from ..files import asset, cache_dir
from .sessions import PUBLIC_DOMAINS, DataError, Domain, Session

DOWNLOAD_ROOT = "https://raw.githubusercontent.com"

_TRADE_MARKS = str.maketrans("", "", "®™©\ufffd")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")


def clean_title(raw: str) -> str:
    """Make a product title fit for a prompt; the same for every split.

    Entities are decoded; bracketed remarks, everything from a `|` on, trade marks and surplus white space go, as in
    the official preprocessing. A title that would vanish keeps its words.

    >>> clean_title("HDE&reg; Case &amp; Cover (Black) [2 Pack]")
    'HDE Case & Cover'
    """
    text = html.unescape(raw).translate(_TRADE_MARKS)
    short, before = text, None
    while short != before:  # innermost brackets first
        short, before = _BRACKETS.sub(" ", short), short
    short = " ".join(short.split("|")[0].split()).strip(" ,;:-")
    return short or " ".join(text.split())


@cache
def manifest() -> Mapping[str, Any]:
    """Sources, commits, sizes and SHA-256 of the public files."""
    import json

    return json.loads(asset("data_manifest.json").read_text(encoding="utf-8"))


def _cache_folder(entry: Mapping[str, Any]) -> Path:
    return cache_dir("data", entry["repository"].replace("/", "--"), entry["commit"])


def public_file(source: str, path: str, progress=lambda n: None) -> Path:
    """A verified local copy of one public file.

    Args:
        source: `aicl` (what the loader reads) or `bundlerec` (raw data, for statistics).
        path: the file's path inside its repository.
        progress: called with the number of bytes of each piece that arrives.

    Raises:
        DownloadError: the file is neither cached nor to be had, or its bytes are wrong.
        ValueError: there is no such public file, or `ROUTEDK_MIRROR` is neither a folder nor an `http(s)` address.
    """
    entry = manifest().get(source, {"files": ()})
    if path not in entry["files"]:
        raise ValueError(f"no public file {path!r} of {source!r}: the manifest has files of {', '.join(manifest())}")
    address = mirrored(DOWNLOAD_ROOT, entry["repository"], entry["commit"], path)
    return fetch(address, _cache_folder(entry) / path, sha256=entry["files"][path]["sha256"], progress=progress)


class _PlainUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and plain containers; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": reconstruct}
        known = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        if module in known and name in allowed:
            return allowed[name]
        raise DataError(f"the file asks for {module}.{name}, which no data file needs: it is not loaded")


def read_npy(path: Path) -> Any:
    """Read an `.npy` file that holds one pickled Python object, without running any code from it.

    Raises:
        DataError: the file is not such a file, or its pickle names anything but arrays and plain containers.
    """
    from numpy.lib import format as npy

    with open(path, "rb") as file:
        try:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if not dtype.hasobject or shape != ():
                raise DataError(f"{path.name}: expected one pickled object, found an array of {dtype} {shape}")
            return _PlainUnpickler(file).load().item()
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # a damaged pickle can fail in any way
            raise DataError(f"{path}: not a readable .npy file ({error})") from error


@cache
def _aicl(name: str, stem: str) -> Mapping[Any, Any]:
    return read_npy(public_file("aicl", f"data/{name}/{stem}.npy"))


@cache
def load_public(name: str, split: str) -> Domain:
    """One split of a public domain; `domains.load_domain` checks the names."""
    session_items = _aicl(name, "session_items")
    official = {"train": _aicl(name, "training_set"), "test": _aicl(name, "test_set")}
    if split in official:
        ids = list(official[split])
    else:
        taken = official["train"].keys() | official["test"].keys()
        ids = [i for i in session_items if i not in taken]
    titles, bundles = _aicl(name, "item_titles"), _aicl(name, "session_bundles_deduplication")
    sessions = tuple(_public_session(name, i, session_items, titles, bundles) for i in ids)
    neighbours = {}
    if split == "test":
        neighbours = {i: tuple(near) for i, near in _aicl(name, "TopK_related_sessions").items()}
    return Domain(name=name, split=split, sessions=sessions, neighbours=neighbours)


def _public_session(name: str, id_: int, session_items: Mapping, titles: Mapping, bundles: Mapping) -> Session:
    """Put one session together from the four official tables."""
    try:
        items = tuple(session_items[id_].split(","))
        number = {item: position for position, item in enumerate(items, start=1)}
        annotated = [(intent, frozenset(number[i] for i in members.split(","))) for intent, members in bundles[id_]]
        return Session(
            id=id_,
            items=items,
            titles=tuple(clean_title(titles[item]) for item in items),
            bundles=tuple(bundle for _, bundle in annotated),
            intents=tuple(" ".join(intent.split()) for intent, _ in annotated),
        )
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{name}, session {id_!r}: malformed record ({type(error).__name__}: {error})") from error


def is_cached(name: str) -> bool:
    """Whether a public domain can be loaded without the network."""
    entry = manifest()["aicl"]
    folder = _cache_folder(entry)
    return all((folder / path).exists() for path in entry["files"] if path.startswith(f"data/{name}/"))


def fetch_all(names=PUBLIC_DOMAINS, *, raw: bool = True, progress: bool = True) -> list[Path]:
    """Download and verify every public file of the named domains, with a progress bar.

    Args:
        names: public domains.
        raw: fetch the raw SIGIR 2022 files as well; only `stats` needs them.

    Raises:
        ValueError: a domain that is not public.
        DownloadError: a file is not to be had.
    """
    from tqdm.auto import tqdm

    if unknown := set(names) - set(PUBLIC_DOMAINS):
        raise ValueError(f"unknown public domain {unknown.pop()!r}: choose among {', '.join(PUBLIC_DOMAINS)}")
    wanted = [
        (source, path, info["bytes"])
        for source, entry in manifest().items()
        if raw or source == "aicl"
        for path, info in entry["files"].items()
        if path.split("/")[1:2] in [[name] for name in names] or "/" not in path
    ]
    total = sum(size for _, _, size in wanted)
    with tqdm(total=total, unit="B", unit_scale=True, desc="public data", disable=not progress) as bar:
        paths = []
        for source, path, size in wanted:
            before = bar.n
            paths.append(public_file(source, path, bar.update))
            bar.update(size - (bar.n - before))  # files that were cached count as well
        return paths


def cached_mirror(folder: Path) -> Path | None:
    """Lay links to the cached files into a folder, as `ROUTEDK_MIRROR` wants them; `None` if any is missing.

    Args:
        folder: an empty one.
    """
    for entry in manifest().values():
        cached = _cache_folder(entry)
        if not all((cached / path).exists() for path in entry["files"]):
            return None
        place = folder / entry["repository"]
        place.mkdir(parents=True, exist_ok=True)
        (place / entry["commit"]).symlink_to(cached.resolve(), target_is_directory=True)
    return folder
