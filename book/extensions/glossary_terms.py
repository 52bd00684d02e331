"""Sphinx extension: terms of the glossary become links that carry their entry, once a page.

Chapters are plain Markdown without roles, so the first mention of a term in running text is found here. The entry is
the link's title, hence in the page itself; `assets/glossary.js` shows it on hover, focus and touch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"
"""The page with the entries."""
LEFT_OUT = ("book/api/", GLOSSARY)
"""Beginnings of the names of pages on which nothing is linked."""
NO_PROSE = (nodes.table, nodes.figure, nodes.topic, nodes.footnote, nodes.citation, addnodes.desc)
"""What holds paragraphs that are not running text."""


class Entry(NamedTuple):
    """One entry of the glossary."""

    anchor: str
    terms: tuple[str, ...]
    text: str


def read_entries(doctree: nodes.document) -> tuple[Entry, ...]:
    """The entries of a glossary page, in its order."""
    return tuple(
        Entry(
            terms[0]["ids"][0],
            tuple(term.astext() for term in terms),
            " ".join(" ".join(definition.astext() for definition in item.findall(nodes.definition)).split()),
        )
        for glossary in doctree.findall(addnodes.glossary)
        for item in glossary.findall(nodes.definition_list_item)
        if (terms := list(item.findall(nodes.term)))
    )


def pattern(entries: Iterable[Entry]) -> re.Pattern[str]:
    """Finds whole terms, singular or plural, longest first; capitals matter where the glossary has one."""
    terms = sorted((term for entry in entries for term in entry.terms), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(_spelled, terms))})(?:s|es)?(?![\w-])")


def _spelled(term: str) -> str:
    first, rest = (re.escape(part) for part in (term[0], term[1:]))
    rest = rest.replace(r"\ ", r"\s+")  # a term may be broken over two lines
    return f"{first}{rest}" if term != term.lower() else f"[{first}{first.upper()}]{rest}"


def prose(doctree: nodes.document) -> Iterator[nodes.paragraph]:
    """Paragraphs of running text that every reader sees."""
    folded = 0
    for node in doctree.findall(lambda n: isinstance(n, nodes.paragraph | nodes.raw)):
        if isinstance(node, nodes.raw):
            folded += node.astext().count("<details") - node.astext().count("</details")
        elif not folded and not _is_elsewhere(node) and not any(isinstance(c, nodes.raw) for c in node):
            yield node


def _is_elsewhere(node: nodes.Node) -> bool:
    """Whether it stands in a table or a figure, or was printed by a cell."""
    above = node.parent
    while above is not None:
        if isinstance(above, NO_PROSE) or "cell_output" in above.get("classes", ()):
            return True
        above = above.parent
    return False


def link_terms(doctree: nodes.document, entries: Iterable[Entry], address: str) -> None:
    """Give links to the glossary their entries, and link the first mention of every other term.

    Args:
        doctree: a page, with its cross-references resolved; it is changed.
        entries: of the glossary.
        address: of the glossary, seen from the page.
    """
    waiting = {term.lower(): entry for entry in entries for term in entry.terms}
    by_address = {f"{address}#{entry.anchor}": entry for entry in entries}
    for link in doctree.findall(nodes.reference):
        if entry := by_address.get(link.get("refuri", "")):
            link["reftitle"], link["classes"] = entry.text, [*link["classes"], "rdk-term"]
            waiting = {term: other for term, other in waiting.items() if other is not entry}
    find = pattern(entries)
    for paragraph in list(prose(doctree)):
        for text in [child for child in paragraph if isinstance(child, nodes.Text)]:
            paragraph.replace(text, list(_linked(text.astext(), find, waiting, address)))


def _linked(text: str, find: re.Pattern[str], waiting: dict[str, Entry], address: str) -> Iterator[nodes.Node]:
    """The text in pieces; entries that were linked no longer wait."""
    end = 0
    for match in find.finditer(text):
        entry = _entry(match[0], waiting)
        if entry is None:
            continue
        yield nodes.Text(text[end : match.start()])
        yield nodes.reference(
            "",
            match[0],
            internal=True,
            refuri=f"{address}#{entry.anchor}",
            reftitle=entry.text,
            classes=["rdk-term"],
        )
        end = match.end()
        for term in entry.terms:
            waiting.pop(term.lower(), None)
    yield nodes.Text(text[end:])


def _entry(found: str, waiting: Mapping[str, Entry]) -> Entry | None:
    said = " ".join(found.lower().split())
    return next((waiting[s] for s in (said, said.removesuffix("s"), said.removesuffix("es")) if s in waiting), None)


def remember(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Read the glossary once all pages are read; after a change every page is written anew."""
    found = read_entries(env.get_doctree(GLOSSARY)) if GLOSSARY in env.found_docs else ()
    if found == getattr(env, "rdk_glossary", None):
        return ()
    env.rdk_glossary = found
    return env.found_docs


def link(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the terms of one page of the site."""
    entries = app.env.rdk_glossary
    if entries and app.builder.format == "html" and not page.startswith(LEFT_OUT):
        link_terms(doctree, entries, app.builder.get_relative_uri(page, GLOSSARY))


def setup(app: Sphinx) -> dict[str, bool]:
    """Link after all references are resolved."""
    app.connect("env-updated", remember)
    app.connect("doctree-resolved", link, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
