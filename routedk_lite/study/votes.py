"""Sampled answers as runs: drawn once, kept as they come, and looked at as votes and as consensus."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..answers.consensus import Consensus
from ..answers.decoding import Answer, Samples, sample_bundles
from ..answers.voting import Vote, diversity, reliability, vote, vote_all, voting_curve
from ..data.metrics import per_session
from ..data.prompts import ContextOf
from ..data.sessions import Bundle, Session
from ..files import read_lines
from ..statistics import bootstrap_interval
from .kept import Answered, model_digest, timed
from .records import measure
from .study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..fusion.routed import RoutedModel

CURVES = ("f1", "exact_match")
SUBSETS = 5
"""Of the draw, at each number of answers below all."""


def resumed(study: Study, name: str, kind: type, ask: Callable[..., list]) -> Answered:
    """Answers to the test sessions; those of an interrupted run are not made again.

    Args:
        study: whose sessions are asked about.
        name: of the file in which answers are kept as they come; it stands for all that they depend on.
        kind: `Answer` or `Samples`.
        ask: takes `sessions`, `prompt`, `decode`, `done`, `on_batch` and `progress`.
    """
    partial = study.work / f"{name}.partial.jsonl"
    with timed(partial) as (known, keep, spent):
        ask(
            sessions=study.split("test"),
            prompt=study.profile.prompt,
            decode=study.profile.decode,
            done={row["id"] for row in known},
            on_batch=lambda found: keep([one.to_json() for one in found]),
            progress=study.progress,
        )
    # All of them as they were kept, rounded: else a run that was stopped would differ from one that was not.
    answers = [kind.from_json(row) for row in read_lines(partial)]
    return Answered(answers, spent.seconds, spent.before, spent.peak_before)


def sampled(
    study: Study,
    model: PreTrainedModel | RoutedModel,
    name: str,
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
) -> Answered:
    """Sampled answers to the test sessions, the greedy ones with them; an interrupted run goes on."""

    def ask(*, sessions, **how):
        return drawn(study, model, sessions, context=context, alpha=alpha, **how)

    return resumed(study, f"{name}-{model_digest(study.student, model)}", Samples, ask)


def drawn(study: Study, model: PreTrainedModel | RoutedModel, sessions: Sequence[Session], **how: Any) -> list[Samples]:
    """Sampled answers, as many and as warm as the profile says.

    Args:
        study: whose student is asked.
        model: the student, with its experts.
        sessions: about which.
        how: what else `sample_bundles` takes.
    """
    settings = study.profile.vote
    return sample_bundles(
        model, study.student.tokenizer, sessions, settings.n, seed=study.seed, **settings.sampling, **how
    )


def consensus_of(study: Study, samples: Sequence[Samples]) -> list[Answer]:
    """The answers of a profile that takes the consensus of samples."""
    choose = Consensus.of(study.profile.decode)
    return [Answer.of_bundles(one.id, choose(one.drawn, one.greedy)) for one in samples]


def voted(study: Study, sampled: Answered) -> dict[str, Any]:
    """The fields of a run whose answers are the consensus of samples: votes and greedy answers stand beside."""
    samples, started = sampled.answers, time.perf_counter()
    answers = consensus_of(study, samples)
    choosing = time.perf_counter() - started
    test, votes = study.split("test"), vote_all(samples)
    consensus = Consensus.of(study.profile.decode)
    made = {
        "greedy": measure({one.id: one.greedy.bundles for one in samples}, test),
        "majority": measure({id_: vote.bundles for id_, vote in votes.items()}, test),
        "curves": {
            "majority": _curves(study, samples, lambda one, answers: vote(answers, one.greedy).bundles),
            "consensus": _curves(study, samples, lambda one, answers: consensus(answers, one.greedy)),
        },
        **vote_facts(study, samples, votes),
    }
    attachments = {"samples": (s.to_json() for s in samples)}
    times = sampled._replace(seconds=sampled.seconds + choosing).times
    return {"answers": answers, "analysis": made, "attachments": attachments, **times}


def voting_curves(study: Study, samples: Sequence[Samples]) -> dict[str, Any]:
    """What votes among fewer and fewer answers are worth, by metric, and the warnings that come with it."""
    curves, said, sizes = {}, [], study.profile.vote.sizes
    for metric in CURVES:
        chance = np.random.default_rng(study.seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            points = voting_curve(samples, study.split("test"), sizes, generator=chance, metric=metric)
        curves[metric] = [{**p._asdict(), "resampled": list(p.resampled)} for p in points]
        for one in caught:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        said += [str(one.message) for one in caught if one.category is UserWarning]
    return {"curves": curves, "warnings": said}


def vote_facts(study: Study, samples: Sequence[Samples], votes: Mapping[int, Vote]) -> dict[str, Any]:
    """How much samples differ, and whether a winner's share says how right it is."""
    spread = [diversity(s.drawn)._asdict() for s in samples]
    return {
        "diversity": {k: round(float(np.mean([d[k] for d in spread])), 4) for k in spread[0]},
        "reliability": [b._asdict() for b in reliability(votes, study.split("test"))],
        "fallbacks": sum(v.fallback for v in votes.values()),
    }


def _curves(
    study: Study, samples: Sequence[Samples], choose: Callable[[Samples, Sequence[Answer]], Sequence[Bundle]]
) -> dict[str, list[dict[str, Any]]]:
    """Strict scores against the number of answers that are chosen from, means over `SUBSETS` subsets of one draw.

    Few subsets, since the mean over sessions evens out what they leave to chance, and every choice takes its time.
    """
    test, chance = study.split("test"), np.random.default_rng(study.seed)
    curves: dict[str, list[dict[str, Any]]] = {metric: [] for metric in CURVES}
    for n in study.profile.vote.sizes:
        scores = []
        for _ in range(1 if n == study.profile.vote.n else SUBSETS):
            chosen = {}
            for one in samples:
                picked = chance.choice(len(one.drawn), n, replace=False)
                chosen[one.id] = choose(one, [one.drawn[k] for k in picked])
            scores.append(per_session(chosen, test, "strict"))
        for metric, points in curves.items():
            values = np.mean([np.asarray(getattr(s, metric), dtype=float) for s in scores], axis=0)
            interval = bootstrap_interval(values, generator=np.random.default_rng(0))
            points.append({"n": n, "score": [round(float(value), 5) for value in interval]})
    return curves
