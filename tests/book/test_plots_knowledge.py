"""Figures of knowledge show the numbers they are given, and stay on their sheet."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawings import assert_apart, assert_inside, texts
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.book.plots import task as plots
from routedk_lite.book.plots.knowledge import (
    counted_figure,
    evidence_figure,
    feedback_figure,
    loop_figure,
    patterns_figure,
    quantity_figure,
    selection_figure,
    use_figure,
    worth_figure,
)
from routedk_lite.book.plots.labels import spread
from routedk_lite.data.domains import load_domain
from routedk_lite.statistics import Interval
from routedk_lite.teacher.evidence import PairEvidence
from routedk_lite.teacher.patterns import Pattern
from routedk_lite.teacher.teaching import FEEDBACK

matplotlib.use("agg")


def around(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, value - reach, value + reach)


def marks(axes) -> list[tuple[float, float]]:
    """Places of the markers of errorbars and lines with markers."""
    return [tuple(map(float, xy)) for line in axes.lines if line.get_marker() not in ("None", "|", "_")
            for xy in line.get_xydata()]  # fmt: skip


def ends(axes) -> set[tuple[float, float]]:
    """Ends of lying error bars."""
    bars = [segment for found in axes.collections for segment in getattr(found, "get_segments", list)()]
    return {tuple(np.round(np.array(bar)[:, 0], 6).tolist()) for bar in bars}


PATTERNS = [Pattern(("case", "case"), 40, 0.5), Pattern(("cable", "case"), 9, 0.25),
            Pattern(("cable", "cable", "case"), 3, 1.0)]  # fmt: skip
EVIDENCE = {
    name: PairEvidence(around(0.6), around(0.3), around(d), 10, 20, 5) for name, d in (("R1: a", 0.3), ("R2: b", -0.2))
}


def all_figures() -> list:
    sessions = load_domain("toyshop", "train").sessions[:40]
    return [
        loop_figure(note="x"),
        feedback_figure({"me": ["correct", "single"], "a teacher with a long name of many words": ["invalid"]}),
        evidence_figure(EVIDENCE, {"R1: a": EVIDENCE["R1: a"], "R2: b": None}),
        counted_figure({"R1: pairs": (around(0.5), around(0.4)), "R2: ones": (Interval(0.3, 0.3, 0.3), around(0.3))}),
        patterns_figure(PATTERNS),
        selection_figure({"random": sessions[:10], "length": sessions[10:20]}, sessions),
        quantity_figure({"random": {0.0: around(0.1), 0.5: around(0.3)}, "length": {0.0: around(0.1)}}),
        worth_figure({"F1": {"nothing": around(0.5), "rules": around(0.6)}, "exact": {"rules": around(0.2)}}),
        use_figure({"raw": {"nothing": around(0.5), "hints": None}, "told": {"nothing": None, "hints": around(0.25)}}),
    ]


def test_figures_have_the_books_width_stay_inside_and_can_be_saved(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    for number, figure in enumerate(all_figures()):
        assert figure.get_figwidth() == plots.WIDTH
        assert_inside(figure)
        assert_apart(figure)
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000
    assert plt.get_fignums() == []


def test_the_loop_names_its_steps_in_order() -> None:
    found = [text for text in texts(loop_figure()) if text in ("predict", "compare", "reflect", "sum up")]
    assert found == ["predict", "compare", "reflect", "sum up"]


def test_feedback_bars_are_shares_with_counts_beside_them() -> None:
    figure = feedback_figure({"me": ["correct"] * 3 + ["missing"], "you": ["invalid"] * 2})
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [75, 0, 0, 25, 0]
    assert [t.get_text() for t in left.texts] == ["3", "0", "0", "1", "0"]
    assert [bar.get_width() for bar in right.patches] == [0, 100, 0, 0, 0]
    assert [t.get_text() for t in left.get_yticklabels()] == list(FEEDBACK)
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first kind on top


def test_evidence_has_shares_on_the_left_and_differences_on_the_right() -> None:
    figure = evidence_figure(EVIDENCE, {"R1: a": EVIDENCE["R2: b"], "R2: b": None})
    left, right = figure.axes
    assert {x for x, _ in marks(left)} == {0.6, 0.3}
    assert sorted(x for x, _ in marks(right)) == [-0.2, -0.2, 0.3]  # all pairs twice, within sessions once
    assert (0.25, 0.35) in ends(right) and (-0.25, -0.15) in ends(right)
    assert [t.get_text() for t in left.get_yticklabels()] == list(EVIDENCE)
    legends = [t.get_text() for axes in figure.axes for t in axes.get_legend().get_texts()]
    assert legends == ["other pairs", "pairs that the rule joins", "all pairs", "within sessions"]


def test_claims_stand_beside_what_is_found() -> None:
    (axes,) = counted_figure({"R1: pairs": (around(0.5), around(0.4, 0.01))}).axes
    assert sorted(x for x, _ in marks(axes)) == [0.4, 0.5]
    assert ends(axes) == {(0.45, 0.55), (0.39, 0.41)}


def test_patterns_stand_at_support_and_confidence() -> None:
    figure = patterns_figure(PATTERNS, named=2)
    (axes,) = figure.axes
    places = [tuple(xy) for found in axes.collections for xy in found.get_offsets().tolist()]
    assert sorted(places) == [(3.0, 1.0), (9.0, 0.25), (40.0, 0.5)]
    assert [t.get_text() for t in axes.texts] == ["case + case", "cable + case"]


def test_names_of_patterns_lie_apart_however_close_these_are() -> None:
    """Frequent patterns of the toy shop have nearly the same support and confidence."""
    names = ["ink cartridge", "dust bag", "air filter", "camera battery", "paper tray"]
    close = [Pattern((n, "vacuum cleaner"), 64 - k, 0.93 - k / 100) for k, n in enumerate(names)]
    for figure in (patterns_figure(close), patterns_figure([p._replace(confidence=0.0) for p in close])):
        assert len(figure.axes[0].texts) == len(names)
        assert_inside(figure)
        assert_apart(figure)


@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(0.01, 0.4)), max_size=8))
def test_boxes_are_spread_without_lying_on_each_other(boxes) -> None:
    wanted, tall = [middle for middle, _ in sorted(boxes, reverse=True)], [height for _, height in boxes]
    found = spread(wanted, tall)
    edges = [(middle + height / 2, middle - height / 2) for middle, height in zip(found, tall, strict=True)]
    assert all(top <= 1 + 1e-9 for top, _ in edges)
    assert all(below <= floor + 1e-9 for (_, floor), (below, _) in pairwise(edges))
    assert sum(tall) > 1 or all(floor >= -1e-9 for _, floor in edges)


def test_titles_of_many_panels_are_wrapped() -> None:
    found = {f"recorded teacher, {name}": ["correct"] for name in ("electronic", "clothing", "food", "toyshop")}
    assert_apart(feedback_figure(found))
    assert_apart(feedback_figure({"one": ["correct"]}))


def test_patterns_of_both_sizes_have_their_colour() -> None:
    figure = patterns_figure(PATTERNS, named=2)
    assert [t.get_text() for t in figure.legends[0].texts] == ["2 products", "3 products"]


def test_selection_shows_the_lengths_of_the_chosen_beside_all() -> None:
    sessions = load_domain("toyshop", "train").sessions[:40]
    longest = sorted(sessions, key=len)[-4:]
    (axes,) = selection_figure({"length": longest}, sessions).axes
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)
    line = dict(axes.lines[0].get_xydata().tolist())
    assert sum(line.values()) == pytest.approx(100) and line[float(min(map(len, sessions)))] == 0


def test_quantity_lines_are_set_apart_but_keep_their_values() -> None:
    points = {"random": {0.0: around(0.1), 1.0: around(0.6)}, "length": {0.0: around(0.2), 1.0: around(0.6)}}
    (axes,) = quantity_figure(points).axes
    places = marks(axes)
    assert sorted(y for _, y in places) == [0.1, 0.2, 0.6, 0.6]
    assert len({x for x, _ in places}) == 4
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0%", "100%"]


def test_worth_has_one_row_per_student_in_every_panel() -> None:
    figure = worth_figure({"F1": {"nothing": around(0.5), "rules": around(0.6)}, "exact": {"rules": around(0.2)}},
                          note="made up")  # fmt: skip
    left, right = figure.axes
    assert marks(left) == [(0.5, 0.0), (0.6, 1.0)] and marks(right) == [(0.2, 1.0)]
    assert [t.get_text() for t in left.get_yticklabels()] == ["nothing", "rules"]
    assert "dotted: nothing · made up" in texts(figure)


def test_uses_are_written_with_their_intervals_and_gaps_stay_empty() -> None:
    figure = use_figure(
        {"raw": {"nothing": around(0.5), "hints": None}, "told": {"nothing": None, "hints": around(0.25)}}
    )
    axes = figure.axes[0]
    written = [t.get_text() for t in axes.texts if t.get_text()]
    assert written == ["0.50\n[0.45, 0.55]", "0.25\n[0.20, 0.30]"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["nothing", "hints"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["raw", "told"]
