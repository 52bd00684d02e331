"""The figure of the positive control: what fusions score where routing must win, and what the router's α follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...data.domains import load_domain
from ...data.habits import right_habit
from ...report.style import FAINT, QUIET, finish, new_figure, palette
from ...study.records import RunRecord, load_attachment, without_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = {
    "by_kind": "expert: by kind",
    "by_use": "expert: by use",
    "fusion-average": "average",
    "fusion-ties": "TIES",
    "fusion-static": "static weights",
    "fusion-dynamic": "router",
    "control-shuffled": "router, another session's α",
    "control-mean": "router, mean α",
}
"""Runs in the order in which they are drawn."""


def control_figure(records: Iterable[RunRecord], *, note: str = "") -> Figure:
    """Strict F1 of every run, seed by seed, and α of the expert *by kind* in the layers of the router.

    Args:
        records: all that are known; those of the domain `habits` are drawn.
        note: where the numbers come from.

    Raises:
        ValueError: none of the control's runs is recorded.
    """
    found: dict[str, list[RunRecord]] = {name: [] for name in LINES}
    for record in records:
        if record.domain == "habits" and without_seed(record.run) in found:
            found[without_seed(record.run)].append(record)
    if not any(found.values()):
        raise ValueError("no run of the control is recorded: routedk run --profile control")
    figure = new_figure(3.6, layout="constrained")
    scores, weights = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_scores(scores, found)
    _draw_weights(weights, found["fusion-dynamic"])
    return finish(figure, note)


def _draw_scores(axes: Axes, found: dict[str, list[RunRecord]]) -> None:
    for place, (name, label) in enumerate(LINES.items()):
        f1 = [record.metrics["strict"]["f1"] for record in found[name]]
        colour = palette()[0] if name == "fusion-dynamic" else QUIET
        axes.plot(f1, [place] * len(f1), "o", color=colour, alpha=0.5, markersize=5)
        if f1:
            axes.plot(np.mean(f1), place, "|", color=colour, markersize=18, markeredgewidth=2.5)
        axes.text(-0.02, place, label, ha="right", va="center", fontsize=9.5, transform=axes.get_yaxis_transform())
    axes.axvline(0.5, color=FAINT, linewidth=1, zorder=0)
    axes.set(xlim=(0, 1), ylim=(len(LINES) - 0.5, -0.5), yticks=[], xlabel="strict F1 (dots: seeds)")
    axes.set_title("one habit is right about half of the sessions", fontsize=10)


def _draw_weights(axes: Axes, runs: list[RunRecord]) -> None:
    test = load_domain("habits", "test")
    compares = np.array([right_habit(session.titles) == "by_kind" for session in test])
    groups = (("shoppers who compare", compares, 0.93), ("shoppers who equip a phone", ~compares, 0.16))
    for place, (label, chosen, height) in enumerate(groups):
        axes.text(0.97, height, label, color=palette()[place], fontsize=9, ha="right", transform=axes.transAxes)
        for run in runs:
            rows = {row["id"]: row["alpha"] for row in load_attachment(run, "alpha")}
            alpha = np.array([rows[session.id] for session in test])  # (sessions, L, 2)
            kind = [without_seed(name) for name in run.analysis["experts"]].index("by_kind")
            layers = np.array(run.analysis["layers"]) + 1
            look = {"color": palette()[place], "alpha": 0.8, "markersize": 5}
            axes.plot(layers, alpha[chosen][:, :, kind].mean(0), "os"[place] + "-", **look)
    axes.set(ylim=(0, 1), xlabel="layer", ylabel="α of the expert by kind")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("the router tells them apart", fontsize=10)
