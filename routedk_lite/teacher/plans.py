"""What is asked for each kind of knowledge, round by round.

A *plan* is a generator that yields rounds of questions and is sent the answers to each round as they were read, with
`None` for those that could not be.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from ..checked import COUNT, check_number
from ..data.sessions import DataError, Domain, Session
from .knowledge import Rule
from .teachers import TeacherError
from .teaching import Question, ask_bundles, ask_reasoning, ask_reflection, ask_rules, feedback

Plan = Generator[list[Question], list[Any] | None, Mapping[Any, Any]]

REFLECTIONS = 60
"""Sessions that rules are drawn from, unless it is said otherwise; as many as the recorded teacher saw."""
N_RULES = 12


def rules_plan(train: Domain, *, limit: int = REFLECTIONS, n_rules: int = N_RULES, seed: int = 0) -> Plan:
    """Self-reflection: predict, compare, reflect, sum up. Arguments and errors are those of `distill_rules`."""
    sessions = _training(train)
    sessions = random.Random(seed).sample(sessions, min(_at_least_one(limit, "limit"), len(sessions)))
    _at_least_one(n_rules, "n_rules")
    predictions = yield [ask_bundles(session, smallest=1) for session in sessions]
    seen = [(s, p) for s, p in zip(sessions, predictions, strict=True) if p is not None]
    if not seen:
        raise TeacherError(f"none of {len(sessions)} answers gave bundles.")
    reflections = yield [ask_reflection(session, prediction) for session, prediction in seen]
    lessons = [
        (feedback(prediction.bundles, session), reflection)
        for (session, prediction), reflection in zip(seen, reflections, strict=True)
        if reflection is not None
    ]
    if not lessons:
        raise TeacherError(f"none of {len(seen)} reflections could be read.")
    (rules,) = yield [ask_rules(lessons, n_rules)]
    if rules is None:
        raise TeacherError("no rules could be read.")
    return rules


def reasoning_plan(train: Domain, rules: Mapping[str, Rule], *, limit: int | None = None) -> Plan:
    """Reasoning about each session. Arguments and errors are those of `distill_reasoning`."""
    if not rules:
        raise DataError("rules is empty: reasoning cites rules, so distil these first")
    sessions = _first(_training(train), limit)
    found = yield [ask_reasoning(session, rules) for session in sessions]
    return _by_id(sessions, found)


def answers_plan(domain: Domain, *, limit: int | None = None) -> Plan:
    """Bundles from titles alone. Arguments and errors are those of `distill_answers`."""
    sessions = _first(domain.sessions, limit)
    found = yield [ask_bundles(session) for session in sessions]
    return _by_id(sessions, found)


def _training(train: Domain) -> tuple[Session, ...]:
    """Knowledge is drawn from nothing else: a test session is answered from its titles alone."""
    if train.split != "train":
        raise DataError(f"split is {train.split!r}: knowledge is distilled from training sessions only")
    if not train.sessions:
        raise DataError(f"{train.name}: there are no training sessions to learn from")
    if bare := [session.called for session in train if not session.bundles]:
        raise DataError(f"session {bare[0]} has no annotated bundle: leave it out")
    return train.sessions


def _at_least_one(value: int, name: str) -> int:
    check_number(name, value, COUNT)
    return value


def _first(sessions: tuple[Session, ...], limit: int | None) -> tuple[Session, ...]:
    return sessions if limit is None else sessions[: _at_least_one(limit, "limit")]


def _by_id(sessions: Sequence[Session], found: Sequence[Any]) -> dict[int, Any]:
    return {s.id: value for s, value in zip(sessions, found, strict=True) if value is not None}
