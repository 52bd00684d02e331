"""Checkers of the exercises on the router explorer (chapter 08); they keep the habits of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...study.mixtures import changed_alpha
from .checking import UNANSWERED


def check_sharpen(sharpen: Callable) -> None:
    """Compare a reader's change of α with `mixtures.changed_alpha`.

    Args:
        sharpen: takes α of one layer, a temperature and which experts are on (both arrays have an entry per expert),
            and returns the new α.

    Raises:
        AssertionError: it differs; the message shows the first such case and hints at the reason.
    """
    everyone = np.array([True, True, True])
    alpha = np.array([0.6, 0.3, 0.1])
    cases = [
        ("temperature 1 changes nothing", alpha, 1.0, everyone, "α to the power of 1 is α"),
        ("a low temperature sharpens", alpha, 0.5, everyone, "raise α to the power of 1 / temperature"),
        ("a high temperature flattens", alpha, 4.0, everyone, "divide, do not multiply, by the temperature"),
        ("an expert that is off has no weight", alpha, 1.0, np.array([False, True, True]), "renormalise what is left"),
        ("both at once", alpha, 0.5, np.array([True, False, True]), "first the power, then the sum of those left on"),
        ("nearly no weight", np.array([1 - 2e-9, 1e-9, 1e-9]), 4.0, everyone, "work with powers, not with differences"),
    ]
    rng = np.random.default_rng(0)
    for _ in range(50):
        on = rng.permutation([True, True, bool(rng.integers(2))])
        cases.append(
            ("a random α", rng.dirichlet([1, 1, 1]), float(rng.uniform(0.2, 5)), on, "compare with the formula")
        )
    for number, (why, before, temperature, on, hint) in enumerate(cases):
        found = sharpen(before.copy(), temperature, on.copy())
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        expected = changed_alpha(np.log(before), temperature, np.flatnonzero(on))
        assert np.shape(found) == (3,), f"{why}: give one weight per expert, not {np.shape(found)}"
        assert np.allclose(found, expected, atol=1e-6), (
            f"{why}: from {np.round(before, 3)} at temperature {temperature:.2f}, experts on: {on.tolist()}, you make "
            f"{np.round(found, 3)}, it should be {np.round(expected, 3)}; {hint}"
        )
        if number < 6:
            print(f"ok: {why}")
    print("ok: 50 random α")


def check_rescued(rescued: Callable, data: Mapping[str, Any]) -> None:
    """Check which sessions a mixture gets exactly right although no expert alone does.

    Args:
        rescued: takes the payload of an explorer and returns session ids.
        data: such a payload, `RouterExplorer.data`.

    Raises:
        AssertionError: another set; the message names a session that is missing or too much, and hints at the reason.
    """
    found = rescued(data)
    if found is ...:
        print(UNANSWERED)
        return
    assert isinstance(found, Iterable), "give the ids of the sessions, in a list or a set"
    found, expected = set(found), set()
    for session in data["sessions"]:
        exact = [verdict == "exact" for _, _, verdict in session["answers"]]
        alone = any(exact[session["methods"][name]] for name in data["experts"])
        grid = zip(data["settings"], session["grid"], strict=True)
        mixed = any(exact[place] for setting, place in grid if setting.startswith("mix"))
        if mixed and not alone:
            expected.add(session["id"])
    if surplus := sorted(found - expected):
        raise AssertionError(
            f"session {surplus[0]} does not belong: does an expert alone get it right, or is no setting that begins "
            "with 'mix' exact?"
        )
    if missing := sorted(expected - found):
        raise AssertionError(
            f"session {missing[0]} is missing: have you looked at every setting that begins with 'mix'?"
        )
    print(f"ok: {len(expected)} of {len(data['sessions'])} sessions are rescued by a mixture")
