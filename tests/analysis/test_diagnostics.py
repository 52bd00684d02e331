"""What a student has learned: the content-free reference, likelihoods, pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.analysis.diagnostics import ContentFree, answer_nats, learning_point, nats_below, pair_auc, pattern
from routedk_lite.answers.answering import profile_reader
from routedk_lite.config import PairConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.prompts import build_prompt, encode_answer, encode_prompt, format_answer
from routedk_lite.data.sessions import Session
from routedk_lite.student.experts import train_expert


def session(n, *bundles, id_=0):
    names = tuple(f"thing {k}" for k in range(n))
    return Session(id=id_, items=names, titles=names, bundles=tuple(map(frozenset, bundles)))


bundles = st.lists(st.frozensets(st.integers(1, 5), min_size=2), min_size=1, max_size=4, unique=True)


@given(bundles, st.permutations(range(1, 6)))
def test_a_pattern_forgets_which_item_is_which(found, order):
    moved = [frozenset(order[n - 1] for n in bundle) for bundle in found]
    assert pattern(5, moved[::-1]) == pattern(5, found)


@given(bundles)
def test_arrangements_are_the_different_renamings(found):
    images = {frozenset(frozenset(order[n - 1] for n in b) for b in found) for order in permutations(range(1, 6))}
    assert pattern(5, found).arrangements == len(images)


def test_content_free_probabilities_of_all_answers_sum_to_at_most_one():
    train = [session(3, {1, 2}), session(3, {1, 2, 3}), session(3, {1, 2}, {2, 3}), session(3, {2, 3})]
    model = ContentFree(train)
    possible = [frozenset(c) for k in (2, 3) for c in combinations(range(1, 4), k)]
    answers = [c for k in range(1, 5) for c in combinations(possible, k)]
    total = sum(math.exp(-model.nats(session(3, *answer))) for answer in answers)
    assert 0.9 < total <= 1 + 1e-9


def test_content_free_knows_shares_but_not_items():
    model = ContentFree([session(3, {1, 2})] * 8 + [session(3, {1, 2, 3})] * 2, smoothing=1e-9)
    assert math.exp(-model.nats(session(3, {2, 3}))) == pytest.approx(0.8 / 3)
    assert math.exp(-model.nats(session(3, {1, 2, 3}))) == pytest.approx(0.2)
    assert model.nats(session(3, {1, 2}, {1, 2})) == model.nats(session(3, {1, 2}))  # annotated twice
    assert math.isfinite(ContentFree([]).nats(session(9, {1, 2}, {2, 3, 4}, {5, 6})))


def test_answer_nats_equal_one_by_one_sums(tiny_student, sessions):
    found = answer_nats(tiny_student, sessions, progress=False)
    for nats, s in zip(found, sessions, strict=True):
        prompt = encode_prompt(build_prompt(s.titles, tokenizer=tiny_student.tokenizer), tiny_student.tokenizer)
        ids = prompt + encode_answer(format_answer(s.bundles), tiny_student.tokenizer)
        with torch.no_grad():
            log_p = tiny_student.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = -sum(log_p[k - 1, ids[k]].item() for k in range(len(prompt), len(ids)))
        assert nats == pytest.approx(expected, rel=1e-4)


def test_nats_below_is_a_mean_over_items():
    sessions = [session(2, {1, 2}, id_=1), session(4, {1, 2}, id_=2)]
    model = ContentFree(sessions)
    reference = np.array([model.nats(s) for s in sessions])
    gain = nats_below(reference - [0.5, 1.0], sessions, model, generator=np.random.default_rng(0))
    assert gain.estimate == pytest.approx(1.5 / 6)


def test_pair_auc_of_a_perfect_a_reversed_and_a_blind_judge():
    sessions = [session(4, {1, 2, 3}, id_=1), session(3, {1, 3}, id_=2)]
    truth = {s.id: np.array([[any({i, j} <= b for b in s.bundles) for j in range(1, len(s) + 1)]
                             for i in range(1, len(s) + 1)], dtype=float) for s in sessions}  # fmt: skip
    assert pair_auc(truth, sessions) == 1
    assert pair_auc({i: -m for i, m in truth.items()}, sessions) == 0
    assert pair_auc({i: 0 * m for i, m in truth.items()}, sessions) == 0.5
    with pytest.raises(ValueError, match="every pair shares a bundle"):
        pair_auc({1: np.ones((2, 2))}, [session(2, {1, 2}, id_=1)])


def test_a_learning_curve_is_measured_while_a_student_trains(tiny_profile, tiny_student, tmp_path):
    train, validation = (load_domain("toyshop", split).sessions[:20] for split in ("train", "validation"))
    profile = replace(tiny_profile, pairs=PairConfig(layer=2))
    profile = replace(profile, train=replace(profile.train, pair_weight=1.0))
    reader = profile_reader(profile, tiny_student, train)
    points = []

    def measure(model, n_seen):
        options = {"profile": profile, "reader": reader, "train": train, "validation": validation}
        points.append(learning_point(tiny_student, model, n_seen, **options, progress=False))

    measure(tiny_student.model, 0)
    training = {"config": profile.train, "prompt": profile.prompt, "reader": reader, "progress": False}
    watched = train_expert(tiny_student, train, tmp_path / "a", **training, on_epoch=measure)
    assert [p.sessions for p in points] == [0, 20, 40]
    assert points[0].nats > points[2].nats  # it learns to write
    for point in points:
        assert point.below.low <= point.below.estimate <= point.below.high
        assert all(0 <= score <= 1 for score in (point.auc, point.f1, point.exact_match))
    alone = train_expert(tiny_student, train, tmp_path / "b", **training)
    assert watched.history[-2]["loss"] == alone.history[-2]["loss"]  # to look changes nothing
