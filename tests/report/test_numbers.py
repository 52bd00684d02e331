"""Numbers as pages spell them."""

from __future__ import annotations

import pytest

from routedk_lite.book.found import Estimate
from routedk_lite.report.numbers import between, bound, plain, signed


def test_signs_are_true_minus_and_zero_has_none():
    assert [signed(v) for v in (-0.0004, 0.0004, -0.25, 0.25)] == ["0.000", "0.000", "−0.250", "+0.250"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0002, "+0.0002"), (-0.00049, "−0.0005"), (0.0005, "+0.001"), (0.00002, "+0.00002"), (0.000099, "+0.0001")],
)
def test_a_bound_beside_zero_shows_on_which_side_it_lies(value, text):
    assert bound(value) == text


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-12, -1e-17])
def test_a_bound_that_is_zero_but_for_rounding_reads_zero(value):
    assert bound(value) == "0.000" and bound(value, plain).lstrip("-") == "0.000"


def test_an_interval_spells_its_bounds_as_its_numbers():
    assert between(0.0002, 0.5) == "[0.0002, 0.500]"
    assert between(-0.0001, 0.5, signed, joint="; ") == "[−0.0001; +0.500]"
    assert f"{Estimate(0.04, 0.0002, 0.081):+.3f}" == "+0.040 [+0.0002, +0.081]"
    assert f"{Estimate(0.04, 0.0002, 0.081):.1%}" == "4.0% [0.0%, 8.1%]"
