"""How answers are read: one grammar for each format. What does not follow it is reported, not guessed at.

Every reader takes a text and the number of items, and gives groups in the order of the answer: the item numbers of a
bundle, or the text of a piece that cannot be read. Each goes through its text once, so the time is linear in its
length, whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from string import ascii_uppercase
from typing import NamedTuple

Group = list[str] | str
"""Item numbers as they were written, or a piece that cannot be read."""

NO_BUNDLE = "-"
"""Stands where an answer in letters puts an item into no bundle."""

# --- compact ------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|\s+|.", re.DOTALL)
_NOUNS = {"item", "items", "product", "products"}
_AND = {"and", "&", "+"}
_APART = ({""}, {",", ",+"}, {"+", ",+"})
"""Kinds of what stands between two numbers: spaces alone, a comma, "and"."""


def read_compact(text: str, n_items: int = 0) -> Iterator[Group]:
    """Bundles of the format `compact`: one a line, or several with semicolons between them.

    A line is `[bullet] [bundle [number] mark] list {; list}`. The numbers of a list stand apart by spaces, by commas or
    by "and"; each may be called an item or a product. Where they are mixed such that one kind could part the line into
    bundles of two or more, there is no telling, and the line cannot be read.

    >>> list(read_compact("1 3; 2 5\\n1 3, 2 5"))
    [['1', '3'], ['2', '5'], '1 3, 2 5']
    """
    for line in filter(None, map(str.strip, text.splitlines())):
        lists = [_numbers(part) for part in _unlabelled(_TOKEN.findall(line))]
        if all(lists):
            yield from lists
        else:
            yield line


def _unlabelled(tokens: list[str]) -> list[list[str]]:
    """The lists of a line, as tokens without spaces, without what stands before and behind them."""
    tokens = [token for token in tokens if not token.isspace()]
    at, end = 0, len(tokens)
    if tokens[0] in "-*•":
        at += 1
    if at < end and tokens[at].lower() == "bundle":
        mark = at + 1 + (at + 1 < end and tokens[at + 1][0].isdigit())
        at = mark + 1 if mark < end and tokens[mark] in ":.)=-" else at
    while end > at and tokens[end - 1] in ".,;":
        end -= 1
    parts: list[list[str]] = [[]]
    for token in tokens[at:end]:
        if token == ";":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _numbers(tokens: list[str]) -> list[str]:
    """The numbers of one list; none where it is no list."""
    numbers: list[str] = []
    between: list[str] = []
    apart = ""  # what stood since the last number
    named = False
    for token in tokens:
        word = token.lower()
        if token[0] in "0123456789":
            if numbers:
                between.append(apart)
            numbers.append(token)
            apart, named = "", False
        elif word in _NOUNS and not named:
            named = True
        elif numbers and not named and word in _AND and apart in ("", ","):
            apart += "+"
        elif numbers and not named and token == "," and not apart:
            apart = ","
        else:
            return []
    if apart or named:
        return []
    return [] if any(_parts_into_bundles(between, kind) for kind in _APART) else numbers


def _parts_into_bundles(between: list[str], kind: Collection[str]) -> bool:
    """Whether numbers that stand apart so would make several bundles, two items or more each, if one kind parted them.

    Two partings side by side, or one at an end, leave an item alone.
    """
    ends = [-1, *(k for k, apart in enumerate(between) if apart in kind), len(between)]
    return len(ends) > 2 and all(after - before > 1 for before, after in pairwise(ends))


# --- the dictionary of AICL ---------------------------------------------------------------------------------------

_PIECE = re.compile(r"""'[^'\n]*'|"[^"\n]*"|\w+|\s+|.""", re.DOTALL)
_REFERENCE = re.compile(r"(?:item|product)? ?#?([0-9]+)", re.IGNORECASE)


class _Found(NamedTuple):
    """A dictionary, as far as it goes."""

    groups: list[Group]
    start: int
    """First character."""
    end: int
    """The one behind its last."""
    whole: bool


def read_dictionary(text: str, n_items: int = 0) -> Iterator[Group]:
    """Bundles of the format `aicl`: the lists in a dictionary, `{'bundle1': ['product1', 'product3'], …}`.

    Keys and entries may stand in quotes or not; an entry is an item's number, which may be called item or product.
    The last dictionary that is whole counts, or else the last one as far as it goes; an entry without quotes that
    nothing follows may have lost a digit, and is left out. A dictionary of other things than lists is no answer. What
    stands beside the one that counts cannot be read.

    >>> list(read_dictionary("{'b': [1, 3]} no, {'b': [1, 2]}"))
    ["{'b': [1, 3]} no,", ['1', '2']]
    """
    found = list(_dictionaries(text))
    chosen = next((one for one in reversed(found) if one.whole), found[-1] if found else None)
    if chosen is None:
        yield text.strip()
        return
    beside = text[: chosen.start].strip(), text[chosen.end :].strip()
    if beside[0]:
        yield beside[0]
    yield from chosen.groups
    if beside[1]:
        yield beside[1]


def _dictionaries(text: str) -> Iterator[_Found]:
    """Every dictionary in a text. Where one breaks off, the next is looked for: none is inside another."""
    scanner = _Scanner(text)
    while scanner.token:
        if scanner.token != "{":
            scanner.step()
            continue
        start, groups = scanner.start, []
        whole = _read_entries(scanner, groups)
        yield _Found(groups, start, scanner.start, whole)


class _Scanner:
    """Goes through the pieces of a text that are no space."""

    def __init__(self, text: str) -> None:
        self._pieces = (piece for piece in _PIECE.finditer(text) if not piece[0].isspace())
        self._length = len(text)
        self.step()

    def step(self) -> str:
        """On to the next piece; gives the one that was left."""
        left = getattr(self, "token", "")
        piece = next(self._pieces, None)
        self.token = piece[0] if piece else ""
        """Empty behind the last piece."""
        self.start = piece.start() if piece else self._length
        return left

    def word(self) -> str | None:
        """The string or the words that stand here, without quotes and single-spaced; `None` if there are none."""
        if len(self.token) > 1 and self.token[0] in "'\"":
            return " ".join(self.step()[1:-1].split())
        words = []
        while self.token and (self.token == "#" or self.token[0].isalnum() or self.token[0] == "_"):
            words.append(self.step())
        return " ".join(words).replace("# ", "#") if words else None


def _read_entries(scanner: _Scanner, groups: list[Group]) -> bool:
    """Read a dictionary from its brace on, and say whether it is a whole answer."""
    scanner.step()
    lists = 0
    while scanner.token != "}":
        if scanner.word() is None or scanner.token != ":":
            return False
        scanner.step()
        if scanner.token == "[":
            lists += 1
            if not _read_list(scanner, groups):
                return False
        elif (value := scanner.word()) is not None:
            groups.append(value)  # not a list: not a bundle
        else:
            return False
        if scanner.token == ",":
            scanner.step()
        elif scanner.token != "}":
            return False
    scanner.step()
    return lists > 0 or not groups


def _read_list(scanner: _Scanner, groups: list[Group]) -> bool:
    """Read a list from its bracket on, and say whether it is whole."""
    scanner.step()
    entries: list[str] = []
    whole = False
    while True:
        if scanner.token == "]":
            scanner.step()
            whole = True
            break
        quoted = scanner.token[:1] in ("'", '"')
        entry = scanner.word()
        if entry is None or not (quoted or scanner.token in (",", "]")):
            if entry is not None:
                groups.append(entry)
            break
        entries.append(entry)
        if scanner.token == ",":
            scanner.step()
        elif scanner.token != "]":
            break
    if entries or whole:
        numbers = [_REFERENCE.fullmatch(entry) for entry in entries]
        groups.append([number[1] for number in numbers] if all(numbers) else ", ".join(entries))
    return whole


# --- letters ------------------------------------------------------------------------------------------------------


def read_letter_lines(text: str, n_items: int) -> Iterator[Group]:
    """Bundles of the format `letters`: a line for each item, which ends with its letter.

    Line 1 begins an answer. The last one with a line for every item counts, or else the last one. A line that is none
    of this format, a second letter for an item, and the lines of an answer that does not count cannot be read.
    """
    answers: list[dict[int, str]] = [{}]
    lines: list[list[str]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        number, letter = _letter_of(line)
        if number == 1 and 1 in answers[-1]:
            answers.append({})
            lines.append([])
        if number is None or number in answers[-1]:
            yield line
        else:
            answers[-1][number] = letter
            lines[-1].append(line)
    whole = [
        k for k, answer in enumerate(answers) if len(answer) >= n_items and answer.keys() >= {*range(1, n_items + 1)}
    ]
    counts = whole[-1] if whole else len(answers) - 1
    groups: dict[str, list[str]] = {}
    for number, letter in answers[counts].items():
        if letter != NO_BUNDLE:
            groups.setdefault(letter, []).append(str(number))
    yield from ("\n".join(left) for k, left in enumerate(lines) if left and k != counts)
    yield from groups.values()


def _letter_of(line: str) -> tuple[int | None, str]:
    """Number and letter of a line such as "3. Norva linen apron: B"; no number in any other."""
    number, _, rest = line.partition(".")
    words, letter = rest[:-1].removesuffix(" "), rest[-1:]
    known = letter == NO_BUNDLE or (letter != "" and letter in ascii_uppercase)
    if not (known and number.isascii() and number.isdecimal() and len(number) < 10):
        return None, ""
    return (int(number), letter) if words == ":" or (words[:1] == " " and words[-1:] == ":") else (None, "")
