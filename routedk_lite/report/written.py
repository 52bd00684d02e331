"""What choosing among written answers is worth: the sentence of the first pages on votes.

Runs whose answers are the consensus of samples keep all samples, so consensus, majority and a single answer come from
one draw of one student.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..answers.decoding import Samples
from ..answers.voting import vote_all
from ..data.metrics import per_session
from ..data.sessions import PUBLIC_DOMAINS
from ..statistics import PairedDifference, paired_difference
from ..study.records import RunRecord, load_attachment, without_seed
from .scores import BASE, sessions_of, strict_scores
from .sentences import ABOVE, BELOW, OPEN, Sentence, between, listed, plain, side, signed


class ChoiceScores(NamedTuple):
    """Consensus and majority of the same answers in one domain, over all seeds."""

    domain: str
    n: int
    """Answers per session."""
    consensus: float
    majority: float
    greedy: float
    """Strict F1."""
    difference: PairedDifference
    """Consensus less majority."""
    records: tuple[RunRecord, ...]


def chosen(records: Iterable[RunRecord]) -> list[ChoiceScores]:
    """The base experts whose samples are recorded, by public domain; of one profile, the one with most records.

    Raises:
        RecordError: predictions or samples are missing or changed, or made from other sessions than those at hand.
        DownloadError: the sessions are neither cached nor to be had.
    """
    known: dict[str, list[RunRecord]] = {}
    for r in records:
        if r.domain in PUBLIC_DOMAINS and without_seed(r.run) == BASE and "samples" in r.attachments:
            known.setdefault(r.profile, []).append(r)
    if not known:
        return []
    runs = known[max(known, key=lambda profile: (len(known[profile]), profile))]
    found = []
    for domain in PUBLIC_DOMAINS:
        if mine := sorted((r for r in runs if r.domain == domain), key=lambda r: r.seed):
            found.append(_scores_of(domain, mine))
    return found


def _scores_of(domain: str, records: Sequence[RunRecord]) -> ChoiceScores:
    values: dict[str, list[np.ndarray]] = {"consensus": [], "majority": [], "greedy": []}
    for record in records:
        test = sessions_of(record)
        samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
        answers = {
            "majority": {id_: vote.bundles for id_, vote in vote_all(samples).items()},
            "greedy": {one.id: one.greedy.bundles for one in samples},
        }
        values["consensus"].append(strict_scores(record)[0])
        for name, bundles in answers.items():
            values[name].append(per_session(bundles, test, "strict").f1.astype(float))
    difference = paired_difference(values["consensus"], values["majority"], generator=np.random.default_rng(0))
    means = {name: float(np.mean(found)) for name, found in values.items()}
    return ChoiceScores(domain, len(samples[0].drawn), **means, difference=difference, records=tuple(records))


def what_choosing_adds(found: Sequence[ChoiceScores]) -> Sentence | None:
    """Consensus against majority; nothing, where no samples are recorded."""
    if not found:
        return None
    student = found[0].records[0].student
    millions = f"{student['parameters'] / 1e6:,.0f} million weights"
    numbers = [
        f"{plain(c.consensus)} against {plain(c.majority)} in {c.domain}, "
        f"{signed(c.difference.estimate)} {between(c.difference.low, c.difference.high, signed)}"
        for c in found
    ]
    greedy = listed([f"{plain(c.greedy)} in {c.domain}" for c in found])
    seeds = {len(c.records) for c in found}
    counted = "One seed: intervals count the sessions only." if seeds == {1} else ""
    figures = (
        f"A student of {millions} writes {found[0].n} answers a session. Consensus and majority of the same answers "
        f"score a strict F1 of {'; '.join(numbers)}. The greedy answer scores {greedy}. {counted}"
    )
    return Sentence(_headline(found), figures.strip())


def _headline(found: Sequence[ChoiceScores]) -> str:
    verbs = {ABOVE: "beats", BELOW: "loses to", OPEN: "is not told apart from"}
    parts: list[str] = []
    for name, verb in verbs.items():
        if domains := [c.domain for c in found if side(c.difference) == name]:
            parts.append(f"{verb} {'it' if parts else 'a majority vote'} in {listed(domains)}")
    return f"Choosing by consensus {listed(parts)}."
