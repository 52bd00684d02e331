"""Sphinx extension: repairs that make the API page readable."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

# A default that has no Python spelling: <factory>, <function f.<lambda>>.
UNSPEAKABLE = re.compile(r"= <(?:[^<>]|<[^<>]*>)*>")
PLAIN = {"attribute", "data", "property"}
_written: dict[str, list[str]] = {}


def keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Remember the docstrings of fields, constants and properties as they were written.

    Those that Python itself makes up for the fields of a named tuple say nothing, and are dropped.
    """
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    if what in PLAIN:
        _written[name] = [*lines]


def put_back(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Read them as all other docstrings; napoleon took "Test split only: the nearest" for "type: description"."""
    if what in PLAIN:
        lines[:] = GoogleDocstring(_written.pop(name), app.config).lines()


def elide(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write `...` for a default that is no Python expression; Sphinx would not parse the signature at all."""
    return UNSPEAKABLE.sub("= ...", signature) if signature else signature, returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before and after napoleon, whose handler has the default priority of 500."""
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
    app.connect("autodoc-process-signature", elide)
    return {"parallel_read_safe": True}
