"""Sphinx extension: the docstring below a field is plain text.

Napoleon reads "Test split only: the nearest sessions" below a field as "type: description". An empty first
line keeps it from looking for a type there; the type stands in the signature.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def shield(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put an empty line before the docstrings of fields, constants and properties."""
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, whose handler has the default priority of 500."""
    app.connect("autodoc-process-docstring", shield, priority=400)
    return {"parallel_read_safe": True}
