"""Checkers of the exercises on scaling up (chapter 10); they keep the habits of `exercises`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ...config import get_profile
from ...student.memory import NF4_BYTES, memory_plan
from ...study.estimate import LONGEST_TOKENS
from .checking import UNANSWERED, cases_hold

T4_GB = 12.0
"""What a free Colab T4 leaves to a training, with some to spare."""
N_RANDOM = 200


def check_bits(bits_per_weight: Callable[[int, int, int], float]) -> None:
    """Check what a stored weight takes, its share of the scales included.

    Args:
        bits_per_weight: takes the block (weights that share a scale), the bits of a scale, and the group (scales that
            share a 32-bit scale of their own; 0: there is none), and returns bits per weight.

    Raises:
        AssertionError: it differs; the message hints at the reason.
    """
    cases = [
        ("one 32-bit scale for 64 weights", (64, 32, 0), 4.5),
        ("double quantisation, as QLoRA has it: 8-bit scales, 256 of them share one of 32 bits", (64, 8, 256), None),
        ("smaller blocks pay more for their scales", (32, 8, 256), 4 + 8 / 32 + 32 / (32 * 256)),
    ]
    for why, settings, expected in cases:
        found = bits_per_weight(*settings)
        if found is ...:
            print(UNANSWERED)
            return
        expected = 8 * NF4_BYTES if expected is None else expected
        shown = f"for block, scale bits, group = {settings}"
        assert found is not None, f"{shown} your function gave None: is a return missing?"
        near = {
            4 + settings[1] / settings[0]: "the scales' own scales are missing",
            4 + settings[1] / settings[0] + 32 / max(settings[2], 1): "a group counts scales, so block × group weights",
            expected / 8: "give bits, not bytes",
            expected - 4: "the weight itself takes four bits more",
        }
        hints = [hint for value, hint in near.items() if abs(found - value) < 1e-9]
        hint = f": {hints[0]}" if hints else f" ({why})"
        assert abs(found - expected) < 1e-9, f"{shown} you gave {found:g}, it takes {expected:g} bits{hint}"
        print(f"ok: {why}: {expected:.3f} bits")
    print("ok: the second is memory.NF4_BYTES, by which the plans of this chapter count")


def check_pack(pack: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Check that two 4-bit codes are put into each byte, the first of the two into the upper half.

    Args:
        pack: takes codes from 0 to 15, an even number of them, as `uint8` (n,), and returns `uint8` (n/2,).

    Raises:
        AssertionError: size, type or content is wrong.
    """
    chance = torch.Generator().manual_seed(0)
    for n in (2, 8, 64, 1000):
        codes = torch.randint(0, 16, (n,), generator=chance).to(torch.uint8)
        found = pack(codes.clone())
        if found is ...:
            print(UNANSWERED)
            return
        assert found is not None, "your function gave None: is a return missing?"
        assert found.dtype == torch.uint8, f"you gave {found.dtype}: a byte is uint8, or nothing is saved"
        assert found.shape == (n // 2,), f"{n} codes became {tuple(found.shape)}: two share a byte, so {n // 2} bytes"
        high, low = found // 16, found % 16
        assert not torch.equal(torch.stack([low, high], 1).flatten(), codes) or torch.equal(high, low), (
            "the two codes of each byte are swapped: the first belongs into the upper four bits"
        )
        back = torch.stack([high, low], 1).flatten()
        wrong = int((back != codes).nonzero()[0]) if (back != codes).any() else None
        assert wrong is None, f"unpacked, code {wrong} is {int(back[wrong])}; it was {int(codes[wrong])}"
    print("ok: 1,000 codes in 500 bytes, and every code comes back")


def check_largest_batch(largest: Callable[[Callable[[int], float], float], int]) -> None:
    """Check a search for the largest micro-batch that fits.

    Args:
        largest: takes `memory(batch)`, gigabytes that grow with the batch, and a limit; returns the largest batch of 1
            or more that takes no more than the limit, and 0 if none does.

    Raises:
        AssertionError: it is too large or too small, or the search does not end.
    """
    chance = np.random.default_rng(0)
    cases = [(2.0, 1.0, 12.0), (2.0, 1.0, 2.5), (13.0, 0.1, 12.0), (0.0, 1.0, 1.0), (0.0, 0.01, 12.0)]
    cases += [tuple(chance.uniform([0, 0.02, 1], [10, 2, 12])) for _ in range(N_RANDOM)]
    for fixed, each, limit in cases:
        looks = 0

        def memory(batch: int, fixed: float = fixed, each: float = each) -> float:
            nonlocal looks
            looks += 1
            assert looks <= 10_000, "your search does not end"
            assert batch >= 1, f"memory({batch}): a batch holds at least one text"
            return fixed + each * batch

        found = largest(memory, limit)
        if found is ...:
            print(UNANSWERED)
            return
        used, n_looks = (lambda b, fixed=fixed, each=each: fixed + each * b), looks
        shown = f"limit {limit:.2f} GB, {fixed:.2f} GB and {each:.2f} for each text"
        assert found is not None, "your function gave None: is a return missing?"
        assert found >= 0, f"{shown}: you gave {found}; where nothing fits, give 0"
        assert found == 0 or used(found) <= limit, f"{shown}: {found} take {used(found):.2f} GB, which does not fit"
        assert used(found + 1) > limit, f"{shown}: you gave {found}, but {found + 1} fit as well"
    print(f"ok: {len(cases)} limits; the last took {n_looks} looks at the plan")
    profile = get_profile("t4")
    for on in (True, False):
        plan = _planner(profile, on)
        word = "with" if on else "without"
        print(f"t4 profile, {LONGEST_TOKENS} tokens, {word} checkpointing: {largest(plan, T4_GB)} texts fit a T4")


def _planner(profile, checkpointing: bool) -> Callable[[int], float]:
    def total(batch: int) -> float:
        train = replace(profile.train, gradient_checkpointing=checkpointing, micro_batch_size=batch)
        return memory_plan(replace(profile, train=train), LONGEST_TOKENS).total

    return total


def check_shortest_time(shortest: Callable[[Mapping[str, float], Mapping[str, Sequence[str]]], float]) -> None:
    """Check how long a grid takes with as many machines as one likes.

    Args:
        shortest: takes job → seconds and job → jobs that must have ended before it begins, and returns the seconds
            until all are done.

    Raises:
        AssertionError: it differs; the message shows the first such grid.
    """
    cases = [
        ("a single job", {"a": 3.0}, {"a": []}),
        ("two that need nothing run side by side", {"a": 3.0, "b": 5.0}, {"a": [], "b": []}),
        ("a chain adds up", {"a": 1.0, "b": 2.0, "c": 4.0}, {"a": [], "b": ["a"], "c": ["b"]}),
        ("the slower of two counts", {"a": 1.0, "b": 6.0, "c": 2.0}, {"a": [], "b": [], "c": ["a", "b"]}),
        ("the last job need not end last", {"a": 9.0, "b": 1.0, "c": 1.0}, {"a": [], "b": [], "c": ["b"]}),
        ("jobs may stand in any order", {"a": 5.0, "c": 4.0, "b": 2.0}, {"a": [], "c": ["a", "b"], "b": ["a"]}),
    ]
    if not cases_hold(partial(_try_time, shortest), cases):
        return
    chance = np.random.default_rng(0)
    for _ in range(N_RANDOM):
        names = [f"job {i}" for i in range(chance.integers(2, 9))]
        seconds = {name: float(chance.integers(1, 20)) for name in names}
        needs = {name: [n for n in names[:i] if chance.random() < 0.4] for i, name in enumerate(names)}
        _try_time(shortest, seconds, needs, "a random grid")
    print(f"ok: {N_RANDOM} random grids")


def _try_time(shortest: Callable, seconds: dict[str, float], needs: dict[str, list[str]], why: str) -> object:
    found = shortest(dict(seconds), {name: list(before) for name, before in needs.items()})
    if found is ...:
        return found
    ends: dict[str, float] = {}
    while len(ends) < len(seconds):
        for name, before in needs.items():
            if name not in ends and all(b in ends for b in before):
                ends[name] = seconds[name] + max((ends[b] for b in before), default=0.0)
    expected = max(ends.values())
    shown = f"for {seconds} with needs {needs}"
    assert found is not None, f"{shown} your function gave None: is a return missing?"
    near = {
        sum(seconds.values()): "that is one machine, one job after the other",
        max(seconds.values()): "that forgets that jobs wait for others",
        ends[list(seconds)[-1]]: "that is when the last of the list ends; another may take longer",
    }
    hints = [hint for value, hint in near.items() if abs(found - value) < 1e-9]
    hint = hints[0] if hints else why
    assert abs(found - expected) < 1e-9, f"{shown} you gave {found:g} s, it takes {expected:g} s: {hint}"
    return found
