"""Checkers of chapter 06: right answers pass in other words too, wrong ones get a hint that fits."""

from __future__ import annotations

import numpy as np
import pytest

from routedk_lite.analysis.diagnostics import shapley_values
from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.book.exercises.fusion import check_holm, check_same_length, check_teams, three_teams

VERDICTS = {"A": "passenger", "B": "twins", "C": "partners"}

# Holm


def by_counting(p_values: list[float]) -> list[float]:
    """Holm without sorting: the largest corrected value among those that are as small."""
    m = len(p_values)
    corrected = {p: p * (m - sum(other < p for other in p_values)) for p in p_values}
    return [min(1.0, max(corrected[other] for other in p_values if other <= p)) for p in p_values]


def stepped(p_values, *, monotone: bool = True, capped: bool = True, in_order: bool = True):
    p = np.array(p_values)
    order = np.argsort(p)
    found = p[order] * np.arange(len(p), 0, -1)
    found = np.maximum.accumulate(found) if monotone else found
    found = np.minimum(found, 1) if capped else found
    if not in_order:
        return found
    back = np.empty(len(p))
    back[order] = found
    return back


@pytest.mark.parametrize("answer", [by_counting, stepped])
def test_a_right_correction_passes(answer, capsys) -> None:
    check_holm(answer)
    printed = capsys.readouterr().out
    assert printed.count("ok: ") == 6
    assert "equal to statistics.holm for 200 random families" in printed


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda p: None, "is a return missing"),
        (lambda p: max(p), "give one for each"),
        (lambda p: p, "the smallest of three counts three times"),
        (lambda p: np.minimum(np.array(p) * len(p), 1), "Bonferroni"),
        (lambda p: stepped(p, in_order=False), "in the order in which they came"),
        (lambda p: stepped(p, monotone=False), "take the largest so far"),
        (lambda p: stepped(p, capped=False), "a probability is at most one"),
    ],
)
def test_a_wrong_correction_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_holm(answer)


# Three teams


def test_the_three_teams_are_what_the_checker_says(capsys) -> None:
    everyone = frozenset("xyz")
    teams = three_teams()
    left = {t: {x: round(v[everyone] - v[everyone - {x}], 6) for x in "xyz"} for t, v in teams.items()}
    alone = {t: {x: v[frozenset(x)] for x in "xyz"} for t, v in teams.items()}
    assert (left["A"]["x"], alone["A"]["x"]) == (0, 0)  # a passenger, with anybody
    assert all(v[team | {"x"}] == v[team] for v in [teams["A"]] for team in v)
    assert left["B"]["x"] == left["B"]["z"] == 0 < alone["B"]["x"] == alone["B"]["z"]  # twins
    assert alone["C"]["y"] == alone["C"]["z"] == 0 < min(left["C"]["y"], left["C"]["z"])  # partners
    assert shapley_values(teams["B"])["x"] == pytest.approx(0.15)
    check_teams(VERDICTS)
    assert "ok: B, twins: left out / Shapley share: x 0.0 / 0.15, y 0.2 / 0.20, z 0.0 / 0.15" in capsys.readouterr().out


def test_wrong_verdicts_on_teams_are_named(capsys) -> None:
    with pytest.raises(AssertionError, match="team A, B: look again"):
        check_teams(VERDICTS | {"A": "twins", "B": "passenger"})
    with pytest.raises(AssertionError, match="team C: 'friends' is none of partners, passenger, twins"):
        check_teams(VERDICTS | {"C": "friends"})
    with pytest.raises(AssertionError, match="team B: look again"):
        check_teams({name: verdict for name, verdict in VERDICTS.items() if name != "B"})
    check_teams(VERDICTS | {"A": "?"})
    assert capsys.readouterr().out.strip() == UNANSWERED


# The same length


def same_length(alpha, lengths, generator):
    """Everybody hands on to the next in a circle of sessions of the same length."""
    given = {}
    for n in set(lengths.values()):
        circle = generator.permutation([i for i in alpha if lengths[i] == n]).tolist()
        given |= {a: alpha[b] for a, b in zip(circle, circle[1:] + circle[:1], strict=True)}
    return given


def permuted(alpha, lengths, generator):
    """A plain permutation within a length: some stay where they are."""
    given = {}
    for n in set(lengths.values()):
        ids = [i for i in alpha if lengths[i] == n]
        given |= {a: alpha[b] for a, b in zip(ids, generator.permutation(ids).tolist(), strict=True)}
    return given


def drawn(alpha, lengths, generator):
    """Any other session of the length, some twice."""
    others = {i: [j for j in alpha if lengths[j] == lengths[i] and j != i] or [i] for i in alpha}
    return {i: alpha[others[i][generator.integers(len(others[i]))]] for i in alpha}


def test_a_right_control_passes(capsys) -> None:
    check_same_length(same_length)
    assert "ok: 41 sessions of 5 lengths, 20 draws" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda alpha, lengths, generator: None, "is a return missing"),
        (lambda alpha, lengths, generator: {}, "give one for each id"),
        (lambda alpha, lengths, generator: {i: a * 0.5 for i, a in alpha.items()}, "belongs to no session"),
        (
            lambda alpha, lengths, generator: same_length(alpha, dict.fromkeys(alpha, 1), generator),
            "stay within a length",
        ),
        (permuted, "kept its own α"),
        (drawn, "went to nobody"),
    ],
)
def test_a_wrong_control_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_same_length(answer)


@pytest.mark.parametrize("check", [check_holm, check_same_length])
def test_a_stub_is_no_error(check, capsys) -> None:
    check(lambda *args: ...)
    assert capsys.readouterr().out.strip() == UNANSWERED
