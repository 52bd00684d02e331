"""The fusions of other papers as runs of a study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from routedk_lite.answers.consensus import Consensus
from routedk_lite.answers.decoding import Samples
from routedk_lite.config import PairConfig
from routedk_lite.data import domains
from routedk_lite.study import records
from routedk_lite.study import study as holdings
from routedk_lite.study.fusing import fusions
from routedk_lite.study.pipeline import Pipeline

NAMES = ("arrow", "genknowsub", "knots", "dare-ties", "cat", "lora-flow", "lorahub", "furina", "xlora", "hard",
         "dynamic-k4")  # fmt: skip


def small(name, split):
    domain = domains.load_domain(name, split)
    return replace(domain, sessions=domain.sessions[: {"train": 8, "validation": 4, "test": 4}[split]])


@pytest.fixture
def make(tiny_profile, tmp_path, monkeypatch):
    monkeypatch.setattr(holdings, "load_domain", small)
    monkeypatch.setattr(records, "load_domain", small)

    def make(seed=0, **changes):
        train = replace(tiny_profile.train, max_length=4000, epochs=1)
        profile = replace(tiny_profile, train=train, **changes)
        return Pipeline(profile, results=tmp_path / "results", work=tmp_path / "runs", progress=False, seed=seed)

    return make


def test_what_dare_drops_by_chance_differs_between_seeds(make):
    assert [fusions(make(seed=seed))["dare-ties"][0].seed for seed in (0, 2)] == [0, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_are_recorded_and_none_is_run_again(make):
    study = make()
    found = {r.run: r for r in study.run(part="fusions") if r.run.startswith("fused-")}
    assert list(found) == sorted(f"fused-{name}-seed0" for name in NAMES)
    for run, record in found.items():
        records.verify(record)
        fusion = fusions(study)[record.config["fusion_name"]][0]
        assert bool(record.training) == fusion.learns
        assert ("alpha" in record.attachments) == fusion.has_alpha
        if fusion.has_alpha:
            support = np.array(record.analysis["effective_support"])
            most = len(fusions(study)[record.config["fusion_name"]][1]) + 0.01
            assert support.shape == (2,) and (support > 0.99).all() and (support < most).all(), run
    assert found["fused-dynamic-k4-seed0"].analysis["experts"][-1] == "patterns-seed0"
    assert np.allclose(found["fused-hard-seed0"].analysis["effective_support"], 1)
    assert np.allclose(found["fused-furina-seed0"].analysis["effective_support"], 3)
    ran = []
    study.run(lambda stage, done: None if done else ran.append(stage.name), part="fusions")
    assert ran == []


def test_they_are_a_part_of_their_own_and_fusion_means_the_methods(make):
    study = make()
    names = {s.name for s in study.of_part("fusions")} - {"data", "student"}
    assert names == {f"fused-{name}-seed0" for name in NAMES}
    assert not names & {s.name for s in study.of_part("method")}
    assert not names & {s.name for s in study.chosen(["fusion-*"])}
    kinds = {s.name: s.kind for s in study.of_part("fusions")}
    assert kinds["fused-arrow-seed0"] == kinds["fused-lorahub-seed0"] == "answer"
    assert kinds["fused-dynamic-k4-seed0"] == "router"
    assert kinds["fused-cat-seed0"] == kinds["fused-xlora-seed0"] == "router"
    before = {s.name for s in study.before(next(s for s in study.stages if s.name == "fused-hard-seed0"))}
    assert {"base-seed0", "rules-seed0", "reasoning-seed0"} <= before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pairs_are_read_from_the_second_reading(make):
    (record,) = (r for r in make(pairs=PairConfig(layer=2)).run(only=["fused-xlora-*"]) if r.run.startswith("fused"))
    records.verify(record)
    assert record.analysis["pair_auc"].keys() == {"validation", "test"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_samples_are_drawn_from_what_is_read_twice(make, tiny_profile):
    decode = replace(tiny_profile.decode, choose="consensus")
    vote = replace(tiny_profile.vote, n=3, sizes=(1, 3))
    (record,) = (r for r in make(decode=decode, vote=vote).run(only=["fused-xlora-*"]) if r.run.startswith("fused"))
    records.verify(record)
    samples = [Samples.from_json(row) for row in records.load_attachment(record, "samples")]
    answers = records.load_predictions(record)
    assert samples and {one.id for one in samples} == answers.keys()
    consensus = Consensus.of(decode)
    for one in samples:
        assert len(one.drawn) == 3
        assert set(answers[one.id].bundles) == set(consensus(one.drawn, one.greedy))
