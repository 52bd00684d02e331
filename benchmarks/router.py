"""Which router learns: the same experts under routers that read raw or normalised states, at several rates.

Trains the dynamic fusion of a profile's recorded experts once for each setting, and looks at validation sessions only:
the loss after every epoch, how the weights are spread, and the score of the answers. Experts are taken from the study's
work folder, or trained first; an interrupted training goes on. Results are printed and kept in
`results/recipe/router.json`.

    python benchmarks/router.py --domain electronic
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from routedk_lite.answers.answering import answer_sessions
from routedk_lite.data.metrics import evaluate
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha, train_fusion
from routedk_lite.fusion.statistics import routing_statistics
from routedk_lite.study.experiments import train
from routedk_lite.study.fusing import fusions
from routedk_lite.study.machine import surroundings
from routedk_lite.study.pipeline import Pipeline

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "recipe" / "router.json"
SETTINGS = [(True, 1e-4), (True, 1e-3), (False, 1e-5), (False, 1e-3)]
"""Whether z is normalised, and the router's learning rate."""


def routed(study: Pipeline, normalize: bool) -> RoutedModel:
    """The student with the study's experts and a router that has learned nothing yet."""
    student, (_, names) = study.student, fusions(study)["dynamic"]
    folders = [train(study, name).folder for name in names]
    return RoutedModel(student.model, folders, Dynamic(normalize=normalize), student=student.info.id)


def state_sizes(study: Pipeline) -> dict[str, Any]:
    """Σ|z| over channels in every routed layer, mean of the validation sessions, raw and normalised.

    Adam's first step moves every weight of the router by its rate, so a logit moves by the rate times Σ|z|.
    """
    found: dict[str, Any] = {}
    for label, normalize in (("raw", False), ("normalised", True)):
        model = routed(study, normalize)
        sums: dict[int, list[float]] = {}
        pooled = model.weigher.pooled

        def watched(layer: int, hidden: Tensor, mask: Tensor, pooled=pooled, sums=sums) -> Tensor:
            z = pooled(layer, hidden, mask)
            sums.setdefault(layer, []).extend(z.abs().sum(-1).tolist())
            return z

        model.weigher.pooled = watched
        try:
            trace_alpha(model, study.student.tokenizer, study.split("validation"), prompt=study.profile.prompt)
        finally:
            found["layers"] = list(model.layer_numbers)
            model.unload()
        found[label] = [round(float(np.mean(sums[layer])), 1) for layer in sorted(sums)]
    return found


def measure(study: Pipeline, normalize: bool, rate: float) -> dict[str, Any]:
    """One training, and what the validation sessions say of it."""
    profile, student = study.profile, study.student
    training, validation = study.split("train"), study.split("validation")
    _, names = fusions(study)["dynamic"]
    model = routed(study, normalize)
    shared = {"prompt": profile.prompt, "reader": study.reader}
    config = replace(profile.router, normalize=normalize, learning_rate=rate)
    folder = study.work / "router-trials" / f"{'normalized' if normalize else 'raw'}-{rate:g}"
    try:
        with warnings.catch_warnings(action="ignore"):
            result = train_fusion(
                model, student, training, folder, config=config, validation=validation,
                seed=study.seed, **shared,
            )  # fmt: skip
        alpha = trace_alpha(model, student.tokenizer, validation, prompt=profile.prompt)
        answers = answer_sessions(
            model, validation, profile=profile, student=student, reader=study.reader, train=training,
            validation=validation,
        )  # fmt: skip
    finally:
        model.unload()
    scores, statistics = evaluate(answers, validation, "strict"), routing_statistics(alpha)
    return {
        "normalize": normalize,
        "learning_rate": rate,
        "losses": [row["eval_loss"] for row in result.history if "eval_loss" in row],
        "seconds": result.seconds,
        "strict_f1": scores.f1,
        "exact_match": scores.exact_match,
        "entropy": float(statistics.entropy.mean()),
        "between_sessions": float(np.mean(alpha.std(0))),
        "load": dict(zip(names, statistics.load.mean(0).round(4).tolist(), strict=True)),
        "warnings": list(result.warnings),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smol")
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", default="runs", help="folder of the study's adapters")
    args = parser.parse_args()
    study = Pipeline(args.profile, args.domain, args.seed, work=args.work)
    key = f"{args.profile}/{args.domain}/seed{args.seed}"
    known = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    found = known.setdefault(key, {"trials": []})
    if "state_sizes" not in found:
        found["state_sizes"] = {**state_sizes(study), **surroundings()}
        write_json(OUTPUT, known)
    for normalize, rate in SETTINGS:
        if any((t["normalize"], t["learning_rate"]) == (normalize, rate) for t in found["trials"]):
            continue
        found["trials"].append({**measure(study, normalize, rate), **surroundings()})
        print(json.dumps(found["trials"][-1]), file=sys.stderr)
        write_json(OUTPUT, known)


if __name__ == "__main__":
    raise SystemExit(ended(main))
