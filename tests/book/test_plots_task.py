"""Figures show the numbers they are given, stay within their frame and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from drawings import assert_apart, assert_inside, make_session, texts
from matplotlib.figure import Figure

from routedk_lite.analysis.diagnostics import LearningPoint
from routedk_lite.book.plots import task as plots
from routedk_lite.statistics import Interval

matplotlib.use("agg")


def dots(figure: Figure, marker: str) -> list[tuple[float, list[int]]]:
    """Columns of large markers: place and the item numbers they stand on."""
    found = []
    for line in figure.axes[0].lines:
        if line.get_marker() == marker and line.get_markersize() == 10:
            rows = [round((y - plots.TOP) / plots.ROW + 0.5) for y in line.get_ydata()]
            found.append((float(line.get_xdata()[0]), rows))
    return sorted(found)


# One session


def test_a_session_shows_titles_bundles_and_intents() -> None:
    session = make_session(intents=["take pictures", "carry them"])
    figure = plots.session_figure(session, note="from somewhere")
    shown = texts(figure)
    assert {*session.titles, "A", "B", "A: take pictures", "B: carry them", "from somewhere"} <= set(shown)
    assert "predicted" not in shown
    assert [rows for _, rows in dots(figure, "o")] == [[1, 2, 3], [3, 4]]


def test_only_products_in_no_bundle_are_grey() -> None:
    figure = plots.session_figure(make_session(titles=list("abcde")))
    colour = {t.get_text(): t.get_color() for t in figure.axes[0].texts}
    assert {title: colour[title] == plots.QUIET for title in "abcde"} == dict.fromkeys("abcd", False) | {"e": True}


def test_hits_take_the_colour_of_their_bundle_and_misses_do_not() -> None:
    figure = plots.session_figure(make_session(), [[1, 2], [4, 5], [5], [3, 4]])
    marks = [t for t in texts(figure) if t in "✓✗–"]
    assert marks == ["✓", "✗", "–", "✓"]
    assert [rows for _, rows in dots(figure, "o")] == [[1, 2, 3], [3, 4], [1, 2], [3, 4]]
    assert [rows for _, rows in dots(figure, "X")] == [[4, 5]]
    assert [rows for _, rows in dots(figure, "x")] == [[5]]
    lines = [line for line in figure.axes[0].lines if line.get_markersize() == 10 and line.get_marker() == "o"]
    a, b, inside_a, inside_b = sorted(lines, key=lambda line: line.get_xdata()[0])
    assert inside_a.get_color() == a.get_color() != b.get_color() == inside_b.get_color()


@pytest.mark.parametrize("predictions", [None, [[1, 2]], [[1, n] for n in range(2, 11)] * 5])
def test_nothing_leaves_the_sheet(predictions: list | None) -> None:
    titles = ["word " * 80, "x" * 300, *(f"title {n}" for n in range(8))]
    bundles = [{n, n + 1} for n in range(1, 10)]
    session = make_session(10, bundles, titles=titles, intents=["a long intent " * 30] * 9)
    assert_inside(plots.session_figure(session, predictions, note="note"))


def test_a_long_title_takes_two_lines_at_most() -> None:
    figure = plots.session_figure(make_session(titles=["word " * 80, *"bcde"]))
    (title,) = [text for text in texts(figure) if text.startswith("word")]
    assert title.count("\n") == 1
    assert title.endswith("…")


def test_long_intents_take_several_lines_and_none_is_cut() -> None:
    long = "to compare " + "one thing with another " * 8
    figure = plots.session_figure(make_session(intents=[long.strip(), "short"]), note="note")
    assert_inside(figure)
    assert_apart(figure)
    said = " ".join(texts(figure))
    assert "…" not in said and said.count("with another") == 8 and "B: short" in said


def test_a_bundle_annotated_twice_is_drawn_twice() -> None:
    figure = plots.session_figure(make_session(bundles=[{1, 2}, {1, 2}]))
    assert [rows for _, rows in dots(figure, "o")] == [[1, 2], [1, 2]]


# Many sessions


def facts() -> pd.DataFrame:
    rows = [
        {"domain": domain, "split": split, "items": n, "sizes": [2, 2, n], "share": n / 7}
        for domain, shift in (("one", 0), ("two", 1))
        for split, lengths in (("train", [2, 2, 3, 4]), ("test", [2, 3, 4, 5]), ("validation", [9]))
        for n in (length + shift for length in lengths)
    ]
    return pd.DataFrame(rows)


def test_length_figure_draws_percentages_of_train_and_test() -> None:
    figure = plots.length_figure(facts(), note="made up")
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines if len(line.get_xydata())]
    assert [[2, 50], [3, 25], [4, 25]] in drawn
    assert [[2, 25], [3, 25], [4, 25], [5, 25]] in drawn
    low, high = figure.axes[0].get_ylim()
    assert low == 0 < 50 < high
    assert "made up" in texts(figure)


def test_distribution_figure_counts_the_entries_of_lists_and_adds_up_to_all() -> None:
    figure = plots.distribution_figure(facts(), {"sizes": "products in the bundle", "share": "share"})
    bars, outlines = figure.axes
    assert sum(patch.get_height() for patch in bars.patches) == pytest.approx(200)
    tallest = max(bars.patches, key=lambda patch: patch.get_height())
    assert tallest.get_x() + tallest.get_width() / 2 == pytest.approx(2, abs=0.5)
    assert (bars.get_xlabel(), outlines.get_xlabel()) == ("products in the bundle", "share")
    assert not outlines.patches
    assert outlines.lines


def test_share_figure_writes_the_counts() -> None:
    figure = plots.share_figure({"seen?": {"one": (3, 4), "two": (0, 0)}, "again?": {"one": (1000, 4000)}})
    shown = texts(figure)
    assert {"75 %  (3 of 4)", "0 %  (0 of 0)", "25 %  (1,000 of 4,000)", "seen?", "again?"} <= set(shown)
    assert [patch.get_width() for patch in figure.axes[0].patches] == [75, 0]


def test_leak_figure_writes_every_count() -> None:
    table = pd.DataFrame([[750, 0], [309, 4461]], index=["no title", "title"], columns=["out", "in"])
    figure = plots.leak_figure({"one": table, "two": table * 2})
    assert {"750", "0", "309", "4,461", "8,922", "no title", "out"} <= set(texts(figure))


# Scores


def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"domain": "one", "floor": floor, "protocol": protocol, "precision": 0.1 * k, "recall": recall}
            for k, floor in enumerate(plots.FLOOR_ORDER, start=1)
            for protocol, recall in (("official", 0.8 * k), ("strict", 0.2 * k))
        ]
    )


def test_protocol_figure_places_both_protocols() -> None:
    figure = plots.protocol_figure(scores(), note="made up")
    axes = figure.axes[0]
    points = {tuple(np.round(line.get_xydata()[0], 6)) for line in axes.lines if len(line.get_xydata()) == 1}
    assert points == {(round(0.1 * k, 6), round(r * k, 6)) for k in range(1, 5) for r in (0.8, 0.2)}
    low, high = axes.get_ylim()
    assert low < 0.2 < 3.2 < high
    assert axes.get_yscale() == "log"
    assert {*plots.FLOOR_ORDER, "hollow: official, filled: strict · made up"} <= set(texts(figure))


def test_interval_figure_draws_each_interval() -> None:
    rows = [
        {"domain": d, "floor": f, "metric": m, "estimate": 0.1 * k, "low": 0.1 * k - 0.05, "high": 0.1 * k + 0.02}
        for d in ("one", "two")
        for k, f in enumerate(plots.FLOOR_ORDER, start=1)
        for m in ("strict F1", "exact match")
    ]
    figure = plots.interval_figure(pd.DataFrame(rows))
    assert len(figure.axes) == 2
    for axes in figure.axes:
        bars = [segment for bars in axes.collections for segment in bars.get_segments()]
        ends = sorted({(round(bar[0][0], 6), round(bar[1][0], 6)) for bar in bars})
        assert ends == [(0.05, 0.12), (0.15, 0.22), (0.25, 0.32), (0.35, 0.42)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(plots.FLOOR_ORDER)


# All


def test_learning_figure_draws_a_curve_per_domain_in_every_panel() -> None:
    points = [
        LearningPoint(n, 1.0, Interval(b, b - 0.1, b + 0.1), 0.5 + b / 4, 0.4, 0.2) for n, b in ((0, -2), (600, 0.1))
    ]
    figure = plots.learning_figure({"food": points, "clothing": points[:1]}, note="run now")
    nats, auc, scores = figure.axes
    assert [list(line.get_xdata()) for line in nats.lines[:2]] == [[0, 600], [0]]
    assert list(auc.lines[0].get_ydata()) == [0, 0.525]
    assert len(scores.lines) == 4  # F1 and exact match of each
    assert [t.get_text() for t in figure.legends[0].texts] == ["food", "clothing"]


def test_figures_are_shown_once_and_can_be_saved(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    made = [
        plots.session_figure(make_session()),
        plots.length_figure(facts()),
        plots.protocol_figure(scores()),
    ]
    assert plt.get_fignums() == []
    for number, figure in enumerate(made):
        assert isinstance(figure, Figure)
        assert figure.get_figwidth() == plots.WIDTH
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000


def test_import_loads_no_plotting_library() -> None:
    code = "import sys, routedk_lite.book.plots.task; print({'matplotlib', 'seaborn', 'pandas'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "set()"
