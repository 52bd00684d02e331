"""A program that plays the teacher in the toy shop, so that a distillation can be watched without a language model."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..data.toyproducts import MODELS, kind_in_title
from .teachers import Messages

_PRODUCT = re.compile(r"^\d+\. (.+)$", re.MULTILINE)
_COMPARED = re.compile(r"^- (items? [^:(]+): (.+)\.$", re.MULTILINE)
_ANNOTATED = re.compile(r"^- (items? [^:(]+) \(intent: (.+)\)$", re.MULTILINE)
_KNOWN_RULE = re.compile(r"^(R\d+): (.+)$", re.MULTILINE)
_LEARNT = re.compile(r"([A-Z][^.]+\.) I (saw|missed) that\.")
_STRAYS = "Leave a product alone that has no part in what the others are for: never pair leftovers."


class ToyTeacher:
    """Answers the questions of `teaching` about the toy shop from their text alone, as a language model would.

    It knows what words name (kinds of products, and that the Lumo 7 is a phone) but none of the shop's laws. It bundles
    products of one kind, whatever has one device's name in its title and, so that nothing is left over, strays with
    strays. Self-reflection corrects that: its rules are the lessons of the sessions that it was shown, the most
    frequent first. It shows how a distillation runs, and nothing of what a language model can do.
    """

    name = "a program that plays the teacher of the toy shop"
    sampling = "none"
    is_local = True

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, in order."""
        return [_answer(messages) for messages in conversations]

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """Nothing is kept on disk: answers cost nothing."""
        return None


def _answer(messages: Messages) -> str:
    asked, smallest = messages[-1]["content"], 1
    if asked.startswith("That cannot be read"):  # it had given a bundle of one product
        asked, smallest = messages[-3]["content"], 2
    if "Sum up what you have learnt" in asked:
        return json.dumps({"rules": _sum_up(asked)})
    if "Reflect in" in asked:
        return _reflect(asked)
    if "Reason forward" in asked:
        return json.dumps(_reason(asked))
    bundles = [bundle for bundle in _guess(_PRODUCT.findall(asked)) if len(bundle) >= smallest]
    return json.dumps({"bundles": bundles, "intents": ["things that look alike"] * len(bundles)})


def _guess(titles: Sequence[str]) -> list[list[int]]:
    """Bundles of somebody who goes by words: one kind, one device's name, and what is left."""
    groups: dict[str, list[int]] = {}
    for number, title in enumerate(titles, start=1):
        for key in (kind_in_title(title) or title, *(model for model in MODELS if model in title)):
            groups.setdefault(key, []).append(number)
    bundles = [list(group) for group in dict.fromkeys(map(tuple, groups.values())) if len(group) > 1]
    left = [number for number in range(1, len(titles) + 1) if not any(number in bundle for bundle in bundles)]
    return bundles + ([left[:2]] if left else [])


def _lesson(intent: str) -> str:
    """The rule that a bundle with this intent teaches."""
    if intent.startswith("things for"):
        return f"Bundle different kinds of {intent}."
    if intent.startswith("equip"):
        return "Bundle a device with all that fits it, by its name or by a standard such as a mount or a size."
    if intent.startswith("choose"):
        return "Bundle one product in several colours or sizes."
    if " for the same " in intent:
        return "Bundle accessories of one kind only if one device takes them all."
    return "Bundle products of one kind: they are alternatives."


def _reflect(asked: str) -> str:
    """A sentence for every annotated bundle, and one for bundles that should not be there."""
    compared = dict(_COMPARED.findall(asked))
    lessons = [(_lesson(intent), compared.get(items) == "is right") for items, intent in _ANNOTATED.findall(asked)]
    if any(verdict.startswith("shares no item") for verdict in compared.values()):
        lessons.append((_STRAYS, False))
    return " ".join(f"{text} I {'saw' if seen else 'missed'} that." for text, seen in lessons)


def _sum_up(asked: str) -> list[dict[str, str]]:
    """The lessons of all reflections as rules, the most frequent first, each with the count behind it."""
    learnt = _LEARNT.findall(asked)
    total, missed = Counter(text for text, _ in learnt), Counter(text for text, how in learnt if how == "missed")
    return [
        {"text": text, "kind": _kind_of(text), "why": f"Met: {count}. Missed: {missed[text]}."}
        for text, count in total.most_common()
    ]


def _kind_of(text: str) -> str:
    if text == _STRAYS:
        return "distractor"
    return "complement" if "different kinds" in text or "fits it" in text else "alternative"


def _reason(asked: str) -> dict[str, Any]:
    """What the annotated bundles are for, as reasoning; the rules that it cites are those that say the same."""
    annotated = _ANNOTATED.findall(asked)
    words = [f"{items.capitalize()} serve one purpose, {intent}, so they go together." for items, intent in annotated]
    known, wanted = _KNOWN_RULE.findall(asked), {_lesson(intent) for _, intent in annotated}
    cited = [id_ for id_, text in known if text in wanted][:3] or [known[0][0]]
    return {"reasoning": f"{' '.join(words)} The others have no part in it.", "rules": cited, "noisy": False}
