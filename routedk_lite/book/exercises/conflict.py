"""Checkers of the exercises on knowledge conflict (chapter 02); they keep the habits of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .checking import UNANSWERED, verdicts_hold

if TYPE_CHECKING:
    import torch


def check_step_effect(step_effect: Callable) -> None:
    """Check a forecast of what a step for one loss does to another.

    Args:
        step_effect: takes the gradients of both losses (tensors) and the length of the step, and returns the change
            of the second loss, to first order, after a step of that length against the first gradient.

    Raises:
        AssertionError: a forecast differs; the message shows it and hints at the reason.
    """
    import torch

    cases = [
        ("a step for the loss itself", [3.0, 4.0], [3.0, 4.0], 0.1),
        ("gradients that point apart", [1.0, 0.0], [-2.0, 0.0], 0.1),
        ("gradients at right angles", [1.0, 0.0], [0.0, 5.0], 0.1),
        ("a small gradient of the first loss", [0.01, 0.0], [1.0, 1.0], 0.5),
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        a, b = torch.randn(2, 30, generator=generator)
        cases.append(("random gradients", a.tolist(), b.tolist(), float(torch.rand((), generator=generator))))
    for why, one, other, length in cases:
        g_a, g_b = torch.tensor(one), torch.tensor(other)
        found = step_effect(g_a.clone(), g_b.clone(), length)
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        found, expected = float(found), -length * float(g_a @ g_b) / float(g_a.norm())
        hint = "the step is `length` long, whatever the size of the first gradient"
        if abs(found + expected) < 1e-4 * (1 + abs(expected)):
            hint = "it should have the other sign: the step goes *against* the first gradient"
        assert abs(found - expected) < 1e-4 * (1 + abs(expected)), (
            f"{why}: your forecast is {found:+.4f}, the change is {expected:+.4f} to first order; {hint}"
        )
        if len(one) == 2:
            print(f"ok: {why}: {found:+.3f}")
    print("ok: 20 random pairs of gradients")


def check_cosine_gap(cosine_gap: Callable) -> None:
    """Compare a reader's gap between two kinds with that of `conflict.gradient_cosines`.

    Args:
        cosine_gap: takes the gradients of two kinds, each (batches, weights), and returns a number.

    Raises:
        AssertionError: it differs; the message hints at the reason.
    """
    import torch

    generator = torch.Generator().manual_seed(0)

    def cloud(centre: torch.Tensor, noise: float) -> torch.Tensor:
        return centre + noise * torch.randn(5, len(centre), generator=generator)

    for case in range(10):
        one, other = torch.randn(2, 40, generator=generator)
        a, b = cloud(one, 0.5 + 0.1 * case), cloud(0.7 * one + other, 1.5)
        found = cosine_gap(a.clone(), b.clone())
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        expected = _cosine_gap(a, b)
        assert abs(float(found) - expected) < 1e-4, (
            f"for two kinds of five batches your gap is {float(found):+.4f}, conflict.gradient_cosines has "
            f"{expected:+.4f}; {_gap_hint(a, b, float(found))}"
        )
    print(f"ok: equal to conflict.gradient_cosines for 10 pairs of kinds; the last gap is {expected:+.3f}")


def _cosine_gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """The gap that `conflict.gradient_cosines` finds, on a model whose gradients are these rows."""
    import torch

    from ...analysis.conflict import gradient_cosines

    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.Module()])
    model.layers[0].lora_A = torch.nn.Linear(a.shape[1], 1, bias=False)
    weight = model.layers[0].lora_A.weight
    losses = {kind: [lambda row=row: (weight * row).sum() for row in rows] for kind, rows in (("a", a), ("b", b))}
    return float(gradient_cosines(model, losses, generator=np.random.default_rng(0)).gap[-1, 0, 1, 0])


def _gap_hint(a: torch.Tensor, b: torch.Tensor, found: float) -> str:
    """What a wrong gap may come from."""
    import torch

    unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (a, b)]
    apart = ~torch.eye(len(a), dtype=torch.bool)
    within, between, other = (float((x @ y.T)[apart].mean()) for x, y in (unit[:1] * 2, unit, unit[1:] * 2))
    everything = [float((x @ y.T).mean()) for x, y in (unit[:1] * 2, unit, unit[1:] * 2)]
    guesses = {
        between: "that is the cosine between the kinds: nothing has been taken off yet",
        between - (within + other) / 2: "take the geometric mean of the two floors, not the arithmetic one: two kinds "
        "that differ in noise alone would seem to conflict",
        everything[1] - (everything[0] * everything[2]) ** 0.5: "leave out batch m of one kind beside batch m of the "
        "other, and of the same: they hold the same sessions",
    }
    near = [hint for value, hint in guesses.items() if abs(value - found) < 1e-3]
    return near[0] if near else "mean cosine between, less the root of the product of the two mean cosines within"


def three_pairs(n_batches: int = 12, n_weights: int = 400) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Gradients of three made-up pairs of kinds, by a name that tells nothing.

    Shapes:
        each: (batches, weights), twice
    """
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def cloud(centre: torch.Tensor, noise: float) -> torch.Tensor:
        return centre + noise * draw(n_batches, n_weights)

    one, other = torch.linalg.qr(draw(n_weights, 2)).Q.T * n_weights**0.5
    return {
        "A": (cloud(one, 0.3), cloud(0.5 * one + 0.87 * other, 0.3)),
        "B": (cloud(one, 1.2), cloud(-0.5 * one + 0.87 * other, 1.2)),
        "C": (cloud(one, 1.8), cloud(one, 1.8)),
    }


def check_conflicts(verdicts: Mapping[str, str]) -> None:
    """Check which of `three_pairs` differ in noise alone, go separate ways, or oppose each other.

    Args:
        verdicts: name → `noise`, `apart` or `opposed`.

    Raises:
        AssertionError: a word is none of the three, or wrong; all wrong ones are named.
    """
    truth = {"A": "apart", "B": "opposed", "C": "noise"}
    hint = "Is the cosine below zero? If not, is it below what noise leaves of it?"
    if verdicts_hold("pair", verdicts, truth, hint):
        print("ok: A goes separate ways, B is opposed, C is noise alone, although its cosine is lower than that of A")
