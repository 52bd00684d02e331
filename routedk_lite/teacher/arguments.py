"""What a teacher is told must be fit to be sent and recorded: names of variables, numbers in range, no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..checked import COUNT, Limits, check_number

_SECRET = re.compile(r"api[_-]?key|secret|password|authorization|bearer|access[_-]?token", re.IGNORECASE)
"""What the names of fields that hold a key have in them."""
_LIMITS = {
    "temperature": Limits(),
    "max_tokens": COUNT,
    "max_completion_tokens": COUNT,
    "seed": Limits(whole=True),
}


def check_variable(name: str) -> None:
    """Refuse what cannot be the name of an environment variable: it may be the key itself, and is not shown.

    Raises:
        ValueError: it cannot.
    """
    is_name = isinstance(name, str) and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name)
    looks_secret = is_name and len(name) > 16 and re.search("[0-9]", name) and re.search("[a-z]", name)
    if not is_name or looks_secret:
        raise ValueError(
            "key_variable: must be the name of an environment variable, such as OPENAI_API_KEY, and not the key itself "
            "(what was given is not shown)"
        )


def check_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """More fields of a request, if they can be sent and are fit to be recorded.

    Raises:
        ValueError: a field that the teacher sets, that is out of range, that may hold a key, or that JSON cannot hold.
    """
    try:
        text = json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra: must be what JSON can hold ({type(error).__name__})") from error
    fields = json.loads(text)
    if secret := _SECRET.search(text):
        raise ValueError(f"extra holds {secret[0]!r}: it is recorded; put a key into the environment variable instead")
    if taken := [name for name in ("model", "messages", "stream") if name in fields]:
        raise ValueError(f"extra = {text}: must be without model, messages and stream, and holds {taken[0]}")
    for name, limits in _LIMITS.items():
        if fields.get(name) is not None:
            check_number(f"extra's {name}", fields[name], limits)
    return fields
