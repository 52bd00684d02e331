"""A folder of sessions goes through a study, a teacher, a chapter and the explorer as every domain does."""

from __future__ import annotations

import shutil
from dataclasses import replace

import explored
import pytest
from explored import make_results
from scripted import ScriptedTeacher
from typer.testing import CliRunner

from routedk_lite.__main__ import app
from routedk_lite.book.explorer.static import RouterExplorer
from routedk_lite.book.notebook import setup
from routedk_lite.config import PROFILES, VoteConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import DataError
from routedk_lite.data.writing import write_sessions
from routedk_lite.files import read_json
from routedk_lite.report.landing import landing
from routedk_lite.report.tables import plan_table, results_table, short_table
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.records import RecordError, load_all, verify
from routedk_lite.teacher.knowledge import load_knowledge
from routedk_lite.teacher.patterns import load_patterns
from routedk_lite.teacher.recording import distill, export_recorded, write_knowledge, write_patterns

LIMIT = {"train": 40, "validation": 10, "test": 8}
WITHOUT_TEACHER = ("floor-whole", "cluster-tfidf", "patterns", "base-seed0")


def make(folder, sizes=LIMIT):
    """Sessions of the toy shop, as somebody's own."""
    folder.mkdir(parents=True)
    for split, n in sizes.items():
        sessions = load_domain("toyshop", split).sessions[:n]
        write_sessions(folder / f"{split}.csv", [replace(s, name=f"s {s.id}", intents=(), why=()) for s in sessions])
    return folder


@pytest.fixture
def mine(tmp_path):
    return make(tmp_path / "a" / "mine")


@pytest.fixture
def study(tiny_profile, tmp_path):
    profile = replace(tiny_profile, train=replace(tiny_profile.train, epochs=1, max_length=4000))

    def study(folder, changed=profile, results="results"):
        return Pipeline(changed, folder, results=tmp_path / results, work=tmp_path / "runs", progress=False)

    return study


def told(folder):
    """Let the toy shop's own rules and reasoning be those of the folder."""
    known, train = load_knowledge("toyshop"), load_domain(folder, "train")
    by_name = {f"s {id_}": entry for id_, entry in known.reasoning.items()}
    head = {"teacher": "me", "items": "explicit", "data": f"mine, sha256 {train.sha256}"}
    write_knowledge(folder, "rules", "mine", known.rules, head)
    write_knowledge(folder, "reasoning", "mine", {s.id: by_name[s.name] for s in train}, head)
    return folder


def test_without_a_teacher_what_needs_one_is_left_out(mine, study):
    one = study(mine)
    names = [stage.name for stage in one.stages]
    assert {*WITHOUT_TEACHER, "zero-shot", "few-shot", "few-shot-patterns", "voting-base-seed0"} <= set(names)
    assert not any(part in name for name in names for part in ("rules", "reasoning", "both", "fusion", "conflict"))
    assert f"routedk distill --domain {mine} --kind rules" in one.note and "--kind reasoning" in one.note
    with pytest.raises(ValueError, match=r"no stage 'rules-seed0': choose among .*Left out is all that needs"):
        one.run(only=["rules-seed0"])
    with pytest.raises(ValueError, match="fusion = 'dynamic': choose among none. Left out"):
        one.export(mine.parent / "exported")
    with pytest.raises(DataError, match="mine holds no rules.json, so no teacher has said anything: ask a teacher"):
        load_knowledge(str(mine))


def test_a_study_of_a_folder_is_recorded_under_its_name(mine, study, tmp_path, monkeypatch):
    records = study(mine).run(only=WITHOUT_TEACHER)
    assert [r.run for r in records] == ["base-seed0", "cluster-tfidf", "floor-whole", "patterns"]
    assert all((r.domain, r.n_sessions, r.split) == ("mine", 8, "test") for r in records)
    assert (tmp_path / "runs" / "toy" / "mine" / "base-seed0" / "adapter_model.safetensors").exists()
    assert all(stage.is_done() for stage in study(mine).chosen(WITHOUT_TEACHER))
    for record in records:
        verify(record, mine)
    with pytest.raises(RecordError, match=r"made from sessions of your own: give their folder \(--domain\)"):
        verify(records[0])
    assert landing(load_all(tmp_path / "results")).scores == ()  # the book is about other domains

    monkeypatch.chdir(mine.parent)
    words = ["results", "--results", str(tmp_path / "results"), "--domain"]
    out = CliRunner().invoke(app, [*words, "./mine", "--verify"])
    assert out.exit_code == 0 and "4 records agree" in out.output and "toy, mine" in out.output
    assert CliRunner().invoke(app, [*words, "mine"]).exit_code == 0
    verify(records[0])  # the folder lies where its name says


def test_another_validation_split_is_another_study(mine, study):
    study(mine).run(only=["cluster-tfidf"])
    assert study(mine).chosen(["cluster-tfidf"])[-1].is_done()
    sessions = load_domain("toyshop", "validation").sessions[10:20]
    changed = [replace(s, name=f"s {s.id}", intents=(), why=()) for s in sessions]
    (mine / "validation.csv").unlink()
    write_sessions(mine / "validation.csv", changed)
    assert not study(mine).chosen(["cluster-tfidf"])[-1].is_done(), "its threshold was chosen on the other one"


def test_two_folders_of_one_name_do_not_share_records(mine, study, tmp_path):
    study(mine).run(only=["floor-whole"])
    other = make(tmp_path / "b" / "mine", LIMIT | {"test": 7})
    again = study(other)
    assert not any(stage.is_done() for stage in again.stages if stage.name == "floor-whole")
    with pytest.raises(ValueError, match=r"made from other test sessions than .*b/mine holds now: rename the folder"):
        again.run(only=["floor-whole"])
    assert study(other, results="others").run(only=["floor-whole"])[0].n_sessions == 7
    shutil.copytree(mine, tmp_path / "c" / "mine")
    assert study(tmp_path / "c" / "mine").run(only=["floor-whole"])[0].n_sessions == 8, "these are the same sessions"


def test_with_a_teacher_a_folder_has_every_stage_of_a_domain(mine, study, tmp_path):
    one = study(told(mine))
    assert one.note == "" and one.knowledge.domain == "mine"
    whole = {stage.name for stage in study("toyshop").stages}
    assert {stage.name for stage in one.stages} == whole
    found = one.run(only=["fusion-average-seed0"])
    assert found[0].analysis["experts"] == ["base-seed0", "rules-seed0", "reasoning-seed0"]
    assert (one.export(tmp_path / "exported", "average") / "routed.json").exists()
    one.run(only=["rules-distilled-seed0"])
    summary = read_json(one.work / "rules-distilled-seed0" / "training.json", "the summary of a training")
    assert summary["knowledge"] == {"kind": "rules", "place": "distilled"}


def test_knowledge_of_sessions_that_have_changed_is_refused(mine, study):
    told(mine)
    text = (mine / "train.csv").read_text()
    (mine / "train.csv").write_text(text.replace("linen", "cotton"))
    with pytest.raises(DataError, match=r"reasoning.jsonl: the training sessions have changed since: distil it anew"):
        _ = study(mine).knowledge
    (mine / "reasoning.jsonl").write_text('{"provenance": {"items": "explicit"}}\n')
    with pytest.raises(DataError, match="knowledge of mine: no reasoning for training session"):
        _ = study(mine).knowledge


def test_knowledge_of_some_sessions_alone_stops_nothing_that_needs_none(mine, study):
    path = told(mine) / "reasoning.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")
    one = study(mine)
    assert not any("rules" in stage.name for stage in one.stages)
    assert "says nothing about 2 training sessions, the first of them 's " in one.note and "--limit" in one.note
    assert [r.run for r in one.run(only=["floor-whole"])] == ["floor-whole"]
    with pytest.raises(ValueError, match="no stage 'rules-seed0'.*says nothing about 2 training sessions"):
        one.run(only=["rules-seed0"])


def test_a_session_too_long_for_a_decoder_stops_no_study_that_needs_none(mine, study, tiny_profile):
    rows = [f"long,{k},thing number {k},{k % 2}" for k in range(13)]
    text = (mine / "test.csv").read_text()
    header = text.splitlines()[0].split(",")
    assert header[:4] == ["session", "item", "title", "bundle"]
    blank = "," * (len(header) - 4)
    (mine / "test.csv").write_text(text + "".join(f"{row}{blank}\n" for row in rows))
    taken = replace(tiny_profile, decode=replace(tiny_profile.decode, choose="consensus"))
    assert taken.answers == "consensus"
    one = study(mine, taken)
    assert "decode-tfidf" not in {stage.name for stage in one.stages}
    assert "session 'long' has 13 products, a decoder takes 12" in one.note
    assert "decode-tfidf" in {stage.name for stage in study(make(mine.parent / "other"), taken).stages}


def test_a_teacher_is_asked_about_a_folder(mine):
    with pytest.raises(DataError, match="mine holds no rules.json: distil rules into it first"):
        distill(ScriptedTeacher(), "reasoning", str(mine), mine)
    for kind in ("rules", "reasoning", "answers"):
        done = distill(ScriptedTeacher(), kind, str(mine), mine, progress=False)
        assert not done.unreadable
    known = load_knowledge(mine)
    assert known.domain == "mine" and known.reasoning.keys() == load_domain(mine, "train").by_id.keys()
    write_patterns(str(mine), mine)
    assert load_patterns(mine, mine) == load_patterns("mine", mine)
    with pytest.raises(ValueError, match="nobody has recorded a teacher on your own sessions: ask a teacher with"):
        export_recorded("rules", str(mine), mine)
    out = CliRunner().invoke(app, ["distill", "--domain", str(mine), "--kind", "patterns"])
    assert out.exit_code == 0 and f"Written: {mine / 'patterns.json'}" in out.output
    out = CliRunner().invoke(app, ["distill", "--domain", str(mine), "--kind", "rules"])
    assert "nobody has recorded a teacher" in str(out.exception)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_folder_goes_with_every_profile(mine, study, profile):
    assert study(told(mine), PROFILES[profile]).domain == "mine"


def test_the_command_plans_and_runs_a_folder(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(mine.parent)
    words = ["run", "--domain", "./mine", "--results", str(tmp_path / "results"), "--work", str(tmp_path / "runs")]
    plan = CliRunner().invoke(app, [*words, "--dry-run"])
    assert plan.exit_code == 0 and "toy, mine, seed 0" in plan.output and "base-seed0" in plan.output
    assert "routedk distill --domain mine" in plan.output
    out = CliRunner().invoke(app, [*words, "--only", "floor-pairs"])
    assert out.exit_code == 0 and (tmp_path / "results/toy/mine/floor-pairs.json").exists()


def test_a_folder_without_bundles_says_what_it_is_good_for(mine, study):
    for path in mine.iterdir():
        path.write_text("session,item,title\ns,a,tea\ns,b,cup\n".replace("s,", f"{path.stem},"))
    with pytest.raises(DataError, match=r"none of 1 train sessions has a bundle .*`routedk bundle` answers them"):
        study(mine).run(only=["floor-whole"])


def test_a_chapter_trains_on_a_folder(mine, monkeypatch):
    monkeypatch.setenv("ROUTEDK_PROFILE", "toy")
    assert setup(quiet=True).profile.domains == ("toyshop",)
    chosen = setup("", str(mine), quiet=True).profile.domains
    assert chosen == (str(mine), "toyshop") and len(load_domain(chosen[0], "test")) == 8
    monkeypatch.setenv("ROUTEDK_DOMAIN", str(mine))
    assert setup(quiet=True).profile.domains == chosen and setup("", "toyshop", quiet=True).profile.domains[1:] == ()
    with pytest.raises(ValueError, match="domain 'food' does not go with profile 'toy': choose one of toyshop, or a"):
        setup("", "food", quiet=True)
    assert setup("smol", "food", quiet=True).profile.domains[0] == "food"


def test_the_explorer_shows_a_folder(tmp_path, monkeypatch):
    whole = make(tmp_path / "mine", {"train": 30, "test": 240})
    monkeypatch.setattr(explored, "load_domain", lambda name, split: load_domain(whole, split))
    results = make_results(tmp_path / "results")
    shown = RouterExplorer.from_results(results, "toy", whole)
    assert shown.data["title"] == "mine, toy student" and shown.data["sessions"][0]["id"].startswith("s ")
    assert "Session s " in shown._repr_html_() or "session s " in shown._repr_html_()
    assert shown.alpha(shown.data["sessions"][0]["id"]).shape == (5, 3)
    out = CliRunner().invoke(
        app, ["explorer", str(tmp_path / "x.html"), "--domain", str(whole), "--results", str(results)]
    )
    assert out.exit_code == 0 and (tmp_path / "x.html").stat().st_size > 10_000


def test_a_plan_for_a_student_in_four_bits_asks_for_no_knowledge_that_is_not_there(mine, study):
    plan = plan_table(study(mine, PROFILES["t4"]))
    assert "base-seed0" in plan and "rules-seed0" not in plan


@pytest.mark.parametrize("choose", ["own", "consensus"])
def test_a_test_split_of_one_session_is_recorded_and_shown_without_an_interval(tmp_path, study, choose):
    folder = make(tmp_path / "a" / "one", LIMIT | {"test": 1})
    one = study(folder)
    profile = replace(one.profile, vote=VoteConfig(n=4, sizes=(1, 4)))
    if choose == "consensus":
        decode, letters = replace(profile.decode, choose="consensus"), replace(profile.prompt, fmt="letters")
        profile = replace(profile, decode=decode, prompt=letters)
    found = study(folder, profile).run(only=["floor-pairs", "few-shot", *(["voting-*"] if choose == "own" else [])])
    assert all(record.n_sessions == 1 and not record.intervals["strict"] for record in found)
    for table in (results_table(found), results_table(found, markdown=True), short_table(found)):
        assert all(record.run in table and f"{record.metrics['strict']['f1']:.3f}" in table for record in found)
        assert "–" in table and "nan" not in table
