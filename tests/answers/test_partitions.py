"""All partitions, their prior, and the answer with the best expected score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers import partitions as module
from routedk_lite.answers.answering import decode_pairs
from routedk_lite.answers.partitions import (
    PartitionDecoder,
    SizePrior,
    _masks,
    bundles_of,
    fit_decoder,
    group_sizes,
    groups_of,
    mutual_f1,
    partitions,
)
from routedk_lite.data.metrics import evaluate, per_session
from routedk_lite.data.sessions import Session

BELL = {2: 2, 3: 5, 4: 15, 5: 52, 6: 203, 7: 877, 10: 115_975}
PAIRS = {3: [(1, 2), (1, 3), (2, 3)]}


def session(n, *bundles, id_=0):
    names = tuple(f"thing {k}" for k in range(n))
    return Session(id=id_, items=names, titles=names, bundles=tuple(map(frozenset, bundles)))


def logits_for(s, strength):
    """Logits that know the truth, as strongly as asked."""
    truth = [[any({i, j} <= b for b in s.bundles) for j in range(1, len(s) + 1)] for i in range(1, len(s) + 1)]
    return strength * (2.0 * np.array(truth) - 1)


@pytest.mark.parametrize("n", BELL)
def test_there_are_as_many_partitions_as_bells_numbers_say(n):
    found = partitions(n)
    assert len(found.labels) == BELL[n] - 1  # all but the one that puts nothing together
    assert len(np.unique(found.labels, axis=0)) == len(found.labels)
    assert all(sum(sizes) == n for sizes in found.sizes)
    row = len(found.labels) // 2
    sizes = sorted(np.bincount(found.labels[row]).tolist(), reverse=True)
    assert found.sizes[found.kind[row]] == tuple(sizes)


def test_too_many_items_are_refused():
    with pytest.raises(ValueError, match="a session of 13 items has too many partitions"):
        partitions(13)


def test_group_sizes_count_loose_items_and_the_largest_of_overlapping_bundles():
    assert group_sizes(session(6, {1, 2}, {3, 4, 5})) == (3, 2, 1)
    assert group_sizes(session(5, {1, 2}, {2, 3, 4})) == (3, 1, 1)


def test_the_prior_is_a_distribution_that_prefers_what_was_seen():
    prior = SizePrior([session(4, {1, 2}, {3, 4})] * 9 + [session(4, {1, 2, 3, 4})])
    p = np.exp(prior.log(4))
    assert p.sum() == pytest.approx(1)
    labels = partitions(4).labels.tolist()
    assert p[labels.index([0, 0, 1, 1])] == pytest.approx(p[labels.index([0, 1, 0, 1])])
    assert 3 * p[labels.index([0, 0, 1, 1])] > p[labels.index([0, 0, 0, 0])]


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, n), min_size=n, max_size=n)] * 2)))
def test_mutual_f1_is_strict_f1(both):
    labels = np.array([np.unique(row, return_inverse=True)[1] for row in both])
    answer, truth = (bundles_of(row) for row in labels)
    if not answer or not truth:
        return
    found = mutual_f1(_masks(labels))[0, 1]
    s = session(labels.shape[1], *truth)
    assert found == pytest.approx(evaluate({0: answer}, [s], "strict").f1)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=7), st.randoms())
def test_sure_logits_are_followed_whatever_the_order_of_the_items(groups, chance):
    truth = bundles_of(np.array(groups))
    if not truth:
        return
    s = session(len(groups), *truth)
    decoder = PartitionDecoder(prior=SizePrior([]))
    assert set(decoder.decode(logits_for(s, 20.0))) == set(truth)
    order = chance.sample(range(len(groups)), len(groups))
    moved = logits_for(s, 20.0)[np.ix_(order, order)]
    back = [frozenset(order[n - 1] + 1 for n in b) for b in decoder.decode(moved)]
    assert set(back) == set(truth)


def test_an_unsure_decoder_does_not_name_the_most_probable_partition():
    """All three together is likeliest, yet each pair lies inside it and scores in more of the worlds."""
    s = session(3, {1, 2, 3})
    prior = SizePrior([s] * 4 + [session(3, {1, 2})] * 6)
    logits = np.zeros((3, 3))
    decoder = PartitionDecoder(prior=prior, exact_weight=0.0)
    p = decoder.distribution(logits)
    assert partitions(3).labels[p.argmax()].tolist() == [0, 0, 0]
    assert len(decoder.decode(logits)[0]) == 2
    assert decoder.__class__(prior=prior, exact_weight=5.0).decode(logits) == [frozenset({1, 2, 3})]


def test_a_logit_that_is_no_number_is_refused():
    logits = np.zeros((3, 3))
    logits[0, 1] = np.nan
    with pytest.raises(ValueError, match="a logit of two items is NaN"):
        PartitionDecoder(prior=SizePrior([])).decode(logits)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.filterwarnings("error")
def test_an_infinite_logit_is_a_very_large_one(sign):
    decoder, logits = PartitionDecoder(prior=SizePrior([])), np.zeros((3, 3))
    logits[0, 1] = sign * 500
    expected, p = decoder.decode(logits), decoder.distribution(logits)
    logits[0, 1] = sign * np.inf
    assert decoder.decode(logits) == expected
    assert np.allclose(decoder.distribution(logits), p)


def test_a_single_item_has_no_bundle():
    assert PartitionDecoder(prior=SizePrior([])).decode(np.zeros((1, 1))) == []


def best_of_all(decoder, logits):
    """The answer with the best expected score against every partition, by the metric itself."""
    p, labels = decoder.distribution(logits), partitions(len(logits)).labels
    answers = [bundles_of(row) for row in labels]
    truths = [session(len(logits), *bundles, id_=k) for k, bundles in enumerate(answers)]
    scores = [per_session(dict.fromkeys(range(len(truths)), answer), truths, "strict").f1 @ p for answer in answers]
    return answers[int(np.argmax(np.array(scores) + decoder.exact_weight * p))]


def test_with_enough_candidates_all_partitions_compete():
    chance, differ = np.random.default_rng(0), 0
    few = PartitionDecoder(prior=SizePrior([]))
    every = replace(few, candidates=202)
    for k in range(60):
        logits = chance.normal(0, 1, (6, 6))
        answer = every.decode(logits)
        assert k > 1 or answer == best_of_all(every, logits)
        differ += few.decode(logits) != answer
    assert differ  # what the default leaves out matters, and its docstring says so
    assert few.candidates == 80  # as in the recorded runs
    five = chance.normal(0, 0.5, (5, 5))
    assert few.decode(five) == best_of_all(few, five)


def test_blocks_of_candidates_change_nothing(monkeypatch):
    logits = np.random.default_rng(1).normal(0, 1, (7, 7))
    decoder = PartitionDecoder(prior=SizePrior([]), candidates=876)
    whole = decoder.decode(logits)
    monkeypatch.setattr(module, "_BLOCK", 37)
    assert decoder.decode(logits) == whole


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match=r"PartitionDecoder.candidates = 0"):
        PartitionDecoder(prior=SizePrior([]), candidates=0)


def test_sessions_that_are_too_long_are_named_before_anything_is_read():
    def read(sessions):
        raise AssertionError

    short, long = session(4, {1, 2}), session(13, {1, 2}, id_=7)
    with pytest.raises(ValueError, match="session 7: 13 items have too many partitions"):
        decode_pairs(read, [long], train=[short], validation=[short])
    with pytest.raises(ValueError, match="session 7: 13 items have too many partitions"):
        fit_decoder({}, [short, long], [short])


def test_fitting_makes_the_annotated_partitions_likely():
    chance = np.random.default_rng(0)
    kinds = [({1, 2}, {3, 4, 5}), ({1, 4}, {2, 3}), ({1, 2, 3, 4},)]
    sessions = [session(5, *kinds[k % 3], id_=k) for k in range(60)]
    noisy = {s.id: 3 * (logits_for(s, 1.0) + chance.normal(0, 1, (5, 5))) - 4 for s in sessions}
    fitted = fit_decoder(noisy, sessions, sessions)

    def likelihood(decoder):
        labels = partitions(5).labels.tolist()
        places = [labels.index(np.unique(groups_of(s), return_inverse=True)[1].tolist()) for s in sessions]
        return np.mean([np.log(decoder.distribution(noisy[s.id])[k]) for s, k in zip(sessions, places, strict=True)])

    for change in ({"scale": 0.1}, {"shift": 0.1}, {"prior_weight": 0.1}):
        for sign in (1, -1):
            moved = {name: getattr(fitted, name) + sign * step for name, step in change.items()}
            assert likelihood(replace(fitted, **moved)) < likelihood(fitted)

    def exact_match(decoder):
        return evaluate({s.id: decoder.decode(noisy[s.id]) for s in sessions}, sessions, "strict").exact_match

    assert exact_match(fitted) > exact_match(PartitionDecoder(prior=SizePrior(sessions)))


def test_fitting_ends_where_the_likelihood_has_no_maximum_and_refuses_where_nothing_can_be_fitted():
    sessions = [session(4, {1, 2}, id_=k) for k in range(9)]
    fitted = fit_decoder({s.id: logits_for(s, 1.0) for s in sessions}, sessions, sessions)
    assert np.isfinite([fitted.scale, fitted.shift, fitted.prior_weight]).all()
    with pytest.raises(ValueError, match="every validation pair shares a bundle"):
        fit_decoder({0: np.zeros((2, 2))}, [session(2, {1, 2})], [])


def test_of_overlapping_bundles_the_largest_is_the_group():
    assert groups_of(session(5, {1, 2}, {2, 3, 4})).tolist() == [0, 1, 1, 1, 4]
