"""Runs that are stopped, and what they have left when they were run again."""

from __future__ import annotations

from typing import Any

CLOCKS = (
    "seconds", "seconds_before", "tokens_per_second", "created", "wall_seconds", "answer_seconds", "peak_memory_mb",
    "peak_mb", "commit", "dirty",
)  # fmt: skip
"""What differs between two runs of the same, beside the clocks in a Trainer's log."""


class Stop(BaseException):
    """As a kill, it comes anywhere; unlike a kill, tests outlive it."""


def stop_at(monkeypatch: Any, owner: object, name: str, number: int) -> None:
    """Stop whatever runs when this function is called for the n-th time."""
    real, count = getattr(owner, name), [0]

    def stopping(*args, **kwargs):
        count[0] += 1
        if count[0] == number:
            raise Stop
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, stopping)


def timeless(value: Any) -> Any:
    """JSON without what a clock says."""
    if isinstance(value, list):
        return [timeless(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if k not in CLOCKS and not k.endswith(("_runtime", "_per_second"))}
    return {k: timeless(v) for k, v in kept.items()}
