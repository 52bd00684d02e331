"""What the router explorer shows, gathered from run records and one measurement into a small JSON value.

All that needs a model, a metric or the annotations is settled here: which bundles were given under which weights, what
they are worth, and how each of them relates to the true ones. What is left to the page is arithmetic on α and a count
of votes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...answers.decoding import Samples
from ...data.domains import load_domain
from ...data.metrics import per_session
from ...data.own import domain_name
from ...data.parsing import parse_answer
from ...data.sessions import Bundle, Domain, Session
from ...fusion.statistics import DOMINANT_LOAD, UNIFORM_ENTROPY
from ...report.tables import provenance
from ...study.explored import by_consensus, recorded_answers, recorded_runs, recorded_samples
from ...study.measurements import Measurement, load_measurements
from ...study.mixtures import PARTS, TEMPERATURES
from ...study.records import RunRecord, load_all, load_attachment, without_seed
from .votes import CONSENSUS, stops, votes_of

STEPS = 1000
"""Scores stand in the payload as whole thousandths."""
ALPHA_STEPS = 10_000
"""Logarithms of α, and mean weights, as whole ten-thousandths: sharpening multiplies what rounding leaves."""
LOWEST = -30
"""Logarithms of α below this are cut."""


class Mark(NamedTuple):
    """How one predicted bundle relates to the true ones."""

    items: tuple[int, ...]
    kind: str
    """`whole`: equal to a true bundle. `part`: an over-cut, inside a true bundle but smaller. `miss`: inside none."""
    label: str
    """Letter of the true bundle; numbered where several parts of it were predicted; `×` for a miss."""
    truth: int
    """Place of that true bundle, -1 for a miss."""


def true_bundles(session: Session) -> list[Bundle]:
    """The distinct annotated bundles of two or more items, as the strict protocol counts them."""
    return [bundle for bundle in dict.fromkeys(session.bundles) if len(bundle) > 1]


def marks(bundles: Iterable[Bundle], truth: Sequence[Bundle]) -> list[Mark]:
    """Predicted bundles beside the true ones, in the order of their items.

    >>> truth = [frozenset({1, 2, 3}), frozenset({4, 5})]
    >>> [(m.kind, m.label) for m in marks(map(frozenset, [{4, 5}, {1, 2}, {1, 3}, {3, 4}]), truth)]
    [('part', 'A1'), ('part', 'A2'), ('miss', '×'), ('whole', 'B')]
    """
    found = []
    for bundle in sorted({b for b in bundles if len(b) > 1}, key=sorted):
        place = truth.index(bundle) if bundle in truth else next((i for i, t in enumerate(truth) if bundle < t), -1)
        kind = "miss" if place < 0 else "whole" if bundle == truth[place] else "part"
        found.append(Mark(tuple(sorted(bundle)), kind, "×" if place < 0 else letter(place), place))
    groups = [(mark.kind, mark.truth) for mark in found]
    numbered = []
    for i, (mark, group) in enumerate(zip(found, groups, strict=True)):
        several = mark.kind != "whole" and groups.count(group) > 1
        numbered.append(mark._replace(label=f"{mark.label}{groups[: i + 1].count(group)}") if several else mark)
    return numbered


def letter(place: int) -> str:
    """The name of a true bundle by its place: A, B, …"""
    return chr(ord("A") + place % 26)


class Source(NamedTuple):
    """The records behind an explorer."""

    runs: Mapping[str, RunRecord]
    """Method → its run: single experts, `average`, `ties`, `static`, `dynamic`, `vote`."""
    measured: Measurement
    """`explorer-seed…`: answers under changed weights."""
    test: Domain


def find_source(results: str | Path, profile: str, domain: str | Path, seed: int = 0) -> Source:
    """The records of one study that the explorer is made from.

    Raises:
        ValueError: some are missing, or do not belong together.
    """
    name, called = f"explorer-seed{seed}", domain_name(domain)
    wanted = (profile, called, name)
    measured = [m for m in load_measurements(results) if (m.profile, m.domain, m.name) == wanted]
    if not measured:
        raise ValueError(
            f"{results}: no {name} of profile {profile!r} and domain {called!r}. To make it: "
            f"routedk run --profile {profile} --domain {domain} --seed {seed}, then the same with --only {name}"
        )
    records = [r for r in load_all(results) if (r.profile, r.domain) == (profile, called)]
    runs, test = recorded_runs(records, seed), load_domain(domain, "test")
    dynamic = runs["dynamic"]
    if dict(dynamic.adapter_sha256) != dict(measured[0].adapter_sha256):
        raise ValueError(f"{measured[0].path} was made with other experts than {dynamic.path}: make it anew")
    if other := [run.path for run in runs.values() if run.data_sha256 != test.sha256]:
        raise ValueError(f"{other[0]} was made from other test sessions than those of {str(domain)!r} here")
    return Source(runs, measured[0], test)


def available(results: str | Path, seed: int = 0) -> list[tuple[str, str]]:
    """Profiles and domains for which an explorer is recorded."""
    found = load_measurements(results)
    return [(m.profile, m.domain) for m in found if m.name == f"explorer-seed{seed}"]


def payload(source: Source, label: str = "") -> dict[str, Any]:
    """Everything that the explorer's page needs, as a JSON value.

    Args:
        source: the records.
        label: where the numbers come from, for example `toy, run now`; by default what the record of the dynamic run
            says.
    """
    values, runs, test = source.measured.values, source.runs, source.test
    answers = recorded_answers(runs)
    samples = {one.id: one for one in recorded_samples(runs)}
    traced = np.array([row["alpha"] for row in load_attachment(runs["dynamic"], "alpha")])  # (S, L, E)
    dynamic_right = per_session(answers["dynamic"], test, "strict")
    sizes = stops(min(len(one.drawn) for one in samples.values()))
    sessions = [
        _session(test.by_id[row["id"]], row, {n: a[row["id"]] for n, a in answers.items()}, samples[row["id"]], sizes)
        for row in values["sessions"]
    ]
    variety = [len(set(session["methods"].values())) for session in sessions]
    names = [without_seed(name) for name in values["experts"]]
    same, asked = values["same_as_recorded"]
    return {
        "version": 1,
        "title": f"{source.measured.domain}, {source.measured.profile} student",
        "source": label or provenance([runs["dynamic"]]),
        "answers_by": _answers_by(runs),
        "same": [same, asked],
        "test_sessions": len(test),
        "experts": names,
        "layers": values["layers"],
        "parts": PARTS,
        "temperatures": list(TEMPERATURES),
        "settings": values["settings"],
        "uniform": UNIFORM_ENTROPY,
        "dominant": DOMINANT_LOAD,
        "static": _logs(values["static_log_alpha"]),
        "sizes": sizes,
        "exact_weight": CONSENSUS.exact_weight,
        "methods": [name for name in ("base", "rules", "reasoning", *_FUSED) if name in runs],
        "cloud": [
            [_shown_id(session), *(round(float(a) * ALPHA_STEPS) for a in mean), verdict_of(f1, exact)]
            for session, mean, f1, exact in zip(
                test, traced.mean(1), dynamic_right.f1, dynamic_right.exact_match, strict=True
            )
        ],
        "first": variety.index(max(variety)),
        "sessions": sessions,
    }


_FUSED = ("average", "ties", "static", "dynamic", "vote")


def _shown_id(session: Session) -> int | str:
    """As its owner knows the session."""
    return session.id if session.name in ("", str(session.id)) else session.name


def _answers_by(runs: Mapping[str, RunRecord]) -> str:
    if by_consensus(runs):
        return (
            "Every answer is the consensus of sampled texts, under changed weights too. The vote is the "
            "majority of the router's texts."
        )
    if "decoder" in runs["dynamic"].analysis:
        return (
            "Bundles are decoded from the student's pair probabilities (how likely two products belong together), the "
            "vote's from sampled text. Under changed weights the decoder stays the one fitted for the dynamic fusion."
        )
    return "Bundles are read from the student's greedy text, the vote's from sampled text."


def _session(
    session: Session,
    row: Mapping[str, Any],
    answers: Mapping[str, Sequence[Bundle]],
    samples: Samples,
    sizes: Sequence[int],
) -> dict[str, Any]:
    """One session's part of the payload. Every distinct answer stands in it once; all else points to it by number."""
    truth = true_bundles(session)
    known: dict[frozenset[Bundle], int] = {}

    def number(bundles: Iterable[Bundle]) -> int:
        return known.setdefault(frozenset(b for b in bundles if len(b) > 1), len(known))

    methods = {name: number(bundles) for name, bundles in answers.items() if name != "vote"}
    on_grid = [number(parse_answer(text, len(session)).bundles) for text in row["answers"]]
    votes = votes_of(samples, answers["vote"], sizes, number)
    return {
        "id": _shown_id(session),
        "why": row["why"],
        "titles": list(session.titles),
        "truth": [sorted(bundle) for bundle in truth],
        "intents": [dict(zip(session.bundles, session.intents, strict=False)).get(bundle, "") for bundle in truth],
        "answers": [_answer(session, bundles, truth) for bundles in known],
        "methods": methods,
        "grid": [on_grid[i] for i in row["answer_of_setting"]],
        "alpha": _logs(row["log_alpha"]),
        "votes": votes,
    }


def _answer(session: Session, bundles: Iterable[Bundle], truth: Sequence[Bundle]) -> list[Any]:
    """`[[items, kind, label, truth], …], F1 in thousandths, verdict`."""
    bundles = list(bundles)
    scores = per_session({session.id: bundles}, [session], "strict")
    f1, exact = float(scores.f1[0]), float(scores.exact_match[0])
    return [[[list(m.items), *m[1:]] for m in marks(bundles, truth)], round(f1 * STEPS), verdict_of(f1, exact)]


def verdict_of(f1: float, exact: float) -> str:
    """`exact`, `partly` or `wrong`: what a session's answer is worth under the strict protocol."""
    return "exact" if exact else "partly" if f1 else "wrong"


def _logs(rows: Iterable[Iterable[float]]) -> list[list[int]]:
    return [[round(max(LOWEST, float(value)) * ALPHA_STEPS) for value in row] for row in rows]
