"""Thoughts are taken out whole, and one that was cut off leaves nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.data.thoughts import without_thoughts

MARKS = [
    ("<think>", "</think>"),
    ("<Think>", "</THINK>"),
    ("< think >", "</ think >"),
    ('<think effort="low">', "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<analysis>", "</analysis>"),
]


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_every_way_to_mark_a_thought(begin, end):
    assert without_thoughts(f"{begin}\n1 3\n{end}1 2") == "1 2"
    assert without_thoughts(f"1 3\n{end}1 2") == "1 2"  # the chat template has opened it
    assert without_thoughts(f"1 2{begin}1 3") == "1 2"
    assert without_thoughts(f'{begin}Maybe {{"bundles":[[1,3]]') == ""
    assert without_thoughts(f"{begin}1 3{begin}2 3{end}4 5{end}1 2") == "1 2"
    assert without_thoughts(f"{begin}1 3{begin}2 3{end}4 5") == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("1 2<think>or</think>3 4", "1 2\n3 4"),
        ("<think>I write </thinking> here</think>1 2", "1 2"),
        ("<think>a <thought> in it</think>1 2", "1 2"),
        ("<think>a</think>1 3</think>1 2", "1 2"),
        ("<think>a</think><think>b</think>1 2", "1 2"),
        ("<think/>1 2", "<think/>1 2"),
        ("I think 1 < 2 and [think] of <thinkers> > 1", "I think 1 < 2 and [think] of <thinkers> > 1"),
        ("<think>a</thin", ""),
        ("", ""),
    ],
)
def test_marks_that_do_not_fit_together(text, left):
    assert without_thoughts(text) == left


ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{ANALYSIS}1 3\n{FINAL}1 2", "1 2"),
        (f"{ANALYSIS}1 3<|end|><|start|>assistant{ANALYSIS}2 3\n{FINAL}1 2", "1 2"),
        (f"{ANALYSIS}1 3<|end|><|channel|>commentary to=f.x <|constrain|>json<|message|>{{}}{FINAL}1 2", "1 2"),
        (f"{ANALYSIS}1 3<think>2 3{FINAL}1 2", "1 2"),
        (f"1 3{FINAL}1 2", "1 2"),
        (f"{ANALYSIS}1 3\n", ""),
        ("<|channel|>final<|message|>1 2", "1 2"),
    ],
)
def test_only_what_is_said_in_the_final_channel_is_an_answer(text, left):
    assert without_thoughts(text) == left


PIECES = st.lists(st.sampled_from([mark for pair in MARKS for mark in pair] + ["1", " ", "<", ">", "\n"]) | st.text())


@given(PIECES.map("".join))
def test_nothing_is_left_to_take_out(text):
    left = without_thoughts(text)
    assert without_thoughts(left) == left
    assert len(left) <= len(text)


@given(st.text())
def test_text_without_marks_stays_as_it_is(text):
    if not set(text) & set("<[◁"):
        assert without_thoughts(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<", "< ", "<think", "<think ", "<think>", "</think>", "<think></think>a", "<|begin_", "[", "a:", "<aaaa",
        "<|channel|>aaaa", ANALYSIS, "<|channel|>final<|constrain|>", "<|channel>thought", "<|inner_",
    ],
)  # fmt: skip
def test_a_long_text_takes_no_longer_than_its_length(piece):
    """A search that goes back over what it has seen would not end today."""
    without_thoughts(piece * 500_000)
    without_thoughts("<think>" * 200_000 + "</thought>" * 200_000 + piece * 200_000)
