"""Figures of the router's weights show the numbers they are given and mark how a router fails."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from test_plots import assert_inside, texts

from routedk_lite.plots_weights import domains_figure, entropy_load_figure, fusions_figure, weights_figure
from routedk_lite.routing import DOMINANT_LOAD

matplotlib.use("agg")

NAMES = ("base", "rules", "reasoning")


def trace(sharpness: float, n_layers: int = 5, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    logits = sharpness * (np.array([1.0, 0.0, -1.0]) + 0.1 * rng.normal(size=(n, n_layers, 3)))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_every_domain_has_its_map() -> None:
    traces = {"one": trace(1), "two": trace(3)}
    figure = domains_figure(traces, NAMES, note="made up")
    for axes, (domain, alpha) in zip(figure.axes, traces.items(), strict=False):
        assert axes.get_title() == domain
        assert [t.get_text() for t in axes.texts] == [f"{a:.2f}" for a in alpha.mean(0).ravel()]
        low, high = axes.get_ylim()
        assert low < high  # the lowest layer at the bottom
    assert "made up" in texts(figure)


def test_failures_would_lie_in_the_shaded_bands() -> None:
    traces = {"idle": trace(0), "one expert": trace(20), "fine": trace(1)}
    figure = entropy_load_figure(traces, NAMES, note="made up")
    entropy, *loads = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in entropy.lines if line.get_label() in traces}
    band = entropy.patches[0].get_extents().transformed(entropy.transData.inverted())
    assert (lines["idle"] >= band.y0).all() and (lines["fine"] < band.y0).all()
    assert lines["idle"] == pytest.approx(math.log(3))
    tops = [max(line.get_ydata().min() for line in axes.lines if line.get_label() in NAMES) for axes in loads]
    assert tops[1] > DOMINANT_LOAD and max(tops[0], tops[2]) < DOMINANT_LOAD
    assert_inside(figure)


def test_weights_follow_their_factors() -> None:
    rows = [
        {"expert": name, "weight": 0.3 + 0.02 * items * sign, "items": items, "kind": kind}
        for items in range(3, 9)
        for name, sign in zip(NAMES, (1, -1, 0), strict=True)
        for kind in ("plain", "rule")
    ]
    figure = weights_figure(pd.DataFrame(rows), {"items": "products", "kind": "reason"}, note="made up")
    left, right = figure.axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("products", "reason")
    curves = [np.array(line.get_xydata(), dtype=float) for line in left.lines if line.get_marker() in "os^"]
    slopes = [np.polyfit(*curve.T, 1)[0] for curve in curves if len(curve) == 6]
    assert slopes == pytest.approx([0.02, -0.02, 0.0], abs=1e-9)
    assert [t.get_text() for t in right.get_xticklabels()] == ["plain", "rule"]


def test_static_stands_beside_dynamic() -> None:
    static, dynamic = np.full((5, 3), 1 / 3), trace(1)
    figure = fusions_figure(static, dynamic, NAMES, note="made up")
    for i, axes in enumerate(figure.axes):
        assert axes.get_title() == NAMES[i]
        router, dashed = [line for line in axes.lines if len(line.get_xdata()) == 5]
        assert router.get_ydata() == pytest.approx(dynamic[..., i].mean(0))
        assert dashed.get_ydata() == pytest.approx(static[:, i]) and dashed.get_linestyle() == "--"
    assert_inside(figure)
