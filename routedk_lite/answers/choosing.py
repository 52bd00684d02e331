"""Other ways than a vote to choose one of N sampled answers, and what limits all of them.

An oracle that knows the truth takes the best of N: whatever chooses one of them, it can do no better. The model's own
likelihood is a choice that needs no truth. Between the two stand the vote, the consensus (`consensus`) and a verifier
that has learned what good answers look like (`verifier`). What a vote comes to with ever more voters is decided by a
contest: is the right answer the most frequent one, or is there a wrong one that comes up more often?
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.metrics import per_session
from ..data.sessions import Bundle, Session
from ..statistics import Interval, bootstrap_interval
from .consensus import Consensus
from .decoding import Answer, Samples
from .voting import vote

Worth = Callable[[Iterable[Bundle]], float]
"""The score of a set of bundles against the truth; only an oracle may ask."""
Chooser = Callable[[Sequence[Answer], Answer, Worth], Sequence[Bundle]]
"""Sampled answers, the greedy one and their worth → the bundles that are chosen."""


def majority(answers: Sequence[Answer], greedy: Answer, worth: Worth) -> Sequence[Bundle]:
    """The most frequent set of bundles (`voting.vote`)."""
    return vote(answers, greedy).bundles


def likeliest(answers: Sequence[Answer], greedy: Answer, worth: Worth) -> Sequence[Bundle]:
    """The answer whose text the model gives the highest probability, at temperature 1.

    Raises:
        ValueError: an answer came without its log-probability.
    """
    readable = [answer for answer in answers if answer.bundles]
    if any(answer.log_prob is None for answer in readable):
        raise ValueError(f"session {greedy.id}: an answer has no log_prob; draw with sample_bundles")
    if not readable:
        return greedy.bundles
    return max(readable, key=lambda a: (a.log_prob * a.n_tokens, a.text)).bundles


def oracle(answers: Sequence[Answer], greedy: Answer, worth: Worth) -> Sequence[Bundle]:
    """The best of the answers, by the metric that is measured."""
    return max((answer.bundles for answer in answers), key=worth)


CHOOSERS: dict[str, Chooser] = {
    "oracle": oracle,
    "majority": majority,
    "consensus": Consensus(),
    "likeliest": likeliest,
}


def remembering(choose: Chooser) -> Chooser:
    """The same choice, made once for the same answers, however often they come: in another metric, in another subset.

    Args:
        choose: one to which neither the order of the answers nor their worth matters; so not an oracle.
    """
    known: dict[Any, Sequence[Bundle]] = {}

    def chosen(answers: Sequence[Answer], greedy: Answer, worth: Worth) -> Sequence[Bundle]:
        key = (greedy, frozenset(Counter(answers).items()))
        if key not in known:
            known[key] = choose(answers, greedy, worth)
        return known[key]

    return chosen


class ChoicePoint(NamedTuple):
    """A metric at one number of answers to choose from."""

    n: int
    score: Interval
    """Mean over many subsets of n answers, and its interval over sessions."""


class Contest(NamedTuple):
    """The right answer of a session against its most frequent rival, among all that were drawn."""

    id: int
    """The session's."""
    right: float
    """Share of the answers that are exactly right."""
    rival: float
    """Share of the most frequent wrong one that can be read."""


def choice_curve(
    samples: Sequence[Samples],
    sessions: Iterable[Session],
    choose: Chooser,
    sizes: Sequence[int] = (1, 4, 8, 16, 32),
    *,
    generator: np.random.Generator,
    metric: str = "f1",
    resamples: int = 50,
) -> list[ChoicePoint]:
    """How a strict metric grows with the number of answers that one can choose from, from one draw.

    Each point averages over random subsets of n answers per session, without replacement, as in `voting.voting_curve`.

    Args:
        samples: the draw, one entry per session.
        sessions: the sessions with their annotated bundles.
        choose: one of `CHOOSERS`, or your own.
        sizes: numbers of answers.
        generator: chooses subsets and bootstrap resamples.
        metric: `f1` or `exact_match`, under the strict protocol.
        resamples: subsets per point.

    Raises:
        ValueError: a size is larger than the draw, or sessions and samples do not match.
    """
    by_id = _by_session(samples, sessions)
    worth = {id_: _worth_of(session, metric) for id_, (session, _) in by_id.items()}
    points = []
    for n in sizes:
        if short := [s.id for s in samples if not 1 <= n <= len(s.drawn)]:
            raise ValueError(f"n = {n}: session {short[0]} has {len(by_id[short[0]][1].drawn)} answers")
        scores = np.zeros(len(by_id))
        rounds = 1 if all(len(s.drawn) == n for s in samples) else resamples
        for _ in range(rounds):
            for place, (id_, (_, one)) in enumerate(by_id.items()):
                chosen = [one.drawn[k] for k in generator.choice(len(one.drawn), n, replace=False)]
                scores[place] += worth[id_](choose(chosen, one.greedy, worth[id_])) / rounds
        points.append(ChoicePoint(n, bootstrap_interval(scores, generator=generator)))
    return points


def pass_at_n(n_right: int, n_drawn: int, n: int) -> float:
    """The chance that at least one of n answers is right, from a larger draw, without bias (Chen et al. 2021).

    1 less the share of subsets of n in which all are wrong.

    Args:
        n_right: right answers in the draw.
        n_drawn: answers in the draw.
        n: size of the subsets.

    Raises:
        ValueError: more right answers than answers, or subsets larger than the draw.

    >>> pass_at_n(1, 4, 2)
    0.5
    """
    if not 0 <= n_right <= n_drawn or not 1 <= n <= n_drawn:
        raise ValueError(f"n_right = {n_right}, n_drawn = {n_drawn}, n = {n}: need 0 ≤ n_right and 1 ≤ n ≤ n_drawn")
    return 1 - math.comb(n_drawn - n_right, n) / math.comb(n_drawn, n)


def contests(samples: Sequence[Samples], sessions: Iterable[Session]) -> list[Contest]:
    """What decides a vote of very many, session by session.

    Raises:
        ValueError: sessions and samples do not match.
    """
    found = []
    for session, one in _by_session(samples, sessions).values():
        exact = _worth_of(session, "exact_match")
        counts = Counter(frozenset(answer.bundles) for answer in one.drawn)
        right = sum(count for bundles, count in counts.items() if exact(bundles))
        wrong = [count for bundles, count in counts.items() if bundles and not exact(bundles)]
        found.append(Contest(session.id, right / len(one.drawn), max(wrong, default=0) / len(one.drawn)))
    return found


def _by_session(samples: Sequence[Samples], sessions: Iterable[Session]) -> Mapping[int, tuple[Session, Samples]]:
    drawn = {s.id: s for s in samples}
    sessions = list(sessions)
    if {s.id for s in sessions} != drawn.keys():
        raise ValueError("samples and sessions are not about the same sessions: give one entry of samples per session")
    return {s.id: (s, drawn[s.id]) for s in sessions}


def _worth_of(session: Session, metric: str) -> Worth:
    """The strict metric of any set of bundles of a session, each computed once."""
    known: dict[frozenset[Bundle], float] = {}

    def worth(bundles: Iterable[Bundle]) -> float:
        key = frozenset(bundles)
        if key not in known:
            known[key] = float(getattr(per_session({session.id: list(key)}, [session], "strict"), metric)[0])
        return known[key]

    return worth
