"""Scripts and extensions of the pages: the table of results, the order of what a search finds, the explorer's page."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from conftest import ROOT

ASSETS, EXTENSIONS = ROOT / "book" / "assets", ROOT / "book" / "extensions"
ROWS = [
    ("base expert", "smol", "electronic", "1", "0.635", "[0.575, 0.696]", "0.294"),
    ("floor: all pairs", "smol", "electronic", "–", "0.519", "[0.470, 0.569]", "0.111"),
    ("fused: router", "smol", "food", "3", "0.700", "[0.650, 0.750]", "0.300"),
    ("fused: router", "control", "habits", "3", "0.830", "[0.800, 0.860]", "0.754"),
]
HEADER = ("run", "profile", "domain", "seeds", "strict F1", "95 %", "exact match")


@pytest.fixture
def page(browser, tmp_path):
    """The table of results with its script, from the disk."""
    shutil.copy(ASSETS / "results.js", tmp_path)
    head = "".join(f"<th>{name}</th>" for name in HEADER)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in ROWS)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    place = tmp_path / "results.html"
    html = (
        f"<!doctype html><meta charset='utf-8'><script src='results.js'></script><div class='rdk-results'>{table}</div>"
    )
    place.write_text(html, encoding="utf-8")
    tab = browser.new_page()
    tab.goto(place.as_uri())
    yield tab
    tab.close()


def column(tab, number: int = 0) -> list[str]:
    """What stands in a column of the rows that are shown."""
    return tab.evaluate(
        "n => [...document.querySelectorAll('tbody tr:not([hidden])')].map(row => row.cells[n].textContent)", number
    )


def test_a_click_sorts_and_a_second_one_turns_round(page):
    page.get_by_role("button", name="strict F1").click()
    assert column(page, 4) == ["0.830", "0.700", "0.635", "0.519"]
    head = page.get_by_role("columnheader", name="strict F1")
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="strict F1").click()
    assert column(page, 4) == ["0.519", "0.635", "0.700", "0.830"]
    assert head.get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="run").click()
    assert column(page)[0] == "base expert" and head.get_attribute("aria-sort") is None


def test_intervals_sort_by_their_lower_end_and_a_dash_stays_last(page):
    page.get_by_role("button", name="95 %").click()
    assert column(page, 5)[0] == "[0.800, 0.860]"
    for _ in range(2):
        page.get_by_role("button", name="seeds").click()
        assert column(page, 3)[-1] == "–"


def test_it_sorts_by_keyboard(page):
    page.get_by_role("button", name="exact match").focus()
    page.keyboard.press("Enter")
    assert column(page, 6)[0] == "0.754"


def test_words_and_choices_filter_together(page):
    assert page.locator("output").inner_text() == "4 of 4 runs"
    page.get_by_label("filter").fill("Router fused")
    assert column(page, 2) == ["food", "habits"]
    page.get_by_label("profile").select_option("smol")
    assert column(page, 2) == ["food"]
    assert page.locator("output").inner_text() == "1 of 4 runs"
    page.get_by_label("domain").select_option("electronic")
    assert column(page) == [] and page.locator("output").inner_text() == "0 of 4 runs"
    page.get_by_label("filter").press("Enter")
    assert page.get_by_label("filter").input_value() == "Router fused"
    page.get_by_label("filter").fill("")
    assert len(column(page)) == 2


@pytest.mark.parametrize(
    ("query", "chapter_first"),
    [
        ("router", True), ("LoRA", True), ("static weights", True), ("train_fusion", False), ("RoutedModel", False),
        ("rdk.evaluate", False),
    ],
)  # fmt: skip
def test_pages_stand_above_objects_unless_an_object_is_named(browser, tmp_path, query, chapter_first):
    shutil.copy(EXTENSIONS / "scorer.js", tmp_path)
    place = tmp_path / "search.html"
    place.write_text("<!doctype html><script src='scorer.js'></script>", encoding="utf-8")
    tab = browser.new_page()
    tab.goto(f"{place.as_uri()}?q={query}")
    found = [
        ["notebooks/06_fusion_ablations", "Is it the router?", "", None, 2, "x"],
        ["book/api/fusion", "routedk_lite.x.router", "#x", "in fusion", 26, "x"],
    ]
    chapter, reference = (tab.evaluate(f"Scorer.score({json.dumps(result)})") for result in found)
    tab.close()
    assert (chapter > reference) == chapter_first


@pytest.fixture
def extension():
    spec = importlib.util.spec_from_file_location("explorer_page", EXTENSIONS / "explorer_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_explorer_shows_real_sessions_where_they_are_at_hand(extension, mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    found = extension.first_explorer(ROOT / "results", tmp_path)
    assert found.data["title"].startswith("electronic") and "Recorded" in found.data["source"]


def test_without_real_sessions_and_a_toy_study_there_is_none(extension, monkeypatch, tmp_path):
    monkeypatch.delenv("ROUTEDK_MIRROR", raising=False)
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    assert extension.first_explorer(ROOT / "results", tmp_path) is None


def test_the_toy_shop_stands_in(extension, monkeypatch, tmp_path):
    from routedk_lite.book.explorer import data, static

    monkeypatch.delenv("ROUTEDK_MIRROR", raising=False)
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    toy = {tmp_path: [("toy", "toyshop")]}
    monkeypatch.setattr(data, "available", lambda folder: toy.get(folder, [("smol", "electronic")]))
    made = []
    monkeypatch.setattr(static.RouterExplorer, "from_results", lambda *asked, **label: made.append((asked, label)))
    extension.first_explorer(ROOT / "results", tmp_path)
    assert made == [((tmp_path, "toy", "toyshop"), {"label": "toy, run now"})]
