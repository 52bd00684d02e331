"""The paper's open questions: what records say, with intervals, and what was not run."""

from __future__ import annotations

import pytest
from synthetic import stand_in, write_run

from routedk_lite.report import comparing
from routedk_lite.report.asked import CONSENSUS, PAIRS, seen, seen_table
from routedk_lite.report.written import ChoiceScores
from routedk_lite.statistics import PairedDifference
from routedk_lite.study.records import load_all

FOUR, TWO = "four experts − three", "the best two of each layer − all three"


@pytest.fixture
def records(tmp_path, monkeypatch):
    """A router, one over four experts that does better, one of a single expert, and one of two that nobody timed."""
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    for seed in (0, 1):
        write_run(tmp_path, f"fusion-dynamic-seed{seed}", 0.4, seed=seed, answer_seconds=(40.0, 1e6)[seed])
        write_run(tmp_path, f"fused-dynamic-k4-seed{seed}", 0.8, seed=seed)
    write_run(tmp_path, "top-1-seed0", 0.4, seed=0, wall_seconds=90.0, training={}, answer_seconds=30.0)
    write_run(tmp_path, "top-2-seed0", 0.4, seed=0, training={})
    return load_all(tmp_path)


def test_each_comparison_has_its_interval_its_seeds_and_its_time(records):
    found = {s.compared: s for s in seen(records, "smol", [])}
    assert found.keys() == {FOUR, "the best expert of each layer − all three", TWO}
    four, one = found[FOUR], found["the best expert of each layer − all three"]
    assert (four.words, four.n_seeds, four.time) == ("higher", 2, None) and four.low > 0.1
    assert one.n_seeds == 1
    assert one.time == pytest.approx(30 / 40), "of the seed that both have, without what else a stage does"
    assert found[TWO].time is None, "the whole stage is no time of answering"
    assert seen(records, "qwen", []) == []


def test_the_table_says_what_was_seen_and_what_was_not_run(records):
    difference = PairedDifference(-0.2, -0.3, -0.1, 0.01)
    choices = [ChoiceScores("food", 32, 0.3, 0.5, difference, difference, (0.9, 0.4, 0.6), (records[0],))]
    lines = seen_table(seen(records, "smol", choices)).splitlines()[2:]
    assert len(lines) == len(PAIRS) + 1
    (untimed,) = [line for line in lines if TWO in line]
    assert "×" not in untimed
    without = [s for s in seen(records, "smol", choices) if s.compared != TWO]
    (best_two,) = [line for line in seen_table(without).splitlines() if TWO in line]
    assert "| not run |" in best_two
    (chosen,) = [line for line in lines if CONSENSUS in line]
    assert "| food | lower | −0.200 [−0.300, −0.100] |" in chosen
    assert "0.75\u00a0×" in next(line for line in lines if "the best expert" in line)
    assert all("not run" in line for line in seen_table([]).splitlines()[2:])
