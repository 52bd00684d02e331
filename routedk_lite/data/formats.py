"""How answers are written and read: item numbers, AICL's dictionary, or one letter per product.

`compact`, one line of item numbers per bundle, is short enough for a small student. `aicl` is the dictionary of the
published AICL prompt (arXiv 2312.16262). In `letters` the answer goes through the products once more and names the
bundle of each: everything but the letters is given, so a student only chooses letters, and each of them stands right
behind the words that it is about. The wording of the instructions is ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from .grammars import NO_BUNDLE, Group, read_compact, read_dictionary, read_letter_lines
from .sessions import check_title
from .thoughts import without_thoughts

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
    title_pieces: Callable[[Sequence[str]], list[str]]
    """Titles of one line each → what stands before each of them and how it is written, in turn, and what stands behind
    the last."""
    write_bundles: Callable[[list[list[int]], Sequence[str]], str]
    """Sorted bundles, and the session's titles, which most formats do not need, → answer text."""
    read_groups: Callable[[str, int], Iterable[Group]]
    """Answer text and number of items → bundles as they were written, and pieces that cannot be read (`grammars`)."""
    task: str = TASK
    """What stands before the instruction."""
    slots: Callable[[Sequence[str]], Slots] | None = None
    """Titles → what is given of the answer; `None` where all of it is free."""

    def list_titles(self, titles: Sequence[str]) -> list[str]:
        """The titles as they stand in a prompt: text and title in turn, text first and last. Each is on one line.

        Raises:
            ValueError: a title is no text.
        """
        for number, title in enumerate(titles, start=1):
            check_title(title, f"item {number}")
        return self.title_pieces([one_line(title) for title in titles])

    def write_titles(self, titles: Sequence[str]) -> str:
        """The titles as they stand in a prompt."""
        return "".join(self.list_titles(titles))


def one_line(title: str) -> str:
    """A title without line breaks, of whatever kind.

    >>> one_line("tea\\npot")
    'tea pot'
    """
    lines = title.splitlines()
    return title if lines == [title] else " ".join(filter(None, map(str.strip, lines)))


def _numbered_lines(titles: Sequence[str]) -> list[str]:
    pieces: list[str] = []
    for number, title in enumerate(titles, start=1):
        pieces += [f"{number}. " if number == 1 else f"\n{number}. ", title]
    return [*pieces, ""]


def _compact_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    return "\n".join(" ".join(map(str, bundle)) for bundle in bundles)


def _product_dict(titles: Sequence[str]) -> list[str]:
    """As Python writes a dictionary; a title stands between its quotes, with what is escaped there."""
    pieces, before = [], "{"
    for number, title in enumerate(titles, start=1):
        written = repr(title)
        pieces += [f"{before}'product{number}': {written[0]}", written[1:-1]]
        before = f"{written[-1]}, "
    return [*pieces, f"{before.removesuffix(', ')}}}"]


def _aicl_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    return str({f"bundle{i}": [f"product{n}" for n in b] for i, b in enumerate(bundles, start=1)})


# --- letters ---

ECHO_WORDS = 3
"""Of a title that are repeated before its letter: they cost few tokens, and bind the letter to what it is about."""


def letter_slots(titles: Sequence[str]) -> Slots:
    """The lines of an answer in letters: number, first words of the title, and room for a letter.

    >>> letter_slots(["Norva linen kitchen apron", "Orbis watch"]).text([0, 0])
    '1. Norva linen kitchen: A\\n2. Orbis watch: A'
    """
    given = [f"{number}. {_echo(title)}:" for number, title in enumerate(titles, start=1)]
    lines = (given[0], *(f"\n{line}" for line in given[1:])) if given else ()
    letters = ascii_uppercase[: _n_letters(len(titles))]
    return Slots(lines, (*(f" {letter}" for letter in letters), f" {NO_BUNDLE}"))


def _echo(title: str) -> str:
    """The first words of a title, without marks that would make a thought of them."""
    words = " ".join(title.split()[:ECHO_WORDS])
    return words if without_thoughts(words) == words else re.sub(r"[<\[◁]", "", words)


def _n_letters(n_items: int) -> int:
    return min(max(n_items // 2, 1), len(ascii_uppercase))


def letters_of(bundles: Iterable[Iterable[int]], n_items: int) -> list[int]:
    """The choice for each item, letters in the order in which they first appear; the last choice is no bundle.

    An item of several bundles gets the letter of the first, by their items: overlap cannot be written in letters, and
    about one session in eleven of the public domains has some. Of a bundle that loses all but one item, none is left.

    Raises:
        ValueError: more bundles than there are letters.

    >>> letters_of([{2, 4}, {3, 4, 5}], 5)
    [2, 0, 1, 0, 1]
    """
    owner: dict[int, int] = {}
    for place, bundle in enumerate(sorted(map(sorted, bundles))):
        for item in bundle:
            owner.setdefault(item, place)
    sizes = Counter(owner.values())
    none, letters, chosen = _n_letters(n_items), {}, []
    for item in range(1, n_items + 1):
        place = owner.get(item)
        real = place is not None and sizes[place] > 1
        chosen.append(letters.setdefault(place, len(letters)) if real else none)
    if len(letters) > none:
        raise ValueError(f"{len(letters)} bundles: an answer in letters has {none} of them; take another format")
    return chosen


def _letter_bundles(bundles: list[list[int]], titles: Sequence[str]) -> str:
    if not titles:
        raise ValueError("an answer in letters repeats the titles: give them")
    return letter_slots(titles).text(letters_of(bundles, len(titles)))


FORMATS = {
    "compact": AnswerFormat(
        instruction="Answer with one line per bundle, item numbers only.",
        title_pieces=_numbered_lines,
        write_bundles=_compact_bundles,
        read_groups=read_compact,
    ),
    "aicl": AnswerFormat(
        instruction="Answer with a dictionary only: {'bundle number': ['product number', ...]}.",
        title_pieces=_product_dict,
        write_bundles=_aicl_bundles,
        read_groups=read_dictionary,
    ),
    "letters": AnswerFormat(
        # Short, since every prompt pays for it: a student learns the format from examples.
        instruction="Group the products that are wanted together.",
        task="",
        title_pieces=_numbered_lines,
        write_bundles=_letter_bundles,
        read_groups=read_letter_lines,
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
