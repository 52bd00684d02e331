"""What a record of votes holds beside the winners."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.config import VoteConfig
from routedk_lite.data.sessions import Session
from routedk_lite.study.votes import voting_curves


def study_of(right, *, n=16, n_sessions=60):
    """Sessions with one bundle each, and draws that hold it with that probability and the same wrong answer else."""
    chance, sessions, samples = np.random.default_rng(0), [], []
    good, bad = ([frozenset(pair)] for pair in ({1, 2}, {3, 4}))
    for id_ in range(n_sessions):
        names = tuple("abcd")
        sessions.append(Session(id=id_, items=names, titles=names, bundles=tuple(good)))
        drawn = [Answer.of_bundles(id_, good if chance.random() < right else bad) for _ in range(n)]
        samples.append(Samples(id_, drawn[0], tuple(drawn)))
    profile = SimpleNamespace(vote=VoteConfig(n=n, sizes=(1, 4, n)))
    return SimpleNamespace(seed=0, profile=profile, split=lambda name: sessions), samples


def test_the_warning_that_more_voters_make_it_worse_stands_in_the_record():
    with pytest.warns(UserWarning, match="more voters make it worse") as caught:
        made = voting_curves(*study_of(0.35))
    assert made["warnings"] == [str(one.message) for one in caught]
    assert [text.partition(" is ")[0] for text in made["warnings"]] == [
        f"more voters make it worse: {metric}" for metric in ("f1", "exact_match")
    ]
    assert [point["n"] for point in made["curves"]["f1"]] == [1, 4, 16]


def test_voters_that_help_each_other_are_not_warned_of(recwarn):
    made = voting_curves(*study_of(0.7))
    assert made["warnings"] == [] and not recwarn.list
    first, *_, last = made["curves"]["exact_match"]
    assert last["resampled"][0] > first["resampled"][0]
