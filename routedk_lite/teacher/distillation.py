"""Distil a live teacher: ask, read, and ask once more what cannot be read.

`carry_out` puts the questions of a plan (`plans`) to a teacher, `estimate` goes through it without asking anybody.
Since teachers keep their answers on disk, a plan that was interrupted is continued by carrying it out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..checked import check_number
from ..data.sessions import Domain
from .endpoint import cost
from .knowledge import Rule
from .objects import UnreadableReply
from .plans import N_RULES, REFLECTIONS, Plan, answers_plan, reasoning_plan, rules_plan
from .teachers import Messages, NoAnswer, Teacher, TeacherError, Usage
from .teaching import Question

TRIES = 2
"""How often a question is asked until its answer can be read."""
CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English. Estimates rest on it, since every model cuts text in its own way."""


class Distilled(NamedTuple):
    """What a teacher was brought to say."""

    found: Mapping[Any, Any]
    """`Rule` by id, `Reasoning` by session id, or `Prediction` by session id."""
    asked: int
    """Questions."""
    again: int
    """Those that had to be asked twice."""
    unreadable: tuple[str, ...]
    """What could not be read even so, and why; it is left out, and asked for again in the next run."""
    unanswered: int = 0
    """How many of these got no answer at all."""
    skipped: tuple[str, ...] = ()
    """What was read past in answers that were read."""


class Estimate(NamedTuple):
    """What is left to ask, reckoned before it is asked. Answers that must be asked again are not in it."""

    calls: int
    from_disk: int
    """Answers that are there already."""
    prompt_tokens: int
    answer_tokens: int
    """For answers of the usual length."""
    most_answer_tokens: int
    """If every answer were as long as it may be."""


def distill_rules(
    teacher: Teacher,
    train: Domain,
    *,
    limit: int = REFLECTIONS,
    n_rules: int = N_RULES,
    seed: int = 0,
    progress: bool = True,
) -> Distilled:
    """General rules by self-reflection on random training sessions, as `Rule` by id.

    Args:
        teacher: whom to ask.
        train: a training split.
        limit: how many of its sessions are predicted and reflected on.
        n_rules: how many rules at most.
        seed: of the choice of sessions.
        progress: show the teacher's progress bars.

    Raises:
        DataError: not a training split, or a session without annotated bundles.
        ValueError: `limit` or `n_rules` below 1.
        TeacherError: the teacher failed, or wrote nothing that can be read.
    """
    return carry_out(rules_plan(train, limit=limit, n_rules=n_rules, seed=seed), teacher, progress=progress)


def distill_reasoning(
    teacher: Teacher, train: Domain, rules: Mapping[str, Rule], *, limit: int | None = None, progress: bool = True
) -> Distilled:
    """Reasoning about training sessions that leads to their annotated bundles, as `Reasoning` by session id.

    Args:
        teacher: whom to ask.
        train: a training split.
        rules: what the reasoning may cite.
        limit: only so many sessions, the first; `None` is all.
        progress: show the teacher's progress bar.

    Raises:
        DataError: not a training split, a session without annotated bundles, or no rules.
        ValueError: `limit` below 1.
        TeacherError: the teacher failed.
    """
    return carry_out(reasoning_plan(train, rules, limit=limit), teacher, progress=progress)


def distill_answers(teacher: Teacher, domain: Domain, *, limit: int | None = None, progress: bool = True) -> Distilled:
    """The teacher's own answers from titles alone (zero-shot), as `Prediction` by session id.

    Args:
        teacher: whom to ask.
        domain: any split.
        limit: only so many sessions, the first; `None` is all.
        progress: show the teacher's progress bar.

    Raises:
        ValueError: `limit` below 1.
        TeacherError: the teacher failed.
    """
    return carry_out(answers_plan(domain, limit=limit), teacher, progress=progress)


# --- asking -------------------------------------------------------------------------------------------------------


def carry_out(plan: Plan, teacher: Teacher, *, progress: bool = True) -> Distilled:
    """Put the questions of a plan to a teacher, those with unreadable answers once more.

    Raises:
        TeacherError: the teacher failed, or too little can be read to go on.
    """
    asked, again, unreadable, unanswered, skipped = 0, 0, [], 0, []
    values: list[Any] | None = None
    while True:
        try:
            questions = plan.send(values)
        except StopIteration as end:
            return Distilled(end.value, asked, again, tuple(unreadable), unanswered, tuple(skipped))
        except TeacherError as error:
            raise TeacherError(f"{error} {what_to_do(unreadable, unanswered)}") from error
        values, left, last = [None] * len(questions), dict(enumerate(questions)), {}
        for attempt in range(TRIES):
            if not left:
                break
            longest = max(question.max_tokens for question in left.values())
            texts = teacher.ask([q.messages for q in left.values()], max_tokens=longest, progress=progress)
            asked += len(left) if attempt == 0 else 0
            again += len(left) if attempt > 0 else 0
            failed = {}
            for (number, question), text in zip(left.items(), texts, strict=True):
                try:
                    values[number] = _read(question, text)
                except UnreadableReply as problem:
                    failed[number], last[number] = question.again(text, problem), (question, text, problem, longest)
                else:
                    if past := question.skipped(text):
                        skipped.append(f"{question.about}: {past}")
            left = failed
        for number in left:
            question, text, problem, longest = last[number]
            unreadable.append(f"{question.about}: {problem}")
            unanswered += isinstance(text, NoAnswer)
            if reject := getattr(teacher, "reject", None):
                reject(question.messages, longest, text, str(problem))


def _read(question: Question, text: str) -> Any:
    if isinstance(text, NoAnswer):
        raise UnreadableReply(text.why)
    return question.read(text)


def what_to_do(unreadable: Sequence[str], unanswered: int) -> str:
    """The last problem of those that left nothing to go on with, and the way out."""
    advice = "Choose a more capable teacher."
    if unanswered == len(unreadable):
        advice = "Nothing was answered, so ask again later: what is missing is asked for again."
    return f"The last problem was: {unreadable[-1]}. {advice}"


def estimate(plan: Plan, teacher: Teacher) -> Estimate:
    """Go through a plan without asking: known answers as they are, all others as they usually look."""
    count = {"calls": 0, "from_disk": 0, "prompt_tokens": 0, "answer_tokens": 0, "most_answer_tokens": 0}
    values: list[Any] | None = None
    while True:
        try:
            questions = plan.send(values)
        except StopIteration:
            return Estimate(**count)
        values = [_imagine(question, teacher, count) for question in questions]


def _imagine(question: Question, teacher: Teacher, count: dict[str, int]) -> Any:
    """What a question will probably yield; adds to `count` what it will cost."""
    for _ in range(TRIES):
        text = teacher.known(question.messages, question.max_tokens)
        if text is None:
            count["calls"] += 1
            count["prompt_tokens"] += _tokens(question.messages)
            count["answer_tokens"] += len(question.typical) // CHARACTERS_PER_TOKEN + 1
            count["most_answer_tokens"] += question.max_tokens
            return question.read(question.typical)
        count["from_disk"] += 1
        try:
            return question.read(text)
        except UnreadableReply as problem:
            question = question.again(text, problem)
    return None


def _tokens(messages: Messages) -> int:
    """Roughly how many tokens a conversation has, with the marks around each turn."""
    return sum(len(turn["content"]) // CHARACTERS_PER_TOKEN + 5 for turn in messages)


def check_prices(price_in: float | None, price_out: float | None) -> None:
    """Refuse prices that are none, if they are given.

    Raises:
        ValueError: a price that is below 0 or not finite.
    """
    for name, price in (("price_in", price_in), ("price_out", price_out)):
        if price is not None:
            check_number(name, price)


def estimate_text(left: Estimate, price_in: float | None = None, price_out: float | None = None) -> str:
    """An estimate in words; prices are per million tokens.

    Raises:
        ValueError: a price that is below 0 or not finite.
    """
    check_prices(price_in, price_out)
    text = (
        f"{left.calls:,} calls to make, {left.from_disk:,} answers on disk. Estimated at {CHARACTERS_PER_TOKEN} "
        f"characters a token: {left.prompt_tokens:,} tokens of questions, about {left.answer_tokens:,} and at most "
        f"{left.most_answer_tokens:,} of answers; answers that cannot be read are asked for once more on top."
    )
    if price_in is None or price_out is None:
        return f"{text} Give both prices for a cost."
    about, most = (
        cost(left.prompt_tokens, n, price_in, price_out) for n in (left.answer_tokens, left.most_answer_tokens)
    )
    return f"{text} Cost: about {about:.4f}, at most {most:.4f}, in the currency of the prices."


def distilled_text(done: Distilled, usage: Usage, price_in: float | None = None, price_out: float | None = None) -> str:
    """What came of it and what it took, in words; prices are per million tokens.

    Raises:
        ValueError: a price that is below 0 or not finite.
    """
    check_prices(price_in, price_out)
    lines = [f"{len(done.found):,} of them found in {done.asked:,} questions; {done.again:,} were asked once more."]
    lines += [f"Left out as unreadable: {what}" for what in done.unreadable]
    if missing := len(done.unreadable):
        lines.append(f"Missing: {missing:,}, of which {done.unanswered:,} got no answer. Run it again to ask for them.")
    lines += [f"Read past: {what}" for what in done.skipped] + usage.notes
    spent = (
        f"{usage.calls:,} calls ({usage.retries:,} more failed and were repeated), {usage.from_disk:,} answers from "
        f"disk. Counted: {usage.prompt_tokens:,} tokens of questions, {usage.answer_tokens:,} of answers"
    )
    if usage.unmetered:
        spent += f", and {usage.unmetered:,} calls whose tokens nobody counted"
    if price_in is not None and price_out is not None:
        spent += f". Cost: {cost(usage.prompt_tokens, usage.answer_tokens, price_in, price_out):.4f}"
    return "\n".join([*lines, f"{spent}."])
