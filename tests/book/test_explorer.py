"""The explorer's payload says what the records say, and its page is safe whatever the titles hold."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from conftest import ROOT

from routedk_lite.answers.decoding import Samples
from routedk_lite.answers.voting import vote
from routedk_lite.book.explorer import data as explorer_data
from routedk_lite.book.explorer.data import available, find_source, marks, payload, true_bundles
from routedk_lite.book.explorer.html import SCRIPTS, script, tag, two
from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.data.metrics import per_session
from routedk_lite.data.sessions import Session
from routedk_lite.study import records
from routedk_lite.study.explored import choose_sessions
from routedk_lite.study.mixtures import changed_alpha, mixtures, setting_text, settings

EVIL = ("<script>alert(1)</script>", "\"quoted\" & 'single'", "</script><b>bold</b>", "\u2028\u2029", "<!--", "a\\b")


@pytest.fixture(scope="module")
def source(explorer_results):
    return find_source(explorer_results, "toy", "toyshop")


@pytest.fixture(scope="module")
def explorer(explorer_results) -> RouterExplorer:
    return RouterExplorer.from_results(explorer_results, "toy", "toyshop", label="made up")


@pytest.fixture
def evil(explorer) -> RouterExplorer:
    """The same, with titles that a careless page would run."""
    data = json.loads(json.dumps(explorer.data))
    session = data["sessions"][data["first"]]
    session["titles"] = [(EVIL * 3)[i] for i in range(len(session["titles"]))]
    session["intents"] = [EVIL[0]] * len(session["intents"])
    data["title"] = data["source"] = EVIL[2]
    return RouterExplorer(data)


# What changes α


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("on", [(0, 1, 2), (0, 2), (1,)])
def test_changed_alpha_is_the_masked_softmax(temperature: float, on: tuple[int, ...]) -> None:
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha = logits.softmax(-1)
    masked = torch.full_like(logits, -torch.inf)
    masked[..., list(on)] = logits[..., list(on)] / temperature
    found = changed_alpha(alpha.log().numpy(), temperature, on)
    assert np.abs(found - masked.softmax(-1).numpy()).max() < 1e-12


def test_changed_alpha_refuses_what_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="temperature = 0: must be above 0"):
        changed_alpha(np.zeros((2, 3)), 0)
    with pytest.raises(ValueError, match="leave at least one"):
        changed_alpha(np.zeros((2, 3)), 1, [])


def test_grid_holds_every_mixture_once() -> None:
    found = mixtures(3)
    assert len(found) == len(set(found)) == 28
    assert {sum(shares) for shares in found} == {6} and (2, 2, 2) in found and (6, 0, 0) in found
    texts = [setting_text(s) for s in settings(3)]
    assert len(texts) == len(set(texts)) == 2 * 4 * 6 + 28
    assert "static 0.25 0,2" in texts and "mix 3,0,3" in texts
    assert len(settings(2)) == 2 * 6 + 7


def test_chosen_sessions_are_of_every_kind(source) -> None:
    answers = explorer_data.recorded_answers(source.runs)
    alpha = np.array([row["alpha"] for row in records.load_attachment(source.runs["dynamic"], "alpha")])
    chosen = choose_sessions(source.test, answers, alpha, 30)
    assert len(chosen) == 30 and len(set(chosen.values())) >= 10
    assert list(choose_sessions(source.test, answers, alpha, 30)) == list(chosen)
    ids = [session.id for session in source.test]
    right = {
        name: dict(zip(ids, per_session(found, source.test, "strict").exact_match, strict=True))
        for name, found in answers.items()
    }
    for id_, why in chosen.items():
        if why == "only rules is right":
            assert right["rules"][id_] and not right["base"][id_] and not right["reasoning"][id_]
        if why == "the vote is right, one answer is not":
            assert right["vote"][id_] and not right["dynamic"][id_]
    assert len(choose_sessions(source.test, answers, alpha, 1000)) == len(source.test)


# What relates to what


def test_marks_tell_whole_part_and_miss() -> None:
    truth = [frozenset({1, 2, 3}), frozenset({3, 4})]
    found = marks([frozenset(b) for b in ({3, 4}, {1, 2}, {2, 3}, {1, 4}, {2, 4}, {5})], truth)
    told = {mark.items: (mark.kind, mark.label, mark.truth) for mark in found}
    assert told == {
        (1, 2): ("part", "A1", 0),
        (2, 3): ("part", "A2", 0),
        (1, 4): ("miss", "×1", -1),
        (2, 4): ("miss", "×2", -1),
        (3, 4): ("whole", "B", 1),
    }


def test_a_bundle_annotated_twice_is_one() -> None:
    pair, single = frozenset({1, 2}), frozenset({3})
    session = Session(id=1, items=("a", "b", "c"), titles=("a", "b", "c"), bundles=(pair, pair, single))
    assert true_bundles(session) == [pair]


# The payload


def test_payload_agrees_with_the_records(source, explorer) -> None:
    data = explorer.data
    assert data["experts"] == ["base", "rules", "reasoning"]
    assert len(data["cloud"]) == data["test_sessions"] == len(source.test)
    for session in data["sessions"]:
        real = source.test.by_id[session["id"]]
        assert session["titles"] == list(real.titles)
        assert [frozenset(b) for b in session["truth"]] == true_bundles(real)
        for name, place in session["methods"].items():
            kept, f1, verdict = session["answers"][place]
            predicted = records.load_predictions(source.runs[name])[real.id].bundles
            assert {frozenset(items) for items, *_ in kept} == {b for b in predicted if len(b) > 1}
            scores = per_session({real.id: predicted}, [real], "strict")
            assert f1 == round(1000 * scores.f1[0])
            assert verdict == ("exact" if scores.exact_match[0] else "partly" if scores.f1[0] else "wrong")


def test_answers_on_the_grid_are_those_measured(source, explorer) -> None:
    rows = source.measured.values["sessions"]
    for row, session in zip(rows, explorer.data["sessions"], strict=True):
        assert len(session["grid"]) == len(explorer.data["settings"])
        for place, text in zip(session["grid"], row["answer_of_setting"], strict=True):
            wanted = {frozenset(map(int, line.split())) for line in row["answers"][text].splitlines()}
            assert {frozenset(items) for items, *_ in session["answers"][place][0]} == wanted


def test_alpha_survives_rounding(source, explorer) -> None:
    for row in source.measured.values["sessions"]:
        exact = torch.tensor(row["log_alpha"]).softmax(-1).numpy()
        assert np.abs(explorer.alpha(row["id"]) - exact).max() < 1e-4
    with pytest.raises(ValueError, match="session -5 is not shown here; these are: "):
        explorer.alpha(-5)


def test_votes_keep_what_decides_them(source, explorer) -> None:
    rows = records.load_attachment(source.runs["vote"], "samples")
    samples = {row["id"]: Samples.from_json(row) for row in rows}
    for session in explorer.data["sessions"]:
        votes = session["votes"]
        winner = session["answers"][votes["winner"]][0]
        recorded = records.load_predictions(source.runs["vote"])[session["id"]].bundles
        assert {frozenset(i) for i, *_ in winner} == set(recorded)
        assert len(votes["drawn"]) == len(samples[session["id"]].drawn)
        first = vote(samples[session["id"]].drawn[:1], samples[session["id"]].greedy).bundles
        place = votes["options"][votes["drawn"][0]] if votes["drawn"][0] >= 0 else votes["fallback"]
        assert {frozenset(i) for i, *_ in session["answers"][place][0]} == set(first)


def test_payload_is_small(explorer) -> None:
    assert explorer.n_bytes < 300_000 / 2, "twelve of thirty sessions"
    assert json.loads(json.dumps(explorer.data)) == explorer.data


def test_missing_records_are_named(explorer_results, tmp_path) -> None:
    with pytest.raises(ValueError, match="no explorer-seed0 of profile 'smol'.*routedk run --profile smol"):
        find_source(explorer_results, "smol", "toyshop")
    shutil.copytree(explorer_results, tmp_path, dirs_exist_ok=True)
    (tmp_path / "toy/toyshop/rules-seed0.json").unlink()
    with pytest.raises(ValueError, match="not recorded yet: rules-seed0"):
        find_source(tmp_path, "toy", "toyshop")
    assert available(tmp_path) == [("toy", "toyshop")] and available(tmp_path / "nothing") == []


def test_records_that_do_not_belong_together_are_refused(explorer_results, tmp_path) -> None:
    shutil.copytree(explorer_results, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "toy/toyshop/measured/explorer-seed0.json"
    measured = json.loads(path.read_text())
    measured["adapter_sha256"]["base-seed0"] = "other"
    path.write_text(json.dumps(measured))
    with pytest.raises(ValueError, match="made with other experts"):
        find_source(tmp_path, "toy", "toyshop")


def test_a_run_of_other_test_sessions_is_refused(explorer_results, tmp_path) -> None:
    shutil.copytree(explorer_results, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "toy/toyshop/rules-seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_sha256": "0"}))
    with pytest.raises(ValueError, match="rules-seed0.json was made from other test sessions"):
        find_source(tmp_path, "toy", "toyshop")


def test_it_says_how_bundles_were_read(source) -> None:
    assert "greedy text" in payload(source)["answers_by"]
    decoded = replace(source.runs["dynamic"], analysis={**source.runs["dynamic"].analysis, "decoder": {}})
    pairs = payload(source._replace(runs={**source.runs, "dynamic": decoded}))
    assert "pair probabilities" in pairs["answers_by"]


# The page


class Page(HTMLParser):
    """Elements, texts and identifiers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_titles_cannot_become_markup(evil) -> None:
    text = evil._repr_html_()
    page = Page(text)
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert text.count("</script>") == 1
    assert {EVIL[0], EVIL[2]} <= {t.strip() for t in page.texts}
    call = text[text.index("<script>") :]
    assert not [c for c in "\u2028\u2029" if c in call.partition('("')[2]]
    assert tag("i", {"title": '"><script>'}) == '<i title="&quot;&gt;&lt;script&gt;"></i>'


def test_page_stands_alone(explorer) -> None:
    text = explorer._repr_html_()
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a namespace, not an address
    assert not Page(text).ids, "identifiers would clash where two explorers share a page"
    assert not re.search(r"(?:src|href)=|@import|url\(", text)


def test_same_payload_same_page(explorer) -> None:
    assert RouterExplorer(json.loads(json.dumps(explorer.data)))._repr_html_() == explorer._repr_html_()


def test_text_for_those_who_see_no_html(explorer) -> None:
    shown = explorer._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    lines = shown["text/plain"].splitlines()
    assert len(lines) == 2 + len(explorer.data["sessions"])
    assert lines[0] == "RouterExplorer: toyshop, toy student. made up"
    assert all(name in lines[1] for name in explorer.data["methods"])


def test_saved_page_has_a_title_and_is_whole(evil, tmp_path) -> None:
    path = evil.save(tmp_path / "deep" / "page.html")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert "<title>Router explorer: &lt;/script&gt;" in text


def test_two_decimals_as_the_page_writes_them() -> None:
    assert [two(x) for x in (0.125, 0.375, 0.005, 1.0, 0.0, 2 / 3)] == ["0.13", "0.38", "0.01", "1.00", "0.00", "0.67"]


def test_scripts_ship_with_the_package() -> None:
    assert script().count("function start(") == 1
    names = {path.name for path in (ROOT / "routedk_lite/assets/explorer").iterdir()}
    assert names == {*SCRIPTS, "explorer.css"}


def test_import_needs_no_widgets() -> None:
    code = "import sys, routedk_lite.book.explorer.static; print('ipywidgets' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "False"
