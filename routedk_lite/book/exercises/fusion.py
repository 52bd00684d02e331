"""Checkers of the exercises on fusion ablations (chapter 06); they keep the habits of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ...analysis.diagnostics import shapley_values
from ...statistics import holm
from .checking import UNANSWERED, cases_hold, verdicts_hold

N_FAMILIES = 200
"""Random families of p values that a correction is compared on."""


def check_holm(adjusted: Callable[[Sequence[float]], Sequence[float]]) -> None:
    """Compare a reader's correction of a family's p values with `statistics.holm`.

    Args:
        adjusted: takes p values and returns the adjusted ones, in the same order.

    Raises:
        AssertionError: one differs; the message shows the first such family and hints at the reason.
    """
    cases = [
        ("a single comparison needs no correction", [0.03]),
        ("the smallest of three counts three times", [0.01, 0.2, 0.5]),
        ("the order of the family does not matter", [0.5, 0.01, 0.2]),
        ("no adjusted p value is below that of a smaller one", [0.01, 0.03, 0.031]),
        ("nothing exceeds one", [0.4, 0.6, 0.9]),
    ]
    if not cases_hold(partial(_try_holm, adjusted), cases):
        return
    chance = np.random.default_rng(0)
    for _ in range(N_FAMILIES):
        _try_holm(adjusted, (chance.random(chance.integers(1, 9)) ** 2).tolist(), "a random family")
    print(f"ok: equal to statistics.holm for {N_FAMILIES} random families")


def _try_holm(adjusted: Callable, family: list[float], why: str) -> object:
    """Call the reader's function and compare; returns what it gave."""
    found = adjusted(list(family))
    if found is ...:
        return found
    shown = f"for the p values {np.round(family, 3).tolist()}"
    assert found is not None, f"{shown} your function gave None: is a return missing?"
    values, expected = np.asarray(found, dtype=float), holm(family)
    assert values.shape == expected.shape, f"{shown} you gave {values.size} numbers: give one for each, in their order"
    if not np.allclose(values, expected, atol=1e-9):
        order, m = np.argsort(family), len(family)
        corrected = np.sort(family) * np.arange(m, 0, -1)

        def back(values: np.ndarray) -> np.ndarray:
            placed = np.empty(m)
            placed[order] = values
            return placed

        guesses = [
            (
                np.minimum(np.array(family) * m, 1),
                "that is Bonferroni's rule: only the smallest counts for all of them",
            ),
            (np.sort(expected), "give them back in the order in which they came"),
            (back(np.minimum(corrected, 1)), "one comes out below that of a smaller p value: take the largest so far"),
            (back(np.maximum.accumulate(corrected)), "a probability is at most one"),
        ]
        near = [hint for guess, hint in guesses if np.allclose(values, guess, atol=1e-9)]
        hint = near[0] if near else why
        raise AssertionError(f"{shown} you gave {values.round(3).tolist()}, Holm {expected.round(3).tolist()}: {hint}")
    return found


def three_teams() -> dict[str, dict[frozenset[str], float]]:
    """What every set of experts of three made-up teams is worth, by a name that tells nothing.

    In each team, two of the three experts or one of them are not what leaving one out makes of them.
    """

    def team(**worth: float) -> dict[frozenset[str], float]:
        return {frozenset(): 0.0} | {frozenset(names): value for names, value in worth.items()}

    return {
        "A": team(x=0.0, y=0.3, z=0.2, xy=0.3, xz=0.2, yz=0.5, xyz=0.5),
        "B": team(x=0.3, y=0.2, z=0.3, xy=0.5, xz=0.3, yz=0.5, xyz=0.5),
        "C": team(x=0.1, y=0.0, z=0.0, xy=0.1, xz=0.1, yz=0.4, xyz=0.5),
    }


def check_teams(verdicts: Mapping[str, str]) -> None:
    """Check in which of `three_teams` two experts are twins, two are partners, or one is a passenger.

    Args:
        verdicts: name → `twins` (two know the same), `partners` (two are worth something only together) or
            `passenger` (one adds nothing, whoever is there).

    Raises:
        AssertionError: a word is none of the three, or wrong; all wrong ones are named.
    """
    truth = {"A": "passenger", "B": "twins", "C": "partners"}
    hint = "What is each expert worth alone, and what is lost when it leaves?"
    if not verdicts_hold("team", verdicts, truth, hint):
        return
    for name, worth in three_teams().items():
        everyone = max(worth, key=len)
        left = {x: worth[everyone] - worth[everyone - {x}] for x in sorted(everyone)}
        share = shapley_values(worth)
        told = ", ".join(f"{x} {left[x]:.1f} / {share[x]:.2f}" for x in left)
        print(f"ok: {name}, {truth[name]}: left out / Shapley share: {told}")


def check_same_length(control: Callable) -> None:
    """Check a control that gives every session the α of another session with as many products.

    Args:
        control: takes session id → α (L, E), session id → number of products, and a NumPy generator; returns session
            id → α. A session that is alone with its length keeps its own.

    Raises:
        AssertionError: the α is not that of another session of this length, or one was handed out twice.
    """
    chance = np.random.default_rng(0)
    lengths = {id_: int(n) for id_, n in zip(range(100, 140), chance.integers(3, 7, size=40), strict=True)} | {900: 11}
    alpha = {id_: chance.dirichlet([4, 2, 1], size=2) for id_ in lengths}
    for seed in range(20):
        given = control(dict(alpha), dict(lengths), np.random.default_rng(seed))
        if given is ...:
            print(UNANSWERED)
            return
        assert given is not None, "your function gave None: is a return missing?"
        assert set(given) == set(alpha), f"you gave α for {len(given)} of {len(alpha)} sessions: give one for each id"
        owner = {a.tobytes(): id_ for id_, a in alpha.items()}
        donors = {id_: owner.get(np.asarray(a).tobytes()) for id_, a in given.items()}
        strange = [id_ for id_, donor in donors.items() if donor is None]
        assert not strange, f"session {strange and strange[0]}: that α belongs to no session; hand it on unchanged"
        for id_, donor in donors.items():
            assert lengths[donor] == lengths[id_], (
                f"session {id_} of {lengths[id_]} products got the α of one with {lengths[donor]}: stay within a length"
            )
        own = [id_ for id_, donor in donors.items() if donor == id_ and id_ != 900]
        assert not own, f"session {own and own[0]} kept its own α: a plain permutation may leave some in their place"
        twice = len(donors) - len(set(donors.values()))
        assert not twice, f"{twice} sessions' α went to nobody: everyone's must be handed on once, or the mean changes"
    print(f"ok: {len(alpha)} sessions of {len(set(lengths.values()))} lengths, 20 draws, nobody kept its own")
