"""How answers are written and read: item numbers, AICL's dictionary, or one letter per product.

`compact`, one line of item numbers per bundle, is short enough for a small student. `aicl` is the dictionary of the
published AICL prompt (arXiv 2312.16262). In `letters` the answer goes through the products once more and names the
bundle of each: everything but the letters is given, so a student only chooses letters, and each of them stands right
behind the words that it is about. The wording of the instructions is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from .sessions import Bundle

TASK = (
    "A bundle is a set of at least two products that one shopper wants together, as alternatives or because they "
    "complement each other. Find the bundles among the numbered products of one shopping session. "
)
"""What students and teachers alike are told."""



class Slots(NamedTuple):
    """An answer of which everything is given but one choice behind each piece of text."""

    given: tuple[str, ...]
    """The text before each choice."""
    choices: tuple[str, ...]
    """What may stand there: the letters, and last the mark of no bundle."""

    def legal(self, chosen: Sequence[int]) -> list[int]:
        """Which choices may come next: the letters so far, the next new one, or none. So one set of bundles has one
        text."""
        letters = len({c for c in chosen if c < len(self.choices) - 1})
        return [*range(min(letters + 1, len(self.choices) - 1)), len(self.choices) - 1]

    def text(self, chosen: Sequence[int]) -> str:
        """The whole answer."""
        return "".join(given + self.choices[c] for given, c in zip(self.given, chosen, strict=True))


class AnswerFormat(NamedTuple):
    """How sessions and bundles are written."""

    instruction: str
    """What a chat model is told; a student without a chat template learns the task from examples alone."""
    write_titles: Callable[[Sequence[str]], str]
    write_bundles: Callable[[list[list[int]], Sequence[str]], str]
    """Sorted bundles, and the session's titles, which most formats do not need, → answer text."""
    read_groups: Callable[[str], Iterable[str | list[str]]]
    """Answer text to groups: a list of item references, or the text of a group that cannot be read."""
    task: str = TASK
    """What stands before the instruction."""
    slots: Callable[[Sequence[str]], Slots] | None = None
    """Titles → what is given of the answer; `None` where all of it is free."""


_LABEL = re.compile(r"^\s*(?:[-*•]|bundle\s*[0-9]*\s*[:.)=-])\s*", re.IGNORECASE)
_ITEM_LIST = re.compile(
    r"(?:item|product)?s?\s*[0-9]+(?:(?:\s|,|;|&|\+|and|item|product)+[0-9]+)*[\s.,;]*", re.IGNORECASE
)
_NUMBER = re.compile(r"[0-9]+")
_PYTHON_LIST = re.compile(r"\[([^\[\]]*)\]?")


def _numbered_lines(titles: Sequence[str]) -> str:
    return "\n".join(f"{number}. {title}" for number, title in enumerate(titles, start=1))


def _compact_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    return "\n".join(" ".join(map(str, bundle)) for bundle in bundles)


def _compact_groups(text: str) -> Iterable[str | list[str]]:
    """One group per line that is not blank."""
    for line in text.splitlines():
        if line.strip():
            content = _LABEL.sub("", line)
            yield _NUMBER.findall(content) if _ITEM_LIST.fullmatch(content) else line.strip()


def _product_dict(titles: Sequence[str]) -> str:
    return str({f"product{number}": title for number, title in enumerate(titles, start=1)})


def _aicl_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    return str({f"bundle{i}": [f"product{n}" for n in b] for i, b in enumerate(bundles, start=1)})


def _aicl_groups(text: str) -> Iterable[str | list[str]]:
    """One group per bracketed list; the last may have lost its closing bracket when the answer was cut."""
    for content in _PYTHON_LIST.findall(text):
        entries = [entry.strip(" \t\n'\"") for entry in content.split(",") if entry.strip()]
        numbers = [_NUMBER.search(entry) for entry in entries]
        yield [n.group() for n in numbers] if all(numbers) else content.strip()


# --- letters ---

ECHO_WORDS = 3
"""Of a title that are repeated before its letter: they cost few tokens, and bind the letter to what it is about."""
_NO_BUNDLE = "-"
_LETTER_LINE = re.compile(r"([0-9]{1,9})\.(?: .*)?: ?([A-Z]|-)")


def letter_slots(titles: Sequence[str]) -> Slots:
    """The lines of an answer in letters: number, first words of the title, and room for a letter.

    >>> letter_slots(["Norva linen kitchen apron", "Orbis watch"]).text([0, 0])
    '1. Norva linen kitchen: A\\n2. Orbis watch: A'
    """
    given = [f"{number}. {' '.join(title.split()[:ECHO_WORDS])}:" for number, title in enumerate(titles, start=1)]
    letters = ascii_uppercase[: min(max(len(titles) // 2, 1), len(ascii_uppercase))]
    lines = (given[0], *(f"\n{line}" for line in given[1:])) if given else ()
    return Slots(lines, (*(f" {letter}" for letter in letters), f" {_NO_BUNDLE}"))


def letters_of(bundles: Iterable[Iterable[int]], n_items: int) -> list[int]:
    """The choice for each item, letters in the order in which they first appear; the last choice is no bundle.

    An item of several bundles gets the letter of the first, by their items: overlap cannot be written in letters, and
    about one session in eleven of the public domains has some. Of a bundle that loses all but one item, none is left.

    >>> letters_of([{2, 4}, {3, 4, 5}], 5)
    [2, 0, 1, 0, 1]
    """
    owner: dict[int, int] = {}
    for place, bundle in enumerate(sorted(map(sorted, bundles))):
        for item in bundle:
            owner.setdefault(item, place)
    sizes = {place: list(owner.values()).count(place) for place in owner.values()}
    none, letters, chosen = min(max(n_items // 2, 1), len(ascii_uppercase)), {}, []
    for item in range(1, n_items + 1):
        place = owner.get(item)
        real = place is not None and sizes[place] > 1
        chosen.append(letters.setdefault(place, len(letters)) if real else none)
    return chosen


def _letter_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    if not titles:
        raise ValueError("an answer in letters repeats the titles: give them")
    return letter_slots(titles).text(letters_of(bundles, len(titles)))


def _letter_groups(text: str) -> Iterable[str | list[str]]:
    """One group per letter. A line that is none of this format, and a second letter for an item, cannot be read."""
    groups: dict[str, list[str]] = {}
    seen: set[str] = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LETTER_LINE.fullmatch(line)
        if found is None or found[1] in seen:
            yield line
            continue
        seen.add(found[1])
        if found[2] != _NO_BUNDLE:
            groups.setdefault(found[2], []).append(found[1])
    yield from groups.values()


def read_letters(text: str) -> tuple[Bundle, ...] | None:
    """The bundles of the letters alone, one per item, as records keep an answer; `None` if it is something else.

    >>> read_letters("A - A B")
    (frozenset({1, 3}),)
    """
    letters = text.split(" ")
    if not all(letter == _NO_BUNDLE or (len(letter) == 1 and letter in ascii_uppercase) for letter in letters):
        return None
    groups: dict[str, set[int]] = {}
    for item, letter in enumerate(letters, start=1):
        if letter != _NO_BUNDLE:
            groups.setdefault(letter, set()).add(item)
    return tuple(frozenset(group) for group in groups.values() if len(group) > 1)


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
    "letters": AnswerFormat(
        # Short, since every prompt pays for it: a student learns the format from examples.
        instruction="Group the products that are wanted together.",
        task="",
        write_titles=_numbered_lines,
        write_bundles=_letter_bundles,
        read_groups=_letter_groups,
        slots=letter_slots,
    ),
}
"""The answer formats by name."""


def get_format(name: str) -> AnswerFormat:
    """The format of that name.

    Raises:
        ValueError: no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown answer format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
