"""Figures of scaling up show the numbers they are given, and stay inside their frame."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawings import assert_inside, texts

from routedk_lite.book.plots.scaling import levels_figure, memory_figure, schedules_figure
from routedk_lite.student.memory import MemoryPlan

matplotlib.use("agg")

SMALL, LARGE = MemoryPlan(1.0, 0.5, 0.25, 2.0, 0.25, 1.0), MemoryPlan(16.0, 0.5, 0.5, 20.0, 1.0, 1.0)


def test_memory_adds_up_to_the_plan_beside_the_limits() -> None:
    figure = memory_figure({"small": SMALL, "large": LARGE}, {"T4": 12, "24 GB": 24}, note="made up")
    (axes,) = figure.axes
    ends = {round(bar.get_y() + bar.get_height() / 2): 0.0 for bar in axes.patches}
    for bar in axes.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends[row], bar.get_x() + bar.get_width())
    assert ends == {0: pytest.approx(SMALL.total), 1: pytest.approx(LARGE.total)}
    assert [line.get_xdata()[0] for line in axes.lines] == [12, 24]
    assert {" 5.0 GB", " 39.0 GB", "T4 ", "24 GB "} <= set(texts(figure))
    assert [text.get_text() for text in figure.legends[0].texts] == list(MemoryPlan._fields)
    assert_inside(figure)
    with pytest.raises(ValueError, match="plans is empty"):
        memory_figure({}, {"T4": 12})


def test_levels_stand_below_the_weights() -> None:
    weights = np.linspace(-1, 1, 640).reshape(10, 64)
    figure = levels_figure(weights, {"three": [-1, 0, 1], "two": [-1, 1]}, note="made up")
    marks = [[segment[0][0] for segment in lines.get_segments()] for lines in figure.axes[1].collections]
    assert marks == [[-1, 0, 1], [-1, 1]]
    assert_inside(figure)
    with pytest.raises(ValueError, match="a weight is 2.000: divide by the largest"):
        levels_figure(2 * weights, {"two": [-1, 1]})


def test_schedules_share_an_axis_and_say_when_they_end() -> None:
    one = [("a", "train", 0, 0.0, 5.0), ("b", "answer", 0, 5.0, 8.0)]
    two = [("a", "train", 0, 0.0, 5.0), ("b", "answer", 1, 0.0, 3.0)]
    figure = schedules_figure({"1 GPU": one, "2 GPUs": two}, note="made up")
    alone, together = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in alone.patches] == [(0, 5), (5, 3)]
    assert alone.get_xlim() == together.get_xlim()
    assert alone.patches[0].get_facecolor() == together.patches[0].get_facecolor()
    assert {"8 min", "5 min"} <= set(texts(figure))
    assert [text.get_text() for text in figure.legends[0].texts] == ["train", "answer"]
    assert_inside(figure)
    with pytest.raises(ValueError, match="schedules is empty"):
        schedules_figure({"1 GPU": []})
