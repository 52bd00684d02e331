"""Whether a file holds what a dataclass of ours says: the fields, their types, and numbers that are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..checked import is_finite, is_whole
from ..files import UnreadableError, read_json

T = TypeVar("T")
_WORDS = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}


def read_as(kind: type[T], path: Path, what: str, *, remedy: str) -> T:
    """An object of a dataclass from a JSON file that holds its fields; `path` is a field that the file does not hold.

    Args:
        kind: the dataclass.
        path: the file.
        what: is expected there, in words.
        remedy: what to do if it is not so.

    Raises:
        UnreadableError: no JSON object, or a field is missing, unknown, or of another type; numbers must be finite.
    """
    content = read_json(path, what, remedy=remedy)
    hints, expected = get_type_hints(kind), {f.name: f for f in fields(kind) if f.name != "path"}
    wrong = [f"{name} is missing" for name, f in expected.items() if name not in content and _required(f)]
    wrong += [f"{name} is no field of it" for name in content if name not in expected]
    wrong += [why for name in content if name in expected and (why := mismatch(content[name], hints[name], name))]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UnreadableError(f"{path}: not {what}: {wrong[0]}{more}; {remedy}")
    return kind(**content, path=path)


def mismatch(value: Any, hint: Any, name: str) -> str | None:
    """What is wrong with a value from JSON beside its type hint, in words; `None` if nothing is.

    >>> mismatch({"f1": "high"}, Mapping[str, float], "metrics")
    "metrics.f1 is 'high', expected a finite number"
    >>> mismatch(10**400, float, "seconds").endswith("expected a finite number")
    True
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return None
    if origin is Mapping:
        if not isinstance(value, dict):
            return f"{name} is {value!r:.60}, expected an object"
        return next((why for key, one in value.items() if (why := mismatch(one, inner[1], f"{name}.{key}"))), None)
    if origin is Sequence:
        if not isinstance(value, list):
            return f"{name} is {value!r:.60}, expected a list"
        return next((why for k, one in enumerate(value) if (why := mismatch(one, inner[0], f"{name}[{k}]"))), None)
    kinds = inner if origin is UnionType else (hint,)
    if any(_fits(value, kind) for kind in kinds):
        return None
    return f"{name} is {value!r:.60}, expected {' or '.join(map(_word, kinds))}"


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return is_finite(value)
    if kind is int:
        return is_whole(value)
    if get_origin(kind) is not None:
        return mismatch(value, kind, "") is None
    return isinstance(value, kind)


def _word(kind: Any) -> str:
    return _WORDS.get(kind, "an object")


def _required(f: Any) -> bool:
    return f.default is MISSING and f.default_factory is MISSING
