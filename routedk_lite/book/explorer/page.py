"""The parts of the router explorer's page, as they stand there before its script runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ...study.mixtures import changed_alpha
from .data import ALPHA_STEPS
from .html import (
    SIGNS,
    Column,
    heat_table,
    mark_legend,
    products_table,
    tag,
    true_column,
    truth_list,
    two,
)

FUSIONS = {"dynamic": "router (dynamic)", "static": "static", "average": "average", "mix": "own mix"}
"""Where α comes from, and what the page calls it."""
VIEWS = {"router": "What the router does", "vote": "What a vote sees"}
"""The two sides of the page, of which one is shown."""


def first_session(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The session that is shown at first: the one on which methods differ most."""
    return data["sessions"][data["first"]]


def alpha_of(session: Mapping[str, Any]) -> np.ndarray:
    """The router's α for a session of the payload.

    Shapes:
        → (L, E)
    """
    return changed_alpha(np.array(session["alpha"]) / ALPHA_STEPS)


def places(session: Mapping[str, Any], methods: Sequence[str]) -> list[int]:
    """The answer of each method, the vote's that of all draws."""
    return [session["votes"]["winner"] if name == "vote" else session["methods"][name] for name in methods]


def head(data: Mapping[str, Any]) -> str:
    """The name, and which session is looked at."""
    groups: dict[str, list[str]] = {}
    for place, session in enumerate(data["sessions"]):
        name = f"Session {session['id']} · {len(session['titles'])} products"
        option = tag("option", {"value": place, "selected": place == data["first"]}, escape(name))
        groups.setdefault(session["why"], []).append(option)
    choices = [tag("optgroup", {"label": why}, *options) for why, options in groups.items()]
    select = tag("select", {"data-x": "session", "disabled": True, "aria-label": "session"}, *choices)
    return tag(
        "div",
        {"class": "rdkx-head"},
        tag("div", {"class": "rdkx-title"}, escape(f"Router explorer: {data['title']}")),
        tag(
            "div",
            {"class": "rdkx-pick rdkx-js"},
            tag(
                "button",
                {"type": "button", "data-x": "before", "disabled": True, "aria-label": "session before"},
                "‹",
            ),
            tag("label", {}, select),
            tag("button", {"type": "button", "data-x": "after", "disabled": True, "aria-label": "next session"}, "›"),
        ),
        tag(
            "div",
            {"class": "rdkx-line rdkx-between rdkx-js"},
            tag("div", {"class": "rdkx-views", "role": "radiogroup", "aria-label": "view"}, *map(_view, VIEWS)),
            tag("button", {"type": "button", "data-x": "copy", "disabled": True}, "Copy link"),
        ),
        tag("input", {"type": "text", "data-x": "link", "readonly": True, "hidden": True, "aria-label": "link"}),
        tag("p", {"class": "rdkx-said rdkx-js", "data-x": "said", "role": "status"}),
    )


def _view(name: str) -> str:
    button = {"type": "radio", "data-x": "view", "value": name, "checked": name == "router", "disabled": True}
    return tag("label", {}, tag("input", button), tag("span", {}, VIEWS[name]))


def router_view(data: Mapping[str, Any]) -> str:
    """Controls, products, α, and where all this stands among other sessions and mixtures."""
    parts = (controls(data), main(data), more(data))
    return tag("div", {"class": "rdkx-view", "data-x": "router-view"}, *parts)


def controls(data: Mapping[str, Any]) -> str:
    """Where α comes from, and how it is changed."""
    radios = []
    for value, name in FUSIONS.items():
        if value == "mix" and not _has_mixes(data):
            continue
        button = {
            "type": "radio",
            "data-x": "fusion",
            "value": value,
            "checked": value == "dynamic",
            "disabled": True,
        }
        radios.append(tag("label", {}, tag("input", button), escape(name)))
    mean = alpha_of(first_session(data)).mean(0)
    switches = []
    for i, (name, weight) in enumerate(zip(data["experts"], mean, strict=True)):
        box = tag("input", {"type": "checkbox", "data-x": "on", "checked": True, "disabled": True})
        share = {
            "type": "range", "min": 0, "max": 100, "step": 1, "value": round(100 * weight), "data-x": "share",
            "disabled": True, "aria-label": f"weight of {name}", "style": f"--c:var(--e{i % 4})",
        }  # fmt: skip
        slider = tag("input", share) if _has_mixes(data) else tag("span", {})
        number = tag("span", {"class": "rdkx-num", "data-x": "mean"}, two(weight))
        switches.append(tag("div", {"class": "rdkx-switch"}, tag("label", {}, box, escape(name)), slider, number))
    slider = {
        "type": "range", "min": -2, "max": 3, "step": 0.25, "value": 0, "data-x": "temperature", "disabled": True,
        "aria-valuetext": "1.00",
    }  # fmt: skip
    scale = tag("span", {}, "sharper") + tag("span", {}, "flatter")
    heat = tag(
        "div",
        {"data-x": "heat-off"},
        tag(
            "label",
            {},
            tag("span", {"class": "rdkx-name"}, "Temperature of the softmax: "),
            tag("output", {"class": "rdkx-name", "data-x": "degree"}, "1.00"),
            tag("input", slider),
        ),
        tag("div", {"class": "rdkx-scale rdkx-soft", "aria-hidden": "true"}, scale),
    )
    reset = tag("button", {"type": "button", "data-x": "reset", "disabled": True}, "Back to the router")
    source = tag("fieldset", {}, tag("legend", {}, "Weights α from"), tag("div", {"class": "rdkx-options"}, *radios))
    note = tag("p", {"class": "rdkx-soft rdkx-note", "data-x": "note"})
    experts = tag("fieldset", {}, tag("legend", {}, "Experts, and their mean weight"), *switches, note)
    return tag(
        "div",
        {"class": "rdkx-controls rdkx-js"},
        tag("div", {"class": "rdkx-stacked"}, source, heat),
        tag("div", {"class": "rdkx-stacked"}, experts, reset),
    )


def main(data: Mapping[str, Any]) -> str:
    """Products with everybody's bundles, and α."""
    first = first_session(data)
    methods = data["methods"]
    columns = [true_column(first["truth"])]
    for name, place in zip(methods, places(first, methods), strict=True):
        marks, f1, verdict = first["answers"][place]
        shown = f"vote of {len(first['votes']['drawn'])}" if name == "vote" else name
        columns.append(Column(shown, marks, "", f1, verdict))
    now = first["answers"][first["methods"]["dynamic"]]
    columns.append(Column("now", now[0], "rdkx-now", *now[1:]))
    lines = {"viewBox": "0 0 330 224", "role": "img", "data-x": "lines", "aria-label": "α over the layers"}
    return tag(
        "div",
        {"class": "rdkx-main"},
        tag(
            "div",
            {},
            products_table(f"Session {first['id']}, where {first['why']}", first["titles"], columns),
            truth_list(first["truth"], first["intents"]),
            mark_legend(),
            tag("p", {"class": "rdkx-says rdkx-js", "data-x": "now"}),
            tag("p", {"class": "rdkx-js", "data-x": "alone"}, "&nbsp;"),
        ),
        tag(
            "div",
            {},
            tag(
                "div",
                {"class": "rdkx-two"},
                heat_table(data["experts"], data["layers"], alpha_of(first).tolist()),
                tag("div", {"class": "rdkx-js"}, tag("svg", lines)),
            ),
            tag("p", {"class": "rdkx-soft rdkx-js", "data-x": "entropy", "style": "min-height:2.9em"}),
        ),
    )


def more(data: Mapping[str, Any]) -> str:
    """All sessions, and all mixtures."""
    figures = [
        tag(
            "figure",
            {},
            tag("figcaption", {}, f"Where this session stands among all {data['test_sessions']}"),
            tag("svg", {"viewBox": "0 0 330 256", "data-x": "cloud"}),
        )
    ]
    if len(data["experts"]) == 3:
        figures.append(
            tag(
                "figure",
                {},
                tag("figcaption", {}, "Its answer under every mixture"),
                tag("svg", {"viewBox": "0 0 330 256", "data-x": "map"}),
            )
        )
    return tag("div", {"class": "rdkx-more rdkx-js"}, *figures)


def vote_view(data: Mapping[str, Any]) -> str:
    """Candidates, and whom majority and consensus pick among the first N."""
    last = len(data["sizes"]) - 1
    slider = {"type": "range", "min": 0, "max": last, "step": 1, "value": last, "data-x": "n", "disabled": True}
    marks = [tag("span", {"data-x": "stop"}, str(n)) for n in data["sizes"]]
    number = tag(
        "div",
        {"class": "rdkx-line"},
        tag(
            "div",
            {"class": "rdkx-grow"},
            tag("label", {}, tag("span", {"class": "rdkx-name"}, "N, the answers that are in"), tag("input", slider)),
            tag("div", {"class": "rdkx-scale rdkx-stops", "aria-hidden": "true"}, *marks),
        ),
        tag("button", {"type": "button", "data-x": "play", "disabled": True}, "Play"),
    )
    how = (
        "★ Majority picks the answer that came most often. ◆ Consensus picks the one that agrees best with all: its "
        "mean strict F1 as if each answer in turn were the truth, plus "
        f"{data['exact_weight']:g} times its share; it may be one that nobody wrote. Neither sees the true "
        f"bundles. Strict F1 forgives over-cuts: an answer can have 1.00 and be partly right ({SIGNS['partly']})."
    )
    answers = {"class": "rdkx-answers", "data-x": "answers"}
    return tag(
        "div",
        {"class": "rdkx-view rdkx-js", "data-x": "vote-view", "hidden": True},
        tag("div", {"class": "rdkx-panel"}, number),
        tag(
            "div",
            {"class": "rdkx-main"},
            tag("div", {}, tag("table", answers), tag("p", {"class": "rdkx-soft"}, how)),
            tag(
                "div",
                {},
                tag("table", {"class": "rdkx-growth", "data-x": "growth"}),
                tag("p", {"class": "rdkx-picks", "data-x": "picks"}),
                tag("table", {"class": "rdkx-products", "role": "table", "data-x": "picked", "style": "--columns:3"}),
            ),
        ),
        tag("p", {"class": "rdkx-soft"}, escape(_sampled(data))),
    )


def _has_mixes(data: Mapping[str, Any]) -> bool:
    return any(text.startswith("mix ") for text in data["settings"])


def _sampled(data: Mapping[str, Any]) -> str:
    n = len(first_session(data)["votes"]["drawn"])
    return (
        f"Source: {n} answers per session that the student wrote under the dynamic fusion, recorded in the order in "
        "which they were drawn. They do not follow the weights of the other view."
    )


def notes(data: Mapping[str, Any]) -> str:
    """How to read it, and where the numbers come from."""
    same, asked = data["same"]
    signs = ", ".join(f"{SIGNS[v]} {v}" for v in SIGNS)
    said = [
        f"Signs: {signs}. An answer is exact when its bundles are just the true ones; partly right when its "
        "strict F1 is above zero. An over-cut counts as a hit, so that an answer can have an F1 of one and still "
        "not be exact.",
        "Arithmetic, done in this page: α under another temperature, without an expert or in a mix, entropies, votes, "
        "and how well an answer agrees with the others. What consensus picks was computed beforehand.",
        "Answers under changed α need the model. They were computed beforehand, with exactly these weights, at "
        f"temperatures {', '.join(f'{t:g}' for t in data['temperatures'])} and for mixtures in steps of "
        f"1/{data['parts']}; between two of them the nearest one's answer is shown.",
        f"At unchanged weights this gave the recorded answer in {same} of {asked} sessions.",
        data["answers_by"],
        f"The {len(data['sessions'])} sessions are chosen because methods part ways on them. What is frequent "
        f"here is not frequent among all {data['test_sessions']} test sessions.",
        "In the scatter, signs are sessions to choose and dots are the others; + is the mean of the weights now. "
        "In the triangle every sign is an answer: choose one to mix the experts so in every layer.",
        "The address of a page of its own follows the controls: what is looked at can be sent as a link.",
    ]
    how = tag(
        "details",
        {},
        tag("summary", {}, "How to read this"),
        tag("ul", {}, *(tag("li", {}, escape(n)) for n in said)),
    )
    source = tag("p", {"class": "rdkx-soft"}, escape(f"{data['title']}. {data['source']}"))
    noscript = tag("noscript", {}, tag("p", {}, "Controls and charts need JavaScript; the tables do not."))
    return tag("div", {}, how, source, noscript)
