"""Thoughts are no answer: what a model wrote between its marks of thinking is taken out before anything is read."""

from __future__ import annotations

import re
from collections import Counter

_MARK = re.compile(
    # <think>, </think>, <thinking>, <thought>, <reasoning>, …, also with a prefix (<seed:think>) or attributes
    r"<[ \t]?(?P<end1>/?)[ \t]?(?:[a-z]{1,20}:)?"
    r"(?P<name1>think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis)(?:[ \t][^<>\n]*)?(?<!/)>"
    r"|(?-i:\[(?P<end2>/?)(?P<name2>THINK)\])"
    r"|◁(?P<end3>/?)(?P<name3>think)▷"
    # <|begin_of_thought|> … <|end_of_thought|>, <|START_THINKING|> … <|END_THINKING|>
    r"|<\|(?:(?P<end4>end)|begin|start)_(?:of_)?(?P<name4>thought|thinking)\|>"
    # <|inner_prefix|> … <|inner_suffix|>; <|channel>thought … <channel|>
    r"|<\|(?P<name5>inner)_(?:prefix|(?P<end5>suffix))\|>"
    r"|<(?:\|(?P<name6>channel)>thought|(?P<end6>channel)\|>)"
    # <|channel|>analysis<|message|> … <|channel|>final<|message|>: what is said in any channel but the final one
    r"|<\|(?P<name7>channel)\|>(?:(?P<end7>final)|[a-z]{1,20})[^<>\n]{0,99}(?:<\|constrain\|>[a-z]{0,20})?<\|message\|>",
    re.IGNORECASE,
)
"""The marks that models put around their thoughts. Every part is bounded, or ends at the next `<`: linear time."""
_CHANNELS = "7"
"""Number of the marks that are no pairs: each begins a message."""


def thought_marks(text: str) -> set[str]:
    """The marks of thoughts in a text, as they are written there.

    >>> thought_marks("<think>1 or 3?</think>1 2") == {"<think>", "</think>"}
    True
    """
    return {mark[0] for mark in _MARK.finditer(text)}


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
        ends, name = bool(mark[f"end{number}"]), (mark[f"name{number}"] or mark[f"end{number}"]).lower()
        if number == _CHANNELS and not ends and count[name]:
            continue  # one channel follows the other: none is inside another
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
