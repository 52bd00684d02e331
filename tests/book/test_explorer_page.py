"""The router explorer in a real browser: it computes what torch computes, and everybody can use it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, require
from explored import drag, now, part, shown_alpha

from routedk_lite.answers.decoding import Samples
from routedk_lite.answers.voting import vote
from routedk_lite.book.explorer.data import available, find_source
from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.data.domains import domain_is_cached
from routedk_lite.files import asset
from routedk_lite.study.records import load_attachment

RECORDED = [entry for entry in available(ROOT / "results") if entry[0] != "toy"]
ARITHMETIC = asset("explorer", "arithmetic.js").read_text(encoding="utf-8")
AXE = ROOT / "tests/vendor/axe/axe.min.js"
TEMPERATURES = (0.25, 0.42, 1.0, 1.68, 8.0)
SUBSETS = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))
NOW = "tfoot .rdkx-now"


def study_of(entry: tuple[str, str] | None, results: Path):
    """The made-up records, or recorded ones."""
    if entry is None:
        return find_source(results, "toy", "toyshop")
    has_data = bool(os.environ.get("ROUTEDK_MIRROR")) or domain_is_cached(entry[1])
    require(has_data, f"the sessions of {entry[1]} are not here: set ROUTEDK_MIRROR")
    return find_source(ROOT / "results", *entry)


# Arithmetic


@pytest.mark.parametrize("entry", [None, *RECORDED], ids=lambda e: "-".join(e) if e else "made-up")
def test_alpha_is_that_of_torch(entry, explorer_results, browser) -> None:
    source = study_of(entry, explorer_results)
    data = RouterExplorer.from_results(source.measured.path.parents[3], source.measured.profile, source.test.name).data
    asked = [[t, [i in s for i in range(3)]] for t in TEMPERATURES for s in SUBSETS]
    tab = browser.new_page()
    found = tab.evaluate(
        f"""([sessions, asked]) => {{ {ARITHMETIC}
        return sessions.map((rows) => asked.map(([t, on]) => {{
            const alpha = alphaOf(rows, t, on);
            return [alpha, meanOf(alpha), entropyOf(alpha)];
        }})); }}""",
        [[s["alpha"] for s in data["sessions"]], asked],
    )
    tab.close()
    worst = 0.0
    for row, answers in zip(source.measured.values["sessions"], found, strict=True):
        logits = torch.tensor(row["log_alpha"], dtype=torch.float64)
        for (temperature, on), (alpha, mean, entropy) in zip(asked, answers, strict=True):
            wanted = (logits / temperature).masked_fill(~torch.tensor(on), -torch.inf).softmax(-1)
            worst = max(worst, float((wanted - torch.tensor(alpha)).abs().max()))
            assert abs(float(torch.special.entr(wanted).sum(-1).mean()) - entropy) < 5e-3
            assert np.allclose(wanted.mean(0), mean, atol=1e-3)
    print(f"largest difference between the page's α and torch's: {worst:.1e}")
    assert 0 < worst < 2e-4, "rounding leaves a difference, and a small one"


@pytest.mark.parametrize("entry", [None, *RECORDED], ids=lambda e: "-".join(e) if e else "made-up")
def test_votes_are_those_of_the_package(entry, explorer_results, browser) -> None:
    source = study_of(entry, explorer_results)
    data = RouterExplorer.from_results(source.measured.path.parents[3], source.measured.profile, source.test.name).data
    tab = browser.new_page()
    winners = tab.evaluate(
        f"""(all) => {{ {ARITHMETIC}
        return all.map((votes) => votes.drawn.map((_, i) => vote(votes, i + 1))); }}""",
        [s["votes"] for s in data["sessions"]],
    )
    tab.close()
    rows = {row["id"]: Samples.from_json(row) for row in load_attachment(source.runs["vote"], "samples")}
    changes = 0
    for session, found in zip(data["sessions"], winners, strict=True):
        drawn, options = rows[session["id"]], session["votes"]["options"]
        for n, outcome in enumerate(found, start=1):
            wanted = vote(drawn.drawn[:n], drawn.greedy)
            winner = outcome["winner"]
            answer = session["answers"][options[winner] if winner >= 0 else session["votes"]["fallback"]][0]
            assert {frozenset(items) for items, *_ in answer} == set(wanted.bundles), (session["id"], n)
            assert winner < 0 if wanted.fallback else outcome["counts"][winner] == round(wanted.share * n)
            changes += n > 1 and winner != found[n - 2]["winner"]
    assert changes, "no winner ever changes: this test sees nothing"


def test_nearest_temperature_is_nearest_in_powers_of_two(browser) -> None:
    tab = browser.new_page()
    found = tab.evaluate(
        f"(asked) => {{ {ARITHMETIC} return asked.map((t) => nearest([0.5, 1, 2], t)); }}", [0.3, 0.72, 1.3, 1.5, 9]
    )
    tab.close()
    assert found == [0, 1, 1, 2, 2]


# The first paint


def test_tables_stand_there_before_the_script_runs(visit, explorer) -> None:
    still, live = visit(explorer, java_script_enabled=False), visit(explorer)
    for name in ("products", "heat", "truth"):
        assert part(still, name).inner_text() == part(live, name).inner_text()
    assert part(still, "products").locator("tbody tr").count() >= 2
    markup = 'e => e.innerHTML.replace(/ (?=[a-z-]+=)/g, "\\n").split("\\n").sort().join("\\n")'
    assert part(still, "products").evaluate(markup) == part(live, "products").evaluate(markup)
    assert part(still, "truth").evaluate(markup) == part(live, "truth").evaluate(markup)


def test_without_javascript_only_what_works_is_shown(visit, explorer) -> None:
    tab = visit(explorer, java_script_enabled=False)
    assert not tab.locator("input:visible, button:visible, select:visible, svg:visible").count()
    assert "need JavaScript" in tab.locator(".rdkx noscript").last.inner_text()


@pytest.mark.parametrize("width", [360, 560, 760, 1100, 1280])
def test_nothing_jumps_while_the_page_comes_up(visit, explorer, width: int) -> None:
    tab = visit(explorer, width=width)
    tab.wait_for_timeout(300)
    shift = tab.evaluate(
        """() => new Promise((done) => {
        let sum = 0;
        new PerformanceObserver((list) => { for (const e of list.getEntries()) sum += e.value; })
            .observe({type: "layout-shift", buffered: true});
        setTimeout(() => done(sum), 200);
        })"""
    )
    assert shift < 0.01
    heights, said = [part(tab, name).bounding_box()["y"] for name in ("products", "heat")], set()
    drag(tab, "temperature", 2)
    assert [part(tab, name).bounding_box()["y"] for name in ("products", "heat")] == heights
    for temperature in (2, 1.37, -1.3):  # on the grid, and beside it, of which the page says more
        drag(tab, "temperature", temperature)
        said.add(part(tab, "now").bounding_box()["height"])
    assert len(said) == 1, "its sentence keeps its place however long it is"


def test_it_leaves_no_global_names(visit, explorer) -> None:
    tab = visit(explorer)
    own = tab.evaluate(
        """() => {
        const frame = document.body.appendChild(document.createElement("iframe"));
        const before = new Set(Object.getOwnPropertyNames(frame.contentWindow));
        frame.remove();
        return Object.getOwnPropertyNames(window).filter((name) => !before.has(name) && !/^\\d+$/.test(name));
        }"""
    )
    assert own == []


# Every control changes what it says


def test_temperature_sharpens(visit, explorer) -> None:
    tab = visit(explorer)
    before = shown_alpha(tab)
    drag(tab, "temperature", -2)
    assert "temperature 0.25" in now(tab) and "computed beforehand at temperature 0.25)" in now(tab)
    assert shown_alpha(tab).max(1).sum() > before.max(1).sum()
    drag(tab, "temperature", 0.25)
    assert "temperature 1.19" in now(tab) and "at temperature 1, the nearest on the grid" in now(tab)
    assert part(tab, "temperature").get_attribute("aria-valuetext") == "1.19"
    part(tab, "reset").click()
    assert np.array_equal(shown_alpha(tab), before) and "(recorded run)" in now(tab)


def test_experts_can_be_switched_off_but_one(visit, explorer) -> None:
    tab = visit(explorer)
    switches = part(tab, "on")
    switches.nth(0).uncheck()
    assert "without base" in now(tab) and "computed beforehand at temperature 1)" in now(tab)
    alpha = shown_alpha(tab)
    assert (alpha[:, 0] == 0).all() and np.allclose(alpha.sum(1), 1, atol=0.011)
    switches.nth(1).uncheck()
    assert "recorded run of the reasoning expert alone" in now(tab)
    session = explorer.data["sessions"][explorer.data["first"]]
    f1 = session["answers"][session["methods"]["reasoning"]][1]
    assert f"Strict F1 {f1 / 1000:.2f}" in now(tab)
    switches.nth(2).click()
    assert switches.nth(2).is_checked(), "the last one stays on"
    assert part(tab, "live").text_content() == "At least one expert stays on."


def test_fusions_can_be_compared(visit, explorer) -> None:
    tab, session = visit(explorer), explorer.data["sessions"][explorer.data["first"]]
    for fusion in ("static", "average", "dynamic"):
        tab.get_by_label(fusion, exact=False).first.check()
        assert f"Now: {fusion}" in now(tab) and "(recorded run)" in now(tab)
        f1 = session["answers"][session["methods"][fusion]][1]
        assert f"{np.floor(f1 / 10 + 0.5) / 100:.2f}" in tab.locator(NOW).inner_text().split()
    tab.get_by_label("average").check()
    assert np.allclose(shown_alpha(tab), 1 / 3, atol=0.01) and part(tab, "temperature").is_disabled()
    assert "Uniform in every layer" in part(tab, "entropy").inner_text()
    part(tab, "on").nth(1).uncheck()
    assert "computed beforehand for these experts" in now(tab)
    place = explorer.data["settings"].index("mix 3,0,3")
    assert f"Strict F1 {session['answers'][session['grid'][place]][1] / 1000:.2f}" in now(tab)


def test_a_mixture_can_be_chosen_by_click_and_by_key(visit, explorer) -> None:
    tab, session = visit(explorer), explorer.data["sessions"][explorer.data["first"]]
    spots = part(tab, "map").get_by_role("radio")
    assert spots.count() == 28
    spots.nth(0).click()
    assert "own mix (base 6/6, rules 0/6, reasoning 0/6)" in now(tab) and (shown_alpha(tab)[:, 0] == 1).all()
    assert "base has more than 0.9 in every layer" in part(tab, "entropy").inner_text()
    assert part(tab, "on").nth(0).is_disabled()
    tab.keyboard.press("ArrowRight")
    assert "own mix (base 5/6, rules 1/6, reasoning 0/6)" in now(tab)
    assert spots.nth(1).evaluate("e => e === document.activeElement")
    assert [s.get_attribute("aria-checked") for s in spots.all()].count("true") == 1
    verdict = session["answers"][session["grid"][explorer.data["settings"].index("mix 5,1,0")]][2]
    assert verdict in now(tab) and verdict in spots.nth(1).get_attribute("aria-label")


def test_sessions_can_be_chosen_in_four_ways(visit, explorer) -> None:
    tab, data = visit(explorer), explorer.data
    caption = part(tab, "products").locator("caption")

    def shown() -> int:
        return int(caption.inner_text().split(",")[0].removeprefix("Session "))

    start = data["first"]
    assert shown() == data["sessions"][start]["id"]
    part(tab, "after").click()
    assert shown() == data["sessions"][(start + 1) % len(data["sessions"])]["id"]
    part(tab, "before").click()
    part(tab, "before").click()
    assert shown() == data["sessions"][start - 1]["id"]
    part(tab, "session").select_option("3")
    assert shown() == data["sessions"][3]["id"] and data["sessions"][3]["why"] in caption.inner_text()
    titles = part(tab, "products").locator("tbody th").all_inner_texts()
    assert [t.split(maxsplit=1)[1] for t in titles] == data["sessions"][3]["titles"]
    dots = part(tab, "cloud").get_by_role("radio")
    chosen = part(tab, "cloud").locator("[aria-checked=true]")
    assert f"session {shown()}," in chosen.get_attribute("aria-label")
    chosen.focus()
    before = shown()
    tab.keyboard.press("ArrowRight")
    assert shown() != before and f"session {shown()}," in chosen.get_attribute("aria-label")
    target = dots.nth(0)
    wanted = int(target.get_attribute("aria-label").split()[1].rstrip(","))
    box = target.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert shown() == wanted
    assert part(tab, "session").input_value() == str([s["id"] for s in data["sessions"]].index(wanted))


def test_the_table_shows_hit_over_cut_and_miss(visit, explorer) -> None:
    tab, data = visit(explorer), explorer.data
    kinds = set()
    for place, session in enumerate(data["sessions"]):
        part(tab, "session").select_option(str(place))
        marks = session["answers"][session["methods"]["base"]][0]
        cells = part(tab, "products").locator("tbody tr").all()
        for item, row in enumerate(cells, start=1):
            spoken = row.locator("td").nth(1).text_content().split()
            wanted = [word for items, kind, label, _ in marks if item in items for word in (label, kind)]
            assert spoken == (wanted or ["·none"])
            kinds |= {kind for items, kind, *_ in marks if item in items}
    assert kinds == {"whole", "part", "miss"}


def test_the_change_is_announced(visit, explorer) -> None:
    tab = visit(explorer)
    drag(tab, "temperature", 1)
    live = part(tab, "live")
    assert live.get_attribute("aria-live") == "polite"
    tab.wait_for_function("document.querySelector('[data-x=live]').textContent.includes('temperature 2.00')")
    assert "Strict F1" in live.text_content()


# Everywhere and for everybody


def test_several_explorers_share_a_page(visit, explorer) -> None:
    other = RouterExplorer({**explorer.data, "title": "another"})
    tab = visit(explorer, other, explorer)
    assert tab.locator(".rdkx[data-ready]").count() == 3
    tab.locator(".rdkx >> nth=2").get_by_label("static").check()
    tab.locator(".rdkx >> nth=1").get_by_label("average").check()
    assert ["Now: dynamic" in now(tab, 0), "Now: average" in now(tab, 1), "Now: static" in now(tab, 2)] == [True] * 3
    assert tab.locator(".rdkx >> nth=0").locator("input[value=dynamic]").is_checked()


def test_titles_are_shown_as_they_are(visit, explorer) -> None:
    data = json.loads(json.dumps(explorer.data))
    titles = data["sessions"][data["first"]]["titles"]
    titles[:2] = ["<script>window.hit = 1</script>", "</script><img src=x onerror='window.hit=1'>\"'&amp;\u2028"]
    tab = visit(RouterExplorer(data))
    cells = part(tab, "products").locator("tbody th").all_inner_texts()
    assert cells[0].endswith(titles[0]) and titles[1].rstrip("\u2028") in cells[1]
    part(tab, "after").click()
    part(tab, "before").click()
    assert part(tab, "products").locator("tbody th").all_inner_texts() == cells
    assert tab.evaluate("window.hit") is None


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_it_fits_and_can_be_touched(visit, explorer, width: int) -> None:
    tab = visit(explorer, width=width, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for control in tab.locator("button:visible, select:visible, input[type=range]:visible").all():
        assert control.bounding_box()["height"] >= 24
    for label in tab.locator(".rdkx-options label, .rdkx-switch label, .rdkx-views label").all():
        assert label.bounding_box()["height"] >= 24
    part(tab, "after").tap()
    tab.get_by_label("static").tap()
    assert "Now: static" in now(tab)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(visit, explorer, scheme: str, width: int) -> None:
    tab = visit(explorer, width=width, scheme=scheme)
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    for act in (
        lambda: None,
        lambda: part(tab, "map").get_by_role("radio").nth(3).click(),
        lambda: part(tab, "view").nth(1).check(force=True),
    ):
        act()
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
        grave = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
        assert not grave
        assert len(found) <= 1, [v["id"] for v in found]


@pytest.mark.parametrize(
    ("where", "dark"),
    [
        ("document.documentElement.dataset.theme = 'dark'", True),
        ("document.documentElement.dataset.theme = 'light'", False),
        ("document.body.dataset.jpThemeLight = 'false'", True),
        ("document.body.dataset.jpThemeLight = 'true'", False),
        ("document.body.classList.add('vscode-dark')", True),
        ("document.documentElement.setAttribute('theme', 'dark')", True),
    ],
)
def test_it_follows_the_theme_of_its_host(visit, explorer, where: str, dark: bool) -> None:
    tab = visit(explorer, scheme="light" if dark else "dark")
    tab.evaluate(where)
    back = tab.locator(".rdkx").first.evaluate("e => getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(back[:3]) < 3 * 60) == dark


def test_it_looks_the_same_in_jupyterlab(visit, explorer) -> None:
    """JupyterLab has rules of its own for tables and lists in outputs, of up to two classes and two elements."""
    host = ".host.host"
    rules = (
        f"{host} :is(td, th) {{ text-align: right; vertical-align: middle; padding: .5em; line-height: normal;"
        f" max-width: none; border: none }} {host} th {{ font-weight: bold }} {host} tbody tr {{ background: #eee }}"
        f"{host} tr {{ text-align: right; padding: .5em }} {host} ul {{ padding-left: 2em }}"
        " .host ul { list-style: disc; margin-bottom: 1em } .host p { text-align: left; margin: 0 0 1em }"
        " .host table { table-layout: fixed; margin: 0 auto 1em; font-size: 13px; color: #333 }"
        " .host svg { max-width: 100%; height: auto }"
    )
    looks = """() => [...document.querySelectorAll(".rdkx *")].map((node) => {
        const style = getComputedStyle(node);
        const names = ["textAlign", "verticalAlign", "paddingLeft", "paddingTop", "marginBottom", "backgroundColor",
            "borderTopWidth", "fontWeight", "fontSize", "lineHeight", "color", "tableLayout", "listStyleType"];
        return [node.tagName, node.getAttribute("class"), ...names.map((name) => style[name])].join(" ");
    })"""
    tab = visit(explorer)
    before = tab.evaluate(looks)
    tab.evaluate("document.body.className = 'host'")
    tab.add_style_tag(content=rules)
    after = tab.evaluate(looks)
    assert [f"{was} → {is_}" for was, is_ in zip(before, after, strict=True) if was != is_] == []


def test_it_can_be_worked_without_a_mouse(visit, explorer) -> None:
    tab = visit(explorer)
    seen = []
    for _ in range(22):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.dataset.x || document.activeElement.getAttribute('role')"))
    names = ("before", "session", "after", "view", "copy", "fusion", "temperature", "on", "share", "reset", "radio")
    for name in names:
        assert name in seen
    assert seen.count("radio") == 2, "each plot is one stop"
    part(tab, "temperature").focus()
    tab.keyboard.press("ArrowRight")
    assert "temperature 1.19" in now(tab)
    part(tab, "view").nth(0).focus()
    tab.keyboard.press("ArrowRight")
    for name in ("n", "play"):
        tab.keyboard.press("Tab")
        while tab.evaluate("document.activeElement.dataset.x") == "copy":
            tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.dataset.x") == name


def test_keys_do_not_reach_the_page_around(visit, explorer) -> None:
    """In JupyterLab an arrow would leave for another cell and fold it; but ctrl and S still save."""
    tab = visit(explorer)
    tab.evaluate("window.heard = []; document.addEventListener('keydown', (event) => window.heard.push(event.key))")
    part(tab, "temperature").focus()
    for key in ("ArrowRight", "Home", "Control+b"):
        tab.keyboard.press(key)
    assert tab.evaluate("window.heard") == ["Control", "b"]
    assert "temperature 0.25" in now(tab)


def test_it_is_ready_at_once(visit, explorer) -> None:
    tab = visit(explorer)
    ready = tab.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    assert ready < 3000 and tab.locator(".rdkx[data-ready]").count() == 1
