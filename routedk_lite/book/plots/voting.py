"""Figures of sampling and voting: answers of one session, temperature, the sweep over N, confidence, contests, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...report.style import FAINT, MARKERS, QUIET, finish, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...answers.choosing import ChoicePoint, Contest
    from ...answers.decoding import Samples
    from ...answers.voting import CurvePoint, ReliabilityBin
    from ...data.sessions import Session

RIGHT, WRONG = 2, 3
"""Places in the palette of what is exactly right and of what is not."""
SHORT = 40
"""Characters of an answer that fit beside its bar."""


def answers_figure(samples: Samples, session: Session, *, most: int = 8, note: str = "") -> Figure:
    """How often each set of bundles came up among a session's answers, the most frequent first.

    The exactly right one is coloured, and marked; what could not be read is grey; a triangle marks the greedy answer.

    Args:
        samples: the session's draw.
        session: with its annotated bundles.
        most: bars; rarer candidates share a further one.
    """
    truth = frozenset(session.bundles)
    counts = Counter(frozenset(answer.bundles) for answer in samples.drawn)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], sorted(map(sorted, entry[0]))))
    shown, rest = ranked[:most], ranked[most:]
    figure = new_figure(0.9 + 0.33 * (len(shown) + bool(rest)), layout="constrained")
    axes = figure.subplots()
    names = []
    for place, (bundles, count) in enumerate(shown):
        right = bundles == truth
        colour = palette()[RIGHT] if right else palette()[0] if bundles else FAINT
        axes.barh(place, count, color=colour, height=0.68, edgecolor=QUIET if right else "none")
        greedy = "  ◂ greedy" if bundles == frozenset(samples.greedy.bundles) else ""
        axes.text(count, place, f" {count}{'  right' if right else ''}{greedy}", va="center", fontsize=10)
        names.append(_bundles_text(bundles))
    if rest:
        count = sum(count for _, count in rest)
        axes.barh(len(shown), count, color="white", edgecolor=QUIET, linestyle="--", height=0.68)
        axes.text(count, len(shown), f" {count}", va="center", fontsize=10)
        names.append(f"{len(rest)} more candidates{', the right one too' if truth in dict(rest) else ''}")
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.set(xlabel=f"answers, of {len(samples.drawn)}", xlim=(0, 1.3 * max(b.get_width() for b in axes.patches)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return finish(figure, note)


def _bundles_text(bundles: frozenset) -> str:
    """A set of bundles in one line, item numbers joined by +."""
    if not bundles:
        return "no readable bundle"
    text = "   ".join("+".join(map(str, sorted(b))) for b in sorted(bundles, key=sorted))
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


def temperature_figure(
    probabilities: Mapping[float, np.ndarray], tokens: Sequence[str], *, most: int = 6, note: str = ""
) -> Figure:
    """The chances of the next token at several temperatures, one panel each, the most likely tokens first.

    Args:
        probabilities: temperature → chance of every token (V,).
        tokens: the text of every token.
        most: tokens shown; the others share the last bar.
    """
    figure = new_figure(2.6, layout="constrained")
    panels = figure.subplots(1, len(probabilities), sharey=True, squeeze=False)[0]
    order = np.argsort(-next(iter(probabilities.values())), kind="stable")[:most]
    names = [repr(tokens[k])[1:-1].replace(" ", "␣") for k in order] + ["rest"]
    for axes, (temperature, p) in zip(panels, probabilities.items(), strict=True):
        heights = [*p[order], 1 - p[order].sum()]
        axes.bar(names, heights, color=[palette()[0]] * len(order) + [FAINT], edgecolor="none")
        axes.set_title(f"T = {temperature:g}", fontsize=11)
        axes.tick_params(axis="x", labelsize=9, rotation=45 if max(map(len, names[:-1])) > 3 else 0)
        axes.grid(visible=False, axis="x")
    panels[0].set(ylabel="chance", ylim=(0, 1))  # shared by all panels
    figure.supxlabel("next token", fontsize=10)
    if note:
        figure.text(0.01, -0.02, note, fontsize=9, color=QUIET, va="top")
    return figure


def sweep_figure(
    panels: Mapping[str, Mapping[str, Sequence[CurvePoint | ChoicePoint]]],
    *,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    note: str = "",
    sharey: bool = False,
) -> Figure:
    """A metric against the number of answers N, on a logarithmic scale, with 95 % intervals as bands.

    Points of a vote come with the nested choice, the first N answers of the draw: hollow markers.

    Args:
        panels: title → name of a curve → its points.
        levels: title → name → what does not depend on N, as the greedy answer: dashed lines.
        sharey: one scale for all panels.

    Raises:
        ValueError: nothing to draw.
    """
    if not panels:
        raise ValueError("panels is empty: give one panel or more")
    figure = new_figure(3.3, layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=sharey)[0]
    for axes, (title, curves) in zip(drawn, panels.items(), strict=True):
        for (name, points), colour, marker in zip(curves.items(), palette(), MARKERS, strict=False):
            n = [point.n for point in points]
            scores = [point.resampled if hasattr(point, "resampled") else point.score for point in points]
            estimate, low, high = np.array([tuple(score) for score in scores]).T
            axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(n, estimate, f"{marker}-", color=colour, label=name, markersize=6)
            if hasattr(points[0], "nested"):
                nested = [point.nested for point in points]
                axes.plot(n, nested, marker, color=colour, markerfacecolor="white", markersize=8, zorder=1.5)
        for name, level in (levels or {}).get(title, {}).items():
            axes.axhline(level, color=QUIET, linestyle="--", linewidth=1.3, label=name)
        _number_axis(axes, sorted({p.n for points in curves.values() for p in points}))
        axes.set_title(title, fontsize=11)
    handles = {}
    for axes in drawn:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    look = {"loc": "outside upper center", "ncols": min(4, len(handles)), "frameon": False}
    figure.legend(handles.values(), handles.keys(), **look)
    return finish(figure, note)


def _number_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("answers N")


def reliability_figure(bins: Mapping[str, Sequence[ReliabilityBin]], *, note: str = "") -> Figure:
    """How often winners of a similar share are exactly right, one panel per model; below, how many sessions that is.

    On the dashed diagonal confidence is what it says; the bar between it and a point is the calibration gap.

    Args:
        bins: name → what `voting.reliability` returns.

    Raises:
        ValueError: nothing to draw.
    """
    if not bins:
        raise ValueError("bins is empty: give one model or more")
    figure = new_figure(4.0, layout="constrained")
    panels = figure.subplots(2, len(bins), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for upper, lower, (name, found) in zip(*panels, bins.items(), strict=True):
        share, exact = np.array([(b.share, b.exact) for b in found]).T
        upper.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1.3, label="share = exact")
        upper.vlines(share, np.minimum(share, exact), np.maximum(share, exact), color=palette()[WRONG], linewidth=5)
        upper.plot(share, exact, "o-", color=palette()[0], markersize=8)
        upper.set_title(name, fontsize=11)
        upper.set(xlim=(-0.03, 1.03), ylim=(-0.04, 1.04))
        for b in found:
            lower.bar((b.low + b.high) / 2, b.count, width=0.92 * (b.high - b.low), color=FAINT, edgecolor=QUIET)
            lower.text((b.low + b.high) / 2, b.count, b.count, ha="center", va="bottom", fontsize=9)
        lower.set(xlabel="share of the winner")
        lower.grid(visible=False, axis="x")
    panels[0, 0].set_ylabel("exactly right")
    panels[1, 0].set(ylabel="sessions", ylim=(0, 1.35 * max(b.count for found in bins.values() for b in found)))
    return finish(figure, note)


def contest_figure(contests: Mapping[str, Sequence[Contest]], *, note: str = "") -> Figure:
    """The share of the right answer against that of its most frequent rival, one dot per session, one panel per model.

    Above the diagonal more voters make a session right; below it, wrong. Sessions at one place make a larger dot; it
    is grey where the right answer was never drawn.

    Args:
        contests: name → what `choosing.contests` returns.

    Raises:
        ValueError: nothing to draw.
    """
    if not contests:
        raise ValueError("contests is empty: give one model or more")
    figure = new_figure(4.3 if len(contests) < 3 else 3.5, layout="constrained")
    panels = figure.subplots(1, len(contests), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(panels, contests.items(), strict=True):
        axes.fill_between([0, 1], [0, 1], [1, 1], color=palette()[RIGHT], alpha=0.10, linewidth=0)
        axes.fill_between([0, 1], [0, 0], [0, 1], color=palette()[WRONG], alpha=0.10, linewidth=0)
        axes.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1.3)
        groups = {
            "right wins": ([c for c in found if c.right > c.rival], palette()[RIGHT]),
            "right loses": ([c for c in found if 0 < c.right <= c.rival], palette()[WRONG]),
            "never drawn": ([c for c in found if c.right == 0], QUIET),
        }
        for group, colour in groups.values():
            dots = Counter((c.rival, c.right) for c in group)
            if dots:
                look = {"color": colour, "alpha": 0.75, "edgecolors": "white", "zorder": 3, "clip_on": False}
                axes.scatter(*np.array(list(dots)).T, s=[16 * n for n in dots.values()], **look)
        parts = [f"{words}: {len(group)}" for words, (group, _) in groups.items()]
        axes.set_title(name + "\n" + ("\n" if len(contests) > 2 else ", ").join(parts), fontsize=10)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xlabel="share of the strongest rival")
        axes.grid(visible=False)
    panels[0].set_ylabel("share of the right answer")
    return finish(figure, note)


def cost_figure(sizes: Sequence[int], ways: Mapping[str, Mapping[str, Sequence[float]]], *, note: str = "") -> Figure:
    """What N answers cost in several ways, one panel per quantity, as lines over N.

    Args:
        sizes: the numbers of answers.
        ways: title of a panel → name of a way → its cost at each size.

    Raises:
        ValueError: a way has another number of costs than there are sizes.
    """
    figure = new_figure(3.0, layout="constrained")
    panels = figure.subplots(1, len(ways), squeeze=False)[0]
    for axes, (title, costs) in zip(panels, ways.items(), strict=True):
        for (name, values), colour, marker in zip(costs.items(), palette(), MARKERS, strict=False):
            if len(values) != len(sizes):
                raise ValueError(f"{title}, {name}: {len(values)} costs for {len(sizes)} sizes")
            axes.plot(sizes, values, f"{marker}-", color=colour, label=name)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="answers N", xticks=sizes, ylim=(0, None))
        axes.yaxis.set_major_formatter("{x:,g}")
    return finish(figure, note, legend_of=panels[0])
