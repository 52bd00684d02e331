"""The figure of the replication report: every comparison behind the claims, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from ..data.sessions import PUBLIC_DOMAINS
from .claims import Comparison
from .findings import NOT_COMPARABLE, NOT_RUN, Finding
from .numbers import signed
from .style import DOMAIN_COLOURS, LIGHT, NARROW, bare_axes, narrow_figure
from .verdicts import Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 10.0
"""Points of all letters."""
LINE = 0.165
"""Inches a line of text takes."""
BARS = 0.2
"""Inches the intervals of one comparison take at least."""
LABELS = 2.05
"""Inches for the names of the comparisons."""
SPREAD = 0.06
"""Inches between the domains of one comparison."""
LIMIT = 0.45
"""Where the axis ends at most. Beyond it stands an arrow with the number, so that small differences stay visible."""
LETTERS = {"title": 48, "label": 24, "note": 58}
"""That fit in a line."""
MARKS = "osD"
"""Of the domains, in their order."""


class _Row(NamedTuple):
    """A title with its verdict, or one comparison with its findings."""

    top: float
    """Inches from the first."""
    height: float
    lines: list[str]
    verdict: str = ""
    comparison: Comparison | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def claims_figure(judgements: Sequence[Judgement], *, note: str = "") -> Figure:
    """Forest plot: differences with 95 % intervals, one row per comparison, grouped by claim, one colour per domain.

    Filled marks are judged; hollow ones rest on too few seeds. An arrow stands for a mark beyond the end of the axis. A
    grey band marks the differences that the claim's margin does not count; in the comparison with the teacher, those
    that are still comparable.

    Args:
        judgements: the claims in the order in which they are drawn.
        note: where the numbers come from.
    """
    rows = list(_rows(judgements))
    tall = sum(row.height for row in rows)
    about = wrap(note, LETTERS["note"])
    above, below = 0.75, 0.6 + LINE * len(about)
    height = tall + above + below
    figure = narrow_figure(height)
    axes = figure.add_axes((LABELS / NARROW, below / height, 1 - (LABELS + 0.12) / NARROW, tall / height))
    for row in rows:
        if row.verdict:
            _draw_title(axes, row)
        else:
            _draw_comparison(axes, row)
    axes.axvline(0, color=LIGHT["line"], linewidth=1, zorder=1)
    bare_axes(axes, SIZE)
    axes.set_ylim(tall, 0)
    axes.update_datalim(((-0.1, 0), (0.1, 0)))  # wide enough where nothing, or hardly anything, differs
    axes.autoscale_view(scaley=False)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -LIMIT), min(high, LIMIT))
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labeltop=True)
    axes.set_xlabel("difference a − b, 95 % interval")
    _legend(figure, axes)
    for number, line in enumerate(reversed(about)):
        figure.text(0.012, (0.08 + LINE * number) / height, line, fontsize=SIZE - 0.5, color=LIGHT["quiet"])
    return figure


def _rows(judgements: Sequence[Judgement]) -> Iterator[_Row]:
    top = 0.0
    for judgement in judgements:
        title = wrap(judgement.claim.title, LETTERS["title"])
        yield _Row(top, LINE * (len(title) + 1) + 0.07, title, verdict=judgement.words)
        top += LINE * (len(title) + 1) + 0.07
        for comparison in judgement.claim.comparisons or (None,):
            label = wrap(comparison.label if comparison else "dollars a session", LETTERS["label"])
            height = max(LINE * len(label), BARS) + 0.035
            found = tuple(f for f in judgement.findings if f.comparison is comparison)
            yield _Row(top, height, label, comparison=comparison, findings=found)
            top += height


def _beside(axes: Axes):
    """x in shares of the figure's width, y in the inches of the rows."""
    from matplotlib.transforms import blended_transform_factory

    return blended_transform_factory(axes.figure.transFigure, axes.transData)


def _draw_title(axes: Axes, row: _Row) -> None:
    from matplotlib.patches import Rectangle

    beside = _beside(axes)
    look = {"color": LIGHT["band"], "linewidth": 0, "zorder": 2.5, "clip_on": False}  # over the line at zero
    axes.add_patch(Rectangle((0, row.top), 1, row.height, transform=beside, **look))
    text = {"transform": beside, "zorder": 3, "va": "center", "fontsize": SIZE}
    for number, line in enumerate(row.lines):
        y = row.top + 0.035 + LINE * (number + 0.5)
        axes.text(0.012, y, line, fontweight="bold", color=LIGHT["ink"], **text)
    axes.text(0.012, row.top + row.height - 0.035 - LINE / 2, row.verdict, color=LIGHT["ink"], **text)


def _draw_comparison(axes: Axes, row: _Row) -> None:
    comparison, known = row.comparison, [f for f in row.findings if f.is_compared]
    colour = LIGHT["ink" if comparison is None or comparison.decides else "quiet"]
    axes.text(
        LABELS / NARROW - 0.015, row.middle, "\n".join(row.lines), transform=_beside(axes), va="center", ha="right",
        fontsize=SIZE, color=colour, linespacing=1.1,
    )  # fmt: skip
    if not known:
        hindered = any(f.hindrance for f in row.findings)
        words = "see its table" if comparison is None else NOT_COMPARABLE if hindered else NOT_RUN
        look = {"va": "center", "fontsize": SIZE, "color": LIGHT["quiet"], "style": "italic"}
        axes.annotate(words, (0, row.middle), xytext=(4, 0), textcoords="offset points", **look)
        return
    low = 0.0 if comparison.test == "greater" else -comparison.margin
    high = 0.0 if comparison.test == "not worse" else comparison.margin
    ends = [row.top + 0.01, row.top + row.height - 0.01]
    axes.fill_betweenx(ends, low, high, color=LIGHT["margin"], linewidth=0, zorder=0.5)
    for finding in known:
        place = PUBLIC_DOMAINS.index(finding.domain)
        y = row.middle + SPREAD * (place - 1) if len(row.findings) > 1 else row.middle
        colour = DOMAIN_COLOURS[place]
        if abs(finding.estimate) > LIMIT:
            _draw_arrow(axes, finding.estimate, y, colour)
            continue
        axes.plot([finding.low, finding.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        for end, mark, goes_on in ((-LIMIT, "<", finding.low < -LIMIT), (LIMIT, ">", finding.high > LIMIT)):
            if goes_on:
                axes.plot(end, y, mark, color=colour, markersize=4, clip_on=False, zorder=3)
        face = colour if finding.is_judged else LIGHT["ground"]
        axes.plot(finding.estimate, y, MARKS[place], color=colour, markerfacecolor=face, markersize=5, zorder=3)


def _draw_arrow(axes: Axes, estimate: float, y: float, colour: str) -> None:
    """A difference that lies beyond the end of the axis."""
    end, number = math.copysign(LIMIT, estimate), signed(estimate)
    left = estimate < 0
    axes.update_datalim(((end, y),))
    words, side = (f"◀ {number}", "left") if left else (f"{number} ▶", "right")
    axes.text(end, y, words, ha=side, va="center", fontsize=SIZE - 0.5, color=colour, zorder=3)


def _legend(figure: Figure, axes: Axes) -> None:
    """Domains by colour and mark, and what hollow marks mean."""
    handles = [
        axes.plot([], [], marker, color=colour, label=domain, markersize=6)[0]
        for domain, colour, marker in zip(PUBLIC_DOMAINS, DOMAIN_COLOURS, MARKS, strict=False)
    ]
    look = {"color": LIGHT["quiet"], "markersize": 6, "linestyle": "", "markerfacecolor": LIGHT["ground"]}
    handles.append(axes.plot([], [], "o", label="hollow: too few seeds", **look)[0])
    legend = figure.legend(
        handles=handles, loc="upper left", ncols=2, frameon=False, fontsize=SIZE, borderaxespad=0.1, columnspacing=1.5
    )
    for text in legend.get_texts():
        text.set_color(LIGHT["ink"])
