"""What servers reply: parts, thoughts, refusals, nothing at all, fields that they will not take."""

from __future__ import annotations

import json

import pytest
from conftest import require
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import HAS_OPENAI, completion, running

from routedk_lite.teacher.calls import CallCache, is_answer, json_text, plain
from routedk_lite.teacher.endpoint import ChatTeacher
from routedk_lite.teacher.replies import read_reply, refused_field
from routedk_lite.teacher.sending import TryAgainError
from routedk_lite.teacher.teachers import CutOff, NoAnswer, TeacherError

TALKS = [[{"role": "user", "content": f"question {number}"}] for number in range(3)]


@pytest.fixture
def server():
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as httpd:
        yield httpd


@pytest.fixture
def make(server, tmp_path):
    return lambda **options: ChatTeacher("m", base_url=server.url, folder=tmp_path / "calls", **options)


def ask(teacher, talks=TALKS[:1], max_tokens=50):
    return teacher.ask(talks, max_tokens=max_tokens, progress=False)


# --- content ------------------------------------------------------------------------------------------------------


def part(text, kind="text"):
    return {"type": kind, "text": text}


@pytest.mark.parametrize(
    ("content", "more", "answer"),
    [
        ("plain", {}, "plain"),
        ([part("a"), part("b")], {}, "ab"),
        ([part("a", "output_text")], {}, "a"),
        ([{"text": "a"}, "b", None, 3, part(None), {"type": "image_url"}], {}, "ab"),
        ([{"type": "thinking", "thinking": [part("hm")]}, part("a")], {}, "a"),
        ([{"type": "reasoning", "text": "hm"}, part("a")], {}, "a"),
        ("a", {"reasoning_content": "hm"}, "a"),
        ("a", {"reasoning": "hm", "refusal": None, "tool_calls": []}, "a"),
        ("<think>hm</think>a", {}, "<think>hm</think>a"),
    ],
)
def test_the_text_of_an_answer_is_found(content, more, answer, make, server):
    server.script = [{"body": completion(content, **more)}]
    assert ask(make()) == [answer]
    assert ask(make()) == [answer] and len(server.requests) == 1


EMPTY = [
    ("", {}, "the answer is empty"),
    (None, {}, "the answer is empty"),
    (" \n\t\u2003", {}, "the answer is empty"),
    ([], {}, "the answer is empty"),
    (7, {}, "the answer is empty"),
    ([part(" ")], {}, "has only thought"),
    ("<think>Maybe [1, 3]</think>\n", {}, "has only thought"),
    ("<think>Maybe [1, 3]", {}, "has only thought"),
    ("", {"reasoning_content": "Maybe [1, 3]"}, "has only thought"),
    (None, {"reasoning": "Maybe"}, "has only thought"),
    ("<think>Maybe [1, 3]", {"finish": "length"}, "cut off before the answer began (finish reason length)"),
    (
        "",
        {"finish": "length"},
        "cut off before the answer began (finish reason length): allow more tokens, see `extra`",
    ),
    ("", {"finish": "content_filter"}, "filter held the answer back (finish reason content_filter)"),
    (None, {"refusal": "I cannot help with that."}, "the model refuses to answer: 'I cannot help with that.'"),
    ([{"type": "refusal", "refusal": "No."}], {}, "the model refuses to answer: 'No.'"),
    (None, {"tool_calls": [{"function": {"name": "f"}}], "finish": "tool_calls"}, "calls a tool instead of answering"),
    (None, {"function_call": {"name": "f"}}, "calls a tool"),
]


@pytest.mark.parametrize(("content", "more", "why"), EMPTY)
def test_what_is_no_answer_says_why_and_is_asked_again(content, more, why, make, server):
    server.script = [{"body": completion(content, **more)}]
    teacher = make()
    (answer,) = ask(teacher)
    assert answer == "" and isinstance(answer, NoAnswer) and why in answer.why
    assert (teacher.usage.calls, teacher.usage.retries) == (1, 0)
    assert make().known(TALKS[0], 50) is None
    assert ask(make()) == ["answer to question 0"]
    assert ask(make()) == ["answer to question 0"] and len(server.requests) == 2


def test_what_was_paid_for_is_on_disk_even_if_it_is_no_answer(make, server, tmp_path):
    server.script = [{"body": completion(None, reasoning_content="long thoughts", finish="length")}]
    ask(make())
    (path,) = tmp_path.rglob("*.json")
    kept = json.loads(path.read_text())
    assert "long thoughts" in kept["message"] and "cut off" in kept["why"] and kept["usage"]["completion_tokens"] == 7


def test_empty_answers_of_earlier_versions_are_asked_for_again(make, server, tmp_path):
    ask(make())
    (path,) = tmp_path.rglob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"answer": ""}))
    assert ask(make()) == ["answer to question 0"] and len(server.requests) == 2


def test_an_answer_that_was_cut_off_is_known_as_such(make, server):
    server.script = [{"body": completion("so far", finish="length")}]
    for _ in range(2):
        (answer,) = ask(make())
        assert answer == "so far" and isinstance(answer, CutOff)
    assert isinstance(make().known(TALKS[0], 50), CutOff) and len(server.requests) == 1


def test_a_lone_surrogate_is_kept_and_read_back(make, server, tmp_path):
    server.script = [{"body": completion("mug \ud83d and \udc00\ud83d").replace("mug", "mög")}]
    assert ask(make()) == ["mög \ud83d and \udc00\ud83d"]
    assert ask(make()) == ["mög \ud83d and \udc00\ud83d"] and len(server.requests) == 1
    for path in tmp_path.rglob("*.json"):
        path.read_text(encoding="utf-8")
    said = [
        *TALKS[0],
        {"role": "assistant", "content": "mug \ud83d"},
        {"role": "user", "content": "\ud83d\ude00 \udc00"},
    ]
    ask(make(), [said])  # a conversation that holds one can be sent
    assert [turn["content"] for turn in server.requests[-1]["messages"][1:]] == ["mug \ufffd", "\U0001f600 \ufffd"]


# --- fields that are refused --------------------------------------------------------------------------------------


def refuses(*names, message="Unsupported value: '{}' does not support 0 with this model. Only the default is.", **more):
    """A server that refuses fields of these names, one at a time."""

    def step(handler):
        for name in names:
            if name in handler.server.requests[-1]:
                error = {"message": message.format(name), "type": "invalid_request_error", **more}
                return {"status": 400, "body": json.dumps({"error": error})}
        return None

    return step


UNSUPPORTED = "Unsupported parameter: '{}' is not supported with this model. Use 'max_completion_tokens' instead."


def test_a_model_without_temperature_is_asked_without_it(make, server, tmp_path):
    server.script = [refuses("temperature")] * 9
    teacher = make(concurrency=1)
    assert teacher.sampling == "temperature 0"
    assert ask(teacher, TALKS) == [f"answer to question {n}" for n in range(3)]
    assert ["temperature" in request for request in server.requests] == [True, False, False, False]  # once for the run
    assert all(request["max_tokens"] == 50 for request in server.requests)
    for said in (teacher, make()):
        assert ask(said, TALKS) and len(server.requests) == 4
        assert said.sampling == "the server's own temperature, which takes no other"
        assert "refuses fields of the request, and got: the server's own temperature" in said.usage.notes[0]
    assert {tuple(json.loads(path.read_text())["refused"]) for path in tmp_path.rglob("*.json")} == {("temperature",)}


def test_a_renamed_limit_and_a_refused_seed_and_temperature_one_after_the_other(make, server):
    server.script = [refuses("max_tokens", message=UNSUPPORTED)] + [refuses("max_tokens", "seed", "temperature")] * 9
    teacher = make(extra={"seed": 3})
    assert ask(teacher) == ["answer to question 0"] and len(server.requests) == 4
    last = server.requests[-1]
    assert last["max_completion_tokens"] == 50 and not {"max_tokens", "seed", "temperature"} & last.keys()
    assert "max_completion_tokens in place of max_tokens" in teacher.sampling and "own seed" in teacher.sampling


def test_an_older_server_gets_the_older_name(make, server):
    server.script = [refuses("max_completion_tokens", message="Extra inputs are not permitted: {}")] * 2
    assert ask(make(extra={"max_tokens": None, "max_completion_tokens": 9})) == ["answer to question 0"]
    assert server.requests[-1]["max_tokens"] == 9


def test_many_at_a_time_find_it_out_together(make, server):
    server.script = [refuses("temperature", "max_tokens", "seed")] * 99
    assert (
        len(ask(make(concurrency=8, extra={"seed": 1}), [[{"role": "user", "content": str(n)}] for n in range(20)]))
        == 20
    )


def test_both_names_of_the_limit_refused_is_an_error(make, server):
    server.script = [refuses("max_tokens", "max_completion_tokens", message=UNSUPPORTED)] * 9
    with pytest.raises(TeacherError, match="400: .*Unsupported parameter"):
        ask(make())
    assert len(server.requests) == 2


FIELDS = ("temperature", "max_tokens", "top_p")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"error": {"message": "Unsupported value", "param": "temperature"}}, "temperature"),
        ({"error": {"message": "temperature is deprecated for this model"}}, "temperature"),
        ({"error": "Unknown parameter: 'temperature'."}, "temperature"),
        ({"message": "Unrecognized request argument supplied: temperature"}, "temperature"),
        ({"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}, "temperature"),
        ([{"error": {"message": "`max_tokens` isn't supported"}}], "max_tokens"),
        ([{"error": {"message": "`max_tokens` is not supported"}}], "max_tokens"),
        ({"error": {"message": UNSUPPORTED.format("max_tokens")}}, "max_tokens"),
        (
            {
                "error": {
                    "message": "max_tokens is too large: 5000. This model supports at most 4096",
                    "param": "max_tokens",
                }
            },
            None,
        ),
        ({"error": {"message": "maximum context length is 4096 tokens; reduce max_tokens"}}, None),
        ({"error": {"message": "Unsupported parameter: 'top_p'", "param": "top_p"}}, None),
        ("Unsupported value: 'temperature'", "temperature"),
        ("max_tokens is not supported", None),
        ("", None),
    ],
)
def test_which_field_a_server_refuses(said, field):
    assert refused_field(said if isinstance(said, str) else json.dumps(said), FIELDS) == field


# --- anything -----------------------------------------------------------------------------------------------------

KNOWN = st.sampled_from(
    ["choices", "message", "content", "usage", "model", "finish_reason", "text", "type", "refusal", "error", "param"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["text", "length", "<think>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN | st.text(), inner, max_size=5),
    max_leaves=20,
)
MESSAGE = st.dictionaries(st.sampled_from(["content", "refusal", "tool_calls", "reasoning"]), JSON)
COMPLETION = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": MESSAGE, "finish_reason": JSON}), min_size=1, max_size=2)},
    optional={
        "usage": JSON | st.dictionaries(st.just("prompt_tokens"), JSON),
        "model": JSON,
        "system_fingerprint": JSON,
    },
)


@given(JSON | COMPLETION)
def test_any_json_is_a_reply_or_refused(body):
    text = json.dumps(body)
    try:
        reply = read_reply(text)
    except ValueError:
        reply = None
    if reply is not None:
        assert isinstance(reply.answer, NoAnswer) != is_answer(reply.answer)
        assert not isinstance(reply.answer, NoAnswer) or reply.answer.why
        assert all(count >= 0 for count in reply.used.values())
    assert refused_field(text, FIELDS) in (None, *FIELDS)


@given(st.text() | st.just("[" * 100_000) | st.just('{"choices": ' + "[" * 100_000) | st.just("1" * 5000))
def test_any_text_is_a_reply_or_refused(text):
    with pytest.raises(ValueError):
        read_reply(text)
    assert refused_field(text, FIELDS) in (None, *FIELDS)


@pytest.fixture(scope="module")
def any_server():
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as httpd:
        yield httpd


@settings(max_examples=40)
@given(st.data())
def test_a_teacher_survives_whatever_a_server_replies(any_server, tmp_path_factory, data):
    body, status = data.draw(JSON | COMPLETION), data.draw(st.sampled_from([200, 200, 400, 404, 422, 500]))
    after = data.draw(st.sampled_from(["", "0", "nan", "-1", "inf", "soon", "Mon, 01 Jan 99999 00:00:00 GMT"]))
    any_server.script = [{"status": status, "body": json.dumps(body), "headers": {"Retry-After": after}}] * 5
    any_server.listed = data.draw(JSON)
    teacher = ChatTeacher("m", base_url=any_server.url, folder=tmp_path_factory.mktemp("calls"), attempts=1)
    try:
        (answer,) = ask(teacher)
    except TeacherError as error:
        assert "0 of 1 answers are kept" in str(error)
        while error := error.__cause__ or error.__context__:
            assert isinstance(error, TeacherError | TryAgainError)  # nothing of what a library says
    else:
        assert isinstance(answer, NoAnswer) != is_answer(answer)


TEXT = st.text(st.characters(), max_size=20)  # with lone surrogates


@given(TEXT)
def test_any_text_is_stored_and_read_back(tmp_path_factory, text):
    cache = CallCache(tmp_path_factory.mktemp("calls"))
    cache.put({"q": plain(text)}, text)
    assert cache.get({"q": plain(text)}) == (text if is_answer(text) else None)
    plain(text).encode()
    assert json.loads(json_text({"a": [text]}).encode()) == {"a": [text]}


def test_answers_of_several_models_stand_beside_each_other(tmp_path):
    cache = CallCache(tmp_path)
    for answer in ("", "a", "b"):
        cache.put({"q": 1}, answer)
    assert [record["answer"] for record in cache.usable({"q": 1})] == ["a", "b"] and len(
        list(tmp_path.rglob("*.json"))
    ) == 2
    cache.reject({"q": 1}, "b", "it makes no sense")
    assert cache.get({"q": 1}) == "a"
    cache.put({"q": 1}, "c")
    assert cache.get({"q": 1}) == "c" and len(list(tmp_path.rglob("*.json"))) == 3


def test_a_damaged_answer_that_was_deleted_hides_no_later_one(tmp_path):
    cache = CallCache(tmp_path)
    for answer in ("a", "b"):
        cache.put({"q": 1}, answer)
    first = min(tmp_path.rglob("*.json"), key=lambda path: len(path.name))
    first.write_text("{")
    with pytest.raises(TeacherError, match="not a stored answer .*delete it"):
        cache.get({"q": 1})
    first.unlink()
    assert cache.get({"q": 1}) == "b"
    cache.put({"q": 1}, "c")
    assert cache.get({"q": 1}) == "c" and [one["answer"] for one in cache.usable({"q": 1})] == ["b", "c"]


def test_answers_that_cannot_be_kept_are_not_asked_for(server, tmp_path):
    (tmp_path / "calls").write_text("")
    with pytest.raises(TeacherError, match="calls: answers cannot be kept here .*set ROUTEDK_CACHE to another folder"):
        ask(ChatTeacher("m", base_url=server.url, folder=tmp_path / "calls"))
    assert not server.requests
