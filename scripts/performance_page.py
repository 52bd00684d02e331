"""Write the tables and the figure of `book/performance.md` from the recorded benchmarks in `results/benchmarks/`.

python scripts/performance_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from routedk_lite.config import get_profile
from routedk_lite.files import atomic_write
from routedk_lite.report.style import finish, new_figure, palette
from routedk_lite.report.tables import UNBROKEN, fill_marked, text_table

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "results" / "benchmarks"
PAGE = ROOT / "book" / "performance.md"
FIGURE = ROOT / "book" / "assets" / "performance_growth.svg"
GROWTH = {"experts": "LoRA experts", "rank": "rank of each of three experts", "voters": "sampled answers per session"}


def load(name: str) -> dict[str, Any]:
    """The record of one benchmark."""
    return json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))


def by_profile(name: str) -> dict[str, dict[str, Any]]:
    """The records of a benchmark that was run with several students, the smaller student first."""
    found = {file.stem.removeprefix(f"{name}-"): load(file.stem) for file in BENCHMARKS.glob(f"{name}-*.json")}
    return {profile: found[profile] for profile in sorted(found, key=lambda one: get_profile(one).parameters)}


def tables(
    training: Mapping[str, Mapping[str, Any]],
    routing: Mapping[str, Mapping[str, Any]],
    gpu: Mapping[str, Any],
    fusions: Mapping[str, Any],
) -> dict[str, str]:
    """Markdown tables by the name of their markers.

    Args:
        training, routing: profile → the record of a benchmark.
        gpu, fusions: the records of one.
    """
    rows = []
    for profile, record in training.items():
        for name, found in record["runs"].items():
            speed = [run["tokens_per_second"] for run in found]
            memory = median(run["peak_mb"] for run in found)
            rows.append([profile, name, f"{median(speed):.0f}", _spread(speed, 0), f"{memory:.0f}"])
    titles = ["profile", "training", "tokens per second", "range", "peak MB"]
    made = {"training": text_table(titles, rows, text_columns=2, markdown=True)}
    rows = [
        [
            profile,
            name,
            "" if name.startswith("step") else str(record["sessions"]),
            f"{median(r['seconds'] for r in found):.0f}",
            f"{median(r['peak_mb'] for r in found):.0f}",
        ]
        for profile, record in routing.items()
        for name, found in record["runs"].items()
        if name.split()[0] not in GROWTH
    ]
    titles = ["profile", "what", "sessions", "seconds", "peak MB"]
    made["routing"] = text_table(titles, rows, text_columns=2, markdown=True)
    rows = [
        [
            profile,
            r["what"],
            r["reach"].replace(" ", UNBROKEN),
            f"{median(found):.2f}",
            _spread(found, 2),
            str(len(found)),
        ]
        for profile, record in routing.items()
        for r in record["ratios"]
        for found in [r["rounds"]]
    ]
    rows = [*_training_ratios(training), *rows]
    titles = ["profile", "ratio", "aim", "median", "range", "rounds"]
    made["ratios"] = text_table(titles, rows, text_columns=3, markdown=True)
    made["machine"] = " ".join(dict.fromkeys(_machine(one) for one in (*training.values(), *routing.values())))
    return made | _on_gpu(gpu) | {"fusions": _fusions(fusions)}


def _training_ratios(training: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for profile, record in training.items():
        pairs = zip(record["runs"]["ours"], record["runs"]["plain"], strict=True)
        found = [one["tokens_per_second"] / other["tokens_per_second"] for one, other in pairs]
        aim = f"≥{UNBROKEN}2"
        rows.append([profile, "our training / plain, tokens per second", aim, f"{median(found):.2f}", _spread(found, 2),
                     str(len(found))])  # fmt: skip
    return rows


def _fusions(fusions: Mapping[str, Any]) -> str:
    """Every fusion's step and generation as multiples of one LoRA's, with the range over the rounds."""
    rows = []
    for row in fusions["against_one"]:
        step, generate = (
            f"{median(row[what]):.2f} ({_spread(row[what], 2)})" if row[what] else "" for what in ("step", "generate")
        )
        rows.append([row["fusion"], step, generate, f"{median(row['generate_mb']):.0f}"])
    titles = ["fusion", "training step", "generation", "peak MB"]
    return text_table(titles, rows, markdown=True)


def _on_gpu(benchmark: Mapping[str, Any]) -> dict[str, str]:
    rows = []
    for name, found in benchmark["profiles"].items():
        for what, run in found.items():
            if isinstance(run, dict) and "sessions" in run:
                each = f"{run['seconds'] / run['sessions']:.2f}"
                what = what.partition(", micro")[0]
                rows.append([name, what, str(run["batch"]), f"{run['seconds']:.1f}", each, f"{run['peak_gb']:.1f}"])
    titles = ["profile", "what", "sessions at a time", "seconds", "seconds a session", "peak GB"]
    hardware = benchmark["hardware"]
    card = f"One {hardware['gpu']}, {hardware['cores']} cores of {hardware['cpu']}; {_packages(benchmark)}."
    return {"gpu": text_table(titles, rows, text_columns=2, markdown=True), "card": card}


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}" if len(values) > 1 else "–"


def _machine(benchmark: Mapping[str, Any]) -> str:
    hardware = benchmark["hardware"]
    return f"{hardware['cores']} cores of {hardware['cpu']}; {_packages(benchmark)}."


def _packages(benchmark: Mapping[str, Any]) -> str:
    names = ["torch", "transformers", "peft"] + ["bitsandbytes"] * ("gpu" in benchmark["hardware"])
    return ", ".join(f"{name} {benchmark['versions'][name]}" for name in names)


def growth_figure(runs: Mapping[str, Any]) -> Figure:
    """Seconds above, memory below, against the number of experts, their rank, and the number of voters."""
    figure = new_figure(4.2, layout="constrained")
    panels = figure.subplots(2, len(GROWTH), sharex="col")
    for column, (kind, label) in enumerate(GROWTH.items()):
        points = {int(name.split()[1]): found for name, found in runs.items() if name.startswith(f"{kind} ")}
        for row, (unit, scale, ylabel) in enumerate((("seconds", 1, "seconds"), ("peak_mb", 1000, "peak memory, GB"))):
            axes = panels[row, column]
            values = [median(run[unit] for run in found) / scale for found in points.values()]
            axes.plot(list(points), values, "o-", color=palette()[column])
            axes.set_xscale("log", base=2)
            axes.set_xticks(list(points), [str(x) for x in points])
            axes.set_ylim(0, 1.1 * max(values))
            if column == 0:
                axes.set_ylabel(ylabel)
        panels[1, column].set_xlabel(label)
    note = "experts, rank: forward and backward of the router over 32 sessions; answers: 180 sessions"
    return finish(figure, note)


def filled(text: str) -> str:
    """The page's text with the tables that the benchmarks give now."""
    return fill_marked(text, tables(by_profile("training"), by_profile("routing"), load("gpu"), load("fusions")))


if __name__ == "__main__":
    content = filled(PAGE.read_text(encoding="utf-8"))
    with atomic_write(PAGE) as file:
        file.write(content)
    plt.rcParams["svg.hashsalt"] = "performance"  # the same ids in every run: a figure changes only when its data do
    growth_figure(load("routing-smol")["runs"]).savefig(FIGURE, metadata={"Date": None})
