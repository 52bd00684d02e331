"""What an answer costs follows from the formula, and a verdict needs ranges that do not overlap."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import stand_in, write_run

from routedk_lite.report import comparing, costs
from routedk_lite.report.claims import Claim, Claims
from routedk_lite.report.costs import (
    CALLS,
    MACHINES,
    Cost,
    MachinePrice,
    call_tokens,
    seconds_a_session,
    student_cost,
)
from routedk_lite.report.findings import DOES_NOT, NOT_DECIDED, NOT_RUN, REPLICATES
from routedk_lite.report.opening import what_it_costs
from routedk_lite.report.sections import costs_parts
from routedk_lite.report.verdicts import Judgement, judge
from routedk_lite.study.records import load_all
from routedk_lite.teacher.teaching import ask_bundles

CLAIM = Claim(
    id="c", title="Cheaper", statement="…", chapter="notebooks/x", domains=("electronic", "food"),
    costs=("one-seed*", "other-seed*"),
)  # fmt: skip


def elsewhere(found: Cost) -> Cost:
    """The same in another domain."""
    return found._replace(record=SimpleNamespace(**vars(found.record) | {"domain": "food"}))


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)


def judged(folder) -> Judgement:
    (found,) = judge(Claims(profile="smol", papers={}, claims=(CLAIM,)), load_all(folder))
    return found


def record(**changes):
    fields = {
        "run": "one-seed0", "domain": "electronic", "hardware": {"cores": 2}, "peak_memory_mb": 3 * 1024,
        "wall_seconds": 460.0, "training": {"seconds": 100.0}, "answer_seconds": None,
        "n_sessions": 180,
    }  # fmt: skip
    return SimpleNamespace(**fields | changes)


def cost(low=1.0, high=2.0, teacher=(3.0, 4.0), **changes) -> Cost:
    return Cost("one-seed*", record(**changes), 2.0, low / 1000, high / 1000, (280, 27), *(t / 1000 for t in teacher))


def test_the_students_price_by_hand():
    # Two seconds a session; an hour costs 2 cores × .1 + 3 GB × .01 = .23 dollars.
    machine = MachinePrice("m", core=0.1, gigabyte=0.01, source="")
    assert student_cost(record(), machine) == pytest.approx(2 * 0.23 / 3600)
    assert student_cost(record(training={}), machine) == pytest.approx(460 / 180 * 0.23 / 3600)


def test_recorded_mib_are_priced_and_shown_as_gb(tmp_path):
    """A record counts MiB, a price GB of 1,024 of them: 102,400 MiB are 100 GB."""
    free, machine = (MachinePrice("m", 0.0, gigabyte, "") for gigabyte in (0.0, 1.0))
    found = record(peak_memory_mb=102_400)
    assert student_cost(found, free) == 0 and student_cost(found, machine) == pytest.approx(2 * 100 / 3600)
    write_run(tmp_path, "one-seed0", 0.5, seed=0, wall_seconds=60.0)
    (shown,) = judged(tmp_path).costs
    shown = shown._replace(record=replace(shown.record, peak_memory_mb=102_400))
    page = "\n".join(costs_parts(replace(judged(tmp_path), costs=(shown,))))
    assert ", 100.0 GB |" in page


def test_seconds_a_session_are_those_of_answering_where_the_record_says_them():
    """A stage may train the experts that it fuses, and wait for others: its wall time does not tell that apart."""
    assert seconds_a_session(record(wall_seconds=9e4, answer_seconds=270.0)) == 1.5
    assert seconds_a_session(record()) == 2.0


def test_tokens_are_those_of_the_question_that_a_live_teacher_is_asked():
    test = stand_in("electronic", "test")
    asked, answered = call_tokens(test)
    letters = [sum(len(turn["content"]) for turn in ask_bundles(session).messages) for session in test]
    assert asked == pytest.approx(sum(letters) / len(letters) / 4 + 10, abs=2)  # and the marks around two turns
    assert 10 < answered < 60


@pytest.mark.parametrize(
    ("low", "high", "teacher", "verdict"),
    [
        (1, 2, (3, 4), REPLICATES),
        (1, 3, (3, 4), NOT_DECIDED),
        (1, 5, (3, 4), NOT_DECIDED),
        (4, 5, (3, 4), NOT_DECIDED),
        (5, 6, (3, 4), DOES_NOT),
    ],
)
def test_ranges_that_overlap_decide_nothing(low, high, teacher, verdict):
    assert cost(low, high, teacher).verdict == verdict


@given(*[st.floats(0.001, 100)] * 4)
def test_cheaper_and_dearer_turn_round(a, b, c, d):
    (low, high), (other_low, other_high) = sorted((a, b)), sorted((c, d))
    turned = {REPLICATES: DOES_NOT, DOES_NOT: REPLICATES, NOT_DECIDED: NOT_DECIDED}
    here, there = cost(low, high, (other_low, other_high)), cost(other_low, other_high, (low, high))
    assert there.verdict == turned[here.verdict]


def test_a_claim_about_cost_needs_each_of_its_runs_but_no_three_seeds(tmp_path):
    write_run(tmp_path, "one-seed0", 0.5, seed=0)
    assert judged(tmp_path).verdict == NOT_RUN
    write_run(tmp_path, "other-seed0", 0.5, seed=0, wall_seconds=1e7)
    found = judged(tmp_path)
    assert found.by_domain == {"electronic": DOES_NOT, "food": NOT_RUN}, "the lowest of all runs"
    assert {record.run for record in found.records} == {"one-seed0", "other-seed0"}
    write_run(tmp_path, "other-seed0", 0.5, seed=0, wall_seconds=60.001)
    write_run(tmp_path, "one-seed0", 0.5, seed=0, wall_seconds=60.001)
    assert judged(tmp_path).verdict == f"{REPLICATES} (1 of 2 domains)"


def test_a_run_on_a_gpu_has_no_price(tmp_path, monkeypatch):
    monkeypatch.setattr("routedk_lite.study.machine.hardware", lambda: {"gpu": "H", "cpu": "x", "cores": 2})
    write_run(tmp_path, "one-seed0", 0.5, seed=0)
    assert not judged(tmp_path).costs


def test_every_price_has_a_source_and_is_one():
    assert len(costs.READ_ON) == 10
    for price in (*CALLS, *MACHINES):
        assert price.source.startswith("https://")
        assert all(value > 0 for value in price if isinstance(value, float))


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        ([cost()], "Answering with the student is cheaper than asking even the cheapest teacher."),
        ([cost(5, 6)], "Answering with the student costs more than asking even the costliest teacher."),
        ([cost(1, 6)], "Whether the student is cheaper depends on which teacher it is compared with."),
        ([cost(), cost(1, 6)], "Whether the student is cheaper depends on which teacher it is compared with."),
        ([cost(), elsewhere(cost(5, 6))], "Whether the student is cheaper depends on what is run: even the cheapest "
         "teacher costs more than one in electronic."),
    ],
)  # fmt: skip
def test_cost_is_said_as_the_ranges_say_it(found, headline):
    said = what_it_costs([Judgement(claim=CLAIM, findings=(), costs=tuple(found))])
    assert said.headline == headline
    assert said.figures.endswith("a teacher, 3.000 to 4.000.") and "one in electronic, " in said.figures


def test_without_costs_nothing_is_said():
    assert what_it_costs([Judgement(claim=CLAIM, findings=())]) is None
