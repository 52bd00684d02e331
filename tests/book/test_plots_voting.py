"""Figures of sampling and voting show the numbers they are given, and which answer is right."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawings import assert_inside, make_session, texts
from matplotlib.collections import PathCollection

from routedk_lite.answers.choosing import ChoicePoint, Contest
from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.answers.voting import CurvePoint, ReliabilityBin
from routedk_lite.book.plots.voting import (
    answers_figure,
    contest_figure,
    cost_figure,
    reliability_figure,
    sweep_figure,
    temperature_figure,
)
from routedk_lite.statistics import Interval

matplotlib.use("agg")


def draw(*groups: tuple[int, list[set[int]]]) -> Samples:
    """Samples in which a set of bundles comes up so many times; the greedy answer is the first."""
    answers = [Answer.of_bundles(1, bundles) for count, bundles in groups for _ in range(count)]
    return Samples(1, answers[0], tuple(answers))


def widths(figure) -> list[float]:
    return [bar.get_width() for bar in figure.axes[0].patches]


def names(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_answers_are_ranked_and_the_right_one_is_marked() -> None:
    samples = draw((3, [{1, 2}]), (5, [{3, 4}, {1, 2, 3}]), (2, []))
    figure = answers_figure(samples, make_session(), note="made up")
    assert widths(figure) == [5, 3, 2]
    assert names(figure) == ["1+2+3   3+4", "1+2", "no readable bundle"]
    assert " 5  right" in texts(figure) and " 3  ◂ greedy" in texts(figure) and "made up" in texts(figure)
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert len(set(colours)) == 3
    assert_inside(figure)


def test_rare_answers_share_a_bar_and_a_rare_right_one_is_said() -> None:
    samples = draw((4, [{1, 2}]), (3, [{1, 3}]), (2, [{2, 3}]), (1, [{1, 2, 3}, {3, 4}]))
    figure = answers_figure(samples, make_session(), most=2)
    assert widths(figure) == [4, 3, 3]
    assert names(figure)[-1] == "2 more candidates, the right one too"


def test_a_long_answer_is_cut() -> None:
    bundles = [{k, k + 1, k + 2} for k in range(1, 12)]
    (name,) = names(answers_figure(draw((1, bundles)), make_session(14, ({1, 2},))))
    assert len(name) == 40 and name.endswith("…")


def test_chances_of_the_next_token_sum_to_one() -> None:
    logits = np.array([2.0, 0.5, 0.0, -1.0])
    chances = {t: np.exp(logits / t) / np.exp(logits / t).sum() for t in (0.5, 1.5)}
    figure = temperature_figure(chances, ["7", " 1", "\n", "x"], most=2, note="made up")
    for axes, (t, p) in zip(figure.axes, chances.items(), strict=True):
        assert axes.get_title() == f"T = {t:g}"
        assert [bar.get_height() for bar in axes.patches] == pytest.approx([p[0], p[1], p[2] + p[3]])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["7", "␣1", "rest"]


def test_a_sweep_shows_estimates_bands_and_nested_choices() -> None:
    vote = [CurvePoint(n, 0.1 * k, Interval(0.2 * k, 0.1 * k, 0.3 * k), 0.0) for k, n in enumerate((1, 4, 8), 1)]
    best = [ChoicePoint(n, Interval(0.9, 0.8, 1.0)) for n in (1, 4, 8)]
    figure = sweep_figure({"F1": {"vote": vote}, "exact": {"vote": vote, "oracle": best}}, note="made up")
    line, nested = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 4, 8]
    assert line.get_ydata() == pytest.approx([0.2, 0.4, 0.6])
    assert nested.get_ydata() == pytest.approx([0.1, 0.2, 0.3]) and nested.get_markerfacecolor() == "white"
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.1, 0.9))
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["1", "4", "8"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["vote", "oracle"]
    assert len(figure.axes[1].lines) == 3  # an oracle has no nested choice
    levelled = sweep_figure({"F1": {"vote": vote}, "exact": {"vote": vote}}, levels={"F1": {"greedy": 0.4}})
    assert list(levelled.axes[0].lines[-1].get_ydata()) == [0.4, 0.4]
    assert len(levelled.axes[1].lines) == 2
    assert [t.get_text() for t in levelled.legends[0].get_texts()] == ["vote", "greedy"]


def test_reliability_shows_the_gap_to_the_diagonal_and_the_sessions() -> None:
    bins = [ReliabilityBin(0.2, 0.4, 3, 0.3, 0.1), ReliabilityBin(0.8, 1.0, 5, 0.9, 1.0)]
    figure = reliability_figure({"routed": bins, "base": bins[:1]}, note="made up")
    upper, _, lower, _ = figure.axes
    assert upper.lines[1].get_xydata().tolist() == [[0.3, 0.1], [0.9, 1.0]]
    spans = [sorted(path.vertices[:, 1]) for path in upper.collections[0].get_paths()]
    assert spans == [[0.1, 0.3], [0.9, 1.0]]
    assert [bar.get_height() for bar in lower.patches] == [3, 5]
    assert {"3", "5", "routed", "base"} <= set(texts(figure))


def test_contests_are_counted_on_both_sides_of_the_diagonal() -> None:
    fights = [Contest(1, 0.5, 0.2), Contest(2, 0.5, 0.2), Contest(3, 0.3, 0.4), Contest(4, 0.0, 1.0)]
    figure = contest_figure({"routed": fights, "base": fights[:2]}, note="made up")
    wins, loses, never = (c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert [dots.get_offsets().tolist() for dots in (wins, loses, never)] == [[[0.2, 0.5]], [[0.4, 0.3]], [[1.0, 0.0]]]
    assert wins.get_sizes()[0] == 2 * loses.get_sizes()[0]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "routed\nright wins: 2, right loses: 1, never drawn: 1",
        "base\nright wins: 2, right loses: 0, never drawn: 0",
    ]


def test_costs_are_lines_from_zero() -> None:
    figure = cost_figure((1, 8), {"tokens": {"apart": [100, 800], "shared": [100, 150]}, "seconds": {"apart": [1, 8]}})
    apart, shared = figure.axes[0].lines
    assert apart.get_xydata().tolist() == [[1, 100], [8, 800]]
    assert shared.get_xydata().tolist() == [[1, 100], [8, 150]]
    assert figure.axes[0].get_ylim()[0] == 0
    with pytest.raises(ValueError, match="tokens, apart: 1 costs for 2 sizes"):
        cost_figure((1, 8), {"tokens": {"apart": [100]}})


@pytest.mark.parametrize("figure", [sweep_figure, reliability_figure, contest_figure])
def test_nothing_to_draw_is_an_error(figure) -> None:
    with pytest.raises(ValueError, match="is empty: give one"):
        figure({})
