"""The router explorer: play with a router's weights in the page itself, without a kernel.

One object that shows itself wherever HTML is shown: in the book, offline, in JupyterLab, VS Code and Colab. Everything
it needs stands inside it. Without JavaScript it is a table. `explorer_live.LiveExplorer` asks a real model instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .explorer_data import STEPS, find_source, payload
from .explorer_html import (
    SIGNS,
    Column,
    heat_table,
    hidden,
    products_table,
    script,
    style,
    tag,
    true_column,
    truth_list,
    two,
)
from .files import atomic_write
from .mixtures import changed_alpha

FUSIONS = {"dynamic": "router (dynamic)", "static": "static", "average": "average", "mix": "own mix"}
"""Where α comes from, and what the page calls it."""


class RouterExplorer:
    """What a router does with some thirty test sessions, to be shown by a notebook or saved as a page.

    Args:
        data: a payload, from `explorer_data.payload`.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)

    @classmethod
    def from_results(
        cls, results: str | Path, profile: str, domain: str, *, seed: int = 0, label: str = ""
    ) -> RouterExplorer:
        """The explorer of a recorded study. Titles of products come from the domain's own files.

        Args:
            results: folder of the records.
            profile, domain, seed: which study.
            label: where the numbers come from, if not what the record says.

        Raises:
            ValueError: the study has not recorded what is needed; the message says how it is made.
            DownloadError: the domain is neither cached nor to be had.
        """
        return cls(payload(find_source(results, profile, domain, seed), label))

    @property
    def n_bytes(self) -> int:
        """Size of the payload as it stands in the page."""
        return len(self._json().encode())

    def alpha(self, session: int) -> np.ndarray:
        """The router's α for one of the sessions shown.

        Shapes:
            → (L, E)

        Raises:
            ValueError: the session is not shown.
        """
        return changed_alpha(np.array(self._session(session)["alpha"]) / STEPS)

    @property
    def _first(self) -> Mapping[str, Any]:
        """The session that is shown at first: the one on which methods differ most."""
        return self.data["sessions"][self.data["first"]]

    def _session(self, id_: int) -> Mapping[str, Any]:
        for session in self.data["sessions"]:
            if session["id"] == id_:
                return session
        shown = ", ".join(str(s["id"]) for s in self.data["sessions"])
        raise ValueError(f"session {id_!r} is not shown here; these are: {shown}")

    # --- ways to show it --------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        """The methods' strict F1 on every session shown, as text."""
        methods = self.data["methods"]
        lines = [f"RouterExplorer: {self.data['title']}. {self.data['source']}"]
        lines.append("session  " + "  ".join(f"{name:>9}" for name in methods))
        for session in self.data["sessions"]:
            answers = [session["answers"][place] for place in _places(session, methods)]
            cells = "  ".join(f"{SIGNS[verdict]} {two(f1 / STEPS):>7}" for _, f1, verdict in answers)
            lines.append(f"{session['id']:>7}  {cells}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        mark = hashlib.sha256(self._json().encode()).hexdigest()[:10]  # the same payload gives the same page
        body = tag(
            "div",
            {"class": "rdkx-in", "role": "region", "aria-label": f"Router explorer: {self.data['title']}"},
            self._head(),
            self._controls(),
            self._main(),
            self._more(),
            self._notes(),
            tag("div", {"class": "rdkx-vh", "role": "status", "aria-live": "polite", "data-x": "live"}),
        )
        without = "<noscript><style>.rdkx-js{display:none!important}</style></noscript>"
        call = f"<script>{script()}({json.dumps(mark)}, {self._json()});</script>"
        return tag("div", {"class": "rdkx", "data-rdkx": mark}, style(), without, body) + call

    def save(self, path: str | Path, *, title: str = "") -> Path:
        """Write the explorer as a page of its own, which needs no other file and no network."""
        head = f"<meta charset='utf-8'><title>{escape(title or 'Router explorer: ' + self.data['title'])}</title>"
        look = (
            "<meta name='viewport' content='width=device-width, initial-scale=1'><style>:root{color-scheme:light dark}"
            "body{margin:0 auto;padding:8px;max-width:1280px;background:light-dark(#fff,#0d1014)}"
            "h1{font:600 20px system-ui,sans-serif;margin:8px 0;color:light-dark(#1a1f26,#e8ecf1)}</style>"
        )
        heading = f"<h1>{escape(title or 'How the router decides')}</h1>"
        page = (
            f"<!doctype html><html lang='en'><head>{head}{look}</head><body><main>{heading}{self._repr_html_()}</main>"
        )
        path = Path(path)
        with atomic_write(path) as file:
            file.write(f"{page}</body></html>\n")
        return path

    def _json(self) -> str:
        """The payload, safe inside a script element whatever the titles hold."""
        text = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text

    # --- its parts --------------------------------------------------------------------------------------------

    def _head(self) -> str:
        groups: dict[str, list[str]] = {}
        for place, session in enumerate(self.data["sessions"]):
            name = f"Session {session['id']} · {len(session['titles'])} products"
            option = tag("option", {"value": place, "selected": place == self.data["first"]}, escape(name))
            groups.setdefault(session["why"], []).append(option)
        choices = [tag("optgroup", {"label": why}, *options) for why, options in groups.items()]
        select = tag("select", {"data-x": "session", "disabled": True, "aria-label": "session"}, *choices)
        return tag(
            "div",
            {"class": "rdkx-head"},
            tag("div", {"class": "rdkx-title"}, escape(f"Router explorer: {self.data['title']}")),
            tag(
                "div",
                {"class": "rdkx-pick rdkx-js"},
                tag(
                    "button",
                    {"type": "button", "data-x": "before", "disabled": True, "aria-label": "session before"},
                    "‹",
                ),
                tag("label", {}, select),
                tag(
                    "button", {"type": "button", "data-x": "after", "disabled": True, "aria-label": "next session"}, "›"
                ),
            ),
        )

    def _controls(self) -> str:
        radios = []
        for value, name in FUSIONS.items():
            if value == "mix" and len(self.data["experts"]) != 3:
                continue
            button = {
                "type": "radio",
                "data-x": "fusion",
                "value": value,
                "checked": value == "dynamic",
                "disabled": True,
            }
            radios.append(tag("label", {}, tag("input", button), escape(name)))
        mean = self.alpha(self._first["id"]).mean(0)
        switches = []
        for i, (name, weight) in enumerate(zip(self.data["experts"], mean, strict=True)):
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
        source = tag(
            "fieldset", {}, tag("legend", {}, "Weights α from"), tag("div", {"class": "rdkx-options"}, *radios)
        )
        experts = tag("fieldset", {}, tag("legend", {}, "Experts, and their mean weight"), *switches)
        return tag(
            "div",
            {"class": "rdkx-controls rdkx-js"},
            tag("div", {"class": "rdkx-stacked"}, source, heat),
            tag("div", {"class": "rdkx-stacked"}, experts, reset),
        )

    def _main(self) -> str:
        first = self._first
        methods = self.data["methods"]
        columns = [true_column(first["truth"])]
        for name, place in zip(methods, _places(first, methods), strict=True):
            marks, f1, verdict = first["answers"][place]
            shown = f"vote of {len(first['votes']['drawn'])}" if name == "vote" else name
            columns.append(Column(shown, marks, "", f1, verdict))
        now = first["answers"][first["methods"]["dynamic"]]
        columns.append(Column("now", now[0], "rdkx-now", *now[1:]))
        samples = [("whole", "A", "whole: exactly a true bundle", 0), ("part", "A", "over-cut: only a part of one", 0),
                   ("miss", "×", "miss: fits into none", -1)]  # fmt: skip
        key = [
            tag(
                "li",
                {},
                tag("span", {"class": f"rdkx-k rdkx-{kind}{' rdkx-t0' if t == 0 else ''}"}, label),
                escape(text),
            )
            for kind, label, text, t in samples
        ]
        lines = {"viewBox": "0 0 330 224", "role": "img", "data-x": "lines", "aria-label": "α over the layers"}
        return tag(
            "div",
            {"class": "rdkx-main"},
            tag(
                "div",
                {},
                products_table(f"Session {first['id']}, where {first['why']}", first["titles"], columns),
                truth_list(first["truth"], first["intents"]),
                tag("ul", {"class": "rdkx-key", "aria-label": "marks"}, *key),
                tag("p", {"class": "rdkx-says rdkx-js", "data-x": "now"}),
                tag("p", {"class": "rdkx-js", "data-x": "alone"}, "&nbsp;"),
            ),
            tag(
                "div",
                {},
                tag(
                    "div",
                    {"class": "rdkx-two"},
                    heat_table(self.data["experts"], self.data["layers"], self.alpha(first["id"]).tolist()),
                    tag("div", {"class": "rdkx-js"}, tag("svg", lines)),
                ),
                tag("p", {"class": "rdkx-soft rdkx-js", "data-x": "entropy", "style": "min-height:2.9em"}),
            ),
        )

    def _more(self) -> str:
        n = len(self._first["votes"]["drawn"])
        figures = [
            tag(
                "figure",
                {},
                tag("figcaption", {}, f"Where this session stands among all {self.data['test_sessions']}"),
                tag("svg", {"viewBox": "0 0 330 256", "data-x": "cloud"}),
            )
        ]
        if len(self.data["experts"]) == 3:
            figures.append(
                tag(
                    "figure",
                    {},
                    tag("figcaption", {}, "Its answer under every mixture of the experts"),
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

    def _notes(self) -> str:
        same, asked = self.data["same"]
        signs = ", ".join(f"{SIGNS[v]} {v}" for v in SIGNS)
        notes = [
            f"Signs: {signs}. An answer is exact when its bundles are just the true ones; partly right when its "
            "strict F1 is above zero. An over-cut counts as a hit, so that an answer can have an F1 of one and still "
            "not be exact.",
            "Arithmetic, done in this page: α under another temperature or without an expert, entropies, and votes.",
            "Answers under changed α need the model. They were computed beforehand, with exactly these weights, at "
            f"temperatures {', '.join(f'{t:g}' for t in self.data['temperatures'])} and for mixtures in steps of "
            f"1/{self.data['parts']}; between two temperatures the nearest one's answer is shown.",
            f"At unchanged weights this gave the recorded answer in {same} of {asked} sessions.",
            self.data["answers_by"],
            f"The {len(self.data['sessions'])} sessions are chosen because methods part ways on them. What is frequent "
            f"here is not frequent among all {self.data['test_sessions']} test sessions.",
            "In the scatter, signs are sessions to choose and dots are the others; + is the mean of the weights now. "
            "In the triangle every sign is an answer: choose one to mix the experts so in every layer.",
        ]
        how = tag(
            "details",
            {},
            tag("summary", {}, "How to read this"),
            tag("ul", {}, *(tag("li", {}, escape(n)) for n in notes)),
        )
        source = tag("p", {"class": "rdkx-soft"}, escape(f"{self.data['title']}. {self.data['source']}"))
        noscript = tag("noscript", {}, tag("p", {}, "Controls and charts need JavaScript; the tables do not."))
        return tag("div", {}, how, source, noscript)


def _places(session: Mapping[str, Any], methods: Sequence[str]) -> list[int]:
    """The answer of each method, the vote's that of all draws."""
    return [session["votes"]["winner"] if name == "vote" else session["methods"][name] for name in methods]
