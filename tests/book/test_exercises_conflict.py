"""Checkers of chapter 02: right answers pass in other words too, wrong ones get a hint that fits."""

from __future__ import annotations

import pytest
import torch

from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.book.exercises.conflict import check_conflicts, check_cosine_gap, check_step_effect, three_pairs

VERDICTS = {"A": "apart", "B": "opposed", "C": "noise"}


def mean_cosine(a, b, *, same_batches: bool = False) -> float:
    """Mean cosine between rows of a and of b, other rows only unless said otherwise."""
    cosines = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T
    return float(cosines.mean() if same_batches else cosines[~torch.eye(len(a), dtype=torch.bool)].mean())


def gap(a, b, **how) -> float:
    return mean_cosine(a, b, **how) - (mean_cosine(a, a, **how) * mean_cosine(b, b, **how)) ** 0.5


# A step


def test_a_right_forecast_passes(capsys) -> None:
    check_step_effect(lambda a, b, length: float(-length * b.norm() * torch.cosine_similarity(a, b, dim=0)))
    printed = capsys.readouterr().out
    assert printed.count("ok: ") == 5
    assert "a step for the loss itself: -0.500" in printed


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b, length: None, "is a return missing"),
        (lambda a, b, length: length * (a @ b) / a.norm(), "it should have the other sign"),
        (lambda a, b, length: -length * (a @ b), "`length` long, whatever the size of the first gradient"),
        (lambda a, b, length: -length * torch.cosine_similarity(a, b, dim=0), "a step for the loss itself"),
    ],
)
def test_a_wrong_forecast_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_step_effect(answer)


# The gap


def test_a_right_gap_passes(capsys) -> None:
    check_cosine_gap(gap)
    assert "equal to conflict.gradient_cosines for 10 pairs of kinds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b: None, "is a return missing"),
        (mean_cosine, "nothing has been taken off yet"),
        (lambda a, b: mean_cosine(a, b) - (mean_cosine(a, a) + mean_cosine(b, b)) / 2, "not the arithmetic one"),
        (lambda a, b: gap(a, b, same_batches=True), "leave out batch m of one kind beside batch m of the other"),
        (lambda a, b: 0.0, "less the root of the product"),
    ],
)
def test_a_wrong_gap_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_cosine_gap(answer)


# Three pairs


def test_the_three_pairs_are_what_the_checker_says(capsys) -> None:
    pairs = three_pairs()
    between = {name: mean_cosine(a, b) for name, (a, b) in pairs.items()}
    gaps = {name: gap(a, b) for name, (a, b) in pairs.items()}
    assert between["B"] < 0 < between["C"] < between["A"]  # the lowest above zero is noise, as the chapter says
    assert max(gaps["A"], gaps["B"]) < -0.2 < -0.05 < gaps["C"]
    check_conflicts(VERDICTS)
    assert "ok: A goes separate ways" in capsys.readouterr().out


def test_wrong_verdicts_are_named(capsys) -> None:
    with pytest.raises(AssertionError, match="pair A, C: look again"):
        check_conflicts(VERDICTS | {"A": "noise", "C": "apart"})
    with pytest.raises(AssertionError, match="pair B: 'against' is none of apart, noise, opposed"):
        check_conflicts(VERDICTS | {"B": "against"})
    with pytest.raises(AssertionError, match="pair B: look again"):
        check_conflicts({name: verdict for name, verdict in VERDICTS.items() if name != "B"})
    check_conflicts(VERDICTS | {"A": "?"})
    assert capsys.readouterr().out.strip() == UNANSWERED
