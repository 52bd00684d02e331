"""The report's opening counts verdicts, and says where claims lead that lack seeds."""

from __future__ import annotations

import pytest

from routedk_lite.report.claims import Claim, Comparison
from routedk_lite.report.findings import DOES_NOT, NO_LARGER, NOT_DECIDED, NOT_RUN, REPLICATES, TOO_SMALL, Finding
from routedk_lite.report.opening import what_became_of_claims
from routedk_lite.report.verdicts import Judgement

COMPARISON = Comparison(label="a − b", a="a", b=("b",), margin=0.02)


def claim(verdict: str, *, title: str = "T", low: float = 0.1, high: float = 0.2, domains=("food",)) -> Judgement:
    """One claim with that verdict in each domain."""
    about = Claim(id="c", title=title, statement="…", chapter="x", domains=domains, comparisons=(COMPARISON,))
    known = {
        "missing": ("a",) * (verdict == NOT_RUN), "low": low, "high": high, "verdict": verdict,
        "n_seeds": 1 if verdict.startswith("not judged") else 3,
    }  # fmt: skip
    return Judgement(claim=about, findings=tuple(Finding(COMPARISON, domain, **known) for domain in domains))


WAITING = "not judged (one seed)"


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        ([WAITING, NOT_RUN], "None of the 2 claims is judged yet."),
        ([REPLICATES], "Of 1 claims, 1 replicates."),
        (
            [REPLICATES, REPLICATES, DOES_NOT, WAITING],
            "Of 4 claims, 2 replicate, 1 does not replicate and 1 is not judged yet.",
        ),
        (
            [NO_LARGER, NO_LARGER, TOO_SMALL, NOT_DECIDED, NOT_RUN, WAITING],
            "Of 6 claims, 1 is real, but too small, 2 show no difference larger than their margins, 1 is not decided, "
            "1 is not judged yet and 1 is not run, or only in part.",
        ),
    ],
)
def test_verdicts_are_counted(found, headline):
    assert what_became_of_claims([claim(verdict) for verdict in found]).headline == headline


def test_claims_that_lack_seeds_are_named_by_where_they_lead():
    said = what_became_of_claims([
        claim(WAITING, title="A"),
        claim(WAITING, title="B", low=-0.1),
        claim(WAITING, title="C", low=-0.2, high=-0.1),
        claim(WAITING, title="D"),
        claim(NOT_RUN, title="E"),
        claim(REPLICATES, title="F"),
    ]).figures  # fmt: skip
    assert (
        said == "Direction so far, where seeds are missing: *as claimed*: A; D. *the other way*: C. *no direction*: B."
    )


def test_a_claim_that_leads_elsewhere_in_another_domain_is_mixed():
    both = claim(WAITING, title="A", domains=("food", "clothing"))
    other = both.findings[1]._replace(low=-0.2, high=-0.1)
    said = what_became_of_claims([Judgement(claim=both.claim, findings=(both.findings[0], other))])
    assert said.figures == "Direction so far, where seeds are missing: *mixed*: A."
    assert what_became_of_claims([claim(REPLICATES)]).figures == "Each has the seeds that it needs."
    assert what_became_of_claims([claim(REPLICATES), claim(NOT_RUN)]).figures == ""
