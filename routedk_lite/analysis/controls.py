"""Is it the router? Controls that change nothing but α, and experts that are switched off.

A routed model that beats an average may owe it to its router, or to any uneven mixture. Three controls tell these
apart. Each takes the α that the router gave to every session, and hands out others in its place:

- `shuffled`: another session's. Mean and spread of α stay exactly what they were; only the fit to the session is gone.
- `mean`: the mean over all sessions. What is left is a static fusion at the router's own average.
- `random`: a mixture drawn for each session. Nothing that was learned is left.

Where pairs are read in two orders of the items, the router gives each order its own α. A control is right if it does,
too (`PairConfig.control` says `order`): with the α of one order for both, it loses what the router knew of the order
beside what it knew of the session. The recorded controls of `smol` were made so, and may look worse for it.

Whether an expert matters is asked by leaving it out: its α becomes zero, and the others' are divided by their sum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..fusion.base import Weigher
from ..fusion.fusion import Router

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel

CONTROLS = ("random", "shuffled", "mean")
THIRDS = ("lower", "middle", "upper")


def control_alpha(kind: str, alpha: Mapping[int, np.ndarray], *, seed: int = 0) -> dict[int, np.ndarray]:
    """Other weights for the same sessions, for `decoding.greedy_answers` or `answering.answer_sessions`.

    Args:
        kind: one of `CONTROLS`. `random` draws a session's mixture evenly from all mixtures, the same for all layers.
        alpha: session id → the router's α, from `routing.trace_alpha`.
        seed: of what is drawn. A random mixture depends on it and the session alone.

    Shapes:
        alpha: (L, E) each → (L, E) each

    Raises:
        ValueError: unknown kind; no sessions, or a single one, which cannot be given another's.
    """
    if kind not in CONTROLS:
        raise ValueError(f"kind = {kind!r}: choose one of {', '.join(CONTROLS)}")
    if len(alpha) < 2:
        raise ValueError(f"alpha holds {len(alpha)} sessions: a control needs two or more")
    ids = sorted(alpha)
    if kind == "mean":
        mean = np.mean([alpha[id_] for id_ in ids], axis=0)
        return {id_: mean.copy() for id_ in ids}
    if kind == "shuffled":
        order = np.random.default_rng(seed).permutation(ids).tolist()  # everyone gets the next one's: nobody its own
        return {id_: alpha[other].copy() for id_, other in zip(order, order[1:] + order[:1], strict=True)}
    drawn = {}
    for id_ in ids:
        n_layers, n_experts = alpha[id_].shape
        mixture = np.random.default_rng([seed, id_ % 2**32]).dirichlet(np.ones(n_experts))
        drawn[id_] = np.tile(mixture, (n_layers, 1))
    return drawn


def layer_thirds(layers: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The layers that have experts in three parts of about the same size, from the one that reads the input on.

    >>> layer_thirds([11, 12, 13, 14])
    {'lower': (11, 12), 'middle': (13,), 'upper': (14,)}

    Raises:
        ValueError: fewer than three layers.
    """
    if len(layers) < len(THIRDS):
        raise ValueError(f"layers = {tuple(layers)}: three parts need three layers or more")
    parts = np.array_split(np.array(sorted(layers)), len(THIRDS))
    return {name: tuple(part.tolist()) for name, part in zip(THIRDS, parts, strict=True)}


def without(alpha: torch.Tensor, experts: Collection[int]) -> torch.Tensor:
    """α with the weights of some experts set to zero and the others divided by what is left.

    Args:
        alpha: weights that sum to one.
        experts: places of those that are left out.

    Shapes:
        alpha: (…, E) → (…, E)

    Raises:
        ValueError: no expert is left.
    """
    off = sorted({int(k) % alpha.shape[-1] for k in experts})
    if len(off) == alpha.shape[-1]:
        raise ValueError("experts names all of them: leave at least one in")
    kept = alpha.clone()
    kept[..., off] = 0
    # A router that was sure of an expert that is gone may leave nothing: then the others share alike.
    share = torch.full_like(kept, 1 / (kept.shape[-1] - len(off)))
    share[..., off] = 0
    left = kept.sum(-1, keepdim=True)
    return torch.where(left > 1e-9, kept / left.clamp(min=1e-9), share)


@contextmanager
def fewer_at_a_time(model: RoutedModel, k: int) -> Iterator[None]:
    """Within the block, only the k experts of the largest α take part in each layer; the others' are not computed.

    Args:
        model: with a router (`Dynamic`).
        k: experts at a time.

    Raises:
        ValueError: no router, or `k` outside of one to all of its experts.
    """
    if not isinstance(model.weigher, Router):
        raise ValueError(f"{type(model.fusion).__name__} has no router: α does not say which experts to leave out")
    if not 1 <= k <= model.weigher.n_experts:
        raise ValueError(f"k = {k}: choose 1 to {model.weigher.n_experts}, the experts")
    whole = model.fusion
    model.fusion = model.weigher.options = replace(whole, top_k=k)
    try:
        yield
    finally:
        model.fusion = model.weigher.options = whole


class _Lesioned(Weigher):
    """A weigher whose α loses some experts, in some layers."""

    def __init__(self, whole: Weigher, off: Collection[int], layers: Collection[int]) -> None:
        super().__init__(whole.n_layers, whole.n_experts)
        self.whole, self.off, self.layers = whole, frozenset(off), frozenset(layers)
        self.by_module, self.reads_twice, self.shares = whole.by_module, whole.reads_twice, whole.shares
        self.lowest: torch.Tensor | None = None

    def alpha(self, layer, hidden, mask):
        if not self.whole.once:
            return self._left(layer, self.whole.alpha(layer, hidden, mask))
        if layer == 0:
            self.lowest = self.whole.alpha(0, hidden, mask)
        return self._left(layer, self.lowest)

    def of_module(self, layer, module, x):
        return self._left(layer, self.whole.of_module(layer, module, x))

    def _left(self, layer: int, alpha: torch.Tensor) -> torch.Tensor:
        if layer not in self.layers:
            return alpha
        if self.whole.shares:
            return without(alpha, self.off)
        alpha = alpha.clone()
        alpha[..., sorted(self.off)] = 0
        return alpha


@contextmanager
def knocked_out(model: RoutedModel, experts: Sequence[str], layers: Collection[int] | None = None) -> Iterator[None]:
    """Within the block, these experts take no part; the fusion weighs the others as it did.

    Weights that sum to one are renormalised.

    The router goes on reading: what an expert no longer does in a lower layer changes what it sees in a higher one.

    Args:
        model: with any fusion that has an α.
        experts: names, as in `model.expert_names`.
        layers: numbers of the decoder layers in which they are missing; `None` is everywhere.

    Raises:
        ValueError: unknown experts, all of them, a layer without experts, or a fusion without α (TIES).
    """
    for name in experts:
        if name not in model.expert_names:
            raise ValueError(f"no expert {name!r}: this model has {', '.join(model.expert_names)}")
    places = [model.expert_names.index(name) for name in experts]
    numbers = model.layer_numbers if layers is None else tuple(layers)
    if wrong := [number for number in numbers if number not in model.gates]:
        raise ValueError(f"layer {wrong[0]} has no experts; these have: {list(model.layer_numbers)}")
    if not model.fusion.has_alpha:
        raise ValueError(f"{type(model.fusion).__name__} has no α: its experts cannot be taken apart again")
    without(torch.ones(model.weigher.n_experts), places)  # complains before anything has changed
    whole = model.weigher
    model.weigher = _Lesioned(whole, places, [model.layer_numbers.index(number) for number in numbers])
    try:
        yield
    finally:
        model.weigher = whole
