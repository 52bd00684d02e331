"""Checkers of chapter 08: right answers pass in other words too, wrong ones get a hint that fits."""

from __future__ import annotations

import numpy as np
import pytest
from explored import make_results
from solved import solutions

from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.book.exercises.explorer import check_rescued, check_sharpen
from routedk_lite.book.explorer.static import RouterExplorer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    results = make_results(tmp_path_factory.mktemp("results"))
    return RouterExplorer.from_results(results, "toy", "toyshop").data


def by_logs(alpha, temperature, on):
    """Right, and in other words than the chapter's solution."""
    weights = np.exp(np.log(alpha) / temperature) * on
    return (weights / weights.sum()).tolist()


def rescued(data):
    found = set()
    for session in data["sessions"]:
        right = {i for i, answer in enumerate(session["answers"]) if answer[2] == "exact"}
        mixed = {p for s, p in zip(data["settings"], session["grid"], strict=True) if s[:3] == "mix"}
        if right & mixed and not right & {session["methods"][name] for name in data["experts"]}:
            found.add(session["id"])
    return found


def test_a_right_knob_passes(capsys) -> None:
    check_sharpen(by_logs)
    assert capsys.readouterr().out.count("ok: ") == 7


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, t, on: None, "is a return missing"),
        (lambda a, t, on: by_logs(a, 1 / t, on), "temperature sharpens.*raise α to the power of 1 / temperature"),
        (lambda a, t, on: np.exp(a / t) / np.exp(a / t).sum(), "temperature 1 changes nothing"),
        (lambda a, t, on: a ** (1 / t) * on / (a ** (1 / t)).sum(), "renormalise what is left"),
        (lambda a, t, on: by_logs(a, t, on)[:2], "give one weight per expert"),
    ],
)
def test_a_wrong_knob_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_sharpen(answer)


def test_the_right_sessions_pass(data, capsys) -> None:
    expected = rescued(data)
    assert 0 < len(expected) < len(data["sessions"]), "the made-up records must leave something to find"
    check_rescued(lambda d: sorted(expected), data)
    assert f"ok: {len(expected)} of {len(data['sessions'])}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda d: 3, "give the ids"),
        (lambda d: [], "is missing: have you looked at every setting"),
        (lambda d: [s["id"] for s in d["sessions"]], "does not belong: does an expert alone"),
    ],
)
def test_wrong_sessions_are_told_why(answer, hint, data) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_rescued(answer, data)


def test_stubs_are_no_error(data, capsys) -> None:
    check_sharpen(lambda *_: ...)
    check_rescued(lambda d: ..., data)
    assert capsys.readouterr().out.splitlines() == [UNANSWERED] * 2


def test_the_solutions_in_the_chapter_pass(data, capsys) -> None:
    knob, sessions, layers = solutions("08_router_explorer")
    known = {"np": np}
    exec(knob + sessions, known)
    check_sharpen(known["sharpen"])
    check_rescued(known["rescued"], data)
    assert capsys.readouterr().out.count("ok: ") == 8
    compile(layers, "layers", "exec")  # it asks the chapter's own model
