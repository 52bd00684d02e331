"""Settings that check themselves: a wrong type or value is refused by its field, wherever the value came from."""

from __future__ import annotations

import math
import numbers
import re
import sys
import types
from dataclasses import field
from functools import cache
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

SHOWN = 100
"""Characters of a refused value."""
LARGEST = 2**63 - 1
"""Integer that a field may hold, so that whoever reads the setting can."""
_LONE = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no file can hold."""


class Checked:
    """A frozen dataclass whose fields have the types that they are declared with. JSON's lists become tuples.

    Subclasses that have rules beside the types call `super().__post_init__()` first.
    """

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, list) and any(get_origin(one) is tuple for one in _choices(kind)):
                value = tuple(value)
                object.__setattr__(self, name, value)
            require(_fits(value, kind), self, name, _in_words(kind))


def later(default: Any) -> Any:
    """A field that came after the first records, which keep their digests: see `config.settings`."""
    return field(default=default, metadata={"later": True})


def require(ok: bool, owner: object, name: str, rule: str) -> None:
    """Refuse a field's value.

    Args:
        ok: whether it is right.
        owner: whose field it is.
        name: of the field.
        rule: what it must be.

    Raises:
        ValueError: it is not right; the message names field, value and rule.
    """
    if not ok:
        raise ValueError(f"{type(owner).__name__}.{name} = {_shown(getattr(owner, name))}: must be {rule}")


def require_count(owner: object, name: str) -> None:
    """Refuse a field's value unless it is an integer from 1 up; of the types, `Checked` takes care."""
    require(getattr(owner, name) >= 1, owner, name, "an integer ≥ 1")


class Limits(NamedTuple):
    """Which numbers are allowed, for arguments and options."""

    low: float = 0
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is too low."""
    whole: bool = False

    def allow(self, value: Any) -> bool:
        """Whether it is such a number; `True` and `False` are none, nor is what is not finite."""
        good = isinstance(value, numbers.Integral if self.whole else numbers.Real) and not isinstance(value, bool)
        good = good and (isinstance(value, numbers.Integral) or math.isfinite(value))
        return good and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        if self.above:
            return f"{kind} above {self.low}"
        return f"{kind}, {self.low} or more" if math.isinf(self.high) else f"{kind} from {self.low} to {self.high}"


COUNT = Limits(1, whole=True)
"""Of what there is at least one."""
_ANY = Limits()


def check_number(name: str, value: Any, limits: Limits = _ANY) -> None:
    """Refuse what is no number, or out of its limits.

    Args:
        name: what it is, for the message.
        value: what was given.
        limits: what is allowed.

    Raises:
        ValueError: naming both.
    """
    if not limits.allow(value):
        raise ValueError(f"{name} = {value!r}: must be {limits}")


def is_whole(value: Any) -> bool:
    """Whether it is an integer; `True` and `False` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold: no NaN, no infinity, no integer of hundreds of digits."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of many thousand digits
        text = "a very large number"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@cache
def _kinds(owner: type) -> dict[str, Any]:
    return get_type_hints(owner)


def _choices(kind: Any) -> tuple[Any, ...]:
    """The types that a declaration allows."""
    return get_args(kind) if isinstance(kind, types.UnionType) or get_origin(kind) is Union else (kind,)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(kind)[0]) for one in value)
    if kind is float:
        return is_finite(value)
    if kind is int:
        return is_whole(value) and abs(value) <= LARGEST
    if kind is str:
        return isinstance(value, str) and not _LONE.search(value)
    if len(_choices(kind)) > 1:
        return any(_fits(value, one) for one in _choices(kind))
    return isinstance(value, kind)


_WORDS = {int: "an integer", float: "a finite number", str: "a text", bool: "true or false", type(None): "None"}


def _in_words(kind: Any) -> str:
    words = []
    for one in _choices(kind):
        each = f"a list, each {_in_words(get_args(one)[0])}" if get_origin(one) is tuple else ""
        words.append(each or _WORDS.get(one, f"a {getattr(one, '__name__', one)}"))
    return " or ".join(words)
