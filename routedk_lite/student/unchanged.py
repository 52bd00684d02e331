"""What a training or a question does to a model beside what it is for, and its undoing.

PEFT prepares a student in four bits for training by casting norms, embeddings and the vocabulary's matrix to float32,
and switches activation checkpointing on. Unloading the adapter undoes neither, so a student that was trained on would
answer a little differently from one that was only loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@contextmanager
def left_as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """When the block ends, the model's own weights have their types again, and what was added for checkpointing is
    gone.

    The weights are frozen and were only widened, so casting them back restores them exactly.
    """
    types = {name: weight.dtype for name, weight in model.named_parameters()}
    recomputes, hooks = _recomputes(model), model.get_input_embeddings()._forward_hooks
    kept = set(hooks)
    try:
        yield
    finally:
        for name, weight in model.named_parameters():
            if weight.dtype != types.get(name, weight.dtype):
                weight.data = weight.data.to(types[name])
        if _recomputes(model) and not recomputes:
            # Earlier versions of transformers know the second name alone.
            off = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
            off()
        # What lets gradients pass frozen embeddings; a model that is told twice forgets the first.
        for added in hooks.keys() - kept:
            del hooks[added]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout within the block; then every module trains again that did before."""
    learning = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@contextmanager
def unchanged_after_an_error(learner: nn.Module) -> Iterator[None]:
    """Whoever trains the same module again, after a stop, begins where the first training began."""
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    try:
        yield
    except BaseException:
        learner.load_state_dict(before)
        raise


def _recomputes(model: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
