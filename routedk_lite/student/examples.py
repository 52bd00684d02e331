"""Training texts in tokens: prompt, answer, where the titles stand, and items in a new order each epoch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import KnowledgeConfig, PromptConfig
from ..data.formats import get_format, letters_of
from ..data.prompts import (
    Context,
    encode_answer,
    encode_slots,
    format_answer,
    session_prompt,
    shorten,
    title_spans,
    tokenize_prompt,
)
from ..data.sessions import Session, about
from ..teacher.knowledge import Knowledge, mask_references, rewrite_references

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Example(NamedTuple):
    """One training text in tokens."""

    input_ids: list[int]
    """Prompt and answer."""
    n_prompt: int
    """How many of them belong to the prompt."""
    spans: list[tuple[int, int]]
    """First token of each title, and the one behind its last."""
    together: list[list[int]]
    """(items, items): 1 where two items share a bundle."""
    learned: list[int] | None = None
    """Places of the tokens that are learned, in an answer of which the rest is given; `None`: the whole answer."""

    def row(self) -> dict[str, Any]:
        """As the collator takes it, and as the digest of a training counts it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def encode_example(
    session: Session,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    *,
    max_length: int,
    knowledge: Knowledge | None = None,
    told: KnowledgeConfig | None = None,
    order: Sequence[int] | None = None,
    pairs_at: str = "titles",
) -> Example:
    """A session's prompt and its annotated answer as tokens, with what a teacher knows about it if that is asked for.

    Args:
        session: a training or validation session.
        tokenizer: the student's; a fast one.
        prompt: how sessions are written.
        max_length: tokens that are allowed.
        knowledge: a teacher's knowledge of the training sessions.
        told: which part of it stands where.
        order: show the items in this order (indices from 0); texts that name items are rewritten.
        pairs_at: where the states of items are read, as `PairConfig.at`; `spans` are these places.

    Raises:
        KeyError: the teacher knows nothing about this session, which is no training session.
        ValueError: the text is longer than `max_length` tokens, or the format has no lines, or no room for reasoning;
            the prompt cannot be written, the tokenizer is a slow one, or it has no end token.
    """
    hints = reasoning = ""
    if knowledge is not None and told is not None:
        hints = knowledge.text(session, told.kind)
        if order is not None:
            now = {old + 1: str(new + 1) for new, old in enumerate(order)}
            hints = rewrite_references(hints, len(session), now.__getitem__, explicit=knowledge.explicit)
        if told.place == "masked":
            hints = mask_references(hints, len(session), explicit=knowledge.explicit)
        if told.place == "target":
            hints, reasoning = "", hints
        if told.place == "distilled":  # the teacher reads them, this student never does
            hints = ""
    if order is not None:
        session = session.permuted(order)
    with about(session):
        text = session_prompt(session, tokenizer, prompt, Context(hints))
        encoded = tokenize_prompt(text, tokenizer)
        answer, places = _encode_answer(session, tokenizer, prompt, reasoning)
        ids, n_prompt = encoded.ids + answer, len(encoded.ids)
        learned = None if places is None else [n_prompt + place for place in places]
        if len(ids) > max_length:
            raise ValueError(
                f"{len(ids)} tokens, more than max_length = {max_length}. "
                "Raise it, or shorten titles with PromptConfig.max_title_words."
            )
        if pairs_at == "titles":
            spans = title_spans(text, encoded)
        elif learned is None:
            raise ValueError(f"pairs_at = 'lines': an answer in the format {prompt.fmt!r} has no line for each item")
        else:
            spans = [(place - 1, place) for place in learned]
    return Example(ids, n_prompt, spans, session.together().astype(int).tolist(), learned)


def _encode_answer(
    session: Session, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, reasoning: str
) -> tuple[list[int], list[int] | None]:
    """Tokens of the annotated answer, and the places of those that are learned where the rest is given."""
    style, titles = get_format(prompt.fmt), shorten(session.titles, prompt.max_title_words)
    if style.slots is None:
        answer = format_answer(session.bundles, fmt=prompt.fmt, titles=titles, reasoning=reasoning)
        return encode_answer(answer, tokenizer), None
    if reasoning:
        raise ValueError(f"fmt = {prompt.fmt!r} has no room for reasoning before the answer: tell it in the prompt")
    slots = style.slots(titles)
    return encode_slots(slots, tokenizer).ids(letters_of(session.bundles, len(session)))


class SessionExamples(Sequence):
    """The examples of an epoch, encoded when they are asked for.

    Args:
        sessions: what they are made of.
        encode: session and order of its items (or `None`) → example.
        permute: whether items come in another order each epoch.
        seed: of those orders, which depend on it, the epoch and the session alone.
    """

    def __init__(
        self,
        sessions: Iterable[Session],
        encode: Callable[[Session, Sequence[int] | None], Example],
        *,
        permute: bool = False,
        seed: int = 0,
    ) -> None:
        self.sessions, self.encode, self.permute, self.seed = tuple(sessions), encode, permute, seed
        self.plain = [encode(session, None).row() for session in self.sessions]
        """The examples with their items in session order."""
        self.epoch = 0
        """Set at the beginning of each epoch."""

    def __len__(self) -> int:
        return len(self.sessions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.permute:
            return self.plain[index]
        session = self.sessions[index]
        chance = random.Random(f"{self.seed}-{self.epoch}-{session.id}")
        return self.encode(session, chance.sample(range(len(session)), len(session))).row()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example; another order changes them by little."""
        return [len(row["input_ids"]) for row in self.plain]
