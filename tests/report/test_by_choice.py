"""The same comparisons by every way of choosing among recorded samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import answers, stand_in, votes, write_run

from routedk_lite.report import comparing
from routedk_lite.report.choosing import METRICS, by_choice, choosing_table, what_choosing_changes
from routedk_lite.report.claims import load_claims
from routedk_lite.study.records import load_all


@pytest.fixture
def claims(monkeypatch):
    """The claim about the teacher alone, judged by a student whose answers are made up."""
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    every = load_claims()
    return replace(every, profile="smol", claims=(every["matches-teacher"],))


def recorded(folder, *, share: float, consensus: float, teacher: float) -> list:
    """A router whose samples are right in a share of the draws, and whose recorded answer is as good as is said."""
    test = stand_in("food", "test")
    right = answers(test, consensus, seed=0, run="fusion-dynamic")
    samples = {"samples": votes("food", 0, share=share)}
    write_run(folder, "fusion-dynamic-seed0", 0, domain="food", seed=0, answers=right, attachments=samples)
    write_run(folder, "teacher", teacher, domain="food")
    return load_all(folder)


def test_each_choice_is_made_from_the_same_samples(claims, tmp_path):
    found = by_choice(claims, recorded(tmp_path, share=0.02, consensus=2.0, teacher=0.7))
    assert [one.metric for one in found] == list(METRICS), "once in F1, once in exact match"
    f1 = found[0].findings
    assert {name: f.b for name, f in f1.items()} == dict.fromkeys(f1, pytest.approx(f1["consensus"].b)), "one teacher"
    assert f1["consensus"].a == f1["greedy"].a == 1.0 and f1["majority"].a < 0.8
    (row,) = [line for line in choosing_table(found, METRICS[0]).splitlines() if "dynamic − teacher" in line]
    assert row.count("[") == 3 and "**+" in row and "food" in row


def test_a_direction_that_turns_is_named(claims, tmp_path):
    said = what_choosing_changes(by_choice(claims, recorded(tmp_path, share=0.02, consensus=2.0, teacher=0.95)))
    assert said.headline == "Directions depend on how an answer is chosen."
    assert "1 of 1 comparisons in strict F1 change" in said.figures and "*dynamic − teacher* in food" in said.figures


def test_where_all_lead_the_same_way_that_is_said(claims, tmp_path):
    said = what_choosing_changes(by_choice(claims, recorded(tmp_path, share=1.0, consensus=2.0, teacher=0.3)))
    assert said.headline == "How an answer is chosen changes no direction."
    assert "All 1 comparisons" in said.figures


def test_without_samples_there_is_nothing_to_choose_from(claims, tmp_path, monkeypatch):
    write_run(tmp_path, "fusion-dynamic-seed0", 0.5, domain="food", seed=0)
    write_run(tmp_path, "teacher", 0.4, domain="food")
    assert by_choice(claims, load_all(tmp_path)) == [] and what_choosing_changes([]) is None
