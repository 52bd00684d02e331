"""Figures of experts and routers: TIES step by step, what α is, what it depends on, and how a router fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import FAINT, QUIET, finish, new_figure, palette

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SMALLEST_GROUP = 5
"""Sessions; a bootstrap of fewer would show an interval that is far too short."""


def ties_figure(deltas: Sequence[torch.Tensor], *, density: float, names: Sequence[str], note: str = "") -> Figure:
    """TIES on small matrices: the ΔW of the experts, the same trimmed, the elected signs, the merge and the average.

    Args:
        deltas: one small matrix per expert.
        density: share of each matrix's entries that survive the trimming.
        names: the experts'.
    """
    import torch

    from .ties import elect_and_merge, module_threshold, trim

    trimmed = torch.stack([trim(d, module_threshold(d, density)) for d in deltas])
    signs = trimmed.sum(0).sign()
    limit = float(torch.stack(list(deltas)).abs().max())
    figure = new_figure(4.4, layout="constrained")
    panels = figure.subplots(3, len(deltas))
    for axes, delta, name in zip(panels[0], deltas, names, strict=True):
        _matrix(axes, delta, limit, f"ΔW of {name}")
    for axes, delta, name in zip(panels[1], trimmed, names, strict=True):
        _matrix(axes, delta, limit, f"1. {name} trimmed", blank_zero=True)
    for axes in panels[2]:
        axes.set_axis_off()
    _matrix(panels[2][0], signs * limit * 0.6, limit, "2. elected signs", texts=["−", "", "+"])
    _matrix(panels[2][1], elect_and_merge(trimmed), limit, "3. merged", blank_zero=True)
    _matrix(panels[2][2], torch.stack(list(deltas)).mean(0), limit, "the plain average")
    return finish(figure, note)


def _matrix(
    axes: Axes, values: torch.Tensor, limit: float, title: str, *, blank_zero: bool = False, texts: Sequence[str] = ()
) -> None:
    axes.set_axis_on()
    axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(np.asarray(values)):
        text = texts[int(np.sign(value)) + 1] if texts else "" if blank_zero and value == 0 else f"{value:+.1f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if abs(value) > 0.65 * limit else "black")


def routing_figure(alpha: np.ndarray, names: Sequence[str], *, note: str = "") -> Figure:
    """Two maps with a row per layer and a column per expert: mean α, and its standard deviation between sessions.

    Shapes:
        alpha: (sessions, L, E)
    """
    import seaborn as sns

    n_layers = alpha.shape[1]
    figure = new_figure(min(7.0, 1.5 + 0.42 * n_layers), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    look = {"xticklabels": list(names), "annot": n_layers <= 12, "linewidths": 0.5}
    sns.heatmap(alpha.mean(0), ax=left, vmin=0, vmax=1, cmap="Blues", fmt=".2f", **look)
    sns.heatmap(alpha.std(0), ax=right, vmin=0, cmap="Oranges", fmt=".3f", **look)
    left.set(title="mean α", ylabel="layer")
    right.set(title="standard deviation between sessions")
    for axes in (left, right):
        axes.tick_params(axis="both", rotation=0)
    left.invert_yaxis()  # layer 0 reads the input: at the bottom; shared by both panels
    return finish(figure, note)


def drift_figure(kept: np.ndarray, pooled: np.ndarray, names: Sequence[str], *, note: str = "") -> Figure:
    """One layer's α while an answer is written: kept from the prompt (dashed), or pooled anew at every step.

    Shapes:
        kept: (E,); pooled: (steps, E), the first step being the prompt
    """
    figure = new_figure(3.0, layout="constrained")
    axes = figure.subplots()
    steps = np.arange(len(pooled))
    for name, colour, marker, before, values in zip(names, palette(), "os^Dv", kept, pooled.T, strict=False):
        axes.axhline(before, color=colour, linestyle="--", linewidth=1.5)
        axes.plot(steps, values, f"{marker}-", color=colour, label=name)
    axes.set(xlabel="token of the answer (0: the prompt has been read)", ylabel="α", ylim=(0, 1))
    axes.text(0.99, 0.97, "dashed: kept", transform=axes.transAxes, ha="right", va="top", fontsize=9, color=QUIET)
    return finish(figure, note, legend_of=axes)


def weights_by_figure(
    alpha: np.ndarray,
    names: Sequence[str],
    groups: Mapping[str, Mapping[Any, np.ndarray]],
    *,
    note: str = "",
    n_draws: int = 1000,
) -> Figure:
    """How the experts' weights move with properties of sessions, one panel per property, with 95 % intervals.

    Drawn is an expert's α, mean over layers, less its mean over all sessions: what a session adds. The legend names the
    mean. Below each group stands how many sessions it has; groups of fewer than `SMALLEST_GROUP` are left out.

    Args:
        alpha: of many sessions.
        groups: title of a panel → name of a group → whether a session is in it.
        n_draws: bootstrap resamples.

    Shapes:
        alpha: (sessions, L, E); groups: (sessions,) each

    Raises:
        ValueError: nothing to draw, or a group speaks of another number of sessions.
    """
    import pandas as pd
    import seaborn as sns

    if not groups:
        raise ValueError("groups is empty: give one property or more")
    mean = alpha.mean(1)  # (S, E)
    moved = mean - mean.mean(0)
    labels = [f"{name} (mean {load:.2f})" for name, load in zip(names, mean.mean(0), strict=True)]
    figure = new_figure(3.3, layout="constrained")
    widths = [len(panel) + 1 for panel in groups.values()]
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=widths)[0]
    look = {"markers": list("os^Dvx")[: len(labels)], "dodge": 0.3, "err_kws": {"linewidth": 1.5}, "linewidth": 1.5}
    look |= {"palette": palette()[: len(labels)], "errorbar": ("ci", 95), "n_boot": n_draws, "seed": 0}
    for axes, (title, panel) in zip(panels, groups.items(), strict=True):
        parts, shown = [], []
        for group, inside in panel.items():
            inside = np.asarray(inside, dtype=bool)
            if inside.shape != (len(alpha),):
                raise ValueError(f"{title!r}, {group!r}: give one truth value for each of the {len(alpha)} sessions")
            if inside.sum() >= SMALLEST_GROUP:
                shown.append(f"{group}\n({inside.sum()})")
                parts.append(pd.DataFrame(moved[inside], columns=labels).assign(group=shown[-1]))
        tidy = pd.concat(parts).melt("group", var_name="expert", value_name="moved")
        sns.pointplot(tidy, x="group", y="moved", hue="expert", order=shown, hue_order=labels, ax=axes, **look)
        axes.axhline(0, color=QUIET, linewidth=1)
        axes.set(xlabel="", ylabel="")
        axes.tick_params(labelsize=9)
        axes.set_title(title, fontsize=10)
    panels[0].set_ylabel("α less its mean", fontsize=10)
    handles, shown = panels[0].get_legend_handles_labels()
    for axes in panels:
        axes.get_legend().remove()
    figure.legend(handles, shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize=10)
    return finish(figure, note)


def signs_figure(traces: Mapping[str, np.ndarray], layers: Sequence[int] | None = None, *, note: str = "") -> Figure:
    """Two signs of a router that failed, by layer: uniform without variance, and one expert for everything.

    Grey bands are where `routing.failure_signs` looks: a router whose points lie in the bands of the first *and* the
    second panel in every layer does no more than average, and one that stays in the band of the third has handed
    everything to one expert.

    Args:
        traces: fusion → α of the same layers.
        layers: their numbers; by default counted from the lowest that has experts.

    Shapes:
        traces: (sessions, L, E) each

    Raises:
        ValueError: nothing to draw, or a single expert.
    """
    from .routing import DOMINANT_LOAD, UNIFORM_ENTROPY, UNIFORM_VARIANCE, routing_statistics

    if not traces or min(alpha.shape[2] for alpha in traces.values()) < 2:
        raise ValueError("traces must hold one fusion or more, of two experts or more")
    figure = new_figure(3.6, layout="constrained")
    entropy, variance, load = figure.subplots(1, 3)
    smallest = 1e-8  # what lies below is drawn here: float32 weights can hardly tell it from none
    for (name, alpha), colour, marker in zip(traces.items(), palette(), "os^Dvx", strict=False):
        found = routing_statistics(alpha)
        rows = np.arange(alpha.shape[1]) if layers is None else layers
        look = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 1.5, "label": name}
        entropy.plot(rows, found.entropy / np.log(alpha.shape[2]), **look)
        variance.plot(rows, np.maximum(found.variance, smallest), **look)
        load.plot(rows, found.load.max(1), **look)
    band = {"color": FAINT, "zorder": 0}
    entropy.axhspan(UNIFORM_ENTROPY, 1.03, **band)
    variance.axhspan(smallest / 3, UNIFORM_VARIANCE, **band)
    load.axhspan(DOMINANT_LOAD, 1.03, **band)
    entropy.set(ylim=(-0.03, 1.03))
    load.set(ylim=(0.27, 1.03))
    variance.set(yscale="log", ylim=(smallest / 3, 0.3))
    grey = ("uniform", "hardly any", "one takes all")
    titles = ("entropy\n(share of ln E)", "variance\nbetween sessions", "load of the\nlargest expert")
    for axes, title, words in zip((entropy, variance, load), titles, grey, strict=True):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(f"layer\ngrey: {words}", fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=9)
    return finish(figure, note, legend_of=entropy)


def static_dynamic_figure(
    static: np.ndarray,
    dynamic: np.ndarray,
    names: Sequence[str],
    layers: Sequence[int] | None = None,
    *,
    note: str = "",
) -> Figure:
    """Learned static weights beside the router's, one panel per expert and a row per layer.

    The line spans the middle 90 % of the sessions, the dot is the router's mean, the hollow diamond the static weight.

    `layers` are the numbers of the layers; by default they are counted from the lowest that has experts.

    Shapes:
        static: (L, E); dynamic: (sessions, L, E)

    Raises:
        ValueError: the two have other layers or experts.
    """
    if static.shape != dynamic.shape[1:]:
        raise ValueError(f"static has shape {static.shape}, dynamic {dynamic.shape}: give the same layers and experts")
    low, high = np.quantile(dynamic, [0.05, 0.95], axis=0)
    layers = np.arange(len(static)) if layers is None else np.asarray(layers)
    figure = new_figure(min(6.5, 1.9 + 0.24 * len(layers)), layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for k, (axes, name, colour) in enumerate(zip(panels, names, palette(), strict=False)):
        axes.axvline(1 / len(names), color=QUIET, linewidth=1, linestyle=":")
        axes.hlines(layers, low[:, k], high[:, k], color=colour, linewidth=5, alpha=0.4)
        axes.plot(dynamic[:, :, k].mean(0), layers, "o", color=colour, label="dynamic")
        axes.plot(static[:, k], layers, "D", color="black", markerfacecolor="white", markersize=6, label="static")
        axes.set_title(name, fontsize=11)
        axes.set(xlabel="α", xlim=(-0.03, 1.03))
        axes.tick_params(labelsize=9)
    panels[0].set_ylabel("layer")
    panels[0].yaxis.get_major_locator().set_params(integer=True)
    return finish(figure, f"dotted: the average · {note}".rstrip(" ·"))
