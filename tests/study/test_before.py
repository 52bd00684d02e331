"""What should have ended before a stage begins: whatever trains what it uses, so that its own time is its own."""

from __future__ import annotations

import pytest

from routedk_lite.study.pipeline import Pipeline

TOGETHER = {"base-seed1", "rules-seed1", "reasoning-seed1"}


def names(stages):
    return {stage.name for stage in stages}


@pytest.fixture(params=[("toy", "toyshop"), ("qwen", "electronic"), ("control", "habits")], ids=lambda p: p[0])
def study(request):
    return Pipeline(*request.param, seed=1, progress=False)


def test_nothing_waits_for_what_comes_after_it_or_for_itself(study):
    stages = study.stages
    for place, stage in enumerate(stages):
        before = study.before(stage)
        assert names(before) <= names(stages[:place]), stage.name
        assert len(names(before)) == len(before)
        assert all(names(study.before(one)) <= names(before) for one in before), "what those wait for as well"


def test_whatever_takes_the_trained_router_waits_for_it(study):
    taken = [s for s in study.stages if s.name.startswith(("control-", "knockout-", "top-", "voting-dynamic"))]
    assert taken
    for stage in taken:
        assert "fusion-dynamic-seed1" in names(study.before(stage)), stage.name


def test_fusions_wait_for_the_experts_that_they_fuse_and_for_no_other_fusion():
    study = Pipeline("toy", seed=1, progress=False)
    before = {stage.name: names(study.before(stage)) for stage in study.stages}
    fused = [name for name in before if name.startswith(("fusion-", "fused-"))]
    assert all(before[name] >= TOGETHER for name in fused)
    assert not any(other in before[name] for name in fused for other in fused)
    assert [name for name in fused if "patterns-seed1" in before[name]] == ["fused-dynamic-k4-seed1"]


def test_the_explorer_waits_for_all_that_it_shows(study):
    explorer = [stage for stage in study.stages if stage.kind == "explore"]
    for stage in explorer:
        before = names(study.before(stage))
        shown = {f"fusion-{name}-seed1" for name in ("average", "ties", "static", "dynamic")} | TOGETHER
        assert shown <= before
        assert ("voting-dynamic-seed1" in before) == (study.profile.answers != "consensus")
