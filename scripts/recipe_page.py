"""Write the tables and figures of `book/recipe.md` from the recorded trials in `results/recipe/`.

python scripts/recipe_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from routedk_lite.analysis.diagnostics import LearningPoint
from routedk_lite.book.plots.task import curves_figure, learning_figure
from routedk_lite.data.sessions import PUBLIC_DOMAINS
from routedk_lite.files import atomic_write
from routedk_lite.report.tables import UNBROKEN, fill_marked, text_table
from routedk_lite.statistics import Interval
from routedk_lite.study.records import RunRecord, load_all

ROOT = Path(__file__).resolve().parents[1]
TRIALS = ROOT / "results" / "recipe" / "trials.json"
LEARNING = ROOT / "results" / "recipe" / "learning.json"
ROUTERS = ROOT / "results" / "recipe" / "router.json"
WRITING = ROOT / "results" / "recipe" / "writing.json"
ROUTED = "smol/electronic/seed0"
"""Whose routers were tried."""
PAGE = ROOT / "book" / "recipe.md"
ASSETS = ROOT / "book" / "assets"
SCORES = {
    "hidden cos centred L4": "cosine of title states, layer 4",
    "hidden cos centred L12": "layer 12",
    "hidden cos centred L20": "layer 20",
    "hidden cos centred L28": "layer 28",
    "pmi list": "likelihood of a title after the other, minus its own",
    "inctx ,": "the same, with all titles listed above",
}
"""Names of the zero-shot scores in the trials, and in the page."""
WEIGHT = "0.75"
"""What an exact match is worth beside a strict F1 of one, to the decoder of the recipe."""
WEIGHTS = ("0.0", "0.5", "0.75", "1.0", "1.5", "exact match alone")
"""All that were tried."""


def tables(trials: Mapping[str, Any]) -> dict[str, str]:
    """Markdown tables by the name of their markers."""
    scores = [[SCORES[row["score"]], *(f"{row['auc'][d]:.2f}" for d in PUBLIC_DOMAINS)] for row in trials["zero_shot"]]
    header = ["score of a pair, no training", *PUBLIC_DOMAINS]
    found = {"zero_shot": text_table(header, scores, markdown=True)}
    rows = []
    for name in ("yes_no_questions", "states_of_titles"):
        curve = trials[name]["curve"]
        for point in [curve[0], *(p for p in curve[1:-1] if p["sessions"] == 400), curve[-1]]:
            aucs = [f"{point['auc'][d]:.2f}" for d in PUBLIC_DOMAINS]
            rows.append([name.replace("_", " "), str(point["sessions"]), *aucs])
    header = ["trained on", "sessions seen", *PUBLIC_DOMAINS]
    found["pairs"] = text_table(header, rows, text_columns=1, markdown=True)
    found["longer"] = _longer_trials(trials["longer_trials"]["rows"])
    found["shorter"] = _shorter_trials(trials["shorter_trials"]["rows"])
    found["similarities"] = _beside_similarities(trials)
    found["test"] = _on_test([r for r in load_all(ROOT / "results") if r.profile == "smol"])
    return found


def _longer_trials(trials: Iterable[Mapping[str, Any]]) -> str:
    """Pairs and written answers after thousands of sessions; empty where a trial did not learn or look at them."""
    rows = []
    for trial in trials:
        found = [trial["domains"].get(d) for d in PUBLIC_DOMAINS]
        aucs = [f"{one['auc']:.2f}" if one else "" for one in found]
        gaps = [
            f"{one['content_free'] - one['nats_per_item']:+.2f}" if one and trial["answer_weight"] else ""
            for one in found
        ]
        rows.append([trial["trained_on"], str(trial["pseudo_sessions"]), str(trial["sessions"]), *aucs, *gaps])
    short = [d[:5] for d in PUBLIC_DOMAINS]
    header = ["trained on", "pseudo", "real", *(f"AUC {d}" for d in short), *(f"nats below {d}" for d in short)]
    return text_table(header, rows, markdown=True)


def _shorter_trials(trials: Iterable[Mapping[str, Any]]) -> str:
    """What fits a laptop: means of the three domains."""
    rows = []
    for trial in trials:
        seen = [trial["domains"][d].get("sessions", trial["sessions"]) for d in PUBLIC_DOMAINS]
        weights = [trial[name] for name in ("answer_weight", "pair_weight", "partition_weight")]
        rows.append([
            trial["warm_up"] or "none",
            f"{trial['rank']}, from {trial['first_layer']}",
            f"{trial['learning_rate']:g}",
            " : ".join(f"{w:g}" for w in weights),
            f"{sum(seen) / 3:.0f}",
            f"{_mean(trial, 'auc'):.3f}",
            *(f"{_mean(trial, 'decoded', WEIGHT, metric):.3f}" for metric in ("f1", "exact_match")),
        ])  # fmt: skip
    header = ["warm-up", "rank, layers", "rate", "answers : pairs : partitions", "sessions", "AUC", "F1", "exact"]
    return text_table(header, rows, text_columns=4, markdown=True)


def _mean(trial: Mapping[str, Any], *path: str) -> float:
    """Mean over the three domains of what stands at a path."""
    return sum(reduce(getitem, path, trial["domains"][d]) for d in PUBLIC_DOMAINS) / len(PUBLIC_DOMAINS)


def chosen(trials: Mapping[str, Any]) -> Mapping[str, Any]:
    """The trial that is nearest to the recipe: pairs, high rate, no warm-up, upper layers."""
    (found,) = (
        row for row in trials["shorter_trials"]["rows"]
        if (row["rank"], row["learning_rate"], row["partition_weight"], row["warm_up"]) == (16, 1e-3, 0, "")
    )  # fmt: skip
    return found


def _sources(trials: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Where pairs can come from → domain → what was measured."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in trials["similarities"]["rows"]:
        found.setdefault(row["similarity"], {})[row["domain"]] = row
    return {**found, "student": chosen(trials)["domains"]}


def _beside_similarities(trials: Mapping[str, Any]) -> str:
    """Bundles of the student, beside those of similarities that were never trained on bundles."""
    rows = []
    for domain in PUBLIC_DOMAINS:
        for name, domains in _sources(trials).items():
            clustered = domains[domain].get("clustered")
            scores = [clustered, domains[domain]["decoded"][WEIGHT]]
            cells = ["" if s is None else f"{s[m]:.3f}" for s in scores for m in ("f1", "exact_match")]
            rows.append([domain, name, *cells])
    header = ["domain", "pairs from", "clustered: F1", "exact", "decoded: F1", "exact"]
    return text_table(header, rows, text_columns=2, markdown=True)


ON_TEST = {
    "floor-all_pairs": "the best floor by F1: all pairs",
    "floor-whole": "the best floor by exact match: the whole session",
    "cluster-tfidf": "TF-IDF, clustered",
    "cluster-minilm": "MiniLM, clustered",
    "decode-tfidf": "TF-IDF, decoded",
    "decode-minilm": "MiniLM, decoded",
    "zero-shot-pairs": "the student, untrained, decoded",
    "base-seed0": "the student, trained, decoded",
}
"""Runs that stand beside each other on the test sessions."""


def _on_test(records: Iterable[RunRecord]) -> str:
    """Strict F1 and exact match of the recorded runs, and of the trained student's greedy answers."""
    known = {(r.run, r.domain): r for r in records}
    rows = [[label, *_cells(known[run, d].metrics["strict"] for d in PUBLIC_DOMAINS)] for run, label in ON_TEST.items()]
    greedy = (known["base-seed0", d].analysis["greedy"]["metrics"]["strict"] for d in PUBLIC_DOMAINS)
    rows.append(["the student, trained, greedy", *_cells(greedy)])
    header = ["answers from", *(f"{d}: F1 / exact" for d in PUBLIC_DOMAINS)]
    return text_table(header, rows, markdown=True)


def _routers(trials: Iterable[Mapping[str, Any]]) -> str:
    """Routers of the same experts: what they read, how fast they learn, and what the validation sessions say."""
    rows = []
    for trial in trials:
        largest = max(trial["load"], key=trial["load"].get)
        rows.append([
            "normalised" if trial["normalize"] else "raw",
            f"{trial['learning_rate']:g}",
            ", ".join(f"{loss:.4f}" for loss in trial["losses"]),
            f"{trial['entropy']:.2f}",
            f"{trial['between_sessions']:.3f}",
            f"{largest.rsplit('-', 1)[0]}, {trial['load'][largest]:.0%}",
            f"{trial['strict_f1']:.3f}",
            f"{trial['exact_match']:.3f}",
        ])  # fmt: skip
    header = ["z", "rate", "loss by epoch", "entropy", "spread", "largest load", "F1", "exact"]
    return text_table(header, rows, text_columns=3, markdown=True)


WRITTEN = {
    "one-line": ("letters", "1"),
    "one-nopair": ("letters, no pair loss", "1"),
    "one-numbers": ("lists of numbers", "1"),
    "one-line-again": ("letters, repeated", "1"),
    "one-titles": ("lists of short titles", "1"),
    "one-r8": ("letters, rank 8", "1"),
    "one-r64": ("letters, rank 64", "1"),
    "one-2e3": ("letters, rate 0.002", "1"),
    "one-smol": ("letters, SmolLM2-135M", "1"),
    "one-15b": ("letters, Qwen2.5-Coder-1.5B", "1"),
    "b8r": ("letters", "4"),
    "b8o8": ("the same, asked in eight orders", "4"),
    "line5e4": ("letters, batches of sixteen", "5"),
    "joint1": ("letters, three domains jointly", "1"),
    "jel": ("the same, then electronic", "1 + 2"),
    "jelo2": ("the same, asked in two orders", "1 + 2"),
}
"""Trials of written answers, by the name in `writing.json`."""
CONSENSUS = "0.5"
"""What an exact match is worth beside a strict F1 of one, to the consensus of the recipe."""


def _writing(found: Mapping[str, Any]) -> str:
    """Where each trial of written answers ended, and what needs no student."""
    trials = {trial["trial"]: trial for trial in found["trials"]}
    rows = []
    for name, (label, epochs) in WRITTEN.items():
        if name not in trials:
            continue
        trial = trials[name]
        last = trial["epochs"][-1]
        below = f"{last['content_free'] - last['nats']:+.3f}" if "nats" in last else ""
        scores = (last.get("greedy"), last.get("majority"), last.get("consensus", {}).get(CONSENSUS))
        rows.append([label, epochs, below, *(_pair(score) for score in scores)])
    for label, score in found["floors"].items():
        rows.append([label, "", "", "", "", _pair(score)])
    header = ["answers, training", "epochs", "nats below", "greedy", "majority", "consensus, or floor"]
    return text_table(header, rows, text_columns=2, markdown=True)


def _pair(score: Sequence[float] | None) -> str:
    return f"{score[0]:.3f}{UNBROKEN}/ {score[1]:.3f}" if score else ""


def _cells(metrics: Iterable[Mapping[str, float]]) -> list[str]:
    return [f"{m['f1']:.3f}{UNBROKEN}/ {m['exact_match']:.3f}" for m in metrics]


def figures(trials: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by file name."""
    curves = {
        name.replace("_", " "): [
            (point["sessions"], sum(point["auc"].values()) / len(point["auc"])) for point in trials[name]["curve"]
        ]
        for name in ("yes_no_questions", "states_of_titles")
    }
    trade = {
        name: [
            tuple(sum(domains[d]["decoded"][w][m] for d in PUBLIC_DOMAINS) / 3 for m in ("exact_match", "f1"))
            for w in WEIGHTS
        ]
        for name, domains in _sources(trials).items()
    }
    note = "recorded: SmolLM2-135M, one CPU thread, November 2026"
    seen = "training sessions seen"
    return {
        "recipe_pairs.svg": curves_figure(curves, seen, "pair AUC, validation", note=note),
        "recipe_decoding.svg": curves_figure(
            trade, "exact match, validation", "strict F1, validation", note="mean of the three domains"
        ),
    }


def learning(curves: Mapping[str, Any]) -> Figure:
    """How the recipe's student learns, as `benchmarks/learning.py` recorded it."""
    points = {
        domain: [LearningPoint(**{**p, "below": Interval(**p["below"])}) for p in curves[domain]["points"]]
        for domain in PUBLIC_DOMAINS
        if domain in curves
    }
    about = next(iter(curves.values()))
    return learning_figure(points, note=f"recorded: {about['profile']}, seed {about['seed']}, validation sessions")


def step_figure(sizes: Mapping[str, Any], rate: float = 1e-3) -> Figure:
    """How far one step of Adam moves a logit of the router, layer by layer."""
    curves = {
        label: [(layer, rate * size) for layer, size in zip(sizes["layers"], sizes[label], strict=True)]
        for label in ("raw", "normalised")
    }
    note = f"recorded: SmolLM2-135M, validation sessions of electronic, rate {rate:g}"
    figure = curves_figure(curves, "layer", "what one step adds to a logit", note=note)
    axes = figure.axes[0]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def routers() -> Mapping[str, Any]:
    """What `benchmarks/router.py` recorded."""
    return json.loads(ROUTERS.read_text(encoding="utf-8"))[ROUTED]


def filled(text: str) -> str:
    """The page's text with the tables that the trials give now."""
    found = tables(json.loads(TRIALS.read_text(encoding="utf-8")))
    writing = _writing(json.loads(WRITING.read_text(encoding="utf-8")))
    return fill_marked(text, {**found, "routers": _routers(routers()["trials"]), "writing": writing})


if __name__ == "__main__":
    content = filled(PAGE.read_text(encoding="utf-8"))
    with atomic_write(PAGE) as file:
        file.write(content)
    plt.rcParams["svg.hashsalt"] = "recipe"  # the same ids in every run: a figure changes only when its data do
    drawn = figures(json.loads(TRIALS.read_text(encoding="utf-8")))
    drawn["recipe_learning.svg"] = learning(json.loads(LEARNING.read_text(encoding="utf-8")))
    drawn["recipe_router.svg"] = step_figure(routers()["state_sizes"])
    for name, figure in drawn.items():
        figure.savefig(ASSETS / name, metadata={"Date": None})
