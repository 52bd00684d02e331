"""Titles stay text: what looks like a special token in them is none, whatever the tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenized import CHATS, FAST, PLAIN_CHAT, byte_level, bytes_only

from routedk_lite.config import PromptConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.formats import FORMATS, letter_slots
from routedk_lite.data.plaintext import encode_text
from routedk_lite.data.prompts import (
    build_prompt,
    encode_answer,
    encode_prompt,
    encode_slots,
    format_answer,
    prompt_batches,
    title_spans,
    tokenize_prompt,
)
from routedk_lite.data.sessions import PUBLIC_DOMAINS, SPLITS, Session
from routedk_lite.student.backbone import load_student
from routedk_lite.student.examples import encode_example

MARKED = ["lamp </s> two", "<|im_end|>", "a <image> of tea", "</s></s>", "<think>", "x<s>", "<end_of_turn> <pad>"]


@pytest.mark.parametrize("chat", [None, *CHATS])
@pytest.mark.parametrize("family", FAST)
@pytest.mark.parametrize("ends_itself", [False, True])
def test_no_title_becomes_a_special_token(family, chat, ends_itself):
    tokenizer = FAST[family](ends_itself=ends_itself)
    tokenizer.chat_template = chat and CHATS[chat]
    plain = build_prompt(["tea"] * len(MARKED), tokenizer=tokenizer)
    prompt = build_prompt(MARKED, tokenizer=tokenizer)
    encoded = tokenize_prompt(prompt, tokenizer)
    special = [id_ for id_ in encoded.ids if id_ in tokenizer.added_tokens_decoder]
    meant = [id_ for id_ in encode_prompt(plain, tokenizer) if id_ in tokenizer.added_tokens_decoder]
    assert special == meant and tokenizer.unk_token_id not in special
    for title, (start, end) in zip(MARKED, title_spans(prompt, encoded), strict=True):
        assert tokenizer.decode(encoded.ids[start:end]).strip(" ") == title


@pytest.mark.parametrize("chat", [None, *CHATS])
@pytest.mark.parametrize("family", FAST)
def test_ordinary_prompts_have_the_tokens_that_the_tokenizer_gives(family, chat):
    tokenizer = FAST[family]()
    tokenizer.chat_template = chat and CHATS[chat]
    prompt = build_prompt(["la tea lamp", "linen  cup"], tokenizer=tokenizer, hints="Item 1 and 2.")
    assert encode_prompt(prompt, tokenizer) == tokenizer(str(prompt), add_special_tokens=chat is None)["input_ids"]
    assert encode_prompt(str(prompt), tokenizer) == encode_prompt(prompt, tokenizer)


@given(
    st.sampled_from(sorted(FAST)),
    st.lists(
        st.lists(st.sampled_from([*MARKED, "tea", "é", "家", " "]), min_size=1).map("".join), min_size=1, max_size=4
    ),
)
def test_text_with_marks_has_the_places_of_its_tokens(family, titles):
    tokenizer = KEPT.setdefault(family, FAST[family]())
    tokenizer.chat_template = PLAIN_CHAT
    prompt = build_prompt(titles, tokenizer=tokenizer)
    encoded = tokenize_prompt(prompt, tokenizer)
    assert len(encoded.ids) == len(encoded.places)
    assert all(0 <= a <= b <= len(prompt) for a, b in encoded.places)
    assert encoded.places == sorted(encoded.places)
    assert encoded.ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


KEPT: dict = {}


def test_whatever_a_tokenizer_puts_behind_a_text_stands_neither_in_prompts_nor_in_answers():
    plain, ending = byte_level(), byte_level(ends_itself=True)
    session = Session(id=3, items=("a", "b"), titles=("tea", "cup"), bundles=(frozenset({1, 2}),))
    for fmt in ("compact", "aicl"):
        one, other = (encode_example(session, t, PromptConfig(fmt=fmt), max_length=500).row() for t in (plain, ending))
        assert one == other and one["input_ids"].count(plain.eos_token_id) == 1
        assert one["input_ids"][0] == plain.bos_token_id and one["input_ids"].count(plain.bos_token_id) == 1
    assert encode_prompt(build_prompt(["tea"]), ending)[-1] != ending.eos_token_id


def test_words_and_spaces_that_were_added_as_tokens_stay_tokens():
    tokenizer = byte_level()
    tokenizer.add_tokens(["  ", "desk lamp"])
    ids = encode_prompt(build_prompt(["a desk lamp", "two  linen"]), tokenizer)
    assert {tokenizer.convert_tokens_to_ids(word) for word in ("desk lamp", "  ", "linen")} <= set(ids)


def test_a_mark_that_is_added_later_is_text_too():
    tokenizer = byte_level()
    assert encode_text("a </s>", tokenizer).ids
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    ids = encode_text("a <new> </s>", tokenizer).ids
    assert tokenizer.decode(ids) == "a <new> </s>" and tokenizer.convert_tokens_to_ids("<new>") not in ids


def test_answers_and_letters_hold_no_mark_either():
    tokenizer = byte_level()
    slots = encode_slots(letter_slots(["</s> <image> tea", "cup"]), tokenizer)
    told = encode_answer(format_answer([{1, 2}], reasoning="so </s> it is"), tokenizer)
    marks = set(tokenizer.added_tokens_decoder)
    assert not marks & {id_ for given in slots.given for id_ in given}
    assert not marks & set(told[:-1]) and told[-1] == tokenizer.eos_token_id


def test_what_a_teacher_says_is_text():
    tokenizer = byte_level()
    tokenizer.chat_template = PLAIN_CHAT
    asked = {"hints": "Item 1 <|im_end|> and 2."}
    ids = encode_prompt(build_prompt(["tea", "cup"], tokenizer=tokenizer, **asked), tokenizer)
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


# --- slow tokenizers, and those that lack something ---


@pytest.mark.parametrize("chat", [None, *CHATS])
def test_a_slow_tokenizer_writes_prompts_and_says_that_it_cannot_place_titles(chat):
    tokenizer = bytes_only()
    tokenizer.chat_template = chat and CHATS[chat]
    session = Session(id=3, items=("a", "b"), titles=("tea </s>", "cup"), bundles=(frozenset({1, 2}),))
    prompt = build_prompt(session.titles, tokenizer=tokenizer)
    ids = encode_prompt(prompt, tokenizer)
    assert tokenizer.decode(ids) == prompt
    assert len(ids) == len(prompt.encode()) + (0 if chat is None else -3 * special_in(prompt, tokenizer))
    with pytest.raises(ValueError, match="session 3: this student's tokenizer is a slow one"):
        encode_example(session, tokenizer, PromptConfig(), max_length=2000)
    with pytest.raises(ValueError, match="session 3: this student's tokenizer is a slow one"):
        next(prompt_batches([session], tokenizer, PromptConfig(), 1, spans=True))


def special_in(prompt, tokenizer):
    """End tokens that the template wrote, four characters each."""
    return str(prompt).count(tokenizer.eos_token) - sum(title in prompt for title in ("tea </s>",))


def test_a_tokenizer_without_an_end_token_is_named():
    tokenizer = byte_level(eos_token=None)
    session = Session(id=3, items=("a", "b"), titles=("tea", "cup"), bundles=(frozenset({1, 2}),))
    with pytest.raises(ValueError, match=r"session 3: .* names no end token.* set tokenizer\.eos_token"):
        encode_example(session, tokenizer, PromptConfig(), max_length=500)


def test_half_a_character_is_named():
    with pytest.raises(ValueError, match=r"lone surrogate\) in '.*so \\ud83d'"):
        encode_prompt(build_prompt(["tea"], hints="so \ud83d"), byte_level())


def test_a_title_without_tokens_is_named():
    with pytest.raises(ValueError, match="the title of item 2, '', has no token"):
        prompt = build_prompt(["tea", ""])
        title_spans(prompt, tokenize_prompt(prompt, byte_level()))


# --- where titles stand ---


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("chat", [None, *CHATS])
def test_spans_are_those_of_the_titles_whatever_they_say(fmt, chat):
    titles = [
        "1",
        "s",
        "Products",
        "Pro",
        "duct",
        "Products:",
        "3. foo",
        "1",
        "bundle 1",
        "Bundles:",
        'it\'s "so"',
        "家 é",
        "Hints:",
    ]
    tokenizer = FAST["bytes"]()
    tokenizer.chat_template = chat and CHATS[chat]
    solved = Session(id=1, items=("a", "b"), titles=("Products", "1"), bundles=(frozenset({1, 2}),))
    prompt = build_prompt(titles, fmt=fmt, tokenizer=tokenizer, demonstrations=[solved], hints="Products:\n1. s")
    encoded = tokenize_prompt(prompt, tokenizer)
    at = 0
    for number, (title, span) in enumerate(zip(titles, title_spans(prompt, encoded), strict=True), start=1):
        assert span[0] >= at  # one behind the other
        at = span[1]
        text = tokenizer.decode(encoded.ids[slice(*span)]).strip(" ")
        assert text == (repr(title)[1:-1] if fmt == "aicl" else title)
        before = tokenizer.decode(encoded.ids[: span[0]]).rstrip(" ")
        assert before[:-1].endswith(f"'product{number}': ") if fmt == "aicl" else before.endswith(f"\n{number}.")


@pytest.mark.parametrize("fmt", FORMATS)
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip), min_size=1, max_size=50)
)
def test_titles_stand_on_one_line_each(fmt, titles):
    style = FORMATS[fmt]
    lines = style.write_titles(titles).splitlines()
    assert len(lines) == (1 if fmt == "aicl" else len(titles))
    if fmt != "aicl":
        assert [line.split(".")[0] for line in lines] == [str(n) for n in range(1, len(titles) + 1)]
    prompt = build_prompt(titles, fmt=fmt)
    assert [prompt[a:b] for a, b in prompt.titles] == style.list_titles(titles)[1::2]


def test_line_breaks_of_all_kinds_become_spaces():
    assert build_prompt(["a\nb", "c\r\nd\u2028e", "\nf\n"]).splitlines()[1:4] == ["1. a b", "2. c d e", "3. f"]
    assert "{'product1': 'a b'}" in build_prompt(["a\nb"], fmt="aicl")


# --- all sessions, as they were written before prompts knew their titles ---


def as_before(titles, fmt):
    if fmt == "aicl":
        listed = str({f"product{number}": title for number, title in enumerate(titles, start=1)})
    else:
        listed = "\n".join(f"{number}. {title}" for number, title in enumerate(titles, start=1))
    return f"Products:\n{listed}\nBundles:\n"


def check_sessions(sessions, tokenizer):
    for session in sessions:
        for fmt in FORMATS:
            text = as_before(session.titles, fmt)
            prompt = build_prompt(session.titles, fmt=fmt)
            assert prompt == text
            assert encode_prompt(prompt, tokenizer) == tokenizer(text)["input_ids"]


def test_the_toy_shop_is_written_as_ever():
    tokenizer = load_student("toy", device="cpu").tokenizer
    check_sessions([s for split in SPLITS for s in load_domain("toyshop", split).sessions[:20]], tokenizer)


def test_the_public_sessions_are_written_as_ever(mirror):
    tokenizer = load_student("toy", device="cpu").tokenizer
    for name in PUBLIC_DOMAINS:
        check_sessions(load_domain(name, "test").sessions[::9], tokenizer)
