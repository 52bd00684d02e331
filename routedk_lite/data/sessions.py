"""Shopping sessions and their bundles: the public domains, the toy ones and your own (`own`), read the same way.

A *session* is the list of products that one shopper looked at; a *bundle* is a set of its items that were wanted
together. Items are numbered from 1, as in the prompt. The public data are those of AICL (arXiv 2312.16262) at a
fixed commit; nothing of them ships with this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..files import sha256_json

if TYPE_CHECKING:
    import datasets
    import numpy as np

Bundle = frozenset[int]
"""A set of 1-based item numbers."""

PUBLIC_DOMAINS = ("electronic", "clothing", "food")
TOY_DOMAINS = ("toyshop", "habits")
DOMAINS = (*PUBLIC_DOMAINS, *TOY_DOMAINS)
SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """A data file or record is not what it should be."""


def check_title(title: object, where: str) -> None:
    """Refuse a title that cannot be written.

    Raises:
        DataError: it is no text, or holds half a character, which no file and no tokenizer takes.
    """
    if not isinstance(title, str):
        raise DataError(f"{where}: the title is {title!r}, no text; give every item a title, or leave the item out")
    try:
        title.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: the title {title!a} holds half a character (a lone surrogate): read its file again with "
            "the right encoding, or mend it with "
            'title.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        ) from None


@dataclass(frozen=True, kw_only=True)
class Session:
    """One shopping session with its annotated bundles."""

    id: int
    """Unique within its domain."""
    items: tuple[str, ...]
    """Product ids, in the order of the data."""
    titles: tuple[str, ...]
    """One cleaned title per item."""
    bundles: tuple[Bundle, ...]
    """Annotated bundles in file order; a bundle that was annotated twice stands here twice."""
    intents: tuple[str, ...] = ()
    """What each bundle is for, in the annotators' words: one per bundle, or none at all."""
    why: tuple[Any, ...] = ()
    """Toy shop only: the known reason of each bundle (`toyshop.Why`)."""
    name: str = ""
    """Sessions of one's own: what their owner calls it."""

    def __post_init__(self) -> None:
        where = f"session {self.called}"
        if not self.items:
            raise DataError(f"{where}: items is empty; a session needs at least one product")
        if len(self.titles) != len(self.items):
            raise DataError(f"{where}: {len(self.titles)} titles for {len(self.items)} items; give one per item")
        for number, title in enumerate(self.titles, start=1):
            check_title(title, f"{where}, item {number}")
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

    @property
    def called(self) -> str:
        """The session in messages: its owner's name for it, or its id."""
        return repr(self.name or self.id)

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
            raise DataError(f"session {self.called}: order {list(order)} must name each of 0..{len(self) - 1} once")
        now = {old + 1: new + 1 for new, old in enumerate(order)}
        return replace(
            self,
            items=tuple(self.items[k] for k in order),
            titles=tuple(self.titles[k] for k in order),
            bundles=tuple(frozenset(now[n] for n in bundle) for bundle in self.bundles),
            why=(),
        )


@contextmanager
def about(session: Session) -> Iterator[None]:
    """Within the block, what is wrong with a value is said of this session."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"session {session.called}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The sessions of one split of one domain, in official order."""

    name: str
    """One of `DOMAINS`; of sessions of one's own, the name of their folder or file (`own.domain_name`)."""
    split: str
    """One of `SPLITS`, or `own.ALL`."""
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
