"""Fused experts as runs: the method's own, those of other papers, and the votes of either.

As in `experiments`, every function gives the fields of a record that differ between runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..answers.decoding import Answer
from ..answers.voting import vote_all
from ..fusion.lorahub import LoraHub, search_weights
from ..fusion.routed import RoutedModel
from ..fusion.routing import trace_alpha, train_fusion
from ..fusion.shipping import unpack_fusion
from ..fusion.statistics import routing_statistics
from ..locks import locked
from ..student.adapters import read_adapter
from ..student.experts import load_expert, unloaded
from .experiments import answers_of, experts, made_from, train, training_fields
from .fusing import fusions
from .variants import train_variant
from .votes import sampled, vote_facts, voting_curves

if TYPE_CHECKING:
    from ..data.sessions import Session
    from .study import Study


def adapter(study: Study, name: str) -> Path:
    """The folder of an expert of the method, or of a variant, trained if need be."""
    return (train(study, name) if name in experts(study) else train_variant(study, name)[0]).folder


@contextmanager
def routed(study: Study, name: str):
    """The student with the experts of a fusion on it, trained where the fusion learns; with its training, if any.

    LoraHub's weights are searched each time, which takes a minute rather than an hour.
    """
    chosen, names = fusions(study)[name]
    folders = [adapter(study, expert_name) for expert_name in names]
    model = RoutedModel(study.student.model, folders, chosen, student=study.student.info.id)
    try:
        result = None
        if list(model.weigher.parameters()):
            folder = study.work / f"fusion-{name}-seed{study.seed}"
            with locked(folder):
                unpack_fusion(study.shipped, chosen, model.expert_names, folder)
                result = train_fusion(
                    model,
                    study.student,
                    study.split("train"),
                    folder,
                    config=study.profile.router,
                    prompt=study.profile.prompt,
                    reader=study.reader,
                    validation=study.split("validation"),
                    seed=study.seed,
                    progress=study.progress,
                )
        elif isinstance(chosen, LoraHub):
            how = {"config": study.profile.router, "prompt": study.profile.prompt, "reader": study.reader}
            search_weights(model, study.student, study.split("train"), **how, seed=study.seed)
        yield model, result
    finally:
        model.unload()


def fusion(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Several experts in one model: greedy answers, and α of every test session."""
    name, started = config["fusion_name"], time.perf_counter()
    with routed(study, name) as (model, result):
        spent = time.perf_counter() - started
        made = {
            **answers_of(study, model, f"fusion-{name}-{key}"),
            **made_from(study, model.adapters),
        }
        if result is not None:
            made["training"] = training_fields(result, spent)
            made["analysis"]["warnings"] = list(result.warnings)
        if model.truncation_error:
            made["analysis"]["truncation_error"] = float(np.mean(list(model.truncation_error.values())))
        if model.fusion.has_alpha:
            alpha = traced(study, model, study.split("test"))
            made["analysis"] |= routing_fields(model, alpha)
            rows = zip(study.split("test"), np.round(alpha, 4).tolist(), strict=True)
            made["attachments"]["alpha"] = ({"id": s.id, "alpha": a} for s, a in rows)
    return made


def routing_fields(model: RoutedModel, alpha: np.ndarray) -> dict[str, Any]:
    """What a record's `analysis` says of a routed model: which experts in which layers, and what α does.

    Shapes:
        alpha: (S, L, E), of the test sessions
    """
    return {
        "experts": list(model.expert_names),
        "layers": list(model.layer_numbers),
        **routing_statistics(alpha).to_json(),
    }


def traced(study: Study, model: RoutedModel, sessions: Iterable[Session]) -> np.ndarray:
    """α of every session, written as the study writes it.

    Shapes:
        → (S, L, E)
    """
    return trace_alpha(
        model,
        study.student.tokenizer,
        sessions,
        prompt=study.profile.prompt,
        batch_size=study.profile.decode.batch_size,
        progress=study.progress,
    )


def voting(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One draw of N answers per session, and the votes among fewer and fewer of them."""
    name = config["model"]
    if name in experts(study):
        folder = train(study, name).folder
        with unloaded(load_expert(study.student, folder)) as model:
            answered, adapters = sampled(study, model, f"voting-{name}-{key}"), [read_adapter(folder)]
    else:
        with routed(study, name) as (model, _):
            answered, adapters = sampled(study, model, f"voting-{name}-{key}"), model.adapters
    samples = answered.answers
    votes = vote_all(samples)
    return {
        "answers": [Answer.of_bundles(id_, v.bundles) for id_, v in votes.items()],
        **made_from(study, adapters),
        "analysis": {**voting_curves(study, samples), **vote_facts(study, samples, votes)},
        "attachments": {"samples": (s.to_json() for s in samples)},
        **answered.times,
    }
