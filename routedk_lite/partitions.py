"""From beliefs about pairs to bundles: every partition of a session weighed, and the answer that is best on average.

A session of n items has a few partitions (n = 3: five) to many (n = 10: 115,975), few enough to look at all of them.
Each gets the probability

    P(partition) ∝ prior(sizes)^γ · exp(δ Σ logit(i, j) over the pairs that it puts together)

with the prior counted on training sessions. The most probable partition is not the best answer: half of the items
grouped rightly scores more than a bold guess that is wrong. So we take the partition whose *expected* score is
highest (minimum Bayes risk, Kumar & Byrne 2004), of strict F1 and, with a weight, exact match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from .data import Bundle, Session
from .metrics import evaluate

LARGEST = 12
"""Items of the longest session that is decoded by looking at all partitions (4.2 million of them)."""


class Partitions(NamedTuple):
    """All partitions of n items that put at least two together."""

    labels: np.ndarray
    """(P, n): the group of each item, numbered as they first occur."""
    together: np.ndarray
    """(P, n(n-1)/2): whether each pair, in the order of `numpy.triu_indices`, is in one group."""
    sizes: tuple[tuple[int, ...], ...]
    """Distinct multisets of group sizes, largest first."""
    kind: np.ndarray
    """(P,): which of the `sizes` a partition has."""


@cache
def partitions(n: int) -> Partitions:
    """All partitions of n items with at least one group of two or more.

    Raises:
        ValueError: more than `LARGEST` items.
    """
    if n > LARGEST:
        raise ValueError(f"a session of {n} items has too many partitions to look at: at most {LARGEST}")
    labels, highest = np.zeros((1, 1), dtype=np.int8), np.zeros(1, dtype=np.int8)
    for _ in range(n - 1):  # append an item: it joins one of the groups so far, or begins one
        choices = highest.astype(int) + 2
        rows = np.repeat(np.arange(len(labels)), choices)
        last = np.arange(choices.sum()) - np.repeat(choices.cumsum() - choices, choices)
        labels = np.column_stack([labels[rows], last.astype(np.int8)])
        highest = np.maximum(highest[rows], last).astype(np.int8)
    first, second = np.triu_indices(n, 1)
    together = labels[:, first] == labels[:, second]
    keep = together.any(1)
    labels, together = labels[keep], together[keep]
    counts = np.stack([(labels == group).sum(1) for group in range(n)], 1)
    distinct, kind = np.unique(-np.sort(-counts, axis=1), axis=0, return_inverse=True)
    sizes = tuple(tuple(int(s) for s in row if s) for row in distinct)
    return Partitions(labels, together, sizes, kind.ravel())


def bundles_of(labels: np.ndarray) -> list[Bundle]:
    """Groups of two or more items, as 1-based item numbers.

    Shapes:
        labels: (n,)
    """
    groups = [np.flatnonzero(labels == group) + 1 for group in np.unique(labels)]
    return [frozenset(group.tolist()) for group in groups if len(group) > 1]


def group_sizes(session: Session) -> tuple[int, ...]:
    """Sizes of a session's groups, items in no bundle being groups of one; of overlapping bundles the largest count."""
    used: set[int] = set()
    sizes = []
    for bundle in sorted(set(session.bundles), key=len, reverse=True):
        if len(bundle) > 1 and not bundle & used:
            used |= bundle
            sizes.append(len(bundle))
    return tuple(sorted([*sizes, *[1] * (len(session) - len(used))], reverse=True))


class SizePrior:
    """How group sizes are distributed among training sessions of a length.

    Args:
        sessions: training sessions.
        smoothing: sessions of every kind that are added to those seen.
    """

    def __init__(self, sessions: Iterable[Session], *, smoothing: float = 0.5) -> None:
        self.smoothing = smoothing
        self.counts: dict[int, Counter[tuple[int, ...]]] = {}
        for session in sessions:
            self.counts.setdefault(len(session), Counter())[group_sizes(session)] += 1

    def log(self, n: int) -> np.ndarray:
        """Log-probability of every partition of n items, each kind's share spread evenly over its partitions.

        Shapes:
            → (P,), as `partitions(n)`
        """
        every, counts = partitions(n), self.counts.get(n, Counter())
        seen = np.array([counts[sizes] for sizes in every.sizes]) + self.smoothing
        of_kind = np.log(seen / seen.sum()) - np.log(np.bincount(every.kind))
        return of_kind[every.kind]


@dataclass(frozen=True, kw_only=True)
class PartitionDecoder:
    """Turns the logits of a session's pairs into bundles."""

    prior: SizePrior
    scale: float = 1.0
    """Multiplies the logits: calibration."""
    shift: float = 0.0
    """Is added to them after that."""
    damping: float = 1.0
    """δ: pairs are not independent witnesses, so their sum says too much; below 1 says less."""
    prior_weight: float = 1.0
    """γ: how much the prior of group sizes counts."""
    exact_weight: float = 0.5
    """What an exact match is worth beside a strict F1 of one."""
    candidates: int = 80
    """The most probable partitions, among which answers are compared."""

    def distribution(self, logits: np.ndarray) -> np.ndarray:
        """Probability of every partition.

        Shapes:
            logits: (n, n), the upper half is read → (P,), as `partitions(n)`
        """
        n = len(logits)
        pairs = self.scale * logits[np.triu_indices(n, 1)] + self.shift
        score = self.prior_weight * self.prior.log(n) + self.damping * (partitions(n).together @ pairs)
        score -= score.max()
        return np.exp(score) / np.exp(score).sum()

    def decode(self, logits: np.ndarray) -> list[Bundle]:
        """The partition with the highest expected score; of a single item, nothing.

        Shapes:
            logits: (n, n), the upper half is read
        """
        n = len(logits)
        if n < 2:
            return []
        p = self.distribution(logits)
        top = np.argsort(-p, kind="stable")[: self.candidates]
        labels, weights = partitions(n).labels[top], p[top] / p[top].sum()
        expected = expected_f1(labels) @ weights + self.exact_weight * weights
        return bundles_of(labels[int(expected.argmax())])


def expected_f1(labels: np.ndarray) -> np.ndarray:
    """Strict F1 of each partition as the answer where another is the truth.

    Shapes:
        labels: (C, n) → (C answers, C truths)
    """
    groups = labels.max(1).max() + 1
    bits = 1 << np.arange(labels.shape[1])
    masks = np.stack([((labels == group) * bits).sum(1) for group in range(groups)], 1)  # (C, groups)
    masks[(masks & (masks - 1)) == 0] = 0  # groups of one are no bundles
    real = masks > 0
    inside = (masks[:, :, None, None] & ~masks[None, None]) == 0  # (C, groups, C, groups): is one within the other
    inside &= real[:, :, None, None] & real[None, None]
    n_bundles = real.sum(1)
    precision = inside.any(3).sum(1) / n_bundles[:, None]
    recall = inside.any(1).sum(2) / n_bundles[None]
    return np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(precision), where=recall > 0)


def pair_values(logits: Mapping[int, np.ndarray], sessions: Iterable[Session]) -> tuple[np.ndarray, np.ndarray]:
    """The logit of every pair of every session, and whether the two items share a bundle.

    Args:
        logits: session id → (items, items); the upper half is read.
        sessions: the sessions behind them.

    Shapes:
        → (pairs,), (pairs,)
    """
    values, together = [], []
    for session in sessions:
        upper = np.triu_indices(len(session), 1)
        values.append(logits[session.id][upper])
        together.append(session.together()[upper])
    return np.concatenate(values), np.concatenate(together)


DAMPINGS, PRIOR_WEIGHTS = (0.5, 0.75, 1.0), (0.6, 1.0)
"""What `fit_decoder` tries."""


def fit_decoder(
    logits: Mapping[int, np.ndarray],
    validation: Sequence[Session],
    train: Iterable[Session],
    *,
    exact_weight: float = 0.5,
) -> PartitionDecoder:
    """Calibrate pair logits on validation sessions and choose damping and prior weight there.

    Calibration is logistic regression of "share a bundle" on the logit; the rest is chosen by strict F1 plus
    `exact_weight` times exact match.

    Args:
        logits: session id → (n, n).
        validation: the sessions behind them.
        train: where the prior of group sizes is counted.
        exact_weight: what an exact match is worth beside a strict F1 of one.

    Raises:
        ValueError: all validation pairs are alike, so that nothing can be calibrated.
    """
    from sklearn.linear_model import LogisticRegression

    values, together = pair_values(logits, validation)
    if together.all() or not together.any():
        raise ValueError("every validation pair shares a bundle, or none does: a decoder needs both kinds")
    fitted = LogisticRegression(C=1e6).fit(values[:, None], together)
    known = {
        "prior": SizePrior(train),
        "scale": float(fitted.coef_[0, 0]),
        "shift": float(fitted.intercept_[0]),
        "exact_weight": exact_weight,
    }

    def worth(decoder: PartitionDecoder) -> float:
        found = evaluate({s.id: decoder.decode(logits[s.id]) for s in validation}, validation, protocol="strict")
        return found.f1 + exact_weight * found.exact_match

    options = (
        PartitionDecoder(damping=damping, prior_weight=weight, **known)
        for damping, weight in product(DAMPINGS, PRIOR_WEIGHTS)
    )
    return max(options, key=worth)


def log_loss(logits: Mapping[int, np.ndarray], sessions: Iterable[Session]) -> float:
    """Mean negative log-likelihood of "share a bundle" over all pairs of all sessions, in nats."""
    values, together = pair_values(logits, sessions)
    return float(np.logaddexp(0, np.where(together, -values, values)).mean())
