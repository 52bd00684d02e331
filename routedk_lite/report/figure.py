"""The figure of the replication report: every comparison behind the claims, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.sessions import PUBLIC_DOMAINS
from .findings import NOT_COMPARABLE, NOT_RUN, Finding
from .style import FAINT, QUIET, WIDTH, new_figure, palette
from .verdicts import Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.27
"""Inches a line of the figure takes."""
LABELS = 2.75
"""Inches for the names of the comparisons."""
SPREAD = 0.27
"""How far apart the domains of one comparison lie, in lines."""


def claims_figure(judgements: Sequence[Judgement], *, note: str = "") -> Figure:
    """Forest plot: differences with 95 % intervals, one line per comparison, grouped by claim, one colour per domain.

    Filled marks are judged; hollow ones rest on too few seeds. A grey band marks the differences that the claim's
    margin does not count; in the comparison with the teacher, those that are still comparable.

    Args:
        judgements: the claims in the order in which they are drawn.
        note: where the numbers come from.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import blended_transform_factory

    n_lines = sum(1 + max(1, len(j.claim.comparisons)) for j in judgements)
    below = 0.17 * note.count("\n")  # more lines of the note
    height = ROW * n_lines + 1.25 + below
    figure = new_figure(height)
    bottom, top = (0.72 + below) / height, 1 - 0.45 / height
    axes = figure.add_axes((LABELS / WIDTH, bottom, 1 - (LABELS + 0.15) / WIDTH, top - bottom))
    beside = blended_transform_factory(figure.transFigure, axes.transData)
    line = 0
    for judgement in judgements:
        claim = judgement.claim
        band = Rectangle((0, line - 0.5), 1, 1, transform=beside, color="0.94", linewidth=0, zorder=2.5, clip_on=False)
        axes.add_patch(band)  # over the zero line, which would cross the title
        axes.text(0.012, line, claim.title, transform=beside, zorder=3, va="center", fontsize=9.5, fontweight="bold")
        axes.text(0.985, line, judgement.verdict, transform=beside, zorder=3, va="center", ha="right", fontsize=9.5)
        for comparison in claim.comparisons or (None,):
            line += 1
            label = comparison.label if comparison else "nothing to compare"
            colour = "black" if comparison is None or comparison.decides else QUIET
            axes.text(LABELS / WIDTH - 0.012, line, label, transform=beside, va="center", ha="right", fontsize=9,
                      color=colour)  # fmt: skip
            if comparison is not None:
                found = [f for f in judgement.findings if f.comparison is comparison]
                _draw_comparison(axes, line, found)
        line += 1
    axes.axvline(0, color="black", linewidth=1, zorder=1)
    axes.set(ylim=(line - 0.4, -0.6), yticks=[], xlabel="difference a − b, with its 95 % interval")
    axes.update_datalim(((-0.1, 0), (0.1, 0)))  # wide enough where nothing, or hardly anything, differs
    axes.autoscale_view(scaley=False)
    axes.locator_params(axis="x", nbins=7)
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    axes.grid(visible=False, axis="y")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    _legend(figure, axes)
    if note:
        figure.text(0.012, 0.12 / height, note, fontsize=9, color=QUIET)
    return figure


def _draw_comparison(axes: Axes, line: int, findings: Sequence[Finding]) -> None:
    known = [f for f in findings if f.is_compared]
    if not known:
        look = {"va": "center", "fontsize": 8.5, "color": QUIET, "style": "italic"}
        words = NOT_COMPARABLE if any(f.hindrance for f in findings) else NOT_RUN
        axes.annotate(words, (0, line), xytext=(4, 0), textcoords="offset points", **look)
        return
    comparison = known[0].comparison
    low = 0.0 if comparison.test == "greater" else -comparison.margin
    high = 0.0 if comparison.test == "not worse" else comparison.margin
    axes.fill_betweenx([line - 0.42, line + 0.42], low, high, color="0.86", linewidth=0, zorder=0.5)
    for finding in known:
        place = PUBLIC_DOMAINS.index(finding.domain)
        y = line + SPREAD * (place - 1) if len(findings) > 1 else line
        colour, marker = palette()[place], "osD"[place]
        axes.plot([finding.low, finding.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        face = colour if finding.is_judged else "white"
        axes.plot(finding.estimate, y, marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3)


def _legend(figure: Figure, axes: Axes) -> None:
    """Domains by colour and mark, and what hollow marks mean."""
    handles = [
        axes.plot([], [], marker, color=colour, label=domain, markersize=6)[0]
        for domain, colour, marker in zip(PUBLIC_DOMAINS, palette(), "osD", strict=False)
    ]
    look = {"color": QUIET, "markersize": 6, "linestyle": ""}
    handles.append(axes.plot([], [], "o", markerfacecolor="white", label="not judged: too few seeds", **look)[0])
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=9.5)
