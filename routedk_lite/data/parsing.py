"""Answer text back to bundles: the only parser.

How an answer of a format is read is said by its grammar (`grammars`); here is what holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_uppercase
from typing import NamedTuple

from .formats import get_format
from .grammars import NO_BUNDLE, Group
from .prompts import ANSWER_MARK
from .sessions import Bundle
from .thoughts import without_thoughts


class Problem(NamedTuple):
    """One thing that was wrong with a model's answer."""

    kind: str
    """`out of range`, `single item`, `duplicate`, or `unreadable`: whatever is passed over."""
    detail: str
    """The piece of the answer that it concerns, shortened."""


class ParsedAnswer(NamedTuple):
    """What could be read from a model's answer."""

    bundles: tuple[Bundle, ...]
    """Bundles of two or more items in the order of the answer; a bundle given twice stands here twice."""
    problems: tuple[Problem, ...]


def parse_answer(text: str, n_items: int, fmt: str = "compact") -> ParsedAnswer:
    """Read the bundles in a model's answer. Never raises, whatever the model wrote, in time linear in its length.

    Thoughts are no answer: they are taken out first, and one that was cut off is taken out to the end. Where lines say
    "Bundles:", what follows the last of them that anything follows is read; what stood behind earlier ones is reported.
    Within that, the format's grammar decides (`grammars`).

    Item numbers beyond the session are dropped, then bundles with fewer than two items. Each of these, every
    repetition, and every piece that is not in the grammar is reported. More forgiving than AICL's parser, which gives
    up a whole session for one bad bracket.

    Args:
        text: the answer, without the prompt and special tokens.
        n_items: number of items in the session.
        fmt: answer format, a key of `FORMATS`.

    Raises:
        ValueError: no such format.

    >>> parse_answer("1 3\\n2 9\\nhello", n_items=4).bundles
    (frozenset({1, 3}),)
    """
    style, text = get_format(fmt), without_thoughts(text)
    answer, passed_over = _behind_mark(text)
    return check_groups([*passed_over, *style.read_groups(answer, n_items)], n_items, text)


def _behind_mark(text: str) -> tuple[str, list[str]]:
    """What stands behind the last line "Bundles:" that anything stands behind, and what stood behind earlier ones.

    A text without such a line is an answer as a whole; one that ends with it has none.
    """
    parts: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.strip() == ANSWER_MARK.strip():
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return text, []
    answers = [answer for part in parts[1:] if (answer := "".join(part)).strip()]
    return (answers[-1], [answer.strip() for answer in answers[:-1]]) if answers else ("", [])


def read_letters(letters: str) -> ParsedAnswer | None:
    """Read an answer in letters, of which records keep the letters alone, one per item; `None` if it is something else.

    >>> read_letters("A - A B")
    ParsedAnswer(bundles=(frozenset({1, 3}),), problems=(Problem(kind='single item', detail='4'),))
    """
    each = letters.split(" ")
    if not all(letter == NO_BUNDLE or (len(letter) == 1 and letter in ascii_uppercase) for letter in each):
        return None
    groups: dict[str, list[str]] = {}
    for number, letter in enumerate(each, start=1):
        if letter != NO_BUNDLE:
            groups.setdefault(letter, []).append(str(number))
    return check_groups(groups.values(), len(each), letters)


def check_groups(groups: Iterable[Group], n_items: int, text: str) -> ParsedAnswer:
    """The bundles among the groups of an answer, and what is wrong with the others.

    Args:
        groups: as a grammar reads them.
        n_items: number of items in the session.
        text: shown where there is nothing at all.
    """
    bundles: list[Bundle] = []
    problems: list[Problem] = []
    seen: set[Bundle] = set()
    for group in groups:
        if isinstance(group, str):
            problems.append(Problem("unreadable", group[:60]))
            continue
        shown = " ".join(group)[:60]
        numbers = [int(n) for n in group if len(n) < 10 and 1 <= int(n) <= n_items]
        bundle = frozenset(numbers)
        if len(numbers) < len(group):
            problems.append(Problem("out of range", shown))
        if len(bundle) < len(numbers) or bundle in seen:
            problems.append(Problem("duplicate", shown))
        if len(bundle) < 2:
            problems.append(Problem("single item", shown))
        else:
            bundles.append(bundle)
            seen.add(bundle)
    if not bundles and not problems:
        problems.append(Problem("unreadable", text.strip()[:60]))
    return ParsedAnswer(tuple(bundles), tuple(problems))
