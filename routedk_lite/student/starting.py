"""Where an adapter's training starts: from a trained adapter instead of from nothing.

A fresh LoRA adapter changes nothing (B is zero), so each expert would have to learn the answer format again. Experts
that start from one common adapter know it already, and what they then learn is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .adapters import peft_tensors, read_adapter, scale_of

if TYPE_CHECKING:
    from peft import PeftModel


class Start(NamedTuple):
    """An adapter to start from, or to learn from (`soft_targets`), which need not exist yet."""

    digest: str
    """Names it by what it comes from; part of what an expert that starts there is known by."""
    folder: Callable[[], Path]
    """Gives its PEFT folder; trains it first if need be. Called only when there is something to train."""


def start_from(model: PeftModel, folder: str | Path) -> None:
    """Give the adapter that stands on a student the weights of another, and leave it in training.

    Args:
        model: the student with a fresh adapter.
        folder: of an adapter with the same modules, ranks and scales.

    Raises:
        ValueError: the two differ in a module, a rank or a scale, or the folder's weights are damaged.
        FileNotFoundError: no adapter there.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    found = read_adapter(folder)
    config = model.peft_config["default"]
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = peft_tensors(found)
    if missing := sorted(fresh.keys() ^ weights.keys()):
        whose = "the start" if missing[0] in weights else "the expert"
        raise ValueError(f"{folder} cannot be where training starts: only {whose} has {missing[0]}")
    for name, tensor in weights.items():
        if tensor.shape != fresh[name].shape:
            sizes = f"{tuple(tensor.shape)} there, {tuple(fresh[name].shape)} here"
            raise ValueError(f"{folder} cannot be where training starts: {name} is {sizes}; choose the same rank")
    for module, update in found.modules.items():
        if update.scale != (scale := scale_of(config, module, len(update.a))):
            raise ValueError(
                f"{folder} cannot be where training starts: its update of {module} is scaled by {update.scale:g}, "
                f"the expert's by {scale:g}; choose the same lora_alpha and rank"
            )
    set_peft_model_state_dict(model, weights)
