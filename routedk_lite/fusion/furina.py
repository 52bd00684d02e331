"""FURINA (Han et al., arXiv 2509.14900) for frozen experts: they route themselves, and can be merged all the same.

FURINA splits every ΔWᵢ into the directions of its rows and their lengths d_i, and lets all experts share one learned
vector of lengths m, as we read it (from the abstract, reviews and a summary; the formulas themselves we could not
verify):

    ΔW = diag(m) Σᵢ diag(d_i)⁻¹ ΔWᵢ,    d_ij = ‖row j of ΔWᵢ‖₂.

Entry j of diag(d_i)⁻¹ ΔWᵢ x is ‖x‖ times the cosine between x and that row, so an expert whose rows look the way x
does adds much, another little: that is its routing. It is linear in x, so there is nothing to keep apart, and the sum
merges into the weights.

What is left out: the paper trains the directions too, with a loss that makes the experts differ, and beside them an
expert that is always on. Here the experts are frozen, so m alone learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..student.adapters import Adapter, LowRank, adapted_modules
from .base import Fusion, Weigher
from .layers import Gate, RoutedLinear

EPSILON = 1e-12
"""The shortest row that is told from zero."""


@dataclass(frozen=True, kw_only=True)
class Furina(Fusion):
    """ΔW = diag(m) Σᵢ diag(d_i)⁻¹ ΔWᵢ with the rows' lengths d_i; one m per module learns.

    m starts as the mean of the experts' lengths over E, so that rows that look the same way start as their average.
    What is learned is its factor. There is no α to learn: every expert has weight one.
    """

    source = "2509.14900"
    learns = static_rate = True

    def weigher_of(self, adapters: Sequence[Adapter], n_layers: int, hidden_size: int) -> Weigher:
        return _Magnitudes(n_layers, adapters)


def row_lengths(update: LowRank) -> torch.Tensor:
    """‖row j of ΔW‖₂ of every row, without writing ΔW out.

    Shapes:
        (d_out,), in float64
    """
    a, b = update.a.double(), update.b.double()
    return abs(update.scale) * ((b @ (a @ a.T)) * b).sum(1).clamp(min=0).sqrt()


def directed(update: LowRank) -> LowRank:
    """The same update with rows of length one; rows of zeros stay."""
    lengths = row_lengths(update)
    factor = torch.where(lengths > EPSILON, update.scale / lengths.clamp(min=EPSILON), 0.0)
    return LowRank(update.a, (factor[:, None] * update.b.double()).float(), 1.0)


class _Magnitudes(Weigher):
    shares = False

    def __init__(self, n_layers: int, adapters: Sequence[Adapter]) -> None:
        super().__init__(n_layers, len(adapters))
        modules = sorted(adapted_modules(adapters))
        self.place, self.factors = {module: i for i, module in enumerate(modules)}, nn.ParameterList()
        for i, module in enumerate(modules):
            lengths = [row_lengths(a.modules[module]) for a in adapters if module in a.modules]
            start = (torch.stack(lengths).mean(0) / len(adapters)).float()  # (d_out,)
            self.register_buffer(f"start{i}", start, persistent=False)
            self.factors.append(nn.Parameter(torch.ones_like(start)))

    def alpha(self, layer, hidden, mask):
        return hidden.new_ones((hidden.shape[0], self.n_experts), dtype=torch.float32)

    def linear(self, base, updates, gate, name, weigh):
        updates = {i: directed(update) for i, update in updates.items()}
        return _Scaled(base, updates, gate, name, magnitude=partial(self.magnitude, name))

    def magnitude(self, module: str) -> torch.Tensor:
        """m of one module: (d_out,), in float32."""
        i = self.place[module]
        return getattr(self, f"start{i}") * self.factors[i].float()


class _Scaled(RoutedLinear):
    """y = W₀ x + m ⊙ Σᵢ αᵢ Bᵢ Aᵢ x."""

    def __init__(
        self,
        base: nn.Module,
        updates: Mapping[int, LowRank],
        gate: Gate,
        name: str,
        *,
        magnitude: Callable[[], torch.Tensor],
    ) -> None:
        super().__init__(base, updates, gate, name)
        self.magnitude = magnitude

    def update(self, x, alpha, rows):
        added = super().update(x, alpha, rows)
        return self.magnitude().to(added.dtype) * added

    def delta(self, alpha):
        return self.magnitude()[:, None] * super().delta(alpha)
