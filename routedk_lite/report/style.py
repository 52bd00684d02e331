"""How figures look: readable at 700 pixels, in grey and by colour-blind readers.

Every function that draws returns a `Figure` that pyplot does not know, so that a cell shows it once. `note` is printed
small below a figure: it says where the numbers come from. What a figure shows in words (its alt text) stands
in the metadata of the cell that draws it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.4
"""Inches; the book shows it at about 95 pixels an inch."""
QUIET, FAINT = "0.38", "0.82"
"""Greys for text of second rank and for lines that only guide the eye."""
MARKERS = "os^Dvx"
"""Of lines and points, in the order of the palette."""


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


def finish(figure: Figure, note: str, legend_of: Axes | None = None) -> Figure:
    """Add the note below and, if asked for, one legend above all panels."""
    if legend_of:
        handles, names = legend_of.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=QUIET)
    return figure
