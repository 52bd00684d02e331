"""Whether what the claims compare depends on how an answer is chosen among samples.

The study takes the consensus of a student's samples, the paper their majority. Runs that keep their samples can be
asked again: every comparison of a claim in strict F1 or exact match is made with the consensus, the majority and the
greedy answer of the same draw. What is no student's has one answer, and keeps it. Descriptive: no verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..answers.decoding import Samples
from ..answers.voting import vote_all
from ..data.sessions import Bundle
from ..study.records import RunRecord, load_attachment
from .claims import Claims
from .comparing import DRAWS, Shelf, compare
from .findings import OTHER_WAY, Finding
from .numbers import between, signed
from .scores import ROUTER
from .sentences import OPEN, Sentence, side
from .tables import UNBROKEN, text_table

CONSENSUS, MAJORITY, GREEDY = "consensus", "majority", "greedy"
METRICS = ("strict f1", "strict exact_match")
N_DRAWS = {CONSENSUS: DRAWS, MAJORITY: 2000, GREEDY: 2000}
"""Resamples behind each interval. Those of the consensus are the verdicts' own, so that both show the same."""


class Choosing(Shelf):
    """Records of one profile, their samples chosen from in one way."""

    def __init__(self, records: Sequence[RunRecord], choice: str) -> None:
        super().__init__(records)
        self.choice = choice
        self._chosen: dict[Path, Mapping[int, Sequence[Bundle]]] = {}

    def answers(self, record: RunRecord) -> Mapping[int, Sequence[Bundle]]:
        """Session id → bundles: those chosen among the samples of a run, or its only ones."""
        if record.path not in self._chosen:  # asked once for each metric
            self._chosen[record.path] = self._choose(record)
        return self._chosen[record.path]

    def _choose(self, record: RunRecord) -> Mapping[int, Sequence[Bundle]]:
        if self.choice == CONSENSUS or "samples" not in record.attachments:
            return super().answers(record)
        samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
        if self.choice == GREEDY:
            return {one.id: one.greedy.bundles for one in samples}
        return {id_: vote.bundles for id_, vote in vote_all(samples).items()}


class ByChoice(NamedTuple):
    """One comparison in one domain, by every choice."""

    metric: str
    findings: Mapping[str, Finding]
    """Choice → what is found."""

    @property
    def consensus(self) -> Finding:
        """As the verdicts take it."""
        return self.findings[CONSENSUS]

    @property
    def majority(self) -> Finding:
        """As the paper takes it."""
        return self.findings[MAJORITY]


def by_choice(claims: Claims, records: Iterable[RunRecord]) -> list[ByChoice]:
    """All comparisons of single answers by every choice; empty where no run keeps its samples.

    Args:
        claims: what is compared.
        records: all that are known.

    Raises:
        ClaimError, RecordError: see `verdicts.judge`.
    """
    own = [record for record in records if record.profile == claims.profile]
    if not any("samples" in record.attachments and record.run.startswith(ROUTER) for record in own):
        return []
    shelves = {choice: Choosing(own, choice) for choice in (CONSENSUS, MAJORITY, GREEDY)}
    asked = [(c, claim) for claim in claims for c in claim.comparisons if c.metric == METRICS[0] and not c.voters]
    found = []
    for metric in METRICS:
        for comparison, claim in asked:
            one = replace(comparison, metric=metric)
            for domain in claim.domains:
                made = {name: compare(claim, one, domain, shelf, N_DRAWS[name]) for name, shelf in shelves.items()}
                if made[CONSENSUS].is_compared and _is_sampled(made[CONSENSUS]):
                    found.append(ByChoice(metric, made))
    return found


def _is_sampled(finding: Finding) -> bool:
    return any("samples" in record.attachments for record in finding.records)


def choosing_table(found: Iterable[ByChoice], metric: str) -> str:
    """Markdown: a row per comparison and domain, a column per choice."""
    rows = []
    for one in found:
        if one.metric == metric:
            cells = [_cell(one.findings[choice]) for choice in (CONSENSUS, MAJORITY, GREEDY)]
            label = one.consensus.comparison.label.replace(" = ", f"{UNBROKEN}={UNBROKEN}")
            rows.append([f"{label}, {one.consensus.domain}", *cells])
    titles = ["a − b", "by consensus", "by majority, as the paper", "greedy"]
    return text_table(titles, rows, markdown=True)


def _cell(finding: Finding) -> str:
    """The difference with its interval; bold where that does not hold zero."""
    numbers = f"{signed(finding.estimate)} {between(finding.low, finding.high, signed, joint=f',{UNBROKEN}')}"
    return numbers if side(finding) == OPEN else f"**{numbers}**"


def what_choosing_changes(found: Sequence[ByChoice]) -> Sentence | None:
    """Which comparisons in strict F1 lead elsewhere by majority; nothing, where no samples are recorded."""
    mine = [one for one in found if one.metric == METRICS[0]]
    if not mine:
        return None
    other = [one for one in mine if one.majority.direction != one.consensus.direction]
    turned = [one for one in other if one.majority.direction == OTHER_WAY]
    if not other:
        return Sentence(
            "How an answer is chosen changes no direction.",
            f"All {len(mine)} comparisons in strict F1 lead the same way by consensus and by the paper's majority.",
        )
    parts = [
        f"*{one.consensus.comparison.label}* in {one.consensus.domain}, {signed(one.consensus.estimate)} by consensus, "
        f"{signed(one.majority.estimate)} {between(one.majority.low, one.majority.high, signed)} by majority"
        for one in turned
    ]
    against = f" These lead against the claim then: {'; '.join(parts)}." if turned else ""
    return Sentence(
        "Directions depend on how an answer is chosen.",
        f"With the paper's majority in place of consensus, {len(other)} of {len(mine)} comparisons in strict F1 change "
        f"direction, lose theirs or gain one.{against}",
    )
