"""Write the tables and figures of `book/recipe.md` from the recorded trials in `results/recipe/`.

    python scripts/recipe_page.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from routedk_lite.data import PUBLIC_DOMAINS
from routedk_lite.files import atomic_write
from routedk_lite.plots import curves_figure
from routedk_lite.report import text_table

ROOT = Path(__file__).resolve().parents[1]
TRIALS = ROOT / "results" / "recipe" / "trials.json"
PAGE = ROOT / "book" / "recipe.md"
ASSETS = ROOT / "book" / "assets"
MARKED = re.compile(r"(<!-- (?P<name>[a-z_]+):begin -->\n).*?(<!-- (?P=name):end -->)", re.DOTALL)
SCORES = {
    "hidden cos centred L4": "cosine of title states, layer 4",
    "hidden cos centred L12": "layer 12",
    "hidden cos centred L20": "layer 20",
    "hidden cos centred L28": "layer 28",
    "pmi list": "likelihood of a title after the other, less its own",
    "inctx ,": "the same, with all titles listed above",
}
"""Names of the zero-shot scores in the trials, and in the page."""
EXACT_WEIGHTS = ("0.5", "1.5")
"""What an exact match was worth to the decoders that are compared."""


def tables(trials: Mapping[str, Any]) -> dict[str, str]:
    """Markdown tables by the name of their markers."""
    scores = [[SCORES[row["score"]], *(f"{row['auc'][d]:.2f}" for d in PUBLIC_DOMAINS)] for row in trials["zero_shot"]]
    header = ["score of a pair, no training", *PUBLIC_DOMAINS]
    found = {"zero_shot": text_table(header, scores, markdown=True)}
    rows = []
    for name in ("yes_no_questions", "states_of_titles"):
        for point in (trials[name]["curve"][0], trials[name]["curve"][-1]):
            aucs = [f"{point['auc'][d]:.2f}" for d in PUBLIC_DOMAINS]
            rows.append([name.replace("_", " "), str(point["sessions"]), *aucs])
    header = ["trained on", "sessions seen", *PUBLIC_DOMAINS]
    found["pairs"] = text_table(header, rows, text_columns=1, markdown=True)
    rows = [
        [row["domain"], *(f"{row[how][m]:.2f}" for how in ("most_probable", "expected") for m in ("f1", "exact_match"))]
        for row in trials["decoding"]["rows"]
    ]
    header = ["domain", "most probable: F1", "exact match", "best expected: F1", "exact match"]
    found["decoding"] = text_table(header, rows, markdown=True)
    found["longer"] = _longer_trials(trials["longer_trials"]["rows"])
    found["similarities"] = _beside_similarities(trials)
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


def _beside_similarities(trials: Mapping[str, Any]) -> str:
    """Bundles of the student that saw one domain, beside those of similarities that saw none."""
    (student,) = (row for row in trials["longer_trials"]["rows"] if row["trained_on"] == "one domain")
    rows = []
    for domain in PUBLIC_DOMAINS:
        for row in trials["similarities"]["rows"]:
            if row["domain"] == domain:
                rows.append([f"{row['similarity']}, decoded", domain, *_scores(row["decoded"])])
        rows.append(["student", domain, *_scores(student["domains"][domain]["decoded"])])
    scores = [f"{metric}, weight {w}" for w in EXACT_WEIGHTS for metric in ("F1", "exact")]
    return text_table(["pairs from", "domain", *scores], rows, text_columns=2, markdown=True)


def _scores(decoded: Mapping[str, Any]) -> list[str]:
    return [f"{decoded[weight][metric]:.2f}" for weight in EXACT_WEIGHTS for metric in ("f1", "exact_match")]


def figures(trials: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by file name."""
    curves = {
        name.replace("_", " "): [
            (point["sessions"], sum(point["auc"].values()) / len(point["auc"])) for point in trials[name]["curve"]
        ]
        for name in ("yes_no_questions", "states_of_titles")
    }
    items = trials["answers_after_states"]["curve"]
    nats = {
        "student": [(p["sessions"], sum(p["nats_per_item"].values()) / 3) for p in items],
        "content-free": [(p["sessions"], sum(p["content_free"].values()) / 3) for p in items],
    }
    note = "recorded: SmolLM2-135M, one CPU thread, November 2026"
    seen = "training sessions seen"
    return {
        "recipe_pairs.svg": curves_figure(curves, seen, "pair AUC, validation", note=note),
        "recipe_answers.svg": curves_figure(nats, seen, "nats per item", note=note),
    }


def filled(text: str) -> str:
    """The page's text with the tables that the trials give now."""
    made = tables(json.loads(TRIALS.read_text(encoding="utf-8")))
    return MARKED.sub(lambda m: f"{m[1]}\n{made[m['name']]}\n\n{m[3]}", text)


if __name__ == "__main__":
    content = filled(PAGE.read_text(encoding="utf-8"))
    with atomic_write(PAGE) as file:
        file.write(content)
    plt.rcParams["svg.hashsalt"] = "recipe"  # the same ids in every run: a figure changes only when its data do
    for name, figure in figures(json.loads(TRIALS.read_text(encoding="utf-8"))).items():
        figure.savefig(ASSETS / name, metadata={"Date": None})
