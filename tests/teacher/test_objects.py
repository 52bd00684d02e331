"""Answers among thoughts and drafts: the last complete one counts, a cut-off thought is none, in linear time."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.teacher.answers import read_bundles, read_sentences
from routedk_lite.teacher.objects import UnreadableReply, json_object, skipped_objects
from routedk_lite.teacher.teachers import CutOff
from routedk_lite.teacher.teaching import Question

OURS = '{"bundles": [[1, 2]], "intents": ["a"]}'
DRAFT = '{"bundles": [[1, 3]], "intents": ["a"]}'


@pytest.mark.parametrize(
    "text",
    [
        OURS,
        f"Draft: {DRAFT} … Final: {OURS}",
        f"{DRAFT}{DRAFT}\n{OURS}",
        f"<think>{DRAFT}</think>{OURS}",
        f"<think>{DRAFT}<think>{DRAFT}</think>{DRAFT}</think>{OURS}",
        f"{DRAFT}</think>{OURS}",
        f"<reasoning>{DRAFT}</reasoning>\n```json\n{OURS}\n```",
        f"{OURS}<think>or rather {DRAFT}",
        f'{OURS} I am sure: {{"confidence": 0.9}}',
        f"{OURS} as in {{x}} {{}} {{1, 2}}",
        f"{{see below}} {OURS}",
        f'{OURS} or {{"bundles": [[1, 3',
        f'{{"bundles": [[1, 3]] "intents": []}} I mean {OURS}',
        f'{{"bundles": [[1, 3]], "intents": ["a" {OURS}',
        '{"bundles": [[1, 3]], "bundles": [[1, 2]], "intents": ["a"]}',
    ],
)
def test_the_last_complete_answer_counts(text):
    assert read_bundles(text, 6).bundles == (frozenset({1, 2}),)


@pytest.mark.parametrize(
    "text",
    [
        '<think>Maybe {"bundles":[[1,3]]',
        f"<think>Maybe {DRAFT}",
        f"<THINKING>Maybe {DRAFT} and",
        f"<think>a<think>b</think>{DRAFT}",
        f"{DRAFT}</think>",
        f'{{"draft": {DRAFT}, "final": {{"bundles": [[1,',  # it stands inside of what was cut off
        f'{{"draft": {DRAFT}, oops',
        '{"a":' * 100_000,
        '{"bundles": ' + "[" * 100_000,
        "",
    ],
)
def test_what_was_cut_off_is_no_answer(text):
    with pytest.raises(UnreadableReply):
        read_bundles(text, 6)


def test_an_answer_that_was_cut_off_may_be_a_thought():
    with pytest.raises(UnreadableReply, match="may have been a thought"):
        read_bundles(CutOff(f"Maybe {DRAFT} or"), 6)  # the chat template has opened the thought
    assert read_bundles(CutOff(f"Hm.</think>{OURS} because"), 6).bundles
    assert read_bundles(CutOff(f"```json\n{OURS}\n``` because"), 6).bundles
    assert read_bundles(CutOff(f"{OURS} because"), 6).bundles
    with pytest.raises(UnreadableReply, match="write fewer words"):
        read_sentences(CutOff("I should have"))
    assert read_sentences("I should have.") == "I should have."


def test_what_is_read_past_is_said():
    assert (
        skipped_objects(OURS) == skipped_objects("no answer") == skipped_objects(f"<think>{DRAFT}</think>{OURS}") == ""
    )
    assert skipped_objects(f"{DRAFT} {DRAFT} {OURS}") == "2 other JSON objects"
    assert skipped_objects(f'{DRAFT} {{x}} {OURS} {{"bundles": [[') == "1 other JSON object and 1 broken JSON object"


def test_thoughts_are_not_told_back():
    question = Question("it", [], read_sentences, 9, "typical")
    said = question.again(f"<think>{DRAFT}</think>no", UnreadableReply("it is empty")).messages[0]["content"]
    assert said == "no"
    assert question.again("<think>long", UnreadableReply("it is empty")).messages[0]["content"] == "(no answer)"


def test_a_number_that_is_too_long_names_no_item():
    with pytest.raises(UnreadableReply, match="each bundle is a list of item numbers"):
        read_bundles(f'{{"bundles": [[1, {"2" * 5000}]], "intents": ["a"]}}', 6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
PROSE = st.text(st.characters(exclude_characters="{}<[◁"))


@given(st.lists(st.dictionaries(st.text(), JSON), min_size=1, max_size=4), PROSE, PROSE)
def test_what_is_written_is_found_among_prose(objects, before, after):
    objects = [{"x": number, **found} for number, found in enumerate(objects)]
    text = before + after.join(json.dumps(found) for found in objects) + after
    if "<" not in text and "[THINK]" not in text and "◁" not in text:
        assert json_object(text, "x") == objects[-1]


PIECES = [
    "{",
    '{"',
    '{"a":',
    '{"a":"',
    "{ ",
    '"{',
    '{"a":1,',
    '{"a":{},',
    '\\"{',
    '{"\\"',
    "{}",
    '{"a\n',
    '{"a":[1,',
    "{1",
]


@pytest.mark.parametrize("piece", PIECES)
def test_work_grows_with_the_length(piece, monkeypatch):
    """Characters that the decoder goes over, whether it finds an object or an error there."""
    work = []
    decode = json.JSONDecoder.raw_decode

    def counted(self, text, start):
        try:
            found, end = decode(self, text, start)
        except json.JSONDecodeError as error:
            work[-1] += 1 + (len(text) if error.msg.startswith("Unterminated") else error.pos) - start
            assert error.lineno == 1  # nobody has looked for it
            raise
        work[-1] += end - start
        return found, end

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    for size in (2_000, 4_000):
        work.append(0)
        with suppress(UnreadableReply):
            json_object(piece * (size // len(piece)), "x")
    assert work[1] <= 2.1 * work[0] + 10
