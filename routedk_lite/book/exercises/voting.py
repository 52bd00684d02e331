"""Checkers of the exercises on test-time scaling (chapter 07); they keep the habits of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import isclose
from typing import NoReturn

import numpy as np

from ...answers.choosing import Chooser, pass_at_n
from ...answers.decoding import Answer, Samples
from ...answers.voting import Vote, calibration_error, reliability
from ...data.sessions import Bundle, Session
from .checking import UNANSWERED, verdicts_hold

_RIGHT = (frozenset({1, 2}),)
_SESSION = Session(id=0, items=tuple("abcdef"), titles=tuple("abcdef"), bundles=_RIGHT)


def check_calibration_error(error: Callable) -> None:
    """Compare a reader's expected calibration error with that of `voting`.

    Args:
        error: takes the winners' shares, whether each winner is right (0 or 1) and the borders of the bins, and returns
            a number.

    Raises:
        AssertionError: it differs; the message hints at the reason.
    """
    chance = np.random.default_rng(0)
    cases = [
        ("all sure and all right", [1.0] * 4, [1] * 4, (0, 0.5, 1)),
        ("all sure and all wrong", [1.0] * 4, [0] * 4, (0, 0.5, 1)),
        ("bins of one and of three sessions", [0.3, 0.9, 0.9, 0.9], [1, 1, 1, 1], (0, 0.5, 1)),
        ("a share on a border belongs to the bin below", [0.5, 0.7, 0.9], [0, 1, 1], (0, 0.5, 0.8, 1)),
        ("gaps inside a bin cancel", [0.8, 0.8, 0.8, 0.8, 0.8], [1, 1, 1, 1, 0], (0, 1)),
    ]
    for _ in range(10):
        shares = chance.integers(0, 33, 60) / 32
        cases.append(
            ("random shares", shares.tolist(), (chance.random(60) < shares).tolist(), (0, 0.2, 0.4, 0.6, 0.8, 1))
        )
    for why, shares, right, edges in cases:
        found = error(np.array(shares), np.array(right, dtype=float), edges)
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        expected = _calibration_error(shares, right, edges)
        assert isclose(float(found), expected, abs_tol=1e-6), (
            f"{why}: your error is {float(found):.4f}, voting.calibration_error has {expected:.4f}; "
            f"{_calibration_hint(np.array(shares), np.array(right, dtype=float), edges, float(found))}"
        )
        if len(shares) < 10:
            print(f"ok: {why}: {expected:.2f}")
    print("ok: 10 random sets of 60 sessions")


def _calibration_error(shares: Sequence[float], right: Sequence[float], edges: Sequence[float]) -> float:
    """As the package has it, for sessions whose winners have these shares."""
    sessions = [replace(_SESSION, id=k) for k in range(len(shares))]
    votes = {
        k: Vote(_RIGHT if ok else (), share, False) for k, (share, ok) in enumerate(zip(shares, right, strict=True))
    }
    return calibration_error(reliability(votes, sessions, edges))


def _calibration_hint(shares: np.ndarray, right: np.ndarray, edges: Sequence[float], found: float) -> str:
    """What a wrong error may come from."""
    place = np.clip(np.searchsorted(edges, shares, side="left") - 1, 0, None)
    inside = [place == k for k in np.unique(place)]
    gaps = np.array([shares[b].mean() - right[b].mean() for b in inside])
    sizes = np.array([b.mean() for b in inside])
    guesses = {
        float(np.abs(shares - right).mean()): "take both means inside a bin first, and their distance afterwards",
        float(np.abs(gaps).mean()): "a bin counts by the sessions in it",
        float(gaps @ sizes): "distances are never negative: too sure and too shy must not cancel between bins",
        float(np.abs(gaps).max()): "that is the largest gap, not the mean one",
    }
    near = [hint for value, hint in guesses.items() if isclose(value, found, abs_tol=1e-6)]
    return near[0] if near else "a bin holds its upper border, and the first one both of them; empty bins do not count"


def check_best_of(best_of: Callable[[int, int, int], float]) -> None:
    """Compare a reader's chance that one of n answers is right with `choosing.pass_at_n`.

    Args:
        best_of: takes the number of right answers in a draw, the size of the draw, and n.

    Raises:
        AssertionError: it differs; the message hints at the reason.
    """
    cases = [(1, 4, 2), (0, 8, 8), (8, 8, 1), (1, 32, 32), (3, 32, 8), (30, 32, 4), (5, 32, 16), (16, 32, 1)]
    for n_right, n_drawn, n in cases:
        found = best_of(n_right, n_drawn, n)
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        expected = pass_at_n(n_right, n_drawn, n)
        hint = "count the subsets of n answers without any right one, among all subsets of n"
        if isclose(float(found), 1 - (1 - n_right / n_drawn) ** n, abs_tol=1e-9):
            hint = "that draws with replacement: one answer could be taken twice"
        elif isclose(float(found), 1 - expected, abs_tol=1e-9):
            hint = "that is the chance that all are wrong"
        assert isclose(float(found), expected, abs_tol=1e-9), (
            f"{n_right} right of {n_drawn}, n = {n}: you have {float(found):.4f}, choosing.pass_at_n has "
            f"{expected:.4f}; {hint}"
        )
        print(f"ok: {n_right} right of {n_drawn}, the best of {n}: {expected:.3f}")


def three_fates() -> dict[str, tuple[Session, Samples]]:
    """Three made-up sessions with a draw of 100 answers each, by a name that tells nothing."""
    pairs = [frozenset({i, j}) for i in range(1, 7) for j in range(i + 1, 7)]  # the first one is right
    counts = {
        "A": [34] + [5] * 10 + [4] * 4,
        "B": [42, 50] + [1] * 8,
        "C": [0, 100],
    }
    chance, made = np.random.default_rng(0), {}
    for id_, (name, each) in enumerate(counts.items()):
        answers = [
            Answer.of_bundles(id_, [bundle])._replace(log_prob=-1.0)
            for bundle, count in zip(pairs, each, strict=False)
            for _ in range(count)
        ]
        drawn = tuple(answers[k] for k in chance.permutation(len(answers)))
        made[name] = (replace(_SESSION, id=id_), Samples(id_, drawn[0], drawn))
    return made


def check_fates(verdicts: Mapping[str, str]) -> None:
    """Check what becomes of the votes in `three_fates` as more and more answers vote.

    Args:
        verdicts: name → `rises`, `falls` or `stays`.

    Raises:
        AssertionError: a word is none of the three, or wrong; all wrong ones are named.
    """
    truth = {"A": "rises", "B": "falls", "C": "stays"}
    hint = "What decides is whether a wrong answer comes up more often than the right one"
    if verdicts_hold("session", verdicts, truth, hint):
        print("ok: A rises although most of its answers are wrong, B falls although more are right, C has no choice")


def check_bundle_vote(choose: Chooser) -> None:
    """Check a vote that is taken bundle by bundle: what more than half of the readable answers hold stays.

    Args:
        choose: takes sampled answers, the greedy one and what an oracle would know, and returns bundles.

    Raises:
        AssertionError: it chooses otherwise; the message shows the case.
    """
    greedy = _answer("56")
    cases = [
        ("all agree", ["12 34", "12 34"], "12 34"),
        ("one bundle in common", ["12 34", "12 56", "12"], "12"),
        ("three bundles that no answer held together", ["12 34", "34 56", "12 56"], "12 34 56"),
        ("just half is not enough", ["12", "12", "34 56", "34"], ""),
        ("unreadable answers have no vote", ["12", "", "", ""], "12"),
        ("a bundle that an answer repeats counts once", ["12 12 12", "34", "56"], ""),
        ("nothing can be read", ["", ""], ""),
    ]
    for why, drawn, expected in cases:
        chosen = choose([_answer(text) for text in drawn], greedy, _forbidden)
        if chosen is ...:
            print(UNANSWERED)
            return
        assert chosen is not None, "your function gave None: is a return missing?"
        wanted = frozenset(_answer(expected).bundles or greedy.bundles)
        found = frozenset(map(frozenset, chosen))
        hint = "" if expected else "; where no bundle stays, the greedy answer stands"
        assert found == wanted, (
            f"{why}: of {[t or 'unreadable' for t in drawn]} you keep {_text(found)}, "
            f"it should be {_text(wanted)}{hint}"
        )
        print(f"ok: {why}")


def _answer(text: str) -> Answer:
    """An answer from words such as `12 34`: two bundles of two items."""
    return Answer.of_bundles(0, [map(int, word) for word in text.split()])._replace(log_prob=-1.0)


def _text(bundles: Iterable[Bundle]) -> str:
    return " ".join(sorted("".join(map(str, sorted(b))) for b in bundles)) or "nothing"


def _forbidden(bundles: Iterable[Bundle]) -> NoReturn:
    raise AssertionError("worth knows the truth: only an oracle may ask it")
