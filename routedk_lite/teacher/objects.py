"""The JSON objects in what a teacher wrote, among thoughts, drafts and fences. Linear time for every text."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..data.thoughts import without_thoughts
from .teachers import CutOff


class UnreadableReply(ValueError):
    """An answer is not in the form that was asked for; the message tells the teacher what is wrong with it."""


class _Text(str):
    """A text whose decoding errors find no line numbers: looking for these takes as long as the text, every time."""

    def count(self, *_: Any) -> int:
        return 0

    def rfind(self, *_: Any) -> int:
        return -1


class _Objects(NamedTuple):
    """The JSON objects in a text, whatever stands around them."""

    complete: list[dict[str, Any]]
    broken: int
    """How many begin and are no JSON, or never end."""


def _objects(text: str) -> _Objects:
    """Go through a text once: what stands inside an object, whole or broken, is no object of its own."""
    text, decoder = _Text(text), json.JSONDecoder(parse_int=_whole_number)
    complete, broken, at = [], 0, text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
            complete.append(found)
        except json.JSONDecodeError as error:
            end = max(error.pos, at + 1)
            broken += text[at + 1 : end + 1].lstrip().startswith('"')  # other braces stand in prose
        except RecursionError as error:
            raise UnreadableReply("it holds brackets that are nested too deeply") from error
        at = text.find("{", end)
    return _Objects(complete, broken)


def _whole_number(digits: str) -> int | str:
    """Python refuses to convert very long numbers; no item has one."""
    return int(digits) if len(digits) < 20 else digits


def json_object(text: str, name: str) -> dict[str, Any]:
    """The answer in a text: its last complete JSON object outside of thoughts.

    Args:
        text: what a teacher wrote.
        name: a field that the answer has; objects without it count only where none has it.

    Raises:
        UnreadableReply: there is none, brackets are nested too deeply, or what was cut off may be a thought.
    """
    said = without_thoughts(text)
    if isinstance(text, CutOff) and said == text and not said.lstrip().startswith(("{", "```")):
        # Some chat templates open the thought, so that a server shows its end only.
        raise UnreadableReply("it was cut off, and may have been a thought; begin with the JSON object")
    found = _objects(said).complete
    if not found:
        raise UnreadableReply("it holds no complete JSON object")
    return next((answer for answer in reversed(found) if name in answer), found[-1])


def skipped_objects(text: str) -> str:
    """What was read past in an answer that holds more than one JSON object, in words; empty if nothing was.

    >>> skipped_objects('Draft: {"bundles": []} Final: {"bundles": [[1, 2]]}')
    '1 other JSON object'
    """
    found = _objects(without_thoughts(text))
    counts = ((len(found.complete) - 1, "other JSON object"), (found.broken, "broken JSON object"))
    return " and ".join(f"{number} {what}{'s' * (number > 1)}" for number, what in counts if number > 0)
