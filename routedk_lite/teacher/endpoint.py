"""The teacher behind an OpenAI-compatible endpoint.

It answers conversations; what it is asked, and what becomes of its answers, is up to `teaching` and `distillation`.
Every answer is on disk before the next question is put: an interrupted run goes on where it stopped, and nothing is
paid for twice. Knowledge that was recorded before needs no teacher: `knowledge.load_knowledge`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any

from ..checked import COUNT, Limits, check_number
from ..files import sha256_json
from .arguments import check_extra, check_variable
from .calls import CallCache, answer_of, plain
from .connection import LONG, read_address
from .replies import Reply, refused_text
from .sending import Sender, TryAgainError
from .teachers import Messages, NoAnswer, TeacherError, Usage
from .watching import Watch

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause is left alone: the run ends with an error and can be continued."""
ROUNDS = 3
"""How often questions are put again because another model answers by now."""


def cost(prompt_tokens: int, answer_tokens: int, price_in: float, price_out: float) -> float:
    """Price of so many tokens; prices are per million tokens.

    Raises:
        ValueError: a price that is below 0 or not finite.
    """
    for name, price in (("price_in", price_in), ("price_out", price_out)):
        check_number(name, price)
    return (prompt_tokens * price_in + answer_tokens * price_out) / 1e6


class ChatTeacher:
    """A model behind an OpenAI-compatible endpoint, asked at temperature 0, several calls at a time.

    Calls that meet 408, 409, 429 or 5xx, a timeout, a lost connection or a reply that is no chat completion are made
    again after a pause that doubles, or for as long as the server says. When one call fails for good, no further one
    is started; those under way are waited for and kept. A field that the server refuses, such as the temperature, is
    left out, and the older name of the limit of tokens gives way to the newer one; `sampling` says so.

    What a server says of the model behind it is kept with every answer. An answer on disk counts only if the same
    model is served now, as far as the server says: it is asked for its list of models. Where answers cost nothing, the
    replies' own words count too, and what another model answered is asked again.

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
        extra: more fields of the request. `None` takes a field out. A higher limit of tokens, for models that think
            before they answer: `{"max_tokens": 4000}`.

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
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model = {model!r}: must be the model's name at the endpoint")
        for name, value in (("concurrency", concurrency), ("attempts", attempts)):
            check_number(name, value, COUNT)
        check_number("first_wait", first_wait)
        check_number("timeout", timeout, Limits(above=True))
        check_variable(key_variable)
        self.model, self.key_variable, self.extra = model, key_variable, check_extra(extra or {})
        self.address = read_address(base_url)
        self.base_url = self.endpoint = self.address.endpoint
        self.cache, self.concurrency, self.attempts = CallCache(folder), concurrency, attempts
        self.first_wait, self.timeout = first_wait, timeout
        self.name = f"{model} at {self.endpoint}"
        self.usage = Usage()
        self.served: Counter[str] = Counter()
        """How many of the answers that were given out came from which model, in words."""
        self._sender = Sender(model, self.address, key_variable, timeout=timeout)
        self._refused: set[str] = set()
        self._watch = Watch(self._sender, strict=self.is_local)
        self._lock = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine, where answers cost nothing."""
        return self.address.is_local

    @property
    def sampling(self) -> str:
        """How the answers that were given out were drawn."""
        temperature = "" if "temperature" in {*self._refused, *self.extra} else "temperature 0"
        extra = json.dumps(self.extra) if self.extra else ""
        return ", ".join(filter(None, (temperature, extra, refused_text(self._refused))))

    def known(self, messages: Messages, max_tokens: int) -> str | None:
        """The answer that is on disk already, if there is one, and from the model that is served now."""
        record = self._stored(self._request(messages, max_tokens))
        return answer_of(record) if record else None

    def reject(self, messages: Messages, max_tokens: int, answer: str, why: str) -> None:
        """Keep an answer that could not be used, and ask for another one next time."""
        self.cache.reject(self._request(messages, max_tokens), answer, why)

    def ask(self, conversations: Sequence[Messages], *, max_tokens: int, progress: bool = True) -> list[str]:
        """One answer to each conversation, in order; only what is not on disk is asked for.

        Args:
            conversations: what to answer.
            max_tokens: longest answer.
            progress: show a progress bar with the number of tokens so far.

        Returns:
            The answers; a `CutOff` where one was longer, a `NoAnswer` where the server gave none. It says why, and the
            question is put again next time.

        Raises:
            TeacherError: no key, or a call failed for good; the message says what to do. What was answered is kept.
            ValueError: `max_tokens` below 1.
            RuntimeError: the package openai is not installed.
        """
        from tqdm.auto import tqdm

        check_number("max_tokens", max_tokens, COUNT)
        order = [self._request(messages, max_tokens) for messages in conversations]
        requests = {sha256_json(request): request for request in order}
        self._watch.look(probe=any(self.cache.usable(request) for request in requests.values()))
        bar = tqdm(total=len(order), unit="call", disable=not progress, desc=self.model.rpartition("/")[2])
        asked, empty = set(), {}
        with bar:
            for number in range(ROUNDS + 1):
                found = {key: self._stored(request) for key, request in requests.items()}
                new = {key: requests[key] for key, record in found.items() if record is None and key not in empty}
                if number == 0:
                    bar.update(len(order) - len(new))
                if not new:
                    break
                if number == ROUNDS:
                    raise TeacherError(f"{self.name}: another model answers each time. {self._kept(requests)}")
                self._note_others(new)
                empty |= self._ask_all(new, requests, bar)
                asked |= new.keys()
        self.usage.from_disk += len(order) - len(asked)
        self._count(record for record in found.values() if record)
        return [empty[key] if found[key] is None else answer_of(found[key]) for key in map(sha256_json, order)]

    def _ask_all(self, new: Mapping[str, Any], requests: Mapping[str, Any], bar: Any) -> dict[str, NoAnswer]:
        """Get the answers to new requests onto the disk; returns those that are none."""
        _ = self._sender.client  # a missing key or package is an error here, not in every thread
        self.cache.check_writable()
        answers, stop = {}, threading.Event()
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = {pool.submit(self._work, request, stop): key for key, request in new.items()}
            try:
                for future in as_completed(futures):
                    answers[futures[future]] = future.result()
                    bar.update()
                    bar.set_postfix(tokens=self.usage.prompt_tokens + self.usage.answer_tokens)
            except BaseException as error:
                # Calls under way are as good as paid for: start no other, but wait for these and keep them.
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, TeacherError):
                    raise TeacherError(f"{error} {self._kept(requests)}") from error
                raise
        if self._watch.has_changed():
            for key, answer in answers.items():
                self.cache.reject(new[key], answer, "the server changed its model meanwhile")
        return {key: answer for key, answer in answers.items() if isinstance(answer, NoAnswer)}

    def _kept(self, requests: Mapping[str, Any]) -> str:
        kept = sum(self.cache.get(request) is not None for request in requests.values())
        return (
            f"{kept} of {len(requests)} answers are kept in {self.cache.folder}: run it again to ask for the rest only."
        )

    def _stored(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was stored with the last answer to a request that counts now."""
        good = self._watch.current(self.cache.usable(request))
        return good[-1] if good else None

    def _note_others(self, new: Mapping[str, Any]) -> None:
        """Say which answers on disk do not count."""
        found = [self.cache.usable(request) for request in new.values()]
        if others := [self._watch.described(records[-1]) for records in found if records]:
            self.usage.note(
                f"{len(others)} answers on disk are from {' and '.join(sorted(set(others)))}, and {self.endpoint} "
                f"serves {self._watch.described(self._watch.now)} now: they are kept, and the questions put again."
            )

    def _count(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take down whose the answers are that are given out, and how they came about."""
        for record in records:
            self.served[self._watch.described(record)] += 1
            self._refused |= set(record.get("refused", ()))
        if refused := refused_text(self._refused):
            self.usage.note(f"{self.name} refuses fields of the request, and got: {refused}.")
        if len(self.served) > 1:
            self.usage.note(f"As {self.name}, more than one model answered: {'; '.join(sorted(self.served))}.")

    # --- one call ---

    def _request(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        """All that decides an answer."""
        fields = {"temperature": 0, "max_tokens": max_tokens, **self.extra}
        fields = {name: value for name, value in fields.items() if value is not None}
        turns = [{**turn, "content": plain(turn["content"])} for turn in messages]
        return {"endpoint": self.endpoint, "model": self.model, "messages": turns, **fields}

    def _work(self, request: Mapping[str, Any], stop: threading.Event) -> str:
        """One call, unless another has failed for good."""
        if stop.is_set():
            return NoAnswer("another call has failed")
        try:
            return self._call(request, stop)
        except BaseException:
            stop.set()
            raise

    def _call(self, request: Mapping[str, Any], stop: threading.Event) -> str:
        """Get one answer onto the disk, in as many tries as it may take."""
        wait = self.first_wait
        fields = {name: value for name, value in request.items() if name not in ("endpoint", "model", "messages")}
        for attempt in count(1):
            try:
                return self._store(request, *self._sender.send(request["messages"], fields))
            except TryAgainError as failure:
                pause = max(wait * random.uniform(0.5, 1.0), _retry_after(failure.headers))
                final = attempt == self.attempts or pause > LONGEST_WAIT
                if not final:
                    _pause(stop, pause)
                if final or stop.is_set():
                    advice = "Try again later, with fewer calls at a time, or with a longer timeout."
                    if pause > LONGEST_WAIT:
                        advice = f"The server asks for a pause of {pause:.0f} s: try again then."
                    raise self._sender.error(f"{failure} (tries: {attempt})", advice) from failure
            wait *= 2
            with self._lock:
                self.usage.retries += 1

    def _store(self, request: Mapping[str, Any], reply: Reply, refused: Sequence[str]) -> str:
        secrets = self._sender.secrets
        served = self._watch.heard(secrets.hide_all(reply.served))
        answer = secrets.hide(reply.answer, shortest=LONG)
        more = {"finish": reply.finish, "usage": reply.used, "refused": refused}
        if isinstance(reply.answer, NoAnswer):
            answer = NoAnswer(secrets.hide(reply.answer.why))
            more |= {"why": answer.why, "message": secrets.hide(reply.message, shortest=LONG)}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.cache.put(request, answer, **served, **more, when=when)
        with self._lock:
            self.usage.calls += 1
            self.usage.prompt_tokens += reply.used.get("prompt_tokens", 0)
            self.usage.answer_tokens += reply.used.get("completion_tokens", 0)
            self.usage.unmetered += not reply.used
        return answer


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 where there is none that can be read."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _pause(stop: threading.Event, seconds: float) -> None:
    """Wait, but not when everything is about to stop."""
    stop.wait(seconds)
