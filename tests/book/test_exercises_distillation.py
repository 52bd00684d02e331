"""Checkers of chapter 03: published solutions pass, stubs are let through, wrong answers get a hint that fits."""

from __future__ import annotations

import re
from collections import Counter

import nbformat
import pytest
from conftest import ROOT

from routedk_lite.book.exercises import distillation as exercises
from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.data.domains import load_domain
from routedk_lite.data.toyproducts import ACTIVITIES, kind_in_title

CELLS = nbformat.read(ROOT / "notebooks/03_distillation.ipynb", as_version=4).cells
MARKDOWN = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
CODE = [cell.source for cell in CELLS if cell.cell_type == "code"]
SOLUTIONS = re.findall(r"<summary>Solution</summary>\s+```python\n(.*?)```", MARKDOWN, re.DOTALL)
SESSIONS = load_domain("toyshop", "train").sessions[:240]


def run(source: str) -> dict:
    """Names that a piece of chapter code defines."""
    names = {"ACTIVITIES": ACTIVITIES, "kind_in_title": kind_in_title}
    exec(source, names)
    return names


def stub(checker: str) -> dict:
    """Names that the cell of a checker defines, without the call of it."""
    (source,) = [code for code in CODE if re.search(rf"^{checker}\(", code, re.MULTILINE)]
    return run(re.sub(rf"^{checker}\(.*", "", source, flags=re.MULTILINE))


def solution(name: str) -> dict:
    (source,) = [text for text in SOLUTIONS if f"def {name}(" in text]
    return run(source.split("\nbudget = ")[0])


def test_every_exercise_has_checker_hint_and_solution() -> None:
    checkers = [name for name in vars(exercises) if name.startswith("check_")]
    used = re.findall(r"^(check_\w+)\(", "\n".join(CODE), re.MULTILINE)
    assert sorted(used) == sorted(checkers)
    assert len(SOLUTIONS) == MARKDOWN.count("<summary>Hint</summary>") == len(used) == 4


# Five kinds of feedback


def test_feedback_solution_passes_and_the_stub_is_let_through(capsys) -> None:
    exercises.check_feedback(solution("feedback_of")["feedback_of"])
    assert capsys.readouterr().out.count("ok: ") == 11
    exercises.check_feedback(stub("check_feedback")["feedback_of"])
    assert capsys.readouterr().out.strip() == UNANSWERED


def first_only(bundle, annotated):
    return solution("feedback_of")["feedback_of"](bundle, annotated[:1])


def last_of_equals(bundle, annotated):
    return solution("feedback_of")["feedback_of"](bundle, annotated[::-1])


def shared_most(bundle, annotated):
    nearest = max(annotated, key=lambda b: len(bundle & b))
    return solution("feedback_of")["feedback_of"](bundle, [nearest])


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda bundle, annotated: None, "is a return missing"),
        (lambda bundle, annotated: "wrong", "none of correct, invalid"),
        (lambda bundle, annotated: "correct", "nothing is shared"),
        (first_only, "the second is nearer"),
        (last_of_equals, "the first counts"),
        (shared_most, "the smaller one is nearer"),
    ],
)
def test_wrong_feedback_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_feedback(answer)


# Confidence


def test_confidence_solution_passes_and_the_stub_is_let_through(capsys) -> None:
    exercises.check_confidence(solution("confidence")["confidence"])
    assert "ok: equal to mine_patterns for 40 patterns" in capsys.readouterr().out
    exercises.check_confidence(stub("check_confidence")["confidence"])
    assert capsys.readouterr().out.strip() == UNANSWERED


def of_sets(pattern, sessions, kinds):
    wanted, shown, held = set(pattern), 0, 0
    for session in sessions:
        found = kinds(session)
        shown += wanted <= set(found)
        held += any(wanted <= {found[n - 1] for n in bundle} for bundle in session.bundles)
    return held / shown


def of_all(pattern, sessions, kinds):
    wanted = Counter(pattern)
    held = [any(wanted <= Counter(kinds(s)[n - 1] for n in b) for b in s.bundles) for s in sessions]
    return sum(held) / len(sessions)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda pattern, sessions, kinds: None, "not a number"),
        (lambda pattern, sessions, kinds: 3.0, "count sessions, not bundles"),
        (lambda pattern, sessions, kinds: 0.123, "in how many of these"),
        (of_sets, "must be there twice"),
        (of_all, "not by all sessions"),
    ],
)
def test_wrong_confidence_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_confidence(answer)


# Brands


def test_brands_solution_passes_and_the_start_is_let_through(capsys) -> None:
    names = solution("alike")
    exercises.check_brands(names["favoured"], names["others"])
    assert "the brand says nothing more" in capsys.readouterr().out
    start = stub("check_brands")
    exercises.check_brands(start["favoured"], start["others"])
    printed = capsys.readouterr().out
    assert "supported" in printed and printed.strip().endswith(UNANSWERED)


def other_kind(a, b):
    return kind_in_title(a.title) != kind_in_title(b.title)


@pytest.mark.parametrize(
    ("favoured", "others", "hint"),
    [
        (lambda a, b: a.brand == b.brand, lambda a, b: False, "these are of one kind"),
        (other_kind, other_kind, "their brands are different"),
        (lambda a, b: False, other_kind, "their brands are the same"),
        (
            lambda a, b: other_kind(a, b) and a.brand == b.brand,
            lambda a, b: other_kind(a, b) and a.brand != b.brand and "tent" in a.title + b.title,
            "a difference is left",
        ),
        (
            lambda a, b: other_kind(a, b) and a.brand == b.brand and "tent" in a.title + b.title,
            lambda a, b: other_kind(a, b) and a.brand != b.brand and "tent" in a.title + b.title,
            "pairs only",
        ),
    ],
)
def test_an_unfair_comparison_is_told_why(favoured, others, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_brands(favoured, others)


# Equal pay


def test_equal_pay_solution_passes_and_the_stub_is_let_through(capsys) -> None:
    exercises.check_equal_pay(solution("equal_pay")["equal_pay"], SESSIONS)
    assert capsys.readouterr().out.count("ok: ") == 7
    exercises.check_equal_pay(stub("check_equal_pay")["equal_pay"], SESSIONS)
    assert capsys.readouterr().out.strip() == UNANSWERED


def with_skipping(ordered, budget):
    taken = []
    for session in ordered:
        if sum(map(len, taken)) + len(session) <= budget:
            taken.append(session)
    return taken


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda ordered, budget: None, "is a return missing"),
        (lambda ordered, budget: ordered, "too much"),
        (lambda ordered, budget: [], "the next one still fits"),
        (lambda ordered, budget: ordered[1:3], "not the first ones"),
        (with_skipping, "not the first ones"),
    ],
)
def test_wrong_pay_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_equal_pay(answer, SESSIONS)
