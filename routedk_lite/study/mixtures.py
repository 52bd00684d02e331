"""A routed model's answers under changed weights α: sharpened, without an expert, or mixed by hand.

What α becomes is arithmetic. What the model answers then is not: every changed α has to be run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..answers.decoding import greedy_answers
from ..answers.partitions import PartitionDecoder, SizePrior
from ..data.sessions import Bundle, Session
from ..student.pairs import read_pairs
from .votes import consensus_of, drawn

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from .records import RunRecord
    from .study import Study

SHARPENED = ("dynamic", "static")
"""Fusions whose α is changed by temperature and by switching experts off."""
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""At which the model is run. Below 1: α is sharper."""
PARTS = 6
"""Mixtures by hand give every expert a whole number of sixths: 28 mixtures of three experts."""


class Setting(NamedTuple):
    """One change of α."""

    fusion: str
    """`dynamic` or `static`: that fusion's α, changed. `mix`: the same α in all layers."""
    temperature: float
    experts: tuple[int, ...]
    """Those that are left on."""
    shares: tuple[int, ...]
    """`mix` only: each expert's weight in `PARTS`."""


def settings(n_experts: int) -> list[Setting]:
    """The grid: both fusions at every temperature with every two or more experts, then all mixtures by hand."""
    everyone = range(n_experts)
    subsets = [s for size in range(n_experts, 1, -1) for s in combinations(everyone, size)]
    changed = [Setting(f, t, on, ()) for f in SHARPENED for on in subsets for t in TEMPERATURES]
    return changed + [Setting("mix", 1.0, tuple(everyone), shares) for shares in mixtures(n_experts)]


def setting_text(setting: Setting) -> str:
    """As the measurement and the explorer's page name a setting, for example `static 2 0,1` or `mix 3,2,1`."""
    if setting.fusion == "mix":
        return f"mix {','.join(map(str, setting.shares))}"
    return f"{setting.fusion} {setting.temperature:g} {','.join(map(str, setting.experts))}"


def mixtures(n_experts: int, parts: int = PARTS) -> list[tuple[int, ...]]:
    """All ways to give `parts` equal parts to the experts, the first expert's share falling.

    >>> mixtures(2, parts=2)
    [(2, 0), (1, 1), (0, 2)]
    """
    if n_experts == 1:
        return [(parts,)]
    return [(k, *rest) for k in range(parts, -1, -1) for rest in mixtures(n_experts - 1, parts - k)]


def changed_alpha(log_alpha: np.ndarray, temperature: float = 1.0, experts: Sequence[int] | None = None) -> np.ndarray:
    """α after sharpening and after switching experts off: softmax(log α / temperature) among those left on.

    For a router this is the softmax of its own logits over the temperature, since log α differs from them by a number
    that is the same for all experts.

    Args:
        log_alpha: logarithm of α, up to a constant per layer.
        temperature: above 1: flatter. Below 1: sharper.
        experts: places of those left on; `None` is all.

    Shapes:
        log_alpha: (…, E) → (…, E)

    Raises:
        ValueError: a temperature of 0 or less, or no expert left.
    """
    log_alpha = np.asarray(log_alpha, dtype=float)
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature}: must be above 0")
    on = np.zeros(log_alpha.shape[-1], dtype=bool)
    on[list(range(len(on)) if experts is None else experts)] = True
    if not on.any():
        raise ValueError("experts is empty: leave at least one expert on")
    logits = np.where(on, log_alpha / temperature, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@contextmanager
def overridden(model: RoutedModel, alpha: np.ndarray) -> Iterator[None]:
    """Within the block, use these weights in each layer instead of the fusion's.

    Shapes:
        alpha: (L, E), or (B, L, E) for the rows of the batches to come
    """
    with ExitStack() as stack:
        for place, number in enumerate(model.layer_numbers):
            stack.enter_context(model.override(alpha[..., place, :], number))
        yield


def answers_under(
    study: Study, model: RoutedModel, sessions: Sequence[Session], alpha: np.ndarray, decoder: PartitionDecoder | None
) -> dict[int, Sequence[Bundle]]:
    """Session id → bundles, where every session has an α of its own.

    Args:
        study: gives the student and the settings of decoding.
        model: the routed model.
        sessions: what is to be answered.
        alpha: a matrix per session.
        decoder: turns pair logits into bundles; `None` for written answers, greedy or the consensus of many, as the
            profile says.

    Shapes:
        alpha: (S, L, E)
    """
    profile, tokenizer = study.profile, study.student.tokenizer
    weights = {session.id: one for session, one in zip(sessions, alpha, strict=True)}
    if decoder is not None:  # one session at a time: a batch would be sorted anew for each order of its items
        found: dict[int, Sequence[Bundle]] = {}
        for session in sessions:
            with overridden(model, weights[session.id]):
                pairs = read_pairs(
                    model, tokenizer, [session], study.reader, prompt=profile.prompt, batch_size=1, progress=False
                )
            found[session.id] = decoder.decode(pairs[session.id])
        return found
    options = {"prompt": profile.prompt, "decode": profile.decode, "progress": False}
    if profile.answers == "consensus":
        samples = drawn(study, model, sessions, alpha=weights, **options)
        return {answer.id: answer.bundles for answer in consensus_of(study, samples)}
    answers = greedy_answers(model, tokenizer, sessions, alpha=weights, **options)
    return {answer.id: answer.bundles for answer in answers}


def decoder_of(study: Study, run: RunRecord) -> PartitionDecoder | None:
    """The decoder of a recorded run, or `None` where a profile reads bundles from text."""
    if study.profile.answers != "pairs":
        return None
    return PartitionDecoder(prior=SizePrior(study.split("train")), **run.analysis["decoder"])
