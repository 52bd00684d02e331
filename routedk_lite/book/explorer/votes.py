"""What a vote sees: the sampled answers of one session, and whom majority and consensus pick among the first N.

The answers are recorded ones. The page counts them by itself; what consensus picks may be an answer that nobody wrote,
found by a search (`answers.consensus`), and is settled here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...answers.consensus import Consensus
from ...answers.decoding import Samples
from ...data.sessions import Bundle

LOG_STEPS = 100_000
"""Log-probabilities of sampled answers as whole hundred-thousandths, the precision of the records."""
CONSENSUS = Consensus()
"""The way of choosing that the page shows beside the majority."""


def stops(n: int) -> list[int]:
    """The numbers of answers at which the page looks: powers of two, and all.

    >>> stops(32), stops(20)
    ([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 20])
    """
    return [2**k for k in range(n.bit_length()) if 2**k < n] + [n]


def votes_of(
    samples: Samples, winner: Sequence[Bundle], sizes: Sequence[int], number: Callable[[Iterable[Bundle]], int]
) -> dict[str, Any]:
    """One session's votes as they stand in the payload.

    Args:
        samples: its answers.
        winner: whom the recorded vote of all has chosen.
        sizes: numbers of answers for which consensus is computed.
        number: the place of an answer among all of the session's.
    """
    # In the order in which a tied vote prefers them, so that the page can compare their places.
    options = {frozenset(a.bundles) for a in samples.drawn if a.bundles}
    ranked = sorted(options, key=lambda option: sorted(sorted(b) for b in option))
    return {
        "options": [number(option) for option in ranked],
        "drawn": [ranked.index(frozenset(a.bundles)) if a.bundles else -1 for a in samples.drawn],
        "log_prob": [round((a.log_prob or 0.0) * LOG_STEPS) for a in samples.drawn],
        "fallback": number(samples.greedy.bundles),
        "winner": number(winner),
        "consensus": [number(CONSENSUS(samples.drawn[:n], samples.greedy)) for n in sizes],
    }
