"""Doing something once the hand rests: a model that answers in a second cannot follow every step of a slider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WAIT = 0.3
"""Seconds without a further change after which the model is asked."""


class Debouncer:
    """Calls a function once, some time after the last of several requests; at once where no event loop is running.

    Args:
        call: what is to be done.
        seconds: how long nothing must have been asked for.
    """

    def __init__(self, call: Callable[[], object], seconds: float = WAIT) -> None:
        self.call, self.seconds = call, seconds
        self._handle: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.call()
            return
        self._handle = loop.call_later(self.seconds, self._run)

    @property
    def waiting(self) -> bool:
        """Whether a call is still to come."""
        return self._handle is not None

    def cancel(self) -> None:
        """Forget what was asked for."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        self.call()
