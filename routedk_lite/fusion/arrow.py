"""Arrow and GenKnowSub: routing by the directions that the experts themselves look in, without any training.

*Arrow* (Ostapenko et al., arXiv 2405.11157). An update ΔW = s B A stretches one direction of its input most: its first
right singular vector v. An expert that was trained on inputs like x should have a large abs(v·x). So in every linear
module, for every token,

    αᵢ = softmax over the k largest of abs(vᵢ·x) / temperature,  0 for all others.

*GenKnowSub* (Bagherifard et al., arXiv 2505.10939) first takes away from every expert what a general one knows,

    ΔWᵢ ← ΔWᵢ − ΔW_general,

and routes what is left by Arrow. The difference is exact here, as a product of rank rᵢ + r_general. PEFT subtracts A
and B apart instead, (Bᵢ − B_g)(Aᵢ − A_g), which is another matrix: its cross terms belong to neither expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..student.adapters import Adapter, LowRank, adapted_modules
from .base import Fusion, Weigher, require


@dataclass(frozen=True, kw_only=True)
class Arrow(Fusion):
    """α = softmax of the k largest abs(vᵢ·x) per module and token, vᵢ the first right singular vector of ΔWᵢ.

    With the same adapters and settings it equals PEFT's, which finds v by power iteration. The defaults are PEFT's.
    """

    source = "2405.11157"
    depends_on_input = by_token = True

    top_k: int = 3
    """How many experts a token may have; all, where there are fewer."""
    temperature: float = 1.0
    """Above 1: flatter α. Below 1: sharper."""

    def __post_init__(self) -> None:
        require(self.top_k >= 1, self, "top_k", "1 or more")
        require(self.temperature > 0, self, "temperature", "above 0")

    def weigher_of(self, adapters: Sequence[Adapter], n_layers: int, hidden_size: int) -> Weigher:
        return _Directions(n_layers, adapters, self)


@dataclass(frozen=True, kw_only=True)
class GenKnowSub(Arrow):
    """Arrow on ΔWᵢ − ΔW_general. The general expert itself has nothing left, and α = 0."""

    source = "2505.10939"

    general: int = 0
    """Its place among the experts."""

    def prepared(self, adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
        last, names = len(adapters) - 1, ", ".join(repr(adapter.name) for adapter in adapters)
        require(0 <= self.general <= last, self, "general", f"0 to {last}, the place of the general one among {names}")
        if not last:
            raise ValueError(f"GenKnowSub: nothing is left of {names}, which is the general expert: give others, too")
        general = adapters[self.general]
        return tuple(subtracted(adapter, general) for adapter in adapters)


def subtracted(adapter: Adapter, general: Adapter) -> Adapter:
    """What an adapter knows beyond a general one: ΔW − ΔW_general, module by module.

    A module that only the general one adapts has −ΔW_general. Nothing is left of the general one itself.
    """
    if adapter is general:
        return adapter._replace(modules={}, settings=None)
    modules = {}
    for name in adapted_modules([adapter, general]):
        mine, theirs = adapter.modules.get(name), general.modules.get(name)
        if mine is None:
            modules[name] = theirs._replace(scale=-theirs.scale)
        elif theirs is None:
            modules[name] = mine
        else:
            b = torch.cat([mine.scale * mine.b.float(), -theirs.scale * theirs.b.float()], 1)
            modules[name] = LowRank(torch.cat([mine.a.float(), theirs.a.float()]), b, 1.0)
    return adapter._replace(modules=modules, settings=None)


def first_direction(update: LowRank) -> torch.Tensor:
    """The first right singular vector of ΔW = s B A, up to its sign; zeros where ΔW is zero.

    From matrices as small as the rank: with B = Q R and Aᵀ = P S, ΔW = s Q (R Sᵀ) Pᵀ.

    Shapes:
        (d_in,)
    """
    r = torch.linalg.qr(update.b.double()).R
    p, s = torch.linalg.qr(update.a.double().T)
    _, sizes, vt = torch.linalg.svd(r @ s.T)
    return (p @ vt[0] * (sizes[0] > 0)).float()


class _Directions(Weigher):
    """Nothing is learned, and nothing is saved: the experts have it all."""

    by_module = True

    def __init__(self, n_layers: int, adapters: Sequence[Adapter], options: Arrow) -> None:
        super().__init__(n_layers, len(adapters))
        self.options, self.place = options, {}
        for i, module in enumerate(adapted_modules(adapters)):
            self.place[module] = i
            updates = [adapter.modules.get(module) for adapter in adapters]
            width = next(update.a.shape[1] for update in updates if update is not None)
            found = [torch.zeros(width) if update is None else first_direction(update) for update in updates]
            missing = torch.tensor([update is None for update in updates])
            self.register_buffer(f"directions{i}", torch.stack(found), persistent=False)  # (E, d_in)
            self.register_buffer(f"missing{i}", missing, persistent=False)  # (E,): those that leave the module alone

    def of_module(self, layer, module, x):
        i = self.place[module]
        scores = (x.float() @ getattr(self, f"directions{i}").T).abs()  # (B, T, E)
        scores = scores.masked_fill(getattr(self, f"missing{i}"), float("-inf"))
        kept = scores.topk(min(self.options.top_k, self.n_experts), dim=-1)
        scores = torch.full_like(scores, float("-inf")).scatter(-1, kept.indices, kept.values)
        return (scores / self.options.temperature).softmax(-1)
