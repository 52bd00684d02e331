"""Checkers of chapter 10: right answers pass in other words too, wrong ones get a hint that fits."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from solved import solutions

from routedk_lite.book.exercises.checking import UNANSWERED
from routedk_lite.book.exercises.scaling import check_bits, check_largest_batch, check_pack, check_shortest_time

# Bits


def bits(block, scale_bits, group):
    return 4 + scale_bits / block + (32 / (block * group) if group else 0)


def test_right_bits_pass(capsys) -> None:
    check_bits(bits)
    assert capsys.readouterr().out.count("ok: ") == 4


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda *s: None, "is a return missing"),
        (lambda *s: bits(*s) / 8, "give bits, not bytes"),
        (lambda *s: bits(*s) - 4, "four bits more"),
        (lambda block, scale, group: 4 + scale / block, "the scales' own scales are missing"),
        (lambda block, scale, group: 4 + scale / block + (32 / group if group else 0), "a group counts scales"),
        (lambda *s: 4, "one 32-bit scale for 64 weights"),
    ],
)
def test_wrong_bits_are_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_bits(answer)


# Packing


def packed(codes):
    return codes[0::2] * 16 + codes[1::2]


def shifted(codes):
    pairs = codes.reshape(-1, 2).int()
    return (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8)


@pytest.mark.parametrize("answer", [packed, shifted])
def test_right_packing_passes(answer, capsys) -> None:
    check_pack(answer)
    assert "ok: 1,000 codes in 500 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda codes: None, "is a return missing"),
        (lambda codes: codes, "two share a byte"),
        (lambda codes: packed(codes).int(), "a byte is uint8"),
        (lambda codes: codes[1::2] * 16 + codes[0::2], "are swapped"),
        (lambda codes: codes[0::2] * 8 + codes[1::2], "unpacked, code"),
        (lambda codes: codes[: len(codes) // 2] * 16 + codes[len(codes) // 2 :], "unpacked, code"),
    ],
)
def test_wrong_packing_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_pack(answer)


# The largest batch


def counted(memory, limit):
    batch = 0
    while memory(batch + 1) <= limit:
        batch += 1
    return batch


def halved(memory, limit):
    if memory(1) > limit:
        return 0
    high = 2
    while memory(high) <= limit:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory(middle) <= limit else (low, middle)
    return low


@pytest.mark.parametrize("answer", [counted, halved])
def test_a_right_search_passes(answer, capsys) -> None:
    check_largest_batch(answer)
    printed = capsys.readouterr().out
    assert "ok: 205 limits" in printed
    found = [int(line.split(": ")[1].split()[0]) for line in printed.splitlines() if line.startswith("t4")]
    assert found[0] > 2 * max(found[1], 1), "checkpointing makes room for more"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda memory, limit: None, "is a return missing"),
        (lambda memory, limit: counted(memory, limit) + 1, "does not fit"),
        (lambda memory, limit: max(counted(memory, limit) - 1, 0), "fit as well"),
        (lambda memory, limit: max(counted(memory, limit), 1), "1 take 3.00 GB, which does not fit"),
        (lambda memory, limit: counted(memory, limit) or -1, "where nothing fits, give 0"),
        (lambda memory, limit: memory(0), "at least one text"),
        (lambda memory, limit: max(memory(1) for _ in range(20_000)), "does not end"),
    ],
)
def test_a_wrong_search_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_largest_batch(answer)


# The shortest time


def recursive(seconds, needs):
    @cache
    def end(job):
        return seconds[job] + max(map(end, needs[job]), default=0)

    return max(map(end, seconds))


def in_list_order(seconds, needs):
    ends = {}
    for job in seconds:
        ends[job] = seconds[job] + max((ends.get(b, 0) for b in needs[job]), default=0)
    return max(ends.values())


def test_a_right_time_passes(capsys) -> None:
    check_shortest_time(recursive)
    assert capsys.readouterr().out.count("ok: ") == 7


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda seconds, needs: None, "is a return missing"),
        (lambda seconds, needs: sum(seconds.values()), "one machine"),
        (lambda seconds, needs: max(seconds.values()), "jobs wait for others"),
        (in_list_order, "jobs may stand in any order"),
    ],
)
def test_a_wrong_time_is_told_why(answer, hint) -> None:
    with pytest.raises(AssertionError, match=hint):
        check_shortest_time(answer)


@pytest.mark.parametrize("check", [check_bits, check_pack, check_largest_batch, check_shortest_time])
def test_a_stub_is_no_error(check, capsys) -> None:
    check(lambda *args: ...)
    assert capsys.readouterr().out.strip() == UNANSWERED


def test_the_solutions_in_the_chapter_pass(capsys) -> None:
    known = {"seconds": {"a": 60.0, "b": 120.0}, "needs": {"a": [], "b": ["a"]}}  # of section 7, for the last one
    for solution in solutions("10_scaling_up"):
        exec(solution, known)
    assert "3 min with any number of GPUs" in capsys.readouterr().out
    check_bits(known["bits_per_weight"])
    check_pack(known["pack"])
    check_largest_batch(known["largest"])
    check_shortest_time(known["shortest"])
    assert capsys.readouterr().out.count("ok: ") == 4 + 1 + 1 + 7
