"""Figures of the conflict show the numbers they are given and the floors beside them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawings import assert_inside, texts

from routedk_lite.analysis.conflict import GradientCosines, Interference
from routedk_lite.analysis.overlap import DeltaOverlap, SpaceOverlap
from routedk_lite.book.plots import task as plots
from routedk_lite.book.plots.conflict import (
    cosine_bars_figure,
    cosine_course_figure,
    cosine_map_figure,
    forecast_figure,
    interference_figure,
    overlap_figure,
    pulls_figure,
    score_bars_figure,
)
from routedk_lite.statistics import Interval

matplotlib.use("agg")

KINDS = ("none", "rules", "reasoning")


def cosines(n_layers: int = 2, kinds: tuple[str, ...] = KINDS) -> GradientCosines:
    """Layer l: 0.1 · l between two kinds, 0.5 + 0.1 · l within one; the intervals reach 0.02 to either side."""
    k = len(kinds)
    estimate = 0.5 * np.eye(k)[None] + 0.1 * np.arange(n_layers + 1)[:, None, None]
    gap = np.where(np.eye(k)[None] > 0, 0, -0.5) + 0 * estimate
    with_interval = [np.stack([x, x - 0.02, x + 0.02], -1) for x in (estimate, gap)]
    return GradientCosines(kinds, tuple(range(10, 10 + n_layers)), *with_interval)


def overlaps(n_layers: int = 3) -> list[DeltaOverlap]:
    def space(shared: float) -> SpaceOverlap:
        return SpaceOverlap(shared, 0.1, 40.0, 60.0)

    return [
        DeltaOverlap(first, second, layer, 0.1 * layer, 0.01, space(0.2), space(0.9))
        for first, second in (("base", "rules"), ("base", "reasoning"))
        for layer in range(n_layers)
    ] + [DeltaOverlap("base", "rules", None, 0.9, 0.01, space(0.2), space(0.9))]


def test_pulls_start_at_the_weights_and_their_mean_is_thick() -> None:
    pulls = {"rules": np.array([[1.0, 0.2], [1.0, -0.2]]), "reasoning": np.array([[-0.5, 1.0], [-0.5, 0.6]])}
    figure = pulls_figure({"opposed": pulls, "again": pulls}, note="made up")
    axes = figure.axes[0]
    batches, mean, other_batches, other_mean = axes.collections
    assert np.column_stack([batches.U, batches.V]).tolist() == pulls["rules"].tolist()
    assert np.column_stack([mean.U, mean.V]) == pytest.approx(np.array([[1.0, 0.0]]))
    assert np.column_stack([other_mean.U, other_mean.V]) == pytest.approx(np.array([[-0.5, 0.8]]))
    assert mean.width > batches.width and other_mean.width > other_batches.width
    for name, ends in (("x", [1.0, -0.5]), ("y", [1.0, -0.2])):
        low, high = getattr(axes, f"get_{name}lim")()
        assert low < min(0, *ends) and max(0, *ends) < high  # every arrow has its end on the sheet
    assert [t.get_text() for t in figure.legends[0].texts] == ["rules", "reasoning"]
    assert [a.get_title() for a in figure.axes] == ["opposed", "again"]
    with pytest.raises(ValueError, match="situations is empty"):
        pulls_figure({})


def test_score_bars_have_intervals_one_scale_and_a_place_for_what_is_missing() -> None:
    scores = {
        "food": {"DK1": Interval(0.5, 0.4, 0.7), "DK2": Interval(0.3, 0.2, 0.35)},
        "clothing": {"DK1": Interval(0.6, 0.5, 0.7), "DK2": None},
    }
    figure = score_bars_figure(scores, note="made up")
    full, holed = figure.axes
    assert [bar.get_height() for bar in full.patches] == [0.5, 0.3]
    ends = [np.array(segment)[:, 1] for bars in full.collections for segment in bars.get_segments()]
    assert np.round(ends, 3).tolist() == [[0.4, 0.7], [0.2, 0.35]]
    assert [bar.get_height() for bar in holed.patches] == [0.6]
    assert [t.get_text() for t in holed.texts] == ["not recorded"] and not full.texts
    assert full.get_xlim() == holed.get_xlim() and full.get_ylim() == holed.get_ylim()
    assert full.get_ylim()[0] == 0
    assert full.patches[0].get_facecolor() == holed.patches[0].get_facecolor() != full.patches[1].get_facecolor()
    assert_inside(figure)
    with pytest.raises(ValueError, match="scores is empty"):
        score_bars_figure({})


def test_the_course_draws_floors_pairs_and_gaps_of_all_layers() -> None:
    figure = cosine_course_figure({240: cosines(2), 480: cosines(4)}, note="made up")
    left, right = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines if not line.get_label().startswith("_")}
    assert drawn.keys() == {*(f"within {k}" for k in KINDS), "none · rules", "none · reasoning", "rules · reasoning"}
    assert drawn["within rules"] == pytest.approx([0.7, 0.9])  # the last row stands for all layers
    assert drawn["none · rules"] == pytest.approx([0.2, 0.4])
    gaps = [line.get_ydata() for line in right.lines if len(line.get_ydata()) == 2 and line.get_ydata()[0] < 0]
    assert np.array(gaps) == pytest.approx(np.full((3, 2), -0.5))
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(0.18), pytest.approx(0.42))
    assert left.get_xticks().tolist() == [240, 480]
    assert [t.get_text() for t in figure.legends[0].texts] == list(drawn)
    assert_inside(figure)
    with pytest.raises(ValueError, match="found is empty"):
        cosine_course_figure({})


def test_the_map_writes_each_layers_cosines_and_gaps() -> None:
    figure = cosine_map_figure(cosines(), note="made up")
    left, right = figure.axes[:2]
    assert [t.get_text() for t in left.texts] == ["0.50"] * 3 + ["0.00"] * 3 + ["0.60"] * 3 + ["0.10"] * 3
    assert [t.get_text() for t in right.texts] == ["-0.50"] * 6
    assert [t.get_text() for t in left.get_xticklabels()][2:4] == ["reasoning\nreasoning", "none\nrules"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["10", "11"]
    low, high = left.get_ylim()
    assert low < high  # the lowest layer at the bottom
    assert "left of the line: within a kind, the noise floor · made up" in texts(figure)
    assert not cosine_map_figure(cosines(20)).axes[0].texts  # too many to write


def test_the_bars_stand_for_all_layers_with_their_intervals() -> None:
    figure = cosine_bars_figure(cosines(), note="made up")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.2, 0.7, 0.7] * 3)
    ends = [np.array(segment)[:, 1] for bars in axes.collections for segment in bars.get_segments()]
    assert sorted(map(tuple, np.round(ends, 3).tolist())) == [(0.18, 0.22)] * 3 + [(0.68, 0.72)] * 6
    assert [t.get_text() for t in axes.get_xticklabels()][:3] == ["none\nrules", "none\nnone", "rules\nrules"]
    assert [t.get_text() for t in figure.legends[0].texts] == ["between two kinds", "within a kind"]
    assert_inside(figure)


def test_one_kind_alone_has_no_conflict_to_draw() -> None:
    for draw in (cosine_map_figure, cosine_bars_figure, lambda found: cosine_course_figure({1: found})):
        with pytest.raises(ValueError, match=r"kinds = \['none'\]: a conflict needs two kinds or more"):
            draw(cosines(kinds=("none",)))


@pytest.mark.parametrize(
    ("scale", "cell"), [(0.01, "−1.0 %\n[−2.0, +0.0]"), (1e-5, "−0.0010 %\n[−0.0020, +0.0000]"), (0.3, "−30 %")]
)
def test_the_matrix_of_interference_writes_changes_in_percent(scale: float, cell: str) -> None:
    change = scale * np.array([[[-1, -2, 0], [0.5, 0.1, 0.9]], [[0.2, -0.2, 0.5], [-0.7, -0.9, -0.6]]])
    figure = interference_figure(Interference(("none", "rules"), (1.0, 2.0), change), note="made up")
    axes = figure.axes[0]
    written = [t.get_text() for t in axes.texts]
    assert len(written) == 4 and written[0].startswith(cell)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss of", "a step for")
    (mesh,) = axes.collections
    assert mesh.get_clim() == pytest.approx((-100 * scale, 100 * scale))
    red, _, blue, _ = mesh.cmap(mesh.norm(mesh.get_array().ravel()[0]))
    assert blue > red  # a step for itself helps
    assert_inside(figure)


def test_steps_stand_beside_their_forecasts() -> None:
    change = 0.01 * np.array([[[-1, -2, 0], [0.5, 0.1, 0.9]], [[0.2, -0.2, 0.5], [-0.7, -0.9, -0.6]]])
    forecast = np.array([[-0.02, 0.0], [-0.001, -0.01]])
    figure = forecast_figure(Interference(("none", "rules"), (1.0, 2.0), change), forecast, note="made up")
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = [line.get_xdata()[0] for line in dots if line.get_markerfacecolor() == "white"]
    filled = [line.get_xdata()[0] for line in dots if line.get_markerfacecolor() != "white"]
    assert (hollow, filled) == (pytest.approx([-2, 0, -0.1, -1]), pytest.approx([-1, 0.5, 0.2, -0.7]))
    bars = [np.array(s)[:, 0] for c in axes.collections for s in c.get_segments()]
    assert np.array(bars) == pytest.approx(100 * change.reshape(4, 3)[:, 1:])
    names = ["none → none", "none → rules", "rules → none", "rules → rules"]
    assert [t.get_text() for t in axes.get_yticklabels()] == names
    assert axes.yaxis_inverted()  # the first step on top
    assert "hollow: forecast from the gradients, filled: step taken · made up" in texts(figure)
    assert_inside(figure)


def test_overlaps_are_drawn_by_layer_beside_chance() -> None:
    figure = overlap_figure(overlaps(), note="made up")
    cosine, columns, rows = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in cosine.lines if "·" in line.get_label()}
    assert drawn.keys() == {"base · rules", "base · reasoning"}
    assert drawn["base · rules"] == [[0, 0], [1, pytest.approx(0.1)], [2, pytest.approx(0.2)]]
    floors = [line.get_ydata()[0] for line in cosine.lines if line.get_linestyle() == ":"]
    assert sorted(floors) == [-0.02, -0.02, 0.02, 0.02]
    assert [line.get_ydata()[0] for line in columns.lines] == [0.2, 0.1, 0.2, 0.1]
    assert [line.get_ydata()[0] for line in rows.lines] == [0.9, 0.1, 0.9, 0.1]
    assert_inside(figure)
    long = [one._replace(first=f"a long name of {one.first}", second=f"another of {one.second}") for one in overlaps()]
    crowded = overlap_figure(long)
    crowded.canvas.draw()
    box = crowded.legends[0].get_window_extent()
    assert crowded.bbox.x0 <= box.x0 and box.x1 <= crowded.bbox.x1
    many = [one._replace(first=f"{one.first} {k}") for k in range(4) for one in overlaps()]
    cosine = overlap_figure(many).axes[0]
    assert sum("·" in line.get_label() for line in cosine.lines) == 8, "more pairs than markers"
    with pytest.raises(ValueError, match="found is empty"):
        overlap_figure([])


def test_figures_have_the_books_width_and_can_be_saved(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    change = np.zeros((2, 2, 3))
    made = [
        cosine_map_figure(cosines()),
        cosine_bars_figure(cosines()),
        interference_figure(Interference(("a", "b"), (1.0, 1.0), change)),
        overlap_figure(overlaps()),
        pulls_figure({"a": {"rules": np.ones((2, 2))}}),
        score_bars_figure({"a": {"DK1": Interval(0.5, 0.4, 0.6)}}),
        cosine_course_figure({1: cosines(), 2: cosines()}),
        forecast_figure(Interference(("a", "b"), (1.0, 1.0), change), np.zeros((2, 2))),
    ]
    assert plt.get_fignums() == []
    for number, figure in enumerate(made):
        assert figure.get_figwidth() == plots.WIDTH
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000
