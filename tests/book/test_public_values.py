"""Chapters show of the public sessions what they compute or what is recorded of it, and speak of nothing else."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from conftest import ROOT, bare_decimals
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.book import recorded
from routedk_lite.book.notebook import Chapter, table
from routedk_lite.book.recorded import RECORD, agree, plain
from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import PUBLIC_DOMAINS, SPLITS

matplotlib.use("agg")

RECORDS = sorted((ROOT / "results" / "public").glob("*.json"))
CODE = {
    path.stem: [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Make a chapter with or without the public sessions, whose records lie in a folder of its own."""
    monkeypatch.delenv(RECORD, raising=False)

    def make(at_hand: bool, results: Path = tmp_path) -> Chapter:
        return Chapter(get_profile("toy"), "cpu", results, tmp_path, at_hand)

    return make


def never():
    raise AssertionError("computed although the sessions are not at hand")


def test_what_was_recorded_stands_in_for_the_sessions(chapter, monkeypatch, capsys) -> None:
    found = {"food": (1, np.float32(1 / 3)), 3: [np.nan]}
    monkeypatch.setenv(RECORD, "yes")
    computed = chapter(True).public("some", lambda: found)
    assert computed == {"food": [1, 0.33333], "3": [None]} and not capsys.readouterr().out
    monkeypatch.delenv(RECORD)
    assert chapter(False).public("some", never) == computed
    assert re.fullmatch(r"From the public sessions, recorded \d{4}-\d\d-\d\d, commit \w+\.\n", capsys.readouterr().out)
    assert "recorded 2" in chapter(False).source("some") and chapter(True).source("some") == "public data, run now"


def test_where_there_is_neither_it_says_how_to_get_the_sessions(chapter, capsys) -> None:
    without = chapter(False)
    assert without.public("some", never) is None
    assert "`routedk data fetch` gets them" in capsys.readouterr().out
    assert without.public("some", never, instead=lambda: {4: np.int64(2)}) == {"4": 2}
    assert without.source("some") == "toy, run now"


def test_runs_that_are_missing_are_not_recorded_as_nothing(chapter, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(RECORD, "yes")
    assert chapter(True).public("some", dict) is None
    assert not list(tmp_path.rglob("*.json"))


def test_a_record_that_no_longer_holds_is_told_and_written_on_demand(chapter, monkeypatch, tmp_path, capsys) -> None:
    path = tmp_path / "public" / "some.json"
    recorded.write(path, {"f1": 0.5, "n": 3})
    before = path.read_bytes()
    assert chapter(True).public("some", lambda: {"f1": 0.50004, "n": 3})["f1"] == 0.50004
    assert not capsys.readouterr().out
    for other in ({"f1": 0.51, "n": 3}, {"f1": 0.5, "n": 4}, {"f1": 0.5}, [0.5]):
        assert chapter(True).public("some", lambda other=other: other) == other
        said = capsys.readouterr().out
        assert f"some: this {recorded.DIFFERS}" in said and RECORD in said
    assert path.read_bytes() == before
    monkeypatch.setenv(RECORD, "yes")
    chapter(True).public("some", lambda: {"f1": 0.51, "n": 3})
    assert recorded.read(path).values == {"f1": 0.51, "n": 3} and not capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"values": 1}', '{"values": 1, "created": "", "commit": "", "x": 1}']
)
def test_a_damaged_record_is_named(chapter, tmp_path, text) -> None:
    path = tmp_path / "public" / "some.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: not a record of public values: "):
        chapter(False).public("some", never)


leaves = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(max_size=5)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))


@given(values)
def test_values_come_back_from_json_as_they_were(value) -> None:
    found = plain(value)
    assert plain(found) == found == json.loads(json.dumps(found))
    assert agree(found, found)


def test_prose_is_shown_with_what_it_speaks_of_alone() -> None:
    assert Chapter.say({"twice": 1234}, "Twice in {twice:,} sessions.").data == "Twice in 1,234 sessions."
    assert Chapter.say([0], "As {it} stands.").data == "As {it} stands."
    for nothing in (None, {}, [], 0, False):
        assert Chapter.say(nothing, "Never {seen}.") is None


def test_tables_leave_out_what_is_missing_and_mark_what_is_missing_once() -> None:
    rows = [
        {"router": "toy", "r": 0.5, "never": None},
        {"router": "real", "r": None, "never": np.nan},
        {"router": "both", "r": 0.25, "also": 3},
    ]
    html = table(rows, "What", "toy").to_html()
    assert "nan" not in html and "None" not in html and "never" not in html
    assert "real" not in html  # nothing is known of it
    assert html.count("–") == 1 and "0.250" in html  # "also" of the first row


# What is recorded


def names_in_chapters() -> set[str]:
    """Names of records that chapters ask for."""
    asked = re.compile(r"chapter\.(?:public|differences)\(\s*\"([\w-]+)\"")
    return {name for cells in CODE.values() for cell in cells for name in asked.findall(cell.source)}


def test_every_record_is_shown_somewhere_and_the_other_way_round() -> None:
    assert {path.stem for path in RECORDS} == names_in_chapters()


def strings(value) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(text for one in value.values() for text in strings(one))}
    if isinstance(value, list):
        return {text for one in value for text in strings(one)}
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_hold_aggregates(path) -> None:
    found = recorded.read(path)
    assert found.values == plain(found.values) and found.commit and re.fullmatch(r"\d{4}-\d\d-\d\d", found.created)
    assert all(len(text) < 60 for text in strings(found.values))


# What chapters say of it


@pytest.mark.parametrize("name", CODE)
def test_prose_that_depends_on_values_stands_in_hidden_cells(name) -> None:
    for cell in CODE[name]:
        if "chapter.say(" in cell.source:
            assert "remove-input" in cell.metadata["tags"] and cell.metadata["jupyter"]["source_hidden"]
            calls = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call)]
            (text,) = [n.args[1].value for n in calls if getattr(n.func, "attr", "") == "say"]
            assert not bare_decimals(text) and "](" not in text and "$" not in text


def chapter_01(chapter: Chapter, monkeypatch) -> str:
    """Run the chapter's cells about the public data; the prose that comes with them."""
    said = []
    monkeypatch.setattr(Chapter, "say", staticmethod(lambda found, text: said.append(text) if found else None))
    cells = CODE["01_bundles_and_metrics"]
    spread = {"chapter": chapter, "display": lambda shown: None}
    for cell in cells:
        if "bundles-03" <= cell.id <= "bundles-40b" or cell.id == "bundles-75b":
            exec(compile(cell.source, cell.id, "exec"), spread)
    return "\n".join(said)


def test_chapter_01_shows_what_is_recorded_and_says_so(chapter, monkeypatch, capsys) -> None:
    said = chapter_01(chapter(False, ROOT / "results"), monkeypatch)
    printed = capsys.readouterr().out
    assert "the rule gives all lists" in printed and "untitled in a bundle 0" in printed
    for words in ("neither random nor by date", "flat", "annotated twice", "never wrong", "beats every floor"):
        assert words in said


def test_chapter_01_asserts_nothing_that_it_cannot_show(chapter, monkeypatch) -> None:
    assert chapter_01(chapter(False), monkeypatch) == ""


def test_no_title_of_the_public_data_is_recorded(mirror, monkeypatch) -> None:
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    titles = {t for d in PUBLIC_DOMAINS for split in SPLITS for s in load_domain(d, split) for t in s.titles}
    for path in RECORDS:
        assert not strings(recorded.read(path).values) & titles
