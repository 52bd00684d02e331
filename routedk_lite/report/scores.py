"""Recorded runs as the pages show them: in words, in groups, with one score over all seeds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..data.domains import load_domain
from ..data.metrics import per_session
from ..data.sessions import PUBLIC_DOMAINS, Domain
from ..statistics import Interval, bootstrap_interval, two_level_interval
from ..study.records import RecordError, RunRecord, load_predictions, without_seed
from ..study.variants import VARIANTS
from .claims import load_claims

DIGITS = 6
"""As many as records keep, so that both are rounded alike where they are printed."""
FLOOR = "floor-"
CLUSTERING = "cluster-"
DECODER = "decode-minilm"
"""What reads plain similarities of titles as a student's pairs are read."""
BASE, ROUTER, STATIC, TEACHER = "base", "fusion-dynamic", "fusion-static", "teacher"
"""The expert that is told nothing, the complete method before its vote, what it is measured by, whose knowledge."""

WORDS = {
    "floor-whole": "floor: whole session",
    "floor-random": "floor: random bundles",
    "floor-pairs": "floor: two by two",
    "floor-all_pairs": "floor: all pairs",
    "cluster-tfidf": "TF-IDF of titles, clustered",
    "cluster-minilm": "MiniLM of titles, clustered",
    "decode-tfidf": "TF-IDF of titles, our decoder",
    DECODER: "MiniLM of titles, our decoder",
    "patterns": "frequent patterns",
    TEACHER: "teacher",
    "zero-shot": "untrained, writes its answer",
    "zero-shot-pairs": "untrained, pairs read from its states",
    "few-shot": "untrained, solved sessions in the prompt",
    "few-shot-rules": "untrained, solved sessions and rules in the prompt",
    "few-shot-patterns": "untrained, solved sessions and patterns in the prompt",
}
"""Runs that leave nothing to chance."""
TRAINED_WORDS = {
    BASE: "base expert",
    "joint": "one expert of all domains",
    "rules": "rules expert",
    "reasoning": "reasoning expert",
    "both": "one expert told rules and reasoning",
    "base-few-shot": "base expert, solved sessions in the prompt",
    "base-subset": "base expert, a quarter of the sessions",
    "rules-subset": "rules expert, a quarter of the sessions",
    "rules-everywhere": "all rules, at test too, a quarter of the sessions",
    "rules-random": "rules expert, random rules",
    "rules-target": "rules before the answer",
    "rules-distilled": "rules, distilled from a teacher",
    "reasoning-target": "reasoning before the answer",
    "reasoning-masked": "reasoning without item numbers",
    "reasoning-distilled": "reasoning, distilled from a teacher",
    "patterns": "patterns as rules",
    "by_kind": "expert of the habit “by kind”",
    "by_use": "expert of the habit “by use”",
    "fusion-average": "fused: average",
    "fusion-ties": "fused: TIES",
    STATIC: "fused: static weights",
    ROUTER: "fused: router (RouteDK)",
    f"{ROUTER}-k2": "fused: router over two experts",
    "fused-dynamic-k4": "fused: router over four experts",
    "fused-arrow": "fused: Arrow",
    "fused-genknowsub": "fused: GenKnowSub",
    "fused-knots": "fused: KnOTS",
    "fused-dare-ties": "fused: DARE-TIES",
    "fused-cat": "fused: LoRA Soups (CAT)",
    "fused-lora-flow": "fused: LoRA-Flow",
    "fused-lorahub": "fused: LoraHub",
    "fused-furina": "fused: FURINA",
    "fused-xlora": "fused: X-LoRA",
    "fused-hard": "fused: hard router",
    "control-random": "router, random α",
    "control-shuffled": "router, another session's α",
    "control-mean": "router, its mean α",
    "top-1": "router, one expert at a time",
    "top-2": "router, two experts at a time",
    "voting-base": "base expert, vote of written answers",
    "voting-dynamic": "router, vote of written answers",
}
"""Runs that have seeds."""

FUSED = "experts fused"
"""The group of runs in which experts are fused, by the method or as other papers have it."""
GROUPS = {
    "untrained student": ("zero-shot-pairs", "few-shot"),
    "expert told nothing": (BASE, "joint"),
    "told rules": ("rules",),
    "told reasoning": ("reasoning",),
    "told both, or patterns": ("both", "patterns"),
    FUSED: ("fusion", "fused"),
    "fusion disturbed": ("control", "knockout", "top"),
    "writes its answers": ("zero-shot", "voting"),
}
"""Beginnings of the names of runs that ask a student."""


class Score(NamedTuple):
    """One run over all its seeds."""

    profile: str
    domain: str
    run: str
    """Without its seed."""
    records: tuple[RunRecord, ...]
    """One per seed."""
    f1: Interval
    """Strict; of the mean over seeds and sessions. With one seed, the interval counts the sessions only."""
    exact: float
    """Exact match, mean over seeds."""

    @property
    def is_trained(self) -> bool:
        """Whether something was left to chance."""
        return self.records[0].seed is not None

    @property
    def words(self) -> str:
        """The run in words; its name, if there are none."""
        return in_words(self.run, is_trained=self.is_trained)

    @property
    def group(self) -> str:
        """A name of `GROUPS`; empty where no student is asked."""
        if not self.records[0].student:
            return ""
        found = [
            (len(start), name) for name, starts in GROUPS.items() for start in starts if self.run.startswith(start)
        ]
        return max(found)[1] if found else ""


def in_words(run: str, *, is_trained: bool) -> str:
    """A run's name (without seed) in words; the name itself where there are none.

    >>> in_words("reasoning-length-50", is_trained=True)
    'reasoning in the prompt, 50% by length'
    """
    known = TRAINED_WORDS if is_trained else WORDS
    if run in known:
        return known[run]
    if is_trained and run in VARIANTS:
        return VARIANTS[run].about.removeprefix("train an expert on ")
    if run.startswith("knockout-"):
        _, expert, *where = run.split("-")
        return f"router without its {expert} expert" + (f", {where[0]} layers" if where else "")
    return run


def scored(records: Iterable[RunRecord]) -> list[Score]:
    """Scores of recorded runs, from their predictions, sorted by profile, domain and F1.

    Raises:
        RecordError: predictions are missing or changed, or the sessions at hand are not those that were answered.
        DownloadError: the sessions are neither cached nor to be had.
    """
    groups: dict[tuple[str, str, str, bool], list[RunRecord]] = {}
    for record in records:
        key = (record.profile, record.domain, without_seed(record.run), record.seed is None)
        groups.setdefault(key, []).append(record)
    found = []
    for (profile, domain, run, _), group in groups.items():
        group.sort(key=lambda r: -1 if r.seed is None else r.seed)
        by_seed = np.stack([strict_scores(record) for record in group])  # (seeds, 2, sessions)
        f1 = by_seed[:, 0]
        if len(f1) > 1:
            found_f1 = np.clip(two_level_interval(f1), 0, 1)  # it is a share
        else:
            found_f1 = bootstrap_interval(f1[0], generator=np.random.default_rng(0))
        interval = Interval(*(round(float(value), DIGITS) for value in found_f1))
        found.append(Score(profile, domain, run, tuple(group), interval, round(float(by_seed[:, 1].mean()), DIGITS)))
    return sorted(found, key=lambda s: (s.profile, s.domain, s.f1.estimate, s.run))


def strict_scores(record: RunRecord) -> np.ndarray:
    """Strict F1 and exact match: (2, sessions)."""
    test = sessions_of(record)
    predictions = {id_: answer.bundles for id_, answer in load_predictions(record).items()}
    scores = per_session(predictions, test, "strict")
    return np.stack([scores.f1, scores.exact_match]).astype(float)


def sessions_of(record: RunRecord) -> Domain:
    """The sessions that a run answered.

    Raises:
        RecordError: those at hand are others.
        DownloadError: they are neither cached nor to be had.
    """
    test = _sessions(record.domain, record.split)
    if test.sha256 != record.data_sha256:
        raise RecordError(f"{record.path}: made from other data than the {record.domain} sessions at hand")
    return test


@lru_cache(maxsize=8)
def _sessions(domain: str, split: str) -> Domain:
    return load_domain(domain, split)


def main_profile(records: Iterable[RunRecord]) -> str:
    """The profile that the first pages show; empty if there is none.

    It is the one that the claims are judged by, once the base expert, static weights and the router are recorded with
    one seed in a public domain. Before, it is the most complete: first by how many domains and seeds have these three,
    then by how many runs of students there are.
    """
    judged_by = load_claims().profile
    runs: dict[str, set[tuple[str, str, int | None]]] = {}
    for r in records:
        if r.domain in PUBLIC_DOMAINS and r.student:
            runs.setdefault(r.profile, set()).add((r.domain, without_seed(r.run), r.seed))

    def completeness(profile: str) -> tuple[bool, int, int, str]:
        found = runs[profile]
        places = {(domain, seed) for domain, _, seed in found if seed is not None}
        core = sum(all((d, run, seed) in found for run in (BASE, STATIC, ROUTER)) for d, seed in places)
        return core > 0 and profile == judged_by, core, len(found), profile

    return max(runs, key=completeness, default="")
