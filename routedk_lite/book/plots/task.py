"""Figures of the task: sessions with their bundles, their lengths and sizes, metrics, intervals, learning curves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...data.sessions import Session
from ...report.style import QUIET, WIDTH, finish, new_figure, palette
from .cards import COLUMN, ROW, TOP, draw_card, draw_columns, predicted_columns, sheet, true_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...analysis.diagnostics import LearningPoint

FLOOR_ORDER = ("whole", "random", "pairs", "all_pairs")


# --- one session --------------------------------------------------------------------------------------------

SMALLEST_CARD = 3.2
INTENT = 85
"""Characters of a line of an intent."""


def session_figure(session: Session, predictions: Iterable[Iterable[int]] | None = None, *, note: str = "") -> Figure:
    """Draw a session: products as rows, each bundle a column with a dot on every product that it holds.

    Bundles may overlap; products in none have a grey title; long titles take two lines or are cut.

    Args:
        session: its annotated bundles are the columns A, B, … on the left.
        predictions: predicted bundles, drawn beside them in the colour of the bundle that they fit into:
            ✓ marks a hit, ✗ a miss (crosses, dashed), – a single item, which no protocol counts.
        note: where the session comes from.
    """
    true = true_columns(session)
    predicted = predicted_columns(predictions or (), true)
    n_columns = len(true) + len(predicted) + bool(predicted)  # an empty one parts the two groups
    step = min(COLUMN, (WIDTH - SMALLEST_CARD) / (n_columns + 1))
    card = WIDTH - step * n_columns - 0.3
    legend = [textwrap.wrap(intent, INTENT) for intent in session.intents]
    floor = TOP + ROW * len(session)
    height = floor + 0.12 + 0.25 * sum(map(len, legend)) + (0.3 if note else 0)
    axes = sheet(height)
    inside = frozenset().union(*session.bundles)
    for number, title in enumerate(session.titles, start=1):
        draw_card(axes, number, title, width=card, outside=number not in inside)
    places = [card + step * (i + 0.75) for i in range(n_columns)]
    draw_columns(axes, true, places, "annotated", len(session))
    draw_columns(axes, predicted, places[len(true) + 1 :], "predicted", len(session))
    y = floor + 0.22
    for column, lines in zip(true, legend, strict=False):
        axes.plot(0.16, y, "o", color=column.colour, markersize=8)
        for k, line in enumerate(lines):
            axes.text(0.32, y, line if k else f"{column.name}: {line}", va="center", fontsize=10)
            y += 0.25
    if note:
        axes.text(0, height - 0.08, note, va="center", fontsize=9, color=QUIET)
    return axes.figure


# --- many sessions ------------------------------------------------------------------------------------------


def length_figure(facts: pd.DataFrame, *, note: str = "") -> Figure:
    """Share of sessions by their length, training and test split, one panel per domain.

    Args:
        facts: columns `domain`, `split`, `items`; a row without `items` does not count.
    """
    import seaborn as sns

    domains = list(dict.fromkeys(facts["domain"]))
    counted = facts[facts["split"].isin(("train", "test"))].groupby(["domain", "split"])["items"]
    shares = (100 * counted.value_counts(normalize=True)).rename("share").reset_index()
    figure, panels = _panels(len(domains), height=2.9, sharey=True)
    order = {"hue_order": ("train", "test"), "style_order": ("train", "test"), "palette": palette()[:2]}
    for axes, domain in zip(panels, domains, strict=True):
        lines = shares[shares["domain"] == domain]
        sns.lineplot(lines, x="items", y="share", hue="split", style="split", markers=True, ax=axes, **order)
        axes.get_legend().remove()
        axes.set(title=domain, xlabel="products in the session", ylabel="sessions (%)")
        axes.set_xticks(range(int(facts["items"].min()), int(facts["items"].max()) + 1, 2))
    panels[0].set_ylim(bottom=0)  # shared by all panels
    return finish(figure, note, legend_of=panels[0])


def distribution_figure(facts: pd.DataFrame, labels: Mapping[str, str], *, note: str = "") -> Figure:
    """How columns are distributed in each domain, one panel per column, as percentages of the domain.

    Args:
        facts: a column `domain`, and one for each label; what is missing in one does not count, and the entries of a
            list in a cell count one by one.
        labels: column name to axis label. Columns of few whole numbers are drawn as bars, others as outlines, of
            which the largest hundredth is left out.
    """
    import seaborn as sns

    figure, panels = _panels(len(labels), n_columns=2, height=2.7)
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        values = facts[["domain", column]].explode(column).dropna().reset_index(drop=True)
        values[column] = values[column].astype(float)
        whole = (values[column] % 1 == 0).all() and values[column].nunique() <= 12
        n_domains = values["domain"].nunique()
        look = {"legend": n_domains > 1 and axes is panels[0], "palette": palette()[:n_domains]}
        if whole:
            look |= {"discrete": True, "multiple": "dodge", "shrink": 0.8}
        else:
            ends = values[column].quantile([0, 0.99])
            look |= {"bins": 20, "binrange": tuple(ends), "element": "step", "fill": False, "linewidth": 2}
        sns.histplot(values, x=column, hue="domain", ax=axes, stat="percent", common_norm=False, **look)
        axes.set(xlabel=label, ylabel="share of all (%)")
        if whole:
            axes.set_xticks(range(int(values[column].min()), int(values[column].max()) + 1))
    return finish(figure, note)


def share_figure(shares: Mapping[str, Mapping[str, tuple[int, int]]], *, note: str = "") -> Figure:
    """Shares as horizontal bars, one panel per question, with the counts written beside them.

    Args:
        shares: question → domain → (how many, of how many).
    """
    figure, panels = _panels(len(shares), n_columns=1, height=0.75 + 0.34 * max(map(len, shares.values())))
    for axes, (question, by_domain) in zip(panels, shares.items(), strict=True):
        values = [100 * part / whole if whole else 0 for part, whole in by_domain.values()]
        axes.barh(list(by_domain), values, color=palette()[: len(values)], height=0.62)
        for y, (value, (part, whole)) in enumerate(zip(values, by_domain.values(), strict=True)):
            axes.text(value + 1, y, f"{value:.0f} %  ({part:,} of {whole:,})", va="center", fontsize=10)
        axes.set(xlim=(0, 100), xlabel="share (%)" if axes is panels[-1] else "")
        axes.set_title(question, loc="left", fontsize=11)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return finish(figure, note)


def leak_figure(tables: Mapping[str, pd.DataFrame], *, note: str = "") -> Figure:
    """Two-by-two tables of counts, one panel per domain, darker where there are more.

    Args:
        tables: domain → counts; the index and the column names are the labels.
    """
    import seaborn as sns

    figure, panels = _panels(len(tables), height=2.3, sharey=True)
    for axes, (domain, table) in zip(panels, tables.items(), strict=True):
        look = {"cmap": "Blues", "cbar": False, "linewidths": 2, "annot_kws": {"fontsize": 13}}
        sns.heatmap(table, ax=axes, annot=True, fmt=",d", **look)
        axes.set(title=domain, xlabel="", ylabel="")
        axes.tick_params(axis="both", rotation=0)
    return finish(figure, note)


# --- scores -------------------------------------------------------------------------------------------------


def protocol_figure(scores: pd.DataFrame, *, note: str = "") -> Figure:
    """Precision against recall under both protocols: an arrow leads from the official to the strict point.

    Args:
        scores: columns `domain`, `floor`, `protocol`, `precision`, `recall`. Recall has a logarithmic scale,
            because the official one knows no upper bound.
    """
    domains = list(dict.fromkeys(scores["domain"]))
    top = max(2.0, 1.5 * scores["recall"].max())
    low = min(0.15, 0.7 * scores["recall"][scores["recall"] > 0].min())
    figure, panels = _panels(len(domains), height=3.7, sharey=True)
    for axes, domain in zip(panels, domains, strict=True):
        axes.axhspan(1, top, color="0.93", zorder=0)
        table = scores[scores["domain"] == domain].set_index(["floor", "protocol"])
        for floor, colour, marker in zip(FLOOR_ORDER, palette(), "sDo^", strict=False):
            points = [table.loc[(floor, p), ["precision", "recall"]] for p in ("official", "strict")]
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.6}
            axes.annotate("", points[1], points[0], arrowprops=arrow)
            for point, face in zip(points, ("white", colour), strict=True):
                axes.plot(*point, marker, color=colour, markerfacecolor=face, markersize=9, markeredgewidth=2)
            axes.plot([], [], marker, color=colour, label=floor, markersize=8)
        axes.set(title=domain, xlabel="precision", yscale="log", ylim=(low, top), xlim=(0, 0.6))
        axes.set_yticks([y for y in (0.01, 0.05, 0.2, 0.5, 1, 2, 5) if low < y < top])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    panels[0].set_ylabel("recall (log scale)")
    panels[0].text(0.02, 0.9 * top, "more found\nthan there is", va="top", fontsize=9, color=QUIET)
    return finish(figure, f"hollow: official, filled: strict · {note}", legend_of=panels[0])


def interval_figure(estimates: pd.DataFrame, *, note: str = "") -> Figure:
    """Estimates with 95 % intervals as dots and bars, one panel per domain, one row per floor.

    Args:
        estimates: columns `domain`, `floor`, `metric`, `estimate`, `low`, `high`.
    """
    domains = list(dict.fromkeys(estimates["domain"]))
    metrics = list(dict.fromkeys(estimates["metric"]))
    figure, panels = _panels(len(domains), height=2.9, sharey=True)
    for axes, domain in zip(panels, domains, strict=True):
        for k, (metric, colour, marker) in enumerate(zip(metrics, palette(), "os^D", strict=False)):
            chosen = estimates[(estimates["domain"] == domain) & (estimates["metric"] == metric)]
            rows = chosen.set_index("floor").loc[list(FLOOR_ORDER)]
            y = [place + 0.24 * (k - (len(metrics) - 1) / 2) for place in range(len(rows))]
            error = [rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]]
            axes.errorbar(rows["estimate"], y, xerr=error, fmt=marker, color=colour, capsize=3, label=metric)
        axes.set(title=domain, xlabel="score", yticks=range(len(FLOOR_ORDER)))
        axes.set_yticklabels(FLOOR_ORDER)
        axes.set_xlim(left=-0.02)
    panels[0].invert_yaxis()  # shared by all panels
    return finish(figure, note, legend_of=panels[0])


def curves_figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str, *, note: str = ""
) -> Figure:
    """Curves in one panel.

    Args:
        curves: name → points (x, y).
    """
    figure = new_figure(3.0, layout="constrained")
    axes = figure.subplots()
    for (name, points), colour, marker in zip(curves.items(), palette(), "os^Dv", strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, f"{marker}-", color=colour, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return finish(figure, note, legend_of=axes)


def learning_figure(points: Mapping[str, Sequence[LearningPoint]], *, note: str = "") -> Figure:
    """Learning curves in three panels: nats below the content-free model, pair AUC, and scores of decoded bundles.

    Args:
        points: domain → measurements, in the order of the sessions seen.
    """
    figure, (nats, auc, scores) = _panels(3, height=2.9)
    for (domain, found), colour in zip(points.items(), palette(), strict=False):
        seen = [p.sessions for p in found]
        nats.fill_between(seen, [p.below.low for p in found], [p.below.high for p in found], color=colour, alpha=0.2)
        nats.plot(seen, [p.below.estimate for p in found], "o-", color=colour, label=domain)
        auc.plot(seen, [p.auc for p in found], "o-", color=colour)
        scores.plot(seen, [p.f1 for p in found], "o-", color=colour)
        scores.plot(seen, [p.exact_match for p in found], "o--", color=colour)
    nats.axhline(0, color=QUIET, linewidth=1)
    nats.set_title("answers: nats per item\nbelow content-free", fontsize=10)
    nats.set_yscale("symlog", linthresh=0.25)
    auc.set_title("pair AUC", fontsize=10)
    scores.set_title("strict F1 (line),\nexact match (dashed)", fontsize=10)
    scores.set_ylim(bottom=0)
    for axes in (nats, auc, scores):
        axes.set_xlabel("training sessions seen")
    return finish(figure, note, legend_of=nats)


def _panels(n: int, *, height: float, n_columns: int = 3, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels in rows of `n_columns`, each row `height` inches high."""
    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    figure = new_figure(height * n_rows, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharey=sharey, squeeze=False).ravel()
    for empty in panels[n:]:
        empty.set_axis_off()
    return figure, list(panels[:n])
