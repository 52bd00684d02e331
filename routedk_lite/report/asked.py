"""Questions that the paper leaves open and records can speak about: what was asked, what was seen, with which interval.

The fourth, when fixed weights beat the router, has a table of its own (`when`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..data.sessions import PUBLIC_DOMAINS
from ..study.records import RunRecord, without_seed
from .costs import seconds_a_session
from .numbers import between, signed
from .scores import ROUTER
from .sentences import ABOVE, BELOW, OPEN, side
from .tables import UNBROKEN, text_table
from .verdicts import judge_pairs
from .written import ChoiceScores

MORE = "Do more experts help? A fourth one knows which kinds of products go together."
FEWER = "Do fewer experts at a time do as well, and how much time do they save?"
CHOOSING = "What chooses better among sampled answers than a majority?"
PAIRS = {
    "four experts − three": (MORE, "fused-dynamic-k4"),
    "the best expert of each layer − all three": (FEWER, "top-1"),
    "the best two of each layer − all three": (FEWER, "top-2"),
}
"""Comparison → the question, and what is set against the router over three experts."""
CONSENSUS = "consensus − majority"
WORDS = {ABOVE: "higher", BELOW: "lower", OPEN: "not told apart"}


class Seen(NamedTuple):
    """One comparison in one domain."""

    question: str
    compared: str
    domain: str
    estimate: float
    low: float
    high: float
    """Of strict F1, with its 95 % interval."""
    n_seeds: int
    time: float | None = None
    """Seconds a session, as a multiple of the router's."""

    @property
    def words(self) -> str:
        """Where the interval lies."""
        return WORDS[side(self)]


def seen(records: Iterable[RunRecord], profile: str, chosen: Sequence[ChoiceScores]) -> list[Seen]:
    """All that is recorded.

    Args:
        records: all that are known.
        profile: whose.
        chosen: what `written.chosen` found.

    Raises:
        ClaimError, RecordError: see `verdicts.judge_pairs`.
    """
    records = [r for r in records if r.profile == profile]
    pairs = {label: (f"{run}-seed*", f"{ROUTER}-seed*") for label, (_, run) in PAIRS.items()}
    found = []
    for f in judge_pairs(records, profile, pairs):
        if f.is_compared:
            question, run = PAIRS[f.comparison.label]
            numbers = f.estimate, f.low, f.high, f.n_seeds or 1
            time = _time(f.records, run) if question == FEWER else None
            found.append(Seen(question, f.comparison.label, f.domain, *numbers, time))
    for c in chosen:
        d = c.difference
        numbers = d.estimate, d.low, d.high, len(c.records)
        found.append(Seen(CHOOSING, CONSENSUS, c.domain, *numbers))
    return found


def _time(compared: Sequence[RunRecord], run: str) -> float | None:
    """Seconds a session of one run as a multiple of the router's, means over the seeds of each.

    Nothing where a record does not say how long answering alone has taken: what else a stage does differs from run to
    run.
    """
    if any(record.answer_seconds is None for record in compared):
        return None
    one, router = ([seconds_a_session(r) for r in compared if without_seed(r.run) == name] for name in (run, ROUTER))
    return sum(one) / len(one) / (sum(router) / len(router))


def seen_table(found: Sequence[Seen]) -> str:
    """Markdown: every question with what was seen of it, and what was not run."""
    rows = []
    for label, question in ({label: asked for label, (asked, _) in PAIRS.items()} | {CONSENSUS: CHOOSING}).items():
        mine = [s for s in found if s.compared == label]
        if not mine:
            rows.append([question, label, "", "not run", "", "", ""])
        for s in sorted(mine, key=lambda s: PUBLIC_DOMAINS.index(s.domain)):
            numbers = f"{signed(s.estimate)} {between(s.low, s.high, signed)}"
            time = f"{s.time:.2f}{UNBROKEN}×" if s.time else ""
            rows.append([question, label, s.domain, s.words, numbers, time, str(s.n_seeds)])
    titles = ["asked", "compared", "domain", "strict F1 is", "difference [95 %]", "time", "seeds"]
    return text_table(titles, rows, text_columns=4, markdown=True)
