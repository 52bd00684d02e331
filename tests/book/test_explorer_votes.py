"""What a vote sees: the page counts and weighs as the package does, and shows what it counts."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from conftest import ROOT, require
from explored import drag, make_results, part

from routedk_lite.answers.consensus import Consensus, bundle_agreement
from routedk_lite.answers.decoding import Samples
from routedk_lite.answers.voting import vote
from routedk_lite.book.explorer.data import available, find_source
from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.book.explorer.votes import stops
from routedk_lite.data.domains import domain_is_cached
from routedk_lite.files import asset
from routedk_lite.study.records import load_attachment

RECORDED = [entry for entry in available(ROOT / "results") if entry[0] != "toy"]
PURE = "\n".join(
    asset("explorer", f"{name}.js").read_text(encoding="utf-8") for name in ("arithmetic", "dom", "tables", "votes")
)


@pytest.fixture
def seen(visit, explorer) -> Any:
    """The page with its second view in front."""
    tab = visit(explorer)
    part(tab, "view").nth(1).check(force=True)
    return tab


def bundles(session: dict[str, Any], place: int) -> frozenset[frozenset[int]]:
    """One of a session's answers."""
    return frozenset(frozenset(items) for items, *_ in session["answers"][place][0])


# Arithmetic


@pytest.mark.parametrize("entry", [None, *RECORDED], ids=lambda e: "-".join(e) if e else "made-up")
def test_picks_and_agreement_are_those_of_the_package(entry, explorer_results, browser) -> None:
    if entry is not None:
        require(bool(os.environ.get("ROUTEDK_MIRROR")) or domain_is_cached(entry[1]), "needs the public data")
    source = find_source(*((ROOT / "results", *entry) if entry else (explorer_results, "toy", "toyshop")))
    data = RouterExplorer.from_results(source.measured.path.parents[3], source.measured.profile, source.test.name).data
    tab = browser.new_page()
    found = tab.evaluate(
        f"""(data) => {{ {PURE}
        return data.sessions.map((here) => data.sizes.map((n) => {{
            const {{ counts, majority, consensus, worth }} = choices(data, here, n);
            return [counts, majority, consensus, here.answers.map((_, place) => worth(place))];
        }})); }}""",
        data,
    )
    tab.close()
    rows = {row["id"]: Samples.from_json(row) for row in load_attachment(source.runs["vote"], "samples")}
    consensus, differ = Consensus(), 0
    for session, at_sizes in zip(data["sessions"], found, strict=True):
        drawn = rows[session["id"]]
        for n, (counts, majority, agreed, worth) in zip(data["sizes"], at_sizes, strict=True):
            first = drawn.drawn[:n]
            assert bundles(session, majority) == frozenset(vote(first, drawn.greedy).bundles)
            assert bundles(session, agreed) == frozenset(consensus(first, drawn.greedy))
            came = Counter(frozenset(a.bundles) for a in first if a.bundles)
            assert {
                bundles(session, p): c for p, c in zip(session["votes"]["options"], counts, strict=True) if c
            } == came
            answers = [bundles(session, place) for place in range(len(session["answers"]))]
            if came:
                f1 = bundle_agreement(answers, list(came)) @ [c / came.total() for c in came.values()]
                wanted = [one + 0.5 * came[answer] / came.total() for one, answer in zip(f1, answers, strict=True)]
                assert worth == pytest.approx(wanted, abs=1e-9)
                written = [w for w, answer in zip(worth, answers, strict=True) if came[answer]]
                assert worth[agreed] >= max(written) - 1e-9, "no answer agrees better than the one that is picked"
            differ += majority != agreed
    assert differ, "both always pick the same: this test sees little"


def test_a_draw_of_any_size_has_its_stops() -> None:
    assert [stops(n) for n in (1, 2, 3, 8, 20)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 16, 20]]


def test_consensus_is_computed_once_and_is_small(explorer) -> None:
    data = explorer.data
    assert data["sizes"] == [1, 2, 4, 8, 16, 32] and data["exact_weight"] == Consensus().exact_weight
    assert all(len(session["votes"]["consensus"]) == 6 for session in data["sessions"])


# The view


def test_one_view_is_shown(visit, explorer) -> None:
    tab = visit(explorer)
    assert part(tab, "router-view").is_visible() and not part(tab, "vote-view").is_visible()
    part(tab, "view").nth(0).focus()
    tab.keyboard.press("ArrowRight")
    assert part(tab, "vote-view").is_visible() and not part(tab, "router-view").is_visible()
    tab.wait_for_function("document.querySelector('[data-x=live]').textContent.includes('the first 32 answers')")
    caption = part(tab, "picked").locator("caption").inner_text()
    part(tab, "after").click()
    assert part(tab, "picked").locator("caption").inner_text() != caption, "the sessions are those of both views"


def test_candidates_grow_with_n(seen, explorer) -> None:
    session = explorer.data["sessions"][explorer.data["first"]]
    rows = None
    for place, n in enumerate(explorer.data["sizes"]):
        drag(seen, "n", place)
        table = part(seen, "answers")
        assert f"The first {n} of 32" in table.locator("caption").inner_text()
        counts = [int(text) for text in table.locator("tbody .rdkx-stack").all_inner_texts()]
        assert sum(counts) == n
        names = [
            text.split("  ")[0]
            for text in table.locator("tbody th").evaluate_all("all => all.map((e) => e.firstChild.textContent)")
        ]
        assert rows in (None, names), "rows keep their places"
        rows = names
        majority = table.locator("tr", has=seen.locator(".rdkx-pick-majority"))
        consensus = table.locator("tr", has=seen.locator(".rdkx-pick-consensus"))
        assert majority.count() == consensus.count() == 1
        wanted = session["answers"][session["votes"]["consensus"][place]]
        assert f"{wanted[1] / 1000:.2f}" in consensus.inner_text()
        for name, row in (("majority", majority), ("consensus", consensus)):
            column = {"majority": 2, "consensus": 3}[name]
            f1 = part(seen, "picked").locator(f"tfoot td:nth-of-type({column})").inner_text().split()[1]
            assert row.locator("td").last.inner_text().split()[1] == f1
            grown = part(seen, "growth").locator("tbody tr", has_text=name).locator("td").nth(place)
            assert grown.inner_text().split()[1] == f1 and "rdkx-here" in grown.get_attribute("class")
        assert f"vote of {n}" in part(seen, "products").locator("thead").text_content()


def test_answers_that_nobody_wrote_are_called_so(visit, tmp_path) -> None:
    results = make_results(tmp_path / "results", seed=1)  # the consensus of one session is none of its samples
    explorer = RouterExplorer.from_results(results, "toy", "toyshop")
    seen, made_up = visit(explorer), 0
    part(seen, "view").nth(1).check(force=True)
    for place, session in enumerate(explorer.data["sessions"]):
        part(seen, "session").select_option(str(place))
        new = set(session["votes"]["consensus"]) - set(session["votes"]["options"])
        assert part(seen, "answers").inner_text().count("nobody wrote it") == len(new)
        made_up += len(new)
    assert made_up


def test_play_goes_through_the_stops(seen) -> None:
    part(seen, "play").click()
    assert part(seen, "n").get_attribute("aria-valuetext") == "1 answers"
    seen.wait_for_function("document.querySelector('[data-x=n]').value >= 2")
    part(seen, "play").click()
    assert part(seen, "play").inner_text() == "Play"


def test_the_source_is_said(seen) -> None:
    said = part(seen, "vote-view").inner_text()
    assert "32 answers per session that the student wrote under the dynamic fusion" in said
    assert "0.5 times its share" in said


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_it_fits(visit, explorer, width: int) -> None:
    tab = visit(explorer, width=width, link="#view=vote")
    for place in range(len(explorer.data["sessions"])):
        part(tab, "session").select_option(str(place))
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
