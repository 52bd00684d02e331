"""Both protocols against slow references written from their definitions, and properties they must have."""

from __future__ import annotations

import math
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.data.metrics import PROTOCOLS, Metrics, evaluate, per_session
from routedk_lite.data.sessions import Session


def make_session(bundles, *, n_items=6, id=1) -> Session:
    names = tuple(f"product {n}" for n in range(1, n_items + 1))
    return Session(id=id, items=names, titles=names, bundles=tuple(frozenset(b) for b in bundles))


def bundles_of(n_items, *, min_size=1, min_count=0):
    bundle = st.frozensets(st.integers(1, n_items), min_size=min_size, max_size=n_items)
    return st.lists(bundle, min_size=min_count, max_size=5)


@st.composite
def tasks(draw, *, valid=False):
    """Some sessions and predictions for them; with `valid` every prediction has two items or more."""
    sessions, predictions = [], {}
    for id in range(1, draw(st.integers(1, 4)) + 1):
        n_items = draw(st.integers(2, 7))
        sessions.append(make_session(draw(bundles_of(n_items, min_size=2, min_count=1)), n_items=n_items, id=id))
        if valid or draw(st.booleans()):
            predictions[id] = draw(bundles_of(n_items, min_size=2 if valid else 1, min_count=int(valid)))
    return sessions, predictions


def published_way(predictions, sessions):
    """The published counting, step by step with running sums; returns None when no session is left."""
    kept = {}
    for session in sessions:
        bundles = [b for b in predictions.get(session.id, []) if len(b) != 1]
        if bundles:
            kept[session.id] = bundles
    if not kept:
        return None
    precision = recall = coverage = f1 = exact = hits_in_all = 0.0
    for session in sessions:
        if session.id not in kept:
            continue
        hits = 0
        for bundle in kept[session.id]:
            for true in session.bundles:
                if set(bundle) | set(true) == set(true):
                    hits += 1
                    hits_in_all += 1
                    coverage += len(set(bundle) & set(true)) / len(true)
                    break
        p, r = hits / len(kept[session.id]), hits / len(session.bundles)
        precision, recall = precision + p, recall + r
        f1 += 2 * p * r / (p + r) if hits else 0
        exact += {tuple(sorted(b)) for b in kept[session.id]} == {tuple(sorted(b)) for b in session.bundles}
    sums = {"precision": precision, "recall": recall, "f1": f1, "exact_match": exact}
    means = {name: value / len(kept) for name, value in sums.items()}
    coverage = coverage / hits_in_all if hits_in_all else 0
    rate = len(kept) / len(sessions)
    return Metrics(**means, coverage=coverage, valid_rate=rate, n_sessions=len(kept))


def repaired_way(predictions, sessions):
    """The strict definitions over explicit lists."""
    precisions, recalls, f1s, exacts, shares, answered = [], [], [], [], [], []
    for session in sessions:
        predicted, truth = [], []
        for bundles, kept in ((predictions.get(session.id, []), predicted), (session.bundles, truth)):
            for bundle in bundles:
                if len(bundle) >= 2 and sorted(bundle) not in kept:
                    kept.append(sorted(bundle))
        inside = [[all(item in true for item in bundle) for true in truth] for bundle in predicted]
        p = sum(map(any, inside)) / len(predicted) if predicted else 0
        r = sum(any(row[t] for row in inside) for t in range(len(truth))) / len(truth)
        shares += [len(b) / len(truth[row.index(True)]) for b, row in zip(predicted, inside, strict=True) if any(row)]
        precisions.append(p)
        recalls.append(r)
        f1s.append(0 if p + r == 0 else 2 / (1 / p + 1 / r))
        exacts.append(sorted(predicted) == sorted(truth))
        answered.append(bool(predicted))
    n = len(sessions)
    return Metrics(
        precision=sum(precisions) / n,
        recall=sum(recalls) / n,
        coverage=sum(shares) / len(shares) if shares else 0,
        f1=sum(f1s) / n,
        exact_match=sum(exacts) / n,
        valid_rate=sum(answered) / n,
        n_sessions=n,
    )


def close(a: Metrics, b: Metrics) -> bool:
    return asdict(a) == pytest.approx(asdict(b), abs=1e-12)


@given(tasks())
def test_official_equals_the_published_counting(task):
    sessions, predictions = task
    expected = published_way(predictions, sessions)
    if expected is None:
        expected = Metrics(precision=0, recall=0, coverage=0, f1=0, exact_match=0, valid_rate=0, n_sessions=0)
    assert close(evaluate(predictions, sessions, "official"), expected)


@given(tasks())
def test_strict_equals_its_definition(task):
    sessions, predictions = task
    assert close(evaluate(predictions, sessions, "strict"), repaired_way(predictions, sessions))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(task=tasks(), data=st.data())
def test_order_and_numbering_do_not_matter(protocol, task, data):
    sessions, predictions = task
    new_sessions, new_predictions = [], {}
    for session in data.draw(st.permutations(sessions)):
        number = dict(enumerate(data.draw(st.permutations(range(1, len(session.items) + 1))), start=1))
        bundles = [{number[item] for item in bundle} for bundle in session.bundles]
        new_sessions.append(make_session(bundles, n_items=len(session.items), id=session.id))
        if session.id in predictions:
            answer = data.draw(st.permutations(predictions[session.id]))
            new_predictions[session.id] = [[number[item] for item in bundle] for bundle in answer]
    assert close(evaluate(new_predictions, new_sessions, protocol), evaluate(predictions, sessions, protocol))


@given(tasks())
def test_strict_numbers_are_shares(task):
    sessions, predictions = task
    metrics = asdict(evaluate(predictions, sessions, "strict"))
    assert metrics.pop("n_sessions") == len(sessions)
    assert all(0 <= value <= 1 for value in metrics.values())


@given(tasks(valid=True))
def test_saying_a_bundle_twice_changes_nothing_in_strict(task):
    sessions, predictions = task
    twice = {id: [*bundles, *bundles] for id, bundles in predictions.items()}
    assert close(evaluate(twice, sessions, "strict"), evaluate(predictions, sessions, "strict"))


@given(tasks(valid=True))
def test_saying_a_bundle_twice_doubles_official_recall(task):
    sessions, predictions = task
    twice = {id: [*bundles, *bundles] for id, bundles in predictions.items()}
    once, doubled = evaluate(predictions, sessions), evaluate(twice, sessions)
    assert doubled.recall == pytest.approx(2 * once.recall)
    assert doubled.precision == pytest.approx(once.precision)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(tasks(valid=True))
def test_a_wrong_bundle_lowers_precision_and_leaves_recall(protocol, task):
    sessions, predictions = task
    # An item more than every true bundle has, so that the bundle of all items fits into none.
    wider = [make_session(s.bundles, n_items=len(s.items) + 1, id=s.id) for s in sessions]
    wrong = {s.id: [*predictions[s.id], range(1, len(s.items) + 1)] for s in wider}
    before, after = evaluate(predictions, wider, protocol), evaluate(wrong, wider, protocol)
    assert after.precision < before.precision or before.precision == 0 == after.precision
    assert after.recall == pytest.approx(before.recall)
    assert after.exact_match == 0


@given(tasks())
def test_the_ground_truth_is_perfect_in_strict(task):
    sessions, _ = task
    truth = {s.id: s.bundles for s in sessions}
    metrics = evaluate(truth, sessions, "strict")
    assert (metrics.precision, metrics.recall, metrics.f1, metrics.exact_match) == pytest.approx((1, 1, 1, 1))


@given(tasks())
def test_the_ground_truth_hits_with_every_bundle_in_official(task):
    sessions, _ = task
    metrics = evaluate({s.id: s.bundles for s in sessions}, sessions, "official")
    assert (metrics.precision, metrics.recall, metrics.f1, metrics.exact_match) == pytest.approx((1, 1, 1, 1))
    nested = any(a < b for s in sessions for a in s.bundles for b in s.bundles)
    assert metrics.coverage == pytest.approx(1) or nested


def test_one_session_worked_by_hand():
    session = make_session([{1, 2, 3}, {4, 5}])
    answer = {1: [[1, 2], [2, 3], [3, 4], [5]]}
    official, strict = evaluate(answer, [session], "official"), evaluate(answer, [session], "strict")
    assert official.precision == strict.precision == pytest.approx(2 / 3)
    assert (official.recall, strict.recall) == (1.0, 0.5)
    assert official.f1 == pytest.approx(0.8) and strict.f1 == pytest.approx(4 / 7)
    assert official.coverage == strict.coverage == pytest.approx(2 / 3)


def test_official_recall_can_exceed_one_and_strict_recall_cannot():
    session = make_session([{1, 2, 3}])
    answer = {1: [{1, 2}, {1, 3}, {2, 3}]}
    assert evaluate(answer, [session], "official").recall == 3
    assert evaluate(answer, [session], "strict").recall == 1


def test_a_session_with_nothing_left_leaves_only_the_official_average():
    sessions = [make_session([{1, 2}], id=1), make_session([{1, 2}], id=2), make_session([{1, 2}], id=3)]
    answer = {1: [{1, 2}], 2: [{3}]}  # session 3 has no answer at all
    official, strict = evaluate(answer, sessions, "official"), evaluate(answer, sessions, "strict")
    assert (official.precision, official.f1, official.n_sessions) == (1, 1, 1)
    assert (strict.precision, strict.f1, strict.n_sessions) == pytest.approx((1 / 3, 1 / 3, 3))
    assert official.valid_rate == strict.valid_rate == pytest.approx(1 / 3)


def test_a_bundle_annotated_twice_counts_twice_in_official_only():
    session = make_session([{1, 2}, {1, 2}])
    assert evaluate({1: [{1, 2}]}, [session], "official").recall == 0.5
    assert evaluate({1: [{1, 2}]}, [session], "strict").recall == 1
    assert evaluate({1: [{1, 2}]}, [session], "official").exact_match == 1


def test_official_takes_the_size_of_a_bundle_from_the_list_as_published():
    session = make_session([{1, 2}])
    assert evaluate({1: [[1, 1]]}, [session], "official").coverage == 0.5
    assert evaluate({1: [[1, 1]]}, [session], "strict").valid_rate == 0


def test_a_hit_is_measured_against_the_first_bundle_that_holds_it():
    answer = {1: [{1, 2}]}
    for protocol in PROTOCOLS:
        small_first = make_session([{1, 2, 3}, {1, 2, 4, 5}])
        large_first = make_session([{1, 2, 4, 5}, {1, 2, 3}])
        assert evaluate(answer, [small_first], protocol).coverage == pytest.approx(2 / 3)
        assert evaluate(answer, [large_first], protocol).coverage == pytest.approx(2 / 4)


def test_exact_match_wants_the_whole_set():
    session = make_session([{1, 2}, {3, 4}])
    answers = {"same": [{3, 4}, {1, 2}], "one": [{1, 2}], "more": [{1, 2}, {3, 4}, {5, 6}]}
    for protocol in PROTOCOLS:
        got = {name: evaluate({1: answer}, [session], protocol).exact_match for name, answer in answers.items()}
        assert got == {"same": 1, "one": 0, "more": 0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_answer_at_all_scores_zero(protocol):
    metrics = evaluate({}, [make_session([{1, 2}])], protocol)
    got = [getattr(metrics, field.name) for field in fields(metrics) if field.name != "n_sessions"]
    assert got == [0] * 6


@given(tasks())
def test_the_averages_come_from_the_per_session_numbers(task):
    sessions, predictions = task
    for protocol in PROTOCOLS:
        scores, metrics = (
            per_session(predictions, sessions, protocol),
            evaluate(predictions, sessions, protocol),
        )
        assert scores.session_ids.tolist() == [s.id for s in sessions]
        assert scores.counted.sum() == metrics.n_sessions
        assert np.isnan(scores.f1).tolist() == (~scores.counted).tolist()
        assert np.isnan(scores.coverage).tolist() == (scores.hits == 0).tolist()
        for name in ("precision", "recall", "f1", "exact_match"):
            alone = [getattr(evaluate(predictions_of(s, predictions), [s], protocol), name) for s in sessions]
            expected = np.where(scores.counted, alone, math.nan)
            np.testing.assert_allclose(getattr(scores, name), expected)
            if metrics.n_sessions:
                assert np.nanmean(getattr(scores, name)) == pytest.approx(getattr(metrics, name))


def predictions_of(session, predictions):
    return {id: bundles for id, bundles in predictions.items() if id == session.id}


SESSION = make_session([{1, 2}], n_items=3, id=4)


@pytest.mark.parametrize(
    ("predictions", "sessions", "protocol", "error", "message"),
    [
        ({4: [[1, 4]]}, [SESSION], "strict", ValueError, r"predictions\[4\] holds item number 4.*1 to 3"),
        ({4: [[0, 1]]}, [SESSION], "official", ValueError, "item number 0"),
        ({4: [[1, 2.0]]}, [SESSION], "strict", TypeError, "item number 2.0"),
        ({4: [[1, "2"]]}, [SESSION], "strict", TypeError, "item number '2'"),
        ({4: [[1, True]]}, [SESSION], "strict", TypeError, "item number True"),
        ({4: ["12"]}, [SESSION], "strict", TypeError, "holds '12'"),
        ({4: [1, 2]}, [SESSION], "strict", TypeError, "holds 1"),
        ({4: None}, [SESSION], "strict", TypeError, r"predictions\[4\] is None"),
        ({5: [[1, 2]]}, [SESSION], "strict", ValueError, "not in sessions, such as 5"),
        ({"4": [[1, 2]]}, [SESSION], "strict", ValueError, "such as '4'"),
        ([[1, 2]], [SESSION], "strict", TypeError, "predictions is a list"),
        ({}, [], "strict", ValueError, "sessions is empty"),
        ({}, [SESSION, SESSION], "strict", ValueError, "same id twice"),
        ({}, [SESSION], "lenient", ValueError, "protocol is 'lenient'"),
        ({}, [make_session([], id=8)], "official", ValueError, "session 8 has no ground-truth bundle"),
        ({}, [make_session([{1}], id=8)], "strict", ValueError, "session 8 has no ground-truth bundle"),
    ],
)
def test_bad_input_is_refused_by_name(predictions, sessions, protocol, error, message):
    with pytest.raises(error, match=message):
        evaluate(predictions, sessions, protocol)


def test_numbers_of_any_integer_kind_and_one_shot_iterables_are_read():
    answer = {1: iter([iter([np.int64(1), np.int32(2)]), (3, 4)])}
    metrics = evaluate(answer, [make_session([{1, 2}, {3, 4}])], "strict")
    assert metrics.exact_match == 1
