"""The strip plot of one domain: every run of a student with its interval, in groups, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.sessions import PUBLIC_DOMAINS
from ..files import sha256_json
from .scores import BASE, CLUSTERING, DECODER, FLOOR, GROUPS, ROUTER, TEACHER, Score
from .style import LIGHT, NARROW, bare_axes, narrow_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = 1.7
"""Inches for the names of the groups."""
LINE, GAP, STAIR = 0.085, 1.7, 0.185
"""Inches a run takes; lines between groups; inches a label above takes."""
MARGIN = 0.045
"""Of F1, beside the lowest line and the highest interval."""
SIZE = 10.0
"""Points of all letters."""


def richest_domain(scores: Sequence[Score]) -> str:
    """The public domain with the most runs of students; empty if there are none."""
    counts = {d: sum(s.domain == d and bool(s.group) for s in scores) for d in PUBLIC_DOMAINS}
    best = max(counts, key=counts.get)
    return best if counts[best] else ""


def strip_figure(scores: Sequence[Score]) -> Figure:
    """Strict F1 of every run of a student: a dot and its 95 % interval, in groups; what has no student as lines.

    Runs below all lines are named at the left edge.

    Args:
        scores: of one profile and one domain.
    """
    groups = [(name, [s for s in scores if s.group == name]) for name in GROUPS]
    groups = [(name, found) for name, found in groups if found]
    lines = _lines(scores)
    n_rows = sum(len(found) for _, found in groups) + GAP * len(groups)
    below = 0.56
    above = STAIR * len(lines) + 0.1
    height = LINE * n_rows + below + above
    figure = narrow_figure(height)
    axes = figure.add_axes((LABELS / NARROW, below / height, 1 - (LABELS + 0.12) / NARROW, LINE * n_rows / height))
    y = 0.0
    shown = [s.f1 for _, found in groups for s in found] + [s.f1 for s, _, _ in lines]
    start = min([s.f1.estimate for s, _, _ in lines], default=0.0) - MARGIN
    axes.set_xlim(start, max(f1.high for f1 in shown) + 2.2 * MARGIN)
    for name, found in groups:
        _draw_group(axes, y, name, found)
        y += len(found) + GAP
    axes.set_ylim(y - GAP / 2 - 0.5, -GAP / 2 - 0.5)
    bare_axes(axes, SIZE)
    _draw_lines(axes, lines)
    axes.set_xlabel(f"strict F1 in {scores[0].domain}, 95 % intervals")
    axes.locator_params(axis="x", nbins=5)
    return figure


def _draw_group(axes: Axes, y: float, name: str, found: Sequence[Score]) -> None:
    middle = y + (len(found) - 1) / 2
    axes.text(-0.03, middle, name, transform=axes.get_yaxis_transform(), va="center", ha="right", fontsize=SIZE,
              color=LIGHT["ink"])  # fmt: skip
    named = {BASE: ("base", LIGHT["blue"]), ROUTER: ("router", LIGHT["red"])}
    end = max(s.f1.high for s in found)
    for place, score in enumerate(found):
        label, colour = named.get(score.run, ("", LIGHT["quiet"]))
        here = y + place
        if score.f1.high < axes.get_xlim()[0]:  # too far off to be worth the space
            plate = {"facecolor": LIGHT["ground"], "edgecolor": "none", "pad": 0.6}  # over lines, under intervals
            axes.annotate(
                f"◀ {score.f1.estimate:.3f}", (axes.get_xlim()[0], here), xytext=(2, 0), textcoords="offset points",
                color=colour, bbox=plate, va="center", fontsize=SIZE, zorder=2.5,
            )  # fmt: skip
            continue
        axes.plot([score.f1.low, score.f1.high], [here, here], color=colour, linewidth=1.1, zorder=3)
        axes.plot(score.f1.estimate, here, "o", color=colour, markersize=4, zorder=4)
        if label:
            axes.annotate(label, (end, here), xytext=(4, 0), textcoords="offset points", va="center", fontsize=SIZE,
                          color=colour, zorder=5)  # fmt: skip


def _lines(scores: Sequence[Score]) -> list[tuple[Score, str, str]]:
    """What is drawn as a line, by rising F1: floors, the better clustering, the decoder on MiniLM, the teacher."""
    floors = [(s, s.words, LIGHT["quiet"]) for s in scores if s.run.startswith(FLOOR)]
    clusterings = sorted((s for s in scores if s.run.startswith(CLUSTERING)), key=lambda s: s.f1.estimate)
    others = [(s, s.words, LIGHT["quiet"]) for s in clusterings[-1:]]
    colours = {DECODER: LIGHT["green"], TEACHER: LIGHT["violet"]}
    others += [(s, s.words, colours[s.run]) for s in scores if s.run in colours]
    return sorted(floors + others, key=lambda line: line[0].f1.estimate)


def _draw_lines(axes: Axes, lines: Sequence[tuple[Score, str, str]]) -> None:
    """Vertical lines that rise to a label each, the farthest right the highest: so no line crosses a label."""
    from matplotlib.transforms import blended_transform_factory, offset_copy

    figure = axes.figure
    top = axes.get_ylim()[1]
    for step, (score, label, colour) in enumerate(lines, 1):
        value = score.f1.estimate
        is_floor = score.run.startswith((FLOOR, CLUSTERING))
        look = {"color": colour, "linewidth": 1.0 if is_floor else 1.6, "linestyle": (0, (4, 2)) if is_floor else "-"}
        axes.axvline(value, zorder=2, **look)
        rise = 72 * STAIR * step
        axes.annotate("", (value, top), xytext=(0, rise), textcoords="offset points",
                      arrowprops={"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, **look})  # fmt: skip
        plate = {"facecolor": LIGHT["ground"], "edgecolor": "none", "pad": 0.6}  # over lines that rise higher
        written = axes.text(
            value, top, f"{label}, {value:.3f}", va="center", ha="right", fontsize=SIZE, zorder=5, bbox=plate,
            transform=offset_copy(axes.transData, figure, -4, rise - 6, units="points"),
            color=LIGHT["ink"] if is_floor else colour,
        )  # fmt: skip
        if written.get_window_extent().x0 < 0:  # a long label of a line far to the left begins at the edge
            edge = blended_transform_factory(figure.transFigure, axes.transData)
            written.set(x=0.008, ha="left", transform=offset_copy(edge, figure, 0, rise - 6, units="points"))


def strip_key(scores: Sequence[Score]) -> str:
    """Names what the figure shows; stands in its metadata, so that a figure that is out of date can be told."""
    return sha256_json([[s.domain, s.words, s.group, *(f"{value:.4f}" for value in s.f1)] for s in scores])
