"""How far kinds of knowledge pull a student in different directions: the conflict that RouteDK starts from, measured.

RouteDK (arXiv 2508.17250) says that kinds of knowledge disturb each other in one student, and shows final scores.
Here the disturbance itself is measured while an adapter stands on the student: by the angle between the gradients of
two kinds, layer by layer, and by what a step for one kind does to the loss of another. Two batches of the *same* kind
disagree as well, since they hold other sessions: that is the noise floor, and only what lies beyond it is conflict.
Gradients with a cosine below zero are what Yu et al. (arXiv 2001.06782) call conflicting.
`overlap` compares experts that have been trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..config import KnowledgeConfig, OptimizerConfig, PromptConfig
from ..data.sessions import Session
from ..statistics import bootstrap_interval
from ..student.backbone import Student
from ..student.batches import AnswerCollator
from ..student.examples import encode_example
from ..student.generation import pad_token
from ..student.pairs import PairReader, needed_reader, pairs_at
from ..student.training import batch_loss
from ..teacher.knowledge import Knowledge
from .measurable import measurable

if TYPE_CHECKING:
    from torch import nn

Loss = Callable[[], torch.Tensor]
"""The loss of one batch under the present weights, as a scalar."""
N_DRAWS, CONFIDENCE = 2000, 0.95
"""Resamples of the batches, and the share of the intervals that should hold the true value."""


class GradientCosines(NamedTuple):
    """Cosines between the gradients of batches, mean over pairs of batches that share no session."""

    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    """As numbered in the student, from 0."""
    cosine: np.ndarray
    """(L + 1, K, K, 3): estimate, low, high, the last row for all layers together. The diagonal, two batches of one
    kind, is the noise floor."""
    gap: np.ndarray
    """(L + 1, K, K, 3): cosine between two kinds less the geometric mean of their own, which it would be if the kinds
    pulled the same way and differed in noise alone; below zero: conflict beyond noise."""

    def to_json(self) -> dict[str, Any]:
        """As plain lists, five decimals."""
        return {
            "kinds": list(self.kinds),
            "layers": list(self.layers),
            **{name: np.round(getattr(self, name), 5).tolist() for name in ("cosine", "gap")},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> GradientCosines:
        """What `to_json` gave."""
        return cls(tuple(row["kinds"]), tuple(row["layers"]), np.array(row["cosine"]), np.array(row["gap"]))


class Interference(NamedTuple):
    """What a gradient step for one kind does to the loss of another, on other sessions."""

    kinds: tuple[str, ...]
    before: tuple[float, ...]
    """Mean loss of each kind before any step, in nats."""
    change: np.ndarray
    """(K, K, 3): relative change of the loss of the second kind after a step for the first: estimate, low, high. Below
    zero: the step helps. The diagonal, a step for the kind itself, is what there is to gain."""

    def to_json(self) -> dict[str, Any]:
        """As plain lists, seven decimals, since a step is small."""
        return {
            "kinds": list(self.kinds),
            "before": [round(value, 5) for value in self.before],
            "change": np.round(self.change, 7).tolist(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Interference:
        """What `to_json` gave."""
        return cls(tuple(row["kinds"]), tuple(row["before"]), np.array(row["change"]))


# --- objectives ---------------------------------------------------------------------------------------------------


def knowledge_losses(
    student: Student,
    model: nn.Module,
    sessions: Sequence[Session],
    told: Mapping[str, tuple[Knowledge | None, KnowledgeConfig]],
    *,
    config: OptimizerConfig,
    prompt: PromptConfig | None = None,
    reader: PairReader | None = None,
    n_batches: int = 8,
    batch_size: int = 4,
    generator: np.random.Generator,
) -> dict[str, list[Loss]]:
    """The training objective of each kind of knowledge on several batches; the same sessions for every kind.

    Args:
        student: gives the tokenizer.
        model: the student with an adapter on it, trained, fresh or in training.
        sessions: training sessions, from which batches are drawn without repetition.
        told: name of a kind → the knowledge, and which part of it stands where.
        config: the weights of answers and pairs in the loss, and the longest text.
        prompt: how sessions are written.
        reader: reads pairs, where `config.pair_weight` asks for them.
        n_batches: batches of each kind.
        batch_size: sessions in a batch.
        generator: draws the sessions.

    Raises:
        ValueError: too few sessions, no kind of knowledge, no reader for the pairs, or a text that is too long.
        KeyError: a kind knows nothing about a session.
    """
    sessions, wanted = list(sessions), n_batches * batch_size
    if not told:
        raise ValueError("told is empty: name one kind of knowledge or more")
    if n_batches < 1 or batch_size < 1 or len(sessions) < wanted:
        raise ValueError(
            f"n_batches = {n_batches}, batch_size = {batch_size}: needs both 1 or more, and {wanted} sessions of "
            f"the {len(sessions)} given"
        )
    reader = needed_reader(config, reader)
    chosen = [sessions[i] for i in generator.permutation(len(sessions))[:wanted]]
    collate = AnswerCollator(pad_token(student.model, student.tokenizer), pairs=reader is not None)
    losses = {}
    for kind, (knowledge, where) in told.items():
        options = {"max_length": config.max_length, "knowledge": knowledge, "told": where}
        options["pairs_at"] = pairs_at(config, reader)
        rows = [encode_example(s, student.tokenizer, prompt or PromptConfig(), **options).row() for s in chosen]
        batches = [collate(rows[start : start + batch_size]) for start in range(0, wanted, batch_size)]
        losses[kind] = [partial(batch_loss, model, batch, config, reader) for batch in batches]
    return losses


# --- gradients ----------------------------------------------------------------------------------------------------


def gradient_cosines(
    model: nn.Module, losses: Mapping[str, Sequence[Loss]], *, generator: np.random.Generator
) -> GradientCosines:
    """Cosines between the gradients of the adapter's weights, between kinds and within each.

    Batch m of one kind is compared with all batches but m of the other, which may have its sessions. Intervals come
    from resampling batches, not pairs of batches, which are not independent. Gradients are taken in float32 and
    without dropout, so that nothing but the sessions is left to chance; all of them are held in memory (kinds ×
    batches × adapter weights). Model and adapter are the same before and after.

    Args:
        model: the student with an adapter on it; its LoRA weights are what is differentiated.
        losses: kind → a loss per batch, three or more, the same number and the same sessions for every kind.
        generator: of the resampling.

    Raises:
        ValueError: too few batches, unequal numbers of them, or a model without LoRA weights.
        RuntimeError: no gradient reaches the adapter.
    """
    kinds, n_batches = _check_losses(losses, at_least=3)
    with measurable(model) as layers:
        parameters = [p for group in layers.values() for p in group]
        sizes = [len(group) for group in layers.values()]
        rows = []
        for loss in (loss for kind in kinds for loss in losses[kind]):
            gradients = iter(_gradients(loss, parameters))
            rows.append([torch.cat([next(gradients).flatten().cpu() for _ in range(size)]) for size in sizes])
    # Layer by layer: in float64, all gradients of a large student together would not fit into memory.
    inner = np.stack([_products(torch.stack(group).double()) for group in zip(*rows, strict=True)])  # (L, K·M, K·M)
    inner = np.concatenate([inner, inner.sum(0, keepdims=True)])
    norms = np.sqrt(np.einsum("lii->li", inner)).clip(min=1e-30)
    cosines = inner / norms[:, :, None] / norms[:, None, :]
    by_kind = cosines.reshape(len(inner), len(kinds), n_batches, len(kinds), n_batches).transpose(0, 1, 3, 2, 4)
    cosine, gap = _resampled(by_kind, generator)
    return GradientCosines(kinds, tuple(layers), cosine, gap)


def _products(gradients: torch.Tensor) -> np.ndarray:
    """Of each with each: (K·M, weights) → (K·M, K·M)."""
    return (gradients @ gradients.T).numpy()


def _gradients(loss: Loss, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients without touching `.grad`; zeros where a weight plays no part."""
    with torch.enable_grad():
        found = torch.autograd.grad(loss(), parameters, allow_unused=True)
    if all(g is None or not g.any() for g in found):
        raise RuntimeError("no gradient reaches the adapter: is the loss computed from the model that it is on?")
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _resampled(cosines: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means over pairs of different batches, and gaps, each with its percentile interval over resampled batches.

    Shapes:
        cosines: (L, K, K, M, M) → (L, K, K, 3), (L, K, K, 3)
    """
    n = cosines.shape[-1]
    different = 1 - np.eye(n)
    draws = generator.multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
    draws = draws[(draws > 0).sum(1) > 1]  # a draw of one batch alone holds no pair
    weights = np.concatenate([np.ones((1, n)), draws])  # (1 + D, M): what was seen, then the draws
    means = np.einsum("dm,lijmn,dn->dlij", weights, cosines * different, weights, optimize=True)
    means /= np.einsum("dm,mn,dn->d", weights, different, weights)[:, None, None, None]
    own = np.sqrt(np.einsum("dlii->dli", means).clip(min=0))
    gaps = means - own[..., :, None] * own[..., None, :]
    return _with_interval(means), _with_interval(gaps)


def _with_interval(values: np.ndarray) -> np.ndarray:
    """Shapes: (1 + D, …), the estimate first → (…, 3)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail], axis=0)
    return np.stack([values[0], low, high], axis=-1)


# --- steps --------------------------------------------------------------------------------------------------------


def interference(
    model: nn.Module, losses: Mapping[str, Sequence[Loss]], *, length: float = 0.01, generator: np.random.Generator
) -> Interference:
    """Loss of every kind after one gradient step for another, relative to before; each step is taken back.

    The step for batch m goes against its gradient and is judged by batch m + 1 of every kind, which has other
    sessions. All steps have the same length, so that a kind with large gradients does not seem more disturbing.

    Args:
        model: the student with an adapter on it; its LoRA weights move. It is the same before and after.
        losses: kind → a loss per batch, two or more, the same number and the same sessions for every kind.
        length: of the step, as a share of the norm of all LoRA weights.
        generator: of the bootstrap over batches.

    Raises:
        ValueError: too few batches, unequal numbers of them, a length that is not above 0, or no LoRA weights.
        RuntimeError: no gradient reaches the adapter.
    """
    kinds, n_batches = _check_losses(losses, at_least=2)
    if not length > 0:
        raise ValueError(f"length = {length}: a step needs a length above 0")
    change = np.empty((len(kinds), len(kinds), n_batches))
    with measurable(model) as layers:
        parameters = [p for group in layers.values() for p in group]
        start = [p.detach().clone() for p in parameters]
        step = length * _norm(start)
        before = np.array([[_value(loss) for loss in losses[kind]] for kind in kinds])
        for i, kind in enumerate(kinds):
            for m, loss in enumerate(losses[kind]):
                gradients, judge = _gradients(loss, parameters), (m + 1) % n_batches
                scale = step / _norm(gradients)
                with torch.no_grad():
                    for p, at, g in zip(parameters, start, gradients, strict=True):
                        p.copy_(at - scale * g)
                after = np.array([_value(losses[other][judge]) for other in kinds])
                change[i, :, m] = after / before[:, judge] - 1
                with torch.no_grad():
                    for p, at in zip(parameters, start, strict=True):
                        p.copy_(at)
    options = {"generator": generator, "n_draws": N_DRAWS, "confidence": CONFIDENCE}
    intervals = [[list(bootstrap_interval(values, **options)) for values in row] for row in change]
    return Interference(kinds, tuple(before.mean(1).tolist()), np.array(intervals))


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.cpu().double().square().sum()) for t in tensors))


def _value(loss: Loss) -> float:
    with torch.no_grad():
        return float(loss())


# --- what both share ----------------------------------------------------------------------------------------------


def _check_losses(losses: Mapping[str, Sequence[Loss]], *, at_least: int) -> tuple[tuple[str, ...], int]:
    counts = {kind: len(of_kind) for kind, of_kind in losses.items()}
    if not counts or len(set(counts.values())) > 1 or min(counts.values()) < at_least:
        raise ValueError(f"losses has {counts or 'no'} batches: give {at_least} or more, as many of every kind")
    return tuple(counts), next(iter(counts.values()))
