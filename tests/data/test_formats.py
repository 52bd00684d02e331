"""Answers in letters: what is given, which letters are legal, what is read, and where overlap goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.data.formats import FORMATS, letter_slots, letters_of
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import build_prompt, encode_slots, format_answer

TITLES = ("Norva linen kitchen apron, white", "Orbis 1 watch: new", "Aero: slim case", "Panello deep bowl")


def read(text, n_items=4):
    answer = parse_answer(text, n_items, "letters")
    return set(answer.bundles), [problem.kind for problem in answer.problems]


def test_every_product_is_named_once_more_before_its_letter():
    text = format_answer([{1, 4}], fmt="letters", titles=TITLES)
    assert text == "1. Norva linen kitchen: A\n2. Orbis 1 watch:: -\n3. Aero: slim case: -\n4. Panello deep bowl: A"
    assert read(text) == ({frozenset({1, 4})}, [])


def test_letters_come_in_order_and_one_set_of_bundles_has_one_text():
    slots = letter_slots(TITLES)
    assert slots.choices == (" A", " B", " -")
    assert slots.legal([]) == [0, 2] and slots.legal([2, 0]) == [0, 1, 2] and slots.legal([0, 1, 1]) == [0, 1, 2]
    assert letters_of([{3, 4}, {1, 2}], 4) == letters_of([{1, 2}, {3, 4}], 4) == [0, 0, 1, 1]


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.sets(st.integers(1, n), min_size=1)))))
def test_what_is_annotated_is_always_a_legal_answer(case):
    n, bundles = case
    slots = letter_slots([f"thing {k}" for k in range(n)])
    chosen = letters_of(bundles, n)
    assert len(chosen) == n
    for place, choice in enumerate(chosen):
        assert choice in slots.legal(chosen[:place])
        assert choice < len(slots.choices)


def test_an_item_of_two_bundles_belongs_to_the_first():
    """{1, 2, 3} and {3, 4} overlap: what is left of the second is too little for a bundle."""
    assert letters_of([{1, 2, 3}, {3, 4}], 5) == [0, 0, 0, 2, 2]
    assert letters_of([{1, 2, 3}, {3, 4, 5}], 5) == [0, 0, 0, 1, 1]


def test_a_session_of_one_product_has_no_bundle_to_write():
    assert read(format_answer([], fmt="letters", titles=["tea"]), 1) == (set(), ["unreadable"])


@pytest.mark.parametrize(
    ("text", "bundles", "problems"),
    [
        ("1. a: A\n2. b: A", [{1, 2}], []),
        ("1. a: A\n\n 2. b:A \n", [{1, 2}], []),
        ("1.: A\n2.: A", [{1, 2}], []),
        ("1. a: A\n2. b: A\n2. b: B\n3. c: B", [{1, 2}], ["unreadable", "single item"]),
        ("1. a: A\n9. z: A", [], ["out of range", "single item"]),
        ("1. a: A and B\n2. b: a", [], ["unreadable", "unreadable"]),
        ("A A - B", [], ["unreadable"]),
        ("1. a: A\n2. b", [], ["unreadable", "single item"]),
    ],
)
def test_only_lines_of_the_format_are_read(text, bundles, problems):
    assert read(text) == ({frozenset(b) for b in bundles}, problems)


def test_letters_need_titles():
    with pytest.raises(ValueError, match="repeats the titles"):
        format_answer([{1, 2}], fmt="letters")


# --- in tokens ---


def test_slots_in_tokens_say_the_same_as_the_text(tiny_student):
    tokenizer, slots = tiny_student.tokenizer, letter_slots(TITLES)
    tokens = encode_slots(slots, tokenizer)
    ids, places = tokens.ids([0, 1, 2, 1])
    assert tokenizer.decode(ids) == slots.text([0, 1, 2, 1])
    assert [ids[place] for place in places] == [tokens.choices[c] for c in (0, 1, 2, 1)]
    assert len(set(tokens.choices)) == 3


def test_a_student_whose_letters_are_no_tokens_is_refused(tiny_student):
    slots = letter_slots(TITLES)._replace(choices=(" AB", " B", " -"))
    with pytest.raises(ValueError, match="' AB' is more than one token"):
        encode_slots(slots, tiny_student.tokenizer)


def test_a_student_that_does_not_tell_letters_apart_is_refused(tiny_student):
    slots = letter_slots(TITLES)._replace(choices=(" A", " A", " -"))
    with pytest.raises(ValueError, match="are the same token for this student"):
        encode_slots(slots, tiny_student.tokenizer)


def test_the_prompt_in_letters_is_short(tiny_student):
    tiny_student.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    text = build_prompt(["tea", "pot"], fmt="letters", tokenizer=tiny_student.tokenizer)
    assert text == f"<system>{FORMATS['letters'].instruction}<user>Products:\n1. tea\n2. pot"
