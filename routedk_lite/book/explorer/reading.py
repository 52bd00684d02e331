"""What the live explorer shows of one session: bundles, α, the answer token by token, and pairs where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ...answers.asking import Reading
from ...data.metrics import per_session
from ...data.sessions import Bundle, Session
from .data import STEPS, letter, marks, true_bundles, verdict_of
from .html import Column, heat_table, mark_legend, products_table, tag, true_column, truth_list, two


def reading_html(session: Session, names: Sequence[str], layers: Sequence[int], router: Reading, now: Reading) -> str:
    """Products with the true bundles, where they are known, those under the router's weights and those now; then α.

    Args:
        session: one without bundles was typed by a reader.
        names: the experts'.
        layers: numbers of the layers that have experts.
        router: what the model does when left alone.
        now: what it does with the present weights.
    """
    truth = true_bundles(session)
    columns = [true_column([sorted(bundle) for bundle in truth])] if truth else []
    columns += [_column("router", session, router, ""), _column("now", session, now, "rdkx-now")]
    parts = [
        products_table(f"Session {session.called}" if session.id >= 0 else "Your session", session.titles, columns)
    ]
    if truth:
        parts.append(mark_legend())
    if session.intents:
        said = dict(zip(session.bundles, session.intents, strict=True))
        parts.append(truth_list([sorted(bundle) for bundle in truth], [said[bundle] for bundle in truth]))
    by = f"are read from the model's {'text' if now.pairs is None else 'pairs'}"
    if now.n_samples:
        by = f"are the consensus of {now.n_samples} sampled answers"
    parts.append(tag("p", {"class": "rdkx-soft"}, f"Bundles {by}."))
    right = [heat_table(names, layers, now.alpha.tolist()), _tokens(now)]
    if now.pairs is not None:
        right.append(_pairs(now.pairs))
    inside = tag("div", {}, *parts) + tag("div", {}, *right)
    return tag("div", {"class": "rdkx rdkx-bare"}, tag("div", {"class": "rdkx-main"}, inside))


def _column(name: str, session: Session, reading: Reading, kind: str) -> Column:
    truth = true_bundles(session)
    if not truth:  # nobody has annotated what a reader types
        groups: list[Bundle] = sorted({b for b in reading.bundles if len(b) > 1}, key=sorted)
        return Column(name, [[sorted(b), "true", letter(i), i] for i, b in enumerate(groups)], kind)
    scores = per_session({session.id: reading.bundles}, [session], "strict")
    f1, exact = float(scores.f1[0]), float(scores.exact_match[0])
    return Column(name, marks(reading.bundles, truth), kind, round(STEPS * f1), verdict_of(f1, exact))


def _tokens(reading: Reading) -> str:
    """The tokens of the greedy answer, each with its probability and what else it might have been."""
    rows = []
    for token in reading.tokens:
        others = ", ".join(f"{_visible(text)} {two(p)}" for text, p in token.others)
        bar = tag("span", {"class": "rdkx-bar", "style": f"--a:{token.probability:.3f};--c:var(--accent)"})
        given = tag("span", {"class": "rdkx-soft"}, escape(token.given.strip())) if token.given else ""
        cells = [tag("th", {"scope": "row"}, given, tag("code", {}, escape(_visible(token.text))))]
        cells += [tag("td", {}, bar), tag("td", {"class": "rdkx-num"}, two(token.probability))]
        rows.append(tag("tr", {}, *cells, tag("td", {"class": "rdkx-soft"}, escape(others))))
    heads = [tag("th", {"scope": "col"}, name) for name in ("token", "", "probability", "or else")]
    return tag(
        "table",
        {"class": "rdkx-tokens"},
        tag("caption", {}, "The greedy answer, token by token"),
        tag("thead", {}, tag("tr", {}, *heads)),
        tag("tbody", {}, *rows),
    )


def _visible(text: str) -> str:
    return text.replace("\n", "⏎").replace(" ", "␣") or "∅"


def _pairs(pairs: np.ndarray) -> str:
    """Probability of every two items to belong together."""
    numbers = range(1, len(pairs) + 1)
    heads = [tag("th", {"scope": "col"}, str(n)) for n in numbers]
    rows = [
        tag(
            "tr",
            {},
            tag("th", {"scope": "row"}, str(i)),
            *(
                tag("td", {"style": f"--a:{p:.3f}"}, two(p)) if i != j else tag("td", {}, "")
                for j, p in zip(numbers, row, strict=True)
            ),
        )
        for i, row in zip(numbers, pairs, strict=True)
    ]
    return tag(
        "table",
        {"class": "rdkx-heat"},
        tag("caption", {}, "How likely two products belong together"),
        tag("thead", {}, tag("tr", {}, tag("th", {"scope": "col"}, "product"), *heads)),
        tag("tbody", {}, *rows),
    )
