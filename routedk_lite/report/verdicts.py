"""What the records say about the papers' claims, by a rule that was fixed before the runs.

One comparison in one domain is *judged* when three seeds of each trained run are recorded. Its difference is paired by
session and seed, its interval is that of the two-level bootstrap (seeds, then sessions), and its p value is corrected
by Holm's rule over all deciding comparisons of the claim in all its domains, whether they have been run or not.

====================  =========================================================================================
verdict               when
====================  =========================================================================================
replicates            the interval lies on the claimed side, and the corrected p value is below .05
real, but too small   the same, and yet the whole interval is smaller than what the claim's margin counts
does not replicate    the interval holds nothing that the margin would count, and shows no such small difference
not decided           none of the three
not judged            fewer than three seeds; the smallest difference that could have been found stands beside
cannot be compared    the runs have no seed, or no two sessions, in common
not run               a run is missing
====================  =========================================================================================

The margin of `not worse` is what may be lost: a claim with a loss that is real but smaller still replicates. Where a
claim needs all of its comparisons, the lowest of their verdicts is the claim's, where it needs any of them, the
highest: `does not replicate`, `real, but too small`, `not decided`, `replicates`, from the lowest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property

import numpy as np

from ..answers.decoding import Samples
from ..answers.voting import resampled_scores
from ..data.domains import load_domain
from ..data.metrics import per_session
from ..data.sessions import Domain
from ..statistics import group_difference, holm, paired_difference, smallest_detectable_difference
from ..study.records import RunRecord, load_attachment, load_predictions, without_seed
from .claims import Claim, ClaimError, Claims, Comparison
from .findings import (
    DOES_NOT,
    NOT_COMPARABLE,
    NOT_DECIDED,
    NOT_JUDGED,
    NOT_RUN,
    REPLICATES,
    TOO_SMALL,
    Finding,
)

LEVEL = 0.05
"""Of the corrected p value; intervals are 95 % ones."""
DIFFERS = "differs by domain"
_RANKS = (DOES_NOT, TOO_SMALL, NOT_DECIDED, REPLICATES)
"""Of what is judged, from the lowest."""
_NUMBERS = {1: "one seed", 2: "two seeds"}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the records say about one claim."""

    claim: Claim
    findings: tuple[Finding, ...]
    """Every comparison in every domain."""

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
            return next((v for v in found if v != NOT_RUN), NOT_RUN)
        whole = DIFFERS if len(set(judged) - {NOT_DECIDED}) > 1 else NOT_DECIDED
        whole = judged[0] if len(set(judged)) == 1 else whole
        return whole if len(judged) == len(found) else f"{whole} ({len(judged)} of {len(found)} domains)"

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All that it rests on, each once."""
        found = {r.path: r for finding in self.findings for r in finding.records}
        return tuple(found[path] for path in sorted(found))

    def _in(self, domain: str) -> str:
        deciding = [f for f in self.findings if f.domain == domain and f.comparison.decides]
        if not deciding or any(f.missing for f in deciding):
            return NOT_RUN
        if any(f.hindrance for f in deciding):
            return NOT_COMPARABLE
        if waiting := [f for f in deciding if not f.is_judged]:
            return min(waiting, key=lambda f: f.n_seeds).verdict
        choose = max if self.claim.needs == "any" else min
        return choose((f.verdict for f in deciding), key=_RANKS.index)


def judge(
    claims: Claims, records: Iterable[RunRecord], *, profile: str | None = None, n_draws: int = 10_000
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
    shelf = _Shelf([r for r in records if r.profile == profile])
    return [_judged(claim, shelf, n_draws) for claim in claims]


def judge_controls(claims: Claims, records: Iterable[RunRecord], *, n_draws: int = 10_000) -> list[Judgement]:
    """Judge the controls by the records of their own profile, and by the same rule as the claims."""
    return judge(replace(claims, claims=claims.controls), records, profile=claims.control_profile, n_draws=n_draws)


def _judged(claim: Claim, shelf: _Shelf, n_draws: int) -> Judgement:
    found = [_compared(claim, c, domain, shelf, n_draws) for domain in claim.domains for c in claim.comparisons]
    if not found:
        return Judgement(claim=claim, findings=())
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
    bound = -margin if test == "not worse" else 0.0
    if test == "varies":
        refuted, shown = -margin < f.low and f.high < margin, f.low > 0 or f.high < 0
    else:
        refuted, shown = f.high < (bound if test == "not worse" else margin), f.low > bound
    shown = shown and f.p_holm < LEVEL
    if refuted:
        return TOO_SMALL if shown else DOES_NOT
    return REPLICATES if shown else NOT_DECIDED


def _compared(claim: Claim, comparison: Comparison, domain: str, shelf: _Shelf, n_draws: int) -> Finding:
    missing = tuple(run for run in dict.fromkeys(comparison.runs) if not shelf.by_seed(domain, run))
    if missing:
        return Finding(comparison, domain, missing)
    if comparison.test == "varies":
        return _varying(comparison, domain, shelf, n_draws)
    n_a, n_b = comparison.voters or (None, None)
    a = shelf.scores(domain, comparison.a, comparison.metric, n_a)
    others = [shelf.scores(domain, run, comparison.metric, n_b) for run in comparison.b]
    seeds = _common([a, *others])
    every = ", ".join(dict.fromkeys(comparison.runs))
    if not seeds:
        return Finding(comparison, domain, (), hindrance=f"no seed is recorded for all of {every}")
    first = np.stack([_at(a, seed) for seed in seeds])
    second = np.mean([[_at(b, seed) for seed in seeds] for b in others], axis=0)
    counted = np.isfinite(first).all(0) & np.isfinite(second).all(0)  # `official` leaves unreadable answers out
    if counted.sum() < 2:
        found = "no session has" if not counted.any() else "a single session has"
        return Finding(comparison, domain, (), hindrance=f"{found} an answer that can be read in all of {every}")
    first, second = first[:, counted], second[:, counted]
    bound = -comparison.margin if comparison.test == "not worse" else 0.0
    found = paired_difference(first - bound, second, generator=np.random.default_rng(0), n_draws=n_draws)
    used = [
        record
        for run in dict.fromkeys(comparison.runs)
        for seed, record in shelf.by_seed(domain, run).items()
        if seed is None or seed in seeds
    ]
    if len(students := {r.student["sha256"] for r in used if r.student}) > 1:
        raise ClaimError(f"claim {claim.id!r}, {comparison.label!r}, {domain}: the runs have {len(students)} students")
    return Finding(
        comparison,
        domain,
        (),
        tuple(used),
        a=float(first.mean()),
        b=float(second.mean()),
        estimate=found.estimate + bound,
        low=found.low + bound,
        high=found.high + bound,
        p_value=found.p_value,
        n_seeds=None if seeds == [None] else len(seeds),
        detectable=smallest_detectable_difference((first - second).mean(0)),
    )


def _varying(comparison: Comparison, domain: str, shelf: _Shelf, n_draws: int) -> Finding:
    """An expert's weight in sessions with more products than the median, against the others."""
    runs = shelf.by_seed(domain, comparison.a)
    weights = np.stack([_weight(record, comparison.expert, shelf.test(domain)) for record in runs.values()])
    lengths = np.array([len(session) for session in shelf.test(domain)])
    many = lengths > np.median(lengths)
    if not many.any():
        return Finding(comparison, domain, (), hindrance="no session has more products than the median")
    found = group_difference(weights, many, generator=np.random.default_rng(0), n_draws=n_draws)
    return Finding(
        comparison,
        domain,
        (),
        tuple(runs.values()),
        a=float(weights[:, many].mean()),
        b=float(weights[:, ~many].mean()),
        **found._asdict(),
        n_seeds=len(runs),
    )


def _weight(record: RunRecord, expert: str, test: Domain) -> np.ndarray:
    """Mean over layers of one expert's α, for every test session."""
    names = [without_seed(name) for name in record.analysis["experts"]]
    if expert not in names:
        raise ClaimError(f"{record.path}: expert = {expert!r}: the run has {', '.join(names)}")
    rows = {row["id"]: row["alpha"] for row in load_attachment(record, "alpha")}
    return np.array([rows[session.id] for session in test])[:, :, names.index(expert)].mean(1)


def _common(sides: Sequence[Mapping[int | None, np.ndarray]]) -> list[int | None]:
    """Seeds that all sides have; a side without seeds has them all."""
    seeded = [set(side) for side in sides if None not in side]
    return sorted(set.intersection(*seeded)) if seeded else [None]


def _at(side: Mapping[int | None, np.ndarray], seed: int | None) -> np.ndarray:
    return side[None] if None in side else side[seed]


class _Shelf:
    """The records of one profile, their scores computed once."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = records
        self._tests: dict[str, Domain] = {}
        self._scores: dict[tuple, np.ndarray] = {}

    def test(self, domain: str) -> Domain:
        if domain not in self._tests:
            self._tests[domain] = load_domain(domain, "test")
        return self._tests[domain]

    def by_seed(self, domain: str, pattern: str) -> dict[int | None, RunRecord]:
        """The runs that a pattern fits, by seed; `None` for one that leaves nothing to chance."""
        found: dict[int | None, RunRecord] = {}
        for record in self.records:
            if record.domain != domain or not fnmatch(record.run, pattern):
                continue
            if record.seed in found or (found and None in (record.seed, *found)):
                other = next(iter(found.values()))
                raise ClaimError(f"run = {pattern!r} in {domain}: fits both {other.run} and {record.run}")
            if record.data_sha256 != self.test(domain).sha256:
                raise ClaimError(f"{record.path}: made from other data than the {domain} sessions at hand")
            if any(r.config != record.config for r in found.values()):
                raise ClaimError(f"{record.path}: its settings differ from those of the other seeds of {pattern!r}")
            found[record.seed] = record
        return found

    def scores(self, domain: str, pattern: str, metric: str, voters: int | None) -> dict[int | None, np.ndarray]:
        """Seed → the metric of every test session."""
        return {seed: self._of(record, metric, voters) for seed, record in self.by_seed(domain, pattern).items()}

    def _of(self, record: RunRecord, metric: str, voters: int | None) -> np.ndarray:
        key = (record.path, metric, voters)
        if key not in self._scores:
            protocol, name = metric.split()
            test = self.test(record.domain)
            if voters is None:
                predictions = {id_: answer.bundles for id_, answer in load_predictions(record).items()}
                self._scores[key] = getattr(per_session(predictions, test, protocol), name).astype(float)
            else:
                samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
                chance = np.random.default_rng(0)
                self._scores[key], _ = resampled_scores(samples, test, voters, generator=chance, metric=name)
        return self._scores[key]
