import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.config import PromptConfig
from routedk_lite.data.formats import FORMATS
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import build_prompt, encode_answer, encode_prompt, format_answer, prompt_batches

FMT = st.sampled_from(sorted(FORMATS))
N_ITEMS = st.integers(1, 12)
TITLES = tuple(f"Maker {n} of things, number {n}: new" for n in range(1, 10))


def in_letters(bundles):
    """What an answer in letters can say of bundles: each item belongs to the first that holds it."""
    left, found = set(range(1, 10)), set()
    for bundle in sorted(map(sorted, bundles)):
        found.add(frozenset(left & set(bundle)))
        left -= set(bundle)
    return {bundle for bundle in found if len(bundle) > 1}


def kinds(text, n_items=5, fmt="compact"):
    return [p.kind for p in parse_answer(text, n_items, fmt).problems]


@given(FMT, st.text(), N_ITEMS)
def test_any_text_is_read_without_an_error(fmt, text, n_items):
    bundles, problems = parse_answer(text, n_items, fmt)
    assert all(len(b) >= 2 and b <= set(range(1, n_items + 1)) for b in bundles)
    assert bundles or problems


@given(FMT, st.text(alphabet="0123456789 ,;\n-:[]{}'\"bundleproductand"), N_ITEMS)
def test_text_that_looks_like_an_answer_is_read_without_an_error(fmt, text, n_items):
    bundles, problems = parse_answer(text, n_items, fmt)
    assert all(len(b) >= 2 and b <= set(range(1, n_items + 1)) for b in bundles)
    assert bundles or problems


@given(FMT, st.lists(st.frozensets(st.integers(1, 9), min_size=2), min_size=1, max_size=5, unique=True))
def test_what_is_written_is_read_back(fmt, bundles):
    answer = parse_answer(format_answer(bundles, fmt=fmt, titles=TITLES), 9, fmt)
    if fmt == "letters":  # which cannot write overlap
        assert set(answer.bundles) == in_letters(bundles)
    else:
        assert set(answer.bundles) == set(bundles)
    assert not answer.problems


@given(FMT, st.permutations([[1, 3], [2, 4, 5], [1, 2]]))
def test_one_answer_has_one_text(fmt, bundles):
    again = [[5, 2, 4], [2, 1], [3, 1], [1, 3]]
    assert format_answer(bundles, fmt=fmt, titles=TITLES) == format_answer(again, fmt=fmt, titles=TITLES)


def test_each_problem_is_named():
    assert kinds("1 3") == []
    assert kinds("1 9 2") == ["out of range"]
    assert kinds("0 1 2") == ["out of range"]
    assert kinds("4") == ["single item"]
    assert kinds("1 1 2") == ["duplicate"]
    assert kinds("1 2\n2 1") == ["duplicate"]
    assert kinds("I think 1 and 2 go well") == ["unreadable"]
    assert kinds("") == ["unreadable"]
    assert kinds("9 8") == ["out of range", "single item"]
    assert kinds("{'bundle1': ['product1', 'tea']}", fmt="aicl") == ["unreadable"]
    assert kinds("no brackets", fmt="aicl") == ["unreadable"]


def test_good_bundles_survive_bad_neighbours():
    answer = parse_answer("1 3\nsurely\n2 7 5\n4\n1 3", 5)
    assert answer.bundles == (frozenset({1, 3}), frozenset({2, 5}), frozenset({1, 3}))
    assert [p.kind for p in answer.problems] == ["unreadable", "out of range", "single item", "duplicate"]


@pytest.mark.parametrize("line", ["1 3", "1, 3", "1 and 3", "- 1 3", "Bundle 2: 1, 3", "items 1, 3.", "1 & 3"])
def test_common_ways_of_writing_a_compact_bundle(line):
    assert parse_answer(line, 5).bundles == (frozenset({1, 3}),)


@pytest.mark.parametrize(
    "text",
    [
        "{'bundle1': ['product1', 'product3']}",
        '{"bundle 1": ["product 1", "product 3"]}',
        "Sure! {'bundle1': [1, 3]} Enjoy.",
        "{'bundle1': ['product1',\n 'product3'",
    ],
)
def test_common_ways_of_writing_an_aicl_bundle(text):
    assert parse_answer(text, 5, "aicl").bundles == (frozenset({1, 3}),)


def test_huge_numbers_are_out_of_range():
    assert kinds("9" * 10_000 + " 1 2") == ["out of range"]


def test_unknown_format_names_the_known_ones():
    with pytest.raises(ValueError, match="'xml'.*aicl"):
        parse_answer("1 2", 3, "xml")


def test_plain_and_chat_prompts(tiny_student):
    tokenizer = tiny_student.tokenizer
    plain = build_prompt(["tea pot", "tea cup"], tokenizer=tokenizer)
    assert plain == "Products:\n1. tea pot\n2. tea cup\nBundles:\n"
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    chat = build_prompt(["tea pot", "tea cup"], tokenizer=tokenizer)
    assert chat.startswith("<system>A bundle is") and chat.endswith("2. tea cup<assistant>")
    assert FORMATS["compact"].instruction in chat
    assert tokenizer.decode(encode_prompt(chat, tokenizer)) == chat  # no second set of special tokens


def test_titles_are_cut_at_words():
    assert "1. one two\n" in build_prompt(["one two three four"], max_title_words=2)
    assert "1. one two three four\n" in build_prompt(["one two three four"])


def test_aicl_prompt_is_the_published_dictionary():
    assert "{'product1': 'tea', 'product2': \"a 'cup'\"}" in build_prompt(["tea", "a 'cup'"], fmt="aicl")


def test_answers_end_with_the_end_token(tiny_student):
    ids = encode_answer("1 2", tiny_student.tokenizer)
    assert ids[-1] == tiny_student.tokenizer.eos_token_id
    assert tiny_student.tokenizer.decode(ids[:-1]) == "1 2"


@pytest.mark.parametrize("most_pairs", [None, 1, 3 * 60**2, 10**9])
def test_fewer_long_prompts_at_a_time_where_their_attention_is_written_to_memory(tiny_student, sessions, most_pairs):
    batches = list(prompt_batches(sessions, tiny_student.tokenizer, PromptConfig(), 4, most_pairs=most_pairs))
    rows = [row for batch in batches for row in batch]
    assert sorted(row.session.id for row in rows) == sorted(session.id for session in sessions)
    assert [len(row.ids) for row in rows] == sorted((len(row.ids) for row in rows), reverse=True)
    sizes = [len(batch) for batch in batches]
    if most_pairs in (None, 10**9):
        assert sizes[:-1] == [4] * (len(sizes) - 1)
        return
    for batch in batches[:-1]:
        pairs = len(batch[0].ids) ** 2
        assert len(batch) == 1 or len(batch) * pairs <= most_pairs
        assert len(batch) == 4 or (len(batch) + 1) * pairs > most_pairs
    assert sizes[0] < 4
