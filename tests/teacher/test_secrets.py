"""No message, log, record or traceback holds a key; what is wrong in the environment is named with its remedy."""

from __future__ import annotations

import json
import logging
import os
import socket
import string
import threading
import traceback
from urllib.parse import quote

import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st
from scripted import HAS_OPENAI, completion, running

from routedk_lite.teacher.connection import Address, Secrets, key_problem, read_address
from routedk_lite.teacher.endpoint import ChatTeacher, TeacherError

KEY = "sk-very-secret-0123456789"
TALKS = [[{"role": "user", "content": f"question {number}"}] for number in range(3)]
FAR = "https://host.example/v1"


@pytest.fixture
def server():
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with running() as httpd:
        yield httpd


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """An environment without proxies and certificates of its own."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(teacher, talks=TALKS[:1]):
    return teacher.ask(talks, max_tokens=50, progress=False)


def refused(teacher) -> str:
    """What the error says, with every frame's variables and every error behind it."""
    with pytest.raises(TeacherError) as caught:
        ask(teacher)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    everything, error = ["".join(shown.format())], caught.value
    while error := error.__cause__ or error.__context__:
        everything.append(repr(error))
    assert not [text for text in everything if "very-secret" in text]
    return str(caught.value)


# --- keys ---------------------------------------------------------------------------------------------------------

BAD_KEYS = [
    ("sk-very-secret\nxyz", "holds a line break"),
    ("sk-very-secret\r\nxyz", "holds a line break"),
    ("sk-very-secret\u2028xyz", "holds a line break"),
    ("sk-very-secret xyz", "holds a blank"),
    ("sk-very-secret\txyz", "holds a blank"),
    ("Bearer sk-very-secret", "begins with the word Bearer"),
    ('"sk-very-secret"', "stands in quotation marks"),
    ("'sk-very-secret'", "stands in quotation marks"),
    ("“sk-very-secret”", "stands in quotation marks"),
    ("sk-very-secret’", "stands in quotation marks"),
    ("sk–very-secret", "not plain ASCII"),
    ("sk-very-secret-ключ", "not plain ASCII"),
    ("sk-very-secret\udcff", "not plain ASCII"),
    ("sk-very-secret\x07", "holds a control character"),
]


@pytest.mark.parametrize(("key", "problem"), BAD_KEYS)
def test_a_key_that_cannot_be_sent_is_refused_before_the_first_request(key, problem, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOST_KEY", key)
    for url in (server.url, FAR):
        said = refused(ChatTeacher("m", base_url=url, key_variable="HOST_KEY", folder=tmp_path))
        assert said.startswith("HOST_KEY ") and problem in said and "\n" not in said
    assert not server.requests


def test_what_surrounds_a_key_does_no_harm_and_a_blank_one_is_none(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert ask(ChatTeacher("m", base_url=server.url, folder=tmp_path)) == ["answer to question 0"]
    assert server.keys == [f"Bearer {KEY}"]
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    assert "OPENAI_API_KEY is blank: put the key" in refused(ChatTeacher("m", folder=tmp_path))


@given(st.text(st.characters(exclude_characters="\0"), max_size=30))
def test_a_key_without_a_problem_can_stand_in_a_header(key):
    problem = key_problem(key)
    legal = bool(key) and all(letter in string.printable and not letter.isspace() for letter in key)
    assert bool(problem) or legal or not key
    if not problem:
        f"Bearer {key}".encode("ascii")


@pytest.mark.parametrize(
    "name", ["sk-very-secret-1", "gsk_verysecret0123456789abc", "very-secret", "", None, "A B", "1A"]
)
def test_a_key_in_the_place_of_its_variable_is_not_shown(name):
    with pytest.raises(ValueError, match="key_variable: must be the name of an environment variable") as caught:
        ChatTeacher("m", key_variable=name)
    assert not name or name not in str(caught.value)


@pytest.mark.parametrize("field", ["api_key", "API-Key", "apikey", "authorization", "client_secret", "access_token"])
def test_a_key_among_the_fields_of_the_request_is_refused(field):
    for extra in ({field: KEY}, {"headers": {field: KEY}}):
        with pytest.raises(ValueError, match="extra holds .*put a key into the environment variable") as caught:
            ChatTeacher("m", extra=extra)
        assert KEY not in str(caught.value)


ECHOES = [KEY, KEY.upper(), f"Bearer {KEY}", quote(f"a {KEY}"), json.dumps({"key": KEY}), f"{'x' * 190}{KEY}"]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("status", [200, 400, 401, 404, 422, 429, 500])
def test_a_key_that_a_server_repeats_is_not_shown(echo, status, server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.script = [{"status": status, "body": json.dumps({"error": {"message": echo, "code": echo, "param": echo}})}]
    said = refused(ChatTeacher("m", base_url=server.url, folder=tmp_path, attempts=1))
    assert "secret" not in said.lower() and "very-secret" not in caplog.text


def test_a_key_in_an_answer_is_not_kept(server, tmp_path):
    server.model = {"model": KEY, "system_fingerprint": f"fp {KEY}"}
    server.listed = [{"id": "m", "root": f"/{KEY}", "meta": {"key": KEY}}]
    server.script = [{"body": completion(f"your key is {KEY}", **server.model)}]
    server.script += [{"body": completion(None, refusal=f"not with {KEY}", **server.model)}]
    teacher = ChatTeacher("m", base_url=server.url, folder=tmp_path, concurrency=1)
    said, refusal = ask(teacher, TALKS[:2])
    assert said == "your key is …" and refusal.why == "the model refuses to answer: 'not with …'"
    assert KEY not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert KEY not in f"{teacher.served} {teacher.usage} {vars(teacher)}"


def test_a_short_key_damages_no_answer(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "answer")
    assert ask(ChatTeacher("m", base_url=server.url, folder=tmp_path)) == ["answer to question 0"]


@given(st.text(min_size=1, max_size=12), st.text(), st.text())
def test_a_secret_is_hidden_wherever_it_stands(secret, before, after):
    secrets = Secrets([secret])
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        hidden = secrets.hide(f"{before}{form}{after}")
        assert secret not in hidden or secret in "…"
    assert secret not in repr(secrets) or secret in "Secrets(…)"


# --- addresses ----------------------------------------------------------------------------------------------------

ADDRESSES = [
    "http://me:very-secret-0@{}/v1",
    "http://very-secret-0@{}/v1",
    "http://:very-secret-0@{}/v1",
    "http://me:very%2Dsecret-0@{}/v1",
    "http://{}/v1?api_key=very-secret-0",
    "http://{}/v1/?a=b&token=very-secret-0#very-secret-0",
    "http://me:very-secret-1@{}/v1?key=very-secret-2",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_secret_in_the_address_is_used_and_nowhere_to_be_seen(address, server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    url = address.format(server.url.removeprefix("http://").removesuffix("/v1"))
    teacher = ChatTeacher("m", base_url=url, folder=tmp_path, attempts=1)
    paths = []
    server.script = [lambda handler: paths.append((handler.path, handler.headers["Authorization"]))]
    assert ask(teacher) == ["answer to question 0"]
    ((path, header),) = paths
    assert path.startswith("/v1/chat/completions") and ("very-secret" in path) == ("?" in address)
    assert header.startswith("Basic ") == ("@" in address)
    server.script = [{"status": 401, "body": f"who is {path} {header}?"}]
    with pytest.raises(TeacherError) as caught:
        ask(teacher, TALKS[1:2])
    shown = f"{caught.value} {vars(teacher)} {teacher.address!r} {teacher.name} {teacher.base_url} {caplog.text}"
    shown += "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "very-secret" not in shown and header.removeprefix("Basic ") not in shown.replace(KEY, "")


@pytest.mark.parametrize(
    "url",
    [
        "me:very-secret@host/v1",
        "very-secret@host",
        "sk-very-secret-0123456789",
        "0123456789verysecret.Ab1very",
        "ftp://me:very-secret@host/v1",
        "https://me:very-secret@/v1",
        "https://me:very-se/cret@host/v1",
        "https://me:very-secret@[host/v1",
        "https://host:port/v1?key=very-secret",
        "https://host/v1/chat/completions?key=very-secret#very-secret",
        "https://me:very-secret\n@host:port/v1",
    ],
)
def test_a_secret_in_an_address_that_is_none_is_not_shown(url):
    with pytest.raises(ValueError, match="base_url = ") as caught:
        ChatTeacher("m", base_url=url)
    assert "very" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("localhost.", True),
        ("api.localhost", True),
        ("127.0.0.1:1", True),
        ("127.8.9.1", True),
        ("[::1]:8000", True),
        ("[::ffff:127.0.0.1]", True),
        ("0.0.0.0:8000", True),
        ("localhost.example", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
        ("[::2]", False),
    ],
)
def test_what_is_on_this_machine(host, local):
    assert read_address(f"http://{host}/v1").is_local == local


# --- the environment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_missing_or_none_are_named(name, server, tmp_path, monkeypatch):
    for url in (server.url, FAR):
        monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
        said = refused(ChatTeacher("m", base_url=url, folder=tmp_path))
        assert said.startswith(f"{name} names ") and "does not exist: correct this environment variable" in said
        (tmp_path / "empty.pem").write_text("no certificate")
        monkeypatch.setenv(name, str(tmp_path / "empty.pem"))
        said = refused(ChatTeacher("m", base_url=url, folder=tmp_path))
        assert said.startswith(f"{name} names ") and "holds no certificates" in said
    assert not server.requests


def test_a_folder_of_certificates_that_is_missing_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
    said = refused(ChatTeacher("m", base_url=FAR, folder=tmp_path))
    assert said.startswith("SSL_CERT_DIR names ") and "does not exist: correct this environment variable" in said
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'missing'}{os.pathsep}{tmp_path}")  # one of them is enough
    assert ask(ChatTeacher("m", base_url=server.url, folder=tmp_path)) == ["answer to question 0"]


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x", "http://[bad"])
def test_this_machine_is_never_asked_through_a_proxy(proxy, server, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert ask(ChatTeacher("m", base_url=server.url, folder=tmp_path)) == ["answer to question 0"]


def test_a_socks_proxy_without_its_package(tmp_path, monkeypatch):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://me:very-secret@127.0.0.1:9")
    said = refused(ChatTeacher("m", base_url=FAR, folder=tmp_path))
    assert said == "ALL_PROXY names a SOCKS proxy, which needs a package: pip install socksio, or unset ALL_PROXY"


@pytest.mark.parametrize("proxy", ["nonsense://me:very-secret@x", "socks4://very-secret@x"])
def test_a_proxy_that_is_none_is_named(proxy, tmp_path, monkeypatch):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    said = refused(ChatTeacher("m", base_url=FAR, folder=tmp_path))
    assert said.startswith("HTTPS_PROXY cannot be used") and "correct this environment variable, or unset it" in said


def test_a_proxy_that_does_not_answer_is_named(tmp_path, monkeypatch):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free.getsockname()[1]}")
    said = refused(ChatTeacher("m", base_url=FAR, folder=tmp_path, attempts=1))
    assert "(through the proxy that https_proxy names)" in said


def test_a_header_of_the_package_that_cannot_be_sent_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org\n")
    assert refused(ChatTeacher("m", base_url=server.url, folder=tmp_path)).startswith(
        "OPENAI_ORG_ID holds a line break"
    )
    monkeypatch.delenv("OPENAI_ORG_ID")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Key: very-secret\u2019")
    assert refused(ChatTeacher("m", base_url=server.url, folder=tmp_path)).startswith(
        "OPENAI_CUSTOM_HEADERS holds a character that is not plain ASCII"
    )


def test_a_server_that_is_not_there_is_named(tmp_path):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://localhost:{free.getsockname()[1]}/v1"
    assert f"m at {url} failed: Connection error." in refused(
        ChatTeacher("m", base_url=url, folder=tmp_path, attempts=1)
    )


def test_a_certificate_that_nobody_knows_has_its_remedy(tmp_path, monkeypatch):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    teacher = ChatTeacher("m", base_url=FAR, folder=tmp_path)
    error = teacher._sender._connection_failure("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    assert isinstance(error, TeacherError) and "in SSL_CERT_FILE" in str(error)


def test_threads_know_the_key_of_the_start(server, tmp_path, monkeypatch):
    """A key that is taken out of the environment meanwhile is still hidden."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    started = threading.Event()

    def forget(handler):
        monkeypatch.delenv("OPENAI_API_KEY")
        started.set()
        return {"status": 401, "body": KEY}

    server.script = [forget]
    assert KEY not in refused(ChatTeacher("m", base_url=server.url, folder=tmp_path)) and started.is_set()


def test_an_address_shows_no_secret():
    assert "very-secret" not in repr(read_address("http://me:very-secret@host/v1?k=very-secret"))
    assert Address("http://host/v1", "host").secrets == []
