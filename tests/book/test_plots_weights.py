"""Figures of the router's weights show the numbers they are given and mark how a router fails."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawings import assert_inside, texts

from routedk_lite.book.plots.routing import routing_figure
from routedk_lite.book.plots.weights import (
    domains_figure,
    signs_figure,
    static_dynamic_figure,
    weights_by,
    weights_by_figure,
)
from routedk_lite.fusion.statistics import DOMINANT_LOAD, UNIFORM_ENTROPY, UNIFORM_VARIANCE

matplotlib.use("agg")

NAMES = ("base", "rules", "reasoning")


@pytest.fixture
def alpha() -> np.ndarray:
    """α of sixty sessions in four layers: (sessions, L, E)."""
    return np.random.default_rng(0).dirichlet([4, 2, 1], size=(60, 4))


def test_every_domain_has_its_map(alpha) -> None:
    traces = {"one": alpha, "two": alpha[::-1, ::-1]}
    figure = domains_figure(traces, NAMES, (11, 12, 13, 14), note="made up")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["11", "12", "13", "14"]
    for axes, (domain, alpha) in zip(figure.axes, traces.items(), strict=False):
        assert axes.get_title() == domain
        assert [t.get_text() for t in axes.texts] == [f"{a:.2f}" for a in alpha.mean(0).ravel()]
        low, high = axes.get_ylim()
        assert low < high  # the lowest layer at the bottom
    assert "made up" in texts(figure)


def test_one_session_has_no_spread_to_draw(alpha) -> None:
    many, one = routing_figure(alpha, NAMES), routing_figure(alpha[:1], NAMES, (11, 12, 13, 14), note="made up")
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in (many, one)]
    assert titles == [["mean α", "standard deviation between sessions"], ["α"]]
    drawn = one.axes[0]
    assert [t.get_text() for t in drawn.texts] == [f"{a:.2f}" for a in alpha[0].ravel()]
    assert [t.get_text() for t in drawn.get_yticklabels()] == ["11", "12", "13", "14"]
    assert drawn.get_ylim()[0] < drawn.get_ylim()[1]  # the lowest layer at the bottom


def test_weights_are_shown_less_their_mean(alpha) -> None:
    odd = np.arange(60) % 2 == 1
    groups = {"products": {"even": ~odd, "odd": odd, "too few": np.arange(60) < 4}}
    figure = weights_by_figure(weights_by(alpha, groups, n_draws=50), NAMES, note="toy")
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


def test_a_property_without_a_group_large_enough_says_so(alpha) -> None:
    odd, few = np.arange(60) % 2 == 1, np.arange(60) < 4
    figure = weights_by_figure(weights_by(alpha, {"rare": {"few": few}, "products": {"odd": odd}}, n_draws=50), NAMES)
    rare, products = figure.axes
    assert [t.get_text() for t in rare.texts] == ["no group of 5 or more"] and products.lines
    assert len(figure.legends) == 1
    assert not weights_by_figure(weights_by(alpha, {"rare": {"few": few}}), NAMES).legends


def test_weights_by_refuses_what_does_not_fit(alpha) -> None:
    with pytest.raises(ValueError, match="groups is empty"):
        weights_by(alpha, {})
    with pytest.raises(ValueError, match="'products', 'short': give one truth value for each of the 60 sessions"):
        weights_by(alpha, {"products": {"short": np.ones(59, dtype=bool)}})


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
        dynamic, dashed = (next(line for line in axes.lines if line.get_label() == n) for n in ("dynamic", "static"))
        np.testing.assert_allclose(dynamic.get_ydata(), alpha[:, :, k].mean(0))
        np.testing.assert_allclose(dashed.get_ydata(), static[:, k])
        assert dashed.get_linestyle() == "--" and axes.get_title() == NAMES[k]
        (band,) = axes.collections
        assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(np.quantile(alpha[..., k], 0.05, axis=0).min())
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(np.quantile(alpha[..., k], 0.95, axis=0).max())
    assert_inside(figure)
    numbered = static_dynamic_figure(static, alpha, NAMES, (10, 11, 12, 13)).axes[0]
    assert list(next(line for line in numbered.lines if line.get_label() == "static").get_xdata()) == [10, 11, 12, 13]
    with pytest.raises(ValueError, match=r"static has shape \(3, 3\), dynamic \(60, 4, 3\)"):
        static_dynamic_figure(static[:3], alpha, NAMES)
