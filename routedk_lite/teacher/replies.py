"""What a server replies: the answer in it, why there is none, who gave it, and which field it will not take."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from .calls import is_answer
from .teachers import CUT_OFF, NoAnswer

# --- chat completions ---------------------------------------------------------------------------------------------


class UnreadableReplyError(ValueError):
    """A reply that is no chat completion, or no JSON at all."""


class Reply(NamedTuple):
    """A chat completion."""

    answer: str
    """The text, thoughts and all; a `NoAnswer` where there is none."""
    finish: str | None
    """Why the server stopped."""
    served: dict[str, Any]
    """Which model it says it was: `model` and `fingerprint`, as far as it says."""
    used: dict[str, int]
    """`prompt_tokens` and `completion_tokens`, as far as the server counted them."""
    message: str
    """All of the message, as JSON: thoughts, or a refusal, where there is no answer."""


def read_reply(text: str) -> Reply:
    """Read a chat completion: content may be a text, or a list of parts.

    Args:
        text: the body of the reply.

    Raises:
        UnreadableReplyError: it is none.
    """
    body = _json(text)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise UnreadableReplyError("it has no choice with a message")
    finish = _text(choice, "finish_reason") or None
    answer = "".join(_texts(message.get("content")))
    if not is_answer(answer):
        answer = NoAnswer(_why(message, finish, thought=bool(answer.strip())))
    served = {"model": _text(body, "model"), "fingerprint": _text(body, "system_fingerprint")}
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    used = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    return Reply(
        answer,
        finish,
        {name: value for name, value in served.items() if value},
        {name: count for name, count in used.items() if type(count) is int and count >= 0},
        _flat(message),
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableReplyError("it is no JSON, or nested too deeply") from error


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value.strip() if isinstance(value, str) else ""


def _texts(content: Any) -> Iterator[str]:
    """The pieces of text in a content; parts of other types, such as thoughts, are no answer."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            part = part.get("text")
        if isinstance(part, str):
            yield part


def _why(message: Mapping[str, Any], finish: str | None, *, thought: bool) -> str:
    """Why a message holds no answer."""
    parts = message.get("content") if isinstance(message.get("content"), list) else []
    refusals = [_text(part, "refusal") for part in (message, *parts) if isinstance(part, dict)]
    if finish == "content_filter":
        return "the server's filter held the answer back (finish reason content_filter)"
    if refusal := " ".join(filter(None, refusals)):
        return f"the model refuses to answer: {refusal[:100]!r}"
    if finish in CUT_OFF:
        return f"it was cut off before the answer began (finish reason {finish}): allow more tokens, see `extra`"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model calls a tool instead of answering"
    thoughts = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    if thought or any(thoughts) or any(isinstance(part, dict) for part in parts):
        return "the model has only thought, and said nothing"
    return "the answer is empty"


# --- refused fields -----------------------------------------------------------------------------------------------

DROPPED = ("temperature", "seed")
"""Fields that some models refuse; without them the server uses its own."""
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Two names of one limit. Every server takes one of them, some take both."""

_REFUSED = re.compile(
    r"unsupported|not supported|n[o']t support|unrecogni[sz]ed|unknown|unexpected|not (?:permitted|allowed|accepted)"
    r"|deprecated|invalid (?:parameter|argument|field)|only the default",
    re.IGNORECASE,
)


def refused_field(said: str, fields: Collection[str]) -> str | None:
    """The field that a server has refused, if it is one that the request can do without.

    Args:
        said: the body of the reply, with status 400 or 422. A text that is no JSON must quote the field.
        fields: names of the request's fields.
    """
    names = [name for name in (*DROPPED, *RENAMED) if name in fields]
    try:
        body = _json(said)
    except UnreadableReplyError:
        body = None
    if not isinstance(body, dict | list):
        found = [name for name in names if re.search(rf"['\"`]{name}['\"`]", said)]
        return found[0] if found and _REFUSED.search(said) else None
    error = body.get("error", body) if isinstance(body, dict) else body
    flat = said if error is body else _flat(error)
    if isinstance(error, dict) and error.get("param") in names and _REFUSED.search(flat):
        return error["param"]
    # The other name of a limit is named as well, as what to use instead: the first one is refused.
    places = sorted((found.start(), name) for name in names if (found := re.search(rf"\b{name}\b", flat)))
    return places[0][1] if places and _REFUSED.search(flat) else None


def _flat(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError as error:
        raise UnreadableReplyError("it is nested too deeply") from error


def without_refused(fields: Mapping[str, Any], refused: Collection[str]) -> dict[str, Any]:
    """The fields of a request in a form that the server takes."""
    renamed = {RENAMED.get(name) if name in refused else name: value for name, value in fields.items()}
    return {name: value for name, value in renamed.items() if name is not None}


def refused_text(refused: Collection[str]) -> str:
    """What was done about refused fields, in words; empty if there are none.

    >>> refused_text(["temperature", "max_tokens"])
    "the server's own temperature, which takes no other; max_completion_tokens in place of max_tokens"
    """
    said = [f"the server's own {name}, which takes no other" for name in DROPPED if name in refused]
    return "; ".join(said + [f"{RENAMED[name]} in place of {name}" for name in RENAMED if name in refused])
