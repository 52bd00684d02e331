"""Intervals that cover, tests that hold their level, and small cases worked out by hand."""

from __future__ import annotations

from itertools import product
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from routedk_lite import statistics
from routedk_lite.statistics import (
    bootstrap_interval,
    group_difference,
    holm,
    paired_difference,
    smallest_detectable_difference,
    two_level_interval,
)
from routedk_lite.two_levels import two_level_spread

scores = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- intervals ----------------------------------------------------------------------------------------------


@given(scores)
@settings(max_examples=50)
def test_an_interval_holds_its_mean_and_stays_within_the_values(values):
    interval = bootstrap_interval(values, generator=rng(), n_draws=500)
    assert interval.estimate == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= interval.low <= interval.estimate + 1e-9
    assert interval.estimate - 1e-9 <= interval.high <= max(values) + 1e-9


def test_a_bootstrap_interval_covers_the_true_mean_as_often_as_it_says():
    data = rng(1).normal(0.4, 0.3, size=(300, 40))
    intervals = [bootstrap_interval(row, generator=rng(2), n_draws=500, confidence=0.9) for row in data]
    covered = np.mean([low <= 0.4 <= high for _, low, high in intervals])
    assert 0.84 <= covered <= 0.95


def test_a_bootstrap_interval_of_normal_values_is_as_wide_as_theory_says():
    values = rng(3).normal(size=180)
    _, low, high = bootstrap_interval(values, generator=rng(4))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(180), rel=0.05)


def test_more_confidence_needs_a_wider_interval():
    values = rng(5).random(60)
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        _, low, high = bootstrap_interval(values, generator=rng(), confidence=confidence)
        widths.append(high - low)
    assert widths[0] < widths[1] < widths[2]


def test_the_same_generator_gives_the_same_interval():
    values = rng(6).random(50)
    first = bootstrap_interval(values, generator=rng(7), n_draws=300)
    assert bootstrap_interval(values, generator=rng(7), n_draws=300) == first
    assert bootstrap_interval(values, generator=rng(8), n_draws=300) != first


def test_values_that_do_not_vary_have_an_interval_without_width():
    for values in ([0.3], [0.5] * 20):
        assert bootstrap_interval(values, generator=rng()) == (values[0],) * 3


def test_weights_make_a_weighted_mean_and_leave_out_what_weighs_nothing():
    values, weights = [0.5, np.nan, 1.0, 0.75], [2, 0, 1, 1]
    interval = bootstrap_interval(values, weights=weights, generator=rng(), n_draws=200)
    assert interval.estimate == pytest.approx((0.5 * 2 + 1 + 0.75) / 4)
    assert 0.5 <= interval.low < interval.estimate < interval.high <= 1


# --- two levels ---------------------------------------------------------------------------------------------


def test_two_levels_with_one_seed_are_about_the_plain_bootstrap():
    values = rng(9).random(180)
    assert two_level_interval(values[None]) == pytest.approx(bootstrap_interval(values, generator=rng(11)), abs=0.003)


def test_seeds_that_agree_leave_the_interval_of_the_sessions():
    sessions = rng(13).random(186)
    low, high = two_level_interval(np.stack([sessions] * 3))[1:]
    alone = bootstrap_interval(sessions, generator=rng())
    assert high - low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_seeds_that_are_all_that_differs_leave_the_t_interval_of_their_means():
    means = np.array([0.3, 0.4, 0.6])
    found = two_level_interval(np.repeat(means[:, None], 50, axis=1))
    half = 4.303 * means.std(ddof=1) / np.sqrt(3)
    assert found == pytest.approx((means.mean(), means.mean() - half, means.mean() + half), abs=1e-3)


def test_two_levels_by_hand():
    # Means of seeds .5 and .7, of sessions .2 .6 1; the rest, what both together do, is -.1 0 .1 and .1 0 -.1.
    values = np.array([[0.0, 0.5, 1.0], [0.4, 0.7, 1.0]])
    found = two_level_spread(values)
    assert found.estimate == pytest.approx(0.6) and found.of_sessions == pytest.approx(0.16 / 3)
    assert found.of_seeds == pytest.approx(0.02 / 2 - 0.04 / 2 / 6)
    assert (found.sessions_freedom, found.seeds_freedom) == (2, 1)
    reach = np.sqrt(found.of_sessions * 4.303**2 + found.of_seeds * 12.706**2)
    assert found.reach(0.05) == pytest.approx(reach, rel=1e-3)


def test_half_of_what_seeds_show_is_kept_whatever_sessions_explain():
    values = rng(26).normal(size=(3, 40))
    values -= values.mean(1, keepdims=True) * 0.9  # seeds that agree better than chance would have it
    assert two_level_spread(values).of_seeds == pytest.approx(values.mean(1).var(ddof=1) / 3 / 2)


def test_two_groups_are_those_of_welch_where_seeds_agree():
    first, second = rng(27).normal(size=20), rng(28).normal(0.5, 2, size=30)
    found = two_level_spread(np.stack([first] * 3), np.stack([second] * 3))
    known = ttest_ind(first, second, equal_var=False)
    assert found.p_value() == pytest.approx(known.pvalue) and found.of_seeds == pytest.approx(0, abs=1e-20)
    assert found.sessions_freedom == pytest.approx(known.df)


def test_many_studies_at_once_are_those_of_each_alone():
    studies = rng(24).random((4, 3, 20))
    every = two_level_spread(studies)
    for number, study in enumerate(studies):
        assert [part[number] for part in every[:4]] == pytest.approx(
            [float(part) for part in two_level_spread(study)[:4]]
        )
        assert every.p_value()[number] == pytest.approx(float(two_level_spread(study).p_value()))


def test_two_levels_see_seeds_that_disagree():
    sessions = rng(13).random(100)
    agree, disagree = np.stack([sessions] * 3), sessions + np.array([[-0.3], [0.0], [0.3]])
    _, low, high = two_level_interval(agree)
    _, wide_low, wide_high = two_level_interval(disagree)
    assert wide_high - wide_low > 3 * (high - low)


@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=50)
def test_an_interval_over_seeds_is_finite_and_agrees_with_its_test(n_seeds, n_sessions, seed):
    values = rng(seed).normal(0.3, 0.5, (n_seeds, n_sessions)).round(1)
    found = paired_difference(values, np.zeros_like(values), generator=rng())
    assert found.low <= found.estimate <= found.high and 0 <= found.p_value <= 1
    assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05)
    turned = paired_difference(-values, np.zeros_like(values), generator=rng())
    assert turned == pytest.approx((-found.estimate, -found.high, -found.low, found.p_value))


def test_a_difference_that_never_varies_is_certain():
    assert paired_difference(np.full((3, 5), 0.2), np.zeros((3, 5)), generator=rng()) == pytest.approx(
        (0.2,) * 3 + (0,)
    )


def test_ten_thousand_draws_on_180_sessions_take_less_than_a_second():
    values = rng(14).random((3, 180))
    bootstrap_interval(values[0], generator=rng(), n_draws=10)  # not timed: the first call loads SciPy
    for call in (
        lambda: bootstrap_interval(values[0], generator=rng()),
        lambda: two_level_interval(values),
        lambda: paired_difference(values[0], values[1], generator=rng()),
    ):
        start = perf_counter()
        call()
        assert perf_counter() - start < 1


def test_many_draws_of_many_sessions_are_made_in_small_pieces():
    import tracemalloc

    values = rng(15).random((2, 20_000))
    tracemalloc.start()
    bootstrap_interval(values[0], generator=rng(), n_draws=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6  # at once, the draws would take twice 80 MB for each of several arrays


# --- paired differences -------------------------------------------------------------------------------------


def exact_sign_flip_p(differences):
    totals = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return np.mean([abs(total) >= abs(sum(differences)) - 1e-12 for total in totals])


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=7))
@settings(max_examples=40)
def test_few_sessions_are_tested_exactly(differences):
    result = paired_difference(differences, [0] * len(differences), generator=rng(), n_draws=300)
    assert result.p_value == pytest.approx(exact_sign_flip_p(differences))
    assert result.estimate == pytest.approx(np.mean(differences))


def test_under_the_null_p_values_are_spread_evenly():
    source = rng(16)
    p = [paired_difference(*source.normal(size=(2, 30)), generator=source, n_draws=200).p_value for _ in range(300)]
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.09)
    assert np.mean(np.array(p) <= 0.05) < 0.09


def test_a_plain_difference_is_found_and_its_sign_told():
    b = rng(17).random(100)
    a = b + 0.1 + 0.1 * rng(18).normal(size=100)
    better, worse = paired_difference(a, b, generator=rng()), paired_difference(b, a, generator=rng())
    assert better.low > 0 and better.p_value < 0.001
    assert worse.high < 0 and worse.estimate == pytest.approx(-better.estimate)


def test_the_same_scores_do_not_differ():
    a = rng(19).random((3, 40))
    assert paired_difference(a, a, generator=rng()) == (0, 0, 0, 1)


def test_seeds_that_disagree_widen_a_paired_interval():
    b = rng(20).random((3, 80))
    noise = 0.05 * rng(21).normal(size=(3, 80))
    steady = paired_difference(b + 0.1 + noise, b, generator=rng())
    shaky = paired_difference(b + np.array([[-0.1], [0.1], [0.3]]) + noise, b, generator=rng())
    assert steady.estimate == pytest.approx(shaky.estimate)
    assert steady.low > 0 > shaky.low


# --- families and power -------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert np.all(adjusted >= np.array(p))
    assert np.all(adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
    assert adjusted.min() == pytest.approx(min(1, min(p) * len(p)))


def test_a_difference_of_the_detectable_size_is_found_as_often_as_promised():
    source = rng(22)
    noise = source.normal(0, 0.3, size=(400, 60))
    size = smallest_detectable_difference(noise[0] / noise[0].std(ddof=1) * 0.3)
    standard_error = noise.std(axis=1, ddof=1) / np.sqrt(60)
    found = np.abs(noise.mean(axis=1) + size) / standard_error > 2.001  # t, 59 degrees of freedom, 5 %
    assert found.mean() == pytest.approx(0.8, abs=0.06)


def test_the_detectable_difference_of_two_sessions_by_hand():
    # Standard deviation √2, standard error 1, one degree of freedom: t(.975) + t(.8) = 12.706 + 1.376.
    assert smallest_detectable_difference([0, 2]) == pytest.approx(14.083, abs=0.001)
    assert smallest_detectable_difference([0, 2], power=0.2) == pytest.approx(12.706 - 1.376, abs=0.001)


def test_seeds_that_disagree_hide_larger_differences():
    sessions = rng(25).normal(size=100)
    agree, disagree = np.stack([sessions] * 3), sessions + np.array([[-0.5], [0.0], [0.5]])
    alone = smallest_detectable_difference(sessions)
    assert smallest_detectable_difference(agree) == pytest.approx(alone)
    assert smallest_detectable_difference(disagree) > 2 * alone


def test_more_sessions_and_less_power_let_smaller_differences_be_found():
    differences = rng(23).normal(size=50)
    size = smallest_detectable_difference(differences)
    assert smallest_detectable_difference(np.tile(differences, 4)) == pytest.approx(size / 2, rel=0.05)
    assert smallest_detectable_difference(differences, power=0.5) < size
    assert smallest_detectable_difference(differences, significance=0.01) > size


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([], generator=rng()), r"values has shape \(0,\)"),
        (lambda: bootstrap_interval([[1, 2]], generator=rng()), "values has shape"),
        (
            lambda: bootstrap_interval([1, np.nan], generator=rng()),
            "values holds 1 values that are not finite",
        ),
        (lambda: bootstrap_interval([1, 2], generator=rng(), n_draws=0), "n_draws is 0"),
        (lambda: bootstrap_interval([1, 2], generator=rng(), confidence=95), "confidence is 95"),
        (lambda: bootstrap_interval([1, 2], weights=[1], generator=rng()), "weights has shape"),
        (lambda: bootstrap_interval([1, 2], weights=[0, 0], generator=rng()), "not all zero"),
        (lambda: bootstrap_interval([1, 2], weights=[-1, 2], generator=rng()), "none may be negative"),
        (lambda: two_level_interval([1, 2]), "values_by_seed has shape"),
        (lambda: paired_difference([1, 2], [1, 2, 3], generator=rng()), r"a has shape \(2,\), b \(3,\)"),
        (lambda: holm([0.1, 1.2]), "between 0 and 1"),
        (lambda: holm([]), "p_values has shape"),
        (lambda: smallest_detectable_difference([0.1]), "single session"),
        (lambda: smallest_detectable_difference([0.1, 0.2], power=80), "power is 80"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- two groups of sessions ---------------------------------------------------------------------------------


def test_groups_without_a_difference_are_told_apart_as_often_as_the_level_says():
    first = np.arange(60) < 25
    found = [group_difference(rng(k).normal(size=(3, 60)), first, generator=rng(k), n_draws=300) for k in range(120)]
    assert sum(f.p_value < 0.05 for f in found) <= 13  # 6 expected; 14 or more has a chance of 1 in 400
    assert sum(f.low < 0 < f.high for f in found) >= 102


def test_the_numbers_drawn_at_a_time_are_bounded_and_change_nothing(monkeypatch):
    """Of twenty thousand sessions all draws at once would fill memory."""
    sizes = []

    class Counting(np.random.Generator):
        def multinomial(self, n, p, size):
            sizes.append(size * len(p))
            return super().multinomial(n, p, size)

    values, first = rng(2).normal(size=(1, 60)), np.arange(60) < 20
    whole = group_difference(values, first, generator=rng(1), n_draws=500)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    found = group_difference(values, first, generator=Counting(np.random.PCG64(1)), n_draws=500)
    assert max(sizes) <= 1000 and sum(sizes) == 500 * 60
    assert found == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(statistics, "_CHUNK", 10)  # less than one draw of a group
    assert group_difference(values, first, generator=rng(1), n_draws=500)[:3] == pytest.approx(whole[:3], abs=1e-12)


def test_a_difference_of_groups_is_found_and_lies_in_its_interval():
    first = np.arange(80) % 2 == 0
    values = rng().normal(size=(3, 80)) + 1.5 * first
    found = group_difference(values, first, generator=rng(1))
    assert found.estimate == pytest.approx(values[:, first].mean() - values[:, ~first].mean())
    assert 0 < found.low < found.estimate < found.high and found.p_value < 0.01


def test_groups_of_one_seed_agree_with_welch_and_tell_the_sign():
    first = np.arange(80) < 30
    values = rng(1).normal(size=80) + 0.8 * first
    found = group_difference(values[None], first, generator=rng(2))
    assert found.estimate == pytest.approx(values[first].mean() - values[~first].mean())
    welch = np.sqrt(values[first].var(ddof=1) / 30 + values[~first].var(ddof=1) / 50)
    assert found.high - found.low == pytest.approx(2 * 1.96 * welch, rel=0.1)
    assert 0 < found.low < found.estimate < found.high
    assert found.p_value == pytest.approx(ttest_ind(values[first], values[~first]).pvalue, abs=0.01)
    other = group_difference(values[None], ~first, generator=rng(2))
    assert other.estimate == pytest.approx(-found.estimate) and other.low < other.high < 0


def test_a_difference_between_seeds_widens_the_interval():
    first = np.arange(40) < 20
    shift = np.array([[-1.0], [0.0], [1.0]]) * first
    same, spread = (
        group_difference(rng().normal(0, 0.1, (3, 40)) + s, first, generator=rng(1)) for s in (0 * shift, shift)
    )
    assert spread.high - spread.low > 5 * (same.high - same.low)


@pytest.mark.parametrize("marks", [[True] * 4, [False] * 4, [True, False], [True, False, False, False]])
def test_groups_must_be_two(marks):
    with pytest.raises(ValueError, match="in_first has shape .*: a group of fewer than two has no spread"):
        group_difference(np.ones((1, 4)), marks, generator=rng())
