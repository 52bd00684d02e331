"""How the runs beside the method are made: floors and other baselines, prompts with context, and the conflict.

As in `experiments`, every function gives the fields of a record (or a measurement) that differ between runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.conflict import gradient_cosines, interference, knowledge_losses
from ..analysis.overlap import delta_overlap
from ..answers.baselines import SIMILARITIES, cluster_predictions, floor_predictions
from ..config import KnowledgeConfig
from ..data.prompts import Context
from ..files import atomic_write, read_lines, sha256_folder
from ..student.adapters import read_adapter
from ..student.experts import load_expert
from ..teacher.incontext import in_context
from ..teacher.kinds import fit_kinds
from ..teacher.knowledge import teacher_answers
from ..teacher.patterns import mine_patterns, pattern_predictions, patterns_text
from ..unfinished import remove
from .experiments import EXPERTS, answers_of, decoded, expert_folder, made_from, plain, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..data.sessions import Session
    from .study import Study

FLOOR_SEED = 0
"""Of the floors that draw at random."""

# --- runs without a student -----------------------------------------------------------------------------------


def floor(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A predictor that reads no title."""
    predictions = floor_predictions(config["floor"], study.split("test"), seed=FLOOR_SEED)
    return {"answers": plain(predictions)}


def clustering(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Clustering of titles, its threshold chosen on validation."""
    splits = [study.split(name) for name in ("train", "validation", "test")]
    predictions, threshold = cluster_predictions(config["similarity"], *splits)
    return {"answers": plain(predictions), "analysis": {"threshold": threshold}}


def decoded_similarity(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Similarities of titles, decoded just as a student's pairs are: what the decoder does without a student."""
    similarity = SIMILARITIES[config["similarity"]](study.split("train"))
    return decoded(study, lambda sessions: {s.id: similarity(s.titles) for s in sessions})


def pattern_mining(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Bundles from frequent patterns of product kinds."""
    train, test = study.split("train"), study.split("test")
    coverage = fit_kinds(train).coverage(title for session in test for title in session.titles)
    return {"answers": plain(pattern_predictions(train, test)), "analysis": {"titles_with_a_kind": round(coverage, 5)}}


def teacher(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The recorded teacher's own answers."""
    return {"answers": plain(teacher_answers(study.domain))}


# --- knowledge in context ------------------------------------------------------------------------------------------

HINTS = ("none", "patterns", "rules")
"""What can stand in a prompt at test time too: it needs no annotation of the session."""
HINTS_WITHOUT_TEACHER = ("none", "patterns")
"""Those of them that are counted in the training sessions."""


def few_shot(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The student as it is, or an expert, with solved training sessions and perhaps hints in its prompt."""
    contexts = {
        split: in_context(
            study.split("train"),
            study.split(split),
            demonstrations=config["demonstrations"],
            hints=_hints(study, config["hints"]),
        )
        for split in ("validation", "test")
    }
    validation = {s.id for s in study.split("validation")}

    def context(session: Session) -> Context:
        return contexts["validation" if session.id in validation else "test"](session)

    _ = study.reader  # is made on the student as it is, whatever its attention is in here
    folder = train(study, config["expert"]).folder if config["expert"] else None  # trained as every expert is
    with _long_prompts(study.student.model) as attention:
        model = load_expert(study.student, folder) if folder else study.student.model
        try:
            answered = answers_of(study, model, f"few-shot-{key}", context)
        finally:
            if folder:
                model.unload()
    hashes = {"adapter_sha256": {config["expert"]: sha256_folder(folder)}} if folder else {}
    return {**answered, "student": {**asdict(study.student.info), "attention": attention}, **hashes}


@contextmanager
def _long_prompts(model: PreTrainedModel) -> Iterator[str]:
    """Attention for prompts of several sessions, and its name: on a CPU sdpa, which does not write the (T, T) weights
    of every head to memory and at a thousand tokens is half as fast again; on a GPU what the student was loaded with.
    """
    before = model.config._attn_implementation
    attention = "sdpa" if model.device.type == "cpu" else before
    model.set_attn_implementation(attention)
    try:
        yield attention
    finally:
        model.set_attn_implementation(before)


def _hints(study: Study, kind: str) -> Callable[[Session], str]:
    if kind == "rules":
        every = "\n".join(rule.text for rule in study.knowledge.rules.values())
        return lambda session: every
    if kind == "patterns":
        train = study.split("train")
        extractor = fit_kinds(train)
        patterns = mine_patterns(train, extractor)
        return lambda session: patterns_text(session, patterns, extractor)
    return lambda session: ""


# --- knowledge in conflict ------------------------------------------------------------------------------------


def conflict(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """How far rules and reasoning disturb each other in one student (`conflict`), and what trained experts share.

    One student that is told both is trained with another seed, and looked at after every epoch. Where knowledge is
    distilled, that is the teacher: the others never read it. If it was trained before and nobody watched, as the expert
    of another study's seed is, it is trained once more beside it.
    """
    train_sessions, knowledge = study.split("train").sessions, study.knowledge
    place = "prompt" if config["place"] == "distilled" else config["place"]
    told = {
        name: (None if kind == "none" else knowledge, KnowledgeConfig(kind=kind, place=place))
        for name, kind in EXPERTS.items()
        if kind != "both"
    }
    folder = expert_folder(study, "both", config["other_seed"], place)
    partial = study.work / f"conflict-{key}.partial.jsonl"
    points = {point["sessions"]: point for point in read_lines(partial)}

    def watch(model: PreTrainedModel, n_seen: int) -> None:
        losses = knowledge_losses(
            study.student, model, train_sessions, told, config=study.profile.train, prompt=study.profile.prompt,
            reader=study.reader, n_batches=config["batches"], generator=np.random.default_rng(study.seed),
        )  # fmt: skip
        chance = {"generator": np.random.default_rng(study.seed)}
        points[n_seen] = {
            "sessions": n_seen,
            "cosines": gradient_cosines(model, losses, **chance).to_json(),
            "interference": interference(model, losses, **chance).to_json(),
        }
        with atomic_write(partial) as file:  # a training that goes on begins after these
            file.writelines(json.dumps(point) + "\n" for point in points.values())

    started = time.perf_counter()
    watched = {"seed": config["other_seed"], "place": place, "on_epoch": watch}
    trained = train(study, "both", **watched)
    apart = study.work / f"conflict-{key}"
    if len(points) < study.profile.train.epochs:
        trained = train(study, "both", **watched, folder=apart)
    spent = time.perf_counter() - started
    folders = [train(study, name).folder for name in EXPERTS]
    adapters = [read_adapter(one) for one in [*folders, folder]]
    remove(apart)  # equal to the other, and nobody else looks for it
    return {
        **made_from(study, adapters),
        "seconds_before": max(0.0, trained.seconds - spent),
        "peak_before": trained.peak_mb,
        "values": {
            "training": list(points.values()),
            "overlap": [o.to_json() for o in delta_overlap(adapters, generator=np.random.default_rng(study.seed))],
        },
    }
