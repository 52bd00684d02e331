"""Figures of ablations: they show the numbers they are given, and mark what is missing."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawings import assert_inside, texts

from routedk_lite.book.plots.ablations import differences_figure, knockout_figure, mixtures_figure
from routedk_lite.statistics import Interval, PairedDifference

matplotlib.use("agg")

NAMES = ("base", "rules", "reasoning")


def difference(estimate: float, spread: float = 0.02, p_value: float = 0.01) -> PairedDifference:
    return PairedDifference(estimate, estimate - spread, estimate + spread, p_value)


@pytest.fixture
def alpha() -> np.ndarray:
    """α of sixty sessions in four layers: (sessions, L, E)."""
    return np.random.default_rng(0).dirichlet([4, 2, 1], size=(60, 4))


# Ablations


def test_mixtures_stack_up_to_one(alpha) -> None:
    figure = mixtures_figure(
        {"a router": alpha[:8, 0], "mean": np.tile(alpha.mean((0, 1)), (8, 1))}, NAMES, note="made up"
    )
    for axes in figure.axes:
        tops = [bar.get_y() + bar.get_height() for bar in axes.patches]
        np.testing.assert_allclose(tops[-8:], 1)
        assert len(axes.patches) == 24
    heights = [bar.get_height() for bar in figure.axes[0].patches[:8]]
    np.testing.assert_allclose(heights, alpha[:8, 0, 0])
    assert {"a router", "mean", "made up", *NAMES} <= set(texts(figure))
    with pytest.raises(ValueError, match="mixtures is empty"):
        mixtures_figure({}, NAMES)


def test_differences_are_filled_only_where_zero_is_outside() -> None:
    found = {"food": {"a − b": difference(0.05), "b − c": difference(0.01)}, "clothing": {"a − b": None}}
    figure = differences_figure(found, "strict F1", detectable={"food": {"a − b": 0.03}}, note="recorded")
    food, clothing = figure.axes
    dots = [line for line in food.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [0.05, 0.01]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True]
    (band,) = food.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.03, 0.06))
    assert texts(figure).count(" not recorded") == 2
    assert not [line for line in clothing.lines if line.get_marker() == "o"]
    assert food.get_ylim()[0] > food.get_ylim()[1], "the first row stands on top"
    assert_inside(figure)


def test_a_difference_is_hollow_if_its_p_value_is_large() -> None:
    figure = differences_figure({"α": {"base": difference(0.05), "rules": difference(0.05, p_value=0.2)}}, "α")
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True]


def test_differences_take_any_interval() -> None:
    figure = differences_figure({"share": {"base": Interval(0.1, 0.0, 0.2)}}, "strict F1")
    (dot,) = (line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert dot.get_markerfacecolor() == "white"
    for nothing in ({}, {"food": {}}):
        with pytest.raises(ValueError, match="found is empty"):
            differences_figure(nothing, "strict F1")


def test_knock_outs_are_written_with_their_intervals() -> None:
    changes = {"base": {"everywhere": difference(-0.04), "upper": None}, "rules": {"everywhere": difference(0.02)}}
    figure = knockout_figure(changes, "without", title="change of strict F1", note="toy")
    shown = texts(figure)
    assert "−0.040\n[−0.060, −0.020]" in shown
    assert "+0.020\n[0.000, +0.040]" in shown
    assert shown.count("not recorded") == 2
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(mesh.get_array().ravel(), [-0.04, 0, 0.02, 0])
    assert mesh.norm.vmin == -mesh.norm.vmax == -0.04
    with pytest.raises(ValueError, match="changes is empty"):
        knockout_figure({})
