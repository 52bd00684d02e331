"""The vote: who wins, what a permutation may change (nothing), and what is told about it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.answers.voting import Vote, diversity, reliability, resampled_scores, vote, vote_all, voting_curve
from routedk_lite.data.sessions import Session

GREEDY = Answer.of_bundles(0, [{1, 2}])


def answer(*bundles, log_prob=-1.0, id_=0) -> Answer:
    return Answer.of_bundles(id_, bundles)._replace(log_prob=log_prob)


bundle = st.frozensets(st.integers(1, 5), min_size=2)
candidates = st.lists(
    st.builds(
        lambda bundles, p: answer(*bundles, log_prob=p),
        st.lists(bundle, max_size=3),
        st.floats(-5, 0, allow_subnormal=False),
    ),
    min_size=1,
    max_size=12,
)


def test_the_most_frequent_set_wins_whatever_the_order_of_its_bundles():
    a, b = answer({1, 2}, {3, 4}), answer({4, 3}, {2, 1}, {1, 2})
    found = vote([answer({1, 3}, log_prob=0.0), a, b], GREEDY)
    assert found.bundles == (frozenset({1, 2}), frozenset({3, 4}))
    assert found.share == pytest.approx(2 / 3) and not found.fallback


def test_a_tie_goes_to_the_likelier_candidate():
    likely = [answer({1, 2}, log_prob=-0.1), answer({1, 2}, log_prob=-0.5)]
    unlikely = [answer({3, 4}, log_prob=-0.2), answer({3, 4}, log_prob=-0.9)]
    assert vote(unlikely + likely, GREEDY).bundles == (frozenset({1, 2}),)


def test_unreadable_answers_have_no_vote_but_count_in_the_share():
    found = vote([answer(), answer(), answer({3, 4})], GREEDY)
    assert found.bundles == (frozenset({3, 4}),) and found.share == pytest.approx(1 / 3)


def test_without_any_readable_answer_the_greedy_one_stands():
    assert vote([answer(), answer()], GREEDY) == ((frozenset({1, 2}),), 0.0, True)


@given(candidates, st.randoms())
def test_the_order_of_the_answers_does_not_matter(answers, chance):
    shuffled = chance.sample(answers, len(answers))
    assert vote(shuffled, GREEDY) == vote(answers, GREEDY)


@given(candidates, st.permutations(range(1, 6)))
def test_renaming_the_items_renames_the_winner(answers, order):
    # All log-probabilities differ, so that no tie is left to the item numbers.
    answers = [a._replace(log_prob=-math.sqrt(2 + k)) for k, a in enumerate(answers)]

    def renamed(a):
        return answer(*({order[n - 1] for n in b} for b in a.bundles), log_prob=a.log_prob)

    expected = renamed(answer(*vote(answers, GREEDY).bundles))
    found = vote([renamed(a) for a in answers], renamed(GREEDY))
    assert set(found.bundles) == set(expected.bundles)


@given(candidates)
def test_diversity_equals_its_definition(answers):
    found = diversity(answers)
    sets = [frozenset(a.bundles) for a in answers]
    counts = Counter(sets)
    shares = [c / len(sets) for c in counts.values()]
    assert found.distinct == len(counts)
    assert found.share == pytest.approx(max(shares))
    assert found.entropy == pytest.approx(-sum(s * math.log(s) for s in shares), abs=1e-12)
    assert found.unreadable == pytest.approx(counts[frozenset()] / len(sets))
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    alike = [1.0 if a == b else len(a & b) / len(a | b) for a, b in pairs]
    assert found.jaccard == pytest.approx(np.mean(alike) if alike else 1.0)


def test_diversity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="answers is empty"):
        diversity([])


# --- many sessions ---


def study(n_sessions=60, n=16, right=0.6, seed=0):
    """Sessions whose answers are right with the given probability and otherwise all the same mistake."""
    chance = np.random.default_rng(seed)
    sessions, samples = [], []
    for id_ in range(n_sessions):
        titles = ("a", "b", "c", "d")
        sessions.append(Session(id=id_, items=titles, titles=titles, bundles=(frozenset({1, 2}),)))
        drawn = [answer({1, 2} if chance.random() < right else {3, 4}, id_=id_) for _ in range(n)]
        samples.append(Samples(id_, GREEDY, tuple(drawn)))
    return sessions, samples


def test_voters_that_are_mostly_right_get_better_together():
    sessions, samples = study()
    curve = voting_curve(samples, sessions, (1, 4, 16), generator=np.random.default_rng(1))
    assert [p.n for p in curve] == [1, 4, 16]
    estimates = [p.resampled.estimate for p in curve]
    assert estimates == sorted(estimates) and estimates[2] > estimates[0] + 0.1
    assert curve[-1].nested == curve[-1].resampled.estimate  # all answers: there is one subset
    first = {s.id: vote(s.drawn[:4], s.greedy).bundles == (frozenset({1, 2}),) for s in samples}
    assert curve[1].nested == pytest.approx(np.mean(list(first.values())))
    assert all(p.resampled.low <= p.resampled.estimate <= p.resampled.high for p in curve)


def test_voters_that_are_mostly_wrong_are_warned_of():
    sessions, samples = study(right=0.35)
    with pytest.warns(UserWarning, match="more voters make it worse: exact_match is -0.* at N = 16 against N = 1"):
        voting_curve(samples, sessions, (1, 16), metric="exact_match", generator=np.random.default_rng(1))


def test_fallbacks_are_counted():
    sessions, samples = study(n_sessions=3)
    samples[0] = samples[0]._replace(drawn=(answer(),) * 16)
    (point,) = voting_curve(samples, sessions, (4,), generator=np.random.default_rng(1))
    assert point.fallbacks == 1


def test_sizes_and_sessions_must_fit_the_draw():
    sessions, samples = study(n_sessions=3)
    with pytest.raises(ValueError, match="n = 32: session 0 has 16 answers"):
        voting_curve(samples, sessions, (32,), generator=np.random.default_rng(1))
    with pytest.raises(ValueError, match="not about the same sessions"):
        voting_curve(samples[1:], sessions, (1,), generator=np.random.default_rng(1))


def test_reliability_bins_hold_every_session_once():
    sessions, samples = study(right=0.7)
    votes = vote_all(samples)
    bins = reliability(votes, sessions)
    assert sum(b.count for b in bins) == len(sessions)
    assert all(b.low <= b.share <= b.high and 0 <= b.exact <= 1 for b in bins)
    exact = np.mean([votes[s.id].bundles == (frozenset({1, 2}),) for s in sessions])
    assert sum(b.count * b.exact for b in bins) / len(sessions) == pytest.approx(exact)


def test_a_share_below_the_first_bin_is_in_none():
    session = Session(id=0, items=tuple("abc"), titles=tuple("abc"), bundles=(frozenset({1, 2}),))
    counts = {
        share: [b.count for b in reliability({0: Vote(session.bundles, share, False)}, [session], (0.5, 0.75, 1))]
        for share in (0.2, 0.5, 0.75, 0.8)
    }
    assert counts == {0.2: [], 0.5: [1], 0.75: [1], 0.8: [1]}


def test_samples_survive_their_file():
    _, (one, *_) = study(n_sessions=1)
    again = Samples.from_json(one.to_json())
    assert again == one
    assert len(one.to_json()["answers"]) == 2  # distinct ones only


def test_scores_of_fewer_voters_are_means_over_the_draw():
    session = Session(id=0, items=tuple("abc"), titles=tuple("abc"), bundles=(frozenset({1, 2}),))
    samples = [Samples(0, GREEDY, (answer({1, 2}), answer({1, 2}), answer({1, 3}), answer({2, 3})))]
    one, _ = resampled_scores(samples, [session], 1, generator=np.random.default_rng(0), resamples=2000)
    every, fallbacks = resampled_scores(samples, [session], 4, generator=np.random.default_rng(0))
    assert one[0] == pytest.approx(0.5, abs=0.04)
    assert every[0] == 1.0 and fallbacks == 0
    with pytest.raises(ValueError, match="session 0 has 4 answers"):
        resampled_scores(samples, [session], 5, generator=np.random.default_rng(0))
