"""The first mention of a term on a page carries its entry: for the mouse, the keyboard and a finger."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from docutils import nodes
from docutils.utils import new_document
from hypothesis import given
from hypothesis import strategies as st

EXTENSIONS, ASSETS = ROOT / "book" / "extensions", ROOT / "book" / "assets"
PAGE = "book/glossary.html"


def load_extension():
    """The extension as a module; Sphinx finds it by its folder."""
    spec = importlib.util.spec_from_file_location("glossary_terms", EXTENSIONS / "glossary_terms.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["glossary_terms"] = module
    spec.loader.exec_module(module)
    return module


terms = load_extension()
ENTRIES = tuple(
    terms.Entry(f"term-{names[0].replace(' ', '-')}", names, f"About {names[0]}.")
    for names in [("bundle",), ("expert",), ("base expert",), ("TIES",), ("alpha", "α"), ("loss",), ("strict F1",)]
)


def page(*children: nodes.Node) -> nodes.document:
    document = new_document("page")
    document.extend(children)
    return document


def says(text: str) -> nodes.paragraph:
    return nodes.paragraph("", text)


def linked(document: nodes.document) -> list[tuple[str, str]]:
    """What is linked, and to which entry."""
    terms.link_terms(document, ENTRIES, PAGE)
    found = document.findall(lambda n: isinstance(n, nodes.reference) and "rdk-term" in n["classes"])
    return [(n.astext(), n["refuri"].partition("#term-")[2]) for n in found]


# --- which words are linked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A bundle, another bundle.", [("bundle", "bundle")]),
        ("Bundles and losses", [("Bundles", "bundle"), ("losses", "loss")]),
        ("the base expert, then an expert", [("base expert", "base-expert"), ("expert", "expert")]),
        ("TIES ties ties", [("TIES", "TIES")]),
        ("what ties them", []),
        ("α and alpha", [("α", "alpha")]),
        ("a strict\nF1, in the strict F1", [("strict\nF1", "strict-F1")]),
        ("expert-made, unbundled, re-expert, experts2", []),
        ("experts' bundle", [("experts", "expert"), ("bundle", "bundle")]),
        ("", []),
    ],
)
def test_first_mentions_in_running_text(text, expected):
    document = page(says(text))
    assert linked(document) == expected
    assert document.astext() == text


def test_what_is_linked_has_its_address_and_its_entry():
    document = page(says("One bundle."))
    linked(document)
    (found,) = document.findall(nodes.reference)
    assert (found["refuri"], found["reftitle"], found["internal"]) == (f"{PAGE}#term-bundle", "About bundle.", True)


def test_nothing_else_than_running_text_is_touched():
    row = nodes.row("", nodes.entry("", says("a bundle")))
    table = nodes.table("", nodes.tgroup("", nodes.tbody("", row), cols=1))
    kinds = (nodes.literal, nodes.strong, nodes.emphasis, nodes.math)
    link = nodes.reference("", "bundle", refuri="elsewhere.html")
    inline = [*(kind("", "bundle") for kind in kinds), link]
    printed = nodes.container("", says("a bundle"), classes=["cell_output"])
    figure = nodes.figure("", nodes.caption("", "a bundle"), nodes.legend("", says("a bundle")))
    section = nodes.section("", nodes.title("", "The bundle"), nodes.literal_block("", "bundle"))
    html = nodes.paragraph("", "", nodes.raw("", "<i>", format="html"), nodes.Text("bundle"))
    assert linked(page(section, table, printed, figure, html, nodes.paragraph("", "", *inline))) == []


def test_folded_solutions_wait_for_the_first_mention_outside():
    opened, closed = (nodes.raw("", f"<{slash}details>", format="html") for slash in ("", "/"))
    hidden, seen = says("the bundle inside"), says("the bundle outside")
    assert linked(page(opened, hidden, closed, seen)) == [("bundle", "bundle")]
    assert not list(hidden.findall(nodes.reference)) and list(seen.findall(nodes.reference))


def test_a_role_counts_as_the_mention_and_gets_the_entry():
    role = nodes.reference("", "", nodes.inline("", "bundles", classes=["std-term"]), refuri=f"{PAGE}#term-bundle")
    document = page(says("a bundle first"), nodes.paragraph("", "", role))
    assert linked(document) == [("bundles", "bundle")]
    assert role["reftitle"] == "About bundle."


@given(st.lists(st.sampled_from([*"ab,-. ", "bundle", "Expert", "experts", "base expert", "TIES", "α", "losses"])))
def test_text_stays_and_no_entry_is_linked_twice(pieces):
    text = "".join(pieces)
    document = page(says(text), says(text))
    entries = [entry for _, entry in linked(document)]
    assert document.astext() == f"{text}\n\n{text}" and len(entries) == len(set(entries))


# --- the book's glossary --------------------------------------------------------------------------------------------


def test_every_role_on_a_page_names_a_term():
    glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    known = {line.lower() for line in glossary.partition(":sorted:")[2].splitlines() if re.match(r"\w", line)}
    role = r"\{term\}`(?:[^`<]*<([^>]+)>|([^`]+))`"
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("*.md"))]
    asked = {(target or text).lower() for page in pages for target, text in re.findall(role, page)}
    assert len(known) > 35 and len(asked) > 15
    assert not asked - known


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site of the book's glossary and one page, with the book's script and colours."""
    build = pytest.importorskip("sphinx.cmd.build")
    pytest.importorskip("myst_parser")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    (source / "book").mkdir()
    shutil.copy(ROOT / "book" / "glossary.md", source / "book")
    (source / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXTENSIONS)!r})\n"
        "extensions = ['myst_parser', 'glossary_terms']\nroot_doc = 'index'\nhtml_theme = 'basic'\n"
        f"html_static_path = [{str(ASSETS)!r}]\nhtml_css_files = ['routedk.css']\nhtml_js_files = ['glossary.js']\n"
    )
    (source / "index.md").write_text(
        "# A bundle\n\nAn expert finds a bundle. The {term}`router` weighs experts.\n\n`bundle`\n\n"
        "```{toctree}\nbook/glossary\n```\n" + "\n".join("line\n" for _ in range(80)),
        encoding="utf-8",
    )
    assert build.build_main(["-q", "-b", "html", str(source), str(made)]) == 0
    return made


def test_the_page_holds_the_entries_themselves(site):
    html = (site / "index.html").read_text(encoding="utf-8")
    found = re.findall(r'<a class="[^"]*\brdk-term\b[^"]*" href="([^"]+)" title="([^"]+)">', html)
    assert [address for address, _ in found] == [f"{PAGE}#term-{name}" for name in ("expert", "bundle", "router")]
    assert "wanted together" in found[1][1] and all(len(text.split()) < 60 for _, text in found)
    anchors = (site / PAGE).read_text(encoding="utf-8")
    assert "rdk-term" not in anchors and all(f'id="{address.partition("#")[2]}"' in anchors for address, _ in found)


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture
def visit(browser, site):
    """Open the page from the disk, with a mouse or with a finger."""
    contexts = []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        tab = contexts[-1].new_page()
        tab.goto((site / "index.html").as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()


SHOWN = "[...document.querySelectorAll('[role=tooltip]')].filter(tip => !tip.hidden).map(tip => tip.textContent)"


def test_the_mouse_shows_the_entry_beside_the_word_and_may_move_onto_it(visit):
    tab = visit()
    assert tab.evaluate(SHOWN) == []
    link = tab.get_by_role("link", name="bundle", exact=True)
    link.hover()
    (text,) = tab.evaluate(SHOWN)
    assert "wanted together" in text and link.get_attribute("title") is None
    tip = tab.get_by_role("tooltip")
    assert abs(tip.bounding_box()["y"] - link.bounding_box()["y"] - link.bounding_box()["height"]) < 12
    tip.hover()
    tab.wait_for_timeout(300)
    assert tab.evaluate(SHOWN) == [text]
    tab.mouse.move(5, 500)
    tab.wait_for_function(f"{SHOWN}.length === 0")


def test_the_keyboard_shows_and_escape_hides(visit):
    tab = visit()
    link = tab.get_by_role("link", name="expert", exact=True)
    tab.keyboard.press("Tab")
    while not link.evaluate("e => e === document.activeElement"):
        tab.keyboard.press("Tab")
    assert len(tab.evaluate(SHOWN)) == 1
    described = link.get_attribute("aria-describedby")
    assert tab.evaluate(SHOWN) == [tab.locator(f"#{described}").text_content()]
    tab.keyboard.press("Escape")
    assert tab.evaluate(SHOWN) == []
    tab.keyboard.press("Tab")
    assert "bundle" in tab.evaluate("document.activeElement.textContent") and len(tab.evaluate(SHOWN)) == 1


def test_a_finger_shows_at_the_first_tap_and_follows_at_the_second(visit):
    tab = visit(has_touch=True, viewport={"width": 400, "height": 700})
    link = tab.get_by_role("link", name="router", exact=True)
    link.tap()
    assert len(tab.evaluate(SHOWN)) == 1 and tab.url.endswith("index.html")
    box = tab.get_by_role("tooltip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 400
    tab.touchscreen.tap(200, 500)
    assert tab.evaluate(SHOWN) == []
    link.tap()
    link.tap()
    tab.wait_for_url(f"**/{PAGE}#term-router")
