"""Sessions to prompt text, bundles to answer text, and answer text back to bundles (the only parser).

Two answer formats: `compact`, one line of item numbers per bundle, short enough for a small student; and `aicl`, the
dictionary form of the published AICL prompt (arXiv 2312.16262). The wording of the instructions is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..config import PromptConfig
from .sessions import Bundle, Session

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK = (
    "A bundle is a set of at least two products that one shopper wants together, as alternatives or because they "
    "complement each other. Find the bundles among the numbered products of one shopping session. "
)
"""What students and teachers alike are told."""

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


class AnswerFormat(NamedTuple):
    """How sessions and bundles are written."""

    instruction: str
    """What a chat model is told; a student without a chat template learns the task from examples alone."""
    write_titles: Callable[[Sequence[str]], str]
    write_bundles: Callable[[list[list[int]]], str]
    read_groups: Callable[[str], Iterable[str | list[str]]]
    """Answer text to groups: a list of item references, or the text of a group that cannot be read."""


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
    style = _format(fmt)

    def question(asked: Sequence[str]) -> str:
        return f"{PRODUCTS_MARK}{style.write_titles(shorten(asked, max_title_words))}\n"

    shown = [(question(d.titles), format_answer(d.bundles, fmt=fmt)) for d in demonstrations]
    body = question(titles) + (f"Hints:\n{hints}\n" if hints else "")
    if tokenizer is None or not tokenizer.chat_template:
        return "".join(f"{asked}{ANSWER_MARK}{answer}\n\n" for asked, answer in shown) + body + ANSWER_MARK
    turns = [{"role": "system", "content": TASK + style.instruction}]
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


def format_answer(bundles: Iterable[Iterable[int]], *, fmt: str = "compact", reasoning: str = "") -> str:
    """Bundles as answer text: each distinct bundle once, items and bundles sorted, so that one answer has one text.

    With `reasoning`, that stands before the bundles.

    >>> format_answer([{5, 2}, {3, 1}, {1, 3}])
    '1 3\\n2 5'
    """
    answer = _format(fmt).write_bundles(sorted(sorted(b) for b in {frozenset(b) for b in bundles}))
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
    for group in _format(fmt).read_groups(text.rpartition(ANSWER_MARK)[2]):
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


# --- the formats --------------------------------------------------------------------------------------------------

_LABEL = re.compile(r"^\s*(?:[-*•]|bundle\s*[0-9]*\s*[:.)=-])\s*", re.IGNORECASE)
_ITEM_LIST = re.compile(
    r"(?:item|product)?s?\s*[0-9]+(?:(?:\s|,|;|&|\+|and|item|product)+[0-9]+)*[\s.,;]*", re.IGNORECASE
)
_NUMBER = re.compile(r"[0-9]+")
_PYTHON_LIST = re.compile(r"\[([^\[\]]*)\]?")


def _numbered_lines(titles: Sequence[str]) -> str:
    return "\n".join(f"{number}. {title}" for number, title in enumerate(titles, start=1))


def _compact_bundles(bundles: list[list[int]]) -> str:
    return "\n".join(" ".join(map(str, bundle)) for bundle in bundles)


def _compact_groups(text: str) -> Iterable[str | list[str]]:
    """One group per line that is not blank."""
    for line in text.splitlines():
        if line.strip():
            content = _LABEL.sub("", line)
            yield _NUMBER.findall(content) if _ITEM_LIST.fullmatch(content) else line.strip()


def _product_dict(titles: Sequence[str]) -> str:
    return str({f"product{number}": title for number, title in enumerate(titles, start=1)})


def _aicl_bundles(bundles: list[list[int]]) -> str:
    return str({f"bundle{i}": [f"product{n}" for n in b] for i, b in enumerate(bundles, start=1)})


def _aicl_groups(text: str) -> Iterable[str | list[str]]:
    """One group per bracketed list; the last may have lost its closing bracket when the answer was cut."""
    for content in _PYTHON_LIST.findall(text):
        entries = [entry.strip(" \t\n'\"") for entry in content.split(",") if entry.strip()]
        numbers = [_NUMBER.search(entry) for entry in entries]
        yield [n.group() for n in numbers] if all(numbers) else content.strip()


FORMATS = {
    "compact": AnswerFormat(
        instruction="Answer with one line per bundle, item numbers only.",
        write_titles=_numbered_lines,
        write_bundles=_compact_bundles,
        read_groups=_compact_groups,
    ),
    "aicl": AnswerFormat(
        instruction="Answer with a dictionary only: {'bundle number': ['product number', ...]}.",
        write_titles=_product_dict,
        write_bundles=_aicl_bundles,
        read_groups=_aicl_groups,
    ),
}
"""The answer formats by name."""


def _format(name: str) -> AnswerFormat:
    if name not in FORMATS:
        raise ValueError(f"unknown answer format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
