"""Thoughts are no answer: what a model wrote between its marks of thinking is taken out before anything is read."""

from __future__ import annotations

import re
from collections import Counter

_MARK = re.compile(
    # <think>, </think>, <thinking>, <thought>, <reasoning>, also with a prefix (<seed:think>) or attributes
    r"<[ \t]?(?P<end1>/?)[ \t]?(?:[a-z]{1,20}:)?(?P<name1>think(?:ing)?|thoughts?|reasoning)(?:[ \t][^<>\n]*)?(?<!/)>"
    r"|(?-i:\[(?P<end2>/?)(?P<name2>THINK)\])"
    r"|◁(?P<end3>/?)(?P<name3>think)▷"
    # <|begin_of_thought|> … <|end_of_thought|>, <|START_THINKING|> … <|END_THINKING|>
    r"|<\|(?:(?P<end4>end)|begin|start)_(?:of_)?(?P<name4>thought|thinking)\|>",
    re.IGNORECASE,
)
"""The marks that models put around their thoughts. Every part is bounded, or ends at the next `<`: linear time."""


def without_thoughts(text: str) -> str:
    """A model's text without its thoughts.

    Thoughts may stand inside each other. A mark that closes a thought which was never opened closes one that the
    chat template has opened: everything before it is a thought. A thought that is never closed was cut off:
    everything behind its mark belongs to it. A mark of another name inside a thought is part of the thought.

    Args:
        text: what the model wrote, of any length; the time is linear in it.

    Returns:
        What stands outside, as it stands. Pieces that a thought had kept apart stand on lines of their own.

    >>> without_thoughts("<think>1 or 3?</think>1 2")
    '1 2'
    >>> without_thoughts("so 1 and 2 it is.</THINK>1 2<think>or rather")
    '1 2'
    """
    pieces: list[str] = []
    opened: list[str] = []
    count: Counter[str] = Counter()
    at = 0
    for mark in _MARK.finditer(text):
        number = mark.lastgroup[-1]
        ends, name = bool(mark[f"end{number}"]), mark[f"name{number}"].lower()
        if not ends:
            if not opened:
                pieces.append(text[at : mark.start()])
            opened.append(name)
            count[name] += 1
        elif not opened:
            pieces.clear()
        elif count[name]:
            closed = None
            while closed != name:  # what was opened inside it ends with it
                closed = opened.pop()
                count[closed] -= 1
        if not opened:
            at = mark.end()
    if not opened:
        pieces.append(text[at:])
    return "\n".join(filter(None, pieces))
