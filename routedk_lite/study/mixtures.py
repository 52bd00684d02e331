"""A routed model's answers under changed weights α: sharpened, without an expert, or mixed by hand.

What α becomes is arithmetic. What the model answers then is not: every changed α has to be run. The router explorer
shows such answers for a handful of test sessions, computed here once on a grid of changes and kept as a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..answers.decoding import greedy_answers
from ..answers.partitions import PartitionDecoder, SizePrior
from ..data.metrics import per_session
from ..data.prompts import format_answer
from ..data.sessions import Bundle, Domain, Session
from ..student.pairs import read_pairs
from .fused import routed, traced
from .records import RunRecord, load_attachment, load_predictions
from .votes import appending

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from .study import Study

SHARPENED = ("dynamic", "static")
"""Fusions whose α is changed by temperature and by switching experts off."""
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""At which the model is run. Below 1: α is sharper."""
OTHERS = "nothing special happens"
"""Why a session is chosen when no kind has any left."""
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
            stack.enter_context(model.override(np.ascontiguousarray(alpha[..., place, :]), number))
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
        decoder: turns pair logits into bundles; `None` for greedy answers.

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
    answers = greedy_answers(model, tokenizer, sessions, alpha=weights, **options)
    return {answer.id: answer.bundles for answer in answers}


def decoder_of(study: Study, run: RunRecord) -> PartitionDecoder | None:
    """The decoder of a recorded run, or `None` where a profile reads bundles from text."""
    if study.profile.answers != "pairs":
        return None
    return PartitionDecoder(prior=SizePrior(study.split("train")), **run.analysis["decoder"])


# --- which sessions ---------------------------------------------------------------------------------------------


def choose_sessions(
    test: Domain, answers: Mapping[str, Mapping[int, Sequence[Bundle]]], alpha: np.ndarray, n: int
) -> dict[int, str]:
    """Sessions worth looking at: those on which methods part ways, the ones with unusual α, and some of either end.

    The kinds take turns, each giving its next session in the order of the split, so that no kind is left out.

    Args:
        test: the test sessions.
        answers: run → session id → bundles: single experts by their names, `average`, `static`, `dynamic`, `vote`.
        alpha: of the dynamic fusion, one matrix per test session.
        n: how many.

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
    kinds["the vote is right, one answer is not"] = right["vote"] & ~right["dynamic"]
    kinds["one answer is right, the vote is not"] = ~right["vote"] & right["dynamic"]
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

    Raises:
        ValueError: another one is.
    """
    runs = {"base": "base", "rules": "rules", "reasoning": "reasoning"}
    runs |= {name: f"fusion-{name}" for name in ("average", "ties", "static", "dynamic")} | {"vote": "voting-dynamic"}
    known = {record.run: record for record in records}
    found = {name: known[f"{run}-seed{seed}"] for name, run in runs.items() if f"{run}-seed{seed}" in known}
    if missing := [f"{run}-seed{seed}" for name, run in runs.items() if name not in found and name != "ties"]:
        raise ValueError(f"not recorded yet: {', '.join(missing)}. Run these stages before the explorer's.")
    return found


def recorded_answers(runs: Mapping[str, RunRecord]) -> dict[str, dict[int, Sequence[Bundle]]]:
    """Method → session id → bundles."""
    return {name: {i: a.bundles for i, a in load_predictions(run).items()} for name, run in runs.items()}


def explorer(study: Study, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Answers to chosen test sessions on the whole grid of changed α, for the router explorer.

    Raises:
        ValueError: a run that the explorer shows is not recorded yet.
    """
    runs = recorded_runs(study.records(), study.seed)
    dynamic, test = runs["dynamic"], study.split("test")
    traced = np.array([row["alpha"] for row in load_attachment(dynamic, "alpha")])
    chosen = choose_sessions(test, recorded_answers(runs), traced, config["sessions"])
    sessions = [test.by_id[id_] for id_ in chosen]
    decoder = decoder_of(study, dynamic)
    with routed(study, "static") as (model, _):
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

        answers = _resumed(study, f"explorer-{key}", grid, ask)
        weights = {adapter.name: adapter.sha256 for adapter in model.adapters}
    unchanged = answers[grid.index(Setting("dynamic", 1.0, tuple(range(log_alpha.shape[-1])), ()))]
    recorded = load_predictions(dynamic)
    same = [set(unchanged[s.id]) == set(recorded[s.id].bundles) for s in sessions]
    return {
        "student": asdict(study.student.info),
        "adapter_sha256": weights,
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


def setting_text(setting: Setting) -> str:
    """As the measurement and the explorer's page name a setting, for example `static 2 0,1` or `mix 3,2,1`."""
    if setting.fusion == "mix":
        return f"mix {','.join(map(str, setting.shares))}"
    return f"{setting.fusion} {setting.temperature:g} {','.join(map(str, setting.experts))}"


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


def _resumed(study: Study, name: str, grid: Sequence[Setting], ask: Callable) -> list[dict[int, list[Bundle]]]:
    """The answers at every point of the grid; those of an interrupted run are not made again."""
    from tqdm.auto import tqdm

    partial = study.work / f"{name}.partial.jsonl"
    with appending(partial) as (rows, keep):
        for setting in tqdm(grid[len(rows) :], unit="setting", desc="changed α", disable=not study.progress):
            found = ask(setting)
            rows.append([[id_, [sorted(b) for b in bundles]] for id_, bundles in found.items()])
            keep([rows[-1]])
    return [{id_: [frozenset(b) for b in bundles] for id_, bundles in row} for row in rows]
