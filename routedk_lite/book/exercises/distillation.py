"""Checkers of the exercises on distillation, in the manner of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from ...data.domains import load_domain
from ...data.sessions import Bundle, Session
from ...data.toyproducts import KINDS, kind_in_title
from ...teacher.evidence import Condition, pair_evidence, session_items
from ...teacher.kinds import KindExtractor, fit_kinds
from ...teacher.patterns import mine_patterns
from ...teacher.teaching import FEEDBACK, feedback
from .checking import N_RANDOM, UNANSWERED, cases_hold

N_PATTERNS = 40
"""Patterns that a reader's confidence is compared on."""
MIN_PAIRS = 100
"""Of each sort, in the exercise on brands."""


def check_feedback(feedback_of: Callable[[Bundle, list[Bundle]], str]) -> None:
    """Compare a reader's feedback on one bundle with that of `teaching.feedback`.

    Args:
        feedback_of: takes a predicted bundle and the annotated ones, and returns a key of `teaching.FEEDBACK`.

    Raises:
        AssertionError: it differs; the message shows the first such case and hints at the reason.
    """
    cases = [
        ("the very bundle", {1, 2, 3}, [{1, 2, 3}]),
        ("nothing is shared with any", {4, 5}, [{1, 2, 3}]),
        ("one item too much", {1, 2, 4}, [{1, 2, 3}]),
        ("an item is missing", {1, 2}, [{1, 2, 3}]),
        ("an item is missing, and one is left", {3}, [{1, 2, 3}]),
        ("a single item that belongs nowhere", {6}, [{1, 2, 3}]),
        ("too much and too little at once", {1, 4}, [{1, 2, 3}]),
        ("two annotated bundles, the second is nearer", {4, 5}, [{1, 2, 3}, {4, 5, 6}]),
        ("two are equally near: the first counts", {1, 2}, [{1, 2, 3, 4, 5, 6}, {1, 3}]),
        ("two share as many items, the smaller one is nearer", {1, 2}, [{1, 2, 3, 4, 5, 6}, {1, 2}]),
    ]
    if not cases_hold(partial(_try_feedback, feedback_of), cases):
        return
    generator = np.random.default_rng(1)

    def draw() -> set[int]:
        return set((generator.permutation(6)[: generator.integers(1, 6)] + 1).tolist())

    for _ in range(N_RANDOM):
        _try_feedback(feedback_of, draw(), [draw() for _ in range(generator.integers(1, 4))], "a random task")
    print(f"ok: equal to teaching.feedback on {N_RANDOM} random bundles")


def _try_feedback(answer: Callable, bundle: set[int], annotated: list[set[int]], why: str) -> object:
    """Call the reader's function and compare; returns what it gave."""
    found = answer(frozenset(bundle), [frozenset(b) for b in annotated])
    if found is ...:
        return found
    shown = f"for the bundle {bundle} beside {annotated}"
    assert found is not None, f"{shown} your function gave None: is a return missing?"
    assert found in FEEDBACK, f"{shown} your function gave {found!r}, which is none of {', '.join(FEEDBACK)}"
    names = tuple("123456789")
    session = Session(id=1, items=names, titles=names, bundles=tuple(frozenset(b) for b in annotated))
    (expected,) = feedback([frozenset(bundle)], session)
    assert found == expected, f"{shown} your function gave {found!r}, it should be {expected!r} ({why})"
    return found


def check_confidence(
    confidence: Callable[[tuple[str, ...], Sequence[Session], Callable[[Session], list[str | None]]], float],
) -> None:
    """Compare a reader's confidence of patterns with that of `patterns.mine_patterns`.

    Args:
        confidence: takes a pattern's kinds, sessions, and a function that gives the kinds of a session's products;
            returns the share of the sessions with such products in which a bundle holds them together.

    Raises:
        AssertionError: it differs; the message names the pattern and hints at the reason.
    """
    sessions = load_domain("toyshop", "train").sessions[:200]
    extractor = fit_kinds(sessions)
    mined = mine_patterns(sessions, extractor, min_support=2)
    twice = [p for p in mined if len(set(p.kinds)) < len(p.kinds)]
    chosen = [*mined[: N_PATTERNS - 10], *twice[:10]]
    for pattern in chosen:
        found = confidence(pattern.kinds, sessions, extractor.kinds)
        if found is ...:
            print(UNANSWERED)
            return
        assert isinstance(found, (int, float, np.number)), f"your function gave {found!r}, not a number"
        named = " + ".join(pattern.kinds)
        assert abs(found - pattern.confidence) < 1e-9, (
            f"{named}: your confidence is {found:.3f}, mine_patterns has {pattern.confidence:.3f}; "
            f"{_confidence_hint(pattern.kinds, found, sessions, extractor)}"
        )
    print(f"ok: equal to mine_patterns for {len(chosen)} patterns, {len(twice[:10])} or more with a kind twice")


def _confidence_hint(
    kinds: tuple[str, ...], found: float, sessions: Sequence[Session], extractor: KindExtractor
) -> str:
    """What a wrong confidence may come from."""
    wanted = set(kinds)
    read = [(session, extractor.kinds(session)) for session in sessions]
    held = sum(any(wanted <= {k[n - 1] for n in b} for b in s.bundles) for s, k in read)
    shown = sum(wanted <= set(k) for _, k in read)
    if len(wanted) < len(kinds) and shown and abs(found - held / shown) < 1e-9:
        return "a kind that the pattern names twice must be there twice, in the session and in the bundle"
    if abs(found - held / len(sessions)) < 1e-9:
        return "divide by the sessions that show the products, not by all sessions"
    if found > 1:
        return "count sessions, not bundles: a session counts once"
    return "count the sessions that show all products; in how many of these does one bundle hold them all?"


def check_brands(favoured: Condition, others: Condition) -> None:
    """Check a fair comparison of brands in the toy shop: pairs alike in all but the brand, and no difference left.

    The comparison that the reader starts from is answered with what it finds, and is no error.

    Args:
        favoured: pairs of different kinds with the same brand.
        others: pairs of different kinds with different brands.

    Raises:
        AssertionError: a pair is of the wrong sort, there are too few, or a difference is left.
    """
    sessions = load_domain("toyshop", "train").sessions
    extractor = KindExtractor(vocabulary=frozenset(), names={kind: kind for kind in KINDS})
    taken = untouched = 0
    for session in sessions:
        for a, b in combinations(session_items(session, extractor), 2):
            kinds = kind_in_title(a.title) != kind_in_title(b.title)
            for condition, name, sort in ((favoured, "favoured", True), (others, "others", False)):
                if condition(a, b) or condition(b, a):
                    assert kinds, f"{name} takes {a.title!r} and {b.title!r}: these are of one kind"
                    assert (a.brand == b.brand) == sort, (
                        f"{name} takes {a.title!r} and {b.title!r}: their brands are "
                        f"{'different' if sort else 'the same'}"
                    )
                    taken += 1
            untouched += kinds
    found = pair_evidence(sessions, extractor, favoured, others, generator=np.random.default_rng(0))
    print(f"same brand:  {found.favoured.estimate:.3f} of {found.n_favoured:,} pairs share a bundle")
    print(f"other brand: {found.others.estimate:.3f} of {found.n_others:,}")
    low, high = found.difference.low, found.difference.high
    print(f"difference {found.difference.estimate:+.3f} [{low:+.3f}, {high:+.3f}]: {found.verdict}")
    if taken == untouched:
        print(UNANSWERED)
        return
    fewest = min(found.n_favoured, found.n_others)
    assert fewest >= MIN_PAIRS, f"one sort has {fewest} pairs only: narrow down less, {MIN_PAIRS} are needed"
    assert found.verdict == "not decided", (
        "a difference is left: what else do pairs of one brand have in common that is a law of the shop?"
    )
    print("ok: with the reason of the bundles held fixed, the brand says nothing more")


def check_equal_pay(
    equal_pay: Callable[[Sequence[Session], int], Sequence[Session]], sessions: Iterable[Session]
) -> None:
    """Check a choice of sessions by a budget of products instead of a number of sessions.

    Args:
        equal_pay: takes sessions, best first, and how many products they may hold in all; returns those it takes.
        sessions: what is chosen from.

    Raises:
        AssertionError: too much is spent, too little is taken, or sessions are skipped.
    """
    sessions = list(sessions)
    orders = {
        "the longest first": sorted(sessions, key=lambda s: -len(s)),
        "the shortest first": sorted(sessions, key=len),
        "as they come": sessions,
    }
    whole = sum(map(len, sessions))
    for share in (0.25, 0.6, 1.0):
        budget = round(share * whole)
        for name, ordered in orders.items():
            taken = equal_pay(list(ordered), budget)
            if taken is ...:
                print(UNANSWERED)
                return
            assert taken is not None, "your function gave None: is a return missing?"
            taken, spent = list(taken), sum(map(len, taken))
            where = f"{name}, a budget of {budget} products: you took {len(taken)} sessions with {spent} products"
            assert spent <= budget, f"{where}, which is too much: stop before the budget is passed"
            assert taken == ordered[: len(taken)], f"{where}, and not the first ones of the order"
            left = ordered[len(taken) :]
            assert not left or spent + len(left[0]) > budget, f"{where}; the next one still fits"
            if share < 1:
                print(f"ok: {where}")
    print("ok: the whole budget takes all sessions")
