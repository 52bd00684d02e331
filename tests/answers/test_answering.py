"""One deterministic answer per session: greedy, or decoded from pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routedk_lite.answers import answering
from routedk_lite.answers.answering import answer_sessions, decode_pairs, profile_reader
from routedk_lite.answers.decoding import greedy_answers
from routedk_lite.config import PairConfig
from routedk_lite.data.domains import load_domain


@pytest.fixture(scope="module")
def splits():
    limit = {"train": 20, "validation": 12, "test": 6}
    return {name: load_domain("toyshop", name).sessions[:n] for name, n in limit.items()}


def answers(profile, student, splits):
    reader = profile_reader(profile, student, splits["train"])
    others = {"train": splits["train"], "validation": splits["validation"]}
    return answer_sessions(
        student.model, splits["test"], profile=profile, student=student, reader=reader, **others, progress=False
    )


def test_without_pairs_answers_are_greedy(tiny_profile, tiny_student, splits):
    options = {"prompt": tiny_profile.prompt, "decode": tiny_profile.decode, "progress": False}
    expected = greedy_answers(tiny_student.model, tiny_student.tokenizer, splits["test"], **options)
    assert answers(tiny_profile, tiny_student, splits) == {a.id: a.bundles for a in expected}


def test_with_pairs_every_session_gets_bundles(tiny_profile, tiny_student, splits):
    paired = replace(tiny_profile, pairs=PairConfig(layer=2))
    found = answers(paired, tiny_student, splits)
    assert set(found) == {s.id for s in splits["test"]}
    for session in splits["test"]:
        assert found[session.id]  # a partition that puts nothing together is no answer
        used = [number for bundle in found[session.id] for number in bundle]
        assert len(used) == len(set(used)) and set(used) <= set(range(1, len(session) + 1))
    assert answers(paired, tiny_student, splits) == found


def test_no_validation_session_is_answered_by_a_decoder_that_saw_it(splits, monkeypatch):
    class Fitted:
        def __init__(self, logits, sessions, train, *, exact_weight):
            self.ids = {s.id for s in sessions}

        def decode(self, logits):
            return self.ids

    monkeypatch.setattr(answering, "fit_decoder", Fitted)
    sessions = splits["validation"]
    found = answering.cross_validated({s.id: None for s in sessions}, sessions, train=splits["train"])
    everyone = {s.id for s in sessions}
    assert found.keys() == everyone
    for id_, seen in found.items():
        assert id_ not in seen and seen < everyone and len(seen) >= 0.8 * len(everyone) - 1
    with pytest.raises(ValueError, match="1 sessions: cross-validation needs at least two"):
        answering.cross_validated({}, sessions[:1], train=[])


@pytest.mark.parametrize("n", [1, 3])
def test_few_validation_sessions_fit_a_decoder_that_nobody_has_cross_validated(splits, n):
    def read(sessions):
        return {s.id: 24.0 * s.together() - 12 for s in sessions}

    mixed = next(s for s in splits["validation"] if 0 < s.together().sum() < len(s) ** 2)
    bundled = {"intents": (), "why": ()}
    alike = [replace(s, bundles=(frozenset(range(1, len(s) + 1)),), **bundled) for s in splits["train"][: n - 1]]
    few = [mixed, *(replace(s, id=10**6 + k) for k, s in enumerate(alike))]
    found = answering.decode_pairs(read, splits["test"], train=splits["train"], validation=few)
    assert found.validation == {} and found.answers.keys() == {s.id for s in splits["test"]}


def test_pairs_that_know_the_truth_are_decoded_into_it(splits):
    def read(sessions):
        return {s.id: 24.0 * s.together() - 12 for s in sessions}

    sessions = [s for s in splits["test"] if sum(map(len, s.bundles)) == len(frozenset().union(*s.bundles))]
    assert len(sessions) > 2  # the others have bundles that overlap, which no partition has
    found = decode_pairs(read, sessions, train=splits["train"], validation=splits["validation"])
    for session in sessions:
        assert set(found.answers[session.id]) == set(session.bundles)
    assert set(found.logits) == {s.id for s in [*splits["validation"], *sessions]}
    assert set(found.validation) == {s.id for s in splits["validation"]}
