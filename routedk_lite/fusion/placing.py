"""Where experts go in a student: which of its modules can carry one, and whether the experts fit.

Everything is checked before anything is touched, so that a refusal leaves the student as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from ..student.adapters import Adapter, adapted_modules
from .base import Weigher
from .layers import Gate, Merged, RoutedLinear, ShiftedLinear

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYER = re.compile(r"^(?P<layers>.+?)\.(?P<number>\d+)\.")
"""A module's name: the list of decoder layers it is in, and its layer's number."""


def find_layers(model: PreTrainedModel, adapters: Sequence[Adapter]) -> tuple[str, tuple[int, ...]]:
    """Name of the list of decoder layers, and the numbers of those that have experts.

    Args:
        model: the student.
        adapters: the experts.

    Raises:
        ValueError: the student carries adapters already, or an expert does not fit it.
    """
    _check_bare(model)
    owners = {name: adapter.name for adapter in adapters for name in adapter.modules}
    stacks, numbers = set(), set()
    for name in adapted_modules(adapters):
        try:
            base = model.get_submodule(name)
        except AttributeError:
            raise ValueError(f"the expert {owners[name]!r} adapts {name}, which this student does not have") from None
        place = LAYER.match(name)
        if place is None:
            raise ValueError(f"the expert {owners[name]!r} adapts {name}, which is not inside a decoder layer")
        _check_kind(base, name, owners[name])
        for adapter in adapters:
            update = adapter.modules.get(name)
            shape = None if update is None else (update.b.shape[0], update.a.shape[1])
            if shape and shape != (base.out_features, base.in_features):
                raise ValueError(
                    f"the expert {adapter.name!r} has a ΔW of {shape} for {name}, which is "
                    f"{(base.out_features, base.in_features)}"
                )
        stacks.add(place["layers"])
        numbers.add(int(place["number"]))
    if len(stacks) != 1:
        raise ValueError(
            f"the experts adapt more than one stack of layers: {', '.join(sorted(stacks))}. Train them on the layers "
            "of the text model alone (target_modules as a pattern, or exclude_modules)"
        )
    stack = stacks.pop()
    _check_stack(model, stack)
    _check_complete(model, adapters)
    return stack, tuple(sorted(numbers))


def replacements(
    model: PreTrainedModel,
    adapters: Sequence[Adapter],
    merged: Mapping[str, Merged],
    gates: Mapping[int, Gate],
    weigher: Weigher,
    of_module: Callable[[int, str, torch.Tensor], torch.Tensor],
) -> dict[str, RoutedLinear | ShiftedLinear]:
    """The modules with experts, by the names of those that they will replace; the student stays as it is.

    Args:
        model: the student.
        adapters: the experts.
        merged: what the fusion has merged; empty where the experts stay apart.
        gates: of the layers, by number.
        weigher: of the fusion.
        of_module: gives a module's own α, from its layer's place, its name and what enters it.

    Raises:
        ValueError: an expert's matrices are not finite in the type that the student computes in.
    """
    made: dict[str, RoutedLinear | ShiftedLinear] = {}
    for name in adapted_modules(adapters):
        number = int(LAYER.match(name)["number"])
        base, gate = model.get_submodule(name), gates[number]
        if name not in merged:
            updates = {i: a.modules[name] for i, a in enumerate(adapters) if name in a.modules}
            weigh = partial(of_module, list(gates).index(number), name)
            made[name] = weigher.linear(base, updates, gate, name, weigh)
        elif merged[name].low_rank is not None:
            made[name] = RoutedLinear(base, {0: merged[name].low_rank}, gate)
        else:
            made[name] = ShiftedLinear(base, merged[name].delta)
        for matrix in made[name].buffers():
            if matrix.is_floating_point() and not bool(matrix.isfinite().all()):
                who = ", ".join(repr(adapter.name) for adapter in adapters if name in adapter.modules)
                raise ValueError(
                    f"{name}: the update of {who} has values that are not finite in {matrix.dtype}: the training "
                    "diverged, or the student needs a wider type"
                )
    return made


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of that name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _check_bare(model: PreTrainedModel) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, RoutedLinear | ShiftedLinear):
            raise ValueError(
                f"this student carries experts already (in {name}): call `unload()` of the routed model that it is "
                "part of, or load the student anew"
            )
        if isinstance(module, BaseTunerLayer):
            raise ValueError(
                f"this student carries an adapter of PEFT already (in {name}): take it off with `unload()` of the "
                "PeftModel, or load the student anew"
            )


def _check_kind(base: nn.Module, name: str, expert: str) -> None:
    if isinstance(base, nn.Linear):  # bitsandbytes' are, too
        return
    what = type(base).__name__
    reason = {
        "Conv1D": "it stores its weights transposed, as GPT-2 does",
        "Embedding": "it looks rows up",
    }.get(what, "an expert's update goes beside a linear module")
    raise ValueError(
        f"the expert {expert!r} adapts {name}, a {what}, which cannot carry an expert: {reason}. Choose a student with "
        "nn.Linear modules, or train the expert on those that this one has"
    )


def _check_stack(model: PreTrainedModel, stack: str) -> None:
    layers, text = model.get_submodule(stack), model.config.get_text_config()
    n_layers = getattr(text, "num_hidden_layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) != n_layers:
        raise ValueError(
            f"the experts adapt {stack}, which is not the list of this student's {n_layers} decoder layers: train them "
            "on the layers of the text model"
        )


def _check_complete(model: PreTrainedModel, adapters: Sequence[Adapter]) -> None:
    """PEFT leaves a module alone whose matrices are not in the file, and answers as if nothing were missing."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for adapter in adapters:
        if missing := [name for name in linear if adapter.misses(name)]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"the expert {adapter.name!r} has no matrices for {missing[0]}{more}, which its adapter_config.json "
                "says it adapts: the file is not complete, or of another student"
            )
