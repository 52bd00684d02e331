"""Figures of what a router does with its experts: α by domain, entropy, load, what α follows, static beside dynamic.

The two published ways in which a router fails quietly are marked wherever they would show: the same weights everywhere,
and one expert for everything (`routing.failure_signs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .plots import QUIET, finish, new_figure, palette
from .routing import DOMINANT_LOAD, UNIFORM_ENTROPY, routing_statistics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS, DASHES = "os^D", ("-", "--", ":", "-.")
BAND = "#f3d9d5"
"""Where a router that failed would lie."""


def domains_figure(traces: Mapping[str, np.ndarray], names: Sequence[str], *, note: str = "") -> Figure:
    """Mean α as maps, a panel per domain: a row per layer, the lowest at the bottom, a column per expert.

    Args:
        traces: domain → α of its sessions.
        names: the experts'.

    Shapes:
        traces: each (sessions, L, E)
    """
    import seaborn as sns

    n_layers = max(alpha.shape[1] for alpha in traces.values())
    figure = new_figure(min(6.5, 1.6 + 0.3 * n_layers), layout="constrained")
    panels = figure.subplots(1, len(traces), squeeze=False)[0]
    for axes, (domain, alpha) in zip(panels, traces.items(), strict=True):
        look = {"vmin": 0, "vmax": 1, "cmap": "Blues", "annot": True, "fmt": ".2f", "annot_kws": {"fontsize": 9}}
        sns.heatmap(alpha.mean(0), ax=axes, xticklabels=list(names), linewidths=0.5, cbar=axes is panels[-1], **look)
        axes.set(title=domain, ylabel="layer" if axes is panels[0] else "")
        axes.tick_params(axis="both", rotation=0, labelsize=9)
        axes.invert_yaxis()
    return finish(figure, note)


def entropy_load_figure(traces: Mapping[str, np.ndarray], names: Sequence[str], *, note: str = "") -> Figure:
    """Entropy of α by layer, a line per trace, and beside it the load of every expert by layer, a panel per trace.

    Shaded: where all lines of a router that failed would lie, uniform on the left, one expert for everything on the
    right.

    Args:
        traces: for example domain, or fusion, → α of its sessions.
        names: the experts'.

    Shapes:
        traces: each (sessions, L, E)
    """
    most = math.log(len(names))
    figure = new_figure(3.4, layout="constrained")
    panels = figure.subplots(1, 1 + len(traces), width_ratios=[1.25, *([1] * len(traces))])
    left, colours = panels[0], palette()
    left.axhspan(UNIFORM_ENTROPY * most, 1.06 * most, color=BAND)
    left.axhline(most, color=QUIET, linewidth=1)
    left.text(0, 1.075 * most, f"uniform (ln {len(names)})", va="bottom", fontsize=9, color=QUIET)
    for k, (name, alpha) in enumerate(traces.items()):
        line = {"color": "0.15", "linestyle": DASHES[k % 4], "marker": "oDvP"[k % 4], "markersize": 5}
        left.plot(routing_statistics(alpha).entropy, label=name, **line)
    left.set(title="entropy of α", xlabel="layer", ylabel="nats", ylim=(0, 1.22 * most))
    left.legend(fontsize=9, frameon=False, loc="best")
    for axes, (name, alpha) in zip(panels[1:], traces.items(), strict=True):
        load = routing_statistics(alpha).load
        axes.axhspan(DOMINANT_LOAD, 1.0, color=BAND)
        for expert, colour, marker, values in zip(names, colours, MARKERS, load.T, strict=False):
            axes.plot(values, f"{marker}-", color=colour, label=expert, markersize=5)
        axes.set(title=f"load, {name}", xlabel="layer", ylim=(0, 1.03))
        axes.axhline(1 / len(names), color=QUIET, linewidth=1, linestyle=":")
    panels[1].set_ylabel("mean α")
    for axes in panels:
        _whole_layers(axes, next(iter(traces.values())).shape[1])
    return finish(figure, f"shaded: where a router that failed would be in every layer · {note}", legend_of=panels[1])


def weights_figure(facts: pd.DataFrame, factors: Mapping[str, str], *, note: str = "") -> Figure:
    """How far an expert's weight is from its mean, against properties of the session, with 95 % intervals.

    Args:
        facts: one row per session and expert with columns `expert`, `weight` (its α, mean over layers) and the
            properties.
        factors: column name → axis label. Columns of text are shown in the order in which they first occur.
    """
    import seaborn as sns

    facts = facts.assign(apart=facts["weight"] - facts.groupby("expert")["weight"].transform("mean"))
    experts = list(dict.fromkeys(facts["expert"]))
    figure = new_figure(3.3, layout="constrained")
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    look = {"hue_order": experts, "style_order": experts, "palette": palette()[: len(experts)], "dashes": False}
    for axes, (column, label) in zip(panels, factors.items(), strict=True):
        axes.axhline(0, color=QUIET, linewidth=1)
        sns.lineplot(
            facts, x=column, y="apart", hue="expert", style="expert", ax=axes, err_style="bars", seed=0,
            markers=list(MARKERS[: len(experts)]), err_kws={"capsize": 3}, sort=facts[column].dtype != object, **look,
        )  # fmt: skip
        axes.get_legend().remove()
        axes.set(xlabel=label, ylabel="α − its mean" if axes is panels[0] else "")
    return finish(figure, note, legend_of=panels[0])


def fusions_figure(static: np.ndarray, dynamic: np.ndarray, names: Sequence[str], *, note: str = "") -> Figure:
    """Static weights beside the router's, a panel per expert: the static line is dashed, the router's a line with a
    band that holds nine tenths of the sessions.

    Shapes:
        static: (L, E); dynamic: (sessions, L, E)
    """
    figure = new_figure(3.0, layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    low, high = np.quantile(dynamic, [0.05, 0.95], axis=0)
    layers = np.arange(dynamic.shape[1])
    for i, (axes, name, colour) in enumerate(zip(panels, names, palette(), strict=False)):
        axes.axhspan(DOMINANT_LOAD, 1.0, color=BAND)
        axes.axhline(1 / len(names), color=QUIET, linewidth=1, linestyle=":")
        axes.fill_between(layers, low[:, i], high[:, i], color=colour, alpha=0.3, linewidth=0)
        axes.plot(layers, dynamic[..., i].mean(0), f"{MARKERS[i % 4]}-", color=colour, markersize=5)
        axes.plot(layers, static[:, i], "--", color="0.15")
        axes.set(title=name, xlabel="layer", ylim=(0, 1.03))
        _whole_layers(axes, len(layers))
    panels[0].set_ylabel("α")
    said = "line: router, its band nine tenths of the sessions · dashed: static · dotted: average · shaded: above "
    return finish(figure, f"{said}{DOMINANT_LOAD}\n{note}")


def _whole_layers(axes: Axes, n_layers: int) -> None:
    step = -(-n_layers // 6)
    axes.set_xticks(range(0, n_layers, step))
    axes.grid(visible=False, axis="x")
