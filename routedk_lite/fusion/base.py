"""What every fusion of LoRA experts is: settings, and a module that gives the weights α.

A fusion may do three things to experts: weigh them (`Weigher`), prepare them before they are put beside the student's
modules, or merge them into one update. `fusion` has those of RouteDK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..student.adapters import Adapter, LowRank
from .layers import Gate, Merged, RoutedLinear, Weigh


def require(ok: bool, owner: Any, name: str, rule: str) -> None:
    """Refuse a setting of a fusion.

    Raises:
        ValueError: it is not `ok`; the message names setting, value and rule.
    """
    if not ok:
        raise ValueError(f"{type(owner).__name__}({name}={getattr(owner, name)!r}): {name} must be {rule}")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How experts are fused: settings only. `weigher` makes the module that holds what is learned."""

    source = ""
    """Where it comes from: the number of the paper on arXiv."""
    depends_on_input = False
    """Whether α differs between sessions."""
    by_token = False
    """Whether every token has an α of its own, those of an answer too."""
    sparse = False
    """Whether some experts may have no weight for a whole batch, so that they need not be computed."""
    has_alpha = True
    """Whether there are weights; `False`: the experts are merged into one."""
    learns = False
    """Whether `train_fusion` has anything to train."""
    static_rate = False
    """Whether what it learns takes `RouterConfig.static_learning_rate`: few weights, the same for all inputs."""

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        """A fresh module that gives α for each of the layers."""
        raise NotImplementedError(f"{type(self).__name__} looks at the experts themselves: call weigher_of")

    def weigher_of(self, adapters: Sequence[Adapter], n_layers: int, hidden_size: int) -> Weigher:
        """Likewise, for fusions that look at the experts themselves; they have been `prepared`."""
        return self.weigher(n_layers, len(adapters), hidden_size)

    def prepared(self, adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
        """The experts as they are put beside the student's modules, in the same order."""
        return tuple(adapters)

    def merged(self, adapters: Sequence[Adapter]) -> Mapping[str, Merged]:
        """One update for each module, where the experts are merged; nothing where they stay apart."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Name and settings; `fusion_from_json` reads them back."""
        return {"fusion": type(self).__name__, **asdict(self)}


class Merging(Fusion):
    """Leaves one merged expert, and no α."""

    has_alpha = False

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return Weigher(n_layers, 1)


class Weigher(nn.Module):
    """Gives α of each layer; every expert the same share unless a subclass says otherwise."""

    once = False
    """Whether there is one α for all layers, made from what enters the lowest."""
    by_module = False
    """Whether every module has an α of its own, from `of_module`; then nobody asks for `alpha`."""
    reads_twice = False
    """Whether `hidden` is what the student without experts makes of the tokens, its last hidden states."""
    shares = True
    """Whether the weights of a token sum to one."""

    def __init__(self, n_layers: int, n_experts: int) -> None:
        super().__init__()
        self.n_layers, self.n_experts = n_layers, n_experts

    def alpha(self, layer: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """α of one layer, in float32.

        Args:
            layer: index among the layers that have experts, 0 the lowest.
            hidden: hidden states entering the layer.
            mask: 1 at the tokens that may be looked at: the prompt, without padding.

        Shapes:
            hidden: (B, T, D); mask: (B, T) → (B, E), or (B, T, E) where every token has its own α
        """
        return hidden.new_full((hidden.shape[0], self.n_experts), 1 / self.n_experts, dtype=torch.float32)

    def of_module(self, layer: int, module: str, x: torch.Tensor) -> torch.Tensor:
        """α of one module, in float32.

        Args:
            layer: as in `alpha`.
            module: its name in the student.
            x: what enters it.

        Shapes:
            x: (B, T, d_in) → (B, E), or (B, T, E) where every token has its own
        """
        raise NotImplementedError

    def linear(
        self, base: nn.Module, updates: Mapping[int, LowRank], gate: Gate, name: str, weigh: Weigh
    ) -> RoutedLinear:
        """The module with experts that replaces `base`; the arguments are those of `RoutedLinear`."""
        return RoutedLinear(base, updates, gate, name, weigh if self.by_module else None)
