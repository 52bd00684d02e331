"""The router explorer: play with a router's weights in the page itself, without a kernel.

One object that shows itself wherever HTML is shown: in the book, offline, in JupyterLab, VS Code and Colab. Everything
it needs stands inside it. Without JavaScript it is a table. `explorer_live.LiveExplorer` asks a real model instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_write
from .data import STEPS, find_source, payload
from .html import SIGNS, script, style, tag, two
from .page import alpha_of, head, notes, places, router_view, vote_view


class RouterExplorer:
    """What a router does with some thirty test sessions, to be shown by a notebook or saved as a page.

    Args:
        data: a payload, from `explorer_data.payload`.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)

    @classmethod
    def from_results(
        cls, results: str | Path, profile: str, domain: str | Path, *, seed: int = 0, label: str = ""
    ) -> RouterExplorer:
        """The explorer of a recorded study. Titles of products come from the domain's own files.

        Args:
            results: folder of the records.
            profile, domain, seed: which study; the domain may be a folder of sessions.
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

    def alpha(self, session: int | str) -> np.ndarray:
        """The router's α for one of the sessions shown.

        Shapes:
            → (L, E)

        Raises:
            ValueError: the session is not shown.
        """
        return alpha_of(self._session(session))

    def _session(self, id_: int | str) -> Mapping[str, Any]:
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
            answers = [session["answers"][place] for place in places(session, methods)]
            cells = "  ".join(f"{SIGNS[verdict]} {two(f1 / STEPS):>7}" for _, f1, verdict in answers)
            lines.append(f"{session['id']:>7}  {cells}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        mark = hashlib.sha256(self._json().encode()).hexdigest()[:10]  # the same payload gives the same page
        body = tag(
            "div",
            {"class": "rdkx-in", "role": "region", "aria-label": f"Router explorer: {self.data['title']}"},
            *(part(self.data) for part in (head, router_view, vote_view, notes)),
            tag("div", {"class": "rdkx-vh", "role": "status", "aria-live": "polite", "data-x": "live"}),
        )
        without = "<noscript><style>.rdkx-js{display:none!important}</style></noscript>"
        call = f"<script>{script()}({json.dumps(mark)}, {self._json()});</script>"
        return tag("div", {"class": "rdkx", "data-rdkx": mark}, style(), without, body) + call

    def save(self, path: str | Path, *, title: str = "") -> Path:
        """Write the explorer as a page of its own, which needs no other file and no network."""
        top = f"<meta charset='utf-8'><title>{escape(title or 'Router explorer: ' + self.data['title'])}</title>"
        look = (
            "<meta name='viewport' content='width=device-width, initial-scale=1'><style>:root{color-scheme:light dark}"
            "body{margin:0 auto;padding:8px;max-width:1280px;background:light-dark(#fff,#0d1014)}"
            "h1{font:600 20px system-ui,sans-serif;margin:8px 0;color:light-dark(#1a1f26,#e8ecf1)}</style>"
        )
        heading = f"<h1>{escape(title or 'How the router decides')}</h1>"
        page = (
            f"<!doctype html><html lang='en'><head>{top}{look}</head><body><main>{heading}{self._repr_html_()}</main>"
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
