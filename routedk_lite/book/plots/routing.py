"""Figures of how experts are fused: TIES step by step, the weights α of a router, and α while an answer is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...report.numbers import minus
from ...report.style import finish, new_figure, palette

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def ties_figure(deltas: Sequence[torch.Tensor], *, density: float, names: Sequence[str], note: str = "") -> Figure:
    """TIES on small matrices: the ΔW of the experts, the same trimmed, the elected signs, the merge and the average.

    Args:
        deltas: one small matrix per expert.
        density: share of each matrix's entries that survive the trimming.
        names: the experts'.
    """
    import torch

    from ...fusion.ties import elect_and_merge, module_threshold, trim

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
        text = texts[int(np.sign(value)) + 1] if texts else "" if blank_zero and value == 0 else minus(f"{value:+.1f}")
        axes.text(column, row, text, ha="center", va="center", color="white" if abs(value) > 0.65 * limit else "black")


def routing_figure(
    alpha: np.ndarray, names: Sequence[str], layers: Sequence[int] | None = None, *, note: str = ""
) -> Figure:
    """Two maps with a row per layer and a column per expert: mean α, and its standard deviation between sessions.

    Of a single session only its α is drawn.

    Args:
        alpha: the weights of some sessions.
        names: the experts'.
        layers: numbers of the layers; by default counted from the lowest that has experts.

    Shapes:
        alpha: (sessions, L, E)
    """
    import seaborn as sns

    n_sessions, n_layers, _ = alpha.shape
    figure = new_figure(min(7.0, 1.5 + 0.42 * n_layers), layout="constrained")
    title = "mean α" if n_sessions > 1 else "α"
    maps = [(title, alpha.mean(0), {"vmax": 1, "cmap": "Blues", "fmt": ".2f"})]
    if n_sessions > 1:
        maps.append(("standard deviation between sessions", alpha.std(0), {"cmap": "Oranges", "fmt": ".3f"}))
    look = {"xticklabels": list(names), "annot": n_layers <= 12, "linewidths": 0.5, "vmin": 0}
    look["yticklabels"] = "auto" if layers is None else list(layers)
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (title, values, colours) in zip(panels, maps, strict=True):
        sns.heatmap(values, ax=axes, **look, **colours)
        axes.set_title(title)
        axes.tick_params(axis="both", rotation=0)
    panels[0].set_ylabel("layer")
    panels[0].invert_yaxis()  # the lowest layer reads the input: at the bottom; shared by both panels
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
    axes.set(xlabel="token of the answer (0: the prompt has been read)", ylabel="α", ylim=(-0.03, 1.03))
    return finish(figure, "\n".join(filter(None, ("dashed: kept from the prompt", note))), legend_of=axes)
