"""A teacher whose answers are scripted: in this process, or behind a web server that can also misbehave."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from routedk_lite.data.domains import load_domain
from routedk_lite.data.formats import FORMATS

HAS_OPENAI = importlib.util.find_spec("openai")

TOY = {
    FORMATS["compact"].write_titles(session.titles): session
    for split in ("train", "test")
    for session in load_domain("toyshop", split)
}


def toy_answer(messages: list[dict[str, str]]) -> str:
    """What somebody who knows the toy shop's laws answers to any of the questions of `teaching`."""
    asked = messages[-1]["content"]
    if "Sum up" in asked:
        rules = [{"text": f"Rule {n} of some words.", "kind": "complement", "why": "It was so."} for n in (1, 2, 3)]
        return "Here they are:\n```json\n" + json.dumps({"rules": rules}) + "\n```"
    if "Reflect" in asked:
        return "I split too much. Things for one device go together."
    session = TOY[messages[1]["content"].split("Products:\n")[1].split("\n\n")[0]]
    if "Reason forward" in asked:
        text = " ".join(why.reasoning for why in session.why)
        return json.dumps({"reasoning": text, "rules": ["R2", "R1"], "noisy": False})
    bundles = [sorted(b) for b in session.bundles]
    bundles[0] = bundles[0][:2]
    return json.dumps({"bundles": bundles, "intents": ["an intent"] * len(bundles)})


class ScriptedTeacher:
    """Answers in this process and notes what it was asked.

    Args:
        answer: messages → text.
    """

    name, sampling = "scripted", "none"

    def __init__(self, answer: Callable[[list[dict[str, str]]], str] = toy_answer) -> None:
        self.answer, self.asked = answer, []

    def ask(self, conversations, *, max_tokens, progress=True):
        self.asked += conversations
        return [self.answer(messages) for messages in conversations]

    def known(self, messages, max_tokens):
        return None


class Server(http.server.ThreadingHTTPServer):
    """An OpenAI-compatible server on loopback.

    `script` holds what it does to the next calls, one entry each: a dictionary with `status`, `headers` and `body`, or
    a function that is given the handler. After that it answers with `answer`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script: list = []
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[list[dict[str, str]]], str] = toy_answer
        self.model: dict[str, str] = {"model": "scripted-1"}
        """What replies say of the model."""
        self.listed: list[dict] | None = None
        """What /v1/models lists; `None` is a server without it."""
        self.lock = threading.Lock()
        self.released = threading.Event()
        """Hanging calls end when this is set."""


@contextmanager
def running() -> Iterator[Server]:
    """A server that answers, until the block ends."""
    with Server() as server:
        server.answer = lambda messages: f"answer to {messages[-1]['content']}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        server: Server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["messages"] == [{"role": "user", "content": "Hello"}]:  # who is there? That is no question
            self.reply(body=completion("Hello", **server.model))
            return
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers.get("Authorization"))
            step = server.script.pop(0) if server.script else None
        if callable(step):
            step = step(self)
        if step is None:
            step = {"body": completion(server.answer(request["messages"]), **server.model)}
        self.reply(**step)

    def do_GET(self):
        listed = self.server.listed
        found = listed is not None and self.path.partition("?")[0] == "/v1/models"
        self.reply(**({"body": json.dumps({"object": "list", "data": listed})} if found else {"status": 404}))

    def reply(self, status: int = 200, headers: dict[str, str] | None = None, body: str = "", cut: int | None = None):
        content = body.encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])
        except ConnectionError:
            pass  # the caller has given up

    def log_message(self, *args):
        pass


def completion(content: object, usage: dict[str, int] | None = None, finish: str = "stop", **more: object) -> str:
    """A chat completion as servers send it; what is given beside it stands in the message, but for the model's name."""
    own = {name: more.pop(name) for name in ("model", "system_fingerprint") if name in more}
    message = {"role": "assistant", "content": content, **more}
    return json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "model": "scripted-1",
            **own,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage or {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
    )
