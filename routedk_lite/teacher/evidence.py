"""What annotated sessions say for or against a rule: how often the products that it speaks of share a bundle.

A rule that a teacher drew from a few dozen sessions is a claim. Where it speaks of pairs of products, every training
session can be asked: do such pairs share a bundle more often than the pairs that it sets them against?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..data.sessions import Session
from ..statistics import Interval
from .kinds import KindExtractor

VERDICTS = ("supported", "contradicted", "not decided")


class Item(NamedTuple):
    """A product as a rule may see it."""

    title: str
    kind: str | None
    """What `kinds` reads in the title; `None` where it reads nothing."""
    brand: str
    """The first word of the title, in lower case."""


Condition = Callable[[Item, Item], bool]
"""Whether a rule speaks of two products."""


class PairEvidence(NamedTuple):
    """How often two products share a bundle, where a rule speaks for it and where it does not."""

    favoured: Interval
    """Share of the pairs that the rule puts together which do stand together."""
    others: Interval
    """Likewise of the pairs that it is held against."""
    difference: Interval
    """The first less the second."""
    n_favoured: int
    n_others: int
    n_sessions: int
    """Sessions that hold such pairs."""

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: on which side of zero the interval of the difference lies."""
        if self.difference.low > 0:
            return VERDICTS[0]
        return VERDICTS[1] if self.difference.high < 0 else VERDICTS[2]


def session_items(session: Session, extractor: KindExtractor) -> list[Item]:
    """The products of a session with what can be read in their titles."""
    kinds = extractor.kinds(session)
    return [Item(t, k, t.split()[0].lower()) for t, k in zip(session.titles, kinds, strict=True)]


def pair_evidence(
    sessions: Iterable[Session],
    extractor: KindExtractor,
    favoured: Condition,
    others: Condition | None = None,
    *,
    within: bool = False,
    generator: np.random.Generator,
    n_draws: int = 2_000,
) -> PairEvidence:
    """Hold a rule about pairs of products against annotated sessions.

    Pairs of one session are not independent, so the 95 % intervals come from drawing whole sessions anew.

    Sessions differ in more than what a rule speaks of: in some nearly everything belongs together. With `within`,
    pairs are compared with pairs of the same session only.

    Args:
        sessions: annotated ones.
        extractor: tells kinds.
        favoured: pairs that the rule puts together; asked in both orders, one is enough.
        others: pairs to compare them with; by default all that are not favoured.
        within: only sessions that hold pairs of both sorts, each session with the same weight.
        generator: of the bootstrap.
        n_draws: resamples.

    Raises:
        ValueError: no pair of one of the two sorts.
    """
    counts = []  # per session: favoured pairs, those that share a bundle, other pairs, those that share a bundle
    for session in sessions:
        items, together = session_items(session, extractor), session.together()
        row = [0, 0, 0, 0]
        for i, j in combinations(range(len(items)), 2):
            a, b = items[i], items[j]
            speaks = favoured(a, b) or favoured(b, a)
            if speaks or others is None or others(a, b) or others(b, a):
                row[0 if speaks else 2] += 1
                row[1 if speaks else 3] += bool(together[i, j])
        counts.append(row)
    table = np.array(counts, dtype=float).reshape(-1, 4)
    if within:
        table = table[(table[:, 0] > 0) & (table[:, 2] > 0)]
    n_favoured, _, n_others, _ = map(int, table.sum(0))
    if not (n_favoured and n_others):
        raise ValueError(
            f"{n_favoured} favoured and {n_others} other pairs in {len(counts)} sessions: a comparison needs both"
        )
    n_sessions = int(((table[:, 0] > 0) | (table[:, 2] > 0)).sum())
    if within:  # a session's pairs count as one
        table = table / table[:, [0, 0, 2, 2]]
    drawn = generator.multinomial(len(table), np.full(len(table), 1 / len(table)), size=n_draws) @ table
    drawn = drawn[(drawn[:, 0] > 0) & (drawn[:, 2] > 0)]
    total = table.sum(0, keepdims=True)
    shares = [np.stack([t[:, 1] / t[:, 0], t[:, 3] / t[:, 2]]) for t in (total, drawn)]

    def interval(of: Callable[[np.ndarray], np.ndarray]) -> Interval:
        low, high = np.quantile(of(shares[1]), [0.025, 0.975])
        return Interval(float(of(shares[0])[0]), float(low), float(high))

    return PairEvidence(
        interval(lambda s: s[0]),
        interval(lambda s: s[1]),
        interval(lambda s: s[0] - s[1]),
        n_favoured,
        n_others,
        n_sessions,
    )
