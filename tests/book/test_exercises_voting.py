"""Checkers of chapter 07: right answers pass in other words too, wrong ones get a hint that fits."""

from __future__ import annotations

from collections import Counter
from math import comb

import numpy as np
import pytest
from solved import solutions

from routedk_lite.answers.choosing import CHOOSERS, contests
from routedk_lite.answers.voting import vote
from routedk_lite.book.choices import METRICS
from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.book.exercises.voting import (
    check_best_of,
    check_bundle_vote,
    check_calibration_error,
    check_fates,
    three_fates,
)

FATES = {"A": "rises", "B": "falls", "C": "stays"}


def gaps(shares, exact, edges) -> tuple[np.ndarray, np.ndarray]:
    """Confidence less accuracy of every bin that is not empty, and the bins' shares of the sessions."""
    place = np.maximum(np.searchsorted(edges, shares), 1)
    inside = [place == k for k in np.unique(place)]
    return np.array([shares[b].mean() - exact[b].mean() for b in inside]), np.array([b.mean() for b in inside])


def error(shares, exact, edges) -> float:
    gap, size = gaps(shares, exact, edges)
    return float(np.abs(gap) @ size)


# Calibration


def test_a_right_calibration_error_passes(capsys) -> None:
    check_calibration_error(error)
    printed = capsys.readouterr().out
    assert printed.count("ok: ") == 6
    assert "all sure and all wrong: 1.00" in printed


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda shares, exact, edges: None, "is a return missing"),
        (lambda shares, exact, edges: np.abs(shares - exact).mean(), "take both means inside a bin first"),
        (lambda *given: np.abs(gaps(*given)[0]).mean(), "a bin counts by the sessions in it"),
        (lambda *given: gaps(*given)[0] @ gaps(*given)[1], "distances are never negative"),
        (lambda *given: np.abs(gaps(*given)[0]).max(), "the largest gap, not the mean one"),
        (lambda shares, exact, edges: error(shares + 1e-9, exact, [*edges, 2]), "a bin holds its upper border"),
    ],
)
def test_a_wrong_calibration_error_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_calibration_error(answer)


# The best of n


def test_a_right_best_of_passes(capsys) -> None:
    def all_wrong(n_right: int, n_drawn: int, n: int) -> float:
        return float(np.prod([(n_drawn - n_right - k) / (n_drawn - k) for k in range(n)]))

    check_best_of(lambda *given: 1 - all_wrong(*given))
    assert capsys.readouterr().out.count("ok: ") == 8


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda c, m, n: None, "is a return missing"),
        (lambda c, m, n: 1 - (1 - c / m) ** n, "draws with replacement"),
        (lambda c, m, n: comb(m - c, n) / comb(m, n), "the chance that all are wrong"),
        (lambda c, m, n: c / m, "count the subsets of n answers"),
    ],
)
def test_a_wrong_best_of_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_best_of(answer)


# Three fates


def test_the_three_fates_are_what_the_checker_says(capsys) -> None:
    fates = three_fates()
    (a,), (b,), (c,) = (contests([samples], [session]) for session, samples in fates.values())
    assert b.right > a.right > a.rival and b.right < b.rival  # what rises is right less often, as the chapter says
    assert c.right == 0
    right = {name: vote(s.drawn, s.greedy).bundles == session.bundles for name, (session, s) in fates.items()}
    assert right == {"A": True, "B": False, "C": False}
    check_fates(FATES)
    assert "A rises although" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdicts", "hint"),
    [
        (FATES | {"A": "up"}, "session A: 'up' is none of falls, rises, stays"),
        (FATES | {"A": "falls", "B": "rises"}, "session A, B: look again"),
        ({"A": "rises", "B": "falls"}, "session C: look again"),
    ],
)
def test_a_wrong_fate_is_told_why(verdicts, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_fates(verdicts)


# A vote for every bundle


def by_bundle(answers, greedy, worth, *, least=0.5, unreadable=False, repeats=False, fallback=True):
    readable = [a.bundles for a in answers if a.bundles]
    counts = Counter(b for bundles in readable for b in (bundles if repeats else set(bundles)))
    needed = least * len(answers if unreadable else readable)
    kept = {b for b, n in counts.items() if n > needed}
    return kept or (greedy.bundles if fallback else ())


def test_a_right_vote_for_bundles_passes(capsys) -> None:
    check_bundle_vote(by_bundle)
    assert capsys.readouterr().out.count("ok: ") == 7


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda answers, greedy, worth: None, "is a return missing"),
        (lambda answers, greedy, worth: vote(answers, greedy).bundles, "three bundles that no answer held"),
        (lambda *given: by_bundle(*given, least=0.49), "just half is not enough"),
        (lambda *given: by_bundle(*given, unreadable=True), "unreadable answers have no vote"),
        (lambda *given: by_bundle(*given, repeats=True), "counts once"),
        (lambda *given: by_bundle(*given, fallback=False), "the greedy answer stands"),
        (lambda answers, greedy, worth: max((a.bundles for a in answers), key=worth), "only an oracle may ask it"),
    ],
)
def test_a_wrong_vote_for_bundles_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_bundle_vote(answer)


# Stubs


def test_stubs_are_no_errors(capsys) -> None:
    check_calibration_error(lambda shares, exact, edges: ...)
    check_best_of(lambda n_right, n_drawn, n: ...)
    check_fates(dict.fromkeys(three_fates(), "?"))
    check_bundle_vote(lambda answers, greedy, worth: ...)
    assert capsys.readouterr().out.splitlines() == [UNANSWERED] * 4


def test_the_solutions_in_the_chapter_pass(capsys) -> None:
    known = {"fates": three_fates(), "verdicts": dict.fromkeys("ABC", "?"), "contests": contests}
    known |= {"check_fates": check_fates, "check_bundle_vote": check_bundle_vote}
    drawn, scored = [], []  # the last one draws what the chapter has sampled
    known |= {"CHOOSERS": CHOOSERS, "METRICS": METRICS, "sweep_figure": drawn.append}
    known["choice"] = lambda choose, metric: scored.append((choose, metric))
    for solution in solutions("07_test_time_scaling"):
        exec(solution, known)
    check_calibration_error(known["error"])
    check_best_of(known["best_of"])
    assert known["verdicts"] == FATES
    assert len(scored) == 4 and [*drawn[0]] == [*METRICS.values()]
    assert "fill in the stub" not in capsys.readouterr().out
