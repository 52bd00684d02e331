"""The teacher's knowledge: complete, about training sessions only, in its own words, and renumbered correctly."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.config import KNOWLEDGE_KINDS
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import PUBLIC_DOMAINS, DataError
from routedk_lite.files import asset
from routedk_lite.teacher.knowledge import (
    check_knowledge,
    item_references,
    load_knowledge,
    mask_references,
    rewrite_references,
    teacher_answers,
)


def references(text: str, n_items: int, **options) -> list[int]:
    return [int(text[a:b]) for a, b in item_references(text, n_items, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bundle 2, 5, 6 and 7.", [2, 5, 6, 7]),
        ("3 is a camcorder, Laptop RAM 1 (and 10) too", [3, 1, 10]),
        ("14k gold, a 9-volt cell, a 2.5 inch disk, 3D glasses, a pack of 6, v1.2, USB-3, 1,000 sheets", []),
        ("24 portions", []),
        ("can be replaced by 7. The rest", [7]),
    ],
)
def test_item_references_are_told_from_other_numerals(text, expected):
    assert references(text, 10) == expected


def test_explicit_references_follow_the_word_item():
    text = "Item 8 is made for the Lumo 7, which is item 1, so items 1, 2 and 8 go together; 3 more"
    assert references(text, 10, explicit=True) == [8, 1, 1, 2, 8]


@given(st.permutations(range(1, 11)))
def test_renumbering_and_back_is_the_identity(order):
    text = "1 is a 9-volt charger for 3, a pack of 6; bundle 2, 4, 10 and 5, while 14k 7, 8 and 9 stay out."
    there = dict(zip(range(1, 11), order, strict=True))
    back = {new: old for old, new in there.items()}
    moved = rewrite_references(text, 10, lambda n: str(there[n]))
    assert rewrite_references(moved, 10, lambda n: str(back[n])) == text
    assert references(moved, 10) == [there[n] for n in references(text, 10)]


def test_masked_text_names_no_item():
    masked = mask_references("3 is a 14k ring, so bundle 2, 3 and 5; 1 stays.", 5)
    assert masked == "some is a 14k ring, so bundle some; some stays."
    assert references(masked, 5) == []


@pytest.mark.parametrize("name", PUBLIC_DOMAINS)
def test_recorded_knowledge_is_about_all_training_sessions_and_no_others(name, mirror):
    knowledge = load_knowledge(name)
    train, test = load_domain(name, "train"), load_domain(name, "test")
    check_knowledge(knowledge, train)
    assert knowledge.reasoning.keys() == train.by_id.keys()
    assert not knowledge.reasoning.keys() & test.by_id.keys()
    assert len(knowledge.rules) == 12
    assert teacher_answers(name).keys() == test.by_id.keys()
    for id_, bundles in teacher_answers(name).items():
        assert all(1 <= n <= len(test.by_id[id_]) for bundle in bundles for n in bundle)


@pytest.mark.parametrize("name", PUBLIC_DOMAINS)
def test_no_run_of_five_words_of_a_title_is_in_the_knowledge(name, mirror):
    def runs(text: str) -> set[tuple[str, ...]]:
        words = ["".join(c for c in word if c.isalnum()) for word in text.lower().split()]
        words = [word for word in words if word]
        found = {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
        return {run for run in found if not all(word.isdigit() for word in run)}  # lists of sizes, lists of items

    titles = set()
    for split in ("train", "validation", "test"):
        for session in load_domain(name, split):
            titles |= set().union(*map(runs, session.titles))
    knowledge = load_knowledge(name)
    texts = [r.text + " " + r.why for r in knowledge.rules.values()] + [r.text for r in knowledge.reasoning.values()]
    assert len(titles) > 1000
    assert not [text for text in texts if runs(text) & titles]


@pytest.mark.parametrize("name", [*PUBLIC_DOMAINS, "toyshop"])
def test_the_three_kinds_of_knowledge_differ_and_rules_hide_their_reasons(name, request):
    if name != "toyshop":
        request.getfixturevalue("mirror")
    knowledge, train = load_knowledge(name), load_domain(name, "train")
    check_knowledge(knowledge, train)
    session = next(s for s in train if knowledge.reasoning[s.id].rules)
    texts = {kind: knowledge.text(session, kind) for kind in KNOWLEDGE_KINDS}
    assert len(set(texts.values())) == len(KNOWLEDGE_KINDS)
    assert texts["none"] == ""
    assert texts["both"] == texts["rules"] + "\n" + texts["reasoning"]
    for rule in knowledge.reasoning[session.id].rules:
        assert knowledge.rules[rule].text in texts["rules"]
        assert knowledge.rules[rule].why not in texts["rules"]


def test_the_toy_shops_reasoning_names_its_bundles():
    knowledge = load_knowledge("toyshop")
    for session in load_domain("toyshop", "train"):
        named = references(knowledge.reasoning_text(session), len(session), explicit=True)
        assert set(named) == set().union(*session.bundles)


def test_a_test_session_has_no_knowledge():
    outside = load_domain("toyshop", "test").sessions[0]
    with pytest.raises(KeyError, match=f"session {outside.id}"):
        load_knowledge("toyshop").text(outside, "reasoning")
    with pytest.raises(ValueError, match="kind = 'hints'"):
        load_knowledge("toyshop").text(outside, "hints")


@pytest.fixture
def copy(tmp_path):
    """A copy of recorded knowledge that may be damaged."""
    return shutil.copytree(asset("teacher", "food"), tmp_path / "food")


def damage(path, change):
    lines = path.read_text().splitlines()
    entry = json.loads(lines[-1])
    change(entry)
    path.write_text("\n".join([*lines[:-1], json.dumps(entry)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("noisy"), "line 645: noisy is None"),
        (lambda e: e.update(reasoning=""), "reasoning is ''; give a str that is not empty"),
        (lambda e: e.update(rules=["R99"]), "rules names 'R99'"),
        (lambda e: e.update(id="7"), "id is '7'; give a int"),
        (lambda e: e.update(id=1), "session 1 stands there twice"),
    ],
)
def test_a_malformed_line_is_named(copy, change, message):
    damage(copy / "reasoning.jsonl", change)
    with pytest.raises(DataError, match="reasoning.jsonl") as error:
        load_knowledge("food", copy)
    assert message in str(error.value)


def test_a_broken_or_missing_file_is_named(copy):
    (copy / "reasoning.jsonl").write_text("{")
    with pytest.raises(DataError, match="line 1: not JSON"):
        load_knowledge("food", copy)
    damaged = {b"": "it is empty", "{}".encode("utf-16"): "it is not in UTF-8", b"{}": "rules is missing"}
    for content, why in damaged.items():
        (copy / "rules.json").write_bytes(content)
        with pytest.raises(DataError, match=f"rules.json: not a file of rules: {why}"):
            load_knowledge("food", copy)
    (copy / "rules.json").unlink()
    with pytest.raises(DataError, match="not a file of rules: there is none"):
        load_knowledge("food", copy)


def test_a_reference_to_an_item_that_is_not_there_is_refused():
    train, knowledge = load_domain("toyshop", "train"), load_knowledge("toyshop")
    session = random.Random(0).choice(train.sessions)
    wrong = knowledge.reasoning[session.id]._replace(text=f"Items 1 and {len(session) + 1} go together.")
    broken = type(knowledge)(
        domain="toyshop", rules=knowledge.rules, reasoning={**knowledge.reasoning, session.id: wrong}
    )
    with pytest.raises(DataError, match=f"session {session.id} names item {len(session) + 1}"):
        check_knowledge(broken, train)
    fewer = {k: v for k, v in knowledge.reasoning.items() if k != session.id}
    with pytest.raises(DataError, match=f"no reasoning for training session {session.id}"):
        check_knowledge(type(knowledge)(domain="toyshop", rules=knowledge.rules, reasoning=fewer), train)
    extra = {**knowledge.reasoning, 10**6: wrong}
    with pytest.raises(DataError, match="session 1000000 is not in the train split"):
        check_knowledge(type(knowledge)(domain="toyshop", rules=knowledge.rules, reasoning=extra), train)
