"""Answers under changed weights are those of a model with these weights, and an interrupted grid goes on."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from adapted import learned, make_adapter
from explored import make_results

from routedk_lite.answers.decoding import greedy_answers
from routedk_lite.answers.partitions import PartitionDecoder, SizePrior
from routedk_lite.config import PairConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.fusion.fusion import Dynamic, OneHot, Static
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha
from routedk_lite.student.pairs import make_reader, read_pairs
from routedk_lite.study import mixtures
from routedk_lite.study.mixtures import Setting, answers_under, explorer
from routedk_lite.study.records import load_all


@pytest.fixture(scope="module")
def folders(tiny_llama, tmp_path_factory):
    top = tmp_path_factory.mktemp("experts")
    return [make_adapter(tiny_llama, top / f"e{i}", r=2, targets=["q_proj", "down_proj"], seed=i + 1) for i in range(3)]


@pytest.fixture
def study(tiny_profile, tiny_student):
    """What the functions ask of a study, without its stages."""
    return SimpleNamespace(profile=tiny_profile, student=tiny_student, reader=None, seed=0, progress=False)


def as_sets(answers):
    return {id_: set(bundles) for id_, bundles in answers.items()}


def test_a_sessions_own_weights_give_its_own_answer(study, folders, sessions):
    model = learned(RoutedModel(study.student.model, folders, Dynamic()))
    asked = {"prompt": study.profile.prompt, "progress": False}
    alpha = trace_alpha(model, study.student.tokenizer, sessions, **asked)
    decode = {**asked, "decode": study.profile.decode}
    wanted = {a.id: a.bundles for a in greedy_answers(model, study.student.tokenizer, sessions, **decode)}
    assert as_sets(answers_under(study, model, sessions, alpha, None)) == as_sets(wanted)
    one_hot = np.broadcast_to(np.eye(3)[1], alpha.shape)
    found = answers_under(study, model, sessions, one_hot, None)
    model.unload()
    alone = RoutedModel(study.student.model, folders, OneHot(expert=1))
    wanted = {a.id: a.bundles for a in greedy_answers(alone, study.student.tokenizer, sessions, **decode)}
    assert as_sets(found) == as_sets(wanted)
    alone.unload()


def test_pairs_are_read_under_changed_weights_too(study, folders, sessions):
    study.reader = make_reader(study.student, sessions, PairConfig(layer=2), study.profile.prompt)
    decoder = PartitionDecoder(prior=SizePrior(sessions))
    model = learned(RoutedModel(study.student.model, folders, Dynamic()))
    alpha = np.broadcast_to(np.array([0.0, 1.0, 0.0]), (len(sessions), len(model.layer_numbers), 3))
    found = answers_under(study, model, sessions, alpha, decoder)
    with model.override([0.0, 1.0, 0.0]):
        pairs = read_pairs(
            model, study.student.tokenizer, sessions, study.reader, prompt=study.profile.prompt, progress=False
        )
    assert as_sets(found) == {s.id: set(decoder.decode(pairs[s.id])) for s in sessions}
    model.unload()


def test_the_stage_measures_the_grid_and_goes_on_where_it_was(study, folders, tmp_path, monkeypatch):
    results = make_results(tmp_path / "results")
    study.records, study.work = lambda: load_all(results), tmp_path / "work"
    study.split = lambda name: load_domain("toyshop", name)
    every = (0, 1, 2)
    grid = [
        Setting("dynamic", 1.0, every, ()),
        Setting("static", 2.0, (0, 2), ()),
        Setting("mix", 1.0, every, (6, 0, 0)),
    ]
    asked, answers = [], mixtures.answers_under

    @contextmanager
    def routed(study, name):
        model = learned(RoutedModel(study.student.model, folders, Dynamic() if name == "dynamic" else Static()))
        try:
            yield model, None
        finally:
            model.unload()

    def ask(study, model, sessions, alpha, decoder):
        if len(asked) == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        asked.append(alpha)
        return answers(study, model, sessions, alpha, decoder)

    monkeypatch.setattr(mixtures, "routed", routed)
    monkeypatch.setattr(mixtures, "settings", lambda n: grid)
    monkeypatch.setattr(mixtures, "answers_under", ask)
    with pytest.raises(KeyboardInterrupt):
        explorer(study, {"sessions": 3}, "key")
    (tmp_path / "again").touch()
    found = explorer(study, {"sessions": 3}, "key")["values"]
    assert len(asked) == 3, "what was asked before is not asked again"
    assert found["settings"] == ["dynamic 1 0,1,2", "static 2 0,2", "mix 6,0,0"]
    assert len(found["sessions"]) == 3 and found["same_as_recorded"][1] == 3
    assert [len(s["answer_of_setting"]) for s in found["sessions"]] == [3] * 3
    router, static, mix = asked
    logs = np.array([s["log_alpha"] for s in found["sessions"]])
    assert np.abs(np.exp(logs) / np.exp(logs).sum(-1, keepdims=True) - router).max() < 1e-3
    assert (static[..., 1] == 0).all() and np.allclose(static[0], static[1]) and (mix[..., 0] == 1).all()


def test_the_stage_names_what_is_missing(study, tmp_path):
    study.records = lambda: []
    with pytest.raises(
        ValueError, match="not recorded yet: base-seed0, .*voting-dynamic-seed0. Run these stages before"
    ):
        explorer(study, {"sessions": 3}, "key")
