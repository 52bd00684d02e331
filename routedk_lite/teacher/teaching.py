"""What a teacher is asked: self-reflection, reasoning, and plain answers.

Rules come from self-reflection (RouteDK and arXiv 2504.17220): the teacher predicts bundles, code compares them with
the annotated ones, the teacher reflects on each session and sums up what it has learnt. The comparison gives the five
kinds of feedback of AICL (arXiv 2312.16262). Reasoning goes forward from products to the annotated bundles. The wording
of all questions is ours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..data.formats import FORMATS, TASK
from ..data.sessions import Bundle, Session
from ..data.thoughts import without_thoughts
from ..data.toyshop import items_text
from .answers import REASONING_WORDS, RULE_KINDS, Prediction, read_bundles, read_reasoning, read_rules, read_sentences
from .knowledge import Rule
from .objects import UnreadableReply, skipped_objects


class Question(NamedTuple):
    """Something to ask a teacher."""

    about: str
    """What it concerns, in words: a session, or a summary."""
    messages: list[dict[str, str]]
    read: Callable[[str], Any]
    """From the answer's text to what was asked for; raises `UnreadableReply`."""
    max_tokens: int
    typical: str
    """An answer that can be read, about as long as answers are: what estimates reckon with."""
    skipped: Callable[[str], str] = lambda text: ""
    """From the answer's text to what was read past in it, in words; empty if nothing was."""

    def again(self, text: str, problem: UnreadableReply) -> Question:
        """The same question once more, after an answer that could not be read."""
        said = {"role": "assistant", "content": without_thoughts(text).strip() or "(no answer)"}
        reply = f"That cannot be read: {problem}. Answer the question above once more, in exactly the form asked for."
        return self._replace(messages=[*self.messages, said, {"role": "user", "content": reply}])


# --- the five kinds of feedback -----------------------------------------------------------------------------------

FEEDBACK = {
    "correct": "is right",
    "invalid": "shares no item with any annotated bundle and should not be there",
    "irrelevant": "holds items that do not belong in it",
    "missing": "lacks items that belong in it",
    "single": "lacks items that belong in it, and a bundle needs at least two",
}
"""The five kinds of feedback of AICL, in its order, in our words."""


def feedback(bundles: Iterable[Bundle], session: Session) -> list[str]:
    """Which of the five kinds of feedback each predicted bundle deserves.

    A bundle is held against the annotated bundle that is nearest to it by Jaccard similarity, the first of equals.

    Args:
        bundles: predicted ones, of one item or more, all items in the session.
        session: with its annotated bundles.

    Returns:
        A key of `FEEDBACK` per bundle.

    >>> session = Session(
    ...     id=1, items=tuple("abcde"), titles=tuple("abcde"), bundles=(frozenset({1, 2, 3}),)
    ... )
    >>> feedback(map(frozenset, [{1, 2, 3}, {4, 5}, {1, 2, 4}, {1, 2}, {3}]), session)
    ['correct', 'invalid', 'irrelevant', 'missing', 'single']
    """
    return [_feedback(bundle, session.bundles) for bundle in bundles]


def _feedback(bundle: Bundle, annotated: Sequence[Bundle]) -> str:
    nearest = max(annotated, key=lambda true: len(bundle & true) / len(bundle | true))
    if bundle == nearest:
        return "correct"
    if not bundle & nearest:
        return "invalid"
    if not bundle <= nearest:
        return "irrelevant"
    return "single" if len(bundle) == 1 else "missing"


# --- the questions ------------------------------------------------------------------------------------------------


def ask_bundles(session: Session, *, smallest: int = 2) -> Question:
    """Ask for the bundles of a session, from titles alone.

    Args:
        session: what it is about; its annotated bundles are not used.
        smallest: bundles of fewer items cannot be read. AICL's feedback has a kind for bundles of one.
    """
    typical = json.dumps({"bundles": [[1, 2], [1, 2]], "intents": ["choose among some of them"] * 2})
    return Question(
        about=f"session {session.called}",
        messages=_opening(session),
        read=lambda text: read_bundles(text, len(session), smallest=smallest),
        max_tokens=300,
        typical=typical,
        skipped=skipped_objects,
    )


def ask_reflection(session: Session, prediction: Prediction) -> Question:
    """Show the teacher how its bundles of a session compare with the annotated ones, and ask what it learns from it."""
    kinds = feedback(prediction.bundles, session)
    compared = [f"- {items_text(b)}: {FEEDBACK[kind]}." for b, kind in zip(prediction.bundles, kinds, strict=True)]
    answer = {"bundles": [sorted(b) for b in prediction.bundles], "intents": list(prediction.intents)}
    told = "\n".join(["Your bundles compare with the annotated ones like this:", *compared])
    request = (
        f"{told if compared else 'You found no bundle.'}\n\nThe annotated bundles are:\n{_annotated(session)}\n\n"
        "Reflect in 30 to 60 words: what did you get right or wrong here, why, and what should you do in other "
        "sessions? Think of these kinds of error: merged too much, split too much, went by the wrong criterion, missed "
        "a pair, took in a distractor. Name kinds of products, not titles. Answer with plain sentences only."
    )
    return Question(
        about=f"reflection on session {session.called}",
        messages=[
            *_opening(session),
            {"role": "assistant", "content": json.dumps(answer)},
            {"role": "user", "content": request},
        ],
        read=read_sentences,
        max_tokens=200,
        typical=_filler(60),
    )


def ask_rules(lessons: Sequence[tuple[Sequence[str], str]], n_rules: int) -> Question:
    """Ask for a summary of all reflections in general rules.

    Args:
        lessons: for each session the kinds of feedback on its bundles, and the reflection.
        n_rules: how many rules at most.
    """
    counts = Counter(kind for kinds, _ in lessons for kind in kinds)
    score = ", ".join(f"{counts[kind]} {kind}" for kind in FEEDBACK)
    notes = "\n".join(f"{number}. {' '.join(text.split())}" for number, (_, text) in enumerate(lessons, start=1))
    request = (
        f"You have looked for the bundles of {len(lessons)} sessions and compared them with annotated ones. Of your "
        f"{counts.total()} bundles: {score}. Your reflections were:\n{notes}\n\n"
        f"Sum up what you have learnt as at most {n_rules} general rules, from most to least useful. Each is one or "
        "two plain sentences, imperative, without product titles and without numbers of sessions or items. Speak of "
        "granularity, distractors, alternatives and complements as far as the evidence goes, and give for each rule "
        "the errors or the evidence behind it. Answer with JSON only:\n"
        '{"rules": [{"text": "...", "kind": "...", "why": "..."}]}\n'
        f"where kind is one of {', '.join(RULE_KINDS)}."
    )
    example = {"text": _filler(30), "kind": "other", "why": _filler(20)}
    return Question(
        about="the rules",
        messages=[{"role": "system", "content": TASK.strip()}, {"role": "user", "content": request}],
        read=lambda text: read_rules(text, n_rules),
        max_tokens=200 * n_rules,
        typical=json.dumps({"rules": [example] * n_rules}),
        skipped=skipped_objects,
    )


def ask_reasoning(session: Session, rules: Mapping[str, Rule]) -> Question:
    """Ask for reasoning that leads from the products of a training session to its annotated bundles."""
    low, high = REASONING_WORDS
    known = "\n".join(f"{id_}: {rule.text}" for id_, rule in rules.items())
    request = (
        f"{_products(session)}\n\nIts bundles are:\n{_annotated(session)}\n\nRules about bundles:\n{known}\n\n"
        f"Write {low} to {high} words that go from what the products are, to the intent that some share, to which "
        "items therefore go together, to why the rest stay out. Reason forward, as if the bundles were not known yet, "
        "and mention neither annotation nor rules. Write item numbers only like this: item 3, or items 3, 4 and 5; "
        "name every item of a bundle, and use your own word for its kind, not its title. Then give one to three rules "
        "that support it best, and say whether the bundles look wrong or arbitrary. Answer with JSON only:\n"
        '{"reasoning": "...", "rules": ["R1"], "noisy": false}'
    )
    members = frozenset().union(*session.bundles)
    typical = f"{items_text(members).capitalize()} {_filler(high - 5)}"
    return Question(
        about=f"session {session.called}",
        messages=[{"role": "system", "content": TASK.strip()}, {"role": "user", "content": request}],
        read=lambda text: read_reasoning(text, session, rules),
        max_tokens=400,
        typical=json.dumps({"reasoning": typical, "rules": list(rules)[:2], "noisy": False}),
        skipped=skipped_objects,
    )


def _opening(session: Session) -> list[dict[str, str]]:
    request = (
        f"{_products(session)}\n\nNot every product belongs to a bundle, and there may be one bundle or several. "
        "Answer with JSON only: bundles as lists of item numbers, and for each an intent of three to five words:\n"
        '{"bundles": [[1, 3], [2, 4, 5]], "intents": ["...", "..."]}'
    )
    return [{"role": "system", "content": TASK.strip()}, {"role": "user", "content": request}]


def _products(session: Session) -> str:
    return f"Products:\n{FORMATS['compact'].write_titles(session.titles)}"


def _annotated(session: Session) -> str:
    intents = session.intents or [""] * len(session.bundles)
    pairs = zip(session.bundles, intents, strict=True)
    return "\n".join(f"- {items_text(bundle)}{f' (intent: {intent})' if intent else ''}" for bundle, intent in pairs)


def _filler(n_words: int) -> str:
    return " ".join(["bundle"] * n_words) + "."
