"""The report's opening counts verdicts, and says where claims lead that lack seeds."""

from __future__ import annotations

import pytest

from routedk_lite.data.sessions import PUBLIC_DOMAINS
from routedk_lite.report.claims import Claim, Comparison
from routedk_lite.report.findings import (
    DOES_NOT,
    NO_LARGER,
    NOT_COMPARABLE,
    NOT_DECIDED,
    NOT_RUN,
    REPLICATES,
    TOO_SMALL,
    Finding,
)
from routedk_lite.report.opening import what_became_of_claims
from routedk_lite.report.verdicts import Judgement

COMPARISON = Comparison(label="a − b", a="a", b=("b",), margin=0.02)


def claim(verdict: str, *, title: str = "T", low: float = 0.1, high: float = 0.2, domains=("food",)) -> Judgement:
    """One claim with that verdict in each domain."""
    about = Claim(id="c", title=title, statement="…", chapter="x", domains=domains, comparisons=(COMPARISON,))
    known = {
        "missing": ("a",) * (verdict == NOT_RUN), "hindrance": "x" * (verdict == NOT_COMPARABLE),
        "low": low, "high": high, "verdict": verdict,
        "n_seeds": 1 if verdict.startswith("not judged") else 3,
    }  # fmt: skip
    return Judgement(claim=about, findings=tuple(Finding(COMPARISON, domain, **known) for domain in domains))


WAITING = "not judged (one seed)"


def partly(*verdicts: str) -> Judgement:
    """One claim with another verdict in each domain."""
    domains = PUBLIC_DOMAINS[: len(verdicts)]
    each = [claim(verdict, domains=(domain,)) for verdict, domain in zip(verdicts, domains, strict=True)]
    whole = claim(verdicts[0], domains=domains).claim
    return Judgement(claim=whole, findings=tuple(f for one in each for f in one.findings))


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
            [REPLICATES, (REPLICATES, WAITING)],
            "Of 2 claims, 1 replicates and 1 replicates (not in all domains yet).",
        ),
        (
            [NO_LARGER, NO_LARGER, TOO_SMALL, NOT_DECIDED, NOT_RUN, WAITING],
            "Of 6 claims, 1 is real, but too small, 2 show no difference larger than their margins, 1 is not decided, "
            "1 is not judged yet and 1 is not run, or only in part.",
        ),
    ],
)
def test_verdicts_are_counted(found, headline):
    made = [partly(*verdict) if isinstance(verdict, tuple) else claim(verdict) for verdict in found]
    assert what_became_of_claims(made).headline == headline


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


@pytest.mark.parametrize("others", [(REPLICATES, WAITING), (WAITING, "not judged (two seeds)")])
def test_domains_that_wait_for_seeds_are_not_forgotten(others):
    said = what_became_of_claims([claim(REPLICATES), partly(*others)]).figures
    assert said == "Direction so far, where seeds are missing: *as claimed*: T."
    assert what_became_of_claims([partly(REPLICATES, NOT_COMPARABLE)]).figures == ""
