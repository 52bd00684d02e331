"""Names of points, where points lie close together."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...report.style import QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.155
"""Inches from one line of small print to the next."""


def name_beside(axes: Axes, points: Mapping[str, tuple[float, float]], *, width: int = 18) -> None:
    """Name points in a column right of the panel, in their order from top to bottom, each with a line to its point.

    Names never lie on each other, nor on points, however close these are.

    Args:
        axes: with its final limits and scales.
        points: name → place.
        width: characters of a line; longer names take several.
    """
    names = {"\n".join(textwrap.wrap(name, width)): place for name, place in points.items()}
    to_share = axes.transData + axes.transAxes.inverted()
    wanted = {name: float(to_share.transform(place)[1]) for name, place in names.items()}
    order = sorted(wanted, key=lambda name: -wanted[name])
    line = LINE / (0.7 * axes.figure.get_figheight())  # of the panel's height, which the layout settles later
    tall = [line * (1.3 + name.count("\n")) for name in order]
    for name, height in zip(order, spread([wanted[name] for name in order], tall), strict=True):
        arrow = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 4}
        place = {"xytext": (1.03, height), "textcoords": axes.transAxes, "va": "center", "fontsize": 9}
        axes.annotate(name, names[name], **place, arrowprops=arrow | {"relpos": (0, 0.5)}, annotation_clip=False)


def spread(wanted: Sequence[float], tall: Sequence[float]) -> list[float]:
    """Middles of boxes, near where they are wanted, from the top down, between 0 and 1 and clear of each other.

    Args:
        wanted: falling.
        tall: height of each; where they do not fit between 0 and 1, they end below 0.
    """
    top, tops = 1.0, []
    for middle, height in zip(wanted, tall, strict=True):
        tops.append(min(top, middle + height / 2))
        top = tops[-1] - height
    floor = min(0.0, 1 - sum(tall))
    for k in reversed(range(len(tops))):
        tops[k] = max(tops[k], floor + tall[k])
        floor = tops[k]
    return [top - height / 2 for top, height in zip(tops, tall, strict=True)]
