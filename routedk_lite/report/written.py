"""What choosing among written answers is worth: the sentence of the first pages on votes.

Runs whose answers are the consensus of samples keep all samples, so consensus and majority come from one draw of one
student.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..answers.decoding import Samples
from ..answers.voting import vote_all
from ..data.metrics import per_session
from ..data.sessions import PUBLIC_DOMAINS, Bundle
from ..statistics import PairedDifference, paired_difference
from ..study.records import RunRecord, load_attachment, load_predictions, without_seed
from .numbers import between, listed, plain, signed
from .scores import BASE, sessions_of
from .sentences import ABOVE, BELOW, OPEN, Sentence, side


class ChoiceScores(NamedTuple):
    """Consensus and majority of the same answers in one domain, over all seeds."""

    domain: str
    n: int
    """Answers per session."""
    consensus: float
    majority: float
    """Strict F1."""
    difference: PairedDifference
    """Consensus less majority."""
    exact: PairedDifference
    """The same in exact match."""
    pairs: tuple[float, float, float]
    """Share of bundles of two products among those of consensus, of the majority, and of the annotators."""
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
    values: dict[str, list[np.ndarray]] = {"consensus": [], "majority": []}
    bundles: dict[str, list[Bundle]] = {"consensus": [], "majority": [], "annotated": []}
    for record in records:
        test = sessions_of(record)
        samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
        answers = {
            "consensus": {id_: answer.bundles for id_, answer in load_predictions(record).items()},
            "majority": {id_: vote.bundles for id_, vote in vote_all(samples).items()},
        }
        for name, found in answers.items():
            scores = per_session(found, test, "strict")
            values[name].append(np.stack([scores.f1, scores.exact_match]).astype(float))
        for name in ("consensus", "majority"):
            bundles[name] += [bundle for one in answers[name].values() for bundle in one]
        bundles["annotated"] += [bundle for session in test for bundle in session.bundles]
    f1, exact = (
        paired_difference(*([v[k] for v in values[name]] for name in ("consensus", "majority")), generator=chance)
        for k, chance in ((0, np.random.default_rng(0)), (1, np.random.default_rng(0)))
    )
    means = {name: float(np.mean([v[0] for v in found])) for name, found in values.items()}
    shares = tuple(float(np.mean([len(bundle) == 2 for bundle in found])) for found in bundles.values())
    return ChoiceScores(
        domain, len(samples[0].drawn), **means, difference=f1, exact=exact, pairs=shares, records=tuple(records)
    )


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
    exact = listed([f"{signed(c.exact.estimate)} {between(*c.exact[1:3], signed)} in {c.domain}" for c in found])
    domains = listed([c.domain for c in found])
    pairs = [f"{listed([f'{100 * c.pairs[k]:.0f}' for c in found])} %" for k in range(3)]
    seeds = {len(c.records) for c in found}
    counted = "One seed: intervals cover the choice of sessions only." if seeds == {1} else ""
    figures = (
        f"A student of {millions} writes {found[0].n} answers a session. Consensus and majority of the same answers "
        f"score a strict F1 of {'; '.join(numbers)}. In exact match, consensus minus majority is {exact}. Of the "
        f"bundles by consensus {pairs[0]} are pairs of products, of those by majority {pairs[1]}, of those annotated "
        f"{pairs[2]} ({domains}). {counted}"
    )
    return Sentence(_headline(found), figures.strip())


def _headline(found: Sequence[ChoiceScores]) -> str:
    in_f1 = _told({c.domain: c.difference for c in found}, "a majority vote")
    in_exact = _told({c.domain: c.exact for c in found}, "it")
    smaller = all(c.pairs[0] > max(c.pairs[1:]) and side(c.difference) != BELOW for c in found)
    why = " It answers with smaller bundles, and strict F1 does not mind." if smaller else ""
    return f"In strict F1, choosing by consensus {in_f1}; in exact match it {in_exact}.{why}"


def _told(differences: Mapping[str, PairedDifference], rival: str) -> str:
    """Where consensus lies, domain by domain."""
    verbs = {ABOVE: "beats", BELOW: "loses to", OPEN: "is not told apart from"}
    parts: list[str] = []
    for name, verb in verbs.items():
        if domains := [domain for domain, difference in differences.items() if side(difference) == name]:
            everywhere = len(domains) == len(differences) > 1
            if everywhere and name == OPEN:
                verb = "is nowhere told apart from"
            where = "" if everywhere and name == OPEN else " everywhere" if everywhere else f" in {listed(domains)}"
            parts.append(f"{verb} {'it' if parts else rival}{where}")
    return listed(parts)
