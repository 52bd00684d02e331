"""Ways to fuse LoRA experts, and the weights they give: α, one share per expert.

RouteDK puts E LoRA experts beside every linear module of layer l and adds up their updates:

    y = W₀ x + Σᵢ α_{l,i} · sᵢ Bᵢ Aᵢ x        Σᵢ α_{l,i} = 1

What differs between the fusions is where α comes from. *Average*: always 1/E. *Static*: softmax(θ_l), learned once for
all inputs. *Dynamic*, the paper's router: softmax(W_l z_l + b_l), with z_l the mean of the prompt's hidden states that
enter layer l. *TIES* (arXiv 2306.01708) has no α: it merges the ΔW themselves, see `ties`. Further ones, each from
another paper, have modules of their own; `catalogue` lists them all. `routed.RoutedModel` puts a fusion and its experts
into a student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..student.adapters import Adapter, adapted_modules
from .base import Fusion, Merging, Weigher, require
from .layers import Merged
from .ties import merge_adapters

POOLS = ("mean", "last", "attention", "token")
SCOPES = ("layer", "global")


@dataclass(frozen=True, kw_only=True)
class Average(Fusion):
    """α = 1/E: the mean of the experts' updates."""

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return Weigher(n_layers, n_experts)


@dataclass(frozen=True, kw_only=True)
class OneHot(Fusion):
    """One expert alone."""

    expert: int = 0
    """Its place among the experts."""

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        require(0 <= self.expert < n_experts, self, "expert", f"0 to {n_experts - 1}, the experts there are")
        return _OneHot(n_layers, n_experts, self.expert)


class _OneHot(Weigher):
    def __init__(self, n_layers: int, n_experts: int, expert: int) -> None:
        super().__init__(n_layers, n_experts)
        self.expert = expert

    def alpha(self, layer, hidden, mask):
        alpha = hidden.new_zeros((hidden.shape[0], self.n_experts), dtype=torch.float32)
        alpha[:, self.expert] = 1
        return alpha


@dataclass(frozen=True, kw_only=True)
class Static(Fusion):
    """α_l = softmax(θ_l), learned and the same for every input.

    At the scope `module` this is CAT, the learnable concatenation of LoRA Soups (arXiv 2410.13025, and its code): ΔW =
    Σᵢ αᵢ sᵢ Bᵢ Aᵢ in every linear module, with α the softmax of a learned θ of that module. CAT draws the first θ at
    random, ours is zero, so that training starts from the average.
    """

    learns = static_rate = True

    scope: str = "layer"
    """`layer`: a θ per layer. `global`: one for the whole model. `module`: one per linear module (CAT)."""

    def __post_init__(self) -> None:
        require(self.scope in (*SCOPES, "module"), self, "scope", "layer, global or module")

    @property
    def source(self) -> str:
        return "2410.13025" if self.scope == "module" else ""

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        if self.scope == "module":
            return super().weigher(n_layers, n_experts, hidden_size)
        return _Static(n_layers, n_experts, n_layers if self.scope == "layer" else 1)

    def weigher_of(self, adapters: Sequence[Adapter], n_layers: int, hidden_size: int) -> Weigher:
        if self.scope != "module":
            return super().weigher_of(adapters, n_layers, hidden_size)
        return _StaticByModule(n_layers, len(adapters), adapted_modules(adapters))


class _Static(Weigher):
    def __init__(self, n_layers: int, n_experts: int, n_thetas: int) -> None:
        super().__init__(n_layers, n_experts)
        self.theta = nn.Parameter(torch.zeros(n_thetas, n_experts))  # (L or 1, E); zero: start from the average

    def alpha(self, layer, hidden, mask):
        alpha = self.theta[min(layer, len(self.theta) - 1)].float().softmax(-1)  # (E,)
        return alpha.expand(hidden.shape[0], -1)


class _StaticByModule(Weigher):
    by_module = True

    def __init__(self, n_layers: int, n_experts: int, modules: Sequence[str]) -> None:
        super().__init__(n_layers, n_experts)
        # By name, since the experts of a saved model may come in another order of modules.
        self.place = {module: i for i, module in enumerate(sorted(modules))}
        self.theta = nn.Parameter(torch.zeros(len(modules), n_experts))  # (M, E)

    def of_module(self, layer, module, x):
        return self.theta[self.place[module]].float().softmax(-1).expand(len(x), -1)


@dataclass(frozen=True, kw_only=True)
class Dynamic(Fusion):
    """α_l = softmax((W_l z_l + b_l) / temperature): the router reads the session. The defaults are the paper's."""

    source = "2508.17250"
    depends_on_input = learns = True

    scope: str = "layer"
    """`layer`: every layer has its own W, b and z. `global`: one α for all layers, from what enters the lowest."""
    pool: str = "mean"
    """What z is: the `mean` over the prompt, its `last` token, a learned `attention` over it, or every `token` by
    itself, which then has an α of its own."""
    temperature: float = 1.0
    """Above 1: flatter α. Below 1: sharper."""
    top_k: int | None = None
    """Keep the k largest α and renormalise; `None` keeps all."""
    normalize: bool = False
    """Divide z by its root mean square, so that it is about equally large in every layer."""

    def __post_init__(self) -> None:
        require(self.scope in SCOPES, self, "scope", "layer or global")
        require(self.pool in POOLS, self, "pool", "one of " + ", ".join(POOLS))
        require(self.temperature > 0, self, "temperature", "above 0")
        require(self.top_k is None or self.top_k >= 1, self, "top_k", "1 or more, or None")

    @property
    def by_token(self) -> bool:
        return self.pool == "token"

    @property
    def sparse(self) -> bool:
        return self.top_k is not None

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        require(self.top_k is None or self.top_k <= n_experts, self, "top_k", f"at most {n_experts}, the experts")
        return Router(n_layers, n_experts, hidden_size, self)


class Router(Weigher):
    """The input-aware router ψ of RouteDK: a linear layer and a softmax per layer of the student."""

    def __init__(self, n_layers: int, n_experts: int, hidden_size: int, options: Dynamic) -> None:
        super().__init__(n_layers, n_experts)
        self.options = options
        n_routers = n_layers if options.scope == "layer" else 1
        self.weight = nn.Parameter(torch.zeros(n_routers, n_experts, hidden_size))  # W; zero: start from the average
        self.bias = nn.Parameter(torch.zeros(n_routers, n_experts))  # b
        if options.pool == "attention":
            self.query = nn.Parameter(torch.zeros(n_routers, hidden_size))  # zero: start from the mean
        self.once = options.scope == "global"

    def alpha(self, layer, hidden, mask):
        z = self.pooled(layer, hidden.float(), mask)  # (B, D) or (B, T, D)
        logits = z @ self.weight[layer].float().T + self.bias[layer].float()  # (B, E) or (B, T, E)
        alpha = (logits / self.options.temperature).softmax(-1)
        if self.options.top_k is not None and self.options.top_k < self.n_experts:
            kept = alpha.topk(self.options.top_k, dim=-1)
            alpha = torch.zeros_like(alpha).scatter(-1, kept.indices, kept.values)
            alpha = alpha / alpha.sum(-1, keepdim=True)
        return alpha

    def pooled(self, layer: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """z of one layer: what the router sees of a session.

        Shapes:
            hidden: (B, T, D); mask: (B, T) → (B, D), or (B, T, D) for `pool="token"`
        """
        pool, seen = self.options.pool, mask.to(hidden.dtype)
        if pool == "token":
            z = hidden
        elif pool == "last":
            last = mask.shape[1] - 1 - mask.flip(1).to(torch.int64).argmax(1)  # (B,)
            z = hidden[torch.arange(len(hidden), device=hidden.device), last]
        else:
            share = seen / seen.sum(1, keepdim=True)
            if pool == "attention":
                scores = hidden @ self.query[layer].float() / hidden.shape[-1] ** 0.5  # (B, T)
                share = scores.masked_fill(mask == 0, float("-inf")).softmax(-1)
            z = torch.einsum("bt,btd->bd", share, hidden)
        if self.options.normalize:
            z = z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6)
        return z


@dataclass(frozen=True, kw_only=True)
class Ties(Merging):
    """TIES merging of the experts' ΔW: trim small entries, elect a sign per entry, average those that agree."""

    source = "2306.01708"

    density: float = 0.2
    """Share of entries that survive the trimming; 0.2 is what the TIES paper recommends."""
    trim: str = "global"
    """`global`: the largest entries of the whole ΔW, all modules together, as in the TIES paper. `module`: of each
    module by itself."""
    rank: int | None = None
    """Keep the merged ΔW as a product of this rank (a truncated SVD, whose error is reported); `None` keeps the full
    matrix, which needs as much memory as the student's weights."""

    def __post_init__(self) -> None:
        require(0 < self.density <= 1, self, "density", "above 0, at most 1")
        require(self.trim in ("global", "module"), self, "trim", "global or module")
        require(self.rank is None or self.rank >= 1, self, "rank", "1 or more, or None")

    def merged(self, adapters: Sequence[Adapter]) -> Mapping[str, Merged]:
        return merge_adapters(adapters, self.density, self.trim, self.rank)
