"""The replication report shows what the records give, says what is missing, and cannot go out of date unseen."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from conftest import ROOT, bare_decimals, require
from synthetic import CLAIMS, stand_in, write_run, write_study
from typer.testing import CliRunner

from routedk_lite.__main__ import app
from routedk_lite.config import get_profile
from routedk_lite.files import own_file
from routedk_lite.report import comparing, scores
from routedk_lite.report.claims import load_claims
from routedk_lite.report.costs import CALLS, MACHINES, READ_ON
from routedk_lite.report.figure import LIMIT, claims_figure
from routedk_lite.report.replication import (
    SMALLER,
    STUDY,
    at_smaller_scale,
    figure_key,
    filled_page,
    page_parts,
    settings_table,
    summary_table,
    write_report,
)
from routedk_lite.report.style import LIGHT, dark_twin, in_the_dark
from routedk_lite.report.verdicts import judge
from routedk_lite.study.records import load_all

OURS = load_claims()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Records of a whole study of one domain, and of one seed of another; judged."""
    folder = tmp_path_factory.mktemp("study") / "results"
    write_study(folder)
    write_study(folder, domains=("food",), seeds=(0,))
    records = load_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "load_domain", stand_in)
        return records, judge(CLAIMS, records, n_draws=2000)


@pytest.fixture(scope="module")
def parts(study):
    records, judgements = study
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "load_domain", stand_in)
        patch.setattr(scores, "_sessions", stand_in)
        return page_parts(CLAIMS, judgements, records, records[0].path.parents[3] / "book")


# --- the committed page -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "claims"), [(STUDY, OURS), (SMALLER, at_smaller_scale(OURS))])
def test_a_page_and_its_figure_show_what_the_records_give(mirror, page, claims):
    path, figure = ROOT / "book" / page.name, ROOT / "book" / page.figure
    require(path.exists(), "the book comes with the repository only")
    records = load_all(ROOT / "results")
    judgements = judge(claims, records)
    text = path.read_text(encoding="utf-8")
    assert filled_page(text, claims, judgements, records, path.parent, page) == text, "run: routedk report --book book"
    assert all(f"({page.anchor}-{claim.id})=" in text for claim in claims)
    light = figure.read_text(encoding="utf-8")
    assert figure_key(judgements) in light, "run: routedk report --book book"
    assert dark_twin(figure).read_text(encoding="utf-8") == in_the_dark(light), "run: routedk report --book book"


def test_no_mean_mixes_the_students():
    """Each of the two pages rests on the records of one student."""
    assert {OURS.profile, OURS.smaller_profile} == {"qwen", "smol"} and OURS.frozen.profile == OURS.profile
    for claims in (OURS, at_smaller_scale(OURS)):
        records = [record for judgement in judge(claims, load_all(ROOT / "results")) for record in judgement.records]
        assert {record.profile for record in records} == {claims.profile}


# --- what is written ----------------------------------------------------------------------------------------------


def test_every_claim_has_a_section_with_the_papers_words_the_rule_and_the_verdict(study, parts):
    sections = re.split(r"\(claim-[\w-]+\)=\n", parts["claims"])[1:]
    assert len(sections) == len(CLAIMS)
    for section, judgement in zip(sections, study[1], strict=True):
        claim = judgement.claim
        assert section.startswith(f"### {claim.title}\n") and claim.statement in section
        assert claim.reports in section and f"| verdict | **{judgement.words}** |" in section
        assert f"](../{claim.chapter}.ipynb)" in section and (claim.note in section)
        assert f"](#claim-{claim.id})" in parts["summary"]


def test_numbers_missing_runs_and_records_stand_in_the_section(study, parts):
    section = parts["claims"].split("(claim-fusion-order)=")[1].split("(claim-")[0]
    finding = next(f for f in study[1][4].findings if f.comparison.label == "dynamic − static")
    assert f"{finding.estimate:+.3f} [{finding.low:+.3f},\u00a0{finding.high:+.3f}]" in section
    p_value = f"{finding.p_holm:.3f}" if finding.p_holm >= 0.001 else "<\u00a00.001"
    assert "| – | 1 |" in section and "| so far as claimed |" in section and f"| {p_value} | 3 |" in section
    assert "Not judged yet, because seeds are missing" in section
    assert "Not run yet: `fusion-dynamic-seed*` (clothing)" in section
    links = re.findall(r"\[fusion-dynamic-seed0\]\((\S+)\)", section)
    assert links == [f"../results/smol/{d}/fusion-dynamic-seed0.json" for d in ("electronic", "food")]
    assert ":::{dropdown} Records behind these numbers" in section


def test_what_an_answer_costs_stands_with_its_formula_its_inputs_and_a_date(study, parts):
    section = parts["claims"].split("(claim-cheaper)=")[1].split("(claim-")[0]
    n = len(stand_in("electronic", "test"))
    (cost,) = [c for c in study[1][9].costs if (c.domain, c.record.run) == ("electronic", "voting-dynamic-seed0")]
    assert f"| voting-dynamic-seed0 | electronic | {40 / n:.2f} s |" in section
    assert f"| {1000 * cost.low:.3f} to {1000 * cost.high:.3f} |" in section and f"| {cost.verdict} |" in section
    assert "no price stands here: `fusion-dynamic-seed*` (clothing)." in section
    assert f"Prices as of {READ_ON}" in section and r"$s\,(n\,c + g\,m) / 3600$" in section
    assert all(f"[{price.model}]({price.source})" in section for price in CALLS)
    assert all(f"[{machine.name}]({machine.source})" in section for machine in MACHINES)


def test_the_page_opens_with_five_sentences(study, parts):
    said = parts["found"].splitlines()
    assert [line.partition("**")[0] for line in said] == [f"{n}. " for n in range(1, len(said) + 1)]
    assert any("claims" in line for line in said) and "Dollars per thousand sessions" in said[-1]


def test_prose_holds_no_bare_decimal(parts):
    made = {name: part for name, part in parts.items() if name != "found"}
    made["claims"] = made["claims"].replace("95 %", "").replace(" no difference larger than 0.02", "")
    assert not [name for name, part in made.items() if bare_decimals(part)]


def test_where_runs_are_missing_the_summary_says_how_many_lead_where(study):
    (whole,) = [j for j in study[1] if j.claim.id == "mixing-hurts"]
    part = replace(whole, findings=tuple(
        f._replace(missing=("reasoning-seed*",)) if "reasoning" in f.comparison.a else f for f in whole.findings
    ))  # fmt: skip
    row = summary_table([part], anchor="claim").splitlines()[2]
    assert row.count("so far as claimed in 1 of 2 comparisons") == 2 and row.endswith("| **not run** |")


def test_without_records_everything_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    judgements = judge(CLAIMS, [])
    made = page_parts(CLAIMS, judgements, [], tmp_path)
    assert {j.verdict for j in judgements} == {"not run"}
    assert made["state"] == f"The {len(CLAIMS)} claims so far: not run: {len(CLAIMS)}.\n\n*No records yet.*"
    assert "| seeds | unknown | not run |" in made["settings"]


def test_settings_come_from_the_profile_and_the_records(study):
    text = settings_table(get_profile("smol"), study[0])
    assert "| seeds | unknown | 0, 1, 2 |" in text and "| electronic, food |" in text
    assert "de-quantised from 4-bit Q4_1" in text
    assert "4-bit, NF4" in settings_table(get_profile("paper"), [])


# --- the figure ---------------------------------------------------------------------------------------------------


def test_the_figure_draws_judged_and_unjudged_apart(study):
    figure = claims_figure(study[1], note="a note")
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() in tuple("osD") and len(line.get_xdata())]
    known = [f for j in study[1] for f in j.findings if not f.missing]
    arrows = [text for text in axes.texts if set("◀▶") & set(text.get_text())]
    assert len(arrows) == sum(abs(f.estimate) > LIMIT for f in known) > 0
    assert -LIMIT <= axes.get_xlim()[0] < axes.get_xlim()[1] <= LIMIT
    known = [f for f in known if abs(f.estimate) <= LIMIT]
    assert len(marks) == len(known)
    hollow = [line for line in marks if line.get_markerfacecolor() == LIGHT["ground"]]
    assert len(hollow) == sum(not f.is_judged for f in known) > 0
    texts = [text.get_text() for text in (*axes.texts, *figure.texts)]
    assert all(claim.title in " ".join(texts) for claim in CLAIMS) and "a note" in texts


def test_an_interval_that_goes_on_beyond_the_axis_says_so(study):
    judgement = next(j for j in study[1] if any(f.is_compared for f in j.findings))
    wide = tuple(f._replace(estimate=0.3, low=-0.1, high=0.7) for f in judgement.findings)
    (axes,) = claims_figure([replace(judgement, findings=wide)], note="a note").axes
    ends = [line for line in axes.lines if line.get_marker() == ">"]
    assert len(ends) == sum(f.is_compared for f in wide) > 0
    assert {float(line.get_xdata()[0]) for line in ends} == {LIMIT}
    assert not [line for line in axes.lines if line.get_marker() == "<"]


def test_runs_that_cannot_be_compared_are_said_to_on_the_page_and_in_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    monkeypatch.setattr(scores, "_sessions", stand_in)
    write_run(tmp_path / "results", "rules-seed0", 0.8, seed=0)
    write_run(tmp_path / "results", "both-seed1", 0.5, seed=1)
    records = load_all(tmp_path / "results")
    judgements = judge(CLAIMS, records, n_draws=100)
    section = page_parts(CLAIMS, judgements, records, tmp_path)["claims"].split("(claim-mixing-hurts)=")[1]
    reason = "rules alone − both (electronic): no seed is recorded for all of rules-seed*, both-seed*"
    assert f"\n\nCannot be compared: {reason}.\n\n" in section
    texts = [text.get_text() for text in claims_figure(judgements).axes[0].texts]
    assert texts.count("cannot be compared") == 1


def test_the_figure_says_where_nothing_was_run(monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    texts = [text.get_text() for text in claims_figure(judge(CLAIMS, [])).axes[0].texts]
    n_comparisons = sum(len(claim.comparisons) for claim in CLAIMS)
    assert texts.count("not run") == n_comparisons + len(CLAIMS) and texts.count("see its table") == 1


def test_the_report_is_written_and_its_figure_tells_when_it_is_out_of_date(study, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    monkeypatch.setattr(scores, "_sessions", stand_in)
    records, judgements = study
    for page in (STUDY, SMALLER):
        shutil.copy(ROOT / "book" / page.name, tmp_path)
    claims = replace(CLAIMS, smaller_profile="t4")
    page, picture, smaller, _ = write_report(tmp_path, claims, judgements, records)
    text = page.read_text(encoding="utf-8")
    assert summary_table(judgements, anchor="claim") in text
    assert f"not run: {len(CLAIMS)}." in smaller.read_text(encoding="utf-8"), "no records of that profile"
    assert figure_key(judgements) in picture.read_text(encoding="utf-8")
    assert figure_key(judgements[:-1]) != figure_key(judgements)
    before = picture.read_bytes(), text
    assert write_report(tmp_path, CLAIMS, judgements, records) == [page, picture], "one student, one page"
    assert (picture.read_bytes(), page.read_text(encoding="utf-8")) == before


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`routedk report` with the claims in an empty folder, as where no chapters are at hand."""
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    path = shutil.copy(own_file("claims.yml"), tmp_path)
    judged = ["report", "--claims", str(path), "--profile", "smol"]
    return lambda *more: CliRunner().invoke(app, [*judged, *map(str, more)])


def test_the_command_prints_verdicts(command, tmp_path):
    for seed in range(3):
        write_run(tmp_path / "results", f"rules-seed{seed}", 0.8, seed=seed)
        write_run(tmp_path / "results", f"reasoning-seed{seed}", 0.5, seed=seed)
        write_run(tmp_path / "results", f"both-seed{seed}", 0.5, seed=seed)
    done = command("--results", tmp_path / "results")
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "mixing-hurts" in line]
    assert "replicates (1 of 3 domains)" in line
    done = command("--results", tmp_path / "results", "--profile", "t4")
    assert "replicates" not in done.output


def test_the_command_refuses_claims_that_cite_what_is_missing(command, tmp_path):
    (tmp_path / "notebooks").mkdir()
    done = command("--results", tmp_path)
    assert "there is no such chapter" in str(done.exception)
