"""Mixing the experts by sliders in the explorer: weights that sum to one, and the nearest answer that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from explored import drag, now, part, shown_alpha

from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.files import asset
from routedk_lite.study.mixtures import mixtures

ARITHMETIC = asset("explorer", "arithmetic.js").read_text(encoding="utf-8")


def shares(tab: Any) -> list[int]:
    """Where the sliders stand, in percent."""
    return [int(slider.input_value()) for slider in part(tab, "share").all()]


# Arithmetic


def test_shares_are_those_of_the_live_explorer(browser) -> None:
    rng = np.random.default_rng(0)
    asked = [(rng.dirichlet([1, 1, 1]).tolist(), int(rng.integers(3)), int(rng.integers(101))) for _ in range(200)]
    asked += [([1, 0, 0], 0, 40), ([0, 0, 1], 2, 0), ([0.2, 0.3, 0.5], 1, 100), ([5, 5], 0, 30)]
    tab = browser.new_page()
    found = tab.evaluate(
        f"(asked) => {{ {ARITHMETIC} return asked.map((one) => [shareOut(...one), tidy(shareOut(...one), 6)]); }}",
        asked,
    )
    tab.close()
    for (before, place, percent), (exact, kept) in zip(asked, found, strict=True):
        others = np.arange(len(before)) != place  # as `LiveExplorer` does it
        weights, rest = np.full(len(before), percent / 100), np.array(before)[others]
        weights[others] = (1 - percent / 100) * (rest / rest.sum() if rest.sum() else 1 / len(rest))
        assert exact == pytest.approx(100 * weights)
        assert sum(kept) in (6, 100) and min(kept) >= 0 and all(isinstance(k, int) for k in kept)
        assert np.abs(np.array(kept) / sum(kept) - weights).max() < 0.01
        assert sum(kept) == 6 or kept[place] == percent


def test_the_nearest_mixture_is_the_nearest(browser) -> None:
    grid, rng = mixtures(3), np.random.default_rng(1)
    asked = [*rng.dirichlet([1, 1, 1], 100).tolist(), *[list(m) for m in grid], [100, 0, 0], [50, 33, 17]]
    tab = browser.new_page()
    found = tab.evaluate(
        f"([grid, asked]) => {{ {ARITHMETIC} return asked.map((one) => nearestMix(grid, one)); }}", [grid, asked]
    )
    tab.close()
    for one, answer in zip(asked, found, strict=True):
        away = np.linalg.norm(np.array(grid) / 6 - np.array(one) / sum(one), axis=1)
        assert away[answer["place"]] == pytest.approx(away.min()) and answer["exact"] == (away.min() < 1e-6)


# Sliders


def test_a_slider_makes_a_mix_that_sums_to_one(visit, explorer) -> None:
    tab, session = visit(explorer), explorer.data["sessions"][explorer.data["first"]]
    mean = explorer.alpha(session["id"]).mean(0)
    assert shares(tab) == [round(100 * m) for m in mean], "before, they show the router's mean weights"
    drag(tab, "share", 50, nth=1)
    assert tab.locator("input[value=mix]").is_checked() and shares(tab)[1] == 50 and abs(sum(shares(tab)) - 100) <= 1
    alpha = shown_alpha(tab)
    assert (alpha == alpha[0]).all() and alpha[0].sum() == pytest.approx(1, abs=0.011)
    assert alpha[0][0] / alpha[0][2] == pytest.approx(mean[0] / mean[2], rel=0.2), "the others share as before"
    drag(tab, "share", 100, nth=0)
    assert "own mix (base 6/6, rules 0/6, reasoning 0/6)" in now(tab) and "computed beforehand for this mixture" in now(
        tab
    )
    assert [box.is_checked() for box in part(tab, "on").all()] == [True, False, False]
    part(tab, "reset").click()
    assert "Now: dynamic" in now(tab) and shares(tab) == [round(100 * m) for m in mean]


def test_pulling_to_the_end_and_back_forgets_nothing(visit, explorer) -> None:
    tab = visit(explorer, link="#weights=20,30,50")
    for value in (40, 70, 99, 100, 60, 20):
        drag(tab, "share", value)
    assert shares(tab) == [20, 30, 50]


def test_between_mixtures_the_nearest_answers(visit, explorer) -> None:
    tab, session = visit(explorer, link="#weights=35,45,20"), explorer.data["sessions"][explorer.data["first"]]
    assert "own mix (base 35 %, rules 45 %, reasoning 20 %)" in now(tab)
    assert "computed beforehand for base 2/6, rules 3/6, reasoning 1/6, the nearest on the grid" in now(tab)
    place = session["grid"][explorer.data["settings"].index("mix 2,3,1")]
    assert f"Strict F1 {session['answers'][place][1] / 1000:.2f}" in now(tab)
    assert not part(tab, "map").locator("[aria-checked=true]").count(), "the cross stands between the signs"
    drag(tab, "share", 0, nth=0)
    drag(tab, "share", 50, nth=1)
    assert part(tab, "map").locator("[aria-checked=true]").count() == 1


def test_sliders_can_be_worked_by_keys_and_heard(visit, explorer) -> None:
    tab = visit(explorer)
    slider = tab.get_by_role("slider", name="weight of rules")
    assert "mean over layers" in slider.get_attribute("aria-valuetext")
    slider.focus()
    tab.keyboard.press("Home")
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "0.03" and "rules 3 %" in now(tab)
    assert slider.evaluate("e => e === document.activeElement")


def test_two_experts_can_be_mixed_too(visit, explorer) -> None:
    """Without a triangle, which only three have."""
    data = dict(explorer.data)
    two = {
        "experts": data["experts"][:2],
        "settings": ["mix 6,0", "mix 3,3", "mix 0,6"],
        "static": [r[:2] for r in data["static"]],
    }
    sessions = [{**s, "alpha": [row[:2] for row in s["alpha"]], "grid": s["grid"][-3:]} for s in data["sessions"]]
    cloud = [[*row[:3], row[-1]] for row in data["cloud"]]
    tab = visit(RouterExplorer({**data, **two, "sessions": sessions, "cloud": cloud}))
    drag(tab, "share", 40)
    assert "own mix (base 40 %, rules 60 %)" in now(tab) and "base 3/6, rules 3/6, the nearest" in now(tab)


# The last expert


def test_the_last_expert_says_that_it_stays(visit, explorer) -> None:
    tab = visit(explorer)
    note, boxes = part(tab, "note"), part(tab, "on")
    assert "Pull a slider" in note.inner_text()
    boxes.nth(0).uncheck()
    boxes.nth(2).uncheck()
    assert note.is_visible() and note.inner_text() == "rules is the last one, and stays on: somebody has to answer."
    boxes.nth(1).click()
    assert boxes.nth(1).is_checked() and "rdkx-warn" in note.get_attribute("class")
    boxes.nth(0).check()
    assert "Pull a slider" in note.inner_text() and "rdkx-warn" not in note.get_attribute("class")
    part(tab, "map").get_by_role("radio").nth(0).click()
    assert "A weight of 0 switches an expert off" in note.inner_text() and boxes.nth(0).is_disabled()
