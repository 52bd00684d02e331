"""How sure a number is: intervals, paired comparisons, correction for many tests.

The sessions of a test set are a sample, and so are the seeds of a study; both move every average. Sessions are many:
they are drawn again, by a NumPy generator that the caller passes in. Seeds are few, and drawing three again would show
too little: with several seeds, intervals and tests rest on the variances of both and on a t distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .two_levels import Spread, two_level_spread

_CHUNK = 2_000_000
"""Numbers that may be drawn at a time (16 MB), whatever the number of draws."""

SMALLEST_GROUP = 5
"""Sessions that a group should have: the spread of fewer says nothing, and their interval comes out far too short."""


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    estimate: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Mean of a − b over the same sessions, its interval and its two-sided p value."""

    estimate: float
    low: float
    high: float
    p_value: float


class GroupDifference(NamedTuple):
    """Mean of the first group less that of the second, its interval and its two-sided p value."""

    estimate: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    values: ArrayLike,
    *,
    generator: np.random.Generator,
    weights: ArrayLike | None = None,
    n_draws: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap interval of a mean over sessions, by percentiles.

    Args:
        values: one number per session.
        generator: where the draws come from.
        weights: makes it a weighted mean, as coverage is one over hits. Sessions of weight zero are left out,
            whatever their value.
        n_draws: resamples.
        confidence: the share of such intervals that should hold the true mean.

    Shapes:
        values, weights: (sessions,)

    Raises:
        ValueError: a value is not finite, a weight is negative, or a shape or setting makes no sense.
    """
    from scipy.stats import bootstrap

    _check_settings(n_draws, confidence)
    sample, weight = _weighted(values, weights)
    estimate = float(sample @ weight / weight.sum())
    if np.ptp(sample) == 0:
        return Interval(estimate, estimate, estimate)
    result = bootstrap(
        (sample, weight),
        lambda v, w, axis: (v * w).sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=n_draws,
        batch=max(1, _CHUNK // len(sample)),
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    )
    return Interval(estimate, float(result.confidence_interval.low), float(result.confidence_interval.high))


def two_level_interval(values_by_seed: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Interval of a mean over seeds and sessions, when both are samples; see `two_levels`.

    Shapes:
        values_by_seed: (seeds, sessions)

    Raises:
        ValueError: a value is not finite, or a shape or setting makes no sense.
    """
    _check_settings(1, confidence)
    return _interval(two_level_spread(_finite("values_by_seed", values_by_seed, dims=(2,))), confidence)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    generator: np.random.Generator,
    n_draws: int = 10_000,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two methods on the same sessions: mean of a − b, its interval, and a test of whether it is zero.

    From one seed, the interval is a bootstrap over sessions, and the test flips the signs of the differences: it asks
    whether the sessions could have come out so by chance, this seed given. With no more than `n_draws` sign patterns in
    all, it is exact. From several seeds, interval and p value are those of a t test that counts the chance in both,
    sessions and seeds (`two_levels`): the interval leaves out zero where p is below one less the confidence.

    Args:
        a, b: the same sessions in the same order; with a seed axis, also the same seeds.
        generator: where the draws come from.
        n_draws: resamples, and sign patterns.
        confidence: of the interval.

    Shapes:
        a, b: (sessions,) or (seeds, sessions)

    Raises:
        ValueError: the shapes differ, a value is not finite, or a setting makes no sense.
    """
    _check_settings(n_draws, confidence)
    first, second = _finite("a", a, dims=(1, 2)), _finite("b", b, dims=(1, 2))
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape}, b {second.shape}; give the same sessions and seeds in both")
    by_seed = np.atleast_2d(first - second)
    if len(by_seed) > 1:
        spread = two_level_spread(by_seed)
        return PairedDifference(*_interval(spread, confidence), float(spread.p_value()))
    interval = bootstrap_interval(by_seed[0], generator=generator, n_draws=n_draws, confidence=confidence)
    return PairedDifference(*interval, _sign_flip_p(by_seed[0], n_draws, generator))


def group_difference(
    values_by_seed: ArrayLike,
    in_first: ArrayLike,
    *,
    generator: np.random.Generator,
    n_draws: int = 10_000,
    confidence: float = 0.95,
) -> GroupDifference:
    """Compare two groups of sessions: difference of their means, its interval, and a test of whether it is zero.

    From one seed, the interval is a bootstrap over sessions within each group, and the test asks whether the groups
    could be any split of the sessions of that size. From several seeds, both are those of a t test, see `two_levels`.

    Args:
        values_by_seed: one number per seed and session.
        in_first: whether a session belongs to the first group.
        generator: where draws and permutations come from.
        n_draws: resamples, and permutations.
        confidence: of the interval.

    Shapes:
        values_by_seed: (seeds, sessions)
        in_first: (sessions,)

    Raises:
        ValueError: a group has fewer than two sessions, a value is not finite, or a shape or setting makes no sense.
    """
    from scipy.stats import permutation_test

    _check_settings(n_draws, confidence)
    values, first = _finite("values_by_seed", values_by_seed, dims=(2,)), np.asarray(in_first, dtype=bool)
    if first.shape != values.shape[1:] or min(first.sum(), (~first).sum()) < 2:
        raise ValueError(
            f"in_first has shape {first.shape} and marks {first.sum()} of {values.shape[1]} sessions: a group of fewer "
            "than two has no spread"
        )
    groups = values[:, first], values[:, ~first]
    if len(values) > 1:
        spread = two_level_spread(*groups)
        return GroupDifference(*_interval(spread, confidence), float(spread.p_value()))
    means = [_resampled_means(group, n_draws, generator) for (group,) in groups]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    result = permutation_test(
        [group[0] for group in groups],
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        vectorized=True,
        n_resamples=n_draws,
        batch=max(1, _CHUNK // values.shape[1]),
        rng=generator,
    )
    estimate = float(groups[0].mean() - groups[1].mean())
    return GroupDifference(estimate, float(low), float(high), float(result.pvalue))


def _resampled_means(values: np.ndarray, n_draws: int, generator: np.random.Generator) -> np.ndarray:
    """Means of so many bootstrap samples, `_CHUNK` numbers drawn at a time.

    Shapes:
        values: (n,) → (n_draws,)
    """
    n = len(values)
    step = max(1, _CHUNK // n)
    sizes = [min(step, n_draws - start) for start in range(0, n_draws, step)]
    return np.concatenate([generator.multinomial(n, np.full(n, 1 / n), size=size) @ values / n for size in sizes])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust a family's p values by Holm's step-down rule, which bounds the chance of any false claim.

    Returns:
        Adjusted p values in the order given: claim those below the level.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _finite("p_values", p_values, dims=(1,))
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values is {p.tolist()}; every p value lies between 0 and 1")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def smallest_detectable_difference(differences: ArrayLike, *, power: float = 0.8, significance: float = 0.05) -> float:
    """The true mean difference that a two-sided t test on as much data would find with this power.

    From a single seed, the chance between seeds cannot be known and comes on top: a verdict that rests on one seed
    quotes this number as a lower bound.

    Args:
        differences: a − b per session; their spread and number decide.
        power: the chance of finding a difference of that size.
        significance: the level of the test.

    Shapes:
        differences: (sessions,) or (seeds, sessions)

    Raises:
        ValueError: fewer than two sessions, a value that is not finite, or a share outside 0 to 1.
    """
    values = np.atleast_2d(_finite("differences", differences, dims=(1, 2)))
    if values.shape[1] < 2:
        raise ValueError("differences holds a single session; its spread needs two or more")
    for name, share in (("power", power), ("significance", significance)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}; choose a share between 0 and 1")
    spread = two_level_spread(values)
    beyond = spread.reach(2 * min(power, 1 - power)) * (1 if power >= 0.5 else -1)
    return float(spread.reach(significance) + beyond)


def _interval(spread: Spread, confidence: float) -> Interval:
    estimate, reach = float(spread.estimate), float(spread.reach(1 - confidence))
    return Interval(estimate, estimate - reach, estimate + reach)


def _sign_flip_p(differences: np.ndarray, n_draws: int, generator: np.random.Generator) -> float:
    """Two-sided p of the mean under random signs; sessions without a difference play no part in it."""
    from scipy.stats import permutation_test

    moved = differences[differences != 0]
    if len(moved) < 2:
        return 1.0  # a single difference is as large under either sign
    result = permutation_test(
        (moved,),
        lambda x, axis: x.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_draws,
        batch=max(1, _CHUNK // len(moved)),
        rng=generator,
    )
    return float(result.pvalue)


def _finite(name: str, values: ArrayLike, *, dims: tuple[int, ...]) -> np.ndarray:
    """A filled, finite float array of an allowed number of dimensions."""
    array = np.asarray(values, dtype=float)
    if array.ndim not in dims or not array.size:
        allowed = " or ".join(str(d) for d in dims)
        raise ValueError(f"{name} has shape {array.shape}; give a filled array of {allowed} dimensions")
    n_wrong = np.count_nonzero(~np.isfinite(array))
    if n_wrong:
        raise ValueError(
            f"{name} holds {n_wrong} values that are not finite; leave those sessions out, or score them "
            "under the strict protocol, which counts every session"
        )
    return array


def _weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and their weights, less the places of weight zero."""
    sample = np.asarray(values, dtype=float)
    if weights is None:
        return _finite("values", sample, dims=(1,)), np.ones(sample.shape)
    weight = _finite("weights", weights, dims=(1,))
    if weight.shape != sample.shape:
        raise ValueError(f"weights has shape {weight.shape}, values {sample.shape}; give one weight per value")
    if weight.min() < 0 or not weight.any():
        raise ValueError(f"weights lie in {weight.min()}..{weight.max()}; none may be negative, and not all zero")
    used = weight > 0
    return _finite("values", sample[used], dims=(1,)), weight[used]


def _check_settings(n_draws: int, confidence: float) -> None:
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}; choose 1 or more (10 000 is usual)")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; choose a share between 0 and 1, such as 0.95")
