"""HTML of the explorers: what stands on the page before any script has run, and without one.

The products table and the table of α are written here for the first paint and for readers without JavaScript, and once
more by the page's own script when something changes; a test holds the two equal. The live explorer shows the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ...files import asset
from .data import letter

SCRIPTS = ("arithmetic.js", "dom.js", "tables.js", "charts.js", "votes.js", "link.js", "explorer.js")
SIGNS = {"exact": "●", "partly": "◐", "wrong": "○"}
"""What an answer is worth, as a sign: full, half, empty."""


class Column:
    """One column of the products table.

    Args:
        name: its heading.
        answer: `[items, kind, label, truth]` of every bundle.
        kind: `rdkx-truth`, `rdkx-now` or nothing.
        f1: strict F1 of the answer in thousandths; `None` for the true bundles.
        verdict: a key of `SIGNS`.
    """

    def __init__(
        self, name: str, answer: Sequence[Sequence[Any]], kind: str = "", f1: int | None = None, verdict: str = ""
    ) -> None:
        self.name, self.answer, self.kind, self.f1, self.verdict = name, answer, kind, f1, verdict


def two(x: float) -> str:
    """Two decimals, halves upwards, as the page's script writes them."""
    return f"{math.floor(x * 100 + 0.5) / 100:.2f}"


def tag(name: str, attributes: Mapping[str, Any] | None = None, *children: str) -> str:
    """An element. Attributes are escaped; children are HTML already, so escape text first.

    >>> tag("td", {"title": '"<b>"'}, escape("a < b"))
    '<td title="&quot;&lt;b&gt;&quot;">a &lt; b</td>'
    """
    given = [(k, v) for k, v in (attributes or {}).items() if v is not None and v is not False]
    written = "".join(f" {k}" if v is True else f' {k}="{escape(str(v))}"' for k, v in given)
    inside = "".join(children)
    return f"<{name}{written}>" if name in ("br", "input") else f"<{name}{written}>{inside}</{name}>"


def hidden(text: str) -> str:
    """Text for screen readers only."""
    return tag("span", {"class": "rdkx-vh"}, escape(text))


# --- the two tables ---------------------------------------------------------------------------------------------


def products_table(caption: str, titles: Sequence[str], columns: Sequence[Column]) -> str:
    """Products as rows and methods as columns, each product's bundles marked in each column."""
    heads = [
        tag("th", {"role": "columnheader", "class": c.kind or None, "scope": "col"}, tag("span", {}, escape(c.name)))
        for c in columns
    ]
    rows = []
    for number, title in enumerate(titles, start=1):
        head = tag("span", {"class": "rdkx-n"}, str(number)) + escape(f" {title}")
        cells = [tag("td", {"role": "cell", "class": c.kind or None}, _marks(c.answer, number)) for c in columns]
        rows.append(tag("tr", {"role": "row"}, tag("th", {"role": "rowheader", "scope": "row"}, head), *cells))
    scores = [tag("td", {"role": "cell", "class": c.kind or None}, _score(c)) for c in columns]
    product = tag("th", {"role": "columnheader", "scope": "col"}, "product")
    score = tag("th", {"role": "rowheader", "scope": "row"}, "strict F1")
    return tag(
        "table",
        {"class": "rdkx-products", "role": "table", "data-x": "products", "style": f"--columns:{len(columns)}"},
        tag("caption", {}, escape(caption)),
        tag("thead", {"role": "rowgroup"}, tag("tr", {"role": "row"}, product, *heads)),
        tag("tbody", {"role": "rowgroup"}, *rows),
        tag("tfoot", {"role": "rowgroup"}, tag("tr", {"role": "row"}, score, *scores)),
    )


def _marks(answer: Iterable[Sequence[Any]], item: int) -> str:
    found = []
    for items, kind, label, truth in answer:
        if item in items:
            colour = "" if truth < 0 else f" rdkx-t{truth % 5}"
            spoken = hidden(" " if kind == "true" else f" {kind} ")
            found.append(tag("span", {"class": f"rdkx-k rdkx-{kind}{colour}"}, escape(label), spoken))
    return "".join(found) or tag("span", {"class": "rdkx-none", "aria-hidden": "true"}, "·") + hidden("none")


def _score(column: Column) -> str:
    if column.f1 is None:
        return "–"
    sign = tag("span", {"aria-hidden": "true"}, SIGNS[column.verdict])
    return f"{sign}<br>{two(column.f1 / 1000)}{hidden(f' {column.verdict}')}"


def true_column(truth: Sequence[Sequence[int]]) -> Column:
    """The column of the true bundles."""
    return Column("true", [[items, "true", letter(i), i] for i, items in enumerate(truth)], "rdkx-truth")


def truth_list(truth: Sequence[Sequence[int]], intents: Sequence[str]) -> str:
    """What the letters of the true bundles stand for."""
    entries = []
    for i, (items, intent) in enumerate(zip(truth, intents, strict=True)):
        mark = tag("span", {"class": f"rdkx-k rdkx-true rdkx-t{i % 5}"}, letter(i))
        said = intent or f"products {', '.join(map(str, items))}"
        entries.append(tag("li", {}, mark, tag("span", {}, escape(said))))
    return tag("ul", {"class": "rdkx-key", "data-x": "truth", "aria-label": "true bundles"}, *entries)


def mark_legend() -> str:
    """What the shapes of the marks mean."""
    samples = {"whole": ("A", "whole: exactly a true bundle"), "part": ("A", "over-cut: only a part of one"),
               "miss": ("×", "miss: fits into none")}  # fmt: skip
    entries = []
    for kind, (label, meaning) in samples.items():
        colour = "" if kind == "miss" else " rdkx-t0"
        mark = tag("span", {"class": f"rdkx-k rdkx-{kind}{colour}"}, label)
        entries.append(tag("li", {}, mark, escape(meaning)))
    return tag("ul", {"class": "rdkx-key", "aria-label": "marks"}, *entries)


def heat_table(experts: Sequence[str], layers: Sequence[int], alpha: Sequence[Sequence[float]]) -> str:
    """α as a table: a row per layer, the highest on top, a column per expert; darker is more.

    Shapes:
        alpha: (L, E)
    """
    heads = [
        tag("th", {"scope": "col", "style": f"--c:var(--e{i % 4})"}, escape(name)) for i, name in enumerate(experts)
    ]
    rows = []
    for layer, weights in zip(layers, alpha, strict=True):
        cells = [tag("td", {"style": f"--a:{a:.3f}"}, two(a)) for a in weights]
        rows.append(tag("tr", {}, tag("th", {"scope": "row"}, str(layer)), *cells))
    row_height = max(17, min(28, 260 // max(1, len(rows))))
    return tag(
        "table",
        {"class": "rdkx-heat", "data-x": "heat", "style": f"--row:{row_height}px"},
        tag("caption", {}, "Weights α by layer and expert"),
        tag("thead", {}, tag("tr", {}, tag("th", {"scope": "col"}, "layer"), *heads)),
        tag("tbody", {}, *reversed(rows)),
    )


# --- files ------------------------------------------------------------------------------------------------------


def style() -> str:
    """The explorers' style sheet as an element."""
    return f"<style>{_read('explorer.css')}</style>"


def script() -> str:
    """The explorer's script as a function of the mark that its elements carry and of the payload."""
    return "(function (mark, data) {\n'use strict';\n" + "\n".join(map(_read, SCRIPTS)) + "\n})"


def _read(name: str) -> str:
    return asset("explorer", name).read_text(encoding="utf-8")
