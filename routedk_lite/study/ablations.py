"""Ablations of the routed model as runs: controls of its router, fewer experts at a time, experts that are left out.

They take the trained router as it is and only answer anew, so each costs what an evaluation costs. As in
`experiments`, every function gives the fields of a record that differ between runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.controls import CONTROLS, THIRDS, control_alpha, fewer_at_a_time, knocked_out, layer_thirds
from ..answers.answering import pairs_of
from ..answers.decoding import greedy_answers
from ..data.sessions import Session
from .experiments import decoded, made_from
from .fused import routed, routing_fields, traced
from .fusing import fusions
from .votes import sampled, voted

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from .study import Study

FUSION = "dynamic"
"""What is taken apart."""


def ablations(study: Study) -> dict[str, dict[str, Any]]:
    """Name of each ablation → what distinguishes its configuration."""
    experts = fusions(study)[FUSION][1]
    found: dict[str, dict[str, Any]] = {f"control-{kind}": {"control": kind} for kind in CONTROLS}
    for name in experts:
        found[f"knockout-{name}"] = {"off": name, "where": "all"}
    for name in experts:
        found |= {f"knockout-{name}-{third}": {"off": name, "where": third} for third in THIRDS}
    if study.domain != "habits":
        found |= {f"top-{k}": {"at_a_time": k} for k in range(1, len(experts))}
    return found


def about(config: Mapping[str, Any]) -> str:
    """An ablation in words."""
    if "control" in config:
        words = {"random": "a random mixture", "shuffled": "another session's α", "mean": "the router's mean α"}
        return f"the routed model with {words[config['control']]} for every session"
    if "at_a_time" in config:
        return f"the routed model with {config['at_a_time']} of its experts at a time"
    where = "" if config["where"] == "all" else f" in the {config['where']} third of the layers"
    return f"the routed model without its {config['off']} expert{where}"


def run_ablation(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The trained router with other weights, or with fewer experts: the fields of its record."""
    with routed(study, FUSION) as (model, _):
        ways = {"control": _controlled, "at_a_time": _sparse, "off": _lesioned}
        made = next(way for name, way in ways.items() if name in config)(study, model, config, key)
        return {**made, **made_from(study, model.adapters)}


def _controlled(study: Study, model: RoutedModel, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    # A decoder of pairs is fitted on validation sessions.
    splits = ["validation", "test"] if study.profile.answers == "pairs" else ["test"]
    orders = _orders(study)
    given: dict[int, np.ndarray] = {}
    for split in splits:
        each = []
        for step in orders:
            shown = [s.permuted(range(len(s))[::step]) for s in study.split(split)]
            each.append(control_alpha(config["control"], _trace(study, model, shown), seed=study.seed))
        given |= {id_: np.stack([one[id_] for one in each]) for id_ in each[0]} if len(each) > 1 else each[0]
    made = _answers(study, model, f"control-{config['control']}-{key}", given)
    in_session_order = [given[s.id][0] if len(orders) > 1 else given[s.id] for s in study.split("test")]
    made["analysis"] |= routing_fields(model, np.stack(in_session_order))
    return made


def _orders(study: Study) -> tuple[int, ...]:
    """The steps at which items are shown where each order has an α of its own (`PairConfig.control`); else one."""
    pairs = study.profile.pairs
    return (1, -1)[: pairs.orders] if study.profile.answers == "pairs" and pairs.control == "order" else (1,)


def _lesioned(study: Study, model: RoutedModel, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    layers = model.layer_numbers if config["where"] == "all" else layer_thirds(model.layer_numbers)[config["where"]]
    off = f"{config['off']}-seed{study.seed}"
    with knocked_out(model, [off], layers):
        made = _answers(study, model, f"knockout-{key}")
        traced = _trace(study, model, study.split("test"))
    made["analysis"] |= {"off": off, "off_in": list(layers)}
    made["analysis"] |= routing_fields(model, np.stack(list(traced.values())))
    return made


def _sparse(study: Study, model: RoutedModel, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    with fewer_at_a_time(model, config["at_a_time"]):
        made = _answers(study, model, f"top-{key}")
        traced = _trace(study, model, study.split("test"))
    made["analysis"] |= routing_fields(model, np.stack(list(traced.values())))
    return made


def _answers(
    study: Study, model: RoutedModel, name: str, alpha: Mapping[int, np.ndarray] | None = None
) -> dict[str, Any]:
    """As `experiments.answers_of`, without greedy answers beside decoded ones: an ablation is compared once."""
    if study.profile.answers == "pairs":
        options = {"alpha": alpha, "progress": study.progress}
        return decoded(study, pairs_of(model, study.profile, study.student, study.reader, **options))
    if study.profile.answers == "consensus":
        return voted(study, sampled(study, model, name, alpha=alpha))
    started = time.perf_counter()
    answers = greedy_answers(
        model,
        study.student.tokenizer,
        study.split("test"),
        prompt=study.profile.prompt,
        alpha=alpha,
        decode=study.profile.decode,
        progress=study.progress,
    )
    seconds = time.perf_counter() - started
    return {"answers": answers, "analysis": {}, "attachments": {}, "answer_seconds": seconds}


def _trace(study: Study, model: RoutedModel, sessions: Iterable[Session]) -> dict[int, np.ndarray]:
    sessions = list(sessions)
    return {s.id: one for s, one in zip(sessions, traced(study, model, sessions), strict=True)}
