"""Chapter 06's table of all fusions: what each learns, what its weights depend on, and how well it does."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fusion.lorahub import LoraHub, search_weights
from ..fusion.routing import train_fusion
from ..fusion.statistics import routing_statistics
from ..statistics import bootstrap_interval

if TYPE_CHECKING:
    from ..config import PromptConfig, RouterConfig
    from ..data.sessions import Session
    from ..fusion.routed import RoutedModel
    from ..student.backbone import Student
    from ..student.pairs import PairReader


def learn_fusion(
    model: RoutedModel,
    student: Student,
    sessions: Iterable[Session],
    folder: Path,
    *,
    config: RouterConfig,
    prompt: PromptConfig,
    reader: PairReader | None = None,
    validation: Iterable[Session] = (),
) -> float | None:
    """Train a fusion, search its weights, or leave it alone, as it needs; what is finished is not done again.

    Args:
        model: with any fusion; trained in place.
        student: the student inside it.
        sessions: training sessions.
        folder: of a training.
        config, prompt, reader, validation: as `train_fusion` takes them.

    Returns:
        Seconds of one step, its share of the validation included, or of one evaluation of a search; `None` where
        nothing is learned.
    """
    sessions = list(sessions)
    if isinstance(model.fusion, LoraHub):
        started = time.perf_counter()
        found = search_weights(model, student, sessions, config=config, prompt=prompt, reader=reader)
        return (time.perf_counter() - started) / len(found.history)
    if not model.fusion.learns:
        return None
    how: dict[str, Any] = {"config": config, "prompt": prompt, "reader": reader, "validation": validation}
    with warnings.catch_warnings(action="ignore"):  # chapter 05 shows them
        result = train_fusion(model, student, sessions, folder, **how, progress=False)
    steps = -(-len(sessions) // (config.micro_batch_size * config.accumulation_steps)) * config.epochs
    return result.seconds / steps


def fused_row(
    name: str, model: RoutedModel, f1: np.ndarray, alpha: np.ndarray | None, seconds: float | None
) -> dict[str, Any]:
    """One row of the table.

    Args:
        name: of the fusion.
        model: with its fusion, which has learned.
        f1: strict F1 of every test session.
        alpha: of every test session; `None` where experts are merged.
        seconds: from `learn_fusion`.

    Shapes:
        f1: (S,); alpha: (S, L, E)
    """
    fusion, searched = model.fusion, isinstance(model.fusion, LoraHub)
    ci = bootstrap_interval(f1, generator=np.random.default_rng(0))
    n_learned = sum(parameter.numel() for parameter in model.weigher.parameters())
    return {
        "fusion": name,
        "source": f"arXiv {fusion.source}" if fusion.source else "–",
        "trained?": "searched" if searched else "yes" if fusion.learns else "no",
        "α depends on": depends_on(model),
        "parameters learned": len(model.expert_names) if searched else n_learned,
        "strict F1 [95 %]": f"{ci.estimate:.3f} [{ci.low:.3f}, {ci.high:.3f}]",
        "effective support": None if alpha is None else float(routing_statistics(alpha).effective_support.mean()),
        "seconds a step": seconds,
    }


def depends_on(model: RoutedModel) -> str:
    """What α depends on, in words."""
    if not model.fusion.has_alpha:
        return "no α: one update"
    read = "token" if model.fusion.by_token else "session" if model.fusion.depends_on_input else "nothing"
    return f"{read}, per module" if model.weigher.by_module else read
