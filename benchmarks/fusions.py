"""What every way to fuse costs on SmolLM2: a training step where it learns, and generation, against one plain LoRA.

Three random adapters (rank 16 on all linear modules); each measurement runs in a process of its own, beside one LoRA
in the same round. LoraHub's weights are not searched here. Results go to `results/benchmarks/fusions.json`.

    python benchmarks/fusions.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

from routing import Bench, measure  # the sibling script

from routedk_lite.config import get_profile
from routedk_lite.errors import ended
from routedk_lite.files import write_json
from routedk_lite.fusion.base import Fusion
from routedk_lite.fusion.fusion import Average, Dynamic, Static, Ties
from routedk_lite.report.tables import text_table
from routedk_lite.student.peak import peak_memory_mb
from routedk_lite.study.fusing import other_fusions
from routedk_lite.study.machine import surroundings

OUTPUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "fusions.json"
PROFILE = get_profile("smol")
FUSIONS: dict[str, Fusion] = {
    "average": Average(),
    "ties": Ties(rank=PROFILE.ties_rank),
    "static": Static(),
    "dynamic": Dynamic(normalize=PROFILE.router.normalize),
    **other_fusions(PROFILE),
}
ONE = "one LoRA"
MEASUREMENTS: dict[str, Callable[[Bench], float]] = {
    f"step: {ONE}": lambda b: b.step(b.plain(), mask=False),
    **{
        f"step: {name}": lambda b, f=fusion: b.step(b.routed(fusion=f), mask=True)
        for name, fusion in FUSIONS.items()
        if fusion.learns
    },
    f"generate: {ONE}": lambda b: b.write(b.plain()),
    **{f"generate: {name}": lambda b, f=fusion: b.write(b.routed(fusion=f)) for name, fusion in FUSIONS.items()},
}


def against_one(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, object]]:
    """Each fusion's step and generation as multiples of one LoRA's in the same round, and its peak memory in MB."""
    found = []
    for name in FUSIONS:
        row: dict[str, object] = {"fusion": name}
        for what in ("step", "generate"):
            rounds = runs.get(f"{what}: {name}", [])
            row[what] = [run["seconds"] / run["one_lora"] for run in rounds]
            row[f"{what}_mb"] = [run["peak_mb"] for run in rounds]
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60, help="test sessions to write for")
    parser.add_argument("--domain", default="electronic")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", help="measure again what fits this pattern, keep the rest: 'generate: h*'")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.expert, args.profile = None, PROFILE.name
    if args.one:
        seconds = MEASUREMENTS[args.one](Bench(args))
        print(json.dumps({"seconds": seconds, "peak_mb": peak_memory_mb()}))
        return
    wanted = [name for name in MEASUREMENTS if fnmatch(name, args.only or "*") and ONE not in name]
    kept = json.loads(OUTPUT.read_text(encoding="utf-8"))["runs"] if args.only else {}
    runs: dict[str, list[dict[str, float]]] = kept | {name: [] for name in wanted}
    about = surroundings() | {"domain": args.domain, "sessions": args.sessions}
    for _ in range(args.rounds):
        kinds = {name.split(":")[0] for name in wanted}
        one = {what: measure(f"{what}: {ONE}", args, __file__)["seconds"] for what in kinds}
        for name in wanted:
            runs[name].append({**measure(name, args, __file__), "one_lora": one[name.split(":")[0]]})
            # Now and again, so that an interruption loses one measurement at most.
            write_json(OUTPUT, {**about, "runs": runs, "against_one": against_one(runs)})
    rows = [
        [row["fusion"], *(f"{median(row[what]):.2f}" if row[what] else "–" for what in ("step", "generate"))]
        for row in against_one(runs)
    ]
    print(text_table(["fusion", "step", "generation"], rows, title="as multiples of one LoRA's"))


if __name__ == "__main__":
    raise SystemExit(ended(main))
