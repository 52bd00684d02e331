"""Figures of the conflict between kinds of knowledge: gradients by layer, steps for one another, updates compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, cycle
from typing import TYPE_CHECKING

import numpy as np

from ...report.numbers import minus
from ...report.style import FAINT, MARKERS, QUIET, finish, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...analysis.conflict import GradientCosines, Interference
    from ...analysis.overlap import DeltaOverlap
    from ...statistics import Interval


def pulls_figure(situations: Mapping[str, Mapping[str, np.ndarray]], *, note: str = "") -> Figure:
    """Where batches of two kinds or more pull a model of two weights: thin arrows, and a thick one for their mean.

    Args:
        situations: title of a panel → kind → pulls (batches, 2), the negative gradients at the present weights.

    Raises:
        ValueError: no situation.
    """
    if not situations:
        raise ValueError("situations is empty: give one panel or more")
    figure = new_figure(2.9, layout="constrained")
    panels = figure.subplots(1, len(situations), sharex=True, sharey=True, squeeze=False)[0]
    every = np.vstack([np.zeros((1, 2)), *(pulls for kinds in situations.values() for pulls in kinds.values())])
    low, high = every.min(0), every.max(0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    for axes, (title, kinds) in zip(panels, situations.items(), strict=True):
        for (kind, pulls), colour in zip(kinds.items(), palette(), strict=False):
            zeros, shape = np.zeros(len(pulls)), {"angles": "xy", "scale_units": "xy", "scale": 1, "color": colour}
            axes.quiver(zeros, zeros, *np.asarray(pulls).T, width=0.007, alpha=0.55, **shape)
            axes.quiver(0, 0, *np.mean(pulls, axis=0), width=0.022, label=kind, zorder=3, **shape)
        axes.plot(0, 0, "o", color="black", markersize=6, zorder=4)
        axes.set_title(title, fontsize=11)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
        axes.set_xlabel("first weight", fontsize=10)
    panels[0].set_ylabel("second weight", fontsize=10)
    return finish(figure, note, legend_of=panels[0])


def score_bars_figure(scores: Mapping[str, Mapping[str, Interval | None]], *, note: str = "") -> Figure:
    """Scores of students as bars with their intervals, one panel per metric or domain, on one scale from zero.

    Args:
        scores: title of a panel → student → estimate and interval; `None` where a student has no score yet.

    Raises:
        ValueError: nothing to draw.
    """
    if not scores:
        raise ValueError("scores is empty: give one panel or more")
    figure = new_figure(2.8, layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    colours = dict(zip(dict.fromkeys(name for panel in scores.values() for name in panel), palette(), strict=False))
    for axes, (title, panel) in zip(panels, scores.items(), strict=True):
        for place, (name, interval) in enumerate(panel.items()):
            if interval is None:
                axes.text(place, 0.01, "not recorded", rotation=90, ha="center", va="bottom", fontsize=9, color=QUIET)
                continue
            estimate, low, high = interval
            axes.bar(place, estimate, width=0.7, color=colours[name], edgecolor=QUIET)
            axes.errorbar(place, estimate, [[estimate - low], [high - estimate]], color="black", capsize=5)
        axes.set_xticks(range(len(panel)), panel, fontsize=9)
        axes.set_xlim(-0.6, len(panel) - 0.4)
        axes.set_title(title, fontsize=11)
        axes.grid(visible=False, axis="x")
    panels[0].set_ylim(bottom=0)  # shared by all panels
    return finish(figure, note)


def cosine_course_figure(found: Mapping[int, GradientCosines], *, note: str = "") -> Figure:
    """How the cosines of gradients go on while a student learns: between kinds beside within, and the gap of the two.

    Args:
        found: training sessions seen → cosines, of the same two kinds or more; all layers together are drawn.

    Raises:
        ValueError: nothing to draw, or a single kind.
    """
    if not found:
        raise ValueError("found is empty: give the cosines at one moment or more")
    seen, points = list(found), list(found.values())
    kinds = points[0].kinds
    figure = new_figure(3.3, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, kind in enumerate(kinds):
        within = [point.cosine[-1, number, number, 0] for point in points]
        look = {"color": QUIET, "linewidth": 1.3, "markersize": 4, "marker": MARKERS[number % len(MARKERS)]}
        left.plot(seen, within, "--", label=f"within {kind}", **look)
    for (i, j), colour, marker in zip(_pairs(kinds), cycle(palette()), cycle(MARKERS), strict=False):
        look = {"color": colour, "marker": marker, "markersize": 6, "label": f"{kinds[i]} · {kinds[j]}"}
        for axes, name in ((left, "cosine"), (right, "gap")):
            estimate, low, high = np.array([getattr(point, name)[-1, i, j] for point in points]).T
            axes.plot(seen, estimate, **look)
            axes.fill_between(seen, low, high, color=colour, alpha=0.15)
    for axes, title in ((left, "cosine of gradients"), (right, "less the floor")):
        axes.axhline(0, color="black", linewidth=1)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="training sessions seen", xticks=seen)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return finish(figure, note)


def cosine_map_figure(found: GradientCosines, *, note: str = "") -> Figure:
    """Maps with a row per layer: cosine of gradients within and between kinds, and how far between is below within.

    Args:
        found: of two kinds or more.

    Raises:
        ValueError: a single kind, which conflicts with none.
    """
    pairs = _pairs(found.kinds)
    own = [(i, i) for i in range(len(found.kinds))]
    names = _labels(found.kinds, [*own, *pairs])
    height = min(7.5, 2.7 + 0.3 * len(found.layers))
    figure = new_figure(height, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[len(names), len(pairs) + 0.6])
    cosine = np.stack([found.cosine[:-1, i, j, 0] for i, j in (*own, *pairs)], axis=1)  # (L, columns)
    gap = np.stack([found.gap[:-1, i, j, 0] for i, j in pairs], axis=1)
    _map(left, cosine, names, found.layers, 1.0, "cosine of gradients")
    _map(right, gap, names[len(own) :], found.layers, max(float(np.abs(gap).max()), 0.01), "less the floor")
    left.axvline(len(own), color="black", linewidth=2)
    left.set_ylabel("layer")
    left.invert_yaxis()  # layer 0 reads the input: at the bottom; shared by both panels
    return finish(figure, f"left of the line: within a kind, the noise floor · {note}".rstrip(" ·"))


def _map(axes: Axes, values: np.ndarray, names: Sequence[str], layers: Sequence[int], limit: float, title: str) -> None:
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    look = {"annot": len(layers) <= 12, "fmt": ".2f", "linewidths": 0.5, "annot_kws": {"fontsize": 9}}
    look |= {"xticklabels": names, "yticklabels": list(layers)}
    look |= {"cbar_kws": {"location": "bottom", "aspect": 30, "ticks": MaxNLocator(4)}}
    sns.heatmap(values, ax=axes, cmap="RdBu", vmin=-limit, vmax=limit, **look)
    axes.set_title(title, fontsize=11)
    axes.collections[0].colorbar.ax.tick_params(labelsize=9)
    axes.tick_params(axis="y", rotation=0, labelsize=9)
    axes.tick_params(axis="x", rotation=0, labelsize=8)


def cosine_bars_figure(found: GradientCosines, *, note: str = "") -> Figure:
    """Cosines over all layers as bars with intervals: each pair of kinds, and grey beside it each kind with itself.

    Args:
        found: of two kinds or more.

    Raises:
        ValueError: a single kind.
    """
    pairs, colours = _pairs(found.kinds), palette()
    figure = new_figure(2.9, layout="constrained")
    axes = figure.subplots()
    places, names = [], []
    for number, (i, j) in enumerate(pairs):
        for shift, (a, b) in enumerate(((i, j), (i, i), (j, j))):
            estimate, low, high = found.cosine[-1, a, b]
            place = 4 * number + shift
            look = {"color": colours[0] if a != b else FAINT, "edgecolor": QUIET, "hatch": "" if a != b else "//"}
            axes.bar(place, estimate, width=0.85, label=("between two kinds", "within a kind")[a == b], **look)
            axes.errorbar(place, estimate, [[estimate - low], [high - estimate]], color="black", capsize=4)
            places.append(place)
            names.append(_labels(found.kinds, [(a, b)])[0])
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xticks(places, names, fontsize=9)
    axes.set_ylabel("cosine of gradients")
    axes.grid(visible=False, axis="x")
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, frameon=False)
    return finish(figure, note)


def interference_figure(found: Interference, *, note: str = "") -> Figure:
    """Matrix of relative changes of loss: a step for the kind of the row, the loss of the kind of the column.

    Blue helps, red harms; the interval stands below each number.
    """
    import seaborn as sns

    percent = 100 * found.change
    limit = max(float(np.abs(percent[..., 0]).max()), 1e-6)
    digits = int(np.clip(1 - np.floor(np.log10(limit)), 0, 5))  # two that count
    texts = [
        [minus(f"{e:+.{digits}f} %\n[{low:+.{digits}f}, {high:+.{digits}f}]") for e, low, high in row]
        for row in percent
    ]
    figure = new_figure(1.4 + 0.75 * len(found.kinds), layout="constrained")
    axes = figure.subplots()
    look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "linewidths": 2, "annot_kws": {"fontsize": 10}}
    sns.heatmap(percent[..., 0], ax=axes, annot=np.array(texts), fmt="", cbar_kws={"label": "change (%)"}, **look)
    axes.set_xticklabels(found.kinds)
    axes.set_yticklabels(found.kinds)
    axes.tick_params(axis="both", rotation=0)
    axes.set(xlabel="loss of", ylabel="a step for")
    return finish(figure, note)


def forecast_figure(found: Interference, forecast: np.ndarray, *, note: str = "") -> Figure:
    """Steps as they came out (filled, with intervals) beside what the gradients promised (hollow), a row per step.

    Args:
        found: the steps that were taken.
        forecast: relative change of loss to first order, in the order of `found.change`.

    Shapes:
        forecast: (kinds, kinds)
    """
    kinds = found.kinds
    steps = [(i, j) for i in range(len(kinds)) for j in range(len(kinds))]
    figure = new_figure(1.2 + 0.26 * len(steps), layout="constrained")
    axes = figure.subplots()
    for row, (i, j) in enumerate(steps):
        colour = QUIET if i == j else palette()[0]
        estimate, low, high = 100 * found.change[i, j]
        axes.plot([100 * forecast[i, j], estimate], [row, row], color=FAINT, linewidth=4, zorder=1)
        axes.errorbar(estimate, row, xerr=[[estimate - low], [high - estimate]], fmt="o", color=colour, capsize=3)
        axes.plot(100 * forecast[i, j], row, "o", color=colour, markerfacecolor="white", markeredgewidth=1.5)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(steps)), [f"{kinds[i]} → {kinds[j]}" for i, j in steps], fontsize=9)
    axes.set_ylabel("a step for → the loss of", fontsize=10)
    axes.set_xlabel("change of loss (%)", fontsize=10)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return finish(figure, f"hollow: forecast from the gradients, filled: step taken · {note}".rstrip(" ·"))


def overlap_figure(found: Sequence[DeltaOverlap], *, note: str = "") -> Figure:
    """What the updates of experts have in common, layer by layer: cosine, column spaces, row spaces; dotted: chance.

    Args:
        found: from `overlap.delta_overlap`.

    Raises:
        ValueError: nothing to draw.
    """
    by_layer = [one for one in found if one.layer is not None]
    if not by_layer:
        raise ValueError("found is empty: give what overlap.delta_overlap returns")
    figure = new_figure(3.1, layout="constrained")
    cosine, columns, rows = figure.subplots(1, 3)
    experts = list(dict.fromkeys((one.first, one.second) for one in by_layer))
    for pair, colour, marker in zip(experts, cycle(palette()), cycle(MARKERS), strict=False):
        chosen = [one for one in by_layer if (one.first, one.second) == pair]
        layers = [one.layer for one in chosen]
        look = {"color": colour, "marker": marker, "markersize": 5}
        cosine.plot(layers, [one.cosine for one in chosen], label=" · ".join(pair), **look)
        for axes, side in ((columns, "columns"), (rows, "rows")):
            axes.plot(layers, [getattr(one, side).shared for one in chosen], **look)
            axes.plot(layers, [getattr(one, side).shared_floor for one in chosen], ":", color=QUIET)
        floor = np.array([2 * one.cosine_floor for one in chosen])
        cosine.plot(layers, floor, ":", layers, -floor, ":", color=QUIET)
    cosine.set_title("cosine of ΔW", fontsize=10)
    columns.set_title("shared column space", fontsize=10)
    rows.set_title("shared row space", fontsize=10)
    for axes in (columns, rows):
        axes.set_ylim(-0.02, 1.02)
    for axes in (cosine, columns, rows):
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, names = cosine.get_legend_handles_labels()
    columns_of_names = len(names) if sum(map(len, names)) < 60 else 2
    figure.legend(handles, names, loc="outside upper center", ncols=columns_of_names, frameon=False, fontsize=10)
    return finish(figure, note)


def _pairs(kinds: Sequence[str]) -> list[tuple[int, int]]:
    pairs = list(combinations(range(len(kinds)), 2))
    if not pairs:
        raise ValueError(f"kinds = {list(kinds)}: a conflict needs two kinds or more")
    return pairs


def _labels(kinds: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    return [f"{kinds[i]}\n{kinds[j]}" for i, j in pairs]
