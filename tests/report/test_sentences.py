"""What was found is said as the numbers say it, and what is missing is left out."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from conftest import ROOT
from synthetic import stand_in, write_run

from routedk_lite.report import comparing, scores, sentences
from routedk_lite.report.claims import Comparison, load_claims
from routedk_lite.report.findings import Finding
from routedk_lite.report.scores import main_profile, scored
from routedk_lite.report.sentences import (
    Compared,
    compared,
    what_a_student_adds,
    whether_it_would_be_seen,
    whether_the_way_matters,
)
from routedk_lite.report.verdicts import Judgement
from routedk_lite.statistics import Interval
from routedk_lite.study.records import load_all

DOMAINS = ("electronic", "clothing", "food")


def difference(a: str, b: str, estimate: float, *, half: float = 0.01, domain: str = "electronic", seeds: int = 3):
    comparison = Comparison(label=b, a=a, b=(b,))
    low, high = estimate - half, estimate + half
    return Finding(
        comparison, domain, (), (), a=0.6, b=0.6 - estimate, estimate=estimate, low=low, high=high, n_seeds=seeds
    )


def score(run: str, f1: float, *, domain: str = "electronic", seeds: int = 1):
    record = SimpleNamespace(seed=0, student={"id": "s"})
    return scores.Score("smol", domain, run, (record,) * seeds, Interval(f1, f1 - 0.05, f1 + 0.05), 0.3)


def against(**estimates) -> dict[str, list[Finding]]:
    """The base expert's differences in the three domains, by rival."""
    names = {"floor": "floor-pairs", "decoder": "decode-minilm",
             "teacher": "teacher"}  # fmt: skip
    return {
        names[rival]: [
            difference("base-seed*", names[rival], e, domain=d) for d, e in zip(DOMAINS, values, strict=False)
        ]
        for rival, values in estimates.items()
    }


BASE = [score("base", 0.6, domain=d) for d in DOMAINS]

# --- what a student adds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "decoder", "headline"),
    [
        ((0.1, 0.1, 0.1), (0, 0, 0), "In strict F1 the small student beats the floors in all three domains; "
         "it is nowhere shown to beat title similarities read by our decoder."),
        ((0.1, 0.1, 0.1), (0.1, 0, 0.1), "In strict F1 the small student beats the floors in all three domains; "
         "it beats title similarities read by our decoder in electronic and food."),
        ((0, 0, 0), (-0.1, -0.1, -0.1), "In strict F1 the small student is nowhere shown to beat the "
         "floors; it loses to title similarities read by our decoder in all three domains."),
        ((-0.1, 0.1, 0), (-0.1, 0, 0.1), "In strict F1 the small student beats the floors in clothing, and loses to "
         "them in electronic; it beats title similarities read by our decoder in food, and loses to them in "
         "electronic."),
        ((0.1, 0.1), (), "In strict F1 the small student beats the floors in both domains that were run."),
        ((0.1,), (), "In strict F1 the small student beats the floors in electronic."),
        ((), (0.1,), "The small student beats title similarities read by our decoder in electronic."),
        ((), (), "The small student is not yet set beside anything."),
    ],
)  # fmt: skip
def test_the_headline_says_whom_the_student_beats_and_where(floor, decoder, headline):
    found = Compared(against(floor=floor, decoder=decoder), {})
    assert what_a_student_adds(BASE, found).headline == headline


def test_figures_name_sides_ranges_and_the_domains_that_are_compared():
    found = against(floor=(0.1, 0.2, 0.3), decoder=(0.1, 0, -0.1), teacher=(0.05, 0.08))
    exact = against(floor=(0.05, 0), teacher=(-0.1, -0.1))
    sentence = what_a_student_adds(BASE, Compared(found, exact))
    assert sentence.headline.endswith("; in exact match it beats the floors in electronic.")
    said = sentence.figures
    assert (
        "Its exact match is 0.300 in electronic, 0.300 in clothing and 0.300 in food: above the best floor in" in said
    )
    assert "below the teacher in electronic and clothing (−0.100)" in said
    assert "0.600 [0.550, 0.650] in electronic" in said
    assert "above the best floor (+0.100 to +0.300)" in said
    assert (
        "above our decoder on MiniLM similarities of titles in electronic, below in food, not told apart in clothing "
        "(−0.100 to +0.100)" in said
    )
    assert "above the teacher in electronic and clothing (+0.050 to +0.080)" in said
    assert said.endswith("One seed: intervals cover the choice of sessions only.")


def test_the_best_of_several_floors_is_the_rival():
    weak = [difference("base-seed*", "floor-whole", 0.4)]
    strong = [difference("base-seed*", "floor-pairs", 0.1)]
    said = what_a_student_adds(BASE, Compared({"floor-whole": weak, "floor-pairs": strong}, {})).figures
    assert "best floor in electronic (+0.100)" in said


@pytest.mark.parametrize(("seeds", "said"), [((3, 3), "Three seeds."), ((1, 3), "One to three seeds.")])
def test_seeds_are_counted(seeds, said):
    base = [score("base", 0.6, domain=d, seeds=n) for d, n in zip(DOMAINS, seeds, strict=False)]
    assert what_a_student_adds(base, Compared({}, {})).figures.endswith(said)


def test_without_a_base_expert_nothing_is_said_about_it():
    assert what_a_student_adds([score("rules", 0.6)], Compared(against(floor=(0.1,)), {})) is None


# --- whether the way matters --------------------------------------------------------------------------------------


def routing(*estimates, seeds=3, rival="fusion-static-seed*"):
    pairs = zip(DOMAINS, estimates, strict=False)
    return {rival: [difference("fusion-dynamic-seed*", rival, e, domain=d, seeds=seeds) for d, e in pairs]}


@pytest.mark.parametrize(
    ("estimates", "headline", "figures"),
    [
        ((0.002,), "makes no difference larger than 0.012 in electronic.", "no difference larger than 0.012"),
        ((0.05,), "gains in electronic.", "+0.050 [+0.040, +0.060] in electronic, a gain"),
        ((-0.05,), "loses in electronic.", "−0.050 [−0.060, −0.040] in electronic, a loss"),
        ((0.05, -0.05, 0.0),
         "gains in electronic, loses in clothing and makes no difference larger than 0.010 in food.", "a loss"),
    ],
)  # fmt: skip
def test_routing_is_worded_by_the_interval(estimates, headline, figures):
    said = whether_the_way_matters([], routing(*estimates))
    assert said.headline == f"Against static weights, routing {headline}"
    assert figures in said.figures


@pytest.mark.parametrize(("seeds", "words"), [(1, "one seed"), (2, "two seeds")])
@pytest.mark.parametrize("estimate", [0.0, 0.5, -0.5])
def test_few_seeds_are_not_judged_whatever_they_show(seeds, words, estimate):
    said = whether_the_way_matters([], routing(estimate, seeds=seeds))
    stands = {0.0: "not told apart from", 0.5: "above", -0.5: "below"}[estimate]
    assert said.headline == (
        f"Whether routing helps is not judged yet, with {words}; so far the router is {stands} static weights."
    )
    assert said.figures.endswith(f"in electronic ({words}).")
    assert not re.search("a gain|a loss|no difference", said.figures)


def test_the_fewest_seeds_are_said_and_opposite_directions_are_named():
    some = routing(0.5, seeds=1, rival="base-seed*") | routing(0.5, -0.5, seeds=2)
    assert whether_the_way_matters([], some).headline == (
        "Whether routing helps is not judged yet, with one seed; so far the router is above the base expert alone and "
        "above in some domains and below in others, static weights."
    )
    judged = routing(0.5, seeds=2, rival="base-seed*") | routing(0.5, seeds=3)
    assert "with two seeds;" in whether_the_way_matters([], judged).headline


def test_the_range_counts_fusions_only():
    runs = {"base": 0.61, "rules": 0.65, "fusion-ties": 0.63, "control-mean": 0.2, "voting-base": 0.3, "few-shot": 0.5,
            "fused-arrow": 0.6, "reasoning": 0.1}  # fmt: skip
    said = whether_the_way_matters([score(run, f1) for run, f1 in runs.items()], {})
    assert said.figures.endswith("The 2 fusions that were run lie between 0.600 and 0.630 in electronic.")
    assert said.headline == "It is not known yet whether the way of fusing experts matters."
    assert (
        "The router and the base expert alone are not both recorded. The router and static weights are not"
        in said.figures
    )


def test_the_base_expert_alone_is_a_rival_of_the_router_too():
    base = "base-seed*"
    said = whether_the_way_matters([], routing(-0.05, rival=base) | routing(0.05))
    assert said.headline.startswith(
        "Against the base expert alone, routing loses in electronic; against static weights,"
    )
    few = whether_the_way_matters([], routing(0.0, rival=base, seeds=1) | routing(0.0, seeds=1))
    assert few.headline.endswith("so far the router is not told apart from the base expert alone or static weights.")
    mixed = whether_the_way_matters([], routing(0.5, rival=base, seeds=1) | routing(-0.5, seeds=1))
    assert mixed.headline.endswith("so far the router is above the base expert alone and below static weights.")


def test_runs_that_share_no_seed_are_not_compared(here, tmp_path):
    write_run(tmp_path, "fusion-dynamic-seed0", 0.9, seed=0)
    write_run(tmp_path, "fusion-static-seed1", 0.4, seed=1)
    found = compared(load_all(tmp_path), "smol")
    assert not found.f1.get("fusion-static-seed*")


def test_without_ways_and_routers_nothing_is_said():
    assert whether_the_way_matters([score("base", 0.6)], {}) is None


# --- whether it would be seen -------------------------------------------------------------------------------------


def control(static: float, shuffled: float | None = 0.4, *, seeds: int = 3) -> list[Judgement]:
    found = [difference("fusion-dynamic-seed*", "fusion-static-seed*", static, domain="habits", seeds=seeds)]
    if shuffled is not None:
        found += [difference("fusion-dynamic-seed*", "control-shuffled-seed*", shuffled, domain="habits", seeds=seeds)]
    found += [difference("fusion-dynamic-seed*", "fusion-ties-seed*", -1.0, domain="habits", seeds=seeds)]
    return [Judgement(claim=None, findings=tuple(found))]


@pytest.mark.parametrize(
    ("static", "shuffled", "seeds", "headline"),
    [
        (0.4, 0.3, 3, "In a toy task made for routing, the router wins."),
        (0.4, None, 3, "In a toy task made for routing, the router wins."),
        (
            0.4,
            0.0,
            3,
            "In a toy task made for routing, the router does not win: no other verdict on routing can be trusted.",
        ),
        (
            -0.4,
            0.4,
            3,
            "In a toy task made for routing, the router does not win: no other verdict on routing can be trusted.",
        ),
        (0.4, 0.3, 1, "The positive control is not judged yet."),
    ],
)
def test_the_control_is_worded_by_its_intervals(static, shuffled, seeds, headline):
    assert whether_it_would_be_seen(control(static, shuffled, seeds=seeds)).headline == headline


def test_the_control_shows_its_figures():
    said = whether_it_would_be_seen(control(0.456, 0.384)).figures
    assert "the router minus static weights, +0.456 [+0.446, +0.466]; " in said
    assert "minus the same router with another session's weights, +0.384 [+0.374, +0.394], over three seeds." in said
    assert "might still go unseen" in said and "unseen" not in whether_it_would_be_seen(control(-0.4, 0.4)).figures


def test_without_a_control_nothing_is_said():
    missing = Finding(Comparison(label="x", a="fusion-dynamic-seed*"), "habits", ("fusion-static-seed*",))
    assert whether_it_would_be_seen([]) is None
    assert whether_it_would_be_seen([Judgement(claim=None, findings=(missing,))]) is None


# --- from records -------------------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    """Some toy sessions under the names of the public domains."""
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    monkeypatch.setattr(scores, "_sessions", stand_in)


def test_sentences_follow_from_records(here, tmp_path):
    write_run(tmp_path, "floor-pairs", 0.1)
    for seed in range(3):
        write_run(tmp_path, f"base-seed{seed}", 0.7, seed=seed)
        write_run(tmp_path, f"fusion-dynamic-seed{seed}", 0.9, seed=seed)
        write_run(tmp_path, f"fusion-static-seed{seed}", 0.4, seed=seed)
    records = load_all(tmp_path)
    said = sentences.sentences(scored(records), compared(records, "smol"), [])
    assert [sentence.headline for sentence in said] == [
        "In strict F1 the small student beats the floors in electronic; in exact match it beats the floors in "
        "electronic.",
        "Against the base expert alone, routing gains in electronic; against static weights, routing gains in "
        "electronic.",
    ]
    assert said[0].figures.endswith("Three seeds.")


def test_a_run_is_scored_over_all_its_seeds(here, tmp_path):
    made = [write_run(tmp_path, f"base-seed{seed}", 0.4 + 0.2 * seed, seed=seed) for seed in range(3)]
    (found,) = scored(load_all(tmp_path))
    means = [record.metrics["strict"]["f1"] for record in made]
    assert found.f1.estimate == pytest.approx(sum(means) / 3, abs=1e-5)
    assert found.f1.low < min(means[1:]) and found.f1.high > means[1]
    assert found.run == "base" and len(found.records) == 3 and found.words == "base expert"


def test_changed_data_are_refused(here, tmp_path, monkeypatch):
    write_run(tmp_path, "base-seed0", 0.4, seed=0)
    monkeypatch.setattr(scores, "_sessions", lambda domain, split: stand_in("food", split))
    with pytest.raises(ValueError, match="made from other data than the electronic sessions"):
        scored(load_all(tmp_path))


def test_the_main_profile_has_the_core_in_the_most_domains(here, tmp_path):
    assert main_profile([]) == ""
    for run in ("base", "rules", "reasoning", "both", "fusion-dynamic", "fusion-static"):
        write_run(tmp_path, f"{run}-seed0", 0.5, seed=0)
    assert main_profile(load_all(tmp_path)) == "smol"
    for domain in DOMAINS[:2]:
        for run in ("base", "fusion-dynamic", "fusion-static"):
            write_run(tmp_path, f"{run}-seed0", 0.5, seed=0, domain=domain, profile="t4")
    assert main_profile(load_all(tmp_path)) == "t4"


def test_the_student_whose_claims_are_judged_comes_first_once_it_has_the_core(here, tmp_path):
    judged = load_claims().profile
    for run in ("base", "fusion-dynamic", "fusion-static"):
        assert main_profile(load_all(tmp_path)) != judged
        write_run(tmp_path, f"{run}-seed0", 0.5, seed=0, profile=judged)
        for domain in DOMAINS[:2]:
            write_run(tmp_path, f"{run}-seed0", 0.5, seed=0, domain=domain, profile="t4")
    assert main_profile(load_all(tmp_path)) == judged


# --- words --------------------------------------------------------------------------------------------------------


def test_every_recorded_run_has_words_and_a_group():
    for record in load_all(ROOT / "results"):
        run = re.sub(r"-seed\d+$", "", record.run)
        shown = scores.Score(record.profile, record.domain, run, (record,), Interval(0, 0, 0), 0)
        assert shown.words != run or run == "teacher", run
        assert bool(shown.group) == bool(record.student and not run.startswith(("by_", "floor"))), run


def test_what_has_no_words_keeps_its_name():
    assert scores.in_words("something-new", is_trained=True) == "something-new"
    assert scores.in_words("patterns", is_trained=True) != scores.in_words("patterns", is_trained=False)
    assert scores.in_words("knockout-rules-upper", is_trained=True) == "router without its rules expert, upper layers"
