"""Recorded runs set against each other: one comparison in one domain, in numbers. `verdicts` says what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import TypeVar

import numpy as np

from ..answers.decoding import Samples
from ..answers.voting import resampled_scores
from ..data.domains import load_domain
from ..data.metrics import per_session
from ..data.sessions import Bundle, Domain
from ..statistics import group_difference, paired_difference, smallest_detectable_difference
from ..study.records import RunRecord, load_attachment, load_predictions, without_seed
from .claims import Claim, ClaimError, Comparison
from .findings import Finding

T = TypeVar("T")

DRAWS = 10_000
"""Resamples and permutations behind every number that a verdict rests on."""


def compare(claim: Claim, comparison: Comparison, domain: str, shelf: Shelf, n_draws: int) -> Finding:
    """One comparison in one domain, not yet judged.

    Args:
        claim: whose comparison it is.
        comparison: a − b.
        domain: where.
        shelf: the records.
        n_draws: resamples and permutations; they always draw the same.

    Raises:
        ClaimError: records do not fit together.
        RecordError: predictions or attachments are missing or changed.
    """
    kept_in = {run: shelf.votes_of(domain, run) if comparison.voters else run for run in comparison.runs}
    runs = {run: shelf.by_seed(domain, run) for run in kept_in.values()}
    if missing := tuple(run for run, found in runs.items() if not found):
        return Finding(comparison, domain, missing)
    if comparison.test == "varies":
        return _varying(comparison, domain, shelf, n_draws)
    n_a, n_b = comparison.voters or (None, None)
    a = shelf.scores(domain, kept_in[comparison.a], comparison.metric, n_a)
    others = [shelf.scores(domain, kept_in[run], comparison.metric, n_b) for run in comparison.b]
    seeds = _common([a, *others])
    every = ", ".join(runs)
    if not seeds:
        return Finding(comparison, domain, (), hindrance=f"no seed is recorded for all of {every}")
    kinds = {seed: kinds_of_machine(_at(run, seed) for run in runs.values()) for seed in seeds}
    seeds = [seed for seed in seeds if len(kinds[seed]) < 2]
    if not seeds:
        ran = " and ".join(next(iter(kinds.values())))
        return Finding(comparison, domain, (), hindrance=f"of one seed, {every} were run in {ran}: repeat one kind")
    first = np.stack([_at(a, seed) for seed in seeds])
    second = np.mean([[_at(b, seed) for seed in seeds] for b in others], axis=0)
    counted = np.isfinite(first).all(0) & np.isfinite(second).all(0)  # `official` leaves unreadable answers out
    if counted.sum() < 2:
        found = "no session has" if not counted.any() else "a single session has"
        return Finding(comparison, domain, (), hindrance=f"{found} an answer that can be read in all of {every}")
    first, second = first[:, counted], second[:, counted]
    bound = -comparison.margin if comparison.test == "not worse" else 0.0
    found = paired_difference(first - bound, second, generator=np.random.default_rng(0), n_draws=n_draws)
    used = [record for run in runs.values() for seed, record in run.items() if seed is None or seed in seeds]
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
        detectable=smallest_detectable_difference(first - second),
    )


def _varying(comparison: Comparison, domain: str, shelf: Shelf, n_draws: int) -> Finding:
    """An expert's weight in sessions with more products than the median, against the others."""
    runs = shelf.by_seed(domain, comparison.a)
    weights = np.stack([_weight(record, comparison.expert, shelf.test(domain)) for record in runs.values()])
    lengths = np.array([len(session) for session in shelf.test(domain)])
    many = lengths > np.median(lengths)
    if many.sum() < 2:
        few = "no session has" if not many.any() else "a single session has"
        return Finding(comparison, domain, (), hindrance=f"{few} more products than the median")
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


def kinds_of_machine(records: Iterable[RunRecord]) -> list[str]:
    """What students computed in, and on what. Their difference would hold that of the machines, too."""
    kinds = []
    for record in records:
        if student := record.student:
            where = record.hardware.get("gpu") or student["device"].partition(":")[0].upper()
            kinds.append(f"{student['dtype']} on {where}")
    return list(dict.fromkeys(kinds))


def _at(side: Mapping[int | None, T], seed: int | None) -> T:
    return side[None] if None in side else side[seed]


class Shelf:
    """The records of one profile, their scores computed once."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = records
        self._tests: dict[str, Domain] = {}
        self._scores: dict[tuple, np.ndarray] = {}

    def test(self, domain: str) -> Domain:
        """Its test sessions."""
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

    def votes_of(self, domain: str, pattern: str) -> str:
        """The runs that keep the written answers of these: they themselves, or the votes of a student that is read."""
        written = all("samples" in record.attachments for record in self.by_seed(domain, pattern).values())
        return pattern if written else pattern.replace("fusion-", "voting-", 1)

    def answers(self, record: RunRecord) -> Mapping[int, Sequence[Bundle]]:
        """Session id → bundles of a run."""
        return {id_: answer.bundles for id_, answer in load_predictions(record).items()}

    def scores(self, domain: str, pattern: str, metric: str, voters: int | None) -> dict[int | None, np.ndarray]:
        """Seed → the metric of every test session."""
        return {seed: self._of(record, metric, voters) for seed, record in self.by_seed(domain, pattern).items()}

    def _of(self, record: RunRecord, metric: str, voters: int | None) -> np.ndarray:
        key = (record.path, metric, voters)
        if key not in self._scores:
            protocol, name = metric.split()
            test = self.test(record.domain)
            if voters is None:
                self._scores[key] = getattr(per_session(self.answers(record), test, protocol), name).astype(float)
            else:
                samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
                if voters > (drawn := min(len(one.drawn) for one in samples)):
                    raise ClaimError(f"{record.path}: voters = {voters}: only {drawn} answers a session were drawn")
                chance = np.random.default_rng(0)
                self._scores[key], _ = resampled_scores(samples, test, voters, generator=chance, metric=name)
        return self._scores[key]
