"""The weights of an adapter made ready for gradients that are measured, not learned from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..fusion.placing import LAYER
from ..student.backbone import LOST_BACKWARD, lost_backward


@contextmanager
def measurable(model: nn.Module) -> Iterator[dict[int, list[nn.Parameter]]]:
    """The LoRA weights of each layer as float32 copies that take gradients, dropout off; afterwards all is as it was.

    The model stays in the mode that it is in: evaluation may repack 4-bit weights for good (`backbone`), which is an
    error here, since gradients are lost then.

    Args:
        model: the student with an adapter on it.

    Raises:
        ValueError: it has no LoRA weights.
        RuntimeError: its 4-bit weights were repacked within the block.
    """
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        place = LAYER.match(name)
        if place and ".lora_" in name:
            layers.setdefault(int(place["number"]), []).append(parameter)
    if not layers:
        raise ValueError("the model has no LoRA weights: put an expert on it (experts.load_expert), or train one")
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    kept = [(p, p.data, p.requires_grad) for group in layers.values() for p in group]
    try:
        for dropout in dropouts:
            dropout.eval()
        for parameter, data, _ in kept:
            parameter.data = data.to(torch.float32, copy=True)
            parameter.requires_grad_(True)
        yield dict(sorted(layers.items()))
        if any(lost_backward(module) for module in model.modules()):
            raise RuntimeError(LOST_BACKWARD)
    finally:
        for parameter, data, learns in kept:
            parameter.data = data
            parameter.requires_grad_(learns)
        for dropout in dropouts:
            dropout.train()
