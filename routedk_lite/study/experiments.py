"""How each recorded run is made: from a study's data, student and settings to answers.

Every function here gives the fields of a run record that differ between runs (`answers`, `student`, `training`,
`analysis`, …). What is long is kept as it comes: an interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.diagnostics import pair_auc
from ..answers.answering import ReadPairs, decode_pairs, pairs_of
from ..answers.decoding import Answer, greedy_answers
from ..config import DecodeConfig, KnowledgeConfig, digest
from ..data.habits import HABITS, habit_bundles
from ..data.metrics import evaluate
from ..data.prompts import ContextOf
from ..files import sha256_folder
from ..fusion.routed import RoutedModel
from ..fusion.routing import FusionResult
from ..fusion.shipping import unpack_expert
from ..locks import locked
from ..student.experts import ExpertResult, load_expert, train_expert, unloaded
from ..student.starting import Start
from .joint import joint_start, train_joint
from .kept import Answered, model_digest
from .records import measure
from .votes import resumed, sampled, voted

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from ..data.sessions import Session
    from ..student.adapters import Adapter
    from .study import Study

EXPERTS = {"base": "none", "rules": "rules", "reasoning": "reasoning", "both": "both"}
"""Experts by name, and what each is told. `both` is the second of two experts, where K = 2."""


def experts(study: Study) -> dict[str, str]:
    """Experts of a study by name, and what each is told. Those of the positive control each learn one habit.

    Without a teacher's knowledge there is the base expert alone.
    """
    if not study.has_knowledge:
        return {"base": EXPERTS["base"]}
    return dict.fromkeys(HABITS, "none") if study.domain == "habits" else EXPERTS


def lessons(study: Study, name: str, split: str) -> Iterable[Session]:
    """The sessions of a split as one expert learns them: those of the control are grouped by its own habit."""
    sessions = study.split(split)
    if name not in HABITS:
        return sessions
    return [replace(s, bundles=habit_bundles(s.titles, name), intents=()) for s in sessions]


def plain(predictions: Mapping[int, Sequence]) -> list[Answer]:
    return [Answer.of_bundles(id_, bundles) for id_, bundles in predictions.items()]


# --- one model ------------------------------------------------------------------------------------------------


def zero_shot(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The student as it is, asked in words."""
    greedy = _greedy(study, study.student.model, f"zero-shot-{key}")
    return {"answers": greedy.answers, **made_from(study), **greedy.times}


def zero_shot_pairs(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Pairs read from the student as it is; only the decoder knows annotated bundles."""
    return {**_from_pairs(study, study.student.model), **made_from(study)}


def expert_folder(study: Study, name: str, seed: int, place: str | None = None) -> Path:
    """Where an expert's adapter lies; `place` if it was told something elsewhere than the profile says."""
    elsewhere = f"-{place}" if place not in (None, study.profile.place) else ""
    return study.work / f"{name}{elsewhere}-seed{seed}"


def train(
    study: Study,
    name: str,
    *,
    seed: int | None = None,
    place: str | None = None,
    on_epoch: Callable | None = None,
    folder: Path | None = None,
) -> ExpertResult:
    """Train one of a study's `experts`, or find it trained or shipped; with another seed or place than the study's, or
    in another folder than its own."""
    kind, seed, place = experts(study)[name], study.seed if seed is None else seed, place or study.profile.place
    folder = folder or expert_folder(study, name, seed, place)
    with locked(folder):  # another job may need the same expert
        unpack_expert(study.shipped, folder)
        return train_expert(
            study.student,
            lessons(study, name, "train"),
            folder,
            config=study.profile.train,
            prompt=study.profile.prompt,
            knowledge=study.knowledge if kind != "none" else None,
            told=KnowledgeConfig(kind=kind, place=place),
            reader=study.reader,
            validation=lessons(study, name, "validation"),
            start=joint_start(study, seed),
            teacher=taught_by(study, name, seed) if place == "distilled" and kind != "none" else None,
            on_epoch=on_epoch,
            seed=seed,
            progress=study.progress,
        )


def taught_by(study: Study, name: str, seed: int) -> Start:
    """The expert of the same seed that was told the same in its prompt: the teacher of a distilled one."""
    parts = [study.split("train").sha256, study.knowledge.sha256]
    profile, start = study.profile, joint_start(study, seed)
    how = [profile.train, profile.prompt, profile.pairs, start and start.digest]
    known_by = digest(name, seed, study.student.info.sha256, *study.student.info.packed, parts, *how)
    return Start(known_by, lambda: train(study, name, seed=seed, place="prompt").folder)


def joint(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """That adapter, trained and asked alone."""
    started = time.perf_counter()
    result = train_joint(study, study.seed)
    return asked_alone(study, "joint", key, result, time.perf_counter() - started)


def expert(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One expert, trained and asked alone."""
    name, started = config["expert"], time.perf_counter()
    result = train(study, name)
    return asked_alone(study, name, key, result, time.perf_counter() - started)


def asked_alone(
    study: Study, name: str, key: str, result: ExpertResult, spent: float, context: ContextOf | None = None, **more: Any
) -> dict[str, Any]:
    """The record's fields of an expert that was trained in `spent` seconds of this run; `more`: of `answers_of`."""
    _ = study.reader  # is made on the student as it is
    with unloaded(load_expert(study.student, result.folder)) as model:
        answered = answers_of(study, model, f"{name}-{key}", context, **more)
    return {
        **answered,
        "student": asdict(study.student.info),
        "adapter_sha256": {name: sha256_folder(result.folder)},
        "training": training_fields(result, spent),
    }


def made_from(study: Study, adapters: Iterable[Adapter] = ()) -> dict[str, Any]:
    """A record's fields that say which student was asked, and which experts stood on it."""
    return {
        "student": asdict(study.student.info),
        "adapter_sha256": {adapter.name: adapter.sha256 for adapter in adapters},
    }


def training_fields(result: ExpertResult | FusionResult, spent: float) -> dict[str, Any]:
    """A record's `training`, where `spent` seconds of it belong to this run of the stage.

    `seconds_before`: what was spent in earlier runs of this stage, to be added to its wall time.
    """
    speed = {"tokens_per_second": result.tokens_per_second} if isinstance(result, ExpertResult) else {}
    before = max(0.0, round(result.seconds - spent, 1))
    cost = {"seconds": result.seconds, "seconds_before": before, "peak_mb": result.peak_mb}
    return {**cost, **speed, "history": result.history}


# --- from a model to answers ------------------------------------------------------------------------------------


def answers_of(
    study: Study,
    model: PreTrainedModel | RoutedModel,
    name: str,
    context: ContextOf | None = None,
    *,
    more_tokens: int = 0,
) -> dict[str, Any]:
    """The study's answers, as its profile says: consensus of samples, decoded from pairs, or greedy ones.

    `more_tokens` are for what a student writes before its answer.
    """
    if study.profile.answers == "consensus":
        return voted(study, sampled(study, model, name, context))
    greedy = _greedy(study, model, name, context, more_tokens=more_tokens)
    if study.profile.answers == "greedy":
        return {"answers": greedy.answers, "analysis": {}, "attachments": {}, **greedy.times}
    made = _from_pairs(study, model, context)
    made["analysis"]["greedy"] = measure({a.id: a.bundles for a in greedy.answers}, study.split("test"))
    made["attachments"] = {"greedy": (a.to_json() for a in greedy.answers)}
    return {**made, "seconds_before": greedy.before, "peak_before": greedy.peak_before}


def _from_pairs(study: Study, model: PreTrainedModel | RoutedModel, context: ContextOf | None = None) -> dict[str, Any]:
    """Bundles decoded from the pairs that a model tells apart."""
    options = {"context": context, "progress": study.progress}
    return decoded(study, pairs_of(model, study.profile, study.student, study.reader, **options))


def decoded(study: Study, read: ReadPairs) -> dict[str, Any]:
    """Bundles decoded from pair logits, by a decoder that is fitted on the validation sessions."""
    splits = {name: study.split(name).sessions for name in ("validation", "test")}
    weight, began = study.profile.decode.exact_weight, 0.0

    def timed(sessions: Sequence[Session]) -> Mapping[int, np.ndarray]:
        nonlocal began  # the sessions that are answered are read last
        began = time.perf_counter()
        return read(sessions)

    found = decode_pairs(
        timed, splits["test"], train=study.split("train"), validation=splits["validation"], exact_weight=weight
    )
    answering = time.perf_counter() - began
    names = ("prior_weight", "scale", "shift", "exact_weight")
    analysis: dict[str, Any] = {"decoder": {name: round(getattr(found.decoder, name), 5) for name in names}}
    with suppress(ValueError):  # a few sessions of one's own may have pairs of one kind alone
        auc = {name: round(pair_auc(found.logits, sessions), 5) for name, sessions in splits.items()}
        analysis["pair_auc"] = auc
    if found.validation:
        validation = evaluate(found.validation, splits["validation"], protocol="strict")
        analysis["validation"] = {"f1": round(validation.f1, 5), "exact_match": round(validation.exact_match, 5)}
    return {
        "answers": plain(found.answers),
        "analysis": analysis,
        "attachments": {},
        "answer_seconds": answering,
    }


# --- long work, kept as it comes --------------------------------------------------------------------------------


def _greedy(
    study: Study,
    model: PreTrainedModel | RoutedModel,
    name: str,
    context: ContextOf | None = None,
    *,
    more_tokens: int = 0,
) -> Answered:
    """Greedy answers to the test sessions; those of an interrupted run are not made again."""

    def ask(decode: DecodeConfig, **how: Any) -> list[Answer]:
        decode = replace(decode, max_new_tokens=decode.max_new_tokens + more_tokens)
        return greedy_answers(model, study.student.tokenizer, context=context, decode=decode, **how)

    return resumed(study, f"{name}-{model_digest(study.student, model)}", Answer, ask)
