"""What the weights α of many sessions look like, and the signs of a router that failed.

A router can fail quietly: the same weights everywhere, one expert for everything, or weights that suit the training
sessions better and better and all others worse.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

UNIFORM_ENTROPY, UNIFORM_VARIANCE = 0.99, 1e-4
"""Share of the largest possible entropy, and variance between sessions, that look like a router that does nothing."""
DOMINANT_LOAD = 0.9
"""Mean weight above which one expert has taken over a layer."""
RISEN = 1.02
"""Last validation loss over the lowest one, above which a fusion learns what holds for its training sessions only. That
it is above the training loss says nothing: the experts know the training sessions already."""


class RoutingStatistics(NamedTuple):
    """What the weights of many sessions look like, layer by layer."""

    entropy: np.ndarray
    """(L,): mean over sessions of the entropy of α, in nats; ln E is uniform."""
    load: np.ndarray
    """(L, E): mean weight of each expert."""
    variance: np.ndarray
    """(L,): variance of a weight between sessions, mean over experts."""
    mutual_information: np.ndarray
    """(L,): between session and expert, in nats: entropy of the mean α minus mean entropy of α."""
    effective_support: np.ndarray | None = None
    """(L,): mean over sessions of exp(entropy of α), as how many experts share the weight: 1 where one has it all, E
    where all have the same (ReMix, arXiv 2603.10160, tells by it how far a router has collapsed). `None`: of a training
    that an earlier version began."""

    def to_json(self) -> dict[str, Any]:
        """As plain lists, five decimals."""
        return {name: np.round(value, 5).tolist() for name, value in self._asdict().items() if value is not None}


def routing_statistics(alpha: np.ndarray) -> RoutingStatistics:
    """Entropy, load, variance, mutual information and effective support of the weights of many sessions.

    Where weights are negative or do not sum to one (LoraHub, FURINA), entropies are those of the shares
    abs(α) / Σ abs(α).

    Shapes:
        alpha: (sessions, L, E)

    Raises:
        ValueError: another shape, or no sessions.
    """
    alpha = np.asarray(alpha, dtype=float)
    if alpha.ndim != 3 or not len(alpha):
        raise ValueError(f"alpha has shape {alpha.shape}: give (sessions, layers, experts), at least one session")

    def entropy(p: np.ndarray) -> np.ndarray:
        return -np.sum(p * np.log(np.clip(p, 1e-12, None)), axis=-1)

    load, shares = alpha.mean(0), _shares(alpha)
    of_session = entropy(shares)
    mean_entropy = of_session.mean(0)
    return RoutingStatistics(
        entropy=mean_entropy,
        load=load,
        variance=alpha.var(0).mean(-1),
        mutual_information=np.maximum(entropy(shares.mean(0)) - mean_entropy, 0.0),
        effective_support=np.exp(of_session).mean(0),
    )


def _shares(alpha: np.ndarray) -> np.ndarray:
    """Weights that sum to one as they are; others as shares of their magnitudes, even where all are zero."""
    if (alpha >= 0).all() and np.allclose(alpha.sum(-1), 1, atol=1e-3):
        return alpha
    sizes = np.abs(alpha)
    total = sizes.sum(-1, keepdims=True)
    return np.where(total > 0, sizes / np.where(total > 0, total, 1), 1 / alpha.shape[-1])


def failure_signs(
    statistics: RoutingStatistics | None, names: Sequence[str], losses: Sequence[float] = ()
) -> list[str]:
    """The published signs of a router that failed, in words; none of them proves it.

    Args:
        statistics: of the validation sessions; `None` where weights are no shares, so that nothing can be told of them.
        names: the experts'.
        losses: validation losses, epoch by epoch.
    """
    signs = []
    n_experts = len(names)
    if n_experts > 1 and statistics is not None:
        uniform = statistics.entropy > UNIFORM_ENTROPY * math.log(n_experts)
        if uniform.all() and (statistics.variance < UNIFORM_VARIANCE).all():
            signs.append(
                f"α is uniform in every layer (entropy {statistics.entropy.mean():.3f} of ln {n_experts} = "
                f"{math.log(n_experts):.3f}, no variance between sessions): the router learned nothing beyond averaging"
            )
        if (statistics.load.max(1) > DOMINANT_LOAD).all():
            chosen = Counter(names[k] for k in statistics.load.argmax(1))
            who = f"the expert {next(iter(chosen))!r} has" if len(chosen) == 1 else "one expert has"
            layers = "" if len(chosen) == 1 else f" ({', '.join(f'{name} in {n}' for name, n in chosen.most_common())})"
            signs.append(f"{who} more than {DOMINANT_LOAD} of the weight in every layer{layers}, whatever the session")
    if losses and losses[-1] > RISEN * min(losses):
        signs.append(
            f"the validation loss rose from {min(losses):.3f} to {losses[-1]:.3f}: what the fusion learns by now holds "
            "for its training sessions only"
        )
    return signs
