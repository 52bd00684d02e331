"""Live teachers: nothing that was answered is lost or paid for twice, whatever the server does."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from email.utils import formatdate

import pytest
from conftest import require
from scripted import HAS_OPENAI, completion, running

from routedk_lite.student.local_teacher import LocalTeacher
from routedk_lite.teacher import endpoint as module
from routedk_lite.teacher.endpoint import CallCache, ChatTeacher, TeacherError, cost
from routedk_lite.teacher.teachers import CutOff

KEY = "sk-very-secret-0123456789"


def talk(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


TALKS = [talk(f"question {number}") for number in range(8)]


@pytest.fixture
def server():
    with running() as httpd:
        yield httpd


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that a teacher would have made."""
    made = []
    monkeypatch.setattr(module, "_pause", lambda stop, seconds: made.append(seconds))
    return made


@pytest.fixture
def make(server, tmp_path):
    """Makes teachers that ask the scripted server and share a folder."""
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")

    def chat_teacher(**options) -> ChatTeacher:
        return ChatTeacher("scripted", base_url=server.url, folder=tmp_path / "calls", **options)

    return chat_teacher


def ask(teacher, conversations=TALKS, max_tokens=50):
    return teacher.ask(conversations, max_tokens=max_tokens, progress=False)


# --- a good server ------------------------------------------------------------------------------------------------


def test_answers_come_in_order_and_are_counted_as_the_server_counts(make, server):
    teacher = make(extra={"top_p": 1, "not_in_the_package": True})
    assert ask(teacher) == [f"answer to question {n}" for n in range(8)]
    assert {r["model"] for r in server.requests} == {"scripted"}
    request = next(r for r in server.requests if r["messages"] == TALKS[0])
    assert (request["temperature"], request["max_tokens"], request["not_in_the_package"]) == (0, 50, True)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert (teacher.usage.calls, teacher.usage.prompt_tokens, teacher.usage.answer_tokens) == (8, 88, 56)
    assert cost(1_000_000, 500_000, 0.15, 0.6) == pytest.approx(0.45)


def test_nothing_is_asked_twice(make, server):
    ask(make(), TALKS[:5])
    teacher = make()
    assert teacher.known(TALKS[0], 50) == "answer to question 0" and teacher.known(TALKS[5], 50) is None
    assert ask(teacher, [*TALKS, TALKS[7]])[-1] == "answer to question 7"
    assert len(server.requests) == len(TALKS)
    assert (teacher.usage.calls, teacher.usage.from_disk) == (3, 6)


def test_another_model_endpoint_or_setting_is_another_question(make, server, tmp_path):
    ask(make(), TALKS[:1])
    ask(make(extra={"temperature": 1}), TALKS[:1])
    ask(make(), TALKS[:1], max_tokens=51)
    ask(make(extra={"max_tokens": None, "max_completion_tokens": 9}), TALKS[:1])
    ask(ChatTeacher("other", base_url=server.url, folder=tmp_path / "calls"), TALKS[:1])
    assert make().sampling == "temperature 0" and make(extra={"seed": 1}).sampling == 'temperature 0, {"seed": 1}'
    assert make(extra={"temperature": 1}).sampling == '{"temperature": 1}'
    assert len(server.requests) == 5
    assert "max_tokens" not in server.requests[3] and server.requests[3]["max_completion_tokens"] == 9


def test_no_more_calls_at_a_time_than_allowed(make, server):
    together, peaks = [], []
    barrier = threading.Barrier(3)

    def step(handler):
        with server.lock:
            together.append(handler)
            peaks.append(len(together))
        barrier.wait(timeout=30)  # breaks unless three calls are under way
        with server.lock:
            together.remove(handler)

    server.script = [step] * 9
    ask(make(concurrency=3), [talk(str(n)) for n in range(9)])
    assert max(peaks) == 3


def test_an_answer_that_nobody_counted_is_an_answer(make, server):
    body = json.loads(completion("well"))
    del body["usage"]
    server.script = [{"body": json.dumps(body)}]
    teacher = make()
    assert ask(teacher, TALKS[:1]) == ["well"]
    assert (teacher.usage.calls, teacher.usage.unmetered) == (1, 1)


# --- a bad server -------------------------------------------------------------------------------------------------


def hang(handler):
    handler.server.released.wait(30)
    return {"body": completion("too late")}


HALF = completion("half of it")
MISHAPS = {
    "429": {"status": 429, "headers": {"Retry-After": "3"}, "body": '{"error": {"message": "slow down"}}'},
    "500": {"status": 500, "body": "oops"},
    "garbage": {"headers": {"Content-Type": "text/html"}, "body": "<html>gateway</html>"},
    "half a JSON": {"body": HALF[: len(HALF) // 2]},
    "half a transfer": {"body": HALF, "cut": 40},
    "an error with status 200": {"body": '{"error": {"message": "no provider"}}'},
    "no choices": {"body": '{"choices": []}'},
    "hanging": hang,
}


@pytest.mark.parametrize("mishap", list(MISHAPS))
def test_a_call_that_fails_in_passing_is_made_again(mishap, make, server, pauses):
    server.script = [MISHAPS[mishap]]
    teacher = make(timeout=0.3 if mishap == "hanging" else 30)
    assert ask(teacher, TALKS[:1]) == ["answer to question 0"]
    assert (len(server.requests), teacher.usage.calls, teacher.usage.retries) == (2, 1, 1)
    (pause,) = pauses
    assert pause == 3 if mishap == "429" else 0.5 <= pause <= 1


def test_pauses_double(make, server, pauses):
    server.script = [MISHAPS["500"]] * 5
    ask(make(attempts=6, first_wait=2), TALKS[:1])
    assert all(2**n <= pause <= 2 ** (n + 1) for n, pause in enumerate(pauses)) and len(pauses) == 5


def test_a_date_to_come_back_at_is_understood():
    seconds = module._retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert 0 < seconds <= 60
    assert module._retry_after({"retry-after": "soon"}) == module._retry_after({}) == 0


@pytest.mark.parametrize(
    ("mishap", "calls", "message"),
    [
        ({"status": 503, "body": "busy"}, 3, "503: busy (tries: 3). Try again later"),
        ({"status": 429, "headers": {"Retry-After": "7200"}}, 1, "asks for a pause of 7200 s"),
        ({"status": 429, "body": '{"error": {"code": "insufficient_quota"}}'}, 1, "no credit left"),
        ({"status": 401, "body": f"wrong key {KEY}"}, 1, "401: wrong key …. Check the key"),
        ({"status": 404, "body": "no such model"}, 1, "404: no such model. Check the model's name"),
        ({"status": 400, "body": "max_tokens is not supported"}, 1, "see `extra`"),
        ({"body": f"{'x' * 190}{KEY}"}, 3, "the reply is no chat completion"),
    ],
)
def test_a_final_failure_says_where_what_and_what_to_do(mishap, calls, message, make, server, pauses):
    server.script = [mishap] * 3
    with pytest.raises(TeacherError) as error:
        ask(make(attempts=3), TALKS[:1])
    said = str(error.value)
    assert message in said and f"scripted at {server.url}" in said and "0 of 1 answers are kept" in said
    assert "sk-very" not in said
    assert len(server.requests) == calls


def test_when_one_call_fails_the_others_are_kept_and_no_more_are_made(make, server):
    def refuse(handler):
        return {"status": 403, "body": "no"}

    server.script = [None, None, refuse]
    with pytest.raises(TeacherError, match="2 of 8 answers are kept"):
        ask(make(concurrency=1))
    assert len(server.requests) == 3
    assert len(ask(make())) == 8
    assert len(server.requests) == 3 + 6


def test_calls_under_way_are_kept_when_another_fails(make, server):
    arrived = threading.Barrier(2)

    def slow(handler):
        arrived.wait(30)
        server.released.wait(30)

    def fail(handler):
        arrived.wait(30)
        threading.Timer(0.2, server.released.set).start()
        return {"status": 403}

    server.script = [slow, fail]
    with pytest.raises(TeacherError, match="1 of 8 answers are kept"):
        ask(make(concurrency=2))
    assert len(server.requests) == 2


def test_an_interrupted_run_goes_on_without_paying_twice(make, server):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without one

    def interrupt(handler):
        os.kill(os.getpid(), signal.SIGINT)
        server.released.wait(0.5)  # time for the main thread to notice

    server.script = [None, None, None, interrupt]
    with pytest.raises(KeyboardInterrupt):
        ask(make(concurrency=1))
    before = len(server.requests)
    assert 4 <= before < 8
    assert ask(make()) == [f"answer to question {n}" for n in range(8)]
    asked = [request["messages"][0]["content"] for request in server.requests]
    assert sorted(asked) == [f"question {n}" for n in range(8)]


# --- keys, arguments, files ---------------------------------------------------------------------------------------


def test_the_key_is_neither_written_nor_logged(make, server, tmp_path, pauses, caplog):
    caplog.set_level(logging.DEBUG)
    server.script = [MISHAPS["500"], {"status": 401, "body": f"bad: {KEY}"}]
    with pytest.raises(TeacherError):
        ask(make(concurrency=1))
    ask(make())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 8
    assert not [path for path in files if KEY in path.read_text()]
    assert KEY not in caplog.text
    assert KEY not in str(vars(make()))


def test_a_password_in_the_address_is_not_shown(make, tmp_path):
    teacher = ChatTeacher("m", base_url="https://me:pass@host.example/v1?token=t", folder=tmp_path)
    assert teacher.name == "m at https://host.example/v1"


def test_the_key_comes_from_the_environment_and_loopback_needs_none(make, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(make(), TALKS[:1])
    far = ChatTeacher("m", base_url="https://host.example/v1", key_variable="HOST_KEY")
    same = ChatTeacher("m", base_url="https://host.example/v1/", key_variable="HOST_KEY")
    assert same.name == far.name, "a slash at the end makes no other teacher"
    assert not far.is_local and far.known(TALKS[0], 50) is None
    with pytest.raises(TeacherError, match="HOST_KEY is not set: put the key for https://host.example/v1"):
        ask(far, TALKS[:1])


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RuntimeError, match=r"pip install 'routedk-lite\[teacher\]'"):
        ask(ChatTeacher("m", folder=tmp_path), TALKS[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "model = ''"),
        ({"base_url": "api.openai.com"}, "base_url = 'api.openai.com': must be an http"),
        ({"concurrency": 0}, "concurrency = 0: must be a whole number, 1 or more"),
        ({"attempts": 0}, "attempts = 0"),
        ({"timeout": 0}, "timeout = 0"),
        ({"first_wait": -1}, "first_wait = -1"),
        ({"extra": {"messages": []}}, "extra = "),
        ({"concurrency": 2.5}, "concurrency = 2.5: must be a whole number, 1 or more"),
        ({"concurrency": True}, "concurrency = True"),
        ({"attempts": "3"}, "attempts = '3'"),
        ({"timeout": float("nan")}, "timeout = nan: must be a finite number above 0"),
        ({"timeout": float("inf")}, "timeout = inf"),
        ({"first_wait": None}, "first_wait = None"),
        ({"extra": {"temperature": -1}}, "extra's temperature = -1"),
        ({"extra": {"temperature": "hot"}}, "extra's temperature = 'hot'"),
        ({"extra": {"max_tokens": 0}}, "extra's max_tokens = 0: must be a whole number, 1 or more"),
        ({"extra": {"max_completion_tokens": 1.5}}, "extra's max_completion_tokens = 1.5"),
        ({"extra": {"top_p": float("nan")}}, "extra: must be what JSON can hold"),
        ({"extra": {"stop": {1, 2}}}, "extra: must be what JSON can hold"),
        ({"base_url": None}, "base_url = 'None'"),
        ({"base_url": "http://[::1/v1"}, "base_url = 'http://[::1/v1'"),
        ({"base_url": "http://host:port/v1"}, "base_url = 'http://host:port/v1'"),
        ({"base_url": "http://host:99999/v1"}, "must be an http(s) address"),
        ({"base_url": "http://ho st/v1"}, "base_url = 'http://ho st/v1'"),
        ({"base_url": "http:/host/v1"}, "must be an http(s) address"),
        ({"base_url": "https://host/v1/chat/completions"}, "without /chat/completions"),
    ],
)
def test_a_bad_argument_is_named(options, message):
    with pytest.raises(ValueError) as error:
        ChatTeacher(**{"model": "m", **options})
    assert message in str(error.value)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None, "9", float("nan")])
def test_a_limit_of_tokens_that_is_none_is_refused(value, make, server):
    with pytest.raises(ValueError, match="max_tokens = .*: must be a whole number, 1 or more"):
        ask(make(), TALKS[:1], max_tokens=value)
    assert not server.requests


@pytest.mark.parametrize("price", [-5, float("nan"), float("inf"), "0.1", True])
def test_a_price_that_is_none_is_refused(price):
    for name, prices in (("price_in", (price, 1)), ("price_out", (1, price))):
        with pytest.raises(ValueError, match=f"{name} = .*{price}.*: must be a finite number, 0 or more"):
            cost(1, 1, *prices)
    assert cost(10**6, 0, 0, 0) == 0


def test_a_damaged_stored_answer_is_named(tmp_path):
    cache = CallCache(tmp_path)
    cache.put({"q": 1}, "a")
    (path,) = tmp_path.rglob("*.json")
    path.write_text("{")
    with pytest.raises(TeacherError, match="not a stored answer.*delete it"):
        cache.get({"q": 1})


# --- a model on this machine --------------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture
def local(tiny_student, tmp_path):
    tiny_student.tokenizer.chat_template = TEMPLATE
    return LocalTeacher(tiny_student, batch_size=3, folder=tmp_path)


def test_a_local_teacher_answers_alike_in_any_batch_and_only_once(local, tmp_path, monkeypatch):
    talks = [talk("a" * (1 + 7 * n % 5)) for n in range(7)]
    answers = ask(local, talks, max_tokens=6)
    assert local.usage.calls == 5 and local.usage.answer_tokens > 0  # two questions stand there twice
    alone = LocalTeacher(local.student, batch_size=1, folder=tmp_path / "other")
    assert ask(alone, talks, max_tokens=6) == answers
    monkeypatch.setattr(local.student.model, "generate", None)
    assert ask(local, talks, max_tokens=6) == answers


def test_a_local_teacher_needs_a_template_and_room(local, tiny_profile):
    with pytest.raises(TeacherError, match="do not fit into its context of 1024"):
        ask(local, [talk("a" * 1000)])
    local.student.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template: choose an instruct model"):
        LocalTeacher(local.student)


def test_a_local_teacher_is_greedy_whatever_the_model_came_with(local, tmp_path):
    answers = ask(local, TALKS[:2], max_tokens=6)
    own = local.student.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.min_new_tokens = 50.0, 1, 6
    assert ask(LocalTeacher(local.student, folder=tmp_path / "other"), TALKS[:2], max_tokens=6) == answers
    assert local.student.model.generation_config is own


@pytest.mark.parametrize("said", ["", " \n", "<think>maybe"])
def test_a_local_teacher_without_an_answer_says_so_and_is_asked_again(said, local, monkeypatch):
    decode = local.student.tokenizer.decode
    monkeypatch.setattr(local.student.tokenizer, "decode", lambda *args, **options: said)
    (answer,) = ask(local, TALKS[:1], max_tokens=6)
    assert answer == "" and "cut off" in answer.why and local.known(TALKS[0], 6) is None
    monkeypatch.setattr(local.student.tokenizer, "decode", lambda *args, **options: f"well {decode(*args, **options)}")
    (answer,) = ask(local, TALKS[:1], max_tokens=6)
    assert answer.startswith("well") and isinstance(answer, CutOff) and local.usage.calls == 2


def test_a_local_teacher_is_asked_plain_text(local):
    assert len(ask(local, [talk("half \ud83d")], max_tokens=6)) == 1
    with pytest.raises(ValueError, match="batch_size = 0: must be a whole number, 1 or more"):
        LocalTeacher(local.student, batch_size=0)
    with pytest.raises(ValueError, match="max_tokens = 0: must be a whole number, 1 or more"):
        ask(local, max_tokens=0)


# --- a real server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tiny_llama, tmp_path_factory):
    """The random Llama behind `transformers serve`: address and name of the model."""
    needed = ("openai", "fastapi", "uvicorn")
    require(all(map(importlib.util.find_spec, needed)), f"packages {', '.join(needed)} for `transformers serve`")
    folder = shutil.copytree(tiny_llama, tmp_path_factory.mktemp("served") / "tiny")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = folder.with_name("log")
    with (
        log.open("w") as out,
        subprocess.Popen([*command, "--device", "cpu"], env=os.environ | quiet, stdout=out, stderr=out) as process,
    ):
        try:
            for _ in range(1200):
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()


def test_a_model_behind_transformers_serve_is_asked_like_any_other(served, tmp_path, tiny_student):
    url, model = served
    teacher = ChatTeacher(model, base_url=url, folder=tmp_path / "calls")
    answers = ask(teacher, TALKS[:2], max_tokens=6)
    assert teacher.usage.calls == 2 and teacher.usage.answer_tokens == 12
    tiny_student.tokenizer.chat_template = TEMPLATE
    here = LocalTeacher(tiny_student, folder=tmp_path / "here")
    assert [a.strip() for a in answers] == ask(here, TALKS[:2], max_tokens=6)
    with pytest.raises(TeacherError, match="failed"):
        ask(ChatTeacher("/no/such/model", base_url=url, folder=tmp_path / "calls", attempts=1), TALKS[:1])
