"""The parts of a drawn session: products as cards below each other, bundles as columns of dots beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...data.sessions import Bundle, Session
from ...report.style import FAINT, QUIET, WIDTH, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, TOP, COLUMN = 0.52, 0.62, 0.40  # inches: height of a product, of the heading, width of a bundle


class Column(NamedTuple):
    """One bundle as a vertical line of dots."""

    bundle: Bundle
    name: str
    colour: object
    style: str
    marker: str


def true_columns(session: Session) -> list[Column]:
    """The annotated bundles A, B, …, each in a colour of its own."""
    colours = palette()
    return [
        Column(bundle, chr(ord("A") + i % 26), colours[i % len(colours)], "-", "o")
        for i, bundle in enumerate(session.bundles)
    ]


def predicted_columns(predictions: Iterable[Iterable[int]], true: Sequence[Column]) -> list[Column]:
    """Predicted bundles: hits in the colour of the first annotated bundle that they fit into, all others in grey."""
    columns = []
    for bundle in map(frozenset, predictions):
        fits = next((column for column in true if bundle <= column.bundle), None)
        if len(bundle) < 2:
            columns.append(Column(bundle, "–", QUIET, ":", "x"))
        elif fits:
            columns.append(Column(bundle, "✓", fits.colour, "-", "o"))
        else:
            columns.append(Column(bundle, "✗", QUIET, "--", "X"))
    return columns


def sheet(height: float) -> Axes:
    """Axes without a frame, measured in inches from the upper left corner."""
    figure = new_figure(height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def draw_card(axes: Axes, number: int, title: str, *, width: float, outside: bool) -> None:
    """Draw a product with its number, dashed where it is outside of every bundle."""
    from matplotlib.patches import FancyBboxPatch

    middle = TOP + ROW * (number - 0.5)
    corner = (0.03, middle - ROW / 2 + 0.03)
    box = FancyBboxPatch(corner, width - 0.06, ROW - 0.08, boxstyle="round,pad=0,rounding_size=0.06")
    box.set(facecolor="white" if outside else "#eef2f7", edgecolor=FAINT, linestyle="--" if outside else "-")
    axes.add_patch(box)
    axes.text(0.24, middle, str(number), ha="center", va="center", fontsize=11, fontweight="bold")
    lines = textwrap.wrap(title, int((width - 0.55) / 0.076), max_lines=2, placeholder="…")
    colour = QUIET if outside else "black"
    axes.text(0.44, middle, "\n".join(lines), va="center", fontsize=9.5, color=colour, linespacing=1.15)


def draw_columns(axes: Axes, columns: Sequence[Column], places: Sequence[float], name: str, n_items: int) -> None:
    """Draw bundles side by side at these places, under a common name."""
    if not columns:
        return
    middle = (places[0] + places[len(columns) - 1]) / 2
    axes.text(middle, 0.14, name, ha="center", va="center", fontsize=10, color=QUIET)
    heights = [TOP + ROW * (item + 0.5) for item in range(n_items)]
    for column, x in zip(columns, places, strict=False):
        axes.text(x, 0.42, column.name, ha="center", va="center", fontsize=11, fontweight="bold")
        on = [heights[item - 1] for item in sorted(column.bundle)]
        axes.plot([x] * len(on), on, column.style, color=column.colour, linewidth=2.5)
        passed = [height for height in heights if height not in on]
        axes.plot([x] * len(passed), passed, "o", color=FAINT, markersize=4)
        axes.plot([x] * len(on), on, column.marker, color=column.colour, markersize=10)
