"""AdamW for adapters that compute in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class MasterAdamW(torch.optim.AdamW):
    """AdamW for low-precision parameters: weights are updated in float32 and copied back after each step.

    In bfloat16 alone learning stops silently: a small update rounds to nothing, and so does the decay of the second
    moment.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **options: Any) -> None:
        self._working = list(parameters)
        self._masters = [p.detach().float().clone() for p in self._working]
        super().__init__(self._masters, **options)

    @torch.no_grad()
    def step(self, closure=None):
        if all(working.grad is None for working in self._working):
            raise RuntimeError("none of these weights has a gradient: does the model still train them, or copies?")
        for master, working in zip(self._masters, self._working, strict=True):
            master.grad = None if working.grad is None else working.grad.float()
        result = super().step(closure)
        for master, working in zip(self._masters, self._working, strict=True):
            working.copy_(master)
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in (*self._masters, *self._working):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Torch's state and the masters, which a resumed run needs."""
        return {**super().state_dict(), "masters": self._masters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = dict(state_dict)
        with torch.no_grad():
            for master, saved in zip(self._masters, state_dict.pop("masters"), strict=True):
                master.copy_(saved)
        super().load_state_dict(state_dict)
