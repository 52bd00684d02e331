"""The layers of a routed model: linear modules with several experts, and the gate that weighs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..student.adapters import LowRank
from ..student.backbone import LOST_BACKWARD, lost_backward


class Gate:
    """What a decoder layer's modules share: the α of the current input."""

    def __init__(self) -> None:
        self.alpha: torch.Tensor | None = None
        """(B, E), or (B, T, E) where every token has its own."""
        self.of_prompt: torch.Tensor | None = None
        """(B, E): α of the last prompt; its mean over the prompt where every token has its own."""
        self.experts: list[int] | None = None
        """The experts with any weight in this batch; `None`: all of them, without looking."""

    def check_rows(self, n_rows: int) -> None:
        """Refuse to go on with another number of rows than α was made for."""
        if self.alpha.shape[0] != n_rows:
            raise RuntimeError(
                f"{n_rows} rows are decoded, but α was made for {self.alpha.shape[0]}: call select_alpha after "
                "selecting rows of the KV cache"
            )

    def find_experts(self, *, look: bool) -> None:
        """Note which experts have any weight; it is not worth a look where α is above 0 everywhere."""
        self.experts = None
        if look:
            used = self.alpha.detach().flatten(0, -2).any(0)
            self.experts = None if bool(used.all()) else used.nonzero()[:, 0].tolist()

    def select(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder the rows of α, if there are any yet."""
        if self.alpha is not None:
            self.alpha, self.of_prompt = self.alpha[rows], self.of_prompt[rows]

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        """α belongs to what was read, and may be part of a graph that cannot be copied: a copy has none."""
        return Gate()


class RoutedLinear(nn.Module):
    """y = W₀ x + Σᵢ αᵢ sᵢ Bᵢ Aᵢ x, all experts in one pair of matrix products.

    The Aᵢ stand on top of each other, the Bᵢ side by side, so one product gives every expert's activations; row by row
    these are multiplied by sᵢ αᵢ, and a second product adds up all updates. Out of place, so that quantised layers,
    whose output must not be written to, can be routed like any other.
    """

    def __init__(self, base: nn.Module, updates: Mapping[int, LowRank], gate: Gate) -> None:
        super().__init__()
        self.base, self.gate = base, gate
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
        if alpha is None or x.ndim != 3 or len(x) != len(alpha):
            raise RuntimeError(
                f"a module with experts got an input of {tuple(x.shape)} where (rows, tokens, features) were expected, "
                f"for {'no' if alpha is None else len(alpha)} prompts: it is called outside its decoder layer, or "
                "tokens of several rows are mixed, as in a mixture of experts"
            )
        a, b, owner, scale = self.a, self.b, self.owner, self.scale
        if self.gate.experts is not None:
            rows = torch.isin(owner, torch.tensor(self.gate.experts, device=owner.device)).nonzero()[:, 0]
            if not len(rows):
                return y
            a, b, owner, scale = a[rows], b[:, rows], owner[rows], scale[rows]
        weights = (alpha[..., owner] * scale).to(a.dtype)  # (B, R) or (B, T, R)
        if weights.ndim == 2:
            weights = weights[:, None]
        update = nn.functional.linear(nn.functional.linear(x.to(a.dtype), a) * weights, b)
        return y + update.to(y.dtype)


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
