"""Floors: what an answer scores that never looks at the products.

Every table of results shows them, because the official numbers are easy to game: small guesses fit inside a
true bundle by chance, and each of them adds to the official recall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np

from .data import Bundle, Session

Floor = Callable[..., list[Bundle]]


def whole_session(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """All items as one bundle (`generator` is unused: nothing here is left to chance)."""
    return [frozenset(_numbers(session))]


def consecutive_pairs(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """Items 1 and 2, 3 and 4, and so on; an odd last item stays out (`generator` is unused)."""
    numbers = _numbers(session)
    return [frozenset(pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)]


def all_pairs(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """Every pair of items, which takes the official recall far above 1 (`generator` is unused)."""
    return [frozenset(pair) for pair in combinations(_numbers(session), 2)]


def random_partition(session: Session, *, generator: np.random.Generator) -> list[Bundle]:
    """Deal the n items into k groups at random, k being drawn evenly from 1 to n // 2.

    Each item goes to one of the k groups independently, so a group may stay empty. Groups of fewer than two
    items are left out; as k is at most n / 2, a session of two items or more always keeps a bundle.
    """
    numbers = np.array(_numbers(session))
    n_groups = generator.integers(1, max(1, len(numbers) // 2), endpoint=True)
    group = generator.integers(n_groups, size=len(numbers))
    groups = [frozenset(numbers[group == g].tolist()) for g in range(n_groups)]
    return [bundle for bundle in groups if len(bundle) > 1]


FLOORS: dict[str, Floor] = {
    "whole": whole_session,
    "pairs": consecutive_pairs,
    "random": random_partition,
    "all_pairs": all_pairs,
}
"""The floors by the name that records and tables use."""


def floor_predictions(name: str, sessions: Iterable[Session], *, seed: int) -> dict[int, list[Bundle]]:
    """Predictions of one floor, ready for `metrics.evaluate`.

    Args:
        name: a key of `FLOORS`.
        sessions: the sessions to answer.
        seed: chance is drawn per session from this and the session's id, so an answer depends neither on the
            order of the sessions nor on which others there are.

    Raises:
        ValueError: an unknown floor.
    """
    if name not in FLOORS:
        raise ValueError(f"floor is {name!r}; choose one of {', '.join(FLOORS)}")
    floor = FLOORS[name]
    return {s.id: floor(s, generator=np.random.default_rng([seed, s.id])) for s in sessions}


def _numbers(session: Session) -> range:
    return range(1, len(session.items) + 1)
