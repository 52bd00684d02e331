"""Sphinx extension: repairs of the pages' HTML for screen readers."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

REPAIRS = {
    # Docutils calls a list of citations a list, but not its entries, and gives these a role that was withdrawn.
    ' role="list" class="citation-list"': ' class="citation-list"',
    ' role="doc-biblioentry"': "",
    # A folded cell says what it does; a label that says something else is read out instead.
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # A table that is wider than the page scrolls, by keyboard too.
    '<div class="pst-scrollable-table-container">': '<div class="pst-scrollable-table-container" tabindex="0">',
}


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Change the body of a page just before it is written."""
    for wrong, right in REPAIRS.items():
        context["body"] = context.get("body", "").replace(wrong, right)


def without_kernels(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Take out the scripts of a button that these pages do not have; the theme writes one of them twice, an error."""

    def kernels(script: Any) -> bool:
        return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}".lower()

    context["script_files"] = [script for script in context.get("script_files", ()) if not kernels(script)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Run on every page."""
    app.connect("html-page-context", repair)
    app.connect("html-page-context", without_kernels, priority=950)  # after all that add scripts
    return {"parallel_read_safe": True}
