"""Which model answered: another one behind the same name is noticed, and nothing of one is written as the other's."""

from __future__ import annotations

import json
import time

import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st
from scripted import HAS_OPENAI, running, toy_answer

from routedk_lite.data.sessions import DataError
from routedk_lite.teacher.connection import Address
from routedk_lite.teacher.endpoint import ChatTeacher, TeacherError
from routedk_lite.teacher.knowledge import load_rules
from routedk_lite.teacher.recording import distill
from routedk_lite.teacher.served import describe, is_telling, read_models, same_model

TALKS = [[{"role": "user", "content": f"question {number}"}] for number in range(4)]


class Swapped:
    """A server that calls its model "default", whichever file it has loaded."""

    def __init__(self, server, tmp_path, tell):
        self.server, self.folder, self.tell = server, tmp_path / "calls", tell
        self.load("A")

    def load(self, file):
        self.server.answer = lambda messages: f"{file} on {messages[-1]['content']}"
        self.tell(self.server, file)

    def teacher(self):
        return ChatTeacher("default", base_url=self.server.url, folder=self.folder)

    def ask(self, talks=TALKS, teacher=None):
        return (teacher or self.teacher()).ask(talks, max_tokens=9, progress=False)

    def asked(self):
        """What was asked, without the word that is asked for to see who is there."""
        said = [request["messages"][-1]["content"] for request in self.server.requests]
        return sorted(question for question in said if question != "Hello")


def root(server, file):
    server.model, server.listed = {"model": "default"}, [{"id": "default", "root": f"/models/{file}.gguf"}]


def meta(server, file):
    server.model, server.listed = {"model": "default"}, [{"id": "default", "meta": {"n_params": 7 + (file == "B")}}]


def only_id(server, file):
    server.model, server.listed = {"model": "default"}, [{"id": f"{file}.gguf", "created": len(server.requests)}]


def reply(server, file):
    server.model, server.listed = {"model": f"{file}.gguf"}, [{"id": "default"}, {"id": "another"}]


def fingerprint(server, file):
    server.model, server.listed = {"model": "default", "system_fingerprint": file}, [{"id": "default"}]


def created(server, file):
    server.model, server.listed = {"model": "default"}, [{"id": "default", "created": 1_700_000_000 + ord(file)}]


def no_list(server, file):
    server.model, server.listed = {"model": f"{file}.gguf"}, None


@pytest.fixture
def swapped(tmp_path):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as server:
        yield lambda tell: Swapped(server, tmp_path, tell)


@pytest.mark.parametrize("tell", [root, meta, only_id, reply, fingerprint, created, no_list])
def test_an_answer_of_the_model_before_is_not_taken_for_one_of_the_model_now(tell, swapped):
    server = swapped(tell)
    assert server.ask() == [f"A on question {n}" for n in range(4)]
    assert server.ask() == [f"A on question {n}" for n in range(4)]
    assert server.asked() == [f"question {n}" for n in range(4)]
    server.load("B")
    teacher = server.teacher()
    assert server.ask(teacher=teacher) == [f"B on question {n}" for n in range(4)]
    assert "4 answers on disk are from " in teacher.usage.notes[0] and " now: " in teacher.usage.notes[0]
    assert len(teacher.served) == 1
    assert len(server.asked()) == 8
    server.load("A")  # what A said is kept
    assert server.ask() == [f"A on question {n}" for n in range(4)]
    assert len(server.asked()) == 8


def test_a_time_that_may_be_now_is_not_that_of_the_model(swapped):
    """As servers have it that give the time at which they are asked."""

    def now(server, file):
        server.model, server.listed = {"model": "default"}, [{"id": "default", "created": int(time.time())}]

    server = swapped(now)
    server.ask()
    server.load("A")
    server.server.listed[0]["created"] += 30
    server.ask()
    assert len(server.asked()) == 4


def test_without_a_list_of_models_a_new_reply_tells(swapped):
    server = swapped(no_list)
    server.ask(TALKS[:3])
    server.load("B")
    teacher = server.teacher()
    assert server.ask(teacher=teacher) == [f"B on question {n}" for n in range(4)]
    assert list(teacher.served) == ["B.gguf"] and "3 answers on disk are from A.gguf" in teacher.usage.notes[0]


def test_one_teacher_notices_too(swapped):
    server = swapped(root)
    teacher = server.teacher()
    server.ask(TALKS[:2], teacher)
    server.load("B")
    assert server.ask(TALKS, teacher) == [f"B on question {n}" for n in range(4)]
    assert "more than one model answered: default, /models/A.gguf; default, /models/B.gguf" in teacher.usage.notes[-1]


def test_a_model_that_is_swapped_while_it_is_asked(swapped):
    server = swapped(root)
    server.server.script = [None, lambda handler: server.load("B")]
    teacher = server.teacher()
    teacher.concurrency = 1
    assert server.ask(teacher=teacher) == [f"B on question {n}" for n in range(4)]
    assert list(teacher.served) == ["default, /models/B.gguf"]


def test_two_models_in_turn_are_an_error(swapped):
    server = swapped(no_list)

    def turn(handler):
        server.load("AB"[len(server.server.requests) % 2])

    server.server.script = [turn] * 100
    teacher = server.teacher()
    teacher.concurrency = 1
    with pytest.raises(TeacherError, match="default at http.*: another model answers each time. . of 4 answers are"):
        server.ask(teacher=teacher)


def test_a_fingerprint_that_is_new_every_time_tells_nothing(swapped):
    server = swapped(only_id)

    def new(handler):
        server.server.model["system_fingerprint"] = f"fp{len(server.server.requests)}"

    server.server.script = [new] * 4
    assert len(server.ask()) == 4 and len(server.server.requests) == 4


def test_a_server_that_is_off_leaves_what_it_said(tmp_path):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as server:
        server.model = {"model": "A.gguf"}
        teacher = ChatTeacher("default", base_url=server.url, folder=tmp_path)
        answers = teacher.ask(TALKS, max_tokens=9, progress=False)
    again = ChatTeacher("default", base_url=server.url, folder=tmp_path)
    assert again.known(TALKS[0], 9) == answers[0]
    assert again.ask(TALKS, max_tokens=9, progress=False) == answers
    assert again.served == {"A.gguf": 4}


def test_the_estimate_knows_who_is_there(swapped):
    server = swapped(root)
    server.ask()
    assert server.teacher().known(TALKS[0], 9) == "A on question 0"
    server.load("B")
    assert server.teacher().known(TALKS[0], 9) is None


def test_a_service_may_renew_its_model_but_says_so(swapped, monkeypatch):
    """What was paid for counts, and the record names both."""
    monkeypatch.setattr(Address, "is_local", False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456")
    server = swapped(no_list)
    server.ask(TALKS[:3])
    server.load("B")
    teacher = server.teacher()
    assert server.ask(teacher=teacher) == [f"{'AAAB'[n]} on question {n}" for n in range(4)]
    assert teacher.served == {"A.gguf": 3, "B.gguf": 1}
    assert "more than one model answered: A.gguf; B.gguf" in teacher.usage.notes[-1]


def test_a_folder_says_which_model_it_is_from_and_takes_nothing_from_another(swapped, tmp_path):
    server = swapped(root)
    server.server.answer = toy_answer
    distill(server.teacher(), "rules", "toyshop", tmp_path / "A", limit=2, progress=False)
    assert load_rules("toyshop", tmp_path / "A")[1]["served"] == "default, /models/A.gguf"
    root(server.server, "B")
    with pytest.raises(DataError, match="when that was 'default, /models/A.gguf', and now it is 'default, /models/B"):
        distill(server.teacher(), "rules", "toyshop", tmp_path / "A", limit=2, progress=False)
    assert load_rules("toyshop", tmp_path / "A")[1]["served"] == "default, /models/A.gguf"
    distill(server.teacher(), "rules", "toyshop", tmp_path / "B", limit=2, progress=False)
    assert load_rules("toyshop", tmp_path / "B")[1]["served"] == "default, /models/B.gguf"


# --- what is said -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "id", "root", "meta"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON.map(json.dumps) | st.text() | st.just("[" * 100_000))
def test_whatever_is_listed_is_read_or_passed_over(text):
    now = read_models(text, "m")
    assert same_model(now, now, strict=True) and isinstance(is_telling(now, "m"), bool)
    assert isinstance(describe(now, strict=True), str)


def test_what_nobody_says_tells_nothing():
    a, b = {"model": "a"}, {"model": "b"}
    assert same_model(a, {}, strict=True) and same_model({}, b, strict=True) and not same_model(a, b, strict=True)
    assert same_model(a, b, strict=False)
    old, new = {"listed": {"id": "a"}, "created": 1}, {"listed": {"id": "a"}, "created": 2}
    assert not same_model(old, new, strict=True) and same_model(old, new, strict=False)
    assert describe(old, strict=True) == "a, made 1970-01-01 00:00:01" and describe(old, strict=False) == "a"
    listed = {"listed": {"id": "a"}}
    assert not same_model(a, listed, strict=True) and same_model(a, listed, strict=False)
    assert describe({}, strict=True) == "" and ";" not in describe({"model": "a;b"}, strict=True)
