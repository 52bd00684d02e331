"""How a teacher's answers are read: bundles, rules, reasoning and plain sentences. What cannot be read says why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..data.sessions import Bundle, Session
from ..data.thoughts import without_thoughts
from ..data.toyshop import items_text
from .calls import plain
from .knowledge import Reasoning, Rule, item_references
from .objects import UnreadableReply, json_object
from .teachers import CutOff

REASONING_WORDS = (25, 60)
"""How long reasoning should be. Twice as much is refused: students read it in their prompts."""
RULE_KINDS = ("alternative", "complement", "granularity", "distractor", "grouping", "other")
_HUGE = re.compile(r"\d{10,}")
_RANGE = re.compile(r"\bitems? \d+ ?(?:[-–—]|to|through) ?\d+", re.IGNORECASE)


class Prediction(NamedTuple):
    """A teacher's own answer to a session."""

    bundles: tuple[Bundle, ...]
    intents: tuple[str, ...]
    """What each bundle is for."""


def read_sentences(text: str) -> str:
    """Plain text, without what a model thought before it.

    Raises:
        UnreadableReply: nothing is left, or it was cut off.
    """
    if isinstance(text, CutOff):
        raise UnreadableReply("it was cut off; write fewer words")
    text = plain(without_thoughts(text)).strip()
    if not re.search(r"\w", text):
        raise UnreadableReply("it is empty")
    return text


def read_bundles(text: str, n_items: int, *, smallest: int = 2) -> Prediction:
    """The bundles and intents in an answer.

    Args:
        text: the answer.
        n_items: number of items in the session.
        smallest: fewest items in a bundle.

    Raises:
        UnreadableReply: no JSON, a field is missing or of another kind, a number outside the session, a bundle that
            is too small, or not one intent per bundle.
    """
    answer = json_object(text, "bundles")
    bundles, intents = _field(answer, "bundles", list), _field(answer, "intents", list)
    for bundle in bundles:
        if not isinstance(bundle, list) or not all(type(n) is int for n in bundle):
            raise UnreadableReply(f"bundles holds {_short(bundle)}; each bundle is a list of item numbers")
        if wrong := [n for n in bundle if not 1 <= n <= n_items]:
            raise UnreadableReply(f"bundles names item {_short(wrong[0])}, and the items are numbered 1 to {n_items}")
        if len(set(bundle)) < smallest:
            raise UnreadableReply(f"the bundle {bundle} has too few items; it needs at least {smallest}")
    if len(intents) != len(bundles) or not all(isinstance(intent, str) for intent in intents):
        raise UnreadableReply(f"intents is {_short(intents)}; give one text per bundle")
    return Prediction(tuple(map(frozenset, bundles)), tuple(intents))


def read_rules(text: str, n_rules: int) -> dict[str, Rule]:
    """The rules in an answer by id, the first `n_rules` of them; an unknown kind becomes `other`.

    Raises:
        UnreadableReply: no JSON, no rule, or a rule without a text or a reason.
    """
    rules = {}
    for number, entry in enumerate(_field(json_object(text, "rules"), "rules", list)[:n_rules], start=1):
        if not isinstance(entry, dict):
            raise UnreadableReply(f"rules holds {_short(entry)}; each rule is an object with text, kind and why")
        kind = entry.get("kind") if entry.get("kind") in RULE_KINDS else "other"
        id_ = f"R{number}"
        rules[id_] = Rule(id_, kind, _words(_field(entry, "text", str)), _words(_field(entry, "why", str)))
    if not rules:
        raise UnreadableReply("rules is empty; give at least one")
    return rules


def read_reasoning(text: str, session: Session, rules: Mapping[str, Rule]) -> Reasoning:
    """The reasoning in an answer.

    Every item of the session's bundles must be named in a way that `knowledge.item_references` finds: where items
    are shown in another order, their numbers are rewritten.

    Raises:
        UnreadableReply: no JSON, a field is missing or of another kind, far too long, a rule that does not exist, or
            items named outside the session, as a range, or not at all.
    """
    answer = json_object(text, "reasoning")
    words, cited = _words(_field(answer, "reasoning", str)), _field(answer, "rules", list)
    bundled = frozenset().union(*session.bundles)
    if len(words.split()) > 2 * REASONING_WORDS[1] + len(bundled):  # every one of these must be named
        raise UnreadableReply(f"reasoning has {len(words.split())} words; write at most {REASONING_WORDS[1]}")
    if not cited or not all(isinstance(rule, str) and rule in rules for rule in cited):
        raise UnreadableReply(f"rules is {_short(cited)}; name one to three of {', '.join(rules)}")
    if found := _RANGE.search(words) or _HUGE.search(words):
        raise UnreadableReply(
            f"reasoning says {found.group()!r}; write every item number out, and no other long numbers"
        )
    named = {int(words[a:b]) for a, b in item_references(words, 10**9, explicit=True)}
    if wrong := sorted(n for n in named if n > len(session)):
        raise UnreadableReply(f"reasoning names item {wrong[0]}, and the items are numbered 1 to {len(session)}")
    if unnamed := sorted(bundled - named):
        raise UnreadableReply(f"reasoning does not name {items_text(unnamed)}; name every item of a bundle")
    return Reasoning(words, tuple(dict.fromkeys(cited)), _field(answer, "noisy", bool))


def _field(answer: Mapping[str, Any], name: str, kind: type) -> Any:
    value = answer.get(name)
    if type(value) is not kind or (kind is str and not value.strip()):
        wanted = {str: "a text that is not empty", list: "a list", bool: "true or false"}[kind]
        raise UnreadableReply(f"{name} is {_short(value)}; give {wanted}")
    return value


def _words(text: str) -> str:
    return " ".join(plain(text).split())


def _short(value: Any) -> str:
    try:
        return repr(value)[:60]
    except RecursionError:
        return "something nested"
