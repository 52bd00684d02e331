"""Figures of scaling up: where memory goes, how weights meet the levels of a 4-bit code, who works when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...report.style import FAINT, QUIET, finish, new_figure, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...student.memory import MemoryPlan

HATCHES = ("", "//", "..", "xx", "--", "\\\\")


def memory_figure(plans: Mapping[str, MemoryPlan], limits: Mapping[str, float], *, note: str = "") -> Figure:
    """Memory plans as stacked bars, a row each, with the memory that machines have as vertical lines.

    Args:
        plans: name → plan, in gigabytes.
        limits: name of a machine → its gigabytes.

    Raises:
        ValueError: nothing to draw.
    """
    if not plans:
        raise ValueError("plans is empty: give one plan or more")
    figure = new_figure(1.5 + 0.45 * len(plans), layout="constrained")
    axes = figure.subplots()
    starts = np.zeros(len(plans))
    parts = next(iter(plans.values()))._fields
    for part, colour, hatch in zip(parts, palette(), HATCHES, strict=False):
        sizes = np.array([getattr(plan, part) for plan in plans.values()])
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
        axes.barh(range(len(plans)), sizes, left=starts, height=0.62, label=part, **look)
        starts += sizes
    for row, total in enumerate(starts):
        text = axes.text(total, row, f" {total:.1f} GB", va="center", fontsize=9)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    for name, size in limits.items():
        axes.axvline(size, color="black", linestyle="--", linewidth=1.2, zorder=0)
        axes.text(size, -0.62, f"{name} ", ha="right", va="center", fontsize=9, color=QUIET)
    axes.set_yticks(range(len(plans)), list(plans))
    axes.set_ylim(len(plans) - 0.5, -0.9)
    axes.set_xlim(0, max(*starts, *limits.values()) * 1.16)
    axes.set_xlabel("GB at the peak of a training step")
    axes.grid(visible=False, axis="y")
    return finish(figure, note, legend_of=axes)


def levels_figure(weights: np.ndarray, codes: Mapping[str, Sequence[float]], *, note: str = "") -> Figure:
    """How scaled weights are spread, and below, where each code puts its levels.

    Args:
        weights: divided by the largest of their block, so that they lie in [-1, 1].
        codes: name → its levels.

    Raises:
        ValueError: a weight lies outside.
    """
    if np.abs(weights).max() > 1 + 1e-6:
        raise ValueError(f"a weight is {np.abs(weights).max():.3f}: divide by the largest of its block first")
    figure = new_figure(2.6 + 0.3 * len(codes), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.55 * len(codes)])
    top.hist(weights.ravel(), bins=101, range=(-1, 1), color=palette()[0], density=True)
    top.set(ylabel="density", yticks=[])
    top.grid(visible=False)
    for row, (name, levels) in enumerate(codes.items()):
        colour = palette()[row + 1]
        bottom.vlines(levels, row - 0.36, row + 0.36, color=colour, linewidth=2.4)
        bottom.text(-1.04, row, name, ha="right", va="center", fontsize=10)
    bottom.set(ylim=(len(codes) - 0.4, -0.6), yticks=[], xlim=(-1.03, 1.03), xlabel="weight / largest of its block")
    bottom.grid(visible=False)
    return finish(figure, note)


def schedules_figure(
    schedules: Mapping[str, Sequence[tuple[str, str, int, float, float]]], *, unit: str = "min", note: str = ""
) -> Figure:
    """Who works on what, and when: a panel per schedule, a row per worker, all on one time axis.

    Args:
        schedules: title → jobs as (name, kind, worker, start, end); a kind has one colour in all panels.
        unit: of start and end.

    Raises:
        ValueError: nothing to draw.
    """
    if not schedules or not all(schedules.values()):
        raise ValueError("schedules is empty: give one schedule or more, with a job or more each")
    kinds = list(dict.fromkeys(kind for jobs in schedules.values() for _, kind, *_ in jobs))
    looks = dict(zip(kinds, zip(palette(), HATCHES * 2, strict=False), strict=False))
    workers = [1 + max(worker for _, _, worker, _, _ in jobs) for jobs in schedules.values()]
    figure = new_figure(1.6 + 0.36 * sum(workers) + 0.35 * len(workers), layout="constrained")
    panels = figure.subplots(len(schedules), 1, sharex=True, height_ratios=[n + 0.3 for n in workers], squeeze=False)
    for axes, (title, jobs), n in zip(panels[:, 0], schedules.items(), workers, strict=True):
        for _, kind, worker, start, end in jobs:
            colour, hatch = looks[kind]
            look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.6}
            axes.barh(worker, end - start, left=start, height=0.8, label=kind, **look)
        last = max(end for *_, end in jobs)
        axes.axvline(last, color=FAINT, linewidth=1.5, zorder=0)
        axes.text(last, -0.72, f"{last:.0f} {unit}", ha="right", va="center", fontsize=9, color=QUIET)
        axes.set_title(title, fontsize=10.5, loc="left")
        axes.set(yticks=range(n), ylim=(n - 0.5, -1.0))
        axes.set_yticklabels([str(worker + 1) for worker in range(n)], fontsize=9)
        axes.grid(visible=False, axis="y")
    panels[-1, 0].set_xlabel(unit)
    _one_legend(figure, panels[:, 0])
    return finish(figure, note)


def _one_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    found = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found), frameon=False, fontsize=9)
