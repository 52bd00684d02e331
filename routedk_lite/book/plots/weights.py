"""Figures of what a router does with its experts: α by domain, what α follows, how it fails, static beside dynamic.

The two published ways in which a router fails quietly are marked in grey: the same weights everywhere, and one expert
for everything (`statistics.failure_signs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...fusion.statistics import DOMINANT_LOAD, UNIFORM_ENTROPY, UNIFORM_VARIANCE, routing_statistics
from ...report.style import FAINT, MARKERS, QUIET, finish, new_figure, palette
from ...statistics import SMALLEST_GROUP, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def domains_figure(
    traces: Mapping[str, np.ndarray], names: Sequence[str], layers: Sequence[int] | None = None, *, note: str = ""
) -> Figure:
    """Mean α as maps, a panel per domain: a row per layer, the lowest at the bottom, a column per expert.

    Args:
        traces: domain → α of its sessions, of the same layers.
        names: the experts'.
        layers: numbers of the layers; by default counted from the lowest that has experts.

    Shapes:
        traces: each (sessions, L, E)
    """
    import seaborn as sns

    n_layers = max(alpha.shape[1] for alpha in traces.values())
    figure = new_figure(min(6.5, 1.6 + 0.3 * n_layers), layout="constrained")
    panels = figure.subplots(1, len(traces), squeeze=False)[0]
    for axes, (domain, alpha) in zip(panels, traces.items(), strict=True):
        look = {"vmin": 0, "vmax": 1, "cmap": "Blues", "annot": True, "fmt": ".2f", "annot_kws": {"fontsize": 9}}
        look |= {"xticklabels": list(names), "yticklabels": "auto" if layers is None else list(layers)}
        sns.heatmap(alpha.mean(0), ax=axes, linewidths=0.5, cbar=axes is panels[-1], **look)
        axes.set(title=domain, ylabel="layer" if axes is panels[0] else "")
        axes.tick_params(axis="both", rotation=0, labelsize=9)
        axes.invert_yaxis()
    return finish(figure, note)


def weights_by(
    alpha: np.ndarray, groups: Mapping[str, Mapping[Any, np.ndarray]], *, n_draws: int = 1000
) -> dict[str, Any]:
    """How the experts' weights move with properties of sessions, with 95 % intervals.

    Measured is an expert's α, mean over layers, less its mean over all sessions: what a session adds. Groups of fewer
    than `SMALLEST_GROUP` are left out.

    Args:
        alpha: of many sessions.
        groups: title of a panel → name of a group → whether a session is in it.
        n_draws: bootstrap resamples.

    Returns:
        What `weights_by_figure` draws, as JSON knows it: `mean`, one per expert; `panels`: title → group → how many
        sessions it has, and one interval per expert.

    Shapes:
        alpha: (sessions, L, E); groups: (sessions,) each

    Raises:
        ValueError: no groups, or one speaks of another number of sessions.
    """
    if not groups:
        raise ValueError("groups is empty: give one property or more")
    mean = alpha.mean(1)  # (S, E)
    moved = mean - mean.mean(0)
    panels: dict[str, dict[str, Any]] = {}
    for title, panel in groups.items():
        found = panels.setdefault(title, {})
        for group, inside in panel.items():
            inside = np.asarray(inside, dtype=bool)
            if inside.shape != (len(alpha),):
                raise ValueError(f"{title!r}, {group!r}: give one truth value for each of the {len(alpha)} sessions")
            if inside.sum() >= SMALLEST_GROUP:
                chance = {"generator": np.random.default_rng(0), "n_draws": n_draws}
                found[str(group)] = [int(inside.sum()), [bootstrap_interval(v, **chance) for v in moved[inside].T]]
    return {"mean": mean.mean(0), "panels": panels}


def weights_by_figure(found: Mapping[str, Any], names: Sequence[str], *, note: str = "") -> Figure:
    """Draw what `weights_by` found: one panel per property. The legend names each expert's mean.

    Below each group stands how many sessions it has.
    """
    figure = new_figure(3.3, layout="constrained")
    widths = [len(panel) + 1 for panel in found["panels"].values()]
    panels = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    labels = [f"{name} (mean {load:.2f})" for name, load in zip(names, found["mean"], strict=True)]
    for axes, (title, panel) in zip(panels, found["panels"].items(), strict=True):
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=9)
        axes.set_xticks(range(len(panel)), [f"{group}\n({n})" for group, (n, _) in panel.items()])
        if not panel:
            words = f"no group of {SMALLEST_GROUP} or more"
            axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=QUIET)
            continue
        for k, (label, colour, marker) in enumerate(zip(labels, palette(), MARKERS, strict=False)):
            estimate, low, high = np.array([weights[k] for _, weights in panel.values()]).T
            places = np.arange(len(panel)) + 0.3 * (k / max(1, len(labels) - 1) - 0.5)
            look = {"fmt": f"{marker}-", "color": colour, "linewidth": 1.5, "label": label}
            axes.errorbar(places, estimate, yerr=[estimate - low, high - estimate], **look)
        axes.axhline(0, color=QUIET, linewidth=1)
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.1)
    panels[0].set_ylabel("α less its mean", fontsize=10)
    if drawn := [axes for axes, panel in zip(panels, found["panels"].values(), strict=True) if panel]:
        handles, shown = drawn[0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize=10)
    return finish(figure, note)


def signs_figure(traces: Mapping[str, np.ndarray], layers: Sequence[int] | None = None, *, note: str = "") -> Figure:
    """Two signs of a router that failed, by layer: uniform without variance, and one expert for everything.

    Grey bands are where `statistics.failure_signs` looks: a router whose points lie in the bands of the first *and* the
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
    if not traces or min(alpha.shape[2] for alpha in traces.values()) < 2:
        raise ValueError("traces must hold one fusion or more, of two experts or more")
    figure = new_figure(3.6, layout="constrained")
    entropy, variance, load = figure.subplots(1, 3)
    smallest = 1e-8  # what lies below is drawn here: float32 weights can hardly tell it from none
    for (name, alpha), colour, marker in zip(traces.items(), palette(), MARKERS, strict=False):
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
    """Learned static weights (dashed) beside the router's, by layer, a panel per expert.

    The line is the router's mean, the band holds the middle 90 % of the sessions. Grey: where one expert would have
    everything.

    Args:
        static: the weights that all sessions share.
        dynamic: the router's, of many sessions.
        names: the experts'.
        layers: numbers of the layers; by default counted from the lowest that has experts.

    Shapes:
        static: (L, E); dynamic: (sessions, L, E)

    Raises:
        ValueError: the two have other layers or experts.
    """
    if static.shape != dynamic.shape[1:]:
        raise ValueError(f"static has shape {static.shape}, dynamic {dynamic.shape}: give the same layers and experts")
    layers = np.arange(len(static)) if layers is None else np.asarray(layers)
    low, high = np.quantile(dynamic, [0.05, 0.95], axis=0)
    figure = new_figure(3.3, layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for k, (axes, name, colour, marker) in enumerate(zip(panels, names, palette(), MARKERS, strict=False)):
        axes.axhspan(DOMINANT_LOAD, 1.03, color=FAINT, zorder=0)
        axes.axhline(1 / len(names), color=QUIET, linewidth=1, linestyle=":")
        axes.fill_between(layers, low[:, k], high[:, k], color=colour, alpha=0.3, linewidth=0)
        axes.plot(layers, dynamic[..., k].mean(0), f"{marker}-", color=colour, markersize=5, label="dynamic")
        axes.plot(layers, static[:, k], "--", color="0.15", label="static")
        axes.set_title(name, fontsize=11)
        axes.set(xlabel="layer", ylim=(-0.03, 1.03))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=9)
    panels[0].set_ylabel("α")
    said = "line: dynamic, its band nine tenths of the sessions · dashed: static · dotted: the average"
    return finish(figure, "\n".join(filter(None, (said, note))))
