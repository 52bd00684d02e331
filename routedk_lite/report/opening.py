"""What the replication report opens with: five sentences that are worded by the numbers.

The first counts what became of the claims, and says where those lead that are not judged yet. Three are those of
`sentences`, and the last says what an answer costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.sessions import PUBLIC_DOMAINS
from ..study.records import RunRecord, without_seed
from .costs import Cost
from .findings import (
    AS_CLAIMED,
    DOES_NOT,
    NO_DIRECTION,
    NO_LARGER,
    NOT_DECIDED,
    NOT_JUDGED,
    NOT_RUN,
    OTHER_WAY,
    REPLICATES,
    TOO_SMALL,
)
from .numbers import listed
from .scores import in_words, scored
from .sentences import Sentence, compared, sentences
from .verdicts import DIFFERS, Judgement

_VERBS = {
    REPLICATES: ("replicates", "replicate"),
    TOO_SMALL: ("is real, but too small", "are real, but too small"),
    NO_LARGER: ("shows no difference larger than its margin", "show no difference larger than their margins"),
    DOES_NOT: ("does not replicate", "do not replicate"),
    DIFFERS: ("differs by domain", "differ by domain"),
    NOT_DECIDED: ("is not decided", "are not decided"),
}
"""What one claim does, and what several do."""
_IN_PART = " (not in all domains yet)"


def found_sentences(
    profile: str, judgements: Sequence[Judgement], controls: Iterable[Judgement], records: Iterable[RunRecord]
) -> list[Sentence]:
    """All that can be said.

    Args:
        profile: whose records judge.
        judgements: one per claim.
        controls: what `verdicts.judge_controls` gives.
        records: of that profile.

    Raises:
        RecordError: predictions are missing or changed, or made from other sessions than those at hand.
    """
    public = [record for record in records if record.domain in PUBLIC_DOMAINS]
    said = sentences(scored(public), compared(public, profile), controls)
    return [what_became_of_claims(judgements), *said, *filter(None, [what_it_costs(judgements)])]


def what_became_of_claims(judgements: Sequence[Judgement]) -> Sentence:
    """How many claims have which verdict, and where those that are not judged lead so far."""
    found: dict[tuple[str, str], int] = {}
    for judgement in judgements:
        verdict, _, domains = judgement.verdict.partition(" (")
        if verdict in _VERBS:
            key = verdict, _IN_PART if domains else ""
            found[key] = found.get(key, 0) + 1
    counts = [
        f"{found[v, part]} {verbs[found[v, part] > 1]}{part}"
        for v, verbs in _VERBS.items()
        for part in ("", _IN_PART)
        if (v, part) in found
    ]
    n, n_not_run = len(judgements), sum(judgement.verdict == NOT_RUN for judgement in judgements)
    n_left = n - sum(found.values()) - n_not_run
    for number, what in ((n_left, "not judged yet"), (n_not_run, "not run, or only in part")):
        if number:
            counts.append(f"{number} {'is' if number == 1 else 'are'} {what}")
    if not found:
        return Sentence(f"None of the {n} claims is judged yet.", _so_far(judgements))
    return Sentence(f"Of {n} claims, {listed(counts)}.", _so_far(judgements))


def _so_far(judgements: Iterable[Judgement]) -> str:
    """Titles of claims that lack seeds, by where they lead in the domains in which they do."""
    leading: dict[str, list[str]] = {AS_CLAIMED: [], OTHER_WAY: [], NO_DIRECTION: [], "mixed": []}
    for judgement in judgements:
        waiting = [domain for domain, verdict in judgement.by_domain.items() if verdict.startswith(NOT_JUDGED)]
        if not waiting:
            continue
        found = {judgement.direction(domain) for domain in waiting}
        leading[found.pop() if len(found) == 1 else "mixed"].append(judgement.claim.title)
    parts = [f"*{word}*: {'; '.join(titles)}" for word, titles in leading.items() if titles]
    if parts:
        return f"Direction so far, where seeds are missing: {'. '.join(parts)}."
    everywhere = all(verdict in _VERBS for judgement in judgements for verdict in judgement.by_domain.values())
    return "Each has the seeds that it needs." if everywhere else ""


def what_it_costs(judgements: Iterable[Judgement]) -> Sentence | None:
    """What a thousand sessions cost with the student and with the teacher; nothing, where that was not measured."""
    found = [cost for judgement in judgements for cost in judgement.costs]
    if not found:
        return None
    cheaper = [cost for cost in found if cost.verdict == REPLICATES]
    dearer = [cost for cost in found if cost.verdict == DOES_NOT]
    if len(cheaper) == len(found):
        headline = "Answering with the student is cheaper than asking even the cheapest teacher."
    elif len(dearer) == len(found):
        headline = "Answering with the student costs more than asking even the costliest teacher."
    elif surely := sorted({_run(cost) for cost in cheaper} - {_run(cost) for cost in found if cost not in cheaper}):
        headline = (
            "Whether the student is cheaper depends on what is run: even the cheapest teacher costs more than "
            f"{listed(surely)}."
        )
    else:
        headline = "Whether the student is cheaper depends on which teacher it is compared with."
    named = [in_words(without_seed(cost.record.run), is_trained=True) for cost in found]
    parts = [
        f"{name} in {cost.domain}, {1000 * cost.low:.3f} to {1000 * cost.high:.3f}"
        for name, cost in zip(named, found, strict=True)
    ]
    low, high = (1000 * end([getattr(cost, name) for cost in found]) for end, name in
                 ((min, "teacher_low"), (max, "teacher_high")))  # fmt: skip
    return Sentence(headline, f"Dollars per thousand sessions: {'; '.join(parts)}; a teacher, {low:.3f} to {high:.3f}.")


def _run(cost: Cost) -> str:
    """What was run, and where; all its seeds are one."""
    return f"{cost.pattern.removesuffix('-seed*')} in {cost.domain}"
