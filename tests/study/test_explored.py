"""The stage behind the router explorer: an interrupted grid goes on, and a vote is found where samples are kept."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from adapted import learned
from explored import make_results

from routedk_lite.answers.voting import vote_all
from routedk_lite.book.explorer.data import find_source, payload
from routedk_lite.data.domains import load_domain
from routedk_lite.fusion.fusion import Dynamic, Static
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.study import explored
from routedk_lite.study.explored import explorer, recorded_answers, recorded_runs, recorded_samples
from routedk_lite.study.mixtures import Setting
from routedk_lite.study.records import load_all


def test_the_stage_measures_the_grid_and_goes_on_where_it_was(bare_study, three_experts, tmp_path, monkeypatch):
    results = make_results(tmp_path / "results")
    bare_study.records, bare_study.work = lambda: load_all(results), tmp_path / "work"
    bare_study.split = lambda name: load_domain("toyshop", name)
    every = (0, 1, 2)
    grid = [
        Setting("dynamic", 1.0, every, ()),
        Setting("static", 2.0, (0, 2), ()),
        Setting("mix", 1.0, every, (6, 0, 0)),
    ]
    asked, answers, routers = [], explored.answers_under, [0]

    @contextmanager
    def routed(study, name):
        fusion, seed = (Dynamic(), routers[-1]) if name == "dynamic" else (Static(), 0)
        model = learned(RoutedModel(study.student.model, three_experts, fusion), seed=seed)
        try:
            yield model, None
        finally:
            model.unload()

    def ask(study, model, sessions, alpha, decoder):
        if len(asked) == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        asked.append(alpha)
        return answers(study, model, sessions, alpha, decoder)

    monkeypatch.setattr(explored, "routed", routed)
    monkeypatch.setattr(explored, "settings", lambda n: grid)
    monkeypatch.setattr(explored, "answers_under", ask)
    with pytest.raises(KeyboardInterrupt):
        explorer(bare_study, {"sessions": 3}, "key")
    (tmp_path / "again").touch()
    found = explorer(bare_study, {"sessions": 3}, "key")["values"]
    assert len(asked) == 3, "what was asked before is not asked again"
    assert found["settings"] == ["dynamic 1 0,1,2", "static 2 0,2", "mix 6,0,0"]
    assert len(found["sessions"]) == 3 and found["same_as_recorded"][1] == 3
    assert [len(s["answer_of_setting"]) for s in found["sessions"]] == [3] * 3
    router, static, mix = asked
    logs = np.array([s["log_alpha"] for s in found["sessions"]])
    assert np.abs(np.exp(logs) / np.exp(logs).sum(-1, keepdims=True) - router).max() < 1e-3
    assert (static[..., 1] == 0).all() and np.allclose(static[0], static[1]) and (mix[..., 0] == 1).all()
    explorer(bare_study, {"sessions": 3}, "key")
    assert len(asked) == 3
    explorer(bare_study, {"sessions": 4}, "key")
    assert len(asked) == 6, "other sessions are asked about, as of a dynamic run that was recorded anew"
    routers.append(1)
    explorer(bare_study, {"sessions": 3}, "key")
    assert len(asked) == 9, "a router that was trained anew is asked anew"


def test_the_stage_names_what_is_missing(bare_study, tmp_path):
    bare_study.records = lambda: []
    with pytest.raises(
        ValueError, match="not recorded yet: base-seed0, .*voting-dynamic-seed0. Run these stages before"
    ):
        explorer(bare_study, {"sessions": 3}, "key")


def test_where_runs_keep_their_samples_their_majority_is_the_vote(tmp_path):
    results = make_results(tmp_path, consensus=True)
    runs = recorded_runs(load_all(results), seed=0)
    assert runs["vote"].run == runs["dynamic"].run == "fusion-dynamic-seed0"
    samples, answers = recorded_samples(runs), recorded_answers(runs)
    votes = vote_all(samples)
    assert {i: set(b) for i, b in answers["vote"].items()} == {i: set(vote.bundles) for i, vote in votes.items()}
    assert any(set(answers["vote"][i]) != set(answers["dynamic"][i]) for i in votes), "consensus is another choice"
    data = payload(find_source(results, "toy", "toyshop"))
    assert "consensus" in data["answers_by"] and "greedy" not in data["answers_by"]
    assert "vote" in data["methods"]
    by_id = {one["id"]: one for one in data["sessions"]}
    assert all(
        by_id[i]["votes"]["winner"] in by_id[i]["votes"]["options"] + [by_id[i]["votes"]["fallback"]] for i in by_id
    )
    assert {"the majority is right, consensus is not", "consensus is right, the majority is not"} & {
        one["why"] for one in data["sessions"]
    }
    assert not any("one answer" in one["why"] for one in data["sessions"])
