"""Whether intervals over few seeds hold what they say: studies are made up whose truth is known, and judged alike.

Each study has seeds that met the same sessions, as a comparison of this package has: most sessions show no difference,
some a large one, and every training adds something of its own. The true difference is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..statistics import holm
from ..two_levels import two_level_spread
from .tables import text_table

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.99)
"""Of the variance of a mean difference: what the seeds bring in, one kind of study each; below 1."""
N_SEEDS, N_SESSIONS = 3, 180
"""Trainings and test sessions of a study, about as the public domains have."""
FAMILY = 5
"""Comparisons of a claim."""
LEVEL = 0.05
"""Of tests, and what intervals leave out."""
MOVED = 0.4
"""Of all sessions: those in which two runs differ."""
SESSIONS, PAIRS = 0.4, 0.45
"""Standard deviations of what a session does whatever the seed, and of what both do together. What is left over in an
analysis of variance is then three tenths of what sessions show, about as in recorded studies of three seeds."""


class Coverage(NamedTuple):
    """What came out over many studies of one kind."""

    share: float
    """The seeds' share of the variance."""
    covered: float
    """How often the 95 % interval held the truth."""
    covered_alone: float
    """The same for an interval that counts the sessions only."""
    erred: float
    """How often a test at 5 % found a difference that does not exist."""
    erred_in_family: float
    """How often any of `FAMILY` tests did, corrected by Holm's rule."""


def coverage(
    *,
    generator: np.random.Generator,
    n_studies: int,
) -> list[Coverage]:
    """Make up studies, and count how often intervals and tests of `statistics` are right.

    Args:
        generator: where the studies come from.
        n_studies: of each kind; a multiple of `FAMILY`.
    """
    return [_of_kind(share, generator, n_studies) for share in SHARES]


def _of_kind(share: float, generator: np.random.Generator, n_studies: int) -> Coverage:
    shape, alike = (n_studies, N_SEEDS, N_SESSIONS), (n_studies, 1, N_SESSIONS)
    sessions = (generator.random(alike) < MOVED) * generator.normal(0, SESSIONS, alike)
    both = (generator.random(shape) < MOVED) * generator.normal(0, PAIRS, shape)
    of_sessions = MOVED * (SESSIONS**2 + PAIRS**2 / N_SEEDS) / N_SESSIONS  # variance of a mean difference without seeds
    of_seeds = N_SEEDS * of_sessions * share / (1 - share)
    values = sessions + both + generator.normal(0, np.sqrt(of_seeds), (n_studies, N_SEEDS, 1))
    spread = two_level_spread(values)
    size, alone = np.abs(spread.estimate), two_level_spread(values.mean(1, keepdims=True))
    p = spread.p_value()
    families = [holm(family).min() < LEVEL for family in p.reshape(-1, FAMILY)]
    return Coverage(
        share,
        covered=float(np.mean(size <= spread.reach(LEVEL))),
        covered_alone=float(np.mean(size <= alone.reach(LEVEL))),
        erred=float(np.mean(p < LEVEL)),
        erred_in_family=float(np.mean(families)),
    )


def coverage_table() -> str:
    """What comes out with as many seeds and sessions as the public domains have, in Markdown."""
    rows = [
        [
            f"{found.share:.0%}".replace("%", " %"),
            *(f"{100 * value:.1f} %" for value in found[1:]),
        ]
        for found in coverage(generator=np.random.default_rng(0), n_studies=2000)
    ]
    header = [
        "share of the variance due to seeds",
        "our interval covers the truth",
        "a sessions-only interval covers it",
        "false positives of one test",
        f"any false positive in {FAMILY} corrected tests",
    ]
    return text_table(header, rows, text_columns=0, markdown=True)
