"""What the router explorer shows: some test sessions, and the answers to them under changed weights α.

The answers are computed once, on the grid of `mixtures`, and kept as a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..answers.decoding import Samples
from ..answers.voting import vote_all
from ..config import digest
from ..data.metrics import per_session
from ..data.prompts import format_answer
from ..data.sessions import Bundle, Domain, Session
from .experiments import made_from
from .fused import routed, traced
from .kept import Spent, model_digest, timed
from .mixtures import PARTS, Setting, answers_under, changed_alpha, decoder_of, setting_text, settings
from .records import RunRecord, load_attachment, load_predictions

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from .study import Study

OTHERS = "nothing special happens"
"""Why a session is chosen when no kind has any left."""
VOTE_OR_ONE, VOTE_OR_CONSENSUS = ("the vote", "one answer"), ("the majority", "consensus")
"""What is compared on a router's samples: their majority with its one answer, or with the consensus of the same."""

RUNS = {"base": "base", "rules": "rules", "reasoning": "reasoning"}
RUNS |= {name: f"fusion-{name}" for name in ("average", "ties", "static", "dynamic")}
"""What it shows, by the name of the method: runs of the study's seed."""
VOTE = "voting-dynamic"
"""The run that votes, where runs do not keep samples themselves."""

# --- which sessions ---------------------------------------------------------------------------------------------


def choose_sessions(
    test: Domain,
    answers: Mapping[str, Mapping[int, Sequence[Bundle]]],
    alpha: np.ndarray,
    n: int,
    rivals: tuple[str, str] = VOTE_OR_ONE,
) -> dict[int, str]:
    """Sessions worth looking at: those on which methods part ways, the ones with unusual α, and some of either end.

    The kinds take turns, each giving its next session in the order of the split, so that no kind is left out.

    Args:
        test: the test sessions.
        answers: run → session id → bundles: single experts by their names, `average`, `static`, `dynamic`, `vote`.
        alpha: of the dynamic fusion, one matrix per test session.
        n: how many.
        rivals: what the answers of `vote` and `dynamic` are called where one is right and the other is not.

    Shapes:
        alpha: (S, L, E)

    Returns:
        Session id → why it was chosen, in the order of the kinds.
    """
    right = {name: per_session(found, test, "strict").exact_match > 0.5 for name, found in answers.items()}
    experts = [name for name in answers if name not in ("average", "ties", "static", "dynamic", "vote")]
    alone = np.stack([right[name] for name in experts])  # (E, S)
    kinds: dict[str, np.ndarray] = {
        f"only {name} is right": alone[k] & (alone.sum(0) == 1) for k, name in enumerate(experts)
    }
    kinds["dynamic is right, average is not"] = right["dynamic"] & ~right["average"]
    kinds["average is right, dynamic is not"] = ~right["dynamic"] & right["average"]
    kinds["dynamic is right, static is not"] = right["dynamic"] & ~right["static"]
    kinds["static is right, dynamic is not"] = ~right["dynamic"] & right["static"]
    vote, one = rivals
    kinds[f"{vote} is right, {one} is not"] = right["vote"] & ~right["dynamic"]
    kinds[f"{one} is right, {vote} is not"] = ~right["vote"] & right["dynamic"]
    distance = np.abs(alpha - alpha.mean(0)).mean((1, 2))
    kinds["the weights are unusual"] = distance >= np.sort(distance)[-max(1, len(distance) // 20)]
    kinds["everyone is right"] = np.all(list(right.values()), axis=0)
    kinds["nobody is right"] = ~np.any(list(right.values()), axis=0)
    queues = {kind: [test.sessions[i].id for i in np.flatnonzero(which)] for kind, which in kinds.items()}
    queues[OTHERS] = [session.id for session in test]
    chosen: dict[int, str] = {}
    while len(chosen) < min(n, len(test)):
        for kind, queue in queues.items():
            if kind == OTHERS and any(queues[k] for k in kinds):
                continue
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < n:
                chosen[queue.pop(0)] = kind
    order = list(queues)
    return dict(sorted(chosen.items(), key=lambda entry: (order.index(entry[1]), entry[0])))


# --- the stage --------------------------------------------------------------------------------------------------


def recorded_runs(records: Sequence[RunRecord], seed: int) -> dict[str, RunRecord]:
    """The runs of a study that the explorer shows, by the name of the method. `ties` may be missing.

    The vote is a run of its own, unless every run keeps its samples.

    Raises:
        ValueError: another one is.
    """
    runs = RUNS | {"vote": VOTE}
    known = {record.run: record for record in records}
    dynamic = known.get(f"fusion-dynamic-seed{seed}")
    if dynamic and "samples" in dynamic.attachments:
        runs["vote"] = runs["dynamic"]
    found = {name: known[f"{run}-seed{seed}"] for name, run in runs.items() if f"{run}-seed{seed}" in known}
    if missing := [f"{run}-seed{seed}" for name, run in runs.items() if name not in found and name != "ties"]:
        raise ValueError(f"not recorded yet: {', '.join(missing)}. Run these stages before the explorer's.")
    return found


def recorded_answers(runs: Mapping[str, RunRecord]) -> dict[str, dict[int, Sequence[Bundle]]]:
    """Method → session id → bundles."""
    found = {name: {i: a.bundles for i, a in load_predictions(run).items()} for name, run in runs.items()}
    if by_consensus(runs):
        found["vote"] = {i: vote.bundles for i, vote in vote_all(recorded_samples(runs)).items()}
    return found


def recorded_samples(runs: Mapping[str, RunRecord]) -> list[Samples]:
    """The answers that vote."""
    return [Samples.from_json(row) for row in load_attachment(runs["vote"], "samples")]


def by_consensus(runs: Mapping[str, RunRecord]) -> bool:
    """Whether every answer is itself the consensus of samples."""
    return runs["vote"].run == runs["dynamic"].run


def explorer(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Answers to chosen test sessions on the whole grid of changed α, for the router explorer.

    Raises:
        ValueError: a run that the explorer shows is not recorded yet.
    """
    runs = recorded_runs(study.records(), study.seed)
    dynamic, test = runs["dynamic"], study.split("test")
    every = np.array([row["alpha"] for row in load_attachment(dynamic, "alpha")])
    rivals = VOTE_OR_CONSENSUS if by_consensus(runs) else VOTE_OR_ONE
    chosen = choose_sessions(test, recorded_answers(runs), every, config["sessions"], rivals)
    sessions = [test.by_id[id_] for id_ in chosen]
    decoder = decoder_of(study, dynamic)
    with routed(study, "static") as (model, _):
        models = [model_digest(study.student, model)]
        static = _log_alpha(study, model, sessions[:1])[0]
    with routed(study, "dynamic") as (model, _):
        log_alpha = _log_alpha(study, model, sessions)
        tables = {"dynamic": log_alpha, "static": np.broadcast_to(static, log_alpha.shape)}
        grid = settings(log_alpha.shape[-1])

        def ask(setting: Setting) -> dict[int, Sequence[Bundle]]:
            if setting.fusion == "mix":
                alpha = np.broadcast_to(np.array(setting.shares) / PARTS, log_alpha.shape)
            else:
                alpha = changed_alpha(tables[setting.fusion], setting.temperature, setting.experts)
            return answers_under(study, model, sessions, alpha, decoder)

        models.append(model_digest(study.student, model))
        known_by = digest(models, list(chosen), dynamic.analysis.get("decoder"))
        answers, spent = _resumed(study, f"explorer-{key}-{known_by}", grid, ask)
        made = made_from(study, model.adapters)
    unchanged = answers[grid.index(Setting("dynamic", 1.0, tuple(range(log_alpha.shape[-1])), ()))]
    recorded = load_predictions(dynamic)
    same = [set(unchanged[s.id]) == set(recorded[s.id].bundles) for s in sessions]
    return {
        **made,
        "seconds_before": spent.before,
        "peak_before": spent.peak_before,
        "values": {
            "experts": list(dynamic.analysis["experts"]),
            "layers": list(dynamic.analysis["layers"]),
            "settings": [setting_text(setting) for setting in grid],
            "static_log_alpha": np.round(static, 4).tolist(),
            "same_as_recorded": [sum(same), len(same)],
            "sessions": [
                {"id": s.id, "why": chosen[s.id], "log_alpha": np.round(log_alpha[row], 4).tolist()}
                | distinct_answers([found[s.id] for found in answers])
                for row, s in enumerate(sessions)
            ],
        },
    }


def distinct_answers(answers: Sequence[Sequence[Bundle]]) -> dict[str, list]:
    """One session's answers at every setting: each distinct one as text, and which of them each setting gave."""
    texts = [format_answer(bundles) for bundles in answers]
    distinct = list(dict.fromkeys(texts))
    return {"answers": distinct, "answer_of_setting": [distinct.index(text) for text in texts]}


def _log_alpha(study: Study, model: RoutedModel, sessions: Sequence[Session]) -> np.ndarray:
    """Logarithms of α, the largest of each layer 0.

    Shapes:
        → (S, L, E)
    """
    logs = np.log(np.clip(traced(study, model, sessions).astype(float), 1e-12, None))
    return logs - logs.max(-1, keepdims=True)


def _resumed(
    study: Study, name: str, grid: Sequence[Setting], ask: Callable
) -> tuple[list[dict[int, list[Bundle]]], Spent]:
    """The answers at every point of the grid; those of an interrupted run are not made again."""
    from tqdm.auto import tqdm

    partial = study.work / f"{name}.partial.jsonl"
    with timed(partial) as (rows, keep, spent):
        for setting in tqdm(grid[len(rows) :], unit="setting", desc="changed α", disable=not study.progress):
            found = ask(setting)
            rows.append([[id_, [sorted(b) for b in bundles]] for id_, bundles in found.items()])
            keep([rows[-1]])
    return [{id_: [frozenset(b) for b in bundles] for id_, bundles in row} for row in rows], spent
