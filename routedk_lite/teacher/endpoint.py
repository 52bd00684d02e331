"""What a teacher is, and the teacher behind an OpenAI-compatible endpoint.

A teacher answers conversations; what it is asked, and what becomes of its answers, is up to `teaching` and
`distillation`. Every answer is on disk before the next question is put: an interrupted run goes on where it stopped,
and nothing is paid for twice. Knowledge that was recorded before needs no teacher: `knowledge.load_knowledge`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..files import cache_dir, sha256_json, write_json

if TYPE_CHECKING:
    import openai

Messages = list[dict[str, str]]
"""A conversation: turns with a role (`system`, `user` or `assistant`) and a content."""

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause is left alone: the run ends with an error and can be continued."""


class TeacherError(RuntimeError):
    """A teacher could not be asked, or its answers cannot be used."""


class Teacher(Protocol):
    """Whoever answers conversations."""

    name: str
    """Which model this is, and where."""
    sampling: str
    """How answers are drawn."""

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, of at most `max_tokens` tokens, in order."""

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """The answer that is on disk already, if there is one."""


@dataclass
class Usage:
    """What has been asked of a teacher since it was made."""

    calls: int = 0
    """Answers that arrived."""
    from_disk: int = 0
    """Answers that were there before."""
    retries: int = 0
    """Calls that failed and were made again."""
    prompt_tokens: int = 0
    """As the server counted them."""
    answer_tokens: int = 0
    unmetered: int = 0
    """Answers that came without a count of tokens."""


def cost(prompt_tokens: int, answer_tokens: int, price_in: float, price_out: float) -> float:
    """Price of so many tokens; prices are per million tokens."""
    return (prompt_tokens * price_in + answer_tokens * price_out) / 1e6


class CallCache:
    """Answers on disk, one file a call, named by a hash of the request.

    Args:
        folder: where they lie; by default in the cache folder of the package.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else cache_dir("teacher")

    def get(self, request: Mapping[str, Any]) -> str | None:
        """The answer to a request, if it is there.

        Raises:
            TeacherError: the file is not one of ours.
        """
        path = self._path(request)
        try:
            answer = json.loads(path.read_text(encoding="utf-8"))["answer"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TeacherError(f"{path}: not a stored answer ({type(error).__name__}: {error}); delete it") from error
        return answer

    def put(self, request: Mapping[str, Any], answer: str, **more: Any) -> None:
        """Store an answer, whole or not at all, beside the request and whatever else is worth keeping."""
        write_json(self._path(request), {"request": request, "answer": answer, **more})

    def _path(self, request: Mapping[str, Any]) -> Path:
        key = sha256_json(request)
        return self.folder / key[:2] / f"{key}.json"


class ChatTeacher:
    """A model behind an OpenAI-compatible endpoint, asked at temperature 0, several calls at a time.

    Calls that meet 408, 409, 429 or 5xx, a timeout, a lost connection or a reply that is no chat completion are made
    again after a pause that doubles, or for as long as the server says. When one call fails for good, no further one
    is started; those under way are waited for and kept.

    Args:
        model: the model's name at the endpoint.
        base_url: the endpoint, up to and including its version, such as `https://api.openai.com/v1`.
        key_variable: environment variable that holds the key. It is sent to the endpoint and goes nowhere else. An
            endpoint on this machine needs none.
        folder: where answers are kept, see `CallCache`.
        concurrency: calls under way at the same time.
        attempts: tries per call.
        first_wait: seconds before the second try; doubled each time, and shortened by up to half at random so that
            calls that failed together do not come back together.
        timeout: seconds without a byte from the server before a try is given up.
        extra: more fields of the request. `None` takes a field out: models that refuse `max_tokens` want
            `{"max_tokens": None, "max_completion_tokens": 2000}`.

    Raises:
        ValueError: an argument that cannot be meant; the message names it.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        key_variable: str = "OPENAI_API_KEY",
        folder: str | Path | None = None,
        concurrency: int = 4,
        attempts: int = 6,
        first_wait: float = 1.0,
        timeout: float = 120.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        address = urlsplit(base_url)
        extra = dict(extra or {})
        for name, value, ok, rule in (
            ("model", model, bool(model), "the model's name at the endpoint"),
            ("base_url", base_url, address.scheme in ("http", "https") and address.hostname, "an http(s) address"),
            ("concurrency", concurrency, concurrency >= 1, "1 or more"),
            ("attempts", attempts, attempts >= 1, "1 or more"),
            ("first_wait", first_wait, first_wait >= 0, "0 or more seconds"),
            ("timeout", timeout, timeout > 0, "above 0 seconds"),
            ("extra", extra, not extra.keys() & {"model", "messages", "stream"}, "without model, messages and stream"),
        ):
            if not ok:
                raise ValueError(f"{name} = {value!r}: must be {rule}")
        self.model, self.base_url, self.key_variable = model, base_url, key_variable
        self.cache, self.concurrency, self.attempts = CallCache(folder), concurrency, attempts
        self.first_wait, self.timeout, self.extra = first_wait, timeout, extra
        # Without user name, password and query: this is what is shown and stored.
        self.endpoint = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
        self.name = f"{model} at {self.endpoint}"
        self.sampling = f"temperature 0{f', {json.dumps(extra)}' if extra else ''}"
        self.usage = Usage()

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine, where answers cost nothing."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """The answer that is on disk already, if there is one."""
        return self.cache.get(self._request(messages, max_tokens))

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, in order; only what is not on disk is asked for.

        Args:
            conversations: what to answer.
            max_tokens: longest answer.
            progress: show a progress bar with the number of tokens so far.

        Raises:
            TeacherError: no key, or a call failed for good; the message says what to do. What was answered is kept.
            RuntimeError: the package openai is not installed.
        """
        from tqdm.auto import tqdm

        requests = [self._request(messages, max_tokens) for messages in conversations]
        new = {sha256_json(r): r for r in requests if self.cache.get(r) is None}
        self.usage.from_disk += len(requests) - len(new)
        if new:
            _ = self.client  # a missing key or package is an error here, not in every thread
        bar = tqdm(total=len(requests), initial=len(requests) - len(new), unit="call", disable=not progress)
        bar.set_description(self.model.rpartition("/")[2])
        stop = threading.Event()
        with bar, ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._work, request, stop) for request in new.values()]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
                    bar.set_postfix(tokens=self.usage.prompt_tokens + self.usage.answer_tokens)
            except BaseException as error:
                # Calls under way are as good as paid for: start no other, but wait for these and keep them.
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, TeacherError):
                    kept = sum(self.cache.get(request) is not None for request in requests)
                    raise TeacherError(
                        f"{error} {kept} of {len(requests)} answers are kept in {self.cache.folder}: "
                        "run it again to ask for the rest only."
                    ) from error
                raise
        return [self.cache.get(request) for request in requests]

    @cached_property
    def client(self) -> openai.OpenAI:
        """The connection; made when it is first needed, so that estimates need neither key nor package."""
        try:
            import openai
        except ImportError as error:
            raise RuntimeError("asking an endpoint needs openai: pip install 'routedk-lite[teacher]'") from error
        key = self._key()
        if not key and not self.is_local:
            raise TeacherError(
                f"{self.key_variable} is not set: put the key for {self.endpoint} into this environment variable "
                "(any text will do for an endpoint that asks for none)"
            )
        # Trying again is up to `_call`, which also tries again when a reply is damaged.
        return openai.OpenAI(base_url=self.base_url, api_key=key or "none", timeout=self.timeout, max_retries=0)

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

    def _request(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        """All that decides an answer."""
        fields = {"temperature": 0, "max_tokens": max_tokens, **self.extra}
        fields = {name: value for name, value in fields.items() if value is not None}
        return {"endpoint": self.endpoint, "model": self.model, "messages": messages, **fields}

    def _work(self, request: Mapping[str, Any], stop: threading.Event) -> None:
        """One call, unless another has failed for good."""
        if stop.is_set():
            return
        try:
            self._call(request, stop)
        except BaseException:
            stop.set()
            raise

    def _call(self, request: Mapping[str, Any], stop: threading.Event) -> None:
        """Get one answer onto the disk, in as many tries as it may take."""
        wait = self.first_wait
        for attempt in range(1, self.attempts + 1):
            try:
                self._store(request, self._send(request))
                return
            except _TryAgainError as failure:
                pause = max(wait * random.uniform(0.5, 1.0), failure.after)
                final = attempt == self.attempts or pause > LONGEST_WAIT
                if not final:
                    _pause(stop, pause)
                if final or stop.is_set():
                    advice = "Try again later, with fewer calls at a time, or with a longer timeout."
                    if pause > LONGEST_WAIT:
                        advice = f"The server asks for a pause of {pause:.0f} s: try again then."
                    raise self._error(f"{failure} (tries: {attempt})", advice) from failure
            wait *= 2
            with _COUNTING:
                self.usage.retries += 1

    def _send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The chat completion that the server sends, as it stands in the reply.

        Raises:
            _TryAgainError: a failure that may pass.
            TeacherError: one that will not.
        """
        import openai

        fields = {name: value for name, value in request.items() if name != "endpoint"}
        extra = {name: fields.pop(name) for name in self.extra.keys() & fields.keys()}
        try:
            reply = self.client.chat.completions.with_raw_response.create(**fields, extra_body=extra).http_response
        except openai.APIStatusError as error:
            said = f"{error.status_code}: {self._shown(error.response.text)}"
            # An account without credit is reported like a rate limit, but waiting does not help.
            passing = error.status_code in (408, 409, 429) or error.status_code >= 500
            if passing and error.code != "insufficient_quota":
                raise _TryAgainError(said, _retry_after(error.response.headers)) from error
            raise self._error(said, _ADVICE.get(error.status_code, "Check the model and `extra`.")) from error
        except openai.APIConnectionError as error:  # a timeout is one of these
            raise _TryAgainError(f"{error} {error.__cause__ or ''}".strip()) from error
        try:
            body = json.loads(reply.text)
            content = body["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise _TryAgainError(f"the reply is no chat completion: {self._shown(reply.text)!r}") from error
        return {"answer": content if isinstance(content, str) else "", "body": body}

    def _store(self, request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        body = reply["body"]
        used = body.get("usage")
        used = used if isinstance(used, dict) else {}
        self.cache.put(
            request,
            reply["answer"],
            model=body.get("model"),
            finish=body["choices"][0].get("finish_reason"),
            usage=used,
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        with _COUNTING:
            self.usage.calls += 1
            self.usage.prompt_tokens += used.get("prompt_tokens") or 0
            self.usage.answer_tokens += used.get("completion_tokens") or 0
            self.usage.unmetered += not used

    def _shown(self, reply: str) -> str:
        """The beginning of a reply, for messages. Some servers repeat the key: it is taken out."""
        key = self._key()
        return (reply.replace(key, "…") if key else reply).strip()[:200]

    def _error(self, said: str, advice: str) -> TeacherError:
        """An error that names endpoint and model."""
        return TeacherError(f"{self.name} failed: {said}. {advice}")


_COUNTING = threading.Lock()

_ADVICE = {
    400: "The server refuses the request: see `extra` for fields that it does not know.",
    401: "Check the key.",
    403: "The key may not use this model.",
    404: "Check the model's name, and that the address ends with its version, such as /v1.",
    429: "The account has no credit left.",
}


class _TryAgainError(Exception):
    """A failure that may pass; `after` is how many seconds the server wants to be left alone."""

    def __init__(self, said: str, after: float = 0.0) -> None:
        super().__init__(said)
        self.after = after


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 where there is none that can be read."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _pause(stop: threading.Event, seconds: float) -> None:
    """Wait, but not when everything is about to stop."""
    stop.wait(seconds)
