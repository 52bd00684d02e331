"""Ways to choose among recorded answers: what is compared, and that no session is judged by what it taught."""

from __future__ import annotations

import numpy as np
import pytest

from routedk_lite.answers.choosing import CHOOSERS
from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.book import choices
from routedk_lite.book.choices import chosen_scores, compare_sizes, cross_fitted, say_sizes
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import Session
from routedk_lite.files import own_file
from routedk_lite.study.records import load_all

NAMES = tuple("abcdef")


def answer(*bundles, log_prob=-1.0, id_=0) -> Answer:
    return Answer.of_bundles(id_, bundles)._replace(log_prob=log_prob, n_tokens=6)


def shop(n_sessions: int, n=16) -> tuple[list[Samples], list[Session]]:
    """Sessions whose right answer is always the likeliest sample, but never the most frequent one."""
    chance, sessions, samples = np.random.default_rng(0), [], []
    for id_ in range(n_sessions):
        first, second, third = (int(k) for k in chance.permutation(6)[:3] + 1)
        sessions.append(Session(id=id_, items=NAMES, titles=NAMES, bundles=(frozenset({first, second}),)))
        wrong = [answer({first, third}, log_prob=-2.0, id_=id_)] * (n - 4)
        right = [answer({first, second}, log_prob=-0.3, id_=id_)] * 4
        samples.append(Samples(id_, wrong[0], (*right, *wrong)))
    return samples, sessions


def test_every_way_is_scored_with_all_answers_at_hand() -> None:
    samples, sessions = shop(40)
    ways = {**CHOOSERS, "verifier": cross_fitted(samples, sessions)}
    scores = {name: chosen_scores(choose, samples, sessions, "exact_match").mean() for name, choose in ways.items()}
    assert scores == {"oracle": 1.0, "likeliest": 1.0, "verifier": 1.0, "majority": 0.0, "consensus": 0.0}


def test_no_way_passes_the_limit_where_nothing_can_be_read() -> None:
    _, sessions = shop(1)
    right = answer(*sessions[0].bundles)
    for drawn in ([answer()], [answer(), answer({1, 2, 3, 4})]):
        one = [Samples(0, right, tuple(drawn))]
        scores = {name: chosen_scores(way, one, sessions, "f1")[0] for name, way in CHOOSERS.items()}
        assert chosen_scores(choices.limit, one, sessions, "f1")[0] == max(scores.values())


def test_no_session_is_judged_by_a_verifier_that_has_seen_it(monkeypatch) -> None:
    samples, sessions = shop(23)
    taught: list[set[int]] = []

    def fit(own, _):
        known = {one.id for one in own}
        taught.append(known)
        return lambda answers, greedy: greedy.id in known

    monkeypatch.setattr(choices, "fit_verifier", fit)
    choose = cross_fitted(samples, sessions)
    assert not any(choose(one.drawn, one.greedy, None) for one in samples)
    assert len(taught) == choices.FOLDS and all(18 <= len(known) <= 19 for known in taught)


def test_more_parts_than_sessions_are_refused() -> None:
    with pytest.raises(ValueError, match="folds = 5: need 2 or more, and no more than the 3 sessions"):
        cross_fitted(*shop(3))


def test_more_voters_are_compared_and_said() -> None:
    samples, sessions = shop(30)
    found = compare_sizes(samples, sessions, "exact_match", resamples=10)
    assert list(found) == ["N =  8 −  1", "N = 16 −  1", "N =  8 − 16"]
    assert found["N = 16 −  1"].high < 0  # the wrong answer is the most frequent one
    lines = say_sizes(found).splitlines()
    assert lines[1].endswith("worse") and "N = 16 −  1: −" in lines[1].replace("-", "−")
    assert say_sizes({"N = 2 − 1": (0.01, -0.02, 0.04, 0.5)}).endswith("not told apart")
    assert say_sizes({"N = 2 − 1": (0.01, 0.005, 0.04, 0.01)}).endswith("better")


def test_recorded_answers_are_compared_in_aggregates_alone(mirror, monkeypatch) -> None:
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    monkeypatch.setattr(choices, "_curve", lambda *args: [{"n": 1, "score": (0.1, 0.0, 0.2)}])  # takes its time
    monkeypatch.setattr(choices, "cross_fitted", lambda *args: CHOOSERS["likeliest"])
    (record,) = (
        r for r in load_all(own_file("results")) if (r.profile, r.domain, r.run) == ("qwen", "food", "base-seed0")
    )
    found = choices.choices_of(record, load_domain("food", "test"))
    for metric in choices.METRICS:
        scores = found["greedy"][metric], record.analysis["majority"]["metrics"]["strict"][metric]
        less = found["less"][metric]["majority − greedy"]
        assert less["estimate"] == pytest.approx(scores[1] - scores[0], abs=1e-4)
        assert less["low"] < less["estimate"] < less["high"]
        best = found["less"][metric]["consensus − majority"]["estimate"]
        assert best == pytest.approx(record.metrics["strict"][metric] - scores[1], abs=1e-4)
    assert (found["drawn"], found["sessions"]) == (32, 180)
    assert all(found["less"][metric]["oracle − majority"]["low"] >= 0 for metric in choices.METRICS)
    panels = choices.curves_by_domain({"food": found}, "f1")
    assert set(panels["food"]) == set(choices.WAYS)
    assert panels["food"]["consensus"][-1].score.estimate == pytest.approx(record.metrics["strict"]["f1"], abs=1e-4)
    assert choices.levels_by_domain({"food": found}, "f1") == {"food": {"greedy": found["greedy"]["f1"]}}
    rows = choices.differences_table({"food": found})
    assert len(rows) == len(choices.COMPARED) and rows[0].keys() == {"choice", "domain", *choices.METRICS.values()}
