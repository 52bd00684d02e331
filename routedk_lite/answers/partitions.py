"""From beliefs about pairs to bundles: every partition of a session weighed, and the answer that is best on average.

A session of n items has a few partitions (n = 3: five) to many (n = 10: 115,975), few enough to look at all of them.
Each gets the probability

    P(partition) ∝ prior(sizes)^γ · exp(Σ a · logit(i, j) + b over the pairs that it puts together)

with the prior counted on training sessions, and a, b and γ such that the annotated partitions of the validation
sessions are as likely as can be. Pairs are not independent witnesses: fitted as if they were, their sum would say
too much. The most probable partition is not the best answer: half of the items
grouped rightly scores more than a bold guess that is wrong. So we take the partition whose *expected* score is
highest (minimum Bayes risk, Kumar & Byrne 2004), of strict F1 and, with a weight, exact match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from ..config import DecodeConfig
from ..data.sessions import Bundle, Session

LARGEST = 12
"""Items of the longest session that is decoded by looking at all partitions (4.2 million of them)."""
_BLOCK = 128
"""Answers that are compared with all candidates at a time."""


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


def check_sizes(sessions: Iterable[Session]) -> None:
    """Refuse sessions that cannot be decoded from pairs.

    Raises:
        ValueError: one has more than `LARGEST` items.
    """
    for session in sessions:
        if len(session) > LARGEST:
            raise ValueError(
                f"session {session.called}: {len(session)} items have too many partitions to look at, at most "
                f"{LARGEST}: leave it out, or take greedy answers (Profile.pairs = None) or consensus "
                "(DecodeConfig.choose)"
            )


def bundles_of(labels: np.ndarray) -> list[Bundle]:
    """Groups of two or more items, as 1-based item numbers.

    Shapes:
        labels: (n,)
    """
    groups = [np.flatnonzero(labels == group) + 1 for group in np.unique(labels)]
    return [frozenset(group.tolist()) for group in groups if len(group) > 1]


def groups_of(session: Session) -> np.ndarray:
    """The group of each item by the annotated bundles, largest bundles first; a bundle that overlaps one is left out.

    Shapes:
        → (n,)
    """
    labels, used = np.arange(len(session)), set()
    for bundle in sorted(set(session.bundles), key=len, reverse=True):
        if not bundle & used:
            used |= bundle
            labels[[number - 1 for number in bundle]] = min(bundle) - 1
    return labels


def group_sizes(session: Session) -> tuple[int, ...]:
    """Sizes of a session's groups, largest first; items in no bundle are groups of one."""
    _, counts = np.unique(groups_of(session), return_counts=True)
    return tuple(sorted(counts.tolist(), reverse=True))


SMOOTHING = 0.5
"""Sessions of every kind that are added to those seen."""


class SizePrior:
    """How group sizes are distributed among training sessions of a length.

    Args:
        sessions: training sessions.
    """

    def __init__(self, sessions: Iterable[Session]) -> None:
        self.counts: dict[int, Counter[tuple[int, ...]]] = {}
        for session in sessions:
            self.counts.setdefault(len(session), Counter())[group_sizes(session)] += 1

    def log(self, n: int) -> np.ndarray:
        """Log-probability of every partition of n items, each kind's share spread evenly over its partitions.

        Shapes:
            → (P,), as `partitions(n)`
        """
        every, counts = partitions(n), self.counts.get(n, Counter())
        seen = np.array([counts[sizes] for sizes in every.sizes]) + SMOOTHING
        of_kind = np.log(seen / seen.sum()) - np.log(np.bincount(every.kind))
        return of_kind[every.kind]


@dataclass(frozen=True, kw_only=True)
class PartitionDecoder:
    """Turns the logits of a session's pairs into bundles.

    Every partition gets its probability. Compared as answers are the `candidates` most probable ones, against each
    other, as if no other could be true: what is promised is the best answer among these. Up to five items they are all
    partitions. Of the 202 and 876 of six and seven items the default leaves most out, and with them some of the
    probability; `dataclasses.replace(decoder, candidates=876)` lets all of them compete, and often answers otherwise.
    The default is that of the recorded runs.
    """

    prior: SizePrior
    prior_weight: float = 1.0
    """γ: how much the prior of group sizes counts."""
    scale: float = 1.0
    """a: multiplies the logits."""
    shift: float = 0.0
    """b: is added to each of them after that."""
    exact_weight: float = DecodeConfig.exact_weight
    """What an exact match is worth beside a strict F1 of one."""
    candidates: int = 80
    """The most probable partitions, among which answers are compared. Twice as many take four times the time."""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"PartitionDecoder.candidates = {self.candidates}: must be 1 or more")

    def distribution(self, logits: np.ndarray) -> np.ndarray:
        """Probability of every partition.

        Shapes:
            logits: (n, n), the upper half is read → (P,), as `partitions(n)`
        """
        score = _features(logits, self.prior) @ (self.prior_weight, self.scale, self.shift)
        return softmax(score)

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
        masks = _masks(labels)
        blocks = [mutual_f1(masks[k : k + _BLOCK], masks) @ weights for k in range(0, len(masks), _BLOCK)]
        expected = np.concatenate(blocks) + self.exact_weight * weights
        return bundles_of(labels[int(expected.argmax())])


def _masks(labels: np.ndarray) -> np.ndarray:
    """The items of each bundle as bits.

    Shapes:
        labels: (C, n) → (C, groups)
    """
    groups = labels.max(1).max() + 1
    bits = 1 << np.arange(labels.shape[1])
    masks = np.stack([((labels == group) * bits).sum(1) for group in range(groups)], 1)  # (C, groups)
    masks[(masks & (masks - 1)) == 0] = 0  # groups of one are no bundles
    return masks


def mutual_f1(masks: np.ndarray, truths: np.ndarray | None = None) -> np.ndarray:
    """Strict F1 of each set of bundles as the answer where another is the truth.

    Args:
        masks: a bundle's items as bits, 0 where a set has fewer bundles. A set without any scores 0.
        truths: likewise; by default the same sets.

    Shapes:
        masks: (C, bundles); truths: (T, bundles) → (C answers, T truths)
    """
    truths = masks if truths is None else truths
    real, real_truths = masks > 0, truths > 0
    inside = (masks[:, :, None, None] & ~truths[None, None]) == 0  # (C, b, T, b): is one within the other
    inside &= real[:, :, None, None] & real_truths[None, None]
    precision = inside.any(3).sum(1) / np.maximum(real.sum(1), 1)[:, None]
    recall = inside.any(1).sum(2) / np.maximum(real_truths.sum(1), 1)[None]
    return np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(precision), where=recall > 0)


def pair_values(logits: Mapping[int, np.ndarray], sessions: Iterable[Session]) -> tuple[np.ndarray, np.ndarray]:
    """The logit of every pair of every session, and whether the two items share a bundle.

    Args:
        logits: session id → (items, items); the upper half is read.
        sessions: the sessions behind them.

    Shapes:
        → (pairs,), (pairs,)

    Raises:
        ValueError: there are no sessions.
    """
    values, together = [], []
    for session in sessions:
        upper = np.triu_indices(len(session), 1)
        values.append(logits[session.id][upper])
        together.append(session.together()[upper])
    if not values:
        raise ValueError("sessions is empty: give at least one, with its bundles")
    return np.concatenate(values), np.concatenate(together)


_SURE = 1e6
"""A logit of which more would change nothing."""


def _features(logits: np.ndarray, prior: SizePrior) -> np.ndarray:
    """Of every partition: its log prior, the sum of the logits that it puts together, and how many they are.

    Shapes:
        logits: (n, n) → (P, 3)
    """
    n = len(logits)
    together, upper = partitions(n).together, logits[np.triu_indices(n, 1)]
    if np.isnan(upper).any():
        raise ValueError("a logit of two items is NaN: the student's states are not finite, so no bundles can be read")
    upper = np.clip(upper, -_SURE, _SURE)  # an infinite one times no pair would be NaN
    return np.column_stack([prior.log(n), together @ upper, together.sum(1)])


_RIDGE = 1e-3
"""How firmly `fit_decoder` holds on to a decoder that changes nothing: enough where the likelihood has no maximum."""


def fit_decoder(
    logits: Mapping[int, np.ndarray],
    validation: Sequence[Session],
    train: Iterable[Session],
    *,
    exact_weight: float = DecodeConfig.exact_weight,
) -> PartitionDecoder:
    """The decoder under which the annotated partitions of validation sessions are most likely.

    Args:
        logits: session id → (n, n).
        validation: the sessions behind them. Those of which no two items share a bundle are left out.
        train: where the prior of group sizes is counted.
        exact_weight: what an exact match is worth beside a strict F1 of one.

    Raises:
        ValueError: all validation pairs are alike, so that nothing can be fitted, or a session has too many items.
    """
    from scipy.optimize import minimize

    check_sizes(validation)
    _, together = pair_values(logits, validation)
    if together.all() or not together.any():
        raise ValueError("every validation pair shares a bundle, or none does: a decoder needs both kinds")
    prior = SizePrior(train)
    rows = [(_features(logits[s.id], prior), _place(s)) for s in validation if any(len(b) > 1 for b in s.bundles)]
    start = np.array([1.0, 1.0, 0.0])

    def surprise(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log-likelihood, in nats, and its gradient."""
        value, slope = _RIDGE * ((weights - start) ** 2).sum(), 2 * _RIDGE * (weights - start)
        for features, truth in rows:
            log_p = log_softmax(features @ weights)
            value -= log_p[truth] / len(rows)
            slope = slope + (np.exp(log_p) @ features - features[truth]) / len(rows)
        return value, slope

    found = minimize(surprise, start, jac=True, method="L-BFGS-B").x
    prior_weight, scale, shift = (float(value) for value in found)
    return PartitionDecoder(prior=prior, prior_weight=prior_weight, scale=scale, shift=shift, exact_weight=exact_weight)


def _place(session: Session) -> int:
    """Which of all partitions the annotated one is."""
    labels = groups_of(session)
    first, second = np.triu_indices(len(session), 1)
    return int((partitions(len(session)).together == (labels[first] == labels[second])).all(1).argmax())
