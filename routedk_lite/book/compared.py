"""Recorded runs less each other, by family: what chapters 03 and 06 show beside their live runs.

A family is corrected as one. Its values are plain, so that `Chapter.public` can keep them; each knows how it was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import get_profile
from ..statistics import PairedDifference, holm
from ..study.records import RunRecord
from .found import values_of
from .plots.ablations import differences_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDENTS = {"smol": "SmolLM2", "qwen": "Qwen2.5-Coder"}
"""What a profile's student is called."""


def families(
    records: Iterable[RunRecord],
    profile: str,
    pairs: Mapping[str, tuple[str, str]],
    *,
    domains: Sequence[str],
    metric: str = "strict f1",
) -> dict[str, dict[str, dict[str, float]]]:
    """One run less another on the test sessions of every domain, over all seeds that both have.

    Args:
        records: of runs.
        profile: whose.
        pairs: a name for every comparison → its two runs, with `*` for the seeds, as in `claims.yml`.
        domains: in which; the comparisons of one are a family.
        metric: protocol and score.

    Returns:
        Domain → name → `estimate`, `low`, `high`, the means `a` and `b`, `p` by Holm's rule within the domain, `least`,
        the smallest difference that so many sessions would have shown, and `seeds`. What is not recorded is left out.

    Raises:
        ClaimError, RecordError: see `report.verdicts.judge_pairs`.
    """
    from ..report.verdicts import judge_pairs

    compared = [f for f in judge_pairs(records, profile, pairs, domains=domains, metric=metric) if f.is_compared]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for domain in domains:
        there = [f for f in compared if f.domain == domain]
        for f, p in zip(there, holm([f.p_value for f in there]) if there else (), strict=True):
            found.setdefault(domain, {})[f.comparison.label] = values_of(f) | {"p": float(p), "least": f.detectable}
    return found


def families_figure(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], rows: Iterable[str], xlabel: str = "strict F1", *, note: str
) -> Figure:
    """What `families` found, a panel per domain, with the differences that were too small to be found in grey.

    Args:
        found: see there. A domain with less than half of the rows is left out, unless it would be the last.
        rows: the comparisons, from the top. Those that are recorded nowhere are left out.
        xlabel: what is measured.
        note: where the numbers come from.

    Raises:
        ValueError: nothing to draw.
    """
    rows = [row for row in rows if any(row in values for values in found.values())]
    most = max((len(values) for values in found.values()), default=0)
    full = {domain: values for domain, values in found.items() if len(values) >= min(most, len(rows) / 2)}
    panels = {
        domain: {row: _difference(values[row]) if row in values else None for row in rows}
        for domain, values in full.items()
    }
    least = {domain: {row: values[row]["least"] for row in rows if row in values} for domain, values in full.items()}
    return differences_figure(panels, xlabel, detectable=least, note=note)


def in_words(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How many seeds and comparisons stand behind what `families` found: for captions and sources."""
    seeds = sorted({int(v["seeds"]) for values in found.values() for v in values.values()})
    if not seeds:
        return "not recorded"
    few, most = seeds[0], seeds[-1]
    counted = f"{few} to {most} seeds" if few < most else f"{few} seeds" if few > 1 else "one seed"
    if few > 1:
        return f"recorded, {counted}"
    return f"recorded, {counted}: {'with one seed, ' * (most > 1)}intervals count sessions only"


def recorded_by(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Whose runs stand behind what `Chapter.differences` found, and how many seeds; for the source of a box."""
    whose = sorted({values["profile"] for by_domain in found.values() for values in by_domain.values()})
    weights = {name: f"{get_profile(name).parameters / 1e6:,.0f} million weights" for name in whose}
    return ", ".join([*(f"{STUDENTS.get(name, name)} ({weights[name]})" for name in whose), in_words(found)])


def _difference(values: Mapping[str, Any]) -> PairedDifference:
    return PairedDifference(values["estimate"], values["low"], values["high"], values["p"])
