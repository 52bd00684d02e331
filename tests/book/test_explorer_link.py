"""What is looked at in the explorer stands in the page's address, and is found again from there."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

from conftest import ROOT
from explored import drag, now, part, shown_alpha

from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.files import asset

PURE = "\n".join(asset("explorer", f"{name}.js").read_text(encoding="utf-8") for name in ("arithmetic", "dom", "link"))
PAGE = ROOT / "book/explorer.md"


def fragment(tab: Any) -> str:
    """The address's, once it has followed the hand."""
    tab.wait_for_timeout(400)
    return urlsplit(tab.url).fragment


def state(tab: Any) -> dict[str, Any]:
    """What a reader sees of the state."""
    shown = {name: part(tab, name).locator("visible=true").count() for name in ("router-view", "vote-view")}
    return {
        "session": part(tab, "products").locator("caption").text_content(),
        "now": part(tab, "now").text_content(),
        "alpha": shown_alpha(tab).tolist() if shown["router-view"] else None,
        "n": part(tab, "n").get_attribute("aria-valuetext"),
        "shown": shown,
    }


def other_session(explorer: RouterExplorer) -> tuple[int, Any]:
    """Place and id of one that is not shown at first."""
    place = (explorer.data["first"] + 2) % len(explorer.data["sessions"])
    return place, explorer.data["sessions"][place]["id"]


# There and back


def test_the_address_follows_the_hand(visit, explorer) -> None:
    tab = visit(explorer)
    assert fragment(tab) == "", "looking changes nothing"
    place, id_ = other_session(explorer)
    part(tab, "session").select_option(str(place))
    drag(tab, "temperature", -1)
    part(tab, "on").nth(1).uncheck()
    assert fragment(tab) == f"session={id_}&weights=dynamic&off=rules&t=0.5&n=32&view=router"
    part(tab, "view").nth(1).check(force=True)
    drag(tab, "n", 3)
    assert fragment(tab) == f"session={id_}&weights=dynamic&off=rules&t=0.5&n=8&view=vote"
    assert tab.evaluate("history.length") == 2, "the way back is not blocked by every step"


def test_a_link_shows_what_was_looked_at(visit, explorer) -> None:
    place, id_ = other_session(explorer)
    links = (
        "weights=dynamic&t=0.25&n=4&view=router",
        "weights=static&off=base&t=1.19&n=1&view=vote",
        "weights=average&off=rules,reasoning&t=1&n=32&view=router",
        "weights=1,2,3&t=1&n=2&view=router",
        "weights=37,11,52&t=8&n=16&view=router",
    )
    tab, again = visit(explorer), visit(explorer, link="#t=1")
    for link in links:
        link = f"#session={id_}&{link}"
        tab.evaluate("(hash) => { location.hash = hash; window.dispatchEvent(new Event('hashchange')); }", link)
        assert part(tab, "session").input_value() == str(place) and part(tab, "said").inner_text() == ""
        part(tab, "after").click()
        part(tab, "before").click()
        assert f"#{fragment(tab)}" == link, "written again, it is the same"
        again.goto(tab.url)
        again.reload()
        assert state(again) == state(tab)


def test_every_state_survives_a_link(explorer, browser) -> None:
    """All that controls can set, without a page around it."""
    tab = browser.new_page()
    wrong = tab.evaluate(
        f"""(data) => {{ {PURE}
        const wrong = [];
        const all = [];
        for (let exponent = -2; exponent <= 3; exponent += 0.25)
            for (const fusion of ["dynamic", "static", "average"])
                for (let bits = 1; bits < 8; bits += 1)
                    all.push({{ exponent, fusion, mix: [2, 2, 2], on: [1, 2, 4].map((bit) => Boolean(bits & bit)) }});
        for (let a = 0; a <= 100; a += 7)
            for (let b = 0; a + b <= 100; b += 9)
                all.push({{ exponent: 0, fusion: "mix", mix: tidy([a, b, 100 - a - b], 6), on: [true, true, true] }});
        all.forEach((some, k) => {{
            const place = {{ session: k % data.sessions.length, n: data.sizes[k % data.sizes.length] }};
            const state = {{ ...some, ...place, view: VIEWS[k % 2] }};
            const link = writeLink(state, data);
            const found = readLink("#" + link, data);
            const back = {{ on: [true, true, true], ...found.values }};
            const same = Object.keys(back).every((name) => JSON.stringify(back[name]) === JSON.stringify(state[name]));
            if (found.problems.length || !same) wrong.push(link);
        }});
        return [wrong, all.length]; }}""",
        explorer.data,
    )
    tab.close()
    assert wrong[0] == [] and wrong[1] > 500


# What means nothing here


BAD = [
    "session=nobody", "session=", "session=1e1", "weights=best", "weights=mix", "weights=1,2", "weights=0,0,0",
    "weights=1,-2,3", "weights=1,x,3", "weights=NaN,1,1", "weights=1e9,1,1", "off=nobody",
    "off=base,rules,reasoning", "t=0", "t=-1", "t=hot", "t=0.01", "t=64", "t=Infinity", "n=0", "n=3", "n=99", "n=4.0",
    "n=all", "view=map", "view=%E0%A4%A", "session=<img src=x onerror='window.hit=1'>", f"session={'9' * 400}",
]  # fmt: skip


def test_what_means_nothing_is_said_and_left(visit, explorer) -> None:
    tab = visit(explorer)
    plain, said = state(tab), part(tab, "said")
    for bad in BAD:
        tab.evaluate("(hash) => { location.hash = hash; window.dispatchEvent(new Event('hashchange')); }", bad)
        assert said.is_visible() and f"asks for {bad.split('=')[0]} = " in said.inner_text(), bad
        assert len(said.inner_text()) < 200 and state(tab) == plain, bad
        drag(tab, "temperature", 1)
        assert "temperature 2.00" in now(tab)
    assert tab.evaluate("window.hit") is None
    assert "nobody" not in fragment(tab) and "t=2" in fragment(tab)
    tab = visit(explorer, link="#session=nobody")
    assert part(tab, "said").is_visible() and state(tab) == plain, "at once, when the page is opened"


def test_what_is_good_in_a_bad_link_counts(visit, explorer) -> None:
    tab = visit(explorer, link="#session=nobody&t=2&n=many&off=base&colour=red")
    said = part(tab, "said").inner_text()
    assert "session = nobody, n = many, which" in said and "colour" not in said
    assert "temperature 2.00, without base" in now(tab)


def test_other_anchors_are_left_alone(visit, explorer) -> None:
    tab = visit(explorer, link="#the-router-explorer")
    for anchor in ("#the-router-explorer", "#a=b", "#=", "#toString=1", "#constructor=1", "#session"):
        tab.evaluate("(hash) => { location.hash = hash; window.dispatchEvent(new Event('hashchange')); }", anchor)
        assert part(tab, "said").inner_text() == "" and "Now: dynamic, temperature 1.00" in now(tab)
        assert tab.url.endswith(anchor)


def test_a_link_within_the_page_is_followed(visit, explorer) -> None:
    tab = visit(explorer, link="#session=nobody&t=4")
    _, id_ = other_session(explorer)
    tab.evaluate(f"location.hash = '#session={id_}&n=2'")
    tab.wait_for_function("document.querySelector('[data-x=said]').textContent === ''")
    assert f"Session {id_}," in part(tab, "products").inner_text()
    assert "temperature 1.00" in now(tab), "a link says all; what it leaves out is as at first"


# Several, and hosts


def test_only_the_first_explorer_owns_the_address(visit, explorer) -> None:
    _, id_ = other_session(explorer)
    other = RouterExplorer({**explorer.data, "title": "another"})
    tab = visit(explorer, other, explorer, link=f"#session={id_}&t=2")
    assert ["temperature 2.00" in now(tab, k) for k in range(3)] == [True, False, False]
    assert [part(tab, "copy", k).is_visible() for k in range(3)] == [True, False, False]
    before = fragment(tab)
    part(tab, "after", 1).click()
    part(tab, "after", 2).click()
    assert fragment(tab) == before
    tab.evaluate("location.hash = '#t=4'")
    tab.wait_for_function("document.querySelector('[data-x=degree]').textContent === '4.00'")
    assert ["temperature 4.00" in now(tab, k) for k in range(3)] == [True, False, False]


def test_a_frame_and_jupyterlab_keep_their_address(visit, explorer, tmp_path) -> None:
    tab = visit(explorer)
    (tmp_path / "around.html").write_text("<iframe src='page0.html#t=2' width=900 height=900></iframe>")
    tab.goto((tmp_path / "around.html").as_uri())
    frame = tab.frame_locator("iframe")
    frame.locator("[data-x=after]").click()
    assert not frame.locator("[data-x=copy]").is_visible()
    page = (tmp_path / "page0.html").read_text(encoding="utf-8").replace("<body>", "<body data-jp-theme-light='true'>")
    (tmp_path / "lab.html").write_text(page, encoding="utf-8")
    tab.goto((tmp_path / "lab.html").as_uri() + "#t=2")
    part(tab, "after").click()
    assert fragment(tab) == "t=2" and not part(tab, "copy").is_visible() and "temperature 1.00" in now(tab)


def test_a_link_is_copied_or_marked(visit, explorer) -> None:
    tab = visit(explorer)
    tab.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})"
    )
    drag(tab, "temperature", 1)
    part(tab, "copy").click()
    tab.wait_for_function("document.querySelector('[data-x=said]').textContent === 'Link copied.'")
    copied = tab.evaluate("window.copied")
    assert copied.startswith("file://") and "&t=2&" in copied, "at once, not once the address has followed"
    tab.evaluate(
        "Object.defineProperty(navigator.clipboard, 'writeText', {value: () => Promise.reject(new Error('no'))})"
    )
    part(tab, "copy").click()
    field = part(tab, "link")
    field.wait_for(state="visible")
    assert field.input_value() == copied and "marked link" in part(tab, "said").inner_text()
    assert tab.evaluate("getSelection().toString() || document.activeElement.value") == copied


# The book's own link


def test_the_link_on_the_page_shows_what_it_says(visit, mirror, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    spec = importlib.util.spec_from_file_location("explorer_page", ROOT / "book/extensions/explorer_page.py")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    [(link, words)] = re.findall(r'<a href="(#session=[^"]+)">(.+?)</a>', PAGE.read_text(encoding="utf-8"))
    assert "only <em>rules</em> gets right" in words
    tab = visit(extension.first_explorer(ROOT / "results", tmp_path), link=unescape(link))
    assert part(tab, "said").inner_text() == ""
    assert "where only rules is right" in part(tab, "products").locator("caption").inner_text()
    assert "get this session exactly right: rules." in part(tab, "alone").inner_text()
    part(tab, "after").click()
    part(tab, "before").click()
    assert f"#{fragment(tab)}" == unescape(link), "it says all that a link says"
