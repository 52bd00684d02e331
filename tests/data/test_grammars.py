"""What an answer is, format by format: what counts, what is reported, and that no text takes longer than its length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.data.formats import FORMATS, letters_of
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import format_answer

FMT = st.sampled_from(sorted(FORMATS))
TITLES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
MARKS = [
    "<think>",
    "</think>",
    "[THINK]",
    "Bundles:",
    "1. tea: A",
    "{'b': [1, 2]}",
    "1 2\n",
    "\n",
    ";",
    "product1",
    "'",
]
PIECES = st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=12).map("".join)


def read(text, n_items=9, fmt="compact"):
    answer = parse_answer(text, n_items, fmt)
    return [sorted(bundle) for bundle in answer.bundles], [problem.kind for problem in answer.problems]


# --- compact ---


@pytest.mark.parametrize(
    ("line", "bundles"),
    [
        ("1 3; 2 5", [[1, 3], [2, 5]]),
        ("1, 3; 2, 5.", [[1, 3], [2, 5]]),
        ("- bundle 1: 1 3; 2 and 5", [[1, 3], [2, 5]]),
        ("1, 2, and 3", [[1, 2, 3]]),
        ("1, 2 and 3", [[1, 2, 3]]),
        ("item 1, item 2 & item 3", [[1, 2, 3]]),
        ("1 2 3, 4", [[1, 2, 3, 4]]),  # 4 alone would be no bundle
        ("1 3;", [[1, 3]]),
        ("Products 1 + 3", [[1, 3]]),
        ("* Bundle = 4 5", [[4, 5]]),
    ],
)
def test_lines_that_say_what_they_mean(line, bundles):
    assert read(line) == (bundles, [])


@pytest.mark.parametrize(
    "line",
    [
        "1 3, 2 5", "1,3 2,5", "1 and 3, 2 and 5", "1, 3 and 2, 5", "1 & 3 2 & 5",  # two bundles, or one
        "1 3 / 2 5", "1 3 | 2 5", "(1 3) (2 5)", "[1, 3], [2, 5]", "1 3. 2 5", "1-3", "1 3 and", "1,, 3", "1 3;; 2 5",
        "item item 1 3", "1 item", "1. 1 3", "bundle 1", "1 3 tea",
    ],
)  # fmt: skip
def test_a_line_that_may_mean_something_else_is_reported(line):
    assert read(line) == ([], ["unreadable"])


def test_what_is_parted_by_semicolons_is_not_joined():
    assert read("1; 3") == ([], ["single item", "single item"])


# --- the dictionary ---


@pytest.mark.parametrize(
    ("text", "bundles", "n_problems"),
    [
        ("Draft: {'b1': ['product1', 'product3']} Final: {'b1': ['product1', 'product2']}", [[1, 2]], 1),
        ("{'b1': ['product1', 'product3']}\n{'b1': ['product1', 'prod", [[1, 3]], 1),
        ("{'b1': {'items': ['product1', 'product2']}}", [[1, 2]], 2),
        ('```json\n{"bundle1": ["product1", "product2"]}\n```', [[1, 2]], 2),
        ("{'b1': [1, 2], 'b2': 'product3'}", [[1, 2]], 1),
        ("{'b1': [1, 2]} {'note': 'done'}", [[1, 2]], 1),
        ("{'b1': ['product1', 'product2', 'pro", [[1, 2]], 1),
        ("{'b1': [1, 2, 3", [[1, 2]], 1),  # 3, or 31
        ("{bundle 1: [item 1, #3]}", [[1, 3]], 0),
        ("{'b1': [1, 2,],}", [[1, 2]], 0),
        ("{'b1': ['product1: tea', 'product2']}", [], 1),
        ("{'b1': ['product 1 and 3', '2']}", [], 1),
        ("[[1, 3], [2, 4]]", [], 1),
        ("{'b1': []}", [], 1),
        ("{{{", [], 1),
    ],
)
def test_the_last_whole_dictionary_counts_and_the_rest_is_reported(text, bundles, n_problems):
    found, problems = read(text, fmt="aicl")
    assert found == bundles and len(problems) == n_problems


# --- letters ---


def letters(*letters_, first=1):
    return "\n".join(f"{n}. tea: {letter}" for n, letter in enumerate(letters_, start=first))


def test_the_last_whole_answer_in_letters_counts():
    draft, final = letters("A", "A", "-", "-"), letters("-", "A", "A", "-")
    assert read(f"{draft}\n{final}", 4, "letters") == ([[2, 3]], ["unreadable"])
    cut = letters("-", "A")
    assert read(f"{draft}\n{cut}", 4, "letters") == ([[1, 2]], ["unreadable"])
    assert read(f"{cut}\n{draft}", 4, "letters") == ([[1, 2]], ["unreadable"])
    assert read(f"{letters('A')}\n{letters('A', 'A')}", 4, "letters") == ([[1, 2]], ["unreadable"])


# --- all of them ---


def written(bundles, fmt):
    return format_answer(bundles, fmt=fmt, titles=["tea"] * 9)


@pytest.mark.parametrize("fmt", FORMATS)
def test_thoughts_are_no_answer(fmt):
    maybe, answer = written([{1, 3}], fmt), written([{1, 2}], fmt)
    for text in (
        f"<think>\n{maybe}\n</think>\n{answer}",
        f"{maybe}\n</think>{answer}",  # opened by the chat template
        f"{answer}\n<think>{maybe}",
        f"Bundles:\n{maybe}\n<think>{maybe}</think>\nBundles:\n{answer}",
    ):
        found, _ = read(text, fmt=fmt)
        assert found == [[1, 2]]
    assert read(f"<think>\n{maybe}", fmt=fmt) == ([], ["unreadable"])


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_last_mark_that_anything_follows_begins_the_answer(fmt):
    first, second = written([{1, 3}], fmt), written([{1, 2}], fmt)
    assert read(f"first 1 2\n Bundles: \n{first}", fmt=fmt) == ([[1, 3]], [])
    assert read(f"Bundles:\n{first}\nno\nBundles:\n{second}", fmt=fmt) == ([[1, 2]], ["unreadable"])
    assert read(f"Bundles:\n{first}\nBundles:\n", fmt=fmt) == ([[1, 3]], [])
    assert read(f"{first}\nBundles:", fmt=fmt) == ([], ["unreadable"])


@given(FMT, PIECES, st.integers(1, 12))
def test_a_thought_before_a_text_changes_nothing(fmt, text, n_items):
    assert parse_answer(f"<think>1 2\nBundles:\n3 4</think>{text}", n_items, fmt) == parse_answer(text, n_items, fmt)


@given(FMT, PIECES, st.integers(1, 12))
def test_any_pieces_are_read_without_an_error_and_within_the_session(fmt, text, n_items):
    bundles, problems = parse_answer(text, n_items, fmt)
    assert all(len(bundle) >= 2 and bundle <= set(range(1, n_items + 1)) for bundle in bundles)
    assert bundles or problems


@given(FMT, st.lists(TITLES, min_size=2, max_size=9), st.data())
def test_what_is_written_is_read_back_whatever_the_titles_say(fmt, titles, data):
    n = len(titles)
    owner = data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n))
    groups = [frozenset(k + 1 for k, one in enumerate(owner) if one == number) for number in range(n)]
    bundles = {group for group in groups if len(group) > 1}
    reasoning = data.draw(st.sampled_from(["", "1 2", "I <think> so.", "</think>"]))
    text = format_answer(bundles, fmt=fmt, titles=titles, reasoning=reasoning)
    answer = parse_answer(text, n, fmt)
    assert set(answer.bundles) == bundles
    assert not bundles or not answer.problems


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "piece",
    [
        " ", "\t \n", "bundle ", "bundle" + " " * 1000, "1 ", "1, ", "1;", "; ", "- ", "and ", "items ", "1 and ", ":",
        "[", "]", "{", "{'", "{'a':", "{'a':[", "{'a':[1,2]", "{'a':[1,2],", "{'a':[1,2]}", "'", '"', "'\n", '"\'',
        "[1,", "product 1", "product" + " " * 1000, "1. ", "1. a: A\n", "1. a: ", "2. : : A", ": A", "<think>",
        "</think>", "Bundles:\n", "Bundles:\n1\n", "1 2\n", "1 2 3 4\n", "٣", "\u2028", "9" * 1000, "a_",
    ],
)  # fmt: skip
def test_a_long_text_takes_no_longer_than_its_length(fmt, piece):
    """A reader that goes back over what it has seen would not end today."""
    n = 100_000 // len(piece)
    for text in (piece * n, f"bundle{piece * n}x", f"{{'a': [{piece * n}"):
        parse_answer(text, 9, fmt)


def test_many_different_bundles_are_counted_in_linear_time():
    lines = "\n".join(f"{a} {b}" for a in range(1, 301) for b in range(a + 1, 301))
    found = parse_answer(f"{lines}\n{lines}", 300)
    assert len(found.bundles) == 2 * 300 * 299 // 2 and len(found.problems) == 300 * 299 // 2


def test_more_bundles_than_letters_are_refused():
    pairs = [{2 * k + 1, 2 * k + 2} for k in range(27)]
    assert max(letters_of(pairs[:26], 54)) == 26
    with pytest.raises(ValueError, match="27 bundles: an answer in letters has 26 of them"):
        letters_of(pairs, 54)
