"""What the records say about the papers' claims, by one rule for all.

One comparison in one domain is *judged* when three seeds of each trained run are recorded. Its difference is paired by
session and seed, its interval counts the chance in both (`two_levels`), and its p value, of the same test, is corrected
by Holm's rule over all deciding comparisons of the claim in all its domains, whether they have been run or not.

====================  =========================================================================================
verdict               when
====================  =========================================================================================
replicates            the interval lies on the claimed side, and the corrected p value is below .05
real, but too small   the same, and yet the whole interval is smaller than what the claim's margin counts
no difference larger  the whole interval lies between the margin and its negative, and shows no such small
than the margin       difference; of a claim, when this holds for all of its comparisons
does not replicate    the interval holds nothing that the margin would count, and reaches below its negative
not decided           none of the four
not judged            fewer than three seeds; the direction so far stands beside, and the smallest difference that
                      could have been found
cannot be compared    the runs have no seed, or no two sessions, in common, or of no seed do they all come from one
                      kind of machine: compute type, and processor or GPU
not run               a run is missing
====================  =========================================================================================

The margin of `not worse` is what may be lost: a claim with a loss that is real but smaller still replicates. Where a
claim needs all of its comparisons, the lowest of their verdicts is the claim's, where it needs any of them, the
highest, in this order: `does not replicate`, `no difference larger than the margin`, `real, but too small`,
`not decided`, `replicates`. What is undecided beside a difference that is real, but too small, leaves a claim that
needs both undecided. A claim about cost is judged by `costs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..data.sessions import PUBLIC_DOMAINS
from ..statistics import holm
from ..study.records import RunRecord
from .claims import Claim, Claims, Comparison
from .comparing import DRAWS, Shelf, compare
from .costs import Cost, costs
from .findings import (
    AS_CLAIMED,
    DOES_NOT,
    NO_DIRECTION,
    NO_LARGER,
    NOT_COMPARABLE,
    NOT_DECIDED,
    NOT_JUDGED,
    NOT_RUN,
    OTHER_WAY,
    REPLICATES,
    TOO_SMALL,
    Finding,
    with_margin,
)

LEVEL = 0.05
"""Of the corrected p value; intervals are 95 % ones."""
DIFFERS = "differs by domain"
_RANKS = (DOES_NOT, NO_LARGER, TOO_SMALL, NOT_DECIDED, REPLICATES)
"""Of what is judged, from the lowest."""
_NUMBERS = {1: "one seed", 2: "two seeds"}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the records say about one claim."""

    claim: Claim
    findings: tuple[Finding, ...]
    """Every comparison in every domain."""
    costs: tuple[Cost, ...] = ()
    """Of a claim about cost: every run in every domain."""

    @cached_property
    def by_domain(self) -> Mapping[str, str]:
        """Domain → verdict."""
        return {domain: self._in(domain) for domain in self.claim.domains}

    @property
    def verdict(self) -> str:
        """The verdict over all domains; those that are not judged are named as missing."""
        found = list(self.by_domain.values())
        judged = [v for v in found if v in _RANKS]
        if not judged:
            run = [v for v in found if v != NOT_RUN]
            return next((v for v in run if v.startswith(NOT_JUDGED)), run[0] if run else NOT_RUN)
        counted = set(judged) - {NOT_DECIDED}
        if len(set(judged)) == 1:
            whole = judged[0]
        elif counted in ({DOES_NOT, NO_LARGER}, {TOO_SMALL, NO_LARGER}):  # alike in what they do not show
            whole = NOT_DECIDED if NOT_DECIDED in judged else min(counted, key=_RANKS.index)
        else:
            whole = DIFFERS if len(counted) > 1 else NOT_DECIDED
        return whole if len(judged) == len(found) else f"{whole} ({len(judged)} of {len(found)} domains)"

    @property
    def words(self) -> str:
        """The verdict with the margin as a number."""
        return self.worded(self.verdict)

    def worded(self, verdict: str) -> str:
        """A verdict on this claim with its margin as a number; of several margins, the largest."""
        margin = max((c.margin for c in self.claim.comparisons if c.decides), default=0.0)
        return with_margin(verdict, margin)

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All that it rests on, each once."""
        found = {r.path: r for finding in self.findings for r in finding.records}
        found |= {cost.record.path: cost.record for cost in self.costs}
        return tuple(found[path] for path in sorted(found))

    def deciding(self, domain: str) -> list[Finding]:
        """The comparisons in one domain on which its verdict rests."""
        return [f for f in self.findings if f.domain == domain and f.comparison.decides]

    def direction(self, domain: str) -> str:
        """Where the deciding comparisons lead so far, those of a domain taken together; empty where none was made."""
        found = {f.direction for f in self.deciding(domain) if f.is_compared}
        if not found or found == {AS_CLAIMED}:
            return AS_CLAIMED if found else ""
        if self.claim.needs == "any":
            return next(word for word in (AS_CLAIMED, NO_DIRECTION, OTHER_WAY) if word in found)
        return OTHER_WAY if OTHER_WAY in found else NO_DIRECTION

    def _in(self, domain: str) -> str:
        if self.claim.costs:
            return self._cost_in(domain)
        deciding = self.deciding(domain)
        if not deciding or any(f.missing for f in deciding):
            return NOT_RUN
        if any(f.hindrance for f in deciding):
            return NOT_COMPARABLE
        if waiting := [f for f in deciding if not f.is_judged]:
            return min(waiting, key=lambda f: f.n_seeds).verdict
        choose = max if self.claim.needs == "any" else min
        found = {f.verdict for f in deciding}
        chosen = choose(found, key=_RANKS.index)
        if chosen == TOO_SMALL and NOT_DECIDED in found:
            return NOT_DECIDED
        return DOES_NOT if chosen == NO_LARGER and not found <= {NO_LARGER, TOO_SMALL} else chosen

    def _cost_in(self, domain: str) -> str:
        """The lowest verdict of all runs, where each is recorded."""
        found = [cost for cost in self.costs if cost.domain == domain]
        if {cost.pattern for cost in found} != set(self.claim.costs):
            return NOT_RUN
        return min((cost.verdict for cost in found), key=_RANKS.index)


def judge(
    claims: Claims, records: Iterable[RunRecord], *, profile: str | None = None, n_draws: int = DRAWS
) -> list[Judgement]:
    """Judge every claim by the records of one profile.

    Args:
        claims: what is claimed.
        records: all that are known; those of other profiles are left aside.
        profile: by default the one that `claims` names.
        n_draws: resamples and permutations of each comparison; they always draw the same.

    Raises:
        ClaimError: records of one run differ in their settings, or were made from other data than those at hand.
            Runs that fit together but leave nothing to compare are no error: their `Finding` says so.
        RecordError: predictions or attachments are missing or changed.
    """
    profile = profile or claims.profile
    shelf = Shelf([r for r in records if r.profile == profile])
    return [_judged(claim, shelf, n_draws) for claim in claims]


def judge_pairs(
    records: Iterable[RunRecord],
    profile: str,
    pairs: Mapping[str, tuple[str, str]],
    *,
    domains: Sequence[str] = PUBLIC_DOMAINS,
    metric: str = "strict f1",
) -> tuple[Finding, ...]:
    """Judge comparisons that belong to no claim, by the same rule.

    Args:
        records: all that are known; those of other profiles are left aside.
        profile: whose runs.
        pairs: a name for every comparison → its two runs, with `*` for the seeds, as in `claims.yml`.
        domains: in which.
        metric: protocol and score: `strict f1`, `strict exact_match`.

    Raises:
        ClaimError, RecordError: see `judge`.
    """
    made = tuple(Comparison(label=name, a=a, b=(b,), metric=metric) for name, (a, b) in pairs.items())
    claim = Claim(id="pairs", title="", statement="", chapter="", comparisons=made, domains=tuple(domains))
    (judgement,) = judge(Claims(profile=profile, papers={}, claims=(claim,)), records)
    return judgement.findings


def judge_controls(claims: Claims, records: Iterable[RunRecord], *, n_draws: int = DRAWS) -> list[Judgement]:
    """Judge the controls by the records of their own profile, and by the same rule as the claims."""
    return judge(replace(claims, claims=claims.controls), records, profile=claims.control_profile, n_draws=n_draws)


def _judged(claim: Claim, shelf: Shelf, n_draws: int) -> Judgement:
    found = [compare(claim, c, domain, shelf, n_draws) for domain in claim.domains for c in claim.comparisons]
    if not found:
        return Judgement(claim=claim, findings=(), costs=costs(claim, shelf))
    family = [f.p_value if f.is_judged and f.comparison.decides else 1.0 for f in found]
    family = [p for p, f in zip(family, found, strict=True) if f.comparison.decides]
    corrected = iter(holm(family))
    findings = []
    for finding in found:
        p = float(next(corrected)) if finding.comparison.decides else finding.p_value
        if finding.is_judged:
            finding = finding._replace(p_holm=p)
        findings.append(finding._replace(verdict=_verdict(finding)))
    return Judgement(claim=claim, findings=tuple(findings))


def _verdict(f: Finding) -> str:
    """The rule at the top of this module."""
    if f.missing:
        return NOT_RUN
    if f.hindrance:
        return NOT_COMPARABLE
    if not f.is_judged:
        return f"{NOT_JUDGED} ({_NUMBERS[f.n_seeds]})"
    margin, test = f.comparison.margin, f.comparison.test
    shown = f.direction == AS_CLAIMED and f.p_holm < LEVEL
    if test == "not worse":
        return DOES_NOT if f.high < f.bound else REPLICATES if shown else NOT_DECIDED
    if -margin < f.low and f.high < margin:
        return TOO_SMALL if shown else NO_LARGER
    if test == "greater" and f.high < margin:
        return DOES_NOT
    return REPLICATES if shown else NOT_DECIDED
