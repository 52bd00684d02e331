"""Activation checkpointing: activations that are computed again in the backward pass need the α that they had.

By then another batch may have been read: two forward passes before one backward pass, or an evaluation in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import nn

from .layers import Gate
from .reading import Reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def recomputing(reading: Reading, gates: Sequence[Gate]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What stands around a layer now, and what must stand around it when its activations are computed again.

    As `context_fn` of `torch.utils.checkpoint.checkpoint`. Hooks may run inside of what is recomputed or outside, as
    the version of transformers has it; with all that they read and write put back, both come to the same.
    """
    return nullcontext(), _PutBack(reading, gates)


class _PutBack:
    """Puts back what was known when this was made; may be entered more than once."""

    def __init__(self, reading: Reading, gates: Sequence[Gate]) -> None:
        self.reading, self.gates = reading, gates
        self.then = self._known()

    def _known(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return dict(vars(self.reading)), [dict(vars(gate)) for gate in self.gates]

    def _know(self, known: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        for owner, values in zip((self.reading, *self.gates), (known[0], *known[1]), strict=True):
            vars(owner).update(values)

    def __enter__(self) -> None:
        self.now = self._known()
        self._know(self.then)

    def __exit__(self, *error: object) -> None:
        self._know(self.now)


def enable_recomputing(
    model: PreTrainedModel, context_fn: Callable, kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Switch a student's activation checkpointing on.

    Args:
        model: the student.
        context_fn: gives what stands around a layer, now and when it is computed again (`recomputing`).
        kwargs: of `torch.utils.checkpoint`.
        options: what the student's method takes beside them.

    Raises:
        ValueError: `use_reentrant` or a `context_fn` is asked for.
    """
    if kwargs.get("use_reentrant"):
        raise ValueError("use_reentrant=True: a routed model needs use_reentrant=False, since α comes from outside")
    if "context_fn" in kwargs:
        raise ValueError("context_fn: a routed model needs it for α; give none")
    kwargs = {**kwargs, "use_reentrant": False, "context_fn": context_fn}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs, **options)
    else:  # transformers called it so at first
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs, **options)


def check_recomputing(layers: Iterable[nn.Module], context_fn: Callable) -> None:
    """Refuse activation checkpointing that knows nothing of α.

    Raises:
        RuntimeError: it was switched on for the student, before it got experts or behind the routed model's back.
    """
    for layer in layers:
        function = getattr(layer, "_gradient_checkpointing_func", None)
        if not getattr(layer, "gradient_checkpointing", False) or function is None:
            continue
        if getattr(function, "keywords", {}).get("context_fn") != context_fn:
            raise RuntimeError(
                "activation checkpointing was switched on for the student, which does not know which α its "
                "recomputed activations need: call `activation_checkpointing_enable` of the routed model"
            )
