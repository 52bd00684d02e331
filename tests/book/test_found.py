from fnmatch import fnmatch

import numpy as np
import pytest
from synthetic import stand_in, write_run

from routedk_lite.book.found import (
    STRICT,
    Estimate,
    NotTrueError,
    by_domain,
    estimate,
    says,
    what_we_found,
)
from routedk_lite.book.notebook import Chapter
from routedk_lite.report import comparing
from routedk_lite.report.claims import load_claims
from routedk_lite.study.records import load_all


def test_a_sentence_takes_its_numbers_and_keeps_its_condition():
    d = {"estimate": 0.19, "low": 0.137, "high": 0.244, "seeds": 3}
    said = says("The gain is {d:+.3f} over {d.low:.1f}.", estimate(d).above, d=d)
    assert said == ("The gain is +0.190 [+0.137, +0.244] over 0.1.", True)
    assert not says("{d} is a loss.", estimate(d).below, d=d).is_true


@pytest.mark.parametrize("interval, above, below, within", [
    ((0.1, 0.05, 0.2), True, False, False),
    ((-0.1, -0.2, -0.05), False, True, False),
    ((0.0, -0.01, 0.02), False, False, True),
    ((0.0, -0.06, 0.02), False, False, False),
])  # fmt: skip
def test_an_estimate_knows_on_which_side_it_lies(interval, above, below, within):
    found = Estimate(*interval)
    assert (found.above, found.below, found.within(0.05)) == (above, below, within)


def test_differences_of_domains_stand_in_one_line():
    both = {"food": Estimate(0.1, 0.05, 0.15), "clothing": {"estimate": -0.1, "low": -0.2, "high": 0.0, "seeds": 1}}
    assert by_domain(both) == "+0.100 [+0.050, +0.150] in food, −0.100 [−0.200, +0.000] in clothing"


@pytest.mark.parametrize("text, values", [("No number.", {}), ("{a} alone", {}), ("{a} alone", {"a": 1, "b": 2})])
def test_a_sentence_without_its_numbers_is_refused(text, values):
    with pytest.raises(ValueError, match="fill in the same"):
        says(text, True, **values)


def test_what_is_not_true_stops_the_build_and_is_marked_in_a_readers_run(monkeypatch):
    true, wrong = says("{a} is large.", True, a=1), says("{a} is small.", None, a=1)
    monkeypatch.delenv(STRICT, raising=False)
    shown = what_we_found(true, wrong, source="toy, run now").data
    assert "- 1 is large." in shown and "- *Not so in this run:* 1 is small." in shown and "toy, run now" in shown
    monkeypatch.setenv(STRICT, "yes")
    assert what_we_found(true).data.count("Not so") == 0
    with pytest.raises(NotTrueError, match="1 is small"):
        what_we_found(true, wrong)


def test_recorded_runs_are_compared_session_by_session(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    from routedk_lite.data.domains import load_domain
    from routedk_lite.data.metrics import per_session
    from routedk_lite.files import own_file
    from routedk_lite.study.records import load_predictions

    results, runs = own_file("results"), ("base-seed*", "floor-all_pairs")
    chapter = Chapter(profile=None, device="cpu", results=results, work=tmp_path, has_public_data=True)
    found = chapter.differences("none", {"floor": runs, "nothing": ("no-run", runs[1])}, domains=["electronic"])
    assert found.keys() == {"floor"}
    profile = load_claims().profile
    records = {r.run: r for r in load_all(results) if (r.profile, r.domain) == (profile, "electronic")}
    test = load_domain("electronic", "test")

    def f1(run):
        predictions = {k: a.bundles for k, a in load_predictions(records[run]).items()}
        return per_session(predictions, test, "strict").f1

    bases = [f1(run) for run in records if fnmatch(run, runs[0])]
    values = found["floor"]["electronic"]
    assert values["estimate"] == pytest.approx(np.mean(np.mean(bases, axis=0) - f1(runs[1])), abs=1e-4)
    assert values["low"] < values["estimate"] < values["high"] and values["seeds"] == len(bases)
    assert values["profile"] == profile


def test_where_the_first_student_lacks_a_run_the_smaller_one_is_compared_whole(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    monkeypatch.setattr(comparing, "load_domain", stand_in)
    claims = load_claims()
    for run in ("base", "rules"):
        write_run(tmp_path / "results", f"{run}-seed0", 0.5, seed=0, profile=claims.smaller_profile)
    chapter = Chapter(profile=None, device="cpu", results=tmp_path / "results", work=tmp_path, has_public_data=True)

    def whose(**pairs):
        found = chapter.differences("none", {name: (run, "base-seed*") for name, run in pairs.items()})
        return {values["profile"] for by_domain in found.values() for values in by_domain.values()}

    assert whose(rules="rules-seed*") == {claims.smaller_profile} and whose(none="both-seed*") == set()
    assert {r.run for r in chapter.recorded("base-seed*", "rules-seed*")} == {"base-seed0", "rules-seed0"}
    assert chapter.recorded("base-seed*", "both-seed*") == []
    write_run(tmp_path / "results", "base-seed0", 0.5, seed=0, profile=claims.profile)
    assert whose(rules="rules-seed*") == {claims.smaller_profile}
    assert {r.profile for r in chapter.recorded("base-seed*", "rules-seed*")} == {claims.smaller_profile}
    write_run(tmp_path / "results", "rules-seed0", 0.5, seed=0, profile=claims.profile)
    assert whose(rules="rules-seed*") == {claims.profile}
    assert {r.profile for r in chapter.recorded("base-seed*", "rules-seed*")} == {claims.profile}
