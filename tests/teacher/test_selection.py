"""How much a student is told: nested shares of the sessions, accumulated domains and formats."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.analysis.diagnostics import answer_nats
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import PUBLIC_DOMAINS, Domain, Session
from routedk_lite.teacher.knowledge import Knowledge, Reasoning, Rule, check_knowledge, load_knowledge
from routedk_lite.teacher.selection import STRATEGIES, accumulate_domains, accumulate_formats, difficulty_of, select


def make_sessions(lengths: list[int]) -> tuple[Session, ...]:
    words = ("tea", "cup", "drill", "nail", "shoe", "sock", "lamp")
    return tuple(
        Session(
            id=id_,
            items=tuple(f"p{k}" for k in range(n)),
            titles=tuple(f"{words[(id_ + k) % 7]} {words[(id_ * k) % 7]}" for k in range(n)),
            bundles=(frozenset({1, 2}),),
        )
        for id_, n in enumerate(lengths)
    )


lengths = st.lists(st.integers(2, 6), max_size=15)
shares = st.floats(0, 1)


@given(lengths, shares, shares, st.sampled_from(STRATEGIES), st.integers(0, 5))
def test_a_larger_share_contains_a_smaller_one(lengths, one, other, strategy, seed):
    sessions = make_sessions(lengths)
    difficulty = {s.id: len(s) % 3 for s in sessions}
    small, large = (
        select(sessions, share, strategy, seed=seed, difficulty=difficulty) for share in sorted((one, other))
    )
    assert {s.id for s in small} <= {s.id for s in large}
    assert len(large) == math.floor(max(one, other) * len(sessions) + 0.5)
    assert [s.id for s in large] == sorted(s.id for s in large)  # in their old order
    assert large == select(sessions, max(one, other), strategy, seed=seed, difficulty=difficulty)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_and_everything(strategy):
    sessions = make_sessions([2, 3, 4, 5])
    difficulty = {s.id: 0.0 for s in sessions}
    assert select(sessions, 0, strategy, difficulty=difficulty) == ()
    assert select(sessions, 1, strategy, difficulty=difficulty) == sessions
    assert select([], 0.5, strategy) == ()
    assert select(sessions[:1], 1.0, strategy, difficulty=difficulty) == sessions[:1]


def test_the_longest_and_the_hardest_come_first():
    sessions = make_sessions([2, 5, 3, 6, 4])
    assert [s.id for s in select(sessions, 0.4, "length")] == [1, 3]
    difficulty = {0: 0.5, 1: 0.1, 2: 9.0, 3: -1.0, 4: 2.0}
    assert [s.id for s in select(sessions, 0.6, "difficulty", difficulty=difficulty)] == [0, 2, 4]


def test_ties_and_chance_follow_the_seed():
    sessions = make_sessions([4] * 30)
    for strategy in ("random", "length"):
        drawn = {select(sessions, 0.3, strategy, seed=seed) for seed in range(5)}
        assert len(drawn) == 5
    assert select(sessions, 0.3, "length", seed=3) == select(sessions, 0.3, "random", seed=3)  # all tie


def test_diverse_sessions_are_unlike_each_other():
    def session(id_: int, title: str) -> Session:
        return Session(id=id_, items=("a", "b"), titles=(title, title), bundles=(frozenset({1, 2}),))

    teas = [session(k, f"green tea number{k}") for k in range(8)]
    others = [session(10, "hammer drill"), session(11, "wool sock"), session(12, "desk lamp")]
    for seed in range(5):
        chosen = {s.id for s in select([*teas, *others], 4 / 11, "diversity", seed=seed)}
        assert {10, 11, 12} < chosen
    assert {len({s.id for s in select([*teas, *others], 1 / 11, "diversity", seed=seed)}) for seed in range(5)} == {1}


@pytest.mark.parametrize("domain", PUBLIC_DOMAINS)
def test_diverse_sessions_hold_more_words_an_item_than_chance(mirror, domain):
    sessions = load_domain(domain, "train").sessions

    def words_an_item(chosen: tuple[Session, ...]) -> float:
        words = {word for s in chosen for title in s.titles for word in title.lower().split()}
        return len(words) / sum(map(len, chosen))

    by_chance = max(words_an_item(select(sessions, 0.1, "random", seed=seed)) for seed in range(5))
    assert words_an_item(select(sessions, 0.1, "diversity")) > 1.05 * by_chance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, "random"), r"share = -0.1: choose 0 \(none\) to 1"),
        ((50, "random"), "share = 50"),
        ((float("nan"), "random"), "share = nan"),
        ((0.5, "shortest"), "strategy = 'shortest': choose one of random, length, diversity, difficulty"),
        ((0.5, "difficulty"), "difficulty of session 0 is None: give a finite number"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        select(make_sessions([2, 3]), *arguments)


def test_a_missing_or_infinite_difficulty_and_a_repeated_session_are_named():
    sessions = make_sessions([2, 3])
    with pytest.raises(ValueError, match="difficulty of session 1 is None"):
        select(sessions, 0.5, "difficulty", difficulty={0: 1.0})
    with pytest.raises(ValueError, match="difficulty of session 1 is inf"):
        select(sessions, 0.5, "difficulty", difficulty={0: 1.0, 1: math.inf})
    with pytest.raises(ValueError, match="session 0 stands there twice; join domains with accumulate_domains"):
        select([*sessions, *sessions], 0.5, "random")


def test_difficulty_is_the_loss_of_the_base_student_per_item(tiny_student, sessions):
    nats = answer_nats(tiny_student, sessions, progress=False)
    difficulty = difficulty_of(sessions, nats)
    assert difficulty[sessions[3].id] == pytest.approx(nats[3] / len(sessions[3]))
    chosen = {s.id for s in select(sessions, 0.25, "difficulty", difficulty=difficulty)}
    assert chosen == set(sorted(difficulty, key=difficulty.get)[-3:])
    with pytest.raises(ValueError, match="nats holds 11 values for 12 sessions"):
        difficulty_of(sessions, nats[1:])


# --- accumulation -------------------------------------------------------------------------------------------------


def knowledge_of(domain: Domain, rules=("R1",), text="because") -> Knowledge:
    return Knowledge(
        domain=domain.name,
        rules={r: Rule(r, "other", f"{r} of {domain.name}", "why") for r in rules},
        reasoning={s.id: Reasoning(text and f"{text} {chr(97 + s.id)}", tuple(rules), noisy=False) for s in domain},
    )


def make_domain(name: str, n: int) -> Domain:
    return Domain(name=name, split="train", sessions=make_sessions([2 + k % 3 for k in range(n)]))


def test_accumulated_domains_keep_their_sessions_apart():
    food, clothing = make_domain("food", 3), make_domain("clothing", 4)
    whole, knowledge = accumulate_domains([food, clothing], [knowledge_of(food), knowledge_of(clothing)])
    assert (whole.name, whole.split, len(whole)) == ("food+clothing", "train", 7)
    assert len(whole.by_id) == 7
    assert whole.sessions[:3] == food.sessions  # the first domain is as it was: a nested series
    assert [s.titles for s in whole.sessions[3:]] == [s.titles for s in clothing]
    check_knowledge(knowledge, whole)
    assert knowledge.text(whole.sessions[0], "both") == "R1 of food\nbecause a"
    assert knowledge.text(whole.sessions[3], "both") == "R1 of clothing\nbecause a"
    assert {rule.id for rule in knowledge.rules.values()} == {"food:R1", "clothing:R1"}
    alone, none = accumulate_domains([food])
    assert alone.sessions == food.sessions and none is None
    assert select(whole, 1.0, "diversity") == whole.sessions


def test_recorded_knowledge_can_be_accumulated(mirror):
    names = ("electronic", "clothing", "food")
    whole, knowledge = accumulate_domains([load_domain(n, "train") for n in names], [load_knowledge(n) for n in names])
    check_knowledge(knowledge, whole)
    assert len(whole) == 623 + 698 + 644 == len(whole.by_id)
    assert len(knowledge.rules) == 36


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, c: ([], ()), r"domains = \[\]: give one or more"),
        (lambda f, c: ([f, f], ()), "each once"),
        (lambda f, c: ([f, replace(c, split="test")], ()), "give the same split"),
        (lambda f, c: ([f, c], [knowledge_of(c), knowledge_of(f)]), "give the same order"),
        (lambda f, c: ([f, c], [knowledge_of(f)]), "give the same order"),
        (lambda f, c: ([replace(f, name="toyshop"), c], [knowledge_of(replace(f, name="toyshop")), knowledge_of(c)]),
         "numbers items differently"),
        (lambda f, c: ([f, replace(c, sessions=(replace(c.sessions[0], id=10**6),))], ()), "session 1000000: ids"),
    ],
)  # fmt: skip
def test_domains_that_do_not_go_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        accumulate_domains(*change(make_domain("food", 3), make_domain("clothing", 4)))


def test_accumulated_formats_are_told_one_after_the_other():
    food = make_domain("food", 3)
    patterns = knowledge_of(food, ("P1", "P2"), text="")
    teacher = knowledge_of(food)
    both = accumulate_formats(patterns, teacher)
    session = food.sessions[1]
    assert both.text(session, "rules") == "P1 of food\nP2 of food\nR1 of food"
    assert both.text(session, "reasoning") == "because b"
    assert both.text(session, "both").endswith("R1 of food\nbecause b")
    assert accumulate_formats(teacher).sha256 == teacher.sha256


def test_joined_knowledge_still_knows_that_item_numbers_follow_the_word_item():
    food, clothing = make_domain("food", 3), make_domain("clothing", 3)
    patterns = knowledge_of(food, ("P1",), text="")
    numbered = replace(knowledge_of(food, text="Items 1 and 3 are 2 GB cards"), provenance={"items": "explicit"})
    assert accumulate_formats(patterns, numbered).explicit and not accumulate_formats(patterns).explicit
    other = replace(knowledge_of(clothing), provenance={"items": "explicit"})
    assert accumulate_domains([food, clothing], [numbered, other])[1].explicit
    assert not accumulate_domains([food, clothing], [knowledge_of(food), knowledge_of(clothing)])[1].explicit


def test_formats_that_do_not_go_together_are_refused():
    food, clothing = make_domain("food", 3), make_domain("clothing", 3)
    with pytest.raises(ValueError, match="formats is empty"):
        accumulate_formats()
    with pytest.raises(ValueError, match="formats are of food and clothing"):
        accumulate_formats(knowledge_of(food), knowledge_of(clothing))
    with pytest.raises(ValueError, match="session 2 is not covered by all formats"):
        accumulate_formats(knowledge_of(food), knowledge_of(replace(food, sessions=food.sessions[:2]), ("P1",)))
    with pytest.raises(ValueError, match="two formats have a rule 'R1'"):
        accumulate_formats(knowledge_of(food), knowledge_of(food))
