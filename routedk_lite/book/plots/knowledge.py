"""Figures of a teacher's knowledge: feedback, rules against statistics, patterns, and their worth."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...report.style import FAINT, MARKERS, QUIET, finish, new_figure, palette
from ...statistics import Interval
from ...teacher.teaching import FEEDBACK
from .labels import name_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...data.sessions import Session
    from ...teacher.evidence import PairEvidence
    from ...teacher.patterns import Pattern


# --- self-reflection ----------------------------------------------------------------------------------------------

_LOOP = {  # step: (middle of its box, its colour in the palette, what happens)
    "predict": (0.105, 0, "the teacher answers\nfrom titles alone"),
    "compare": (0.365, 1, "code judges every\nbundle: five kinds"),
    "reflect": (0.625, 0, "the teacher says\nwhat was wrong"),
    "sum up": (0.885, 0, "the teacher writes\ngeneral rules"),
}


def loop_figure(*, note: str = "") -> Figure:
    """Self-reflection as a picture: three steps per session, then one for all of them."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    figure = new_figure(2.5)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    axes.add_patch(Rectangle((0.005, 0.12), 0.715, 0.76, facecolor="0.96", edgecolor=FAINT, linestyle="--"))
    axes.text(0.015, 0.16, "for each of some training sessions", fontsize=9, color=QUIET)
    colours = palette()
    for name, (x, colour, text) in _LOOP.items():
        box = FancyBboxPatch((x - 0.077, 0.36), 0.154, 0.34, boxstyle="round,pad=0.012,rounding_size=0.02")
        box.set(facecolor="white", edgecolor=colours[colour], linewidth=2)
        axes.add_patch(box)
        axes.text(x, 0.62, name, ha="center", va="center", fontsize=11, fontweight="bold")
        axes.text(x, 0.46, text, ha="center", va="center", fontsize=7.8)
    arrow = {"arrowstyle": "-|>", "color": QUIET, "linewidth": 1.5}
    middles = [x for x, _, _ in _LOOP.values()]
    for left, right, what in zip(middles, middles[1:], ("bundles", "feedback", "lessons"), strict=False):
        axes.annotate("", (right - 0.09, 0.53), (left + 0.09, 0.53), arrowprops=arrow)
        axes.text((left + right) / 2, 0.58, what, ha="center", fontsize=8, color=QUIET)
    axes.annotate("", (0.365, 0.73), (0.365, 0.96), arrowprops=arrow)
    axes.text(0.375, 0.92, "annotated bundles", va="center", fontsize=8.5, color=QUIET)
    return finish(figure, note)


def feedback_figure(found: Mapping[str, Iterable[str]], *, note: str = "") -> Figure:
    """How often each of the five kinds of feedback was given, one panel per teacher.

    Args:
        found: teacher → a key of `teaching.FEEDBACK` per predicted bundle.
    """
    figure = new_figure(2.5, layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (teacher, kinds), colour in zip(panels, found.items(), palette(), strict=False):
        counts = Counter(kinds)
        axes.barh(list(FEEDBACK), [100 * counts[kind] / counts.total() for kind in FEEDBACK], color=colour, height=0.65)
        for place, kind in enumerate(FEEDBACK):
            axes.text(100 * counts[kind] / counts.total() + 2, place, f"{counts[kind]}", va="center", fontsize=9)
        axes.set(xlim=(0, 100), xlabel="bundles (%)")
        axes.set_title("\n".join(textwrap.wrap(teacher, 72 // len(found))), fontsize=10)
        axes.grid(visible=False, axis="y")
    panels[0].invert_yaxis()  # shared by all panels
    return finish(figure, note)


# --- rules against statistics -------------------------------------------------------------------------------------


def evidence_figure(
    pooled: Mapping[str, PairEvidence], within: Mapping[str, PairEvidence | None], *, note: str = ""
) -> Figure:
    """Rules about pairs: how often such pairs share a bundle, and the difference to the pairs they are held against.

    Args:
        pooled: rule → what all pairs say.
        within: rule → what pairs of the same sessions say; `None` where no session holds pairs of both sorts.
    """
    figure = new_figure(1.5 + 0.46 * len(pooled), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    blue, orange, green, *_ = palette()
    for place, (name, found) in enumerate(pooled.items()):
        left.plot([found.others.estimate, found.favoured.estimate], [place] * 2, color=FAINT, linewidth=2, zorder=1)
        _whisker(left, found.others, place, orange, "s", label="other pairs")
        _whisker(left, found.favoured, place, blue, "o", label="pairs that the rule joins")
        _whisker(right, found.difference, place - 0.14, QUIET, "o", hollow=True, label="all pairs")
        if (inside := within[name]) is not None:
            _whisker(right, inside.difference, place + 0.14, green, "D", label="within sessions")
    right.axvline(0, color="black", linewidth=1)
    left.set(xlim=(-0.03, 1.03), xlabel="share in one bundle", yticks=range(len(pooled)))
    left.set_yticklabels(["\n".join(textwrap.wrap(name, 26)) for name in pooled], fontsize=10)
    right.set(xlabel="difference")
    left.invert_yaxis()  # shared by both panels
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
        _legend_above(axes)
    return finish(figure, note)


def counted_figure(claims: Mapping[str, tuple[Interval, Interval]], *, note: str = "") -> Figure:
    """Shares as the teacher counted them in its sessions, beside those of all training sessions, with 95 % intervals.

    Args:
        claims: what is counted → (in the teacher's sessions, in all training sessions).
    """
    figure = new_figure(1.3 + 0.45 * len(claims), layout="constrained")
    axes = figure.subplots()
    blue, orange, *_ = palette()
    for place, (told, found) in enumerate(claims.values()):
        _whisker(axes, told, place - 0.14, orange, "s", hollow=True, label="the teacher's sixty sessions")
        _whisker(axes, found, place + 0.14, blue, "o", label="all training sessions")
    axes.set(xlim=(0, 1), xlabel="share", yticks=range(len(claims)))
    axes.set_yticklabels(list(claims))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    _legend_above(axes)
    return finish(figure, note)


# --- patterns -----------------------------------------------------------------------------------------------------


def patterns_figure(patterns: Sequence[Pattern], *, named: int = 5, note: str = "") -> Figure:
    """Each pattern by its support and its confidence; the most frequent ones are named.

    Args:
        patterns: most frequent first.
        named: how many are named.
    """
    figure = new_figure(3.6, layout="constrained")
    axes = figure.subplots()
    for size, colour, marker in zip((2, 3), palette(), "o^", strict=False):
        chosen = [p for p in patterns if len(p.kinds) == size]
        look = {"color": colour, "marker": marker, "s": 26, "alpha": 0.6, "label": f"{size} products"}
        axes.scatter([p.support for p in chosen], [p.confidence for p in chosen], **look)
    axes.set(xscale="log", xlabel="support: training bundles that hold it (log scale)", ylim=(0, 1.05))
    axes.set_ylabel("confidence: of the sessions that\nshow it, share that bundle it")
    ticks = [n for n in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if n <= 1.3 * max(p.support for p in patterns)]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xlim(0.9 * min(p.support for p in patterns), 1.2 * max(p.support for p in patterns))
    axes.minorticks_off()
    name_beside(axes, {" + ".join(p.kinds): (p.support, p.confidence) for p in patterns[:named]})
    return finish(figure, note, legend_of=axes)


# --- what knowledge is worth --------------------------------------------------------------------------------------


def selection_figure(chosen: Mapping[str, Sequence[Session]], everyone: Sequence[Session], *, note: str = "") -> Figure:
    """What each strategy takes: the lengths of its sessions, beside those of all sessions (grey).

    Args:
        chosen: strategy → its sessions.
        everyone: what it chose from.
    """
    figure = new_figure(2.5, layout="constrained")
    panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    lengths = range(min(map(len, everyone)), max(map(len, everyone)) + 1)

    def shares(sessions: Sequence[Session]) -> list[float]:
        counts = Counter(map(len, sessions))
        return [100 * counts[length] / len(sessions) for length in lengths]

    for axes, (strategy, sessions), colour in zip(panels, chosen.items(), palette(), strict=False):
        axes.bar(lengths, shares(everyone), color=FAINT, width=0.9)
        axes.plot(lengths, shares(sessions), "o-", color=colour, markersize=4)
        axes.set_title(strategy, fontsize=11)
        axes.set(xlabel="products", xlim=(lengths[0] - 0.7, lengths[-1] + 0.7))
    panels[0].set(ylabel="sessions (%)", ylim=(0, None))  # shared by all panels
    return finish(figure, note)


def quantity_figure(points: Mapping[str, Mapping[float, Interval]], *, note: str = "") -> Figure:
    """Strict F1 by the share of the sessions, one line per strategy, with intervals; shares are set slightly apart.

    Args:
        points: strategy → share → strict F1.
    """
    figure = new_figure(3.2, layout="constrained")
    axes = figure.subplots()
    middle = (len(points) - 1) / 2
    for k, ((strategy, found), colour, marker) in enumerate(zip(points.items(), palette(), MARKERS, strict=False)):
        x = [100 * share + 1.2 * (k - middle) for share in found]
        y = [value.estimate for value in found.values()]
        error = [[v.estimate - v.low for v in found.values()], [v.high - v.estimate for v in found.values()]]
        axes.errorbar(x, y, yerr=error, fmt=f"{marker}-", color=colour, capsize=3, label=strategy)
    shares = sorted({share for found in points.values() for share in found})
    axes.set_xticks([100 * share for share in shares], [f"{share:.0%}" for share in shares])
    axes.set(xlabel="share of the sessions", ylabel="strict F1", ylim=(0, None))
    return finish(figure, note, legend_of=axes)


def worth_figure(scores: Mapping[str, Mapping[str, Interval]], *, note: str = "") -> Figure:
    """Scores with 95 % intervals as dots, one row per student, one panel per score or domain.

    Args:
        scores: panel → student → score; the panel with most students gives their order, the others may have fewer.
    """
    fullest_first = sorted(scores.values(), key=len, reverse=True)
    rows = list(dict.fromkeys(name for panel in fullest_first for name in panel))
    figure = new_figure(1.0 + 0.3 * len(rows), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (title, found), colour, marker in zip(panels, scores.items(), palette(), MARKERS, strict=False):
        if rows[0] in found:
            axes.axvline(found[rows[0]].estimate, color=QUIET, linewidth=1, linestyle=":")
        for name, score in found.items():
            _whisker(axes, score, rows.index(name), colour, marker)
        axes.set_title(title, fontsize=11)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False, axis="y")
    panels[0].set_ylim(len(rows) - 0.5, -0.5)  # shared by all panels
    return finish(figure, f"dotted: {rows[0]} · {note}" if note else "")


def use_figure(scores: Mapping[str, Mapping[str, Interval | None]], *, note: str = "") -> Figure:
    """Strict F1 by who answers (rows) and by what stands in the prompt (columns).

    Args:
        scores: who → prompt → strict F1, or `None` where it was not asked.
    """
    import seaborn as sns

    columns = list(next(iter(scores.values())))
    cells = [[row[column] for column in columns] for row in scores.values()]
    values = np.array([[np.nan if cell is None else cell.estimate for cell in row] for row in cells])
    texts = [["" if c is None else f"{c.estimate:.2f}\n[{c.low:.2f}, {c.high:.2f}]" for c in row] for row in cells]
    figure = new_figure(1.1 + 0.75 * len(scores), layout="constrained")
    axes = figure.subplots()
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linewidths": 2, "cbar": False, "annot_kws": {"fontsize": 10}}
    sns.heatmap(values, ax=axes, annot=np.array(texts), fmt="", **look)
    axes.set_xticklabels(columns)
    axes.set_yticklabels(list(scores))
    axes.tick_params(axis="both", rotation=0)
    axes.set(xlabel="in the prompt beside the session", ylabel="")
    return finish(figure, note)


# --- what they share ----------------------------------------------------------------------------------------------


def _whisker(
    axes: Axes, found: Interval, place: float, colour: object, marker: str, *, hollow: bool = False, label: str = ""
) -> None:
    """An estimate with its interval, lying."""
    error = [[found.estimate - found.low], [found.high - found.estimate]]
    face = "white" if hollow else colour
    axes.errorbar(
        [found.estimate], [place], xerr=error, fmt=marker, color=colour, markerfacecolor=face, capsize=3, label=label
    )


def _legend_above(axes: Axes) -> None:
    """One entry per label, above the panel."""
    handles, names = axes.get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    axes.legend(
        by_name.values(), by_name.keys(), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=9
    )
