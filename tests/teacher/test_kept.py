"""What was paid for is kept, and what was not answered is asked again: over kills, errors and useless answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT, require
from hypothesis import given
from hypothesis import strategies as st
from scripted import HAS_OPENAI, ScriptedTeacher, completion, running, toy_answer
from typer.testing import CliRunner

from routedk_lite.__main__ import app
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import DataError
from routedk_lite.teacher.answers import Prediction
from routedk_lite.teacher.distillation import answers_plan, distill_answers, distilled_text, estimate, estimate_text
from routedk_lite.teacher.endpoint import ChatTeacher, TeacherError, Usage
from routedk_lite.teacher.knowledge import Reasoning, item_references, load_knowledge, teacher_answers
from routedk_lite.teacher.recording import distill, export_recorded, write_knowledge
from routedk_lite.teacher.teachers import CutOff, NoAnswer

TEST = load_domain("toyshop", "test")


@pytest.fixture
def server():
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as httpd:
        httpd.answer = toy_answer
        yield httpd


@pytest.fixture
def make(server, tmp_path):
    return lambda **options: ChatTeacher("m", base_url=server.url, folder=tmp_path / "calls", **options)


def first_questions(server) -> Counter:
    """How often each session was asked about for the first time."""
    return Counter(r["messages"][1]["content"] for r in server.requests if len(r["messages"]) == 2)


# --- kills and errors ---------------------------------------------------------------------------------------------

RUN = """
import sys
from routedk_lite.teacher.endpoint import ChatTeacher
from routedk_lite.teacher.recording import distill
url, calls, out = sys.argv[1:]
distill(ChatTeacher("m", base_url=url, folder=calls, concurrency=2), "answers", "toyshop", out, limit=8, progress=False)
"""


def test_nothing_that_arrived_before_a_kill_is_asked_again(server, make, tmp_path):
    words = [sys.executable, "-c", RUN, server.url, str(tmp_path / "calls"), str(tmp_path / "out")]
    with subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:

        def kill(handler):
            process.send_signal(signal.SIGKILL)
            process.wait()

        server.script = [None, None, None, None, kill]
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "out").exists()
    stored = [json.loads(path.read_text()) for path in (tmp_path / "calls").rglob("*.json")]
    assert 3 <= len(stored) <= 4  # at most two were under way
    before = first_questions(server)
    distill(make(), "answers", "toyshop", tmp_path / "out", limit=8, progress=False)
    asked = first_questions(server) - before
    assert len(asked) == 8 - len(stored)
    assert not {record["request"]["messages"][1]["content"] for record in stored} & asked.keys()
    assert len(teacher_answers("toyshop", tmp_path / "out")) == 8


def test_an_error_in_the_middle_loses_nothing(server, make, tmp_path):
    server.script = [None, None, {"status": 403}]
    with pytest.raises(TeacherError, match="2 of 8 answers are kept"):
        distill(make(concurrency=1), "answers", "toyshop", tmp_path / "out", limit=8, progress=False)
    distill(make(), "answers", "toyshop", tmp_path / "out", limit=8, progress=False)
    assert sorted(first_questions(server).values()) == [1] * 7 + [2]  # only the refused one


# --- no answers ---------------------------------------------------------------------------------------------------


def test_an_outage_leaves_out_and_is_made_up_for_in_the_next_run(server, make, tmp_path):
    server.script = [{"body": completion("")}, {"body": completion(None, finish="content_filter")}]
    server.script += [None, None, None, {"body": completion("")}, {"body": completion("")}]
    teacher = make(concurrency=1)
    done = distill(teacher, "answers", "toyshop", tmp_path, limit=5, progress=False)
    assert (len(done.found), done.asked, done.again, done.unanswered) == (3, 5, 2, 2)
    assert done.unreadable[0] == f"session {TEST.sessions[0].id}: the answer is empty"
    text = distilled_text(done, teacher.usage)
    assert "Missing: 2, of which 2 got no answer. Run it again to ask for them." in text
    assert estimate(answers_plan(TEST, limit=5), make()).calls == 2
    assert distill(make(), "answers", "toyshop", tmp_path, limit=5, progress=False).unreadable == ()
    assert len(server.requests) == 9 and len(teacher_answers("toyshop", tmp_path)) == 5


def test_a_whole_outage_is_not_blamed_on_the_teacher(server, make, tmp_path):
    server.script = [{"body": completion("")}] * 6
    with pytest.raises(
        TeacherError, match="The last problem was: session .*the answer is empty. Nothing was answered"
    ) as e:
        distill(make(), "answers", "toyshop", tmp_path / "out", limit=3, progress=False)
    assert "capable" not in str(e.value) and not (tmp_path / "out").exists()
    server.script = [{"body": completion(None, reasoning_content="hm", finish="length")}] * 4
    with pytest.raises(
        TeacherError, match="none of 2 answers gave bundles. The last problem .* see `extra`. Nothing was"
    ):
        distill(make(), "rules", "toyshop", tmp_path / "out", limit=2, progress=False)
    assert len(distill(make(), "answers", "toyshop", tmp_path / "out", limit=3, progress=False).found) == 3


def test_an_answer_that_cannot_be_read_is_kept_and_asked_for_again(server, make, tmp_path):
    server.script = [{"body": completion("I do not know")}, {"body": completion("I still do not know")}]
    done = distill_answers(make(concurrency=1), TEST, limit=1, progress=False)
    assert done.found == {} and done.unanswered == 0 and len(server.requests) == 2
    left = estimate(answers_plan(TEST, limit=1), make())
    assert (left.calls, left.from_disk) == (1, 1)
    again = distill_answers(make(), TEST, limit=1, progress=False)
    assert list(again.found) == [TEST.sessions[0].id] and len(server.requests) == 3
    kept = sorted(json.loads(path.read_text())["answer"] for path in (tmp_path / "calls").rglob("*.json"))
    assert kept[:2] == ["I do not know", "I still do not know"]  # paid for
    assert distill_answers(make(), TEST, limit=1, progress=False).found == again.found and len(server.requests) == 3


def test_drafts_are_read_past_and_reported(server, make):
    server.answer = lambda messages: f'Draft: {{"bundles": [[1, 2]], "intents": ["x"]}} Final: {toy_answer(messages)}'
    teacher = make()
    done = distill_answers(teacher, TEST, limit=1, progress=False)
    assert done.found == distill_answers(ScriptedTeacher(), TEST, limit=1).found
    assert done.skipped == (f"session {TEST.sessions[0].id}: 1 other JSON object",)
    assert "Read past: session" in distilled_text(done, teacher.usage)


SAID = st.text(st.characters()) | st.sampled_from(
    [
        "",
        "<think>",
        "</think>",
        '{"bundles": [[1, 2]], "intents": ["\\ud83d"]}',
        '{"bundles": []',
        "[" * 5000,
        '{"a":' * 5000,
    ]
)
ANSWER = (
    st.lists(SAID, max_size=4).map("".join).flatmap(lambda text: st.sampled_from([text, CutOff(text), NoAnswer("no")]))
)


@given(st.lists(ANSWER, min_size=4, max_size=4))
def test_whatever_a_teacher_says_is_found_or_reported(said):
    rest = list(said)
    done = distill_answers(ScriptedTeacher(lambda messages: rest.pop(0)), TEST, limit=2)
    assert len(done.found) + len(done.unreadable) == done.asked == 2 and done.unanswered <= len(done.unreadable)
    assert distilled_text(done, Usage()) and all(reason.startswith("session ") for reason in done.unreadable)


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["half \ud83d of it", "next\u2028line \x85 and \u2029 page", "\x0b\x0c\x1c", "\ufeff"])
def test_odd_characters_in_an_answer_are_written_and_read_back(odd, server, make, tmp_path):
    def answer(messages):
        found = json.loads(toy_answer(messages))
        return json.dumps(found | {"intents": [odd] * len(found["bundles"])}, ensure_ascii="\ud83d" in odd)

    server.answer = answer
    distill(make(), "answers", "toyshop", tmp_path / "out", limit=3, progress=False)
    assert list(teacher_answers("toyshop", tmp_path / "out")) == [s.id for s in TEST.sessions[:3]]
    lines = (tmp_path / "out" / "teacher_test.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[1])["intents"][0] == odd
    assert distill(make(), "answers", "toyshop", tmp_path / "out", limit=3, progress=False).asked == 3
    assert len(server.requests) == 3


def test_reasoning_with_half_a_character_can_be_told_to_students(server, make, tmp_path):
    export_recorded("rules", "toyshop", tmp_path)
    rule = next(iter(load_knowledge("toyshop").rules))
    server.answer = lambda messages: json.dumps(
        json.loads(toy_answer(messages).replace('"reasoning": "', '"reasoning": "\\ud83d ')) | {"rules": [rule]}
    )
    distill(make(), "reasoning", "toyshop", tmp_path, limit=2, progress=False)
    knowledge = load_knowledge("toyshop", tmp_path)
    assert all(reasoning.text.startswith("\ufffd ") for reasoning in knowledge.reasoning.values()) and knowledge.sha256


def test_a_file_that_was_cut_is_named_by_its_line(tmp_path):
    path = write_knowledge(
        tmp_path, "answers", "toyshop", {1: Prediction((frozenset({1, 2}),), ("x",))}, {"teacher": "t"}
    )
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match="teacher_test.jsonl, line 2: not JSON"):
        teacher_answers("toyshop", tmp_path)
    path.write_text('{"provenance": {}}\n{"id": 1, "bundles": [[1, "2"]]}\n')
    with pytest.raises(DataError, match="line 2: bundles holds .* give lists of item numbers"):
        teacher_answers("toyshop", tmp_path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="teacher_test.jsonl: cannot be read"):
        teacher_answers("toyshop", tmp_path)


def test_what_cannot_be_written_is_not_asked_for(server, make, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(DataError, match="cannot be written: .*file is no folder that you may write to"):
            distill(make(), "answers", "toyshop", folder, limit=1, progress=False)
    (tmp_path / "out" / "teacher_test.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match="does not say whose it is"):
        distill(make(), "answers", "toyshop", tmp_path / "out", limit=1, progress=False)
    assert not server.requests


def test_a_very_long_number_names_no_item():
    text = f"item {'1' * 5000} and item 2"
    assert [text[a:b] for a, b in item_references(text, 3, explicit=True)] == ["2"]
    assert Reasoning(text, (), noisy=False)


# --- prices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [-5, float("nan"), float("inf"), "cheap"])
def test_a_price_that_is_none_is_refused_by_name_and_value(price):
    done, left = distill_answers(ScriptedTeacher(), TEST, limit=1), estimate(answers_plan(TEST), ScriptedTeacher())
    for prices in ({"price_in": price}, {"price_out": price}, {"price_in": 1.0, "price_out": price}):
        for text in (lambda p: estimate_text(left, **p), lambda p: distilled_text(done, Usage(), **p)):
            with pytest.raises(ValueError, match=rf"price_(in|out) = '?{price}'?: must be a finite number, 0 or more"):
                text(prices)


@pytest.mark.parametrize("price", ["-5", "nan", "inf"])
def test_the_command_refuses_such_a_price_before_it_asks(price, server, tmp_path):
    words = [
        "distill",
        "--domain",
        "toyshop",
        "--kind",
        "answers",
        "--teacher",
        "openai",
        "--model",
        "m",
        "--limit",
        "1",
    ]
    words += ["--base-url", server.url, "--out", str(tmp_path), "--price-in", price]
    out = CliRunner().invoke(app, words)
    assert out.exit_code and price in f"{out.output} {out.exception}" and not server.requests
