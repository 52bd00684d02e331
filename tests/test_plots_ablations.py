"""Figures of ablations and of what α follows: they show the numbers they are given, and mark what is missing."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from test_plots import assert_inside, texts

from routedk_lite.plots_ablations import differences_figure, knockout_figure, mixtures_figure
from routedk_lite.plots_routing import signs_figure, static_dynamic_figure, weights_by_figure
from routedk_lite.routing import DOMINANT_LOAD, UNIFORM_ENTROPY, UNIFORM_VARIANCE
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
    assert "+0.020\n[+0.000, +0.040]" in shown
    assert shown.count("not recorded") == 2
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(mesh.get_array().ravel(), [-0.04, 0, 0.02, 0])
    assert mesh.norm.vmin == -mesh.norm.vmax == -0.04
    with pytest.raises(ValueError, match="changes is empty"):
        knockout_figure({})


# What α follows


def test_weights_are_shown_less_their_mean(alpha) -> None:
    odd = np.arange(60) % 2 == 1
    groups = {"products": {"even": ~odd, "odd": odd, "too few": np.arange(60) < 4}}
    figure = weights_by_figure(alpha, NAMES, groups, note="toy", n_draws=50)
    mean = alpha.mean(1)
    moved = mean - mean.mean(0)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["even\n(30)", "odd\n(30)"]
    drawn = [
        line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2 and line.get_marker() not in ("", "None")
    ]
    wanted = [[moved[~odd, k].mean(), moved[odd, k].mean()] for k in range(3)]
    for values in wanted:
        assert any(np.allclose(line, values) for line in drawn)
    assert f"base (mean {mean[:, 0].mean():.2f})" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_weights_by_refuses_what_does_not_fit(alpha) -> None:
    with pytest.raises(ValueError, match="groups is empty"):
        weights_by_figure(alpha, NAMES, {})
    with pytest.raises(ValueError, match="'products', 'short': give one truth value for each of the 60 sessions"):
        weights_by_figure(alpha, NAMES, {"products": {"short": np.ones(59, dtype=bool)}})


def test_signs_lie_in_the_bands_where_the_router_fails() -> None:
    chance = np.random.default_rng(0)
    idle = chance.dirichlet([3000] * 3, size=(100, 4))
    collapsed = chance.dirichlet([97, 1, 1], size=(100, 4))
    alike = np.tile([0.5, 0.3, 0.2], (100, 4, 1))
    figure = signs_figure({"idle": idle, "collapsed": collapsed, "alike": alike}, note="made up")
    entropy, variance, load = figure.axes
    by_name = [{line.get_label(): line.get_ydata() for line in axes.lines} for axes in figure.axes]
    assert (by_name[0]["idle"] > UNIFORM_ENTROPY).all() and (by_name[0]["collapsed"] < UNIFORM_ENTROPY).all()
    assert (by_name[1]["idle"] < UNIFORM_VARIANCE).all()
    assert (by_name[1]["alike"] > variance.get_ylim()[0]).all(), "no variance is drawn on the floor, not lost"
    assert (by_name[2]["collapsed"] > DOMINANT_LOAD).all()
    np.testing.assert_allclose(by_name[2]["alike"], 0.5)
    bands = [axes.patches[0].get_extents().transformed(axes.transData.inverted()) for axes in figure.axes]
    assert bands[0].y0 == pytest.approx(UNIFORM_ENTROPY)
    assert bands[1].y1 == pytest.approx(UNIFORM_VARIANCE)
    assert bands[2].y0 == pytest.approx(DOMINANT_LOAD)
    assert entropy.get_xlabel() == "layer\ngrey: uniform" and load.get_xlabel() == "layer\ngrey: one takes all"
    numbered = signs_figure({"idle": idle}, (10, 11, 12, 13)).axes[0]
    assert list(numbered.lines[0].get_xdata()) == [10, 11, 12, 13]
    for nothing in ({}, {"one": np.ones((5, 4, 1))}):
        with pytest.raises(ValueError, match="one fusion or more, of two experts or more"):
            signs_figure(nothing)


def test_static_weights_stand_beside_the_routers(alpha) -> None:
    static = np.tile([0.6, 0.3, 0.1], (4, 1))
    figure = static_dynamic_figure(static, alpha, NAMES, note="toy")
    for k, axes in enumerate(figure.axes):
        dynamic, hollow = (next(line for line in axes.lines if line.get_label() == n) for n in ("dynamic", "static"))
        np.testing.assert_allclose(dynamic.get_xdata(), alpha[:, :, k].mean(0))
        np.testing.assert_allclose(hollow.get_xdata(), static[:, k])
        assert axes.get_title() == NAMES[k]
    numbered = static_dynamic_figure(static, alpha, NAMES, (10, 11, 12, 13)).axes[0]
    assert list(next(line for line in numbered.lines if line.get_label() == "static").get_ydata()) == [10, 11, 12, 13]
    with pytest.raises(ValueError, match=r"static has shape \(3, 3\), dynamic \(60, 4, 3\)"):
        static_dynamic_figure(static[:3], alpha, NAMES)
