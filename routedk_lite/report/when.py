"""When do fixed weights beat the router? The paper's fourth open question, asked of the records.

Per session, the router's strict F1 less that of static weights, averaged over the seeds that both have. It is set
against what may decide on it: the number of products, how evenly the router weighs its experts, and whether the
teacher, whose knowledge the experts learned, errs on this very session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..data.sessions import PUBLIC_DOMAINS, Domain
from ..statistics import SMALLEST_GROUP, GroupDifference, group_difference, holm
from ..study.records import RunRecord, load_attachment, without_seed
from .comparing import kinds_of_machine
from .findings import SEEDS
from .numbers import between, plain, signed
from .scores import ROUTER, STATIC, TEACHER, sessions_of, strict_scores
from .tables import text_table

MORE, EVEN, ERRS = "there are more products than the median", "α is more even than the median", "the teacher errs"
LEVEL = 0.05
"""Of the corrected p value."""


class Contrast(NamedTuple):
    """The router's gain over static weights in two groups of sessions."""

    domain: str
    what: str
    """What holds in the first group, and not in the second."""
    counts: tuple[int, int]
    """Sessions in each."""
    gains: tuple[float, float]
    """Mean gain in each, in strict F1."""
    difference: GroupDifference
    p_holm: float
    """Corrected over all contrasts."""
    n_seeds: int


def contrasts(records: Iterable[RunRecord], profile: str, *, n_draws: int = 10_000) -> list[Contrast]:
    """Every contrast that the records of one profile allow; those with a group of very few sessions are left out.

    A seed whose two runs come from different kinds of machine does not count.

    Args:
        records: all that are known.
        profile: whose.
        n_draws: resamples and permutations; they always draw the same.

    Raises:
        RecordError: predictions or attachments are missing or changed, or made from other sessions than those at hand.
        DownloadError: the test sessions are neither cached nor to be had.
    """
    records = [r for r in records if r.profile == profile]
    found = []
    for domain in PUBLIC_DOMAINS:
        runs = {run: _by_seed(records, domain, run) for run in (ROUTER, STATIC)}
        both = runs[ROUTER].keys() & runs[STATIC].keys()
        seeds = sorted(s for s in both if len(kinds_of_machine(side[s] for side in runs.values())) < 2)
        if not seeds:
            continue
        test = sessions_of(runs[ROUTER][seeds[0]])
        gains = np.stack(
            [strict_scores(runs[ROUTER][seed])[0] - strict_scores(runs[STATIC][seed])[0] for seed in seeds]
        )
        evenness = np.mean([_evenness(runs[ROUTER][seed], test) for seed in seeds], axis=0)
        lengths = np.array([len(session) for session in test])
        groups = {MORE: lengths > np.median(lengths), EVEN: evenness > np.median(evenness)}
        if teacher := _by_seed(records, domain, TEACHER):
            groups[ERRS] = strict_scores(next(iter(teacher.values())))[0] < 1
        for what, first in groups.items():
            if min(first.sum(), (~first).sum()) < SMALLEST_GROUP:
                continue
            difference = group_difference(gains, first, generator=np.random.default_rng(0), n_draws=n_draws)
            counts = int(first.sum()), int((~first).sum())
            means = float(gains[:, first].mean()), float(gains[:, ~first].mean())
            found.append(Contrast(domain, what, counts, means, difference, float("nan"), len(seeds)))
    if not found:
        return []
    corrected = holm([c.difference.p_value for c in found])
    return [c._replace(p_holm=float(p)) for c, p in zip(found, corrected, strict=True)]


def contrasts_in_words(found: Sequence[Contrast]) -> str:
    """What the contrasts say, and their table, in Markdown."""
    if not found:
        return "The router and static weights are not both recorded yet."
    sure = [c for c in found if c.p_holm < LEVEL]
    if not sure:
        least = min(c.p_holm for c in found)
        said = f"None of {len(found)} contrasts is told apart from chance (smallest corrected p: {least:.2f})."
    else:
        parts = [
            f"in {c.domain}, router − static is {'higher' if c.difference.estimate > 0 else 'lower'} where {c.what}"
            for c in sure
        ]
        what = "told apart from chance" + ", so far" * (min(c.n_seeds for c in sure) < SEEDS)
        said = f"{len(sure)} of {len(found)} contrasts {'is' if len(sure) == 1 else 'are'} {what}: {'; '.join(parts)}."
    return f"{said}\n\n{contrast_table(found)}"


def contrast_table(found: Sequence[Contrast]) -> str:
    """Markdown: one contrast per row."""
    rows = [
        [
            c.domain,
            c.what,
            f"{c.counts[0]} / {c.counts[1]}",
            " / ".join(map(signed, c.gains)),
            f"{signed(c.difference.estimate)} {between(c.difference.low, c.difference.high, signed)}",
            plain(c.p_holm),
            str(c.n_seeds),
        ]
        for c in found
    ]
    titles = ["domain", "sessions in which", "yes / no", "router − static", "difference", "p (Holm)", "seeds"]
    return text_table(titles, rows, text_columns=2, markdown=True)


def _by_seed(records: Iterable[RunRecord], domain: str, run: str) -> dict[int | None, RunRecord]:
    return {r.seed: r for r in records if r.domain == domain and without_seed(r.run) == run}


def _evenness(record: RunRecord, test: Domain) -> np.ndarray:
    """Entropy of α of every session in nats, mean over layers."""
    rows = {row["id"]: np.asarray(row["alpha"]) for row in load_attachment(record, "alpha")}  # (L, E) each
    alpha = np.stack([rows[session.id] for session in test]).clip(1e-12, 1)
    return -(alpha * np.log(alpha)).sum(-1).mean(-1)
