"""A family of comparisons is judged together."""

from __future__ import annotations

import numpy as np
import pytest

from routedk_lite.comparisons import compare
from routedk_lite.statistics import holm, paired_difference, smallest_detectable_difference


@pytest.fixture
def scores():
    """Three methods on two hundred sessions: a is better than b, c is b with noise."""
    chance = np.random.default_rng(0)
    b = chance.random(200)
    return {"a": b + chance.normal(0.1, 0.2, 200), "b": b, "c": b + chance.normal(0, 0.2, 200)}


def rng():
    return np.random.default_rng(0)


def test_each_comparison_is_the_paired_one_with_the_familys_p_value(scores):
    pairs = [("a", "b"), ("b", "c"), ("b", "a")]
    found = compare(scores, pairs, generator=rng())
    generator = rng()
    alone = [paired_difference(scores[x], scores[y], generator=generator) for x, y in pairs]
    assert [c.difference for c in found] == alone
    assert [c.p_adjusted for c in found] == pytest.approx(list(holm([d.p_value for d in alone])))
    assert [c.verdict for c in found] == ["better", "no difference shown", "worse"]
    assert found[0].detectable == pytest.approx(smallest_detectable_difference(scores["a"] - scores["b"]))
    assert found[0].row()["comparison"] == "a − b" and found[0].row()["difference [95 %]"].startswith("+0.")


def test_a_large_family_needs_more_evidence(scores):
    """The same difference is shown alone, and not among many that are none."""
    noise = np.random.default_rng(5).normal(0, 0.2, (9, 200))
    noise -= noise.mean(1, keepdims=True)
    weak = {"b": scores["b"], "x": scores["b"] + noise[0] + 0.035}  # two and a half standard errors
    weak |= {f"n{k}": scores["b"] + noise[k] for k in range(1, 9)}
    (alone,) = compare(weak, [("x", "b")], generator=rng())
    among, *_ = compare(weak, [("x", "b"), *((f"n{k}", "b") for k in range(1, 9))], generator=rng())
    assert alone.verdict == "better" and among.verdict == "no difference shown"
    assert among.p_adjusted > alone.p_adjusted


def test_impossible_families_are_refused(scores):
    with pytest.raises(ValueError, match="pairs is empty"):
        compare(scores, [], generator=rng())
    with pytest.raises(ValueError, match="pairs names 'd'; scores has a, b, c"):
        compare(scores, [("a", "d")], generator=rng())
    with pytest.raises(ValueError, match="a has shape"):
        compare(scores | {"c": scores["c"][:3]}, [("a", "c")], generator=rng())
