"""What choosing among recorded answers is worth is said as the numbers say it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from synthetic import STUDENT, answers, stand_in, votes, write_run

from routedk_lite.report import scores
from routedk_lite.report.written import ChoiceScores, chosen, what_choosing_adds
from routedk_lite.statistics import PairedDifference
from routedk_lite.study.records import load_all


def one(domain: str, difference: float, *, half: float = 0.05, seeds: int = 1) -> ChoiceScores:
    interval = PairedDifference(difference, difference - half, difference + half, 0.01)
    records = (SimpleNamespace(student=STUDENT),) * seeds
    exact = PairedDifference(0.0, -half, half, 0.9)
    return ChoiceScores(domain, 32, 0.6 + difference, 0.6, interval, exact, (0.9, 0.4, 0.6), records)


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        (
            [("electronic", 0.2), ("food", 0.3)],
            "beats a majority vote everywhere; in exact match it is nowhere told apart from it.",
        ),
        (
            [("electronic", 0.2), ("food", 0.01)],
            "beats a majority vote in electronic and is not told apart from it in food; in exact match it is nowhere "
            "told apart from it.",
        ),
        (
            [("clothing", 0.01)],
            "is not told apart from a majority vote in clothing; in exact match it is not told apart from it in "
            "clothing.",
        ),
        (
            [("electronic", 0.2), ("clothing", -0.1), ("food", 0.01)],
            "beats a majority vote in electronic, loses to it in clothing and is not told apart from it in food; in "
            "exact match it is nowhere told apart from it.",
        ),
    ],
)
def test_the_headline_follows_the_intervals(found, headline):
    sentence = what_choosing_adds([one(*each) for each in found])
    smaller = " It answers with smaller bundles, and strict F1 does not mind." * ("loses" not in headline)
    assert sentence.headline == f"In strict F1, choosing by consensus {headline}{smaller}"
    assert "135 million weights writes 32 answers" in sentence.figures
    assert sentence.figures.endswith("One seed: intervals cover the choice of sessions only.")


def test_smaller_bundles_are_no_excuse_where_consensus_loses():
    assert "smaller bundles" not in what_choosing_adds([one("food", -0.2), one("clothing", 0.2)]).headline


def test_seeds_are_not_said_to_be_missing_where_there_are_three():
    assert "One seed" not in what_choosing_adds([one("food", 0.1, seeds=3)]).figures
    assert what_choosing_adds([]) is None


def test_consensus_and_majority_come_from_one_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "load_domain", stand_in)
    scores._sessions.cache_clear()
    for seed in range(2):
        right = answers(stand_in("food", "test"), 2.0, seed=seed, run="base")  # all of them
        samples = {"attachments": {"samples": votes("food", seed, share=0.02)}}
        write_run(tmp_path, f"base-seed{seed}", 0, domain="food", seed=seed, answers=right, **samples)
    write_run(tmp_path, "base-seed0", 0.5, domain="clothing", seed=0)  # keeps no samples
    (found,) = chosen(load_all(tmp_path))
    scores._sessions.cache_clear()
    assert (found.domain, found.n, found.consensus) == ("food", 32, 1.0)
    assert found.majority < 0.8 and found.difference.estimate == pytest.approx(1 - found.majority)
    assert len(found.records) == 2
    test = stand_in("food", "test")
    sizes = [len(bundle) for session in test for bundle in session.bundles]
    annotated = sum(size == 2 for size in sizes) / len(sizes)
    assert found.pairs[0] == pytest.approx(annotated) and found.pairs[2] == pytest.approx(annotated)
