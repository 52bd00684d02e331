"""Sphinx extension: two repairs that make the API page readable."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

# A default that has no Python spelling: <factory>, <function f.<lambda>>.
UNSPEAKABLE = re.compile(r"= <(?:[^<>]|<[^<>]*>)*>")


def keep_plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put an empty line before the docstrings of fields, constants and properties.

    Napoleon reads "Test split only: the nearest sessions" as "type: description" otherwise.
    """
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "")


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
    """Run before napoleon, whose handler has the default priority of 500."""
    app.connect("autodoc-process-docstring", keep_plain, priority=400)
    app.connect("autodoc-process-signature", elide)
    return {"parallel_read_safe": True}
