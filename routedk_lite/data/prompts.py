"""Sessions to prompt text, bundles to answer text, and answer text back to bundles (the only parser).

What an answer looks like is said by its format (`formats`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..config import PromptConfig
from .formats import Slots, get_format
from .sessions import Bundle, Session

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRODUCTS_MARK = "Products:\n"
ANSWER_MARK = "Bundles:\n"
"""Stands before the bundles: at the end of a plain prompt, and after the reasoning where a student writes its own."""


class Problem(NamedTuple):
    """One thing that was wrong with a model's answer."""

    kind: str
    """`out of range`, `single item`, `duplicate` or `unreadable`."""
    detail: str
    """The piece of the answer that it concerns, shortened."""


class ParsedAnswer(NamedTuple):
    """What could be read from a model's answer."""

    bundles: tuple[Bundle, ...]
    """Bundles of two or more items in the order of the answer; a bundle given twice stands here twice."""
    problems: tuple[Problem, ...]


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
) -> str:
    """The prompt text for one session.

    Args:
        titles: one title per item, in session order.
        fmt: answer format, a key of `FORMATS`.
        tokenizer: if it has a chat template, the prompt is a system and a user turn; otherwise plain text.
        max_title_words: titles are cut to this many words; `None` keeps them whole.
        hints: a teacher's knowledge about this session, put below the products.
        demonstrations: training sessions that are shown first, with their annotated bundles.

    >>> print(build_prompt(["tea pot", "tea cup"]), end="")
    Products:
    1. tea pot
    2. tea cup
    Bundles:
    """
    style = get_format(fmt)

    def question(asked: Sequence[str]) -> str:
        return f"{PRODUCTS_MARK}{style.write_titles(shorten(asked, max_title_words))}\n"

    shown = [
        (question(d.titles), format_answer(d.bundles, fmt=fmt, titles=shorten(d.titles, max_title_words)))
        for d in demonstrations
    ]
    body = question(titles) + (f"Hints:\n{hints}\n" if hints else "")
    if tokenizer is None or not tokenizer.chat_template:
        return "".join(f"{asked}{ANSWER_MARK}{answer}\n\n" for asked, answer in shown) + body + ANSWER_MARK
    turns = [{"role": "system", "content": style.task + style.instruction}]
    for asked, answer in shown:
        turns += [{"role": "user", "content": asked.rstrip()}, {"role": "assistant", "content": answer}]
    turns.append({"role": "user", "content": body.rstrip()})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def session_prompt(
    session: Session, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, context: Context | None = None
) -> str:
    """The prompt text for a session, written as a configuration says."""
    beside = (context or Context())._asdict()
    return build_prompt(
        session.titles, fmt=prompt.fmt, tokenizer=tokenizer, max_title_words=prompt.max_title_words, **beside
    )


def prompt_batches(
    sessions: Iterable[Session],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    size: int,
    context: ContextOf | None = None,
) -> Iterator[list[tuple[Session, str, list[int]]]]:
    """Sessions with their prompts, text and tokens, longest first: what needs most memory fails at once or not at all.

    Args:
        sessions: what is asked about.
        tokenizer: the student's.
        prompt: how sessions are written.
        size: sessions at a time.
        context: what stands beside each of them.
    """
    texts = [(s, session_prompt(s, tokenizer, prompt, context and context(s))) for s in sessions]
    rows = [(s, text, encode_prompt(text, tokenizer)) for s, text in texts]
    rows.sort(key=lambda row: (-len(row[2]), row[0].id))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def shorten(titles: Sequence[str], max_words: int | None) -> list[str]:
    """Titles cut to so many words; `None` keeps them whole."""
    return [title if max_words is None else " ".join(title.split()[:max_words]) for title in titles]


def encode_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt; a chat template has already written its own special tokens."""
    return tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"]


def encode_answer(answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of an answer with the end-of-sequence token that closes it."""
    return [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


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
        ValueError: a choice takes more than one token, whatever stands before it.
    """

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    choices = [encode(choice) for choice in slots.choices]
    same = 0  # tokens with which all of them begin: a tokenizer may keep the space apart
    while all(len(ids) > same + 1 for ids in choices) and len({ids[same] for ids in choices}) == 1:
        same += 1
    if long := [text for text, ids in zip(slots.choices, choices, strict=True) if len(ids) != same + 1]:
        raise ValueError(f"{long[0]!r} is more than one token for this student: it cannot choose among {slots.choices}")
    given = [encode(text) + choices[0][:same] for text in slots.given]
    return SlotTokens(given, [ids[same] for ids in choices])


def format_answer(
    bundles: Iterable[Iterable[int]], *, fmt: str = "compact", titles: Sequence[str] = (), reasoning: str = ""
) -> str:
    """Bundles as answer text: each distinct bundle once, items and bundles sorted, so that one answer has one text.

    With `reasoning`, that stands before the bundles. The format `letters` repeats the first words of `titles`.

    >>> format_answer([{5, 2}, {3, 1}, {1, 3}])
    '1 3\\n2 5'
    """
    answer = get_format(fmt).write_bundles(sorted(sorted(b) for b in {frozenset(b) for b in bundles}), titles)
    return f"{reasoning}\n{ANSWER_MARK}{answer}" if reasoning else answer


def parse_answer(text: str, n_items: int, fmt: str = "compact") -> ParsedAnswer:
    """Read the bundles in a model's answer. Never raises, whatever the model wrote.

    Where the answer holds the line "Bundles:", only what follows its last occurrence is read.

    Item numbers beyond the session are dropped, then bundles with fewer than two items; groups that are no list of
    items are skipped. Each of these, and every repetition, is reported. More forgiving than AICL's parser, which
    gives up a whole session for one bad bracket.

    Args:
        text: the answer, without the prompt and special tokens.
        n_items: number of items in the session.
        fmt: answer format, a key of `FORMATS`.

    >>> parse_answer("1 3\\n2 9\\nhello", n_items=4).bundles
    (frozenset({1, 3}),)
    """
    bundles: list[Bundle] = []
    problems: list[Problem] = []
    for group in get_format(fmt).read_groups(text.rpartition(ANSWER_MARK)[2]):
        if isinstance(group, str):
            problems.append(Problem("unreadable", group[:60]))
            continue
        shown = " ".join(group)[:60]
        numbers = [int(n) for n in group if len(n) < 10 and 1 <= int(n) <= n_items]
        bundle = frozenset(numbers)
        if len(numbers) < len(group):
            problems.append(Problem("out of range", shown))
        if len(bundle) < len(numbers) or bundle in bundles:
            problems.append(Problem("duplicate", shown))
        if len(bundle) < 2:
            problems.append(Problem("single item", shown))
        else:
            bundles.append(bundle)
    if not bundles and not problems:
        problems.append(Problem("unreadable", text.strip()[:60]))
    return ParsedAnswer(tuple(bundles), tuple(problems))
