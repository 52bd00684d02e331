"""The layers of a routed model: linear modules with several experts, and the gate that weighs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..student.adapters import LowRank
from ..student.backbone import LOST_BACKWARD, lost_backward

Weigh = Callable[[torch.Tensor], torch.Tensor]
"""Makes the α of one module from what enters it: (B, T, d_in) → (B, E), or (B, T, E)."""


class Merged(NamedTuple):
    """The merged update of one module, as a matrix or as a product."""

    delta: torch.Tensor | None
    """ΔW, shape (d_out, d_in), where the full matrix is kept."""
    low_rank: LowRank | None
    """B A of the chosen rank, where a truncated SVD is kept."""
    error: float
    """Relative Frobenius error of the truncation; 0 for the full matrix."""


class Gate:
    """What a decoder layer's modules share: the α of the current input."""

    def __init__(self) -> None:
        self.alpha: torch.Tensor | None = None
        """(B, E), or (B, T, E) where every token has its own; `None` where every module makes its own."""
        self.own: torch.Tensor | None = None
        """What the fusion made of the input: `alpha`, unless that is overridden."""
        self.of_prompt: torch.Tensor | None = None
        """(B, E): α of the last prompt; its mean over the prompt where every token has its own."""
        self.experts: list[int] | None = None
        """The experts with any weight in this batch; `None`: all of them, without looking."""
        self.mask: torch.Tensor | None = None
        """(B, T): 1 at the tokens of a prompt that is being read; `None` while its answer is."""
        self.by_module: dict[str, torch.Tensor] = {}
        """(B, E) by name of the module: α of the last prompt, where every module makes its own."""

    def note(self, module: str, alpha: torch.Tensor) -> None:
        """Keep what a module has made of a prompt; what it makes of answers is not looked at.

        Shapes:
            alpha: (B, E) or (B, T, E)
        """
        if self.mask is not None:
            self.by_module[module] = mean_over(alpha, self.mask)

    def alphas(self) -> list[torch.Tensor]:
        """α of the layer, or of each of its modules: (B, E) or (B, T, E)."""
        return list(self.by_module.values()) if self.alpha is None else [self.alpha]

    def shown(self) -> torch.Tensor | None:
        """α of the last prompt, the mean over tokens and modules that have their own: (B, E)."""
        if self.alpha is None and self.by_module:
            return torch.stack(list(self.by_module.values())).mean(0)
        return self.of_prompt

    def select(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder the rows of all that is known."""
        if self.alpha is not None:
            self.alpha, self.of_prompt = self.alpha[rows], self.of_prompt[rows]
        if self.own is not None:
            self.own = self.own[rows]
        self.by_module = {module: alpha[rows] for module, alpha in self.by_module.items()}

    def check_rows(self, n_rows: int) -> None:
        """Refuse to go on with another number of rows than α was made for."""
        if self.own.shape[0] != n_rows:
            raise RuntimeError(
                f"{n_rows} rows are decoded, but α was made for {self.own.shape[0]}: call select_alpha after "
                "selecting rows of the KV cache"
            )

    def find_experts(self) -> None:
        """Note which experts have any weight; it is not worth a look where α is above 0 everywhere."""
        used = self.alpha.detach().flatten(0, -2).any(0)
        self.experts = None if bool(used.all()) else used.nonzero()[:, 0].tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        """α belongs to what was read, and may be part of a graph that cannot be copied: a copy has none."""
        return Gate()


def mean_over(alpha: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of a prompt, where every token has an α of its own.

    Shapes:
        alpha: (B, E) or (B, T, E); mask: (B, T) → (B, E)
    """
    if alpha.ndim == 2:
        return alpha
    seen = mask.to(alpha.dtype)[..., None]
    return (alpha * seen).sum(1) / seen.sum(1)


class RoutedLinear(nn.Module):
    """y = W₀ x + Σᵢ αᵢ sᵢ Bᵢ Aᵢ x, all experts in one pair of matrix products.

    The Aᵢ stand on top of each other, the Bᵢ side by side, so one product gives every expert's activations; row by row
    these are multiplied by sᵢ αᵢ, and a second product adds up all updates. Out of place, so that quantised layers,
    whose output must not be written to, can be routed like any other.

    Args:
        base: the linear module that it replaces.
        updates: of the experts that adapt it, by their place.
        gate: of its decoder layer.
        name: its name in the student.
        weigh: makes its own α; `None`: it takes its layer's.
    """

    def __init__(
        self, base: nn.Module, updates: Mapping[int, LowRank], gate: Gate, name: str = "", weigh: Weigh | None = None
    ) -> None:
        super().__init__()
        self.base, self.gate, self.name, self.weigh = base, gate, name, weigh
        device, dtype = _device_and_dtype(base)
        place = {"device": device, "dtype": dtype}
        ranks = [update.a.shape[0] for update in updates.values()]
        owner = torch.tensor(list(updates)).repeat_interleave(torch.tensor(ranks))
        scale = torch.tensor([u.scale for u in updates.values()]).repeat_interleave(torch.tensor(ranks))
        self.register_buffer("a", torch.cat([u.a for u in updates.values()]).to(**place), persistent=False)  # (R, d_in)
        self.register_buffer("b", torch.cat([u.b for u in updates.values()], 1).to(**place), persistent=False)
        self.register_buffer("owner", owner.to(device), persistent=False)  # (R,): the expert of each row of a
        self.register_buffer("scale", scale.to(device), persistent=False)  # (R,): its s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad and torch.is_grad_enabled() and lost_backward(self.base):
            raise RuntimeError(LOST_BACKWARD)
        y = self.base(x)
        alpha = self.gate.alpha
        if alpha is None and self.weigh is not None and x.ndim == 3:
            alpha = self.weigh(x)
            self.gate.note(self.name, alpha)
        if alpha is None or x.ndim != 3 or len(x) != len(alpha):
            raise RuntimeError(
                f"a module with experts got an input of {tuple(x.shape)} where (rows, tokens, features) were expected, "
                f"for {'no' if alpha is None else len(alpha)} prompts: it is called outside its decoder layer, or "
                "tokens of several rows are mixed, as in a mixture of experts"
            )
        rows = None
        if self.gate.experts is not None:
            rows = torch.isin(self.owner, torch.tensor(self.gate.experts, device=self.owner.device)).nonzero()[:, 0]
            if not len(rows):
                return y
        return y + self.update(x.to(self.a.dtype), alpha, rows).to(y.dtype)

    def update(self, x: torch.Tensor, alpha: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """What the experts add.

        Args:
            x: the input, in the type of the updates.
            alpha: of this module.
            rows: those of `a` whose experts have any weight; `None`: all.

        Shapes:
            x: (B, T, d_in); alpha: (B, E) or (B, T, E); rows: (R',) → (B, T, d_out)
        """
        a, b, owner, scale = self.a, self.b, self.owner, self.scale
        if rows is not None:
            a, b, owner, scale = a[rows], b[:, rows], owner[rows], scale[rows]
        weights = (alpha[..., owner] * scale).to(a.dtype)  # (B, R) or (B, T, R)
        if weights.ndim == 2:
            weights = weights[:, None]
        return nn.functional.linear(nn.functional.linear(x, a) * weights, b)

    def delta(self, alpha: torch.Tensor) -> torch.Tensor:
        """ΔW for one α, in float32.

        Shapes:
            alpha: (E,) → (d_out, d_in)
        """
        return (self.b.float() * (alpha[self.owner] * self.scale)) @ self.a.float()


class ShiftedLinear(nn.Module):
    """y = W₀ x + ΔW x with one full matrix ΔW, as TIES leaves it."""

    def __init__(self, base: nn.Module, delta: torch.Tensor) -> None:
        super().__init__()
        self.base = base
        device, dtype = _device_and_dtype(base)
        self.register_buffer("delta", delta.to(device=device, dtype=dtype), persistent=False)  # (d_out, d_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        return y + nn.functional.linear(x.to(self.delta.dtype), self.delta).to(y.dtype)


def _device_and_dtype(base: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where an update is computed, and in what: in the weights' type, or what quantised weights are unpacked to."""
    weight = base.weight
    dtype = weight.dtype
    if not weight.is_floating_point():
        dtype = getattr(base, "compute_dtype", None) or torch.float16
    return weight.device, dtype
