"""The toy teacher answers from the text of a question alone, readably, and learns what it is shown."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import replace

import pytest

from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.toyproducts import ACTIVITIES
from routedk_lite.teacher import toy as toyteacher
from routedk_lite.teacher.distillation import distill_answers, distill_reasoning, distill_rules, estimate, rules_plan
from routedk_lite.teacher.knowledge import check_knowledge, load_knowledge
from routedk_lite.teacher.recording import distill
from routedk_lite.teacher.teaching import FEEDBACK, ask_bundles, feedback
from routedk_lite.teacher.toy import ToyTeacher

TRAIN, TEST = load_domain("toyshop", "train"), load_domain("toyshop", "test")


@pytest.fixture(scope="module")
def rules():
    return distill_rules(ToyTeacher(), TRAIN, limit=120, n_rules=20, progress=False).found


def test_it_knows_words_and_none_of_the_laws() -> None:
    source = inspect.getsource(toyteacher)
    assert "ACTIVITIES" not in source and "toyshop import" not in source and ".bundles" not in source


def test_its_own_answers_are_readable_and_far_from_right() -> None:
    done = distill_answers(ToyTeacher(), TEST, progress=False)
    assert not done.unreadable and done.again and done.asked == len(TEST)  # bundles of one are asked for once more
    score = evaluate({id_: p.bundles for id_, p in done.found.items()}, TEST, "strict")
    assert 0.3 < score.f1 < 0.9 and score.exact_match < 0.5


def test_annotated_bundles_do_not_move_its_answer() -> None:
    session = TRAIN.sessions[0]
    other = replace(session, bundles=(frozenset({1, len(session)}),), intents=("x",), why=())
    messages = [ask_bundles(s).messages for s in (session, other)]
    first, second = ToyTeacher().ask(messages, max_tokens=100)
    assert first == second


def test_it_meets_every_kind_of_feedback() -> None:
    kinds = Counter()
    for session in TRAIN.sessions[:150]:
        question = ask_bundles(session, smallest=1)
        (text,) = ToyTeacher().ask([question.messages], max_tokens=question.max_tokens)
        kinds.update(feedback(question.read(text).bundles, session))
    assert kinds.keys() == FEEDBACK.keys()


def test_its_rules_are_lessons_with_the_counts_behind_them(rules) -> None:
    counts = [tuple(map(int, re.findall(r"\d+", rule.why))) for rule in rules.values()]
    assert [met for met, _ in counts] == sorted((met for met, _ in counts), reverse=True)
    assert all(missed <= met for met, missed in counts) and sum(missed for _, missed in counts) > 10
    text = " ".join(rule.text for rule in rules.values())
    assert all(activity in text for activity in ACTIVITIES)  # the shop's laws, found from sessions
    assert {rule.kind for rule in rules.values()} == {"alternative", "complement", "distractor"}


def test_few_sessions_and_few_rules_teach_less() -> None:
    def lessons(**how) -> set[str]:
        return {r.text for r in distill_rules(ToyTeacher(), TRAIN, progress=False, **how).found.values()}

    assert len(lessons(limit=3, n_rules=20)) < len(lessons(limit=120, n_rules=20))
    assert len(lessons(limit=120, n_rules=4)) == 4


def test_its_reasoning_holds_what_students_need(rules) -> None:
    done = distill_reasoning(ToyTeacher(), TRAIN, rules, limit=80, progress=False)
    assert not done.unreadable and not done.again
    for id_, entry in done.found.items():
        assert set(entry.rules) <= rules.keys() and not entry.noisy
        assert f"item{'s' if TRAIN.by_id[id_].bundles else ''}" in entry.text.lower()


def test_a_whole_folder_can_be_distilled_from_it(tmp_path) -> None:
    teacher = ToyTeacher()
    assert estimate(rules_plan(TRAIN, limit=5), teacher).calls == 11
    for kind, limit in (("rules", 20), ("reasoning", 30), ("answers", 5)):
        distill(teacher, kind, "toyshop", tmp_path, limit=limit, progress=False)
    knowledge = load_knowledge("toyshop", tmp_path)
    check_knowledge(knowledge, TRAIN, complete=False)
    assert knowledge.provenance["teacher"] == teacher.name
