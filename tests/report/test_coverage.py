"""With three seeds, intervals hold the truth and tests keep their level, whatever share the seeds have."""

from __future__ import annotations

import numpy as np
import pytest

from routedk_lite.report.coverage import SHARES, coverage, coverage_table
from routedk_lite.two_levels import two_level_spread


@pytest.fixture(scope="module")
def found():
    return coverage(generator=np.random.default_rng(5), n_studies=6000)


def test_seeds_that_do_not_matter_cost_little():
    """Where seeds bring in nothing, the interval is hardly wider than that of the sessions, not twice as wide."""
    source = np.random.default_rng(6)
    values = source.normal(0, 0.4, (500, 1, 180)) + source.normal(0, 0.2, (500, 3, 180))
    both, alone = two_level_spread(values), two_level_spread(values.mean(1, keepdims=True))
    wider = both.reach(0.05) / alone.reach(0.05)
    assert 1 <= np.median(wider) < 1.15 and np.quantile(wider, 0.95) < 1.5


def test_intervals_cover_whatever_share_the_seeds_have(found):
    assert [study.share for study in found] == list(SHARES)
    assert all(0.94 <= study.covered <= 0.985 for study in found), found


def test_tests_keep_their_level_alone_and_in_families(found):
    assert all(study.erred <= 0.06 and study.erred_in_family <= 0.06 for study in found), found


def test_an_interval_of_the_sessions_alone_does_not_cover_where_seeds_matter(found):
    alone = [study.covered_alone for study in found]
    assert alone[0] == pytest.approx(0.95, abs=0.015) and alone[-1] < 0.5
    assert alone == sorted(alone, reverse=True)


def test_the_page_shows_one_row_for_each_share():
    table = coverage_table().splitlines()
    assert len(table) == 2 + len(SHARES) and table[2].startswith("| 0 % |") and table[-1].startswith("| 99 % |")
    assert coverage_table().splitlines() == table
