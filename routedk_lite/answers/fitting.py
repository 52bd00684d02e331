"""Whether a student can be asked about a session at all, before hours are spent on others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import PromptConfig
from ..data.formats import get_format
from ..data.prompts import (
    encode_answer,
    encode_slots,
    format_answer,
    session_prompt,
    shorten,
    title_spans,
    tokenize_prompt,
)
from ..data.sessions import Session
from ..student.generation import check_tokens, context_length
from .partitions import LARGEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..student.backbone import Student


def misfit(session: Session, student: Student, prompt: PromptConfig, *, pairs: bool = False) -> str | None:
    """Why a student cannot be asked about a session; `None` if it can.

    Args:
        session: what is to be asked about.
        student: without experts, which change neither its tokens nor its context.
        prompt: how sessions are written.
        pairs: whether pairs are read from its states, as long as the session is not too long for that.
    """
    tokenizer = student.tokenizer
    try:
        text = session_prompt(session, tokenizer, prompt)
        encoded = tokenize_prompt(text, tokenizer)
        check_tokens([encoded.ids], student.model, tokenizer)
        in_pairs = pairs and len(session) <= LARGEST
        if in_pairs:
            title_spans(text, encoded)
        tokens = len(encoded.ids) + (0 if in_pairs else longest_answer(session, tokenizer, prompt))
    except ValueError as error:
        return str(error)
    room = context_length(student.model)
    if room is not None and tokens > room:
        return f"{tokens:,} tokens with its answer, more than the {room:,} of the student's context: shorten its titles"
    return None


def longest_answer(session: Session, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig) -> int:
    """Tokens of an answer that puts all items into bundles of two."""
    style, titles = get_format(prompt.fmt), shorten(session.titles, prompt.max_title_words)
    if style.slots is not None:
        given = encode_slots(style.slots(titles), tokenizer).given
        return sum(map(len, given)) + len(given)
    pairs = [(k, k + 1) for k in range(1, len(session), 2)]
    return len(encode_answer(format_answer(pairs, fmt=prompt.fmt, titles=titles), tokenizer))
