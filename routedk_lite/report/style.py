"""How figures look: readable at 700 pixels, in grey and by colour-blind readers.

Every function that draws returns a `Figure` that pyplot does not know, so that a cell shows it once. `note` is printed
small below a figure: it says where the numbers come from. What a figure shows in words (its alt text) stands
in the metadata of the cell that draws it.

Figures of the report have no ground of their own and are written in two palettes, `LIGHT` and `DARK`; the page shows
the one that suits its theme. They are drawn as wide as a phone shows them. Figures of chapters are drawn on white, for
notebooks on whatever ground, and the site's style sheet turns their light round in the dark: no single colour has a
contrast of 4.5 on white and on the dark theme's ground at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.4
"""Inches; the book shows it at about 95 pixels an inch."""
NARROW = 5.0
"""Inches of a figure that a phone shows as a whole, at about 74 pixels an inch."""
QUIET, FAINT = "0.38", "0.82"
"""Greys for text of second rank and for lines that only guide the eye."""
MARKERS = "os^Dvx"
"""Of lines and points, in the order of the palette."""

LIGHT = {
    "ink": "#1f1f1f",
    "quiet": "#5c5c5c",
    "line": "#8a8a8a",
    "faint": "#e2e2e2",
    "band": "#f1f1f1",
    "margin": "#dadada",
    "ground": "#ffffff",
    "blue": "#0173b2",
    "orange": "#a85f00",
    "green": "#027a59",
    "red": "#c04a00",
    "violet": "#9b4a8d",
}
"""Colours of the report's figures by what they are for."""
DARK = {
    "ink": "#e4e4e4",
    "quiet": "#a9a9a9",
    "line": "#858585",
    "faint": "#333333",
    "band": "#262626",
    "margin": "#404040",
    "ground": "#121212",
    "blue": "#5ab4ee",
    "orange": "#eca63a",
    "green": "#37c79b",
    "red": "#f28a4f",
    "violet": "#dd93cf",
}
"""The same on the dark theme's ground."""
DOMAIN_COLOURS = tuple(LIGHT[name] for name in ("blue", "orange", "green"))
"""Of the public domains, in their order."""


def palette() -> list:
    """Colours that colour-blind readers can tell apart."""
    import seaborn as sns

    return list(sns.color_palette("colorblind"))


def new_figure(height: float, **settings) -> Figure:
    """A figure of the book's width that pyplot does not know; `height` in inches."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(WIDTH, height), facecolor="white", **settings)
    plt.close(figure)  # or a notebook would show it a second time
    return figure


def narrow_figure(height: float) -> Figure:
    """A figure without a ground that pyplot does not know, as wide as a phone shows it; `height` in inches."""
    figure = new_figure(height)
    figure.set_figwidth(NARROW)
    figure.patch.set_visible(False)
    return figure


def bare_axes(axes: Axes, size: float) -> None:
    """Nothing but a labelled x axis with faint lines, in the colours of the report.

    Args:
        axes: what is drawn in.
        size: points of its numbers.
    """
    axes.patch.set_visible(False)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x", color=LIGHT["faint"], linewidth=0.7)
    axes.grid(visible=False, axis="y")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["line"])
    axes.tick_params(color=LIGHT["line"], labelcolor=LIGHT["ink"], labelsize=size)
    axes.xaxis.label.set(color=LIGHT["ink"], fontsize=size)


def finish(figure: Figure, note: str, legend_of: Axes | None = None) -> Figure:
    """Add the note below and, if asked for, one legend above all panels."""
    if legend_of:
        handles, names = legend_of.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=QUIET)
    return figure


def in_the_dark(svg: str) -> str:
    """A figure of the report, as SVG in the colours of `LIGHT`, in those of `DARK`.

    Raises:
        ValueError: it has a colour that is not one of them.
    """
    turned = {LIGHT[name]: DARK[name] for name in LIGHT}
    found = set(re.findall(r"(?<=[ :\"])#[0-9a-f]{6}(?=[;\"])", svg))
    if unknown := sorted(found - turned.keys()):
        raise ValueError(f"the figure has the colour {unknown[0]}: choose one of style.LIGHT, which has a dark twin")
    return re.sub("|".join(turned), lambda match: turned[match[0]], svg)


def dark_twin(path: Path) -> Path:
    """Where the dark figure lies beside the light one."""
    return path.with_stem(f"{path.stem}-dark")


def write_twins(figure: Figure, path: Path, *, salt: str, key: str) -> tuple[Path, Path]:
    """Write a figure of the report in both palettes, the same bytes every time; returns both paths.

    Args:
        figure: in the colours of `LIGHT`.
        path: of the light one, an SVG file.
        salt: makes the ids within it.
        key: what names its content; stands in its metadata.
    """
    from io import StringIO

    import matplotlib.pyplot as plt

    drawn = StringIO()
    with plt.rc_context({"svg.hashsalt": salt}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Description": key})
    for place, svg in ((path, drawn.getvalue()), (dark_twin(path), in_the_dark(drawn.getvalue()))):
        with atomic_write(place) as file:
            file.write(svg)
    return path, dark_twin(path)
