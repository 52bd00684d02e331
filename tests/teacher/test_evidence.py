"""Rules against statistics: shares counted by hand, sessions drawn as a whole, readings that say what they compare."""

from __future__ import annotations

import re

import numpy as np
import pytest

from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import PUBLIC_DOMAINS, Session
from routedk_lite.statistics import Interval
from routedk_lite.teacher.distillation import distill_rules
from routedk_lite.teacher.evidence import VERDICTS, Item, PairEvidence, pair_evidence, session_items
from routedk_lite.teacher.kinds import KindExtractor, fit_kinds
from routedk_lite.teacher.knowledge import load_knowledge
from routedk_lite.teacher.readings import (
    COUNTED,
    Count,
    both_of,
    one_of,
    pair_readings,
    rare_word,
    same_brand,
    same_kind,
    toy_readings,
)
from routedk_lite.teacher.toy import ToyTeacher

WORDS = KindExtractor(vocabulary=frozenset(), names={w: w for w in ("mug", "lamp", "rope", "lens")})


def make_session(*titles: str, bundles=({1, 2},), id_: int = 1) -> Session:
    return Session(id=id_, items=titles, titles=titles, bundles=tuple(map(frozenset, bundles)))


SESSIONS = [
    make_session("red mug", "blue mug", "red lamp"),  # mugs together
    make_session("red mug", "blue mug", "blue rope", bundles=({1, 3},), id_=2),  # apart
    make_session("red lens", "blue rope", id_=3),  # no two of a kind
]


def evidence(favoured=same_kind, others=None, sessions=SESSIONS, **how) -> PairEvidence:
    return pair_evidence(sessions, WORDS, favoured, others, generator=np.random.default_rng(0), **how)


def test_items_are_read_from_their_titles() -> None:
    session = make_session("Red Mug, large", "thing of a sort")
    assert session_items(session, WORDS) == [
        Item("Red Mug, large", "mug", "red"),
        Item("thing of a sort", None, "thing"),
    ]


def test_shares_are_counted_over_all_pairs() -> None:
    found = evidence()
    assert (found.n_favoured, found.n_others, found.n_sessions) == (2, 5, 3)
    assert found.favoured.estimate == 1 / 2  # the mugs of the first session
    assert found.others.estimate == 2 / 5
    assert found.difference.estimate == pytest.approx(1 / 10)
    assert found.verdict == "not decided"


def test_a_rule_may_be_held_against_some_pairs_only() -> None:
    found = evidence(others=lambda a, b: a.kind == "mug" and b.kind == "rope")  # the condition holds in either order
    assert (found.n_favoured, found.n_others) == (2, 2) and found.others.estimate == 1 / 2


def test_within_sessions_every_session_counts_once() -> None:
    crowd = make_session(*["one mug"] * 4, "one lamp", bundles=({1, 2, 3, 4},), id_=4)
    found = evidence(sessions=[*SESSIONS, crowd], within=True)
    assert found.n_sessions == 3  # the third holds no pair of a kind
    assert found.favoured.estimate == pytest.approx((1 + 0 + 1) / 3)
    assert found.others.estimate == pytest.approx((0 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("within", [False, True])
def test_intervals_come_from_drawing_sessions(within: bool) -> None:
    sessions = load_domain("toyshop", "train").sessions[:80]
    extractor = fit_kinds(sessions)
    generator = np.random.default_rng(0)
    found = pair_evidence(sessions, extractor, same_kind, within=within, generator=generator, n_draws=4000)
    rng, means = np.random.default_rng(1), []
    for _ in range(400):
        drawn = [sessions[k] for k in rng.integers(len(sessions), size=len(sessions))]
        again = pair_evidence(drawn, extractor, same_kind, within=within, generator=generator, n_draws=1)
        means.append(again.difference.estimate)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.difference.low == pytest.approx(low, abs=0.04)
    assert found.difference.high == pytest.approx(high, abs=0.04)


def test_the_verdict_is_the_side_of_zero() -> None:
    def verdict(low: float, high: float) -> str:
        other = Interval(0.5, 0.4, 0.6)
        return PairEvidence(other, other, Interval((low + high) / 2, low, high), 1, 1, 1).verdict

    assert (verdict(0.1, 0.2), verdict(-0.2, -0.1), verdict(-0.1, 0.1)) == VERDICTS


@pytest.mark.parametrize("sort", ["favoured", "others"])
def test_a_comparison_needs_pairs_of_both_sorts(sort: str) -> None:
    nothing = {"favoured": (lambda a, b: False, None), "others": (same_kind, lambda a, b: False)}[sort]
    with pytest.raises(ValueError, match=r"in 3 sessions: a comparison needs both"):
        evidence(*nothing)
    with pytest.raises(ValueError, match="0 favoured and 0 other pairs in 1 sessions"):
        evidence(sessions=SESSIONS[2:], within=True)


# --- readings -----------------------------------------------------------------------------------------------------


def item(title: str) -> Item:
    return session_items(make_session(title, title), WORDS)[0]


def test_conditions() -> None:
    mug, lamp, rope = item("red mug"), item("red lamp"), item("blue rope")
    assert same_kind(mug, item("old mug")) and not same_kind(mug, lamp)
    assert not same_kind(item("x y"), item("x z"))  # nothing is known of either
    assert same_brand(mug, lamp) and not same_brand(mug, rope)
    pair, one = both_of(["mug", "lamp"]), one_of(["mug", "lamp"])
    assert pair(mug, lamp) and not pair(mug, item("old mug")) and not pair(mug, rope)
    assert one(mug, rope) and one(rope, mug) and not one(mug, lamp) and not one(rope, item("fine lens"))
    rare = rare_word(
        [make_session("Zuma mug 12", "zuma lamp", "red mug"), make_session("red rope", "red lens")], at_most=2
    )
    assert rare(item("zuma mug"), item("zuma lamp")) and not rare(item("red mug"), item("red rope"))
    assert not rare(item("mug 12"), item("lamp 12"))  # a bare number is no word


@pytest.mark.parametrize("domain", PUBLIC_DOMAINS)
def test_every_public_reading_names_a_rule_and_finds_pairs(mirror, domain: str) -> None:
    train, rules = load_domain(domain, "train"), load_knowledge(domain).rules
    extractor = fit_kinds(train)
    readings = pair_readings(domain, train)
    assert len({r.name for r in readings}) == len(readings) >= 5
    for reading in readings:
        assert reading.rule in rules
        found = pair_evidence(
            train, extractor, reading.favoured, reading.others, generator=np.random.default_rng(0), n_draws=50
        )
        assert found.n_favoured and found.n_others
    first = pair_evidence(train, extractor, readings[0].favoured, generator=np.random.default_rng(0))
    assert readings[0].favoured is same_kind and first.verdict == "supported"


def test_no_reading_of_an_unknown_domain() -> None:
    with pytest.raises(ValueError, match="no readings for domain 'toyshop'"):
        pair_readings("toyshop", [])


def test_the_toy_shops_laws_are_supported_by_its_sessions() -> None:
    train = load_domain("toyshop", "train")
    rules = distill_rules(ToyTeacher(), train, n_rules=20, progress=False).found
    readings = toy_readings(rules)
    assert len(readings) == len(rules) - 1  # all but the one on strays
    extractor = fit_kinds(train)
    for reading in readings:
        chance = {"generator": np.random.default_rng(0), "n_draws": 200}
        found = pair_evidence(train, extractor, reading.favoured, reading.others, **chance)
        assert found.verdict == "supported", reading.name
        if "same kind" not in reading.claim and "last word" not in reading.claim:
            assert found.favoured.estimate == 1, reading.name


# --- counts -------------------------------------------------------------------------------------------------------


def test_what_the_teacher_counted_stands_in_its_reasons() -> None:
    for domain, counts in COUNTED.items():
        rules = load_knowledge(domain).rules
        for count in counts:
            why = rules[count.rule].why.lower().replace("four sessions", "4 sessions")
            told = f"{100 * count.told:.0f} percent" if count.n is None else str(round(count.told * count.n))
            in_words = {0.5: "half of the 20", 0.75: "three quarters"}.get(count.told, told)
            assert re.search(rf"\b{in_words}\b", why), count.name
            low, high = count.claimed[1:]
            assert (low == high == count.told) if count.n is None else (low < count.told < high)


def test_counts_are_shares_over_all_sessions() -> None:
    sessions = [
        make_session("red mug", "blue mug", "red lamp", bundles=({1, 2}, {1, 2})),
        make_session("red mug", "lamp", "rope", "lens", "x", bundles=({1, 2, 3}, {3, 4})),
    ]
    counts = {c.what: c for domain in COUNTED.values() for c in domain}

    def share(what: str) -> float:
        return counts[what].found(sessions, WORDS, generator=np.random.default_rng(0)).estimate

    assert share("bundles of two") == pytest.approx(2 / 3)  # annotated twice, counted once
    assert share("bundles of three") == pytest.approx(1 / 3)
    assert share("sessions with one bundle") == share("sessions with two bundles") == 1 / 2
    assert share("products in no bundle") == pytest.approx(2 / 8)
    assert share("sessions with overlap") == 1 / 2
    assert share("whole, of sessions of 2 to 4") == 0  # the second session has five products
    assert share("bundles of one kind") == pytest.approx(1 / 3)


def test_a_told_share_gets_the_interval_of_its_number() -> None:
    few, many = (Count("R1", "x", 0.5, n, lambda s, e: (0, 1)).claimed for n in (10, 1000))
    assert few.estimate == many.estimate == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
