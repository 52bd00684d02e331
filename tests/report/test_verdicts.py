"""Verdicts follow the rule: seeds, intervals, margins and the correction, shown on records with a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CLAIMS, EXPERTS, QUALITY, STUDENT, stand_in, votes, weights, write_run, write_study

from routedk_lite.answers.decoding import Answer
from routedk_lite.data.metrics import per_session
from routedk_lite.report import comparing, verdicts
from routedk_lite.report.claims import Claim, ClaimError, Claims, Comparison
from routedk_lite.report.findings import (
    AS_CLAIMED,
    DOES_NOT,
    NO_DIRECTION,
    NO_LARGER,
    NOT_COMPARABLE,
    NOT_DECIDED,
    NOT_RUN,
    OTHER_WAY,
    REPLICATES,
    TOO_SMALL,
    Finding,
)
from routedk_lite.report.verdicts import DIFFERS, Judgement, judge
from routedk_lite.statistics import holm
from routedk_lite.study import machine
from routedk_lite.study.records import load_all, load_predictions

DRAWS = 400
HARDWARE = machine.hardware()


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)


def claims(*comparisons, **changes):
    """One claim about the electronic domain."""
    options = {
        "id": "c", "title": "A claim", "paper": "p", "statement": "…", "where": "…", "reports": "unknown",
        "chapter": "notebooks/x", "domains": ("electronic",), "comparisons": tuple(comparisons),
    }  # fmt: skip
    return Claims(profile="smol", papers={}, claims=(Claim(**options | changes),))


def compare(a="one-seed*", b=("other-seed*",), **changes):
    return Comparison(**{"label": "a − b", "a": a, "b": b, "margin": 0.02} | changes)


def judged(folder, *comparisons, **changes):
    (found,) = judge(claims(*comparisons, **changes), load_all(folder), n_draws=DRAWS)
    return found


def runs(folder, a, b, *, seeds=(0, 1, 2), domain="electronic"):
    for seed in seeds:
        write_run(folder, f"one-seed{seed}", a, seed=seed, domain=domain)
        write_run(folder, f"other-seed{seed}", b, seed=seed, domain=domain)


# --- the rule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "test", "margin", "verdict"),
    [
        (0.8, 0.5, "greater", 0.02, REPLICATES),
        (0.5, 0.8, "greater", 0.02, DOES_NOT),
        (0.5, 0.5, "greater", 0.3, NO_LARGER),  # whatever there is, is too small to count
        (0.5, 0.5, "greater", 0.0, NOT_DECIDED),
        (0.7, 0.7, "not worse", 0.1, REPLICATES),
        (0.9, 0.6, "not worse", 0.05, REPLICATES),  # better is not worse
        (0.5, 0.8, "not worse", 0.05, DOES_NOT),
        (0.5, 0.5, "not worse", 0.0, NOT_DECIDED),
    ],
)
def test_three_seeds_are_judged_by_interval_and_margin(tmp_path, a, b, test, margin, verdict):
    runs(tmp_path, a, b)
    found = judged(tmp_path, compare(test=test, margin=margin))
    (finding,) = found.findings
    assert found.verdict == finding.verdict == verdict
    assert finding.low <= finding.estimate <= finding.high and finding.n_seeds == 3
    assert finding.estimate == pytest.approx(finding.a - finding.b)


def test_fewer_seeds_are_not_judged_and_the_detectable_difference_stands_beside(tmp_path):
    runs(tmp_path, 0.9, 0.3, seeds=(0,))
    found = judged(tmp_path, compare())
    (finding,) = found.findings
    assert found.verdict == "not judged (one seed)" and np.isnan(finding.p_holm)
    assert 0 < finding.detectable < finding.estimate
    runs(tmp_path, 0.9, 0.3, seeds=(1,))
    assert judged(tmp_path, compare()).verdict == "not judged (two seeds)"


def test_missing_runs_are_named(tmp_path):
    write_run(tmp_path, "one-seed0", 0.5, seed=0)
    found = judged(tmp_path, compare())
    assert found.verdict == NOT_RUN and found.findings[0].missing == ("other-seed*",)
    assert np.isnan(found.findings[0].estimate) and found.records == ()


def test_only_seeds_that_both_sides_have_are_compared(tmp_path):
    runs(tmp_path, 0.8, 0.5, seeds=(0, 1))
    write_run(tmp_path, "one-seed2", 0.1, seed=2)
    write_run(tmp_path, "other-seed3", 0.9, seed=3)
    found = judged(tmp_path, compare())
    assert found.findings[0].n_seeds == 2 and {r.seed for r in found.records} == {0, 1}


@pytest.mark.parametrize(
    ("low", "high", "test", "p_value", "verdict"),
    [
        (0.005, 0.015, "greater", 0.001, TOO_SMALL),
        (0.005, 0.015, "greater", 0.2, NO_LARGER),  # nothing that counts, and the small gain may be chance
        (0.005, 0.025, "greater", 0.001, REPLICATES),
        (0.021, 0.025, "greater", 0.001, REPLICATES),
        (-0.005, 0.015, "greater", 0.5, NO_LARGER),
        (-0.015, -0.005, "greater", 0.001, NO_LARGER),
        (-0.025, 0.015, "greater", 0.5, DOES_NOT),
        (-0.025, -0.021, "greater", 0.001, DOES_NOT),
        (-0.02, 0.02, "greater", 0.9, NOT_DECIDED),
        (-0.025, 0.025, "greater", 0.9, NOT_DECIDED),
        (-0.025, 0.025, "not worse", 0.3, NOT_DECIDED),
        (-0.005, 0.025, "greater", 0.3, NOT_DECIDED),
        (-0.015, -0.005, "not worse", 0.001, REPLICATES),  # the margin is what may be lost
        (-0.025, -0.021, "not worse", 0.001, DOES_NOT),
        (0.005, 0.015, "varies", 0.001, TOO_SMALL),
        (-0.015, -0.005, "varies", 0.001, TOO_SMALL),
        (-0.015, 0.005, "varies", 0.3, NO_LARGER),
        (-0.025, -0.005, "varies", 0.001, REPLICATES),
    ],
)
def test_a_real_difference_that_the_margin_does_not_count_has_its_own_words(low, high, test, p_value, verdict):
    alone = {"estimate": (low + high) / 2, "low": low, "high": high, "p_holm": p_value, "n_seeds": 3}
    assert verdicts._verdict(Finding(compare(test=test), "electronic", (), **alone)) == verdict


def stated(needs, *by_domain):
    """What a claim's verdict is, from those of its comparisons in each domain."""
    domains = ("electronic", "clothing", "food")[: len(by_domain)]
    (claim,) = claims(compare(), needs=needs, domains=domains)
    found = [
        Finding(
            compare(),
            domain,
            ("one-seed*",) * (verdict == NOT_RUN),
            hindrance="x" * (verdict == NOT_COMPARABLE),
            n_seeds=1 if verdict == "not judged (one seed)" else 3,
            verdict=verdict,
        )
        for domain, several in zip(domains, by_domain, strict=True)
        for verdict in several
    ]
    return Judgement(claim=claim, findings=tuple(found)).verdict


@pytest.mark.parametrize(
    ("needs", "by_domain", "verdict"),
    [
        ("all", [[REPLICATES, TOO_SMALL]], TOO_SMALL),
        ("all", [[NOT_DECIDED, TOO_SMALL]], NOT_DECIDED),  # the undecided one may yet not be real
        ("all", [[DOES_NOT, TOO_SMALL]], DOES_NOT),
        ("any", [[REPLICATES, TOO_SMALL]], REPLICATES),
        ("any", [[NOT_DECIDED, TOO_SMALL]], NOT_DECIDED),
        ("any", [[DOES_NOT, TOO_SMALL]], TOO_SMALL),
        ("all", [[NO_LARGER, NO_LARGER]], NO_LARGER),
        ("all", [[NO_LARGER, TOO_SMALL]], NO_LARGER),  # every interval lies within the margin
        ("all", [[NO_LARGER, REPLICATES]], DOES_NOT),
        ("all", [[NO_LARGER, DOES_NOT]], DOES_NOT),
        ("any", [[NO_LARGER, DOES_NOT]], DOES_NOT),
        ("any", [[NO_LARGER, NOT_DECIDED]], NOT_DECIDED),
        ("all", [[NO_LARGER], [NO_LARGER], [NO_LARGER]], NO_LARGER),
        ("all", [[NO_LARGER], [DOES_NOT]], DOES_NOT),
        ("all", [[NO_LARGER], [REPLICATES]], DIFFERS),
        ("all", [[NO_LARGER], [NOT_DECIDED]], NOT_DECIDED),
        ("all", [[DOES_NOT], [NO_LARGER], [NOT_DECIDED]], NOT_DECIDED),
        ("all", [[DOES_NOT], [DOES_NOT], [NOT_DECIDED]], NOT_DECIDED),
        ("all", [[DOES_NOT], [NO_LARGER], [NOT_RUN]], f"{DOES_NOT} (2 of 3 domains)"),
        ("all", [[DOES_NOT], [REPLICATES], [NOT_DECIDED]], DIFFERS),
        ("all", [[NO_LARGER], [NOT_RUN]], f"{NO_LARGER} (1 of 2 domains)"),
        ("all", [[TOO_SMALL], [TOO_SMALL]], TOO_SMALL),
        ("all", [[TOO_SMALL], [REPLICATES]], DIFFERS),
        ("all", [[TOO_SMALL], [DOES_NOT]], DIFFERS),
        ("all", [[TOO_SMALL], [NOT_DECIDED]], NOT_DECIDED),
        ("all", [[TOO_SMALL], [NOT_RUN]], f"{TOO_SMALL} (1 of 2 domains)"),
        ("all", [[TOO_SMALL], [NO_LARGER], [NO_LARGER]], NO_LARGER),  # no domain shows a difference that counts
        ("all", [[TOO_SMALL], [NO_LARGER], [NOT_DECIDED]], NOT_DECIDED),
        ("all", [[NOT_COMPARABLE], [NOT_RUN]], NOT_COMPARABLE),
        ("all", [[NOT_COMPARABLE], ["not judged (one seed)"]], "not judged (one seed)"),
    ],
)
def test_what_is_real_but_too_small_stands_between_the_others(needs, by_domain, verdict):
    assert stated(needs, *by_domain) == verdict


def test_a_verdict_that_speaks_of_the_margin_says_its_number():
    finding = Finding(compare(margin=0.03), "electronic", (), n_seeds=3, verdict=NO_LARGER)
    (claim,) = claims(finding.comparison, domains=("electronic", "food"))
    assert finding.words == "no difference larger than 0.03"
    found = Judgement(claim=claim, findings=(finding,))
    assert found.words == "no difference larger than 0.03 (1 of 2 domains)"
    assert found.worded(DOES_NOT) == DOES_NOT


@pytest.mark.parametrize(
    ("low", "high", "test", "direction"),
    [
        (0.001, 0.3, "greater", AS_CLAIMED),
        (-0.3, -0.001, "greater", OTHER_WAY),
        (-0.1, 0.3, "greater", NO_DIRECTION),
        (-0.01, 0.3, "not worse", AS_CLAIMED),
        (-0.03, 0.3, "not worse", NO_DIRECTION),
        (-0.3, -0.03, "not worse", OTHER_WAY),
        (0.001, 0.3, "varies", AS_CLAIMED),
        (-0.3, -0.001, "varies", AS_CLAIMED),
        (-0.3, 0.1, "varies", NO_DIRECTION),
    ],
)
def test_a_direction_is_told_by_the_interval_alone(low, high, test, direction):
    alone = {"estimate": (low + high) / 2, "low": low, "high": high, "n_seeds": 1}
    assert Finding(compare(test=test), "electronic", (), **alone).direction == direction


@pytest.mark.parametrize(
    ("needs", "ends", "direction"),
    [
        ("all", [(0.1, 0.2), (0.1, 0.2)], AS_CLAIMED),
        ("all", [(0.1, 0.2), (-0.1, 0.2)], NO_DIRECTION),
        ("all", [(0.1, 0.2), (-0.2, -0.1)], OTHER_WAY),
        ("any", [(0.1, 0.2), (-0.2, -0.1)], AS_CLAIMED),
        ("any", [(-0.1, 0.2), (-0.2, -0.1)], NO_DIRECTION),
        ("any", [(-0.2, -0.1), (-0.2, -0.1)], OTHER_WAY),
        ("all", [], ""),
    ],
)
def test_a_claim_leads_where_its_comparisons_do(needs, ends, direction):
    (claim,) = claims(compare(), needs=needs)
    found = tuple(Finding(compare(), "electronic", (), low=low, high=high, n_seeds=1) for low, high in ends)
    beside = Finding(compare(decides=False), "electronic", (), low=-0.2, high=-0.1, n_seeds=1)
    assert Judgement(claim=claim, findings=(*found, beside)).direction("electronic") == direction


def test_runs_that_share_no_seed_are_said_to_and_the_other_claims_are_judged(tmp_path):
    write_run(tmp_path, "one-seed0", 0.8, seed=0)
    write_run(tmp_path, "other-seed1", 0.5, seed=1)
    write_run(tmp_path, "x", 0.8)
    write_run(tmp_path, "y", 0.2)
    found = judged(tmp_path, compare(), compare("x", ("y",)))
    apart, together = found.findings
    assert found.verdict == apart.verdict == NOT_COMPARABLE and not apart.is_compared
    assert apart.hindrance == "no seed is recorded for all of one-seed*, other-seed*"
    assert together.verdict == REPLICATES


@pytest.mark.parametrize(
    ("student", "hardware", "kind"),
    [
        ({"dtype": "float32"}, {}, "float32 on CPU"),
        ({"device": "cuda:0"}, {"gpu": "Tesla T4"}, "bfloat16 on Tesla T4"),
    ],
)
def test_only_seeds_whose_runs_come_from_one_kind_of_machine_are_compared(
    tmp_path, monkeypatch, student, hardware, kind
):
    runs(tmp_path, 0.8, 0.5, seeds=(0,))
    write_run(tmp_path, "one-seed1", 0.8, seed=1)
    monkeypatch.setattr(machine, "hardware", lambda: {**HARDWARE, **hardware})
    write_run(tmp_path, "other-seed1", 0.1, seed=1, student={**STUDENT, **student})
    (found,) = judged(tmp_path, compare()).findings
    assert found.n_seeds == 1 and {record.seed for record in found.records} == {0}
    write_run(tmp_path, "other-seed0", 0.5, seed=0, student={**STUDENT, **student})
    found = judged(tmp_path, compare())
    assert found.verdict == NOT_COMPARABLE
    kinds = f"bfloat16 on CPU and {kind}"
    expected = f"of one seed, one-seed*, other-seed* were run in {kinds}: repeat one kind"
    assert found.findings[0].hindrance == expected


def test_a_run_without_a_student_is_compared_with_any_machine(tmp_path):
    write_run(tmp_path, "one-seed0", 0.8, seed=0, student={**STUDENT, "dtype": "float32"})
    write_run(tmp_path, "y", 0.2)
    (found,) = judged(tmp_path, compare(b=("y",))).findings
    assert found.is_compared


@pytest.mark.parametrize(("n_readable", "words"), [(0, "no session has"), (1, "a single session has")])
def test_runs_without_a_session_that_both_answer_are_said_to(tmp_path, n_readable, words):
    test = stand_in("electronic", "test")
    readable = {
        "one": lambda i: i % 2 == 0,
        "other": lambda i: i % 2 == 1 or i < 2 * n_readable,
    }
    for run, is_readable in readable.items():
        given = [Answer.of_bundles(s.id, s.bundles if is_readable(i) else ()) for i, s in enumerate(test)]
        write_run(tmp_path, run, 1.0, answers=given)
    asked = compare("one", ("other",), metric="official precision")
    found = judged(tmp_path, asked, compare("one", ("other",), decides=False))
    assert found.verdict == NOT_COMPARABLE
    assert found.findings[0].hindrance == f"{words} an answer that can be read in all of one, other"
    assert found.findings[1].is_compared  # the strict protocol counts every session


def test_weights_of_sessions_that_are_all_as_long_are_said_to_be_no_comparison(tmp_path, monkeypatch):
    test = stand_in("electronic", "test")
    size = len(test.sessions[0])
    alike = replace(test, sessions=tuple(s for s in test if len(s) == size))
    monkeypatch.setattr(comparing, "load_domain", lambda name, split: alike)
    rows = [row for row in weights("electronic", 0) if row["id"] in {s.id for s in alike}]
    more = {"test": alike, "answers": [Answer.of_bundles(s.id, s.bundles) for s in alike]}
    write_run(tmp_path, "d-seed0", 1.0, seed=0, analysis={"experts": EXPERTS}, attachments={"alpha": rows}, **more)
    found = judged(tmp_path, compare("d-seed*", (), metric="alpha", test="varies", expert="rules"))
    assert found.verdict == NOT_COMPARABLE
    assert found.findings[0].hindrance == "no session has more products than the median"


def test_numbers_are_those_of_the_predictions(tmp_path):
    runs(tmp_path, 0.8, 0.5)
    write_run(tmp_path, "fixed", 0.3)
    (finding,) = judged(tmp_path, compare(b=("other-seed*", "fixed"))).findings
    test = stand_in("electronic", "test")

    def f1(run):
        (record,) = [r for r in load_all(tmp_path) if r.run == run]
        return per_session({i: a.bundles for i, a in load_predictions(record).items()}, test, "strict").f1

    ones = np.mean([f1(f"one-seed{s}") for s in range(3)])
    others = np.mean([(f1(f"other-seed{s}") + f1("fixed")) / 2 for s in range(3)])
    assert finding.estimate == pytest.approx(ones - others)


def test_runs_without_seeds_need_no_seeds(tmp_path):
    write_run(tmp_path, "one", 0.8)
    write_run(tmp_path, "other", 0.4)
    found = judged(tmp_path, compare("one", ("other",)))
    assert found.verdict == REPLICATES and found.findings[0].n_seeds is None


def test_the_official_protocol_leaves_unreadable_answers_out(tmp_path):
    test = stand_in("electronic", "test")
    silent = [Answer.of_bundles(s.id, s.bundles if i % 2 else ()) for i, s in enumerate(test)]
    write_run(tmp_path, "one", 1.0, answers=silent)
    write_run(tmp_path, "other", 0.0)
    (finding,) = judged(tmp_path, compare("one", ("other",), metric="official precision")).findings
    assert finding.a == pytest.approx(1.0)


# --- several comparisons and domains -----------------------------------------------------------------------------


def test_p_values_are_corrected_over_everything_that_the_claim_wants_to_know(tmp_path):
    runs(tmp_path, 0.8, 0.5)
    write_run(tmp_path, "third-seed0", 0.5, seed=0)
    asked = (compare(), compare(b=("third-seed*",)), compare(b=("nothing-seed*",), decides=False))
    found = judged(tmp_path, *asked, domains=("electronic", "food"))
    first = found.findings[0]
    assert first.p_holm == holm([first.p_value, 1, 1, 1])[0] > first.p_value
    assert found.verdict == "not judged (one seed)"


@pytest.mark.parametrize(
    ("needs", "qualities", "verdict"),
    [
        ("all", (0.8, 0.8), REPLICATES),
        ("all", (0.8, 0.2), DOES_NOT),
        ("any", (0.8, 0.2), REPLICATES),
        ("any", (0.2, 0.2), DOES_NOT),
        ("all", (0.8, 0.5), NOT_DECIDED),
        ("any", (0.2, 0.5), NOT_DECIDED),
    ],
)
def test_all_or_any_of_the_comparisons_must_hold(tmp_path, needs, qualities, verdict):
    write_run(tmp_path, "other", 0.5)
    for name, quality in zip("xy", qualities, strict=True):
        write_run(tmp_path, name, quality)
    asked = [compare(name, ("other",), margin=0.0) for name in "xy"]
    shown = compare("z", ("other",), decides=False)
    assert judged(tmp_path, *asked, shown, needs=needs).verdict == verdict


def test_domains_are_judged_apart(tmp_path):
    runs(tmp_path, 0.8, 0.5, domain="electronic")
    domains = ("electronic", "clothing", "food")
    found = judged(tmp_path, compare(), domains=domains)
    assert found.verdict == "replicates (1 of 3 domains)"
    assert found.by_domain == {"electronic": REPLICATES, "clothing": NOT_RUN, "food": NOT_RUN}
    runs(tmp_path, 0.8, 0.5, domain="clothing")
    runs(tmp_path, 0.2, 0.5, domain="food")
    assert judged(tmp_path, compare(), domains=domains).verdict == DIFFERS
    runs(tmp_path, 0.8, 0.5, domain="food")
    assert judged(tmp_path, compare(), domains=domains).verdict == REPLICATES


# --- votes and weights --------------------------------------------------------------------------------------------


def test_votes_among_fewer_come_from_the_draw(tmp_path):
    for seed in range(3):
        write_run(tmp_path, f"v-seed{seed}", 0.5, seed=seed, attachments={"samples": votes("electronic", seed)})
    more, fewer = (compare("v-seed*", ("v-seed*",), voters=pair) for pair in ((8, 1), (8, 32)))
    found = judged(tmp_path, more, fewer, needs="any")
    up, down = found.findings
    assert up.verdict == REPLICATES and down.verdict == DOES_NOT, "in this draw the right answer is the commonest"
    assert up.a == down.a and found.verdict == REPLICATES
    with pytest.raises(ClaimError, match="v-seed0.json: voters = 64: only 32 answers a session were drawn"):
        judged(tmp_path, compare("v-seed*", ("v-seed*",), voters=(8, 64)))


@pytest.mark.parametrize(
    ("slope", "verdicts_"), [((-0.03, 0.0, 0.03), [REPLICATES, NO_LARGER, REPLICATES]), ((0, 0, 0), [NO_LARGER] * 3)]
)
def test_weights_that_follow_the_number_of_products_are_found(tmp_path, slope, verdicts_):
    for seed in range(3):
        alpha = weights("electronic", seed, slope=slope)
        named = [f"{name}-seed{seed}" for name in EXPERTS]  # a run calls its experts by their folders
        extra = {"analysis": {"experts": named}, "attachments": {"alpha": alpha}}
        write_run(tmp_path, f"d-seed{seed}", 0.5, seed=seed, **extra)
    asked = [compare("d-seed*", (), metric="alpha", test="varies", margin=0.01, expert=name) for name in EXPERTS]
    found = judged(tmp_path, *asked, needs="any")
    assert [f.verdict for f in found.findings] == verdicts_
    assert found.findings[2].estimate == pytest.approx(found.findings[2].a - found.findings[2].b)
    with pytest.raises(ClaimError, match="expert = 'both': the run has base, rules, reasoning"):
        judged(tmp_path, compare("d-seed*", (), metric="alpha", test="varies", expert="both"))


# --- records that do not fit --------------------------------------------------------------------------------------


def test_records_that_cannot_be_compared_are_refused(tmp_path, monkeypatch):
    runs(tmp_path, 0.8, 0.5)
    write_run(tmp_path, "one-seed2", 0.8, seed=2, config={"run": "one", "rank": 99})
    with pytest.raises(ClaimError, match=r"one-seed2\.json: its settings differ from those of the other seeds of 'one"):
        judged(tmp_path, compare())
    write_run(tmp_path, "one-seed2", 0.8, seed=2, student={**STUDENT, "sha256": "b" * 64})
    with pytest.raises(ClaimError, match="the runs have 2 students"):
        judged(tmp_path, compare())
    with pytest.raises(ClaimError, match=r"run = 'o\*-seed\*' in electronic: fits both one-seed0 and other-seed0"):
        judged(tmp_path, compare("o*-seed*"))
    monkeypatch.setattr(comparing, "load_domain", lambda name, split: stand_in("food", split))
    with pytest.raises(ClaimError, match="made from other data than the electronic sessions at hand"):
        judged(tmp_path, compare())


# --- the project's own claims -------------------------------------------------------------------------------------


def test_a_full_study_judges_every_claim_that_can_be_measured(tmp_path):
    write_study(tmp_path, domains=("electronic", "food"))
    found = {j.claim.id: j for j in judge(CLAIMS, load_all(tmp_path), n_draws=DRAWS)}
    assert not found["cheaper"].findings and len(found["cheaper"].costs) == 6
    in_food = {id_: j.by_domain["food"] for id_, j in found.items() if id_ != "cheaper"}
    assert in_food["beats-distillation"] == in_food["more-experts"] == in_food["mixing-hurts"] == REPLICATES
    assert in_food["fusion-order"] == DOES_NOT, "TIES was made worse than the average"
    assert in_food["static-recall-food"] == DOES_NOT
    assert in_food["fine-tuning-peaks"] == in_food["both-uses"] == in_food["weights-follow-sessions"] == REPLICATES
    assert NOT_RUN not in in_food.values() and not [v for v in in_food.values() if v.startswith("not judged")]
    assert found["voting"].verdict.endswith("(2 of 3 domains)")
    assert QUALITY.keys() >= {"fusion-dynamic", "both"}


@given(st.lists(st.sampled_from([REPLICATES, TOO_SMALL, NO_LARGER, DOES_NOT, NOT_DECIDED]), min_size=3, max_size=3))
def test_a_weaker_finding_in_one_domain_never_makes_the_whole_stronger(found):
    """ "No difference larger" in place of "does not replicate" says less: no verdict that says more comes of it."""
    strength = {NOT_DECIDED: 0, NO_LARGER: 1, DOES_NOT: 2}
    whole = stated("all", *([one] for one in found))
    for place, one in enumerate(found):
        if one == DOES_NOT:
            weaker = stated("all", *([NO_LARGER if k == place else v] for k, v in enumerate(found)))
            if whole in strength and weaker in strength:
                assert strength[weaker] <= strength[whole]
