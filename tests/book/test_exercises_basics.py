"""Checkers: the published solutions pass, stubs are let through, wrong answers get a hint that fits."""

from __future__ import annotations

import re

import nbformat
import pytest
from conftest import ROOT

from routedk_lite.answers.baselines import all_pairs, consecutive_pairs
from routedk_lite.book.exercises import basics as exercises
from routedk_lite.book.exercises import conflict as exercises_conflict
from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate

CELLS = nbformat.read(ROOT / "notebooks/01_bundles_and_metrics.ipynb", as_version=4).cells
MARKDOWN = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
CODE = [cell.source for cell in CELLS if cell.cell_type == "code"]
SOLUTION = re.compile(r"<summary>Solution</summary>\s+```python\n(.*?)```", re.DOTALL)
SOLUTIONS = SOLUTION.findall(MARKDOWN)


@pytest.fixture(scope="module")
def sessions():
    return load_domain("toyshop", "test").sessions


def run(source: str) -> dict:
    """Names that a piece of chapter code defines."""
    names: dict = {}
    exec(source, names)
    return names


def stub(start: str) -> dict:
    """Names that the chapter's stub beginning with `start` defines."""
    (source,) = [code for code in CODE if code.startswith(start)]
    return run(source)


def pairs_of(n_items):
    return [{n, n + 1} for n in range(1, n_items, 2)]


def test_chapter_has_hint_and_solution_for_every_checker() -> None:
    used = set(re.findall(r"check_\w+(?=\()", "\n".join(CODE)))
    assert len(SOLUTIONS) == MARKDOWN.count("<summary>Hint</summary>") == len(used)


def test_every_checker_is_used_in_a_chapter() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    modules = (exercises, exercises_conflict)
    checkers = [name for module in modules for name in vars(module) if name.startswith("check_")]
    assert [name for name in checkers if f"{name}(" not in text] == []


@pytest.mark.parametrize("chapter", ["02_knowledge_conflict", "04_lora_experts", "05_router_and_fusion"])
def test_stubs_are_let_through_and_solutions_pass(chapter, capsys) -> None:
    import numpy as np
    import torch

    from routedk_lite.fusion.statistics import routing_statistics

    cells = nbformat.read(ROOT / f"notebooks/{chapter}.ipynb", as_version=4).cells
    names = {"np": np, "torch": torch, "routing_statistics": routing_statistics}
    checked = 0
    for place, cell in enumerate(cells):
        if helper := re.search(r"^def mean_cosine\(.*\n(?:(?: .*)?\n)+", cell.source, re.M):
            exec(helper[0], names)
        if call := re.search(r"^check_\w+\(.*\)$", cell.source, re.M):
            exec(cell.source, names)
            assert capsys.readouterr().out.strip() == exercises.UNANSWERED
            exec(SOLUTION.search(cells[place + 1].source)[1], names)
            exec(call[0], names)
            assert "ok: " in capsys.readouterr().out
            checked += 1
    assert checked == sum("import check_" in cell.source for cell in cells) >= 2


# Strict recall


def test_strict_recall_solution_passes(capsys) -> None:
    exercises.check_strict_recall(run(SOLUTIONS[0])["strict_recall"])
    printed = capsys.readouterr().out
    assert printed.count("ok: ") == 8
    assert str(exercises.N_RANDOM) in printed


def test_strict_recall_stub_is_let_through(capsys) -> None:
    exercises.check_strict_recall(stub("def strict_recall")["strict_recall"])
    assert capsys.readouterr().out.strip() == exercises.UNANSWERED


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda predicted, truth: None, "is a return missing"),
        (lambda predicted, truth: "half", "not a number"),
        (lambda predicted, truth: sum(any(p <= b for b in truth) for p in predicted) / len(truth), "pieces"),
        (lambda predicted, truth: sum(any(p & b for p in predicted) for b in truth) / len(truth), "too large"),
        (lambda predicted, truth: sum(any(p <= b for p in predicted) for b in truth) / len(truth), "single item"),
        (
            lambda predicted, truth: sum(any(p <= b for p in predicted if len(p) > 1) for b in truth) / len(truth),
            "annotated twice",
        ),
        (
            lambda predicted, truth: (
                len({next(b for b in truth if p <= b) for p in predicted if any(p <= b for b in truth)})
                / len(set(truth))
            ),
            "overlap",
        ),
    ],
)
def test_wrong_strict_recall_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_strict_recall(answer)


def test_random_tasks_catch_what_the_cases_miss() -> None:
    right = run(SOLUTIONS[0])["strict_recall"]
    with pytest.raises(AssertionError, match="random"):
        exercises.check_strict_recall(lambda p, t: right(p, t) if len(p) < 4 else 0.0)


# The useless champion


def test_gamed_recall_solution_passes(sessions, capsys) -> None:
    exercises.check_gamed_recall(run(SOLUTIONS[1])["guess"], sessions)
    assert "ok: " in capsys.readouterr().out


def test_the_stranger_way_of_the_solution_works_too(sessions, capsys) -> None:
    exercises.check_gamed_recall(lambda n: [[1, 1]] * 10, sessions)
    assert "strict precision 0.000" in capsys.readouterr().out


def test_gamed_recall_stub_is_let_through(sessions, capsys) -> None:
    exercises.check_gamed_recall(stub("def guess")["guess"], sessions)
    assert capsys.readouterr().out.strip() == exercises.UNANSWERED


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n: None, "is a return missing"),
        (lambda n: [], "answer all of them"),
        (lambda n: [{1}], "answer all of them"),
        (pairs_of, "below twice"),
        (lambda n: [{i, j} for j in range(1, n + 1) for i in range(1, j)] * 10 + [set(range(1, n + 1))] * 50, "fell"),
    ],
)
def test_wrong_champion_is_told_why(answer, hint, sessions) -> None:
    with pytest.raises(AssertionError, match=hint):
        exercises.check_gamed_recall(answer, sessions)


def test_champion_is_compared_with_the_library_floor(sessions, capsys) -> None:
    exercises.check_gamed_recall(lambda n: pairs_of(n) * 2, sessions)
    floor = evaluate({s.id: consecutive_pairs(s) for s in sessions}, sessions)
    assert f"precision {floor.precision:.3f}, recall {floor.recall:.3f}" in capsys.readouterr().out
    pairs = evaluate({s.id: all_pairs(s) for s in sessions}, sessions)
    assert pairs.recall > 2 * floor.recall
    assert pairs.precision < floor.precision  # so all pairs alone are no solution, as the chapter says


# The shy student


def test_shy_solution_passes(sessions, capsys) -> None:
    exercises.check_shy_student(run(SOLUTIONS[2])["answers"], sessions)
    assert "ok: " in capsys.readouterr().out


def test_shy_solution_holds_on_the_public_data_too(mirror, capsys) -> None:
    for name in ("electronic", "clothing", "food"):
        exercises.check_shy_student(run(SOLUTIONS[2])["answers"], load_domain(name, "test"))
    assert capsys.readouterr().out.count("ok: ") == 3


def test_shy_stub_is_let_through(sessions, capsys) -> None:
    answers = stub('answers = {\n    "official precision"')["answers"]
    assert answers.keys() == run(SOLUTIONS[2])["answers"].keys()
    exercises.check_shy_student(answers, sessions)
    assert capsys.readouterr().out.strip() == exercises.UNANSWERED


def test_wrong_directions_are_named(sessions) -> None:
    answers = run(SOLUTIONS[2])["answers"] | {"strict F1": "up", "official recall": "same"}
    with pytest.raises(AssertionError, match="official recall, strict F1"):
        exercises.check_shy_student(answers, sessions)
    with pytest.raises(AssertionError, match="'higher' is none of up, down, same"):
        exercises.check_shy_student(answers | {"strict F1": "higher"}, sessions)


def test_shy_and_bold_know_the_same(sessions) -> None:
    bold, shy = exercises.shy_and_bold(sessions)
    assert set(bold) == {s.id for s in sessions}
    assert list(shy) == [s.id for s in sessions[:: exercises.SHY_EVERY]]
    assert all(bold[i] == shy[i] for i in shy)
    assert evaluate(shy, sessions).precision == 1


def test_learning_curve_checker_tells_right_from_wrong(capsys):
    from routedk_lite.book.exercises.basics import check_learning_curve

    check_learning_curve(lambda n: {100: 0.4, 600: 0.71}[n], full=0.7, sizes=(100, 600))
    assert "ok: the first 100 sessions" in capsys.readouterr().out
    check_learning_curve(lambda n: None, full=0.7, sizes=(100, 600))
    assert capsys.readouterr().out.strip() == exercises.UNANSWERED
    with pytest.raises(AssertionError, match=r"reach 0\.500, the chapter reached 0\.700"):
        check_learning_curve(lambda n: 0.5, full=0.7, sizes=(100, 600))
    with pytest.raises(AssertionError, match="no share"):
        check_learning_curve(lambda n: 70.0, full=0.7, sizes=(100, 600))
    with pytest.raises(AssertionError, match="not a number"):
        check_learning_curve(lambda n: "high", full=0.7, sizes=(100, 600))
