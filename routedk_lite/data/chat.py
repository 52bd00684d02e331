"""Prompts made of pieces, and the chat templates that put turns into words.

How a template writes turns is found out with stand-ins in the place of what is said. So it is known where every turn
stands, whatever it says, and a template can neither change nor swallow it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .plaintext import Span
from .thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEY = secrets.token_hex(8)
"""Nothing that stands in a template by chance, nor by design."""
_STAND_IN = re.compile(rf"\ufdd0{_KEY}:([0-9]+)\ufdd1")


class TemplateError(ValueError):
    """A chat template does not write the turns that it is given."""


class Piece(NamedTuple):
    """A part of a prompt."""

    text: str
    is_plain: bool = True
    """Whether it is no chat template's: what looks like a special token in it is none."""
    is_title: bool = False
    """Whether it is one of the titles that are asked about."""


class Prompt(str):
    """The text of a prompt, made of pieces. A part of it, or a text that it stands in, is an ordinary string again."""

    titles: tuple[Span, ...]
    """Where each title stands, in characters."""
    plain: tuple[Span, ...]
    """Where nothing is a special token."""

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Prompt:
        """The pieces as one text."""
        pieces = list(pieces)
        prompt = cls("".join(piece.text for piece in pieces))
        titles, plain, at = [], [], 0
        for piece in pieces:
            place = (at, at + len(piece.text))
            if piece.is_title:
                titles.append(place)
            if piece.is_plain:
                start = plain.pop()[0] if plain and plain[-1][1] == at else at
                plain.append((start, place[1]))
            at = place[1]
        prompt.titles, prompt.plain = tuple(titles), tuple(plain)
        return prompt


class Turn(NamedTuple):
    """What one side says in a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    pieces: Sequence[Piece]


def chat_frame(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> list[str | int]:
    """What a chat template writes around turns of these roles, up to where the assistant's next answer begins.

    Returns:
        The template's texts, and in their places the turns' numbers, counted from 0: text first and last, in turn.

    Raises:
        TemplateError: the template refuses the turns, or does not write each of them once.
    """
    from jinja2 import TemplateError as JinjaError

    turns = [{"role": role, "content": f"\ufdd0{_KEY}:{k}\ufdd1"} for k, role in enumerate(roles)]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (JinjaError, TypeError) as error:
        raise TemplateError(f"the student's chat template refuses the turns {', '.join(roles)}: {error}") from error
    pieces = _STAND_IN.split(text)
    frame = [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]
    if sorted(frame[1::2]) != list(range(len(roles))):
        raise TemplateError(f"the student's chat template does not write each of the turns {', '.join(roles)} once")
    return frame


def write_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> Prompt:
    """A conversation as a chat template writes it, up to where the assistant's next answer begins.

    Where a template knows no system, what a system says in the first turn stands at the beginning of the next.

    Args:
        tokenizer: its chat template is used.
        turns: the conversation.

    Raises:
        TemplateError: the template does not write these turns; the way out is to take it off the tokenizer.
    """
    try:
        frame = chat_frame(tokenizer, [turn.role for turn in turns])
    except TemplateError as error:
        if len(turns) < 2 or turns[0].role != "system":
            raise TemplateError(f"{error}; set tokenizer.chat_template = None to ask in plain text") from error
        told, first, *others = turns
        return write_chat(tokenizer, [first._replace(pieces=[*told.pieces, Piece("\n\n"), *first.pieces]), *others])
    parts = [turns[part].pieces if isinstance(part, int) else [Piece(part, is_plain=False)] for part in frame]
    return Prompt.of(piece for part in parts for piece in part)


def opened_thought(tokenizer: PreTrainedTokenizerBase) -> str:
    """The mark with which a chat template begins a thought of the student's, if it leaves one open; else nothing.

    It belongs before what the student writes: only with it can be told what is a thought.
    """
    if not tokenizer.chat_template:
        return ""
    asked = write_chat(tokenizer, [Turn("system", [Piece("a")]), Turn("user", [Piece("a")])])
    before = asked[asked.plain[-1][1] :]
    outside = without_thoughts(before)
    return "" if without_thoughts(f"{before}\ufdd1").endswith("\ufdd1") else before[len(outside) :]
