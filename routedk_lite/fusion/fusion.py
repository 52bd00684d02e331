"""The four ways to fuse LoRA experts, and the weights they give: α, one share per expert.

RouteDK puts E LoRA experts beside every linear module of layer l and adds up their updates:

    y = W₀ x + Σᵢ α_{l,i} · sᵢ Bᵢ Aᵢ x        Σᵢ α_{l,i} = 1

What differs between the fusions is where α comes from. *Average*: always 1/E. *Static*: softmax(θ_l), learned once for
all inputs. *Dynamic*, the paper's router: softmax(W_l z_l + b_l), with z_l the mean of the prompt's hidden states that
enter layer l. *TIES* (arXiv 2306.01708) has no α: it merges the ΔW themselves, see `ties`. `routed.RoutedModel` puts a
fusion and its experts into a student.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

POOLS = ("mean", "last", "attention", "token")
SCOPES = ("layer", "global")


def _require(ok: bool, owner: Any, name: str, rule: str) -> None:
    if not ok:
        raise ValueError(f"{type(owner).__name__}({name}={getattr(owner, name)!r}): {name} must be {rule}")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How experts are fused: settings only. `weigher` makes the module that holds what is learned."""

    depends_on_input = False
    """Whether α differs between sessions."""

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        """A fresh module that gives α for each of the layers."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Name and settings; `fusion_from_json` reads them back."""
        return {"fusion": type(self).__name__, **asdict(self)}


class Weigher(nn.Module):
    """Gives α of each layer; every expert the same share unless a subclass says otherwise."""

    once = False
    """Whether there is one α for all layers, made from what enters the lowest."""

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
        _require(0 <= self.expert < n_experts, self, "expert", f"0 to {n_experts - 1}, the experts there are")
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
    """α_l = softmax(θ_l), learned and the same for every input."""

    scope: str = "layer"
    """`layer`: a θ per layer. `global`: one for the whole model."""

    def __post_init__(self) -> None:
        _require(self.scope in SCOPES, self, "scope", "layer or global")

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return _Static(n_layers, n_experts, n_layers if self.scope == "layer" else 1)


class _Static(Weigher):
    def __init__(self, n_layers: int, n_experts: int, n_thetas: int) -> None:
        super().__init__(n_layers, n_experts)
        self.theta = nn.Parameter(torch.zeros(n_thetas, n_experts))  # (L or 1, E); zero: start from the average

    def alpha(self, layer, hidden, mask):
        alpha = self.theta[min(layer, len(self.theta) - 1)].float().softmax(-1)  # (E,)
        return alpha.expand(hidden.shape[0], -1)


@dataclass(frozen=True, kw_only=True)
class Dynamic(Fusion):
    """α_l = softmax((W_l z_l + b_l) / temperature): the router reads the session. The defaults are the paper's."""

    depends_on_input = True

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
        _require(self.scope in SCOPES, self, "scope", "layer or global")
        _require(self.pool in POOLS, self, "pool", "one of " + ", ".join(POOLS))
        _require(self.temperature > 0, self, "temperature", "above 0")
        _require(self.top_k is None or self.top_k >= 1, self, "top_k", "1 or more, or None")

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        _require(self.top_k is None or self.top_k <= n_experts, self, "top_k", f"at most {n_experts}, the experts")
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
class Ties(Fusion):
    """TIES merging of the experts' ΔW: trim small entries, elect a sign per entry, average those that agree."""

    density: float = 0.2
    """Share of entries that survive the trimming; 0.2 is what the TIES paper recommends."""
    trim: str = "global"
    """`global`: the largest entries of the whole ΔW, all modules together, as in the TIES paper. `module`: of each
    module by itself."""
    rank: int | None = None
    """Keep the merged ΔW as a product of this rank (a truncated SVD, whose error is reported); `None` keeps the full
    matrix, which needs as much memory as the student's weights."""

    def __post_init__(self) -> None:
        _require(0 < self.density <= 1, self, "density", "above 0, at most 1")
        _require(self.trim in ("global", "module"), self, "trim", "global or module")
        _require(self.rank is None or self.rank >= 1, self, "rank", "1 or more, or None")

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return Weigher(n_layers, 1)  # what is left is one merged expert


FUSIONS: dict[str, type[Fusion]] = {cls.__name__: cls for cls in (Average, OneHot, Static, Dynamic, Ties)}
"""The fusions by name."""


def fusion_from_json(data: dict[str, Any]) -> Fusion:
    """Read back what `Fusion.to_json` wrote.

    Raises:
        ValueError: no such fusion or setting.
    """
    name = data.get("fusion")
    if name not in FUSIONS:
        raise ValueError(f"unknown fusion {name!r}: choose one of {', '.join(FUSIONS)}")
    known = {f.name for f in fields(FUSIONS[name])}
    settings = {key: value for key, value in data.items() if key != "fusion"}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{name} has no setting {unknown[0]!r}: it has {', '.join(sorted(known)) or 'none'}")
    return FUSIONS[name](**settings)
