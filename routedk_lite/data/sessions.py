"""Shopping sessions and their bundles: the three public domains and the toy shop, read the same way.

A *session* is the list of products that one shopper looked at; a *bundle* is a set of its items that were wanted
together. Items are numbered from 1, as in the prompt. The public data are those of AICL (arXiv 2312.16262) at a
fixed commit; nothing of them ships with this package.
"""

from __future__ import annotations

import html
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import asset, cache_dir, fetch, sha256_json

if TYPE_CHECKING:
    import datasets
    import numpy as np

Bundle = frozenset[int]
"""A set of 1-based item numbers."""

PUBLIC_DOMAINS = ("electronic", "clothing", "food")
DOMAINS = (*PUBLIC_DOMAINS, "toyshop")
SPLITS = ("train", "validation", "test")
DOWNLOAD_ROOT = "https://raw.githubusercontent.com"


class DataError(ValueError):
    """A data file or record is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One shopping session with its annotated bundles."""

    id: int
    """Unique within its domain."""
    items: tuple[str, ...]
    """Product ids, in the order in which they were looked at."""
    titles: tuple[str, ...]
    """One cleaned title per item."""
    bundles: tuple[Bundle, ...]
    """Annotated bundles in file order; a bundle that was annotated twice stands here twice."""
    intents: tuple[str, ...] = ()
    """What each bundle is for, in the annotators' words: one per bundle, or none at all."""
    why: tuple[Any, ...] = ()
    """Toy shop only: the known reason of each bundle (`toyshop.Why`)."""

    def __post_init__(self) -> None:
        where = f"session {self.id!r}"
        if not self.items:
            raise DataError(f"{where}: items is empty; a session needs at least one product")
        if len(self.titles) != len(self.items):
            raise DataError(f"{where}: {len(self.titles)} titles for {len(self.items)} items; give one per item")
        for number, title in enumerate(self.titles, start=1):
            if not title.strip():
                raise DataError(f"{where}: the title of item {number} is empty")
        for bundle in self.bundles:
            wrong = sorted(n for n in bundle if not 1 <= n <= len(self.items))
            if wrong or not bundle:
                raise DataError(f"{where}: bundle {sorted(bundle)} must name items in 1..{len(self.items)}")
        for name in ("intents", "why"):
            values = getattr(self, name)
            if values and len(values) != len(self.bundles):
                raise DataError(f"{where}: {len(values)} {name} for {len(self.bundles)} bundles; give one per bundle")

    def __len__(self) -> int:
        return len(self.items)

    def together(self) -> np.ndarray:
        """Whether two items share a bundle; an item in some bundle shares it with itself.

        Shapes:
            → (items, items)
        """
        import numpy as np

        member = np.array([[n in bundle for bundle in self.bundles] for n in range(1, len(self) + 1)], dtype=int)
        return member @ member.T > 0

    def permuted(self, order: Sequence[int]) -> Session:
        """The same session with its items in another order; reasons, which name items, are left out.

        Args:
            order: the items' present indices, from 0, in their new order.

        Raises:
            DataError: `order` does not name every item once.
        """
        if sorted(order) != list(range(len(self))):
            raise DataError(f"session {self.id!r}: order {list(order)} must name each of 0..{len(self) - 1} once")
        now = {old + 1: new + 1 for new, old in enumerate(order)}
        return replace(
            self,
            items=tuple(self.items[k] for k in order),
            titles=tuple(self.titles[k] for k in order),
            bundles=tuple(frozenset(now[n] for n in bundle) for bundle in self.bundles),
            why=(),
        )


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The sessions of one split of one domain, in official order."""

    name: str
    """One of `DOMAINS`."""
    split: str
    """One of `SPLITS`."""
    sessions: tuple[Session, ...]
    neighbours: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Test split of the public domains: the ten most similar training sessions of each session, nearest first."""

    def __len__(self) -> int:
        return len(self.sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self.sessions)

    @cached_property
    def by_id(self) -> Mapping[int, Session]:
        """Session of each id."""
        return {session.id: session for session in self.sessions}

    @cached_property
    def sha256(self) -> str:
        """Hash of everything a model or a metric sees: ids, cleaned titles, bundles."""
        return sha256_json([[s.id, s.titles, [sorted(b) for b in s.bundles]] for s in self.sessions])

    def to_dataset(self) -> datasets.Dataset:
        """The sessions as a Hugging Face `Dataset` with columns id, items, titles, bundles, intents."""
        from datasets import Dataset

        return Dataset.from_list(
            [
                {
                    "id": s.id,
                    "items": list(s.items),
                    "titles": list(s.titles),
                    "bundles": [sorted(b) for b in s.bundles],
                    "intents": list(s.intents),
                }
                for s in self.sessions
            ]
        )


def load_domain(name: str, split: str) -> Domain:
    """Load one split of one domain, downloading and verifying the public files on first use.

    The official test and training sets are used as they are; validation sessions are those in neither.

    Args:
        name: `electronic`, `clothing`, `food` or `toyshop`.
        split: `train`, `validation` or `test`.

    Raises:
        ValueError: unknown domain or split.
        DownloadError: the files are neither cached nor to be had.
        DataError: a file holds a malformed record.
    """
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}: choose one of {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if name == "toyshop":
        from .. import toyshop

        return Domain(name=name, split=split, sessions=toyshop.load(split))
    return _load_public(name, split)


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


# --- the public files -------------------------------------------------------------------------------------------


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
    """
    entry = manifest()[source]
    root = os.environ.get("ROUTEDK_MIRROR") or DOWNLOAD_ROOT
    address = "/".join([root.rstrip("/"), entry["repository"], entry["commit"], path])
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
def _load_public(name: str, split: str) -> Domain:
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


def domain_is_cached(name: str) -> bool:
    """Whether a domain can be loaded without the network."""
    if name not in PUBLIC_DOMAINS:
        return True
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
