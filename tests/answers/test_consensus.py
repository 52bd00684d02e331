"""Consensus: against a brute-force reference, where it must win, where it becomes the vote. Likewise the verifier."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers import consensus
from routedk_lite.answers.choosing import CHOOSERS, choice_curve, majority
from routedk_lite.answers.consensus import Consensus, bundle_agreement, clusterings, neighbours, pair_agreement
from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.answers.verifier import FEATURES, candidate_features, fit_verifier
from routedk_lite.data.metrics import per_session
from routedk_lite.data.sessions import Session


def answer(*bundles, log_prob=-1.0, id_=0) -> Answer:
    return Answer.of_bundles(id_, bundles)._replace(log_prob=log_prob, n_tokens=6)


BUNDLE = st.frozensets(st.integers(1, 6), min_size=2, max_size=4)
CANDIDATES = st.lists(st.frozensets(BUNDLE, min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(CANDIDATES)
def test_agreement_is_strict_f1_with_the_other_as_the_truth(candidates):
    names = tuple("abcdef")
    found = bundle_agreement(candidates)
    for row, one in enumerate(candidates):
        for column, other in enumerate(candidates):
            session = Session(id=0, items=names, titles=names, bundles=tuple(other))
            assert found[row, column] == pytest.approx(float(per_session({0: list(one)}, [session], "strict").f1[0]))


@given(CANDIDATES)
def test_pair_agreement_is_symmetric_and_one_with_itself(candidates):
    found = pair_agreement(candidates)
    assert np.allclose(found, found.T) and np.allclose(np.diag(found), 1)


def test_items_beyond_sixty_are_counted_like_all_others():
    one, other = frozenset({frozenset({1, 70})}), frozenset({frozenset({1, 70, 90})})
    assert bundle_agreement([one, other]).tolist() == [[1.0, 1.0], [0.0, 1.0]]


@given(st.lists(st.frozensets(BUNDLE, max_size=3), min_size=1, max_size=8), st.sampled_from(["bundles", "pairs"]))
def test_no_candidate_agrees_better_than_the_chosen_one(sampled, by):
    answers = [answer(*bundles) for bundles in sampled]
    chosen = frozenset(Consensus(exact_weight=0.5, by=by)(answers, answer({1, 2})))
    counts = Counter(bundles for bundles in sampled if bundles)
    if not counts:
        assert chosen == {frozenset({1, 2})}
        return
    items = {n for candidate in counts for bundle in candidate for n in bundle}
    candidates = list({*counts, *clusterings(counts), *neighbours(chosen, items), chosen})
    agreement = (bundle_agreement if by == "bundles" else pair_agreement)(candidates)
    weights = np.array([counts[c] for c in candidates]) / sum(counts.values())
    scores = agreement @ weights + 0.5 * weights
    assert scores[candidates.index(chosen)] == pytest.approx(scores.max())


def test_neighbours_are_one_move_away():
    found = neighbours(frozenset({frozenset({1, 2, 3}), frozenset({4, 5})}), range(1, 8))
    assert frozenset({frozenset({1, 2}), frozenset({3, 4, 5})}) in found  # 3 changes its bundle
    assert frozenset({frozenset({1, 2}), frozenset({4, 5})}) in found  # 3 leaves
    assert frozenset({frozenset({1, 2, 3, 4, 5})}) in found  # two become one
    assert frozenset({frozenset({1, 2, 3})}) in found  # 4 leaves, and 5 is alone
    assert frozenset({frozenset({1, 2, 3}), frozenset({4, 5}), frozenset({6, 7})}) in found  # free items meet
    assert frozenset({frozenset({1, 2}), frozenset({3, 6}), frozenset({4, 5})}) in found  # 3 goes to a free item
    assert neighbours(frozenset({frozenset({1, 2}), frozenset({2, 3})}), range(1, 4)) == set()


def test_a_flat_distribution_has_a_better_answer_than_its_mode():
    """The mode is the whole session; all other samples agree that 1 and 2 go together."""
    samples = [answer({1, 2, 3, 4, 5, 6})] * 2 + [answer({1, 2}, {3, n}) for n in (4, 5, 6)] + [answer({1, 2}, {4, 5})]
    assert majority(samples, answer(), lambda b: 0.0) == (frozenset(range(1, 7)),)
    assert frozenset({1, 2}) in Consensus()(samples, answer())


def test_an_answer_that_nobody_gave_can_be_chosen():
    samples = [answer({1, 2}, {3, 4}, {5, 6, n}) for n in (7, 8, 9)] + [answer({1, 2, 3, 4}), answer({5, 6})]
    chosen = frozenset(Consensus(exact_weight=0.0)(samples, answer()))
    assert chosen not in {frozenset(s.bundles) for s in samples}
    assert {frozenset({1, 2}), frozenset({5, 6})} <= chosen


def test_a_large_weight_of_exact_matches_is_the_vote():
    samples = [answer({1, 2, 3})] * 3 + [answer({1, 2}), answer({1, 3}), answer({2, 3}), answer({1, 2}, {3, 4})]
    assert Consensus(exact_weight=1000)(samples, answer()) == majority(samples, answer(), lambda b: 0.0)


@pytest.mark.parametrize("by", ["bundles", "pairs"])
def test_samples_are_looked_at_once_however_many_moves_there_are(monkeypatch, by):
    name = "_masks" if by == "bundles" else "_pairs"
    looked, plain = Counter(), getattr(consensus, name)

    def counted(candidates):
        looked.update(map(frozenset, candidates))
        return plain(candidates)

    samples = [answer({1, 2}, {3, n}, {4, 7}) for n in (5, 6)] * 2 + [answer({1, 3}, {2, 4, 7}, {5, 6})]
    expected = Consensus(by=by)(samples, answer())
    monkeypatch.setattr(consensus, name, counted)
    rounds = []
    monkeypatch.setattr(consensus, "neighbours", lambda *a: rounds.append(a) or neighbours(*a))
    assert Consensus(by=by)(samples, answer()) == expected
    assert len(rounds) > 1
    for sample in {frozenset(s.bundles) for s in samples}:
        moves = sum(sample in neighbours(*a) for a in rounds)
        assert looked[sample] == 2 + moves  # as a truth, as a candidate, and where a move leads to it


@pytest.mark.parametrize(
    ("options", "words"), [({"by": "items"}, "by = 'items'"), ({"exact_weight": -1}, "exact_weight = -1")]
)
def test_a_wrong_setting_is_named(options, words):
    with pytest.raises(ValueError, match=f"Consensus.{words}"):
        Consensus(**options)


# --- the verifier ---------------------------------------------------------------------------------------------------


def shop(n_sessions, *, seed, n=16):
    """Sessions whose right answer is always the likeliest sample, but never the most frequent one."""
    chance, names = np.random.default_rng(seed), tuple("abcdef")
    sessions, samples = [], []
    for id_ in range(n_sessions):
        first, second, third = chance.permutation(6)[:3] + 1
        truth = ({int(first), int(second)},)
        sessions.append(Session(id=id_, items=names, titles=names, bundles=tuple(map(frozenset, truth))))
        wrong = [answer({int(first), int(third)}, log_prob=-2.0, id_=id_)] * (n - 4)
        right = [answer(*truth, log_prob=-0.3, id_=id_)] * 4
        samples.append(Samples(id_, wrong[0], (*wrong, *right)))
    return sessions, samples


def test_the_verifier_learns_what_the_vote_cannot_see():
    verifier = fit_verifier(*reversed(shop(60, seed=0)))
    sessions, samples = shop(40, seed=1)
    (found,) = choice_curve(samples, sessions, verifier, (16,), generator=np.random.default_rng(0), metric="f1")
    (vote,) = choice_curve(
        samples, sessions, CHOOSERS["majority"], (16,), generator=np.random.default_rng(0), metric="f1"
    )
    assert found.score.estimate == 1.0 and vote.score.estimate == 0.0


def test_features_say_what_they_name():
    logits = np.full((4, 4), -2.0)
    logits[0, 1] = 3.0
    candidates, rows = candidate_features([answer({1, 2})] * 3 + [answer({1, 2}, {3, 4})], logits)
    row = dict(zip(FEATURES, rows[candidates.index(frozenset({frozenset({1, 2})}))], strict=True))
    assert row["share of the samples"] == 0.75 and row["number of bundles"] == 1 and row["items in bundles"] == 2
    assert row["log-probability of the whole answer"] == -6 and row["log-probability per token"] == -1
    assert row["mean pair logit inside its bundles"] == 3 and row["mean pair logit across them"] == -2
    _, without = candidate_features([answer({1, 2})])
    assert np.isnan(without[0, -2:]).all()


def test_the_verifier_gives_the_greedy_answer_where_nothing_can_be_read():
    verifier = fit_verifier(*reversed(shop(30, seed=0)))
    assert verifier([answer()], answer({1, 4})) == (frozenset({1, 4}),)


def test_samples_and_sessions_must_belong_together():
    sessions, samples = shop(5, seed=0)
    with pytest.raises(ValueError, match="session 4 is not among"):
        fit_verifier(samples, sessions[:4])
    with pytest.raises(ValueError, match="no answer can be read"):
        fit_verifier([Samples(0, answer(), (answer(),))], sessions)
