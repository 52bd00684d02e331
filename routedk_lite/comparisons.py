"""Families of paired comparisons: what the sessions show, and what they could have shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .statistics import PairedDifference, holm, paired_difference, smallest_detectable_difference

LEVEL = 0.05


class Comparison(NamedTuple):
    """One comparison of a family."""

    first: str
    second: str
    difference: PairedDifference
    """Of the first less the second."""
    p_adjusted: float
    """Its p value by Holm's rule, the whole family considered."""
    detectable: float
    """`statistics.smallest_detectable_difference` of these sessions."""

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`: interval and adjusted p value must agree, at `LEVEL`."""
        if self.p_adjusted < LEVEL and self.difference.low > 0:
            return "better"
        return "worse" if self.p_adjusted < LEVEL and self.difference.high < 0 else "no difference shown"

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        estimate, low, high, _ = self.difference
        return {
            "comparison": f"{self.first} − {self.second}",
            "difference [95 %]": f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]",
            "p (Holm)": self.p_adjusted,
            "smallest detectable": self.detectable,
            "verdict": self.verdict,
        }


def compare(
    scores: Mapping[str, ArrayLike], pairs: Sequence[tuple[str, str]], *, generator: np.random.Generator
) -> list[Comparison]:
    """Compare methods pairwise on the same sessions, as one family.

    Args:
        scores: name of a method → one number per session, the sessions in the same order.
        pairs: which to compare: first less second.
        generator: where draws come from.

    Shapes:
        scores: (sessions,) each

    Raises:
        ValueError: no pairs, an unknown name, or scores of different sessions.
    """
    if not pairs:
        raise ValueError("pairs is empty: give at least one comparison")
    if unknown := {name for pair in pairs for name in pair} - scores.keys():
        raise ValueError(f"pairs names {sorted(unknown)[0]!r}; scores has {', '.join(scores)}")
    found = [paired_difference(scores[a], scores[b], generator=generator) for a, b in pairs]
    adjusted = holm([difference.p_value for difference in found])
    return [
        Comparison(a, b, difference, float(p), smallest_detectable_difference(np.subtract(scores[a], scores[b])))
        for (a, b), difference, p in zip(pairs, found, adjusted, strict=True)
    ]
