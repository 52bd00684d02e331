"""Chat templates of many kinds: what a system says is always said, and every turn stands where the template puts it."""

from __future__ import annotations

import pytest
from tokenized import CHATS, DROPS_SYSTEM, PLAIN_CHAT, byte_level

from routedk_lite.data.chat import Piece, TemplateError, Turn, opened_thought, write_chat
from routedk_lite.data.formats import FORMATS
from routedk_lite.data.prompts import build_prompt, encode_prompt
from routedk_lite.data.sessions import Session

SOLVED = Session(id=1, items=("a", "b"), titles=("pot", "lid"), bundles=(frozenset({1, 2}),))


@pytest.fixture
def tokenizer():
    return byte_level()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("shown", [(), (SOLVED,), (SOLVED, SOLVED)])
def test_instruction_demonstrations_and_question_are_said_in_order(tokenizer, chat, fmt, shown):
    tokenizer.chat_template = CHATS[chat]
    style = FORMATS[fmt]
    text = build_prompt(["tea", "cup"], fmt=fmt, tokenizer=tokenizer, demonstrations=shown, hints="A hint.")
    assert text.count(style.task + style.instruction) == 1
    assert text.count("Products:\n") == len(shown) + 1
    assert text.rindex("tea") > text.rindex("Products:") and text.endswith(text[text.rindex("A hint.") :])
    assert [text[a:b] for a, b in text.titles] == ["tea", "cup"]


def test_a_system_that_is_refused_speaks_at_the_beginning_of_the_users_turn(tokenizer):
    tokenizer.chat_template = CHATS["refuses"]
    text = build_prompt(["tea", "cup"], tokenizer=tokenizer)
    style = FORMATS["compact"]
    asked = f"{style.task}{style.instruction}\n\nProducts:\n1. tea\n2. cup"
    assert text == f"<s><start_of_turn>user\n{asked}<end_of_turn>\n<start_of_turn>model"
    assert encode_prompt(text, tokenizer).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no chats') }}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",  # writes nothing that is said
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{{ messages[0].content['parts'][0].text }}",
    ],
)
def test_a_template_that_does_not_write_the_turns_is_named_with_the_way_out(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=r"chat template .*; set tokenizer\.chat_template = None"):
        build_prompt(["tea", "cup"], tokenizer=tokenizer)


def test_a_template_changes_nothing_of_what_is_said(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] | trim | replace('tea', 'TEA') }}"
        "{% endfor %}"
    )
    assert "1. my </think> tea" in build_prompt(["my </think> tea"], tokenizer=tokenizer)


def test_a_conversation_without_a_system_is_written_as_it_is(tokenizer):
    tokenizer.chat_template = PLAIN_CHAT
    said = write_chat(tokenizer, [Turn("user", [Piece("How?")])])
    assert said == "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n"
    assert [said[a:b] for a, b in said.plain] == ["How?"]


@pytest.mark.parametrize(
    ("end", "opened"),
    [
        ("<|im_start|>assistant\n", ""),
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("[/INST][THINK]", "[THINK]"),
    ],
)
@pytest.mark.parametrize("turns", [DROPS_SYSTEM, "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_a_thought_that_a_template_begins_is_known(tokenizer, turns, end, opened):
    tokenizer.chat_template = f"{turns}{{{{ {end!r} }}}}"
    assert opened_thought(tokenizer) == opened
    tokenizer.chat_template = None
    assert opened_thought(tokenizer) == ""
