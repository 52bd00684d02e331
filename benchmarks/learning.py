"""How a base student learns: nats below the content-free model, pair AUC and strict F1 after every epoch.

Trains the base expert of a profile once more, and measures it on the validation sessions before the first epoch and
after each. Results are printed and kept in `results/recipe/learning.json`, from which the book's recipe draws them.

    python benchmarks/learning.py --domain electronic
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from routedk_lite.analysis.diagnostics import LearningPoint, learning_point
from routedk_lite.answers.answering import profile_reader
from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.student.backbone import load_student
from routedk_lite.student.experts import train_expert
from routedk_lite.study.machine import surroundings

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "recipe" / "learning.json"


def curve(name: str, domain: str, seed: int) -> list[LearningPoint]:
    """Points of one training."""
    profile = get_profile(name)
    student = load_student(profile)
    train, validation = (load_domain(domain, split).sessions for split in ("train", "validation"))
    reader = profile_reader(profile, student, train)
    if reader is None:
        raise SystemExit(f"profile {name} reads no pairs: choose smol, t4 or paper")
    points: list[LearningPoint] = []

    def measure(model: Any, n_seen: int) -> None:
        options = {"profile": profile, "reader": reader, "train": train, "validation": validation}
        points.append(learning_point(student, model, n_seen, **options))
        print(points[-1], file=sys.stderr)

    measure(student.model, 0)
    with tempfile.TemporaryDirectory() as folder:
        train_expert(
            student, train, Path(folder, "base"), config=profile.train, prompt=profile.prompt, reader=reader,
            validation=validation, on_epoch=measure, seed=seed,
        )  # fmt: skip
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smol")
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--seed", type=int, default=1, help="not 0: another training than the recorded one")
    args = parser.parse_args()
    known = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    points = curve(args.profile, args.domain, args.seed)
    rows = [{**point._asdict(), "below": point.below._asdict()} for point in points]
    known[args.domain] = {**surroundings(), "profile": args.profile, "seed": args.seed, "points": rows}
    write_json(OUTPUT, known)


if __name__ == "__main__":
    raise SystemExit(ended(main))
