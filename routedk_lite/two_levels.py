"""How sure a mean is when both seeds and sessions are samples, and seeds are few.

Three seeds can be drawn again in ten ways only, so a bootstrap shows too little of what they bring in. Their variance
is estimated instead, beside that of the sessions, and each has the t distribution of what is known about it.
`report.coverage` shows by simulation that the intervals cover.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

AT_LEAST = 0.5
"""Of the variance that seeds show, however much of it the sessions may explain: what three seeds show may be too little
by chance, and then nothing would be left of it. Chosen by simulation, so that tests keep their level."""
_HALVINGS = 40


class Spread(NamedTuple):
    """How far a mean over seeds and sessions may lie from the true one; arrays where many were given at once."""

    estimate: float | np.ndarray
    of_sessions: float | np.ndarray
    """Variance of the mean that the sessions bring in."""
    sessions_freedom: float | np.ndarray
    """Degrees of freedom behind it."""
    of_seeds: float | np.ndarray
    """Variance of the mean that the seeds bring in besides."""
    seeds_freedom: int
    """One less than there are seeds."""

    def reach(self, level: float | np.ndarray) -> np.ndarray:
        """How far from the estimate the true mean lies in a share of `level` of all studies, or less.

        The root of the summed squares of what each part alone would reach by its t distribution (Howe 1974).
        """
        from scipy.stats import t

        half = np.asarray(level) / 2
        of_sessions = np.sqrt(self.of_sessions) * t.isf(half, self.sessions_freedom)
        if not self.seeds_freedom:
            return of_sessions
        return np.hypot(of_sessions, np.sqrt(self.of_seeds) * t.isf(half, self.seeds_freedom))

    def p_value(self) -> np.ndarray:
        """Two-sided, of the estimate's difference from zero: the level at which it is just within reach.

        Without any spread, a difference is as sure as can be.
        """
        size = np.abs(self.estimate)
        low, high = np.full(np.shape(size), -300.0), np.zeros(np.shape(size))  # of the logarithm
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            within = size <= self.reach(10.0**middle)
            low, high = np.where(within, middle, low), np.where(within, high, middle)
        none = (self.of_sessions + self.of_seeds) == 0
        return np.where(none, np.where(size == 0, 1.0, 0.0), 10.0 ** ((low + high) / 2))


def two_level_spread(*groups: ArrayLike) -> Spread:
    """Mean over seeds and sessions when both are samples, or the difference of two groups of sessions.

    As all seeds met the same sessions, a value is a sum of what its seed, its session and both together do (two
    crossed random effects). The variance of the mean is then that of the session means divided by their number, plus
    that of the seed means divided by theirs, less what sessions and chance alone make the seed means differ: the part
    that is left over in an analysis of variance, which the first two both contain. `AT_LEAST` a share of what the
    seeds show is kept.

    Args:
        groups: one, or two of which the second is subtracted; both with the same seeds.

    Shapes:
        groups: (..., seeds, sessions)
        returns: (...)
    """
    estimate, by_seed, left_over, of_sessions, weight = 0.0, 0.0, 0.0, 0.0, 0.0
    for sign, group in zip((1, -1), groups, strict=False):
        values = np.asarray(group, dtype=float)
        n_seeds, n_sessions = values.shape[-2:]
        seed_means, session_means = values.mean(-1), values.mean(-2)
        mean = seed_means.mean(-1)
        estimate, by_seed = estimate + sign * mean, by_seed + sign * seed_means
        if n_sessions > 1:
            part = session_means.var(-1, ddof=1) / n_sessions
            of_sessions, weight = of_sessions + part, weight + part**2 / (n_sessions - 1)
        if n_sessions > 1 and n_seeds > 1:
            rest = values - seed_means[..., None] - session_means[..., None, :] + mean[..., None, None]
            n_rest = (n_seeds - 1) * (n_sessions - 1)
            left_over = left_over + (rest**2).sum((-2, -1)) / (n_rest * n_seeds * n_sessions)
    shown = by_seed.var(-1, ddof=1) / n_seeds if n_seeds > 1 else np.zeros_like(estimate)
    of_sessions, weight = np.asarray(of_sessions + 0 * estimate), np.asarray(weight + 0 * estimate)
    freedom = np.divide(of_sessions**2, weight, out=np.ones(of_sessions.shape), where=weight > 0)  # Satterthwaite 1946
    return Spread(estimate, of_sessions, freedom, np.maximum(shown - left_over, AT_LEAST * shown), n_seeds - 1)
