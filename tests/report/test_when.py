"""A router that is better in long sessions, where its α is uneven, and where the teacher errs, is found out."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import EXPERTS, STUDENT, stand_in, weights, write_run

from routedk_lite.answers.decoding import Answer
from routedk_lite.report import scores
from routedk_lite.report.when import ERRS, EVEN, MORE, contrast_table, contrasts, contrasts_in_words
from routedk_lite.study.records import load_all


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setattr(scores, "load_domain", stand_in)
    scores._sessions.cache_clear()
    yield
    scores._sessions.cache_clear()


def answered(right):
    """Right where `right` says so of a session, else nothing."""
    return [Answer.of_bundles(s.id, dict.fromkeys(s.bundles) if right(s) else []) for s in stand_in("food", "test")]


@pytest.fixture
def found(tmp_path):
    median = np.median([len(s) for s in stand_in("food", "test")])
    long = lambda s: len(s) > median  # noqa: E731
    for seed in range(3):
        alpha = {"analysis": {"experts": EXPERTS}, "attachments": {"alpha": weights("food", seed)}}
        write_run(tmp_path, f"fusion-dynamic-seed{seed}", 0, domain="food", seed=seed, answers=answered(long), **alpha)
        others = answered(lambda s: not long(s))
        write_run(tmp_path, f"fusion-static-seed{seed}", 0, domain="food", seed=seed, answers=others)
    write_run(tmp_path, "teacher", 0, domain="food", answers=answered(lambda s: not long(s)))
    return contrasts(load_all(tmp_path), "smol", n_draws=400)


def test_the_gain_is_split_by_length_evenness_and_the_teachers_errors(found):
    by = {c.what: c for c in found}
    assert by.keys() == {MORE, EVEN, ERRS} and {c.domain for c in found} == {"food"}
    for what in (MORE, ERRS):
        assert by[what].gains == pytest.approx((1, -1)) and by[what].difference.low == pytest.approx(2)
        assert by[what].p_holm < 0.05
    assert by[EVEN].gains[0] < by[EVEN].gains[1]  # weights grow apart with the number of products
    assert sum(by[MORE].counts) == len(stand_in("food", "test")) and by[MORE].n_seeds == 3


def test_the_table_says_all_of_it_with_true_minus_signs(found):
    rows = contrast_table(found).splitlines()
    assert len(rows) == 2 + 3
    assert f"| food | {MORE} |" in rows[2] and "+1.000 / −1.000" in rows[2] and "+2.000 [+2.000, +2.000]" in rows[2]


def test_what_is_sure_is_said_first(found):
    said = contrasts_in_words(found)
    assert said.startswith(
        "3 of 3 contrasts are told apart from chance: in food, router − static is higher where there are more products"
    )
    assert "in food, router − static is lower where α is more even" in said and said.endswith(contrast_table(found))
    early = contrasts_in_words([c._replace(n_seeds=2) for c in found])
    assert early.startswith("3 of 3 contrasts are told apart from chance, so far: ")
    unsure = [c._replace(p_holm=0.3) for c in found]
    assert "None of 3 contrasts is told apart from chance (smallest corrected p: 0.30)" in contrasts_in_words(unsure)
    assert contrasts_in_words([]) == "The router and static weights are not both recorded yet."


def test_what_is_not_recorded_gives_no_contrast(tmp_path):
    write_run(tmp_path, "fusion-static-seed0", 0.5, domain="food", seed=0)
    assert contrasts(load_all(tmp_path), "smol") == []
    alpha = {"analysis": {"experts": EXPERTS}, "attachments": {"alpha": weights("food", 0)}}
    write_run(tmp_path, "fusion-dynamic-seed1", 0.5, domain="food", seed=1, **alpha)
    assert contrasts(load_all(tmp_path), "smol") == []  # no seed in common
    write_run(tmp_path, "fusion-dynamic-seed0", 0.5, domain="food", seed=0, **alpha)
    assert {c.what for c in contrasts(load_all(tmp_path), "smol", n_draws=50)} == {MORE, EVEN}  # nobody asked a teacher
    few = [s.id for s in stand_in("food", "test")][:4]
    write_run(tmp_path, "teacher", 0, domain="food", answers=answered(lambda s: s.id not in few))
    assert {c.what for c in contrasts(load_all(tmp_path), "smol", n_draws=50)} == {MORE, EVEN}, "it errs in four"
    other = {**STUDENT, "dtype": "float32"}
    write_run(tmp_path, "fusion-static-seed0", 0.5, domain="food", seed=0, student=other)
    assert contrasts(load_all(tmp_path), "smol") == [], "two kinds of machine"
