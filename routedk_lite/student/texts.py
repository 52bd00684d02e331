"""Texts to learn from that are no sessions: a prompt, and what should be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..data.plaintext import beginning
from ..data.prompts import encode_answer
from .examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Text(NamedTuple):
    """One text; a plain pair `(prompt, answer)` may stand wherever one is taken."""

    prompt: str | Sequence[Mapping[str, str]]
    """A string, read as it stands, behind what the tokenizer puts before every text; or messages with `role` and
    `content`, written by the tokenizer's chat template."""
    answer: str
    """The tokenizer's end token is put behind it."""


def is_text(one: object) -> bool:
    """Whether something is a text, as against a session."""
    return isinstance(one, tuple | list)


def text_prompt_ids(text: Sequence, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of a text's prompt.

    Raises:
        ValueError: the text is no pair, its prompt is empty or neither a string nor messages, or the tokenizer has no
            chat template for messages.
    """
    if len(text) != 2:
        raise ValueError(f"{text!r:.60}: a text is a pair, (prompt, answer)")
    prompt, _ = text
    if isinstance(prompt, str):
        ids = [*beginning(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]] if prompt else []
    elif isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt):
        if not tokenizer.chat_template:
            raise ValueError("the prompt is messages, but the tokenizer has no chat template: give a string")
        written = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)
        ids = tokenizer(written, add_special_tokens=False)["input_ids"] if prompt else []
    else:
        raise ValueError(f"prompt = {prompt!r:.60}: must be a string, or a list of messages with role and content")
    if not ids:
        raise ValueError("the prompt is empty: a router has nothing to look at")
    return ids


def encode_text_example(text: Sequence, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Example:
    """A text in tokens, of which the answer is learned.

    Raises:
        ValueError: it is no text, its answer is no string or empty, it is longer than `max_length` tokens, or the
            tokenizer has no end token.
    """
    prompt = text_prompt_ids(text, tokenizer)
    answer = text[1]
    if not isinstance(answer, str) or not answer:
        raise ValueError(f"answer = {answer!r:.60}: must be a string that is not empty")
    ids = [*prompt, *encode_answer(answer, tokenizer)]
    if len(ids) > max_length:
        raise ValueError(f"{len(ids)} tokens, more than max_length = {max_length}. Raise it, or shorten the text.")
    return Example(ids, len(prompt), [], [])
