"""Figures of ablations: whose α a session gets, differences with their intervals, experts left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...report.numbers import between, signed
from ...report.style import FAINT, QUIET, finish, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...statistics import GroupDifference, Interval, PairedDifference


def mixtures_figure(mixtures: Mapping[str, np.ndarray], names: Sequence[str], *, note: str = "") -> Figure:
    """Mixtures of several sessions as stacked bars, one panel per way to weigh the experts; sessions keep their places.

    Shapes:
        mixtures: (sessions, E) each

    Raises:
        ValueError: nothing to draw.
    """
    if not mixtures:
        raise ValueError("mixtures is empty: give one panel or more")
    figure = new_figure(2.7, layout="constrained")
    panels = figure.subplots(1, len(mixtures), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, alpha) in zip(panels, mixtures.items(), strict=True):
        places, floor = np.arange(len(alpha)), np.zeros(len(alpha))
        looks = zip(names, alpha.T, palette(), ("", "//", "..", "xx", "--"), strict=False)
        for name, weights, colour, hatch in looks:
            axes.bar(
                places, weights, bottom=floor, width=0.85, color=colour, hatch=hatch, edgecolor="white", label=name
            )
            floor = floor + weights
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], ylim=(0, 1))
        axes.set_xlabel("sessions", fontsize=10)
        axes.grid(visible=False)
    panels[0].set_ylabel("α")
    return finish(figure, note, legend_of=panels[0])


def differences_figure(
    found: Mapping[str, Mapping[str, Interval | PairedDifference | GroupDifference | None]],
    xlabel: str,
    *,
    detectable: Mapping[str, Mapping[str, float]] | None = None,
    note: str = "",
) -> Figure:
    """Differences as dots with their intervals, a row each, one panel per domain or measure, all on one scale.

    Filled: the interval lies on one side of zero, and p, where there is one, is below 0.05. Hollow: not told from zero.

    Args:
        found: title of a panel → row → difference and interval; `None` where there is none yet. The panels have the
            same rows.
        xlabel: what is measured.
        detectable: likewise, the smallest difference that could have been found: a grey band about zero.

    Raises:
        ValueError: nothing to draw.
    """
    if not found or not all(found.values()):
        raise ValueError("found is empty: give one panel or more, with one row or more each")
    rows = list(dict.fromkeys(row for panel in found.values() for row in panel))
    figure = new_figure(1.3 + 0.34 * len(rows), layout="constrained")
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, panel) in zip(panels, found.items(), strict=True):
        axes.axvline(0, color="black", linewidth=1)
        for place, row in enumerate(rows):
            if panel.get(row) is None:
                axes.text(0, place, " not recorded", va="center", fontsize=9, color=QUIET)
                continue
            estimate, low, high = panel[row][:3]
            if detectable and row in detectable.get(title, {}):
                least = detectable[title][row]
                axes.barh(place, 2 * least, left=-least, height=0.62, color=FAINT, zorder=1)
            apart = (low > 0 or high < 0) and getattr(panel[row], "p_value", 0) < 0.05
            look = {"color": palette()[0], "markerfacecolor": palette()[0] if apart else "white"}
            error = [[estimate - low], [high - estimate]]
            axes.errorbar(estimate, place, xerr=error, fmt="o", capsize=4, markersize=7, zorder=3, **look)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(xlabel, fontsize=10)
        axes.tick_params(axis="x", labelsize=9)
        axes.xaxis.set_major_locator(_few_ticks())
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(rows)), rows, fontsize=10)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)  # the first row on top; shared by all panels
    return finish(figure, note)


def knockout_figure(
    changes: Mapping[str, Mapping[str, PairedDifference | None]], ylabel: str = "", *, note: str = "", title: str = ""
) -> Figure:
    """A map of what leaving out an expert does: a row per expert, a column per place, the interval below each change.

    Red: worse without it, so it was of use. Blue: better without it.

    Args:
        changes: expert → where it was left out → score without it less score with it; `None` if not recorded yet.
        ylabel: what the rows are.

    Raises:
        ValueError: nothing to draw.
    """
    import seaborn as sns

    if not changes:
        raise ValueError("changes is empty: give one expert or more")
    places = list(dict.fromkeys(place for row in changes.values() for place in row))
    cells = [[row.get(place) for place in places] for row in changes.values()]
    values = np.array([[np.nan if cell is None else cell.estimate for cell in row] for row in cells])
    texts = [[_in_words(cell) for cell in row] for row in cells]
    limit = max(float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0, 0.01)
    figure = new_figure(1.3 + 0.62 * len(changes), layout="constrained")
    axes = figure.subplots()
    look = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "linewidths": 2, "annot_kws": {"fontsize": 9}}
    filled = np.nan_to_num(values)  # white where nothing is recorded
    sns.heatmap(filled, ax=axes, annot=np.array(texts), fmt="", cbar_kws={"fraction": 0.05, "pad": 0.02}, **look)
    axes.set_xticklabels(places, fontsize=10)
    axes.set_yticklabels(list(changes), fontsize=10)
    axes.tick_params(axis="both", rotation=0)
    axes.set(ylabel=ylabel, title=title)
    return finish(figure, note)


def _in_words(cell: PairedDifference | None) -> str:
    if cell is None:
        return "not recorded"
    return f"{signed(cell.estimate)}\n{between(cell.low, cell.high, signed)}"


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
