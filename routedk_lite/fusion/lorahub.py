"""LoraHub (Huang et al., arXiv 2307.13269): one weight per expert, over A and over B, found without a gradient.

    ΔW = (Σᵢ wᵢ Bᵢ)(Σᵢ wᵢ Aᵢ),   abs(wᵢ) ≤ 1.5

The same w in every module. It adds up A and B apart, so ΔW has cross terms wᵢ wⱼ Bᵢ Aⱼ that belong to no expert. w
minimises the loss on a few examples plus 0.05 · mean abs(wᵢ), as the code of its authors has it, from w = 0 on. They
search with nevergrad; here it is the simplex search of Nelder and Mead (1965) from scipy, which needs no gradient
either and for a handful of weights not many evaluations.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..config import PromptConfig, RouterConfig
from ..data.sessions import Session
from ..student.adapters import Adapter, LowRank, adapted_modules
from ..student.backbone import Student
from ..student.batches import AnswerCollator
from ..student.examples import encode_example
from ..student.generation import pad_token
from ..student.pairs import PairReader, needed_reader, pairs_at
from ..student.training import batch_loss
from ..student.unchanged import evaluating, unchanged_after_an_error
from .base import Fusion, Weigher
from .layers import RoutedLinear

BOUND = 1.5
"""The largest weight, of either sign."""
PENALTY = 0.05
"""Of the mean magnitude of the weights."""
EXAMPLES, EVALUATIONS = 16, 40
"""Sessions that the loss is measured on, and how often; the authors' default is 40 evaluations, too."""
STEP = 0.5
"""How far the first simplex reaches from w = 0."""
MICRO_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class LoraHub(Fusion):
    """ΔW = (Σᵢ wᵢ Bᵢ)(Σᵢ wᵢ Aᵢ), with one w for the whole model that `search_weights` finds.

    Before the search w is zero, and the student as it was. α is w, which may be negative and need not sum to one. A and
    B of expert i each get √sᵢ of its scale, so that a single expert of weight one is itself.
    """

    source = "2307.13269"

    def prepared(self, adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
        for module in adapted_modules(adapters):
            ranks = {a.name: a.modules[module].a.shape[0] for a in adapters if module in a.modules}
            if len(set(ranks.values())) > 1:
                listed = ", ".join(f"{name!r} has {rank}" for name, rank in ranks.items())
                raise ValueError(
                    f"LoraHub adds up the experts' A and B entry by entry, which needs one rank, and in {module} "
                    f"{listed}: train them with one rank, or choose another fusion"
                )
        return tuple(
            adapter._replace(modules={name: _halved(update) for name, update in adapter.modules.items()})
            for adapter in adapters
        )

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return _Searched(n_layers, n_experts)


def _halved(update: LowRank) -> LowRank:
    """The same update with its scale in A and B, half of it each."""
    root = abs(update.scale) ** 0.5
    return LowRank(update.a.float() * root, update.b.float() * (root if update.scale >= 0 else -root), 1.0)


class _Searched(Weigher):
    shares = False

    def __init__(self, n_layers: int, n_experts: int) -> None:
        super().__init__(n_layers, n_experts)
        self.register_buffer("w", torch.zeros(n_experts))  # no gradient reaches it, but it is saved

    def alpha(self, layer, hidden, mask):
        return self.w.expand(hidden.shape[0], -1)

    def linear(self, base, updates, gate, name, weigh):
        return _Summed(base, updates, gate, name)


class _Summed(RoutedLinear):
    """y = W₀ x + (Σᵢ αᵢ Bᵢ)(Σᵢ αᵢ Aᵢ) x."""

    def update(self, x, alpha, rows):
        a, b, owner = (
            (self.a, self.b, self.owner) if rows is None else (self.a[rows], self.b[:, rows], self.owner[rows])
        )
        weights = alpha[..., owner].to(a.dtype)  # (B, R) or (B, T, R), R = experts · r
        if weights.ndim == 2:
            weights = weights[:, None]
        r = int((owner == owner[0]).sum())
        inner = (nn.functional.linear(x, a) * weights).unflatten(-1, (-1, r)).sum(-2)  # (B, T, r)
        return nn.functional.linear(inner.repeat(1, 1, a.shape[0] // r) * weights, b)

    def delta(self, alpha):
        weights = alpha[self.owner]  # (R,)
        r = int((self.owner == self.owner[0]).sum())
        a = (self.a.float() * weights[:, None]).unflatten(0, (-1, r)).sum(0)
        b = (self.b.float() * weights).unflatten(1, (-1, r)).sum(1)
        return b @ a


class Found(NamedTuple):
    """What a search for weights has found."""

    weights: tuple[float, ...]
    """One for each expert."""
    objective: float
    """Loss and penalty, the lowest that was met."""
    history: tuple[float, ...]
    """The objective of every evaluation, in order; the first is that of w = 0."""


def search_weights(
    model,
    student: Student,
    sessions: Iterable[Session],
    *,
    config: RouterConfig | None = None,
    prompt: PromptConfig | None = None,
    reader: PairReader | None = None,
    n_examples: int = EXAMPLES,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
) -> Found:
    """Find LoraHub's w on a few sessions, and set it.

    Args:
        model: a `RoutedModel` with `LoraHub`; its w is changed in place.
        student: the student inside it.
        sessions: training sessions, of which a few are drawn.
        config: what the loss is, and how long a session may be; what else stands there is for gradients.
        prompt: how sessions are written.
        reader: reads pairs of items, where `config.pair_weight` asks for them.
        n_examples: how many are drawn; all, where there are fewer.
        evaluations: how often the loss may be measured.
        seed: of the sessions that are drawn, and of the first simplex.

    Raises:
        ValueError: another fusion, no sessions, or one too long; pairs are asked for, and there is no reader.
    """
    from scipy.optimize import minimize

    if not isinstance(model.fusion, LoraHub):
        raise ValueError(f"{type(model.fusion).__name__} has no weights to search: give a model with LoraHub")
    sessions, config = list(sessions), config or RouterConfig()
    reader = needed_reader(config, reader)
    if not sessions:
        raise ValueError("sessions is empty: the loss is measured on at least one training session")
    chosen = random.Random(seed).sample(sessions, min(n_examples, len(sessions)))
    options = {"max_length": config.max_length, "pairs_at": pairs_at(config, reader)}
    rows = [encode_example(s, student.tokenizer, prompt or PromptConfig(), **options).row() for s in chosen]
    rows.sort(key=lambda row: len(row["input_ids"]))
    pad = pad_token(student.model, student.tokenizer)
    collate = AnswerCollator(pad, prompt_mask=True, pairs=reader is not None)
    batches = [collate(rows[i : i + MICRO_BATCH]) for i in range(0, len(rows), MICRO_BATCH)]
    met: list[tuple[float, np.ndarray]] = []

    def objective(w: np.ndarray) -> float:
        model.weigher.w.copy_(torch.as_tensor(w, dtype=torch.float32))
        with torch.no_grad():
            losses = [float(batch_loss(model, batch, config, reader)) for batch in batches]
        loss = np.average(losses, weights=[len(batch["labels"]) for batch in batches])
        met.append((float(loss) + PENALTY * float(np.abs(w).mean()), w.copy()))
        return met[-1][0]

    n = len(model.adapters)
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    simplex = np.concatenate([np.zeros((1, n)), STEP * axes])
    options = {"initial_simplex": simplex, "maxfev": evaluations, "xatol": 1e-3, "fatol": 1e-4}
    with evaluating(model), unchanged_after_an_error(model.weigher):
        minimize(objective, simplex[0], method="Nelder-Mead", bounds=[(-BOUND, BOUND)] * n, options=options)
    best, w = min(met, key=lambda one: one[0])
    model.weigher.w.copy_(torch.as_tensor(w, dtype=torch.float32))
    return Found(tuple(float(one) for one in w), best, tuple(value for value, _ in met))
