"""The project's claims are well formed and cite what exists; malformed ones are refused with the place of the fault."""

from __future__ import annotations

import copy

import pytest
import yaml
from conftest import ROOT, require

from routedk_lite.files import own_file
from routedk_lite.report.claims import (
    ClaimError,
    check_chapters,
    check_recorded,
    check_runs,
    load_claims,
)
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.records import load_all

CLAIMS = load_claims()
WANTED = {
    "beats-distillation", "beats-non-llm", "mixing-hurts", "more-experts", "fusion-order", "static-recall-food",
    "matches-teacher", "voting", "weights-follow-sessions", "cheaper", "more-knowledge", "fine-tuning-peaks",
    "both-uses",
}  # fmt: skip


@pytest.fixture
def content():
    """The project's claims before they are checked."""
    return copy.deepcopy(yaml.safe_load(own_file("claims.yml").read_text(encoding="utf-8")))


@pytest.fixture
def load(content, tmp_path):
    """Load the claims with the change that a test makes."""

    def changed(change):
        change(content)
        path = tmp_path / "claims.yml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return load_claims(path)

    return changed


# The project's own


def test_every_claim_of_the_two_papers_is_there():
    assert {claim.id for claim in CLAIMS} == WANTED
    assert {claim.paper for claim in CLAIMS} == {"routedk", "companion"}
    assert CLAIMS["static-recall-food"].domains == ("food",)
    assert CLAIMS["matches-teacher"].comparisons[0].margin == 0.05, "fixed before any run"
    with pytest.raises(KeyError, match="no claim 'magic': there are beats-distillation"):
        CLAIMS["magic"]


def test_claims_cite_chapters_that_exist():
    require((ROOT / "notebooks").is_dir(), "the chapters come with the repository only")
    check_chapters(CLAIMS, ROOT)


def test_claims_cite_runs_that_a_study_makes():
    names = {d: [s.name for s in Pipeline(CLAIMS.profile, d).stages] for d in ("electronic", "clothing", "food")}
    check_runs(CLAIMS, names | {"habits": [s.name for s in Pipeline(CLAIMS.control_profile).stages]})


def test_runs_that_are_said_to_be_recorded_are():
    runs = {}
    for record in load_all(ROOT / "results"):
        if record.profile == CLAIMS.profile:
            runs.setdefault(record.domain, []).append(record.run)
    check_recorded(CLAIMS, runs)


def test_papers_are_in_the_bibliography():
    text = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    for paper in CLAIMS.papers.values():
        assert f"{{{paper.key}," in text and paper.arxiv in text


# What is refused


def test_citing_what_does_not_exist_is_an_error(load, tmp_path):
    claims = load(lambda c: c["claims"][0].update(recorded=["food"]))
    with pytest.raises(ClaimError, match="claim 'beats-distillation': chapter = 'notebooks/05_router_and_fusion'"):
        check_chapters(claims, tmp_path)
    with pytest.raises(ClaimError, match=r"recorded = 'food', but the run 'fusion-dynamic-seed\*' is missing in qwen"):
        check_recorded(claims, {"food": ["rules-seed0"]})
    every = ["base-seed0", "fusion-dynamic-seed0", "rules-seed0", "reasoning-seed2", "both-seed0"]
    check_recorded(claims, {"food": every})
    assert claims.controls[0].domains == ("habits",)
    with pytest.raises(ClaimError, match="run = 'patterns': a study of electronic has no such stage"):
        check_runs(claims, dict.fromkeys(("electronic", "clothing", "food"), every))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_claims_may_begin_with_a_mark_of_their_encoding(tmp_path, encoding):
    path = tmp_path / "claims.yml"
    path.write_text(own_file("claims.yml").read_text(encoding="utf-8"), encoding=encoding)
    assert load_claims(path) == CLAIMS
    path.write_bytes(b"profile: caf\xe9")
    with pytest.raises(ClaimError, match=r"claims\.yml: cannot be read \(.*position 12"):
        load_claims(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(profile="huge"), "claims.yml, profile = 'huge': choose one of toy, smol, qwen, t4, paper"),
        (lambda c: c.pop("papers"), "must hold a profile, what is frozen, a smaller_profile, a mapping of papers"),
        (
            lambda c: c["claims"][0].update(paper="other"),
            "claim 'beats-distillation': paper = 'other': choose one of",
        ),
        (
            lambda c: c["claims"][0].update(verdict="yes"),
            "unknown field 'verdict': choose among id, title,",
        ),
        (lambda c: c["claims"][0].pop("chapter"), "'beats-distillation': the field 'chapter' is missing"),
        (
            lambda c: c["claims"][0].update(reports=""),
            "reports = '': must be a text; write 'unknown' for what",
        ),
        (lambda c: c["claims"][0].update(needs="most"), "needs = 'most': choose one of all, any"),
        (
            lambda c: c["claims"][0]["comparisons"][0].update(decides=False),
            "'beats-distillation': decides = false in all comparisons",
        ),
        (lambda c: c["claims"][0].update(costs=[3]), r"'beats-distillation': costs = \[3\]: must be a list of texts"),
        (lambda c: c["claims"][0]["comparisons"][0].update(b=[{}]), r"comparison 1: b = \[\{\}\]: must be a list of"),
        (
            lambda c: c["claims"][0].update(domains=["toys"]),
            "domain = 'toys': choose one of electronic, cloth",
        ),
        (lambda c: c["claims"][0].update(domains={"food": 1}), r"domains = {'food': 1}: must be a list"),
        (lambda c: c["claims"][0].update(comparisons=[]), "give either comparisons, or in `costs` the runs"),
        (lambda c: c["claims"][0].update(costs=["base-seed*"]), "give either comparisons, or in `costs` the runs"),
        (lambda c: c["claims"].append(c["claims"][0]), "beats-distillation is the id of two claims"),
        (lambda c: c["claims"].append("voting"), "claim 'voting': 'voting' must be a mapping of fields"),
    ],
)
def test_malformed_claims_name_the_claim_and_the_field(load, change, message):
    with pytest.raises(ClaimError, match=message):
        load(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "f1"}, "claim 'beats-distillation', comparison 1: metric = 'f1': choose one of strict f1, "),
        ({"test": "bigger"}, "comparison 1: test = 'bigger': choose one of greater, not worse, varies"),
        ({"margin": -0.1}, "comparison 1: margin = -0.1: must be a number from 0 to below 1"),
        ({"margin": True}, "margin = True: must be a number"),
        ({"b": []}, "`varies` looks at the alpha of an expert in one run; other tests compare a with b"),
        ({"metric": "alpha"}, "`varies` looks at the alpha of an expert in one run"),
        ({"voters": [8]}, "voters = \\[8\\]: must be two numbers of answers"),
        ({"voters": [8, 1], "metric": "official recall"}, "votes are counted under the strict protocol alone"),
        ({"decides": "no"}, "decides = 'no': must be true or false"),
    ],
)
def test_malformed_comparisons_are_numbered(load, change, message):
    with pytest.raises(ClaimError, match=message):
        load(lambda c: c["claims"][0]["comparisons"][0].update(change))


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ClaimError, match="nowhere.yml: cannot be read"):
        load_claims(tmp_path / "nowhere.yml")
    (tmp_path / "bad.yml").write_text("claims: [")
    with pytest.raises(ClaimError, match="bad.yml: cannot be read"):
        load_claims(tmp_path / "bad.yml")
