"""Choosing among sampled answers: the oracle bounds everyone, the vote is the vote, pass@N is what resampling gives."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers.choosing import (
    CHOOSERS,
    Contest,
    choice_curve,
    contests,
    likeliest,
    oracle,
    pass_at_n,
    remembering,
)
from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.answers.voting import calibration_error, reliability, vote, vote_all, voting_curve
from routedk_lite.data.sessions import Session

RIGHT, WRONG, HALF = ({1, 2}, {3, 4}), ({1, 3},), ({1, 2}, {1, 4})


def answer(*bundles, log_prob=-1.0, n_tokens=5, id_=0) -> Answer:
    return Answer.of_bundles(id_, bundles)._replace(log_prob=log_prob, n_tokens=n_tokens)


def study(shares, n_sessions=40, n=12, seed=0):
    """Sessions, and draws in which each of the answers comes up with its share."""
    chance = np.random.default_rng(seed)
    names = tuple("abcd")
    sessions, samples = [], []
    for id_ in range(n_sessions):
        sessions.append(Session(id=id_, items=names, titles=names, bundles=tuple(map(frozenset, RIGHT))))
        picked = chance.choice(len(shares), n, p=list(shares.values()))
        drawn = tuple(answer(*list(shares)[k], log_prob=-0.1 * (k + 1), n_tokens=4 + int(k), id_=id_) for k in picked)
        samples.append(Samples(id_, drawn[0], drawn))
    return sessions, samples


def mixed(right=0.4, wrong=0.35, half=0.25):
    """Answers and how often each is given."""
    answers = (tuple(map(frozenset, bundles)) for bundles in (RIGHT, WRONG, HALF))
    return dict(zip(answers, (right, wrong, half), strict=True))


def curve(name, sessions, samples, metric="f1", sizes=(1, 4, 12)):
    return choice_curve(
        samples, sessions, CHOOSERS[name], sizes, generator=np.random.default_rng(1), metric=metric, resamples=40
    )


def test_nobody_beats_the_oracle_and_all_are_alike_with_one_answer():
    sessions, samples = study(mixed())
    found = {name: [p.score.estimate for p in curve(name, sessions, samples)] for name in CHOOSERS}
    for name, scores in found.items():
        assert scores[0] == pytest.approx(found["oracle"][0])
        assert all(a <= b + 1e-9 for a, b in zip(scores, found["oracle"], strict=True)), name
    assert found["oracle"] == sorted(found["oracle"]) and found["oracle"][-1] > found["majority"][-1]


def test_the_majority_is_the_vote():
    sessions, samples = study(mixed())
    ours = curve("majority", sessions, samples, "exact_match", (12,))[0].score.estimate
    theirs = voting_curve(samples, sessions, (12,), generator=np.random.default_rng(1), metric="exact_match")
    assert ours == pytest.approx(theirs[0].nested)


def test_the_likeliest_text_wins_whole_not_per_token():
    long = answer({1, 2}, log_prob=-0.5, n_tokens=10)
    short = answer({3, 4}, log_prob=-0.6, n_tokens=3)
    greedy = answer({1, 4})
    assert likeliest([long, short], greedy, lambda b: 0.0) == short.bundles
    assert likeliest([answer()], greedy, lambda b: 0.0) == greedy.bundles
    with pytest.raises(ValueError, match="session 0: an answer has no log_prob"):
        likeliest([answer({1, 2}, log_prob=None)], greedy, lambda b: 0.0)


def test_the_oracle_asks_what_answers_are_worth():
    best = answer(*RIGHT)
    assert oracle([answer({1, 3}), best], answer(), lambda b: float(len(list(b)))) == best.bundles


def test_a_choice_that_is_remembered_is_made_once_for_the_same_answers():
    asked = []

    def first(answers, greedy, worth):
        asked.append(sorted(a.log_prob for a in answers))
        return vote(answers, greedy).bundles

    choose, some, other = remembering(first), answer({1, 2}, log_prob=-1.0), answer({3, 4}, log_prob=-2.0)
    for answers in ([some, other], [other, some], [some, some, other], [some], [other]):
        for worth in (len, sum):
            assert choose(answers, some, worth) == vote(answers, some).bundles
    assert asked == [[-2.0, -1.0], [-2.0, -1.0, -1.0], [-1.0], [-2.0]]
    sessions, samples = study(mixed())
    how = {"sizes": (1, 4, 12), "metric": "exact_match", "resamples": 20}
    curves = [
        choice_curve(samples, sessions, way, generator=np.random.default_rng(1), **how)
        for way in (CHOOSERS["consensus"], remembering(CHOOSERS["consensus"]))
    ]
    assert curves[0] == curves[1]


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, n))))
def test_pass_at_n_is_the_share_of_subsets_with_a_right_answer(case):
    n_right, n_drawn, n = case
    subsets = list(combinations([True] * n_right + [False] * (n_drawn - n_right), n))
    assert pass_at_n(n_right, n_drawn, n) == pytest.approx(np.mean([any(s) for s in subsets]))


def test_pass_at_n_is_the_oracles_exact_match():
    sessions, samples = study(mixed())
    for point in curve("oracle", sessions, samples, "exact_match"):
        expected = np.mean([pass_at_n(round(c.right * 12), 12, point.n) for c in contests(samples, sessions)])
        assert point.score.estimate == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("case", [(5, 4, 1), (1, 4, 5), (1, 4, 0), (-1, 4, 1)])
def test_impossible_draws_are_refused(case):
    with pytest.raises(ValueError, match="need 0 ≤ n_right"):
        pass_at_n(*case)


def test_a_contest_is_right_against_the_most_frequent_wrong_answer():
    sessions, _ = study(mixed(), n_sessions=1)
    drawn = [answer(*RIGHT)] * 3 + [answer(*WRONG)] * 4 + [answer(*HALF)] + [answer()] * 4
    assert contests([Samples(0, drawn[0], tuple(drawn))], sessions) == [Contest(0, 0.25, pytest.approx(1 / 3))]
    assert contests([Samples(0, drawn[0], (answer(),))], sessions) == [Contest(0, 0.0, 0.0)]


def test_a_vote_of_many_follows_the_contests():
    """More voters help where the right answer is the most frequent one, and hurt where a rival is."""
    sessions, samples = study(mixed(0.5, 0.3, 0.2), n=32, n_sessions=20)
    lost, bad = study(mixed(0.25, 0.6, 0.15), n=32, n_sessions=20, seed=1)
    ahead = curve("majority", sessions, samples, "exact_match", (1, 16))
    behind = curve("majority", lost, bad, "exact_match", (1, 16))
    assert ahead[1].score.estimate > ahead[0].score.estimate + 0.2
    assert behind[1].score.estimate < behind[0].score.estimate - 0.1


def test_sizes_and_sessions_must_fit_the_draw():
    sessions, samples = study(mixed(), n_sessions=3)
    with pytest.raises(ValueError, match="n = 13: session 0 has 12 answers"):
        curve("majority", sessions, samples, sizes=(13,))
    with pytest.raises(ValueError, match="not about the same sessions"):
        contests(samples[1:], sessions)


def test_the_calibration_error_is_the_mean_gap():
    sessions, samples = study(mixed())
    bins = reliability(vote_all(samples), sessions)
    expected = sum(b.count * abs(b.share - b.exact) for b in bins) / len(sessions)
    assert calibration_error(bins) == pytest.approx(expected) and 0 < calibration_error(bins) < 1
    sure = [bins[0]._replace(share=0.8, exact=0.8, count=7)]
    assert calibration_error(sure) == 0
    with pytest.raises(ValueError, match="bins is empty"):
        calibration_error([])
