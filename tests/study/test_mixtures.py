"""Answers under changed weights are those of a model with these weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from adapted import learned

from routedk_lite.answers.consensus import Consensus
from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.answers.partitions import PartitionDecoder, SizePrior
from routedk_lite.config import PairConfig, VoteConfig
from routedk_lite.fusion.fusion import Dynamic, OneHot
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha
from routedk_lite.student.pairs import make_reader, read_pairs
from routedk_lite.study.mixtures import answers_under


def as_sets(answers):
    return {id_: set(bundles) for id_, bundles in answers.items()}


def test_a_sessions_own_weights_give_its_own_answer(bare_study, three_experts, sessions):
    model = learned(RoutedModel(bare_study.student.model, three_experts, Dynamic()))
    asked = {"prompt": bare_study.profile.prompt, "progress": False}
    alpha = trace_alpha(model, bare_study.student.tokenizer, sessions, **asked)
    decode = {**asked, "decode": bare_study.profile.decode}
    wanted = {a.id: a.bundles for a in greedy_answers(model, bare_study.student.tokenizer, sessions, **decode)}
    assert as_sets(answers_under(bare_study, model, sessions, alpha, None)) == as_sets(wanted)
    one_hot = np.broadcast_to(np.eye(3)[1], alpha.shape)
    found = answers_under(bare_study, model, sessions, one_hot, None)
    model.unload()
    alone = RoutedModel(bare_study.student.model, three_experts, OneHot(expert=1))
    wanted = {a.id: a.bundles for a in greedy_answers(alone, bare_study.student.tokenizer, sessions, **decode)}
    assert as_sets(found) == as_sets(wanted)
    alone.unload()


def test_pairs_are_read_under_changed_weights_too(bare_study, three_experts, sessions):
    bare_study.reader = make_reader(bare_study.student, sessions, PairConfig(layer=2), bare_study.profile.prompt)
    decoder = PartitionDecoder(prior=SizePrior(sessions))
    model = learned(RoutedModel(bare_study.student.model, three_experts, Dynamic()))
    alpha = np.broadcast_to(np.array([0.0, 1.0, 0.0]), (len(sessions), len(model.layer_numbers), 3))
    found = answers_under(bare_study, model, sessions, alpha, decoder)
    with model.override([0.0, 1.0, 0.0]):
        pairs = read_pairs(
            model,
            bare_study.student.tokenizer,
            sessions,
            bare_study.reader,
            prompt=bare_study.profile.prompt,
            progress=False,
        )
    assert as_sets(found) == {s.id: set(decoder.decode(pairs[s.id])) for s in sessions}
    model.unload()


def test_a_student_that_is_sampled_is_sampled_under_changed_weights_too(bare_study, three_experts, sessions):
    decode = replace(bare_study.profile.decode, choose="consensus")
    bare_study.profile = replace(bare_study.profile, decode=decode, vote=VoteConfig(n=4, sizes=(1, 4)))
    model = learned(RoutedModel(bare_study.student.model, three_experts, Dynamic()))
    alpha = np.broadcast_to(np.eye(3)[2], (len(sessions), len(model.layer_numbers), 3))
    found = answers_under(bare_study, model, sessions, alpha, None)
    vote = bare_study.profile.vote
    how = {"temperature": vote.temperature, "top_p": vote.top_p, "seed": 0, "decode": decode}
    with model.override(np.eye(3)[2]):
        samples = sample_bundles(
            model, bare_study.student.tokenizer, sessions, 4, **how, prompt=bare_study.profile.prompt, progress=False
        )
    model.unload()
    choose = Consensus(exact_weight=decode.exact_weight)
    assert as_sets(found) == {one.id: set(choose(one.drawn, one.greedy)) for one in samples}
