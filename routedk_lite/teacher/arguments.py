"""What a teacher is told must be fit to be sent and recorded: numbers in range, names of variables, no secrets."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(r"api[_-]?key|secret|password|authorization|bearer|access[_-]?token", re.IGNORECASE)
"""What the names of fields that hold a key have in them."""
_LIMIT = {"low": 1, "whole": True}
_RANGES = {"temperature": {}, "max_tokens": _LIMIT, "max_completion_tokens": _LIMIT, "seed": {"whole": True}}


def check_number(name: str, value: float, *, low: int = 0, above: bool = False, whole: bool = False) -> None:
    """Refuse what is no number, or too low.

    Args:
        name: what it is, for the message.
        value: what was given.
        low: lowest number.
        above: whether `low` itself is too low.
        whole: whether it must be an integer.

    Raises:
        ValueError: naming both.
    """
    kinds = numbers.Integral if whole else numbers.Real
    good = isinstance(value, kinds) and not isinstance(value, bool)
    good = good and (isinstance(value, numbers.Integral) or math.isfinite(value)) and value >= low
    if not good or (above and value == low):
        least = f"above {low}" if above else f"{low} or more"
        raise ValueError(f"{name} = {value!r}: must be {least}{', a whole number' if whole else ', and finite'}")


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
    for name, limits in _RANGES.items():
        if fields.get(name) is not None:
            check_number(f"extra's {name}", fields[name], **limits)
    return fields
