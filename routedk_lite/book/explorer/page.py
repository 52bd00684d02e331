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
    hidden,
    mark_legend,
    products_table,
    tag,
    true_column,
    truth_list,
    two,
)

FUSIONS = {"dynamic": "router (dynamic)", "static": "static", "average": "average", "mix": "own mix"}
"""Where α comes from, and what the page calls it."""


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
    )


def controls(data: Mapping[str, Any]) -> str:
    """Where α comes from, and how it is changed."""
    radios = []
    for value, name in FUSIONS.items():
        if value == "mix" and len(data["experts"]) != 3:
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
        bar = {"class": "rdkx-bar", "data-x": "bar", "style": f"--c:var(--e{i % 4});--a:{weight:.4f}"}
        number = tag("span", {"class": "rdkx-num", "data-x": "mean"}, two(weight))
        switches.append(
            tag("div", {"class": "rdkx-switch"}, tag("label", {}, box, escape(name)), tag("span", bar), number)
        )
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
    experts = tag("fieldset", {}, tag("legend", {}, "Experts, and their mean weight"), *switches)
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
    """All sessions, all mixtures, and the vote."""
    n = len(first_session(data)["votes"]["drawn"])
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
    slider = {"type": "range", "min": 1, "max": n, "step": 1, "value": n, "data-x": "n", "disabled": True}
    voters = tag("label", {}, hidden("number of votes"), tag("input", slider))
    play = tag("button", {"type": "button", "data-x": "play", "disabled": True}, "Play")
    votes = tag(
        "div",
        {"class": "rdkx-wide"},
        tag(
            "p",
            {"class": "rdkx-caption"},
            "The first ",
            tag("output", {"data-x": "voters"}, str(n)),
            f" of {n} sampled answers vote (dynamic)",
        ),
        tag("ul", {"class": "rdkx-votes", "data-x": "votes", "aria-label": "answers and their votes"}),
        tag("div", {"class": "rdkx-line"}, voters, play),
        tag(
            "div",
            {"class": "rdkx-strip", "data-x": "strip", "role": "img", "style": f"--of:{n}", "aria-label": "-"},
        ),
        tag("p", {"class": "rdkx-soft"}, "Below the slider: what the winner is worth at every number of votes."),
    )
    return tag("div", {"class": "rdkx-more rdkx-js"}, *figures, votes)


def notes(data: Mapping[str, Any]) -> str:
    """How to read it, and where the numbers come from."""
    same, asked = data["same"]
    signs = ", ".join(f"{SIGNS[v]} {v}" for v in SIGNS)
    said = [
        f"Signs: {signs}. An answer is exact when its bundles are just the true ones; partly right when its "
        "strict F1 is above zero. An over-cut counts as a hit, so that an answer can have an F1 of one and still "
        "not be exact.",
        "Arithmetic, done in this page: α under another temperature or without an expert, entropies, and votes.",
        "Answers under changed α need the model. They were computed beforehand, with exactly these weights, at "
        f"temperatures {', '.join(f'{t:g}' for t in data['temperatures'])} and for mixtures in steps of "
        f"1/{data['parts']}; between two temperatures the nearest one's answer is shown.",
        f"At unchanged weights this gave the recorded answer in {same} of {asked} sessions.",
        data["answers_by"],
        f"The {len(data['sessions'])} sessions are chosen because methods part ways on them. What is frequent "
        f"here is not frequent among all {data['test_sessions']} test sessions.",
        "In the scatter, signs are sessions to choose and dots are the others; + is the mean of the weights now. "
        "In the triangle every sign is an answer: choose one to mix the experts so in every layer.",
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
