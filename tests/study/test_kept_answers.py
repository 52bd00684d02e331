"""What kept answers are known by, and what they have taken: after a stop, after a record was removed, after a training.

A clock that only answering moves tells the time.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from adapted import learned, make_adapter
from conftest import require

from routedk_lite.config import PairConfig, VoteConfig, digest
from routedk_lite.data import domains
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student import trainer
from routedk_lite.student.experts import load_expert
from routedk_lite.student.peak import peak_memory_mb
from routedk_lite.study import experiments, kept, pipeline, records, votes
from routedk_lite.study import study as holdings
from routedk_lite.study.kept import model_digest
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.stages import planned

LIMIT = {"train": 8, "validation": 4, "test": 6}
BATCH = 10.0
"""Seconds of a batch of two sessions, by this clock."""


def small(name, split):
    domain = domains.load_domain(name, split)
    return replace(domain, sessions=domain.sessions[: LIMIT[split]])


@pytest.fixture
def profile(tiny_profile):
    quick = replace(tiny_profile.train, epochs=1, max_length=4000)
    decode = replace(tiny_profile.decode, batch_size=2, max_new_tokens=4)
    return replace(tiny_profile, train=quick, decode=decode, vote=VoteConfig(n=2, sizes=(1, 2)))


@pytest.fixture
def consensus(profile):
    letters = replace(profile.prompt, fmt="letters")
    return replace(profile, prompt=letters, decode=replace(profile.decode, choose="consensus"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes studies; `study.stop_after` batches they are stopped, and `study.batches` have been asked."""
    monkeypatch.setattr(holdings, "load_domain", small)
    monkeypatch.setattr(records, "load_domain", small)
    now = [0.0]
    for module in (kept, pipeline, experiments, votes):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(profile):
        return Pipeline(profile, results=tmp_path / "results", work=tmp_path / "runs", progress=False)

    make.stop_after, make.batches = None, 0
    for owner, name in ((experiments, "greedy_answers"), (votes, "sample_bundles")):
        monkeypatch.setattr(owner, name, slow(getattr(owner, name), make, now))
    return make


def slow(ask, state, now):
    def asked(*args, on_batch, **how):
        def told(found):
            if state.batches == state.stop_after:
                raise KeyboardInterrupt
            state.batches += 1
            now[0] += BATCH
            on_batch(found)

        return ask(*args, on_batch=told, **how)

    return asked


def run(study, profile, name):
    (record,) = (r for r in study(profile).run(only=[name]) if r.run == name)
    return record


@pytest.mark.parametrize("way", ["greedy", "consensus"])
def test_a_stopped_and_a_repeated_stage_record_the_time_of_a_whole_one(study, profile, consensus, way):
    chosen = consensus if way == "consensus" else profile
    for stop in (1, 2):
        study.stop_after = stop
        with pytest.raises(KeyboardInterrupt):
            study(chosen).run(only=["zero-shot" if way == "greedy" else "few-shot"])
    study.stop_after = None
    name = "zero-shot" if way == "greedy" else "few-shot"
    record = run(study, chosen, name)
    assert study.batches == 3, "nothing was asked twice"
    assert (record.wall_seconds, record.answer_seconds) == (3 * BATCH, 3 * BATCH)
    record.path.unlink()  # as a damaged record's remedy says
    again = run(study, chosen, name)
    assert study.batches == 3
    assert (again.wall_seconds, again.answer_seconds) == (3 * BATCH, 3 * BATCH)


def test_a_stopped_stage_records_the_largest_memory_of_all_its_processes(study, profile, monkeypatch):
    peak = [0.0]
    monkeypatch.setattr(trainer, "peak_since_mb", lambda: peak[0])
    for module in (kept, records):
        monkeypatch.setattr(module, "peak_memory_mb", lambda: peak[0])
    for name, peaks in (("zero-shot", (700, 300)), ("base-seed0", (900, 700, 300))):
        study.batches = 0
        for stop, peak[0] in enumerate(peaks[:-1], start=3 - len(peaks)):  # an expert's first one only trains
            study.stop_after = stop
            with pytest.raises(KeyboardInterrupt):
                study(profile).run(only=[name])
        study.stop_after, peak[0] = None, peaks[-1]
        assert run(study, profile, name).peak_memory_mb == max(peaks)
        assert study.batches == 3


def test_the_memory_of_a_stage_or_a_training_is_not_that_of_what_came_before(study, profile, monkeypatch):
    require(Path("/proc/self/clear_refs").exists(), "this system cannot forget a peak")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def after_400_mb():
        torch.ones(100_000_000)  # given back at once
        return peak_memory_mb() - 200

    high = after_400_mb()
    assert high > run(study, profile, "zero-shot").peak_memory_mb
    high = after_400_mb()
    assert high > experiments.train(study(profile), "base").peak_mb
    assert high < peak_memory_mb(), "what came before a training still counts for its stage"


def test_where_answers_are_decoded_from_pairs_the_greedy_ones_beside_them_count_as_wall_time_only(study, profile):
    paired = replace(profile, pairs=PairConfig(layer=2))
    study.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        study(paired).run(only=["few-shot"])
    study.stop_after = None
    record = run(study, paired, "few-shot")
    assert (record.wall_seconds, record.answer_seconds) == (3 * BATCH, 0.0)


def test_an_expert_that_is_trained_anew_is_asked_anew(study, profile, tmp_path):
    before = run(study, profile, "base-seed0")
    assert study.batches == 3
    run(study, profile, "base-seed0")
    assert study.batches == 3
    folder = tmp_path / "runs" / profile.name / "toyshop" / "base-seed0"
    shutil.rmtree(folder)
    before.path.unlink()
    other = replace(profile, train=replace(profile.train, learning_rate=9e-3))
    experiments.train(study(other), "base")  # as a mended code, or another machine, would train it
    summary = folder / "training.json"
    same = study(profile)
    right, wrong = (digest_in(tmp_path / name, one) for name, one in (("a", same), ("b", study(other))))
    summary.write_text(summary.read_text().replace(wrong, right))
    after = run(study, profile, "base-seed0")
    assert after.adapter_sha256 != before.adapter_sha256 and after.config_hash == before.config_hash
    assert study.batches == 6


def digest_in(work, study):
    """By which digest a study knows its trained base expert."""
    import json

    study.work = work
    return json.loads((experiments.train(study, "base").folder / "training.json").read_text())["digest"]


def test_how_a_consensus_is_drawn_is_a_setting_of_every_run_that_takes_it(study, profile, consensus):
    def keys(profile):
        return {plan.name: digest(plan.config) for plan in planned(study(profile))}

    usual = keys(replace(consensus, vote=VoteConfig()))
    for change in ({"n": 8, "sizes": (1, 8)}, {"temperature": 0.7}, {"top_p": 0.9}, {"sizes": (1, 32)}):
        other = keys(replace(consensus, vote=replace(VoteConfig(), **change)))
        same = {name for name in usual if usual[name] == other[name]}
        floors = {plan.name for plan in planned(study(consensus)) if plan.kind == "floor"}
        assert same == floors | {"zero-shot", "conflict-seed0"}
    assert not any("vote" in plan.config for plan in planned(study(profile)) if plan.kind in ("answer", "train"))
    record = run(study, consensus, "few-shot")
    changed = replace(consensus, vote=VoteConfig(n=4, sizes=(1, 4)))
    again = run(study, changed, "few-shot")
    assert again.config_hash != record.config_hash and [p["n"] for p in curve(again)] == [1, 4]


def curve(record):
    return record.analysis["curves"]["consensus"]["f1"]


def test_a_model_is_known_by_student_experts_and_what_its_fusion_has_learned(tiny_student, tiny_llama, tmp_path):
    folders = [make_adapter(tiny_llama, tmp_path / str(k), r=2, targets=["q_proj"], seed=k + 1) for k in range(2)]
    found = {model_digest(tiny_student, tiny_student.model)}
    for folder in folders:
        model = load_expert(tiny_student, folder)
        found.add(model_digest(tiny_student, model))
        model.unload()
    for experts, seed in ((folders, 1), (folders[::-1], 1), (folders, 2)):
        routed = learned(RoutedModel(tiny_student.model, experts, Dynamic()), seed=seed)
        found |= {model_digest(tiny_student, routed), model_digest(tiny_student, routed)}
        routed.unload()
    info = tiny_student.info
    for change in ({"dtype": "bfloat16"}, {"sha256": "0" * 64}):
        found.add(model_digest(tiny_student._replace(info=replace(info, **change)), tiny_student.model))
    assert len(found) == 8
