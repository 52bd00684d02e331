"""Let several sampled answers vote, and look at the vote (RouteDK, test-time scaling).

A candidate is the *set of bundles* of one sampled answer. The most frequent candidate wins. What was drawn once serves
every number of voters: a vote of 8 is taken among 8 of the answers that were drawn.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from ..data.metrics import per_session
from ..data.sessions import Bundle, Session
from ..statistics import Interval, bootstrap_interval, paired_difference
from .decoding import Answer, Samples

Candidate = frozenset[Bundle]
"""A set of bundles."""


class Vote(NamedTuple):
    """The outcome of one session's vote."""

    bundles: tuple[Bundle, ...]
    """The winner, sorted."""
    share: float
    """Share of all answers that gave the winner, unreadable ones counted in the whole; 0 after a fallback."""
    fallback: bool
    """Whether no answer could be read, so that the greedy one stands."""


class Diversity(NamedTuple):
    """How much the answers to one session differ."""

    distinct: int
    """Different candidates."""
    share: float
    """Share of the most frequent one."""
    jaccard: float
    """Mean Jaccard similarity of two answers, as sets of bundles; 1 when all agree."""
    entropy: float
    """Of the distribution of candidates, in nats."""
    unreadable: float
    """Share of answers without a readable bundle."""


class CurvePoint(NamedTuple):
    """A metric at one number of voters."""

    n: int
    nested: float
    """With the first n answers of the draw."""
    resampled: Interval
    """Mean over many subsets of n answers, and its interval over sessions."""
    fallbacks: float
    """Mean number of sessions per subset in which no answer could be read."""


class ReliabilityBin(NamedTuple):
    """Sessions whose winners had a similar share."""

    low: float
    high: float
    count: int
    share: float
    """Mean share of the winner: its confidence."""
    exact: float
    """Share of the sessions in which the winner was exactly right."""


def vote(answers: Sequence[Answer], greedy: Answer) -> Vote:
    """The most frequent set of bundles.

    Ties go to the higher mean log-probability of the answers that gave it (greedy search's likely answers win over
    unlikely ones), then to the smaller item numbers. Answers without a readable bundle have no vote.

    Args:
        answers: one session's sampled answers.
        greedy: its greedy answer, which stands where no sampled one can be read.
    """
    ballots: dict[Candidate, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.bundles:
            ballots[frozenset(answer.bundles)].append(-math.inf if answer.log_prob is None else answer.log_prob)
    if not ballots:
        return Vote(_sorted(greedy.bundles), 0.0, True)

    def strength(candidate: Candidate) -> tuple[int, float]:
        log_probs = ballots[candidate]
        return len(log_probs), math.fsum(log_probs) / len(log_probs)

    best = max(map(strength, ballots))
    winner = min((_sorted(c) for c in ballots if strength(c) == best), key=lambda c: [sorted(b) for b in c])
    return Vote(winner, len(ballots[frozenset(winner)]) / len(answers), False)


def vote_all(samples: Iterable[Samples]) -> dict[int, Vote]:
    """The vote of every session among all its answers."""
    return {s.id: vote(s.drawn, s.greedy) for s in samples}


def diversity(answers: Sequence[Answer]) -> Diversity:
    """How much the answers to one session differ.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("answers is empty: diversity needs at least one")
    counts: dict[Candidate, int] = defaultdict(int)
    for answer in answers:
        counts[frozenset(answer.bundles)] += 1
    total = len(answers)
    shares = np.array(list(counts.values())) / total
    pairs = total * (total - 1) / 2
    alike = sum(c * (c - 1) / 2 for c in counts.values())
    alike += sum(m * k * len(a & b) / len(a | b) for (a, m), (b, k) in combinations(counts.items(), 2))
    return Diversity(
        distinct=len(counts),
        share=float(shares.max()),
        jaccard=alike / pairs if pairs else 1.0,
        entropy=float(-(shares * np.log(shares)).sum()) + 0.0,
        unreadable=counts.get(frozenset(), 0) / total,
    )


def voting_curve(
    samples: Sequence[Samples],
    sessions: Iterable[Session],
    sizes: Sequence[int] = (1, 4, 8, 16, 32),
    *,
    generator: np.random.Generator,
    metric: str = "f1",
    resamples: int = 100,
) -> list[CurvePoint]:
    """How a strict metric grows with the number of voters, from one draw.

    Each point averages over `resamples` random subsets of n answers per session, without replacement; at n equal to
    the draw there is one subset. Warns when more voters make the metric worse beyond chance.

    Args:
        samples: the draw, one entry per session.
        sessions: the sessions with their annotated bundles.
        sizes: numbers of voters, rising.
        generator: chooses subsets and bootstrap resamples.
        metric: `f1` or `exact_match`, under the strict protocol.
        resamples: subsets per point.

    Raises:
        ValueError: a size is larger than the draw, or sessions and samples do not match.
    """
    by_id = {s.id: s for s in samples}
    sessions = list(sessions)
    if {s.id for s in sessions} != by_id.keys():
        raise ValueError("samples and sessions are not about the same sessions: give one entry of samples per session")
    points, rows = [], []
    for n in sizes:
        drawn = {id_: _first(s, n) for id_, s in by_id.items()}
        nested = _scores({id_: vote(a, by_id[id_].greedy) for id_, a in drawn.items()}, sessions, metric)
        scores, fallbacks = resampled_scores(
            samples, sessions, n, generator=generator, metric=metric, resamples=resamples
        )
        rows.append(scores)
        interval = bootstrap_interval(scores, generator=generator)
        points.append(CurvePoint(n, float(nested.mean()), interval, fallbacks))
    best = int(np.argmax([p.resampled.estimate for p in points]))
    if best < len(points) - 1:
        loss = paired_difference(rows[-1], rows[best], generator=generator)
        if loss.high < 0:
            warnings.warn(
                f"more voters make it worse: {metric} is {loss.estimate:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] at "
                f"N = {sizes[-1]} against N = {sizes[best]}. The most frequent answer is not the best one here.",
                stacklevel=2,
            )
    return points


def resampled_scores(
    samples: Sequence[Samples],
    sessions: Iterable[Session],
    n: int,
    *,
    generator: np.random.Generator,
    metric: str = "f1",
    resamples: int = 100,
) -> tuple[np.ndarray, float]:
    """A strict metric of every session when n of its answers vote, and how many sessions had no readable answer.

    Both are means over `resamples` random subsets of n answers per session; at n equal to the draw there is one subset.

    Args:
        samples: the draw, one entry per session.
        sessions: the sessions with their annotated bundles.
        n: answers that vote.
        generator: chooses subsets.
        metric: `f1`, `exact_match`, `precision` or `recall`, under the strict protocol.
        resamples: subsets.

    Shapes:
        → (sessions,)

    Raises:
        ValueError: fewer than `n` answers were drawn.
    """
    sessions, scores, fallbacks = list(sessions), [], 0
    for s in samples:
        _first(s, n)
    every = all(len(s.drawn) == n for s in samples)
    for _ in range(1 if every else resamples):
        votes = {}
        for s in samples:
            chosen = generator.choice(len(s.drawn), n, replace=False)
            votes[s.id] = vote([s.drawn[k] for k in chosen], s.greedy)
        scores.append(_scores(votes, sessions, metric))
        fallbacks += sum(v.fallback for v in votes.values())
    return np.mean(scores, axis=0), fallbacks / len(scores)


def reliability(
    votes: Mapping[int, Vote], sessions: Iterable[Session], edges: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8, 1.0)
) -> list[ReliabilityBin]:
    """Whether the winner's share can be read as a confidence: how often winners of similar shares are exactly right.

    Args:
        votes: the votes by session id.
        sessions: the sessions with their annotated bundles.
        edges: borders of the bins; a bin holds its upper border, the first both. Empty bins are left out, and so are
            shares outside the borders.
    """
    sessions = [s for s in sessions if s.id in votes]
    if not sessions:
        return []
    votes = {s.id: votes[s.id] for s in sessions}
    shares = np.array([votes[s.id].share for s in sessions])
    exact = _scores(votes, sessions, "exact_match")
    bins = []
    for low, high in pairwise(edges):
        inside = (shares <= high) & ((shares > low) | ((shares == low) & (low == edges[0])))
        if inside.any():
            mean = float(shares[inside].mean()), float(exact[inside].mean())
            bins.append(ReliabilityBin(low, high, int(inside.sum()), *mean))
    return bins


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: how far confidence is from being right, mean over sessions (Guo et al. 2017).

    Args:
        bins: from `reliability`. Fewer and wider bins give smaller errors, so compare only what was binned alike.

    Raises:
        ValueError: no bins.
    """
    total = sum(b.count for b in bins)
    if not total:
        raise ValueError("bins is empty: give what reliability returns")
    return math.fsum(b.count * abs(b.share - b.exact) for b in bins) / total


def _scores(votes: Mapping[int, Vote], sessions: list[Session], metric: str) -> np.ndarray:
    scores = per_session({id_: v.bundles for id_, v in votes.items()}, sessions, "strict")
    return np.asarray(getattr(scores, metric), dtype=float)


def _first(samples: Samples, n: int) -> tuple[Answer, ...]:
    if not 1 <= n <= len(samples.drawn):
        raise ValueError(f"n = {n}: session {samples.id} has {len(samples.drawn)} answers; draw more, or ask for fewer")
    return samples.drawn[:n]


def _sorted(bundles: Iterable[Bundle]) -> tuple[Bundle, ...]:
    return tuple(sorted(set(bundles), key=sorted))
