"""Sessions to prompt text and bundles to answer text, and both to tokens. Answers are read in `parsing`.

What an answer looks like is said by its format (`formats`). A prompt knows where its titles stand and which of it
people wrote (`chat`): nothing of that is searched for afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..config import PromptConfig
from .chat import Piece, Prompt, Turn, write_chat
from .formats import AnswerFormat, Slots, get_format
from .plaintext import Encoded, Span, beginning, encode_text
from .sessions import Session, about
from .thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRODUCTS_MARK = "Products:\n"
ANSWER_MARK = "Bundles:\n"
"""Stands before the bundles: at the end of a plain prompt, and after the reasoning where a student writes its own."""


class Context(NamedTuple):
    """What stands in a prompt beside the session that is asked about (in-context use of knowledge)."""

    hints: str = ""
    """A teacher's knowledge, put below the products."""
    demonstrations: tuple[Session, ...] = ()
    """Training sessions with their annotated bundles, put above."""


ContextOf = Callable[[Session], Context]
"""Gives each session its context."""


def build_prompt(
    titles: Sequence[str],
    *,
    fmt: str = "compact",
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_title_words: int | None = None,
    hints: str = "",
    demonstrations: Iterable[Session] = (),
) -> Prompt:
    """The prompt for one session. It is a string.

    Args:
        titles: one title per item, in session order. Each is written on one line.
        fmt: answer format, a key of `FORMATS`.
        tokenizer: if it has a chat template, the prompt is a system and a user turn, or a user turn alone where the
            template knows no system; otherwise plain text.
        max_title_words: titles are cut to this many words; `None` keeps them whole.
        hints: a teacher's knowledge about this session, put below the products.
        demonstrations: training sessions that are shown first, with their annotated bundles.

    Raises:
        ValueError: a title is no text, or the chat template refuses the turns.

    >>> print(build_prompt(["tea pot", "tea cup"]), end="")
    Products:
    1. tea pot
    2. tea cup
    Bundles:
    """
    style = get_format(fmt)
    shown = [
        (
            _question(style, d.titles, max_title_words),
            format_answer(d.bundles, fmt=fmt, titles=shorten(d.titles, max_title_words)),
        )
        for d in demonstrations
    ]
    body = _question(style, titles, max_title_words, asked=True)
    if hints:
        body.append(Piece(f"Hints:\n{hints}\n"))
    if tokenizer is None or not tokenizer.chat_template:
        above = [[*asked, Piece(f"{ANSWER_MARK}{answer}\n\n")] for asked, answer in shown]
        return Prompt.of([piece for part in above for piece in part] + [*body, Piece(ANSWER_MARK)])
    turns = [Turn("system", [Piece(style.task + style.instruction)])]
    for asked, answer in shown:
        turns += [Turn("user", _rstripped(asked)), Turn("assistant", [Piece(answer)])]
    return write_chat(tokenizer, [*turns, Turn("user", _rstripped(body))])


def _question(style: AnswerFormat, titles: Sequence[str], max_words: int | None, *, asked: bool = False) -> list[Piece]:
    pieces = style.list_titles(shorten(titles, max_words))
    listed = [Piece(piece, is_title=asked and place % 2 == 1) for place, piece in enumerate(pieces)]
    return [Piece(PRODUCTS_MARK), *listed, Piece("\n")]


def _rstripped(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces without the spaces at their end, as a turn of a conversation."""
    left, kept = len("".join(piece.text for piece in pieces).rstrip()), []
    for piece in pieces:
        kept.append(piece._replace(text=piece.text[:left]))
        left -= len(kept[-1].text)
    return kept


def session_prompt(
    session: Session, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, context: Context | None = None
) -> Prompt:
    """The prompt for a session, written as a configuration says."""
    beside = (context or Context())._asdict()
    return build_prompt(
        session.titles, fmt=prompt.fmt, tokenizer=tokenizer, max_title_words=prompt.max_title_words, **beside
    )


class Row(NamedTuple):
    """A session that is to be read by a student."""

    session: Session
    spans: list[Span] | None
    """Tokens of each title: the first, and the one behind the last. `None` where they were not asked for."""
    ids: list[int]
    """Tokens of its prompt."""


def prompt_batches(
    sessions: Iterable[Session],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    size: int,
    context: ContextOf | None = None,
    *,
    spans: bool = False,
    most_pairs: int | None = None,
) -> Iterator[list[Row]]:
    """Sessions with the tokens of their prompts, longest first: what needs most memory fails at once or not at all.

    Args:
        sessions: what is asked about.
        tokenizer: the student's.
        prompt: how sessions are written.
        size: sessions at a time.
        context: what stands beside each of them.
        spans: find the titles among the tokens too.
        most_pairs: pairs of tokens in a batch, padding included: fewer sessions at a time where prompts are long.

    Raises:
        ValueError: a prompt cannot be written, or its titles cannot be found.
    """
    rows = []
    for session in sessions:
        with about(session):
            text = session_prompt(session, tokenizer, prompt, context and context(session))
            encoded = tokenize_prompt(text, tokenizer)
            rows.append(Row(session, title_spans(text, encoded) if spans else None, encoded.ids))
    rows.sort(key=lambda row: (-len(row.ids), row.session.id))
    while rows:
        n = size if most_pairs is None else max(1, min(size, most_pairs // len(rows[0].ids) ** 2))
        yield rows[:n]
        rows = rows[n:]


def shorten(titles: Sequence[str], max_words: int | None) -> list[str]:
    """Titles cut to so many words; `None` keeps them whole."""
    return [title if max_words is None else " ".join(title.split()[:max_words]) for title in titles]


def tokenize_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokens of a prompt and their places in it.

    What stands before a text of this tokenizer's is put there, nothing behind it; a chat template has written both
    itself. A string that is no `Prompt` is plain, or, for a student with a chat template, what that template wrote.
    """
    if tokenizer.chat_template:
        return encode_text(prompt, tokenizer, getattr(prompt, "plain", ()))
    first, encoded = beginning(tokenizer), encode_text(prompt, tokenizer)
    places = encoded.places and [(0, 0)] * len(first) + encoded.places
    return Encoded(first + encoded.ids, places)


def encode_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, as `tokenize_prompt` makes them."""
    return tokenize_prompt(prompt, tokenizer).ids


def title_spans(prompt: Prompt, encoded: Encoded) -> list[Span]:
    """Where each title stands in the tokens of a prompt: its first token, and the one behind its last.

    Args:
        prompt: as it was built.
        encoded: its tokens, from `tokenize_prompt`.

    Raises:
        ValueError: the tokenizer does not know where its tokens stand, or a title has none.
    """
    if encoded.places is None:
        raise ValueError(
            "this student's tokenizer is a slow one, which does not say where its tokens stand in a text: pairs of "
            "titles cannot be read, and no expert be trained; take a student with a fast tokenizer (tokenizer.json)"
        )
    spans = []
    for number, (start, end) in enumerate(prompt.titles, start=1):
        inside = [k for k, (a, b) in enumerate(encoded.places) if b > start and a < end and b > a]
        if not inside:
            raise ValueError(f"the title of item {number}, {prompt[start:end]!r}, has no token of this student's")
        spans.append((inside[0], inside[-1] + 1))
    return spans


def encode_answer(answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of an answer with the end-of-sequence token that closes it.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the student's tokenizer names no end token, so no answer can end: set tokenizer.eos_token")
    return [*encode_text(answer, tokenizer).ids, tokenizer.eos_token_id]


class SlotTokens(NamedTuple):
    """`formats.Slots` in the tokens of a student."""

    given: list[list[int]]
    """Tokens before each choice."""
    choices: list[int]
    """The token of each choice."""

    def ids(self, chosen: Sequence[int]) -> tuple[list[int], list[int]]:
        """Tokens of a whole answer, and where among them the choices stand."""
        ids, places = [], []
        for given, choice in zip(self.given, chosen, strict=True):
            ids += given
            places.append(len(ids))
            ids.append(self.choices[choice])
        return ids, places


def encode_slots(slots: Slots, tokenizer: PreTrainedTokenizerBase) -> SlotTokens:
    """What is given of an answer, and what may be chosen, in tokens.

    Raises:
        ValueError: a choice takes more than one token, whatever stands before it, or two take the same.
    """

    def encode(text: str) -> list[int]:
        return encode_text(text, tokenizer).ids

    choices = [encode(choice) for choice in slots.choices]
    same = 0  # tokens with which all of them begin: a tokenizer may keep the space apart
    while all(len(ids) > same + 1 for ids in choices) and len({ids[same] for ids in choices}) == 1:
        same += 1
    if long := [text for text, ids in zip(slots.choices, choices, strict=True) if len(ids) != same + 1]:
        raise ValueError(f"{long[0]!r} is more than one token for this student: it cannot choose among {slots.choices}")
    chosen = [ids[same] for ids in choices]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"two of {slots.choices} are the same token for this student: it cannot choose among them")
    return SlotTokens([encode(text) + choices[0][:same] for text in slots.given], chosen)


def format_answer(
    bundles: Iterable[Iterable[int]], *, fmt: str = "compact", titles: Sequence[str] = (), reasoning: str = ""
) -> str:
    """Bundles as answer text: each distinct bundle once, items and bundles sorted, so that one answer has one text.

    With `reasoning`, that stands before the bundles. The format `letters` repeats the first words of `titles`.

    >>> format_answer([{5, 2}, {3, 1}, {1, 3}])
    '1 3\\n2 5'
    """
    answer = get_format(fmt).write_bundles(sorted(sorted(b) for b in {frozenset(b) for b in bundles}), titles)
    reasoning = without_thoughts(reasoning)
    return f"{reasoning}\n{ANSWER_MARK}{answer}" if reasoning else answer
