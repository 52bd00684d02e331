"""What one comparison of recorded runs has found, and the words for it; `verdicts` says when each holds."""

from __future__ import annotations

from typing import NamedTuple

from ..study.records import RunRecord
from .claims import Comparison

SEEDS = 3
"""Seeds of each trained run that a verdict needs."""
REPLICATES, DOES_NOT, TOO_SMALL = "replicates", "does not replicate", "real, but too small"
NOT_DECIDED, NOT_JUDGED, NOT_COMPARABLE, NOT_RUN = "not decided", "not judged", "cannot be compared", "not run"


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
    """Corrected over the claim's comparisons and domains; NaN where nothing is judged."""
    n_seeds: int | None = None
    """Seeds that both sides have; `None` where nothing is left to chance."""
    detectable: float = float("nan")
    """The smallest true difference that so many sessions would have shown, at a power of 80 %; seeds not counted."""
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
