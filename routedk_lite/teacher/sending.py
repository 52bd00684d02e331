"""One request to an endpoint: sent in a form that the server takes, its failures told apart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from .connection import Address, Secrets, open_client, proxy_variable
from .replies import Reply, UnreadableReplyError, read_reply, refused_field, without_refused
from .served import Served, read_models
from .teachers import TeacherError

if TYPE_CHECKING:
    import openai

LOOK_TIMEOUT = 10.0
"""Seconds that a server has to say which model it serves, before it is believed to say nothing."""
_PASSING = (408, 409, 429)
_ADVICE = {
    400: "The server refuses the request: see `extra` for fields that it does not know.",
    401: "Check the key.",
    403: "The key may not use this model.",
    404: "Check the model's name, and that the address ends with its version, such as /v1.",
    407: "The proxy wants a user name and a password: put them into its environment variable.",
    429: "The account has no credit left.",
}


class TryAgainError(Exception):
    """A failure that may pass; `headers` are those of the reply, if there was one."""

    def __init__(self, said: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(said)
        self.headers = headers or {}


class _StatusError(Exception):
    """A reply with a status that is no success; `said` is its body."""

    def __init__(self, status: int, said: str, code: str | None, headers: Mapping[str, str]) -> None:
        super().__init__(status)
        self.status, self.said, self.code, self.headers = status, said, code, headers


class Sender:
    """Sends requests to one model at one endpoint.

    No error that leaves it has another one as its cause: what libraries and servers say may hold the key.

    Args:
        model: the model's name at the endpoint.
        address: the endpoint.
        key_variable: environment variable that holds the key.
        timeout: seconds without a byte from the server before a try is given up.
    """

    def __init__(self, model: str, address: Address, key_variable: str, *, timeout: float) -> None:
        self.model, self.address, self.key_variable, self.timeout = model, address, key_variable, timeout
        self.secrets = Secrets()
        self.refused: set[str] = set()
        """Fields that the server does not take; later requests do without them from the start."""
        self._lock = threading.Lock()

    @cached_property
    def client(self) -> openai.OpenAI:
        """The connection; made when it is first needed, so that estimates need neither key nor package.

        Raises:
            TeacherError, RuntimeError: as `connection.open_client`.
        """
        return open_client(self.address, self.key_variable, self.secrets, timeout=self.timeout)

    def look(self) -> Served | None:
        """What the server's list of models says of this one, nothing if it has none; `None` where nobody answers."""
        try:
            import openai
        except ImportError:
            return None
        try:
            reply = self.client.models.with_raw_response.list(timeout=min(self.timeout, LOOK_TIMEOUT))
            return self.secrets.hide_all(read_models(reply.http_response.text, self.model))
        except openai.APIStatusError:
            return {}
        except Exception:  # whatever it is, it stops nobody: if it matters, the first question meets it again
            return None

    def send(self, messages: list[dict[str, str]], fields: Mapping[str, Any]) -> tuple[Reply, list[str]]:
        """Ask once, and again without a field that the server refuses, as long as it refuses another one.

        Args:
            messages: the conversation.
            fields: what else the request holds.

        Returns:
            The reply, and the fields that the server refused.

        Raises:
            TryAgainError: a failure that may pass.
            TeacherError: one that will not; the message says what to do.
        """
        while True:
            with self._lock:
                refused = self.refused & fields.keys()
            form = without_refused(fields, refused)
            try:
                return self._post(messages, form), sorted(refused)
            except _StatusError as error:
                failure = error
            field = refused_field(failure.said, form) if failure.status in (400, 422) else None
            if field not in fields:  # none, or the other name of a limit, when this one has been refused before
                self._fail(failure)
            with self._lock:
                self.refused.add(field)

    def error(self, said: str, advice: str) -> TeacherError:
        """An error that names model and endpoint."""
        return TeacherError(f"{self.model} at {self.address.endpoint} failed: {said}. {advice}")

    def _post(self, messages: list[dict[str, str]], form: Mapping[str, Any]) -> Reply:
        result = self._exchange(messages, form)
        if isinstance(result, Exception):
            raise result
        return result

    def _exchange(self, messages: list[dict[str, str]], form: Mapping[str, Any]) -> Reply | Exception:
        """The reply, or what is wrong. Nothing is raised here: this frame holds what libraries and servers say."""
        import openai

        try:
            text = self.client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, extra_body=form
            ).http_response.text
            return read_reply(text)
        except TeacherError as error:  # of ours, about the client
            return error
        except openai.APIStatusError as error:
            reply = error.response
            return _StatusError(error.status_code, reply.text, error.code, reply.headers)
        except openai.APIConnectionError as error:  # a timeout is one of these
            return self._connection_failure(f"{error} {error.__cause__ or ''}")
        except UnreadableReplyError:
            return TryAgainError(f"the reply is no chat completion: {self._shown(text)!r}")
        except Exception as error:  # of a library; nothing is known of it but that this request cannot be sent
            return self.error(f"{type(error).__name__}: {self._shown(str(error))}", "Check base_url and `extra`.")

    def _connection_failure(self, said: str) -> Exception:
        through = proxy_variable(self.address)
        said = self._shown(said) + (f" (through the proxy that {through} names)" if through else "")
        if "CERTIFICATE_VERIFY_FAILED" not in said:
            return TryAgainError(said)
        return self.error(said, "Name the file of the certificates that your network goes by in SSL_CERT_FILE.")

    def _fail(self, failure: _StatusError) -> NoReturn:
        said = f"{failure.status}: {self._shown(failure.said)}"
        # An account without credit is reported like a rate limit, but waiting does not help.
        passing = failure.status in _PASSING or failure.status >= 500
        if passing and failure.code != "insufficient_quota":
            raise TryAgainError(said, failure.headers)
        raise self.error(said, _ADVICE.get(failure.status, "Check the model and `extra`."))

    def _shown(self, reply: str) -> str:
        """The beginning of a reply, for messages. Some servers repeat the key: it is taken out."""
        return self.secrets.hide(reply).strip()[:200]
