"""KnOTS and DARE-TIES: two more ways to merge the experts' ΔW before their signs are elected.

*KnOTS* (Stoica et al., arXiv 2410.19735) first writes all updates of a module in one basis,

    [ΔW₁ … ΔW_E] = U Σ [V₁ᵀ … V_Eᵀ],

merges the Σ Vᵢᵀ by TIES, and multiplies U back: ΔW = U · TIES(Σ V₁ᵀ, …, Σ V_Eᵀ). Row j of every Σ Vᵢᵀ then speaks of
the same output direction, which the rows of the ΔWᵢ themselves need not. No ΔW is ever written out: the columns of U
span those of the Bᵢ, so everything is as small as the experts' ranks together, and exact.

*DARE-TIES* (Yu et al., arXiv 2311.03099, with the election of TIES, arXiv 2306.01708) drops entries by chance instead
of by size: each entry of each ΔWᵢ is reset with probability p, the others are divided by 1 − p so that the expectation
stays, then signs are elected and those that agree averaged.

Both papers scale what comes out by a factor that they choose on validation data; ours is one, as for TIES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from ..student.adapters import Adapter, LowRank, adapted_modules
from .base import Merging, require
from .layers import Merged
from .ties import elect_and_merge, global_threshold, merge_pruned, module_threshold, trim

NOTHING = 1e-7
"""Share of the largest singular value below which a direction counts as rounding."""


@dataclass(frozen=True, kw_only=True)
class Knots(Merging):
    """ΔW = U · TIES(Σ V₁ᵀ, …, Σ V_Eᵀ), with [ΔW₁ … ΔW_E] = U Σ [V₁ᵀ … V_Eᵀ]; a product of the experts' joint rank."""

    source = "2410.19735"

    density: float = 0.2
    """Share of entries of the Σ Vᵢᵀ that survive the trimming, as in `Ties`."""
    trim: str = "global"
    """`global`: the largest entries of all modules together. `module`: of each module by itself."""

    def __post_init__(self) -> None:
        require(0 < self.density <= 1, self, "density", "above 0, at most 1")
        require(self.trim in ("global", "module"), self, "trim", "global or module")

    def merged(self, adapters: Sequence[Adapter]) -> Mapping[str, Merged]:
        bases = {module: common_basis(adapters, module) for module in adapted_modules(adapters)}
        thresholds = [
            global_threshold(lambda i=i: (_in_basis(bases[name], u) for name, u in adapters[i].modules.items()),
                             self.density)
            for i in range(len(adapters) if self.trim == "global" else 0)
        ]  # fmt: skip
        merged = {}
        for module, u in bases.items():
            trimmed = []
            for i, adapter in enumerate(adapters):
                if module in adapter.modules:
                    part = _in_basis(u, adapter.modules[module])
                    trimmed.append(trim(part, thresholds[i] if thresholds else module_threshold(part, self.density)))
            merged[module] = Merged(None, LowRank(elect_and_merge(torch.stack(trimmed)), u.float(), 1.0), 0.0)
        return merged


def common_basis(adapters: Sequence[Adapter], module: str) -> torch.Tensor:
    """U of one module: left singular vectors of all ΔW side by side, without those of singular value zero.

    With the Bᵢ side by side = Q R and Aᵢᵀ = Pᵢ Sᵢ, all ΔW side by side are Q [s₁ R₁ S₁ᵀ …] diag(P₁ᵀ, …).

    Shapes:
        → (d_out, R), at least one column, in float64
    """
    updates = [adapter.modules[module] for adapter in adapters if module in adapter.modules]
    q, r = torch.linalg.qr(torch.cat([update.b.double() for update in updates], 1))
    parts = r.split([update.b.shape[1] for update in updates], 1)
    small = [
        update.scale * part @ torch.linalg.qr(update.a.double().T).R.T
        for update, part in zip(updates, parts, strict=True)
    ]
    u, sizes, _ = torch.linalg.svd(torch.cat(small, 1), full_matrices=False)
    kept = max(1, int((sizes > NOTHING * sizes[0]).sum()))
    return q @ u[:, :kept]


def _in_basis(u: torch.Tensor, update: LowRank) -> torch.Tensor:
    """Σ Vᵢᵀ = Uᵀ ΔWᵢ of one expert: (R, d_in), in float32."""
    return (update.scale * (u.T @ update.b.double()) @ update.a.double()).float()


@dataclass(frozen=True, kw_only=True)
class DareTies(Merging):
    """Drop entries of every ΔWᵢ with probability p, divide the others by 1 − p, elect a sign, average what agrees."""

    source = "2311.03099"

    drop: float = 0.5
    """p. The paper drops far more of whole models' updates; how much a LoRA bears we could not read there."""
    seed: int = 0
    """Of the entries that are dropped."""
    rank: int | None = None
    """Keep the merged ΔW as a product of this rank, as in `Ties`."""

    def __post_init__(self) -> None:
        require(0 <= self.drop < 1, self, "drop", "from 0 up, below 1")
        require(self.rank is None or self.rank >= 1, self, "rank", "1 or more, or None")

    def merged(self, adapters: Sequence[Adapter]) -> Mapping[str, Merged]:
        return merge_pruned(adapters, self.dropped, self.rank)

    def dropped(self, place: int, module: str, delta: torch.Tensor) -> torch.Tensor:
        """What is left of one ΔW; by chance, but the same for the same seed, whatever else is merged.

        Args:
            place: of the expert.
            module: its name.
            delta: ΔW.
        """
        name = sha256(f"{self.seed} {place} {module}".encode()).digest()
        chance = torch.Generator().manual_seed(int.from_bytes(name[:8], "big") >> 1)
        kept = torch.rand(delta.shape, generator=chance) >= self.drop
        return delta * kept.to(delta.device) / (1 - self.drop)
