"""Kinds of products read from titles, and the patterns of kinds that stand in bundles."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.config import KnowledgeConfig, PromptConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.sessions import PUBLIC_DOMAINS, Session
from routedk_lite.student.examples import encode_example
from routedk_lite.teacher.kinds import KindExtractor, fit_kinds
from routedk_lite.teacher.knowledge import item_references
from routedk_lite.teacher.patterns import (
    Pattern,
    mine_patterns,
    pattern_knowledge,
    pattern_predictions,
    patterns_text,
)


def make_session(*titles: str, bundles=((1, 2),), id_: int = 1) -> Session:
    items = tuple(f"p{n}" for n in range(len(titles)))
    return Session(id=id_, items=items, titles=titles, bundles=tuple(map(frozenset, bundles)))


def shop() -> list[Session]:
    """Titles as shops write them: a brand, what it is, what it is for."""
    brands = ["Acme", "Zonk", "Bel"]
    things = [
        "phone case",
        "screen protector",
        "wall charger",
        "car charger",
        "usb cable",
        "power cable",
        "rugged case",
        "tea cups",
    ]
    titles = [f"{b} {c} {t}" for b in brands for c in ("slim", "fine", "new", "plain") for t in things]
    titles += [f"{b} K{n} phone, {n} GB" for b in brands for n in (3, 4, 5)]
    return [make_session(*titles[i : i + 4], id_=i) for i in range(0, len(titles) - 3, 4)]


# --- kinds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Acme Leather Case for Zonk K3 phone", "case"),  # what it is for comes after
        ("Zonk travel CHARGER - Black, 2 Pack", "charger"),
        ("Set of 3 Cables", "cable"),
        ("Bel anti-glare protector", "screen protector"),  # a head that always has the same modifier
        ("16 oz. Porcelain Cup", "tea cups"),
        ("Acme K7 phone, 64 GB", "phone"),
        ("Acme, something fine: a cable", "cable"),  # the first phrase names nothing
        ("Acme", None),  # a brand
        ("something else", None),
    ],
)
def test_the_kind_of_a_title(title, kind):
    assert fit_kinds(shop()).kind(title) == kind


def test_kinds_come_from_training_titles_alone_in_any_order():
    sessions, extractor = shop(), fit_kinds(shop())
    assert "Acme" not in {*extractor.names} and "black" not in {*extractor.names}
    mixed = random.Random(0).sample(sessions, len(sessions))
    assert fit_kinds(mixed) == extractor
    assert fit_kinds([replace(s, bundles=(frozenset({3, 4}),)) for s in sessions]) == extractor


def test_coverage_is_the_share_with_a_kind():
    extractor = fit_kinds(shop())
    assert extractor.coverage(["usb cable", "nothing known", "case", "phone"]) == 0.75
    with pytest.raises(ValueError, match="titles is empty"):
        extractor.coverage([])
    with pytest.raises(ValueError, match="train is empty"):
        fit_kinds([])


@pytest.mark.parametrize(
    ("domain", "train", "held_out", "kinds"),
    [
        ("electronic", 0.906, 0.889, {"screen protector", "power supply", "solid state drive", "cable", "tripod"}),
        ("clothing", 0.908, 0.880, {"dress", "flip flop", "stud earring", "t-shirt", "watch"}),
        ("food", 0.852, 0.815, {"tea", "sea salt", "cookie", "almond", "cereal"}),
    ],
)
def test_kinds_cover_most_titles_of_the_public_domains(mirror, domain, train, held_out, kinds):
    sessions = load_domain(domain, "train")
    extractor = fit_kinds(sessions)
    assert extractor.coverage(title for s in sessions for title in s.titles) == pytest.approx(train, abs=0.001)
    validation = load_domain(domain, "validation")
    assert extractor.coverage(title for s in validation for title in s.titles) == pytest.approx(held_out, abs=0.001)
    assert kinds <= set(extractor.names.values())


@pytest.mark.parametrize("domain", PUBLIC_DOMAINS)
def test_having_a_kind_does_not_give_away_who_is_in_a_bundle(mirror, domain):
    sessions = load_domain(domain, "train")
    extractor = fit_kinds(sessions)
    titles = {True: [], False: []}
    for session in sessions:
        inside = frozenset().union(*session.bundles)
        for number, title in enumerate(session.titles, start=1):
            titles[number in inside].append(title)
    # The published categories: 1 inside a bundle, 0 outside.
    assert abs(extractor.coverage(titles[True]) - extractor.coverage(titles[False])) < 0.05


# --- patterns -----------------------------------------------------------------------------------------------------

LETTERS = KindExtractor(vocabulary=frozenset(), names={w: w for w in ("case", "cable", "phone", "tea")})
titles = st.lists(st.sampled_from(["case", "cable", "phone", "tea", "unknown thing"]), min_size=2, max_size=6)


@st.composite
def letter_sessions(draw):
    found = []
    for id_ in range(draw(st.integers(1, 8))):
        names = draw(titles)
        numbers = st.frozensets(st.integers(1, len(names)), min_size=1)
        found.append(make_session(*names, bundles=draw(st.lists(numbers, min_size=1, max_size=3)), id_=id_))
    return found


def by_brute_force(sessions: list[Session], min_support: int, max_size: int) -> set[tuple]:
    """Every multiset of kinds, counted bundle by bundle."""

    def multisets(kinds: list[str | None]) -> set[tuple[str, ...]]:
        known = sorted(k for k in kinds if k)
        return {c for size in range(2, max_size + 1) for c in combinations(known, size)}

    support, together, shown = Counter(), Counter(), Counter()
    for session in sessions:
        kinds = LETTERS.kinds(session)
        in_bundles = [multisets([kinds[n - 1] for n in bundle]) for bundle in set(session.bundles)]
        support.update(one for found in in_bundles for one in found)
        together.update(set().union(*in_bundles))
        shown.update(multisets(kinds))
    return {(k, n, together[k] / shown[k]) for k, n in support.items() if n >= min_support}


@given(letter_sessions(), st.integers(1, 3), st.integers(2, 4))
def test_patterns_are_all_frequent_multisets_of_kinds(sessions, min_support, max_size):
    found = mine_patterns(sessions, LETTERS, min_support=min_support, max_size=max_size)
    assert {tuple(pattern) for pattern in found} == by_brute_force(sessions, min_support, max_size)
    assert len(found) == len(set(found))
    assert [p.support for p in found] == sorted((p.support for p in found), reverse=True)


@pytest.mark.parametrize("n", [3, 7, 49, 93, 949])
def test_a_pattern_with_just_enough_support_is_kept_whatever_the_number_of_bundles(n):
    sessions = [make_session("case", "tea" if k < 3 else "phone", id_=k) for k in range(n)]
    kinds = {p.kinds for p in mine_patterns(sessions, LETTERS, min_support=3)}
    assert ("case", "tea") in kinds
    assert ("case", "tea") not in {p.kinds for p in mine_patterns(sessions, LETTERS, min_support=4)}


def test_what_a_pattern_says():
    assert Pattern(("case", "phone"), 12, 0.5).text == "case and phone are bought together (support 12 bundles)"
    assert Pattern(("tea", "tea"), 1, 1.0).text == "two tea items are bought together (support 1 bundle)"
    three = Pattern(("case", "tea", "tea", "tea", "usb cable"), 4, 0.5)
    assert three.claim == "case, three tea items and usb cable are bought together"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_support": 0}, "min_support = 0: .*choose 1 or more"),
        ({"max_size": 1}, "max_size = 1: choose 2 to 10"),
        ({"max_size": 11}, "max_size = 11"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mine_patterns([make_session("case", "tea")], LETTERS, **settings)


def test_where_no_kind_is_known_there_is_no_pattern():
    assert mine_patterns([make_session("unknown", "thing")], LETTERS, min_support=1) == []
    assert mine_patterns([], LETTERS) == []


PATTERNS = [Pattern(("tea", "tea"), 9, 1.0), Pattern(("case", "phone"), 5, 0.5), Pattern(("cable", "phone"), 3, 0.5)]


def test_the_text_of_a_session_names_what_applies_and_reads_titles_only():
    session = make_session("phone", "black tea", "case", "cable")
    expected = "case and phone are bought together\ncable and phone are bought together"
    assert patterns_text(session, PATTERNS, LETTERS) == expected
    assert patterns_text(replace(session, bundles=()), PATTERNS, LETTERS) == expected
    assert patterns_text(session, PATTERNS, LETTERS, most=1) == expected.splitlines()[0]
    assert patterns_text(make_session("tea", "kettle"), PATTERNS, LETTERS) == ""
    with pytest.raises(ValueError, match="most = 0"):
        patterns_text(session, PATTERNS, LETTERS, most=0)


@pytest.mark.parametrize("domain", (*PUBLIC_DOMAINS, "toyshop"))
def test_every_split_has_its_patterns_and_no_claim_seems_to_name_an_item(domain, request):
    if domain != "toyshop":
        request.getfixturevalue("mirror")
    train = load_domain(domain, "train")
    extractor = fit_kinds(train)
    patterns = mine_patterns(train, extractor)
    assert not [p for p in patterns if list(item_references(p.claim, 15))]  # a permuted session would rewrite it
    for split in ("train", "validation", "test"):
        told = [bool(patterns_text(s, patterns, extractor)) for s in load_domain(domain, split)]
        assert sum(told) > 0.5 * len(told)


def test_patterns_are_told_as_rules(tiny_student):
    sessions = [make_session("phone", "case", "tea", "tea", bundles=[(1, 2), (3, 4)], id_=7)]
    knowledge = pattern_knowledge("food", sessions, PATTERNS, LETTERS)
    assert knowledge.text(sessions[0], "rules") == patterns_text(sessions[0], PATTERNS, LETTERS)
    assert knowledge.text(sessions[0], "reasoning") == ""
    assert knowledge.reasoning[7].rules == ("P1", "P2")
    assert knowledge.rules["P2"].why == "case and phone are bought together (support 5 bundles)"
    told = KnowledgeConfig(kind="rules")
    example = encode_example(
        sessions[0], tiny_student.tokenizer, PromptConfig(), max_length=2000, knowledge=knowledge, told=told,
        order=[3, 1, 0, 2],
    )  # fmt: skip
    assert knowledge.text(sessions[0], "rules") in tiny_student.tokenizer.decode(example.input_ids)


# --- the baseline -------------------------------------------------------------------------------------------------


def test_the_most_frequent_pattern_takes_its_products_first():
    def titled(*names, bundles, id_):
        return make_session(*(f"Acme fine {name}" for name in names), bundles=bundles, id_=id_)

    train = [titled("phone", "case", "cable", bundles=[(1, 2)], id_=k) for k in range(4)]
    train += [titled("cable", "phone", "lamp", bundles=[(1, 2)], id_=k) for k in range(10, 13)]
    train += [titled("lamp", "lamp", bundles=[(1, 2)], id_=20)]
    train[0] = replace(train[0], titles=tuple(t.replace("Acme", "Zonk") for t in train[0].titles))
    asked = [
        titled("cable", "case", "phone", "lamp", "phone", "lamp", "lamp", bundles=[(1, 2)], id_=1),
        titled("lamp", "cable", bundles=[(1, 2)], id_=2),
    ]
    found = pattern_predictions(variants(train), asked)
    assert found == {1: [{2, 3}, {1, 5}, {4, 6}], 2: []}
    assert pattern_predictions(variants(train), asked, min_support=4 * len(BRANDS)) == {1: [{2, 3}], 2: []}


BRANDS = ("Acme", "Zonk", "Bel", "Orb")


def variants(sessions: list[Session]) -> list[Session]:
    """The same sessions by several makers, so that kinds have enough titles."""
    return [
        replace(s, id=1000 * k + s.id, titles=tuple(f"{brand} {t.split(' ', 1)[1]}" for t in s.titles))
        for k, brand in enumerate(BRANDS)
        for s in sessions
    ]


@pytest.mark.parametrize(
    ("domain", "patterns", "f1", "exact"),
    [("electronic", 345, 0.456, 0.067), ("clothing", 194, 0.574, 0.200), ("food", 156, 0.462, 0.100)],
)
def test_patterns_on_the_public_validation_sessions(mirror, domain, patterns, f1, exact):
    train, validation = (load_domain(domain, split) for split in ("train", "validation"))
    assert len(mine_patterns(train, fit_kinds(train))) == patterns
    found = evaluate(pattern_predictions(train, validation), validation, protocol="strict")
    assert found.f1 == pytest.approx(f1, abs=0.0015)
    assert found.exact_match == pytest.approx(exact, abs=0.0015)
