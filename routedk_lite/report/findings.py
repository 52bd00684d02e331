"""What one comparison of recorded runs has found, and the words for it; `verdicts` says when each holds."""

from __future__ import annotations

from typing import NamedTuple

from ..study.records import RunRecord
from .claims import Comparison

SEEDS = 3
"""Seeds of each trained run that a verdict needs."""
AS_CLAIMED, OTHER_WAY, NO_DIRECTION = "as claimed", "the other way", "no direction"
"""Where a difference leads, by its interval alone."""
REPLICATES, DOES_NOT, TOO_SMALL = "replicates", "does not replicate", "real, but too small"
NO_LARGER = "no difference larger than the margin"
NOT_DECIDED, NOT_JUDGED, NOT_COMPARABLE, NOT_RUN = "not decided", "not judged", "cannot be compared", "not run"


def with_margin(verdict: str, margin: float) -> str:
    """A verdict that speaks of the margin, with its number.

    >>> with_margin(NO_LARGER, 0.02)
    'no difference larger than 0.02'
    """
    return verdict.replace(NO_LARGER, NO_LARGER.replace("the margin", f"{margin:g}"))


class Finding(NamedTuple):
    """One comparison in one domain."""

    comparison: Comparison
    domain: str
    missing: tuple[str, ...]
    """Runs that are not recorded; if there are any, there are no numbers."""
    records: tuple[RunRecord, ...] = ()
    """What the numbers come from."""
    a: float = float("nan")
    b: float = float("nan")
    """Means. Where groups of sessions are compared, those of sessions with many and with few products."""
    estimate: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    """a − b and its 95 % interval."""
    p_value: float = float("nan")
    """Of the difference from what the test asks for, not corrected."""
    p_holm: float = float("nan")
    """Corrected over the claim's deciding comparisons and domains; not corrected where the comparison decides nothing,
    and NaN where nothing is judged."""
    n_seeds: int | None = None
    """Seeds that both sides have; `None` where nothing is left to chance."""
    detectable: float = float("nan")
    """The smallest true difference that so much data would have shown, at a power of 80 %. One seed: a lower bound."""
    hindrance: str = ""
    """Why the runs, which are all recorded, cannot be compared; if there is a reason, there are no numbers."""
    verdict: str = NOT_RUN

    @property
    def is_compared(self) -> bool:
        """Whether there are numbers."""
        return not self.missing and not self.hindrance

    @property
    def is_judged(self) -> bool:
        """Whether there are runs and seeds enough."""
        return self.is_compared and (self.n_seeds is None or self.n_seeds >= SEEDS)

    @property
    def words(self) -> str:
        """The verdict with the margin as a number."""
        return with_margin(self.verdict, self.comparison.margin)

    @property
    def bound(self) -> float:
        """What the difference must lie above: zero, or what may be lost at most."""
        return -self.comparison.margin if self.comparison.test == "not worse" else 0.0

    @property
    def direction(self) -> str:
        """Where the interval leads, whether or not there are seeds enough to judge: one of three words."""
        if self.low > self.bound or (self.comparison.test == "varies" and self.high < 0):
            return AS_CLAIMED
        return OTHER_WAY if self.high < self.bound else NO_DIRECTION
