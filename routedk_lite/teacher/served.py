"""Which model a server really serves: some give every model the same name, and another may stand behind it by now."""

from __future__ import annotations

import json
import time
from typing import Any

from ..files import sha256_json

Served = dict[str, Any]
"""What a server says of the model that it serves: `model` and `fingerprint` in replies, `listed` and `created` in
/v1/models."""

_LASTING = ("id", "root", "parent", "meta")
"""Fields of an entry of /v1/models that stay the same while the model does."""
_SETTLED = 60
"""Seconds. Some servers give the time at which they are asked for that of the model's making."""


def read_models(text: str, model: str) -> Served:
    """What the list of models says of one: its entry, or the only one there is.

    Args:
        text: the body of the reply to /v1/models.
        model: the name that is asked for.

    Returns:
        `listed`, with a text for each field, and `created`, the second in which the model was made, if it can be that;
        nothing if the list cannot be read or leaves open which model is meant.
    """
    try:
        body = json.loads(text)
        entries = body.get("data") if isinstance(body, dict) else body
        entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        meant = [entry for entry in entries if entry.get("id") == model] or entries
        found = {name: meant[0][name] for name in _LASTING if len(meant) == 1 and meant[0].get(name)}
        listed = {name: value if isinstance(value, str) else _compact(value) for name, value in found.items()}
        made = meant[0].get("created") if len(meant) == 1 else None
    except (ValueError, RecursionError):
        return {}
    settled = type(made) is int and 0 < made < time.time() - _SETTLED
    return ({"listed": listed} if listed else {}) | ({"created": made} if settled else {})


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def is_telling(now: Served, model: str) -> bool:
    """Whether the list of models says more than the name that is asked for."""
    listed = now.get("listed", {})
    return listed.get("id", model) != model or len(listed) > 1


def same_model(stored: Served, now: Served, *, strict: bool) -> bool:
    """Whether an answer comes from the model that is served now, as far as anybody says.

    Args:
        stored: what the server said when it answered.
        now: what it says now.
        strict: go by what replies say of themselves too, and doubt an answer that came without what is known now.
            Without it, a service may renew the model behind a name, and what was paid for still counts.
    """
    if "listed" in now and (strict or "listed" in stored) and stored.get("listed") != now["listed"]:
        return False
    said = ("model", "fingerprint", "created") if strict else ()
    return all(stored[name] == now[name] for name in said if name in stored and name in now)


def describe(served: Served, *, strict: bool) -> str:
    """A model in words; what `same_model` goes by is in it. Empty if nobody said anything.

    >>> describe({"model": "default", "listed": {"id": "default", "root": "/models/a.gguf"}}, strict=True)
    'default, /models/a.gguf'
    """
    listed = served.get("listed", {})
    said = [served.get("model"), *(listed.get(name) for name in ("id", "root", "parent"))]
    words = list(dict.fromkeys(value for value in said if value))
    if "meta" in listed:
        words.append(f"meta {sha256_json(listed['meta'])[:8]}")
    if strict and "created" in served:
        words.append(f"made {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(served['created']))}")
    if strict and "fingerprint" in served:
        words.append(f"fingerprint {served['fingerprint']}")
    return ", ".join(words).replace(";", ",")
