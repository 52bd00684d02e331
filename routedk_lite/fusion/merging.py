"""Experts into a student's own weights, where one α holds for every input: what is left is an ordinary model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .base import Weigher
from .layers import RoutedLinear, ShiftedLinear
from .placing import LAYER, set_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def write_in(model: PreTrainedModel, weigher: Weigher, layer_numbers: Sequence[int]) -> None:
    """Add the fused experts to the weights that they stand beside, and take them off.

    Args:
        model: a student with experts; it is changed.
        weigher: gives every layer its α, which does not depend on the input.
        layer_numbers: of the decoder layers that have experts, rising.

    Raises:
        ValueError: the weights are quantised.
    """
    probe = torch.zeros(1, 1, model.config.get_text_config().hidden_size, device=model.device)
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            if not isinstance(module, RoutedLinear | ShiftedLinear):
                continue
            weight = module.base.weight
            if not weight.is_floating_point():
                raise ValueError(f"{name}: the weights are quantised; load the student without 4-/8-bit to merge")
            if isinstance(module, RoutedLinear):
                index = layer_numbers.index(int(LAYER.match(name)["number"]))
                own = module.weigh is not None
                alpha = module.weigh(probe) if own else weigher.alpha(index, probe, probe.new_ones(1, 1))
                delta = module.delta(alpha[0])
            else:
                delta = module.delta.float()
            weight.copy_(weight.float() + delta)
            set_module(model, name, module.base)
