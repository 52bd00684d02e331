"""The recipe of the study's grid is what it was before its first run."""

from dataclasses import replace

import pytest

from routedk_lite.config import get_profile
from routedk_lite.report import frozen
from routedk_lite.report.claims import load_claims
from routedk_lite.report.frozen import Frozen, RecipeChangedError, check_frozen, recipe_digest

GRID = load_claims().frozen


def test_the_grid_is_run_with_the_recipe_that_was_frozen():
    check_frozen(GRID)
    assert GRID.profile == "qwen" and GRID.date == "2026-11-29"


@pytest.mark.parametrize("part", ["student", "prompt", "train", "router", "decode", "vote", "place"])
def test_no_setting_of_it_may_change(part, monkeypatch):
    profile = get_profile(GRID.profile)
    changes = {
        "student": {"revision": "another"}, "prompt": {"max_title_words": 9}, "train": {"learning_rate": 1e-5},
        "router": {"epochs": 7}, "decode": {"exact_weight": 0.25}, "vote": {"temperature": 0.5}, "place": "masked",
    }[part]  # fmt: skip
    value = replace(getattr(profile, part), **changes) if isinstance(changes, dict) else changes
    monkeypatch.setattr(frozen, "get_profile", lambda name: replace(profile, **{part: value}))
    with pytest.raises(RecipeChangedError, match="the recipe of 'qwen' has changed since 2026-11-29"):
        check_frozen(GRID)


def test_what_a_recipe_is_called_and_meant_for_does_not_count():
    profile = get_profile("qwen")
    assert recipe_digest(replace(profile, beside="a desk", memory_gb=1, domains=("food",))) == recipe_digest(profile)
    assert recipe_digest(get_profile("smol")) != recipe_digest(profile)
    check_frozen(Frozen(profile="smol", date="2026-11-29", recipe=recipe_digest(get_profile("smol"))))
