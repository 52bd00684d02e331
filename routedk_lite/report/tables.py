"""Tables for the terminal and for Markdown: results, plans, data statistics."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.sessions import DOMAINS

if TYPE_CHECKING:
    from ..study.pipeline import Pipeline
    from ..study.records import RunRecord

RESULT_COLUMNS = ("P", "R", "C", "F1", "exact")
_METRICS = ("precision", "recall", "coverage", "f1", "exact_match")
MISSING = "–"
"""A cell of which nothing is known."""
UNBROKEN = "\u00a0"
"""A space at which no line ends, for narrow columns."""
_MARKED = re.compile(r"(<!-- (?P<name>[a-z_]+):begin -->\n).*?(<!-- (?P=name):end -->)", re.DOTALL)


def fill_marked(page: str, made: Mapping[str, str]) -> str:
    """A Markdown page with what was made between its markers `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        KeyError: nothing was made for a marker.
    """
    return _MARKED.sub(lambda m: f"{m[1]}\n{made[m['name']]}\n\n{m[3]}", page)


def text_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    text_columns: int = 1,
    markdown: bool = False,
) -> str:
    """Lay a table out: columns of text, then columns of numbers aligned to the right.

    Args:
        header: column names.
        rows: one text per column.
        title: a line above it; a caption in Markdown.
        text_columns: how many columns, from the left, are text.
        markdown: a Markdown table instead of one for the terminal.
    """
    rows = [list(row) for row in rows]
    if markdown:
        rule = "|".join(["---"] * text_columns + ["---:"] * (len(header) - text_columns))
        lines = [
            "| " + " | ".join(header) + " |",
            f"|{rule}|",
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
        return "\n".join(([f"**{title}**", ""] if title else []) + lines)
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number >= text_columns else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # a string would be read as markup: brackets in it may be a folder's
    # Wide enough for every cell: a table that is piped to a file must not depend on the terminal.
    width = sum(max(map(cell_len, column)) + 3 for column in zip(header, *rows, strict=True)) + 2
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return "\n".join(([title] if title else []) + [console.file.getvalue().strip("\n")])


def results_table(records: Iterable[RunRecord], *, markdown: bool = False) -> str:
    """Recorded runs under both protocols, with the interval of the headline number."""
    header = [
        "run",
        *(f"{p} {c}" for p in ("official", "strict") for c in RESULT_COLUMNS),
        "strict F1 95 %",
        "valid",
    ]
    parts = []
    for (profile, domain), group in _groups(records).items():
        rows = [
            [
                r.run,
                *(f"{r.metrics[p][m]:.3f}" for p in ("official", "strict") for m in _METRICS),
                "[{:.3f}, {:.3f}]".format(*found) if (found := _f1_interval(r)) else MISSING,
                f"{r.metrics['strict']['valid_rate']:.3f}",
            ]
            for r in group
        ]
        title = f"{profile}, {domain} ({group[0].split}, {group[0].n_sessions} sessions)"
        parts.append(text_table(header, rows, title=title, markdown=markdown))
    return "\n\n".join(parts)


def no_records(folder: Path, known: Iterable[RunRecord], profile: str | None = None, domain: str | None = None) -> str:
    """That there is no record of what was asked for, what there is instead, and how to make some.

    Args:
        folder: where was looked.
        known: all that is there.
        profile, domain: what was asked for; `None` is any.
    """
    wanted = "".join(f" of {kind} {name!r}" for kind, name in (("profile", profile), ("domain", domain)) if name)
    there = ", ".join(sorted({f"{record.profile}/{record.domain}" for record in known}))
    missing = "" if folder.is_dir() else ", which does not exist"
    command = f"routedk run --profile {profile or 'toy'}" + (f" --domain {domain}" if domain else "")
    return f"no records{wanted} in {folder}{f'; there are {there}' if there else missing}. Make some: {command}"


def short_table(records: Iterable[RunRecord]) -> str:
    """Recorded runs in Markdown, narrow enough for a page: strict F1 with its interval, and exact match."""
    parts = []
    for (profile, domain), group in _groups(records).items():
        rows = [[r.run, _recorded_f1(r), f"{r.metrics['strict']['exact_match']:.3f}"] for r in reversed(group)]
        title = f"{profile}, {domain} ({group[0].n_sessions} {group[0].split} sessions)"
        parts.append(text_table(["run", "strict F1 [95 %]", "exact match"], rows, title=title, markdown=True))
    return "\n\n".join(parts)


def domains_table(records: Iterable[RunRecord], rows: Mapping[str, str]) -> str:
    """A few runs of one profile beside each other in Markdown: strict F1 with its interval, one column per domain.

    Args:
        records: of one profile.
        rows: the beginning of runs' names → what the row is called; of several runs that fit, the best is shown.
    """
    known = list(records)
    domains = [domain for domain in DOMAINS if any(r.domain == domain for r in known)]
    lines = []
    for start, label in rows.items():
        fitting = [[r for r in known if r.domain == domain and r.run.startswith(start)] for domain in domains]
        best = [max(found, key=lambda r: r.metrics["strict"]["f1"], default=None) for found in fitting]
        lines.append([label, *(_recorded_f1(r) if r else MISSING for r in best)])
    return text_table(["strict F1 [95 %]", *domains], lines, markdown=True)


def f1_cell(estimate: float, low: float, high: float) -> str:
    """A score with its interval, as narrow tables show them; no line ends within the interval."""
    return f"{estimate:.3f} [{low:.2f},{UNBROKEN}{high:.2f}]"


def _recorded_f1(record: RunRecord) -> str:
    f1, interval = record.metrics["strict"]["f1"], _f1_interval(record)
    return f1_cell(f1, *interval) if interval else f"{f1:.3f} [{MISSING}]"


def _f1_interval(record: RunRecord) -> Sequence[float] | None:
    """Of strict F1; a single test session has none."""
    return record.intervals["strict"].get("f1")


def provenance(records: Sequence[RunRecord]) -> str:
    """Where recorded numbers come from: student, hardware, dates, commit, as every figure and table must say.

    Runs without a student are left aside where there are others: any machine does them alike.
    """
    used = sorted([r for r in records if r.student] or records, key=lambda r: r.created)
    latest = used[-1]
    types = " or ".join(dict.fromkeys(r.student["dtype"] for r in used if r.student))
    student = f"{latest.student['id']} in {types}" if latest.student else "no student"
    first, last = used[0].created[:10], latest.created[:10]
    dates = first if first == last else f"{first} to {last}"
    commit = "commit" if len({r.commit for r in used}) == 1 else "last commit"
    return f"Recorded: {student}, {_machines(used)}, {dates}, {commit} {(latest.commit or 'unknown')[:7]}."


def _machines(records: Iterable[RunRecord]) -> str:
    """GPUs and processors that records name, each once; with the numbers of cores."""
    gpus = dict.fromkeys(r.hardware["gpu"] for r in records if r.hardware.get("gpu"))
    on_cpu = [r.hardware for r in records if not r.hardware.get("gpu")]
    if not on_cpu:
        return " or ".join(gpus)
    counts = sorted({found["cores"] for found in on_cpu})
    cores = f"{' or '.join(map(str, counts))} core{'s' * (counts[-1] > 1)}"
    processors = dict.fromkeys(found["cpu"].replace("(R)", "") for found in on_cpu)
    return " or ".join([*gpus, f"{cores} of {' or '.join(processors)}"])


def _groups(records: Iterable[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    """Records by profile and domain, the worst strict F1 first."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: r.metrics["strict"]["f1"]):
        groups.setdefault((record.profile, record.domain), []).append(record)
    return dict(sorted(groups.items()))


def plan_table(study: Pipeline, part: str = "method", only: Sequence[str] = ()) -> str:
    """What a run of one part of a study, or of `only` some stages, would do, with estimates of time, memory and disk.

    Raises:
        ValueError: no such part, or a pattern that fits no stage.
    """
    from ..study.estimate import estimate

    stages = study.chosen(only, part)
    rows, pending = [], []
    for stage in stages:
        if stage.is_done():
            rows.append([stage.name, stage.about, "done", "", ""])
        else:
            pending.append(e := estimate(study, stage))
            rows.append([stage.name, stage.about, minutes(e.seconds), f"{e.memory_gb:.1f} GB", f"{e.disk_mb:.0f} MB"])
    rows.append(["total", "", minutes(sum(e.seconds for e in pending)),
                 f"{max((e.memory_gb for e in pending), default=0):.1f} GB",
                 f"{sum(e.disk_mb for e in pending):.0f} MB"])  # fmt: skip
    what = "chosen stages" if only else part
    title = f"{study.profile.name}, {study.domain}, seed {study.seed}: plan of the {what} (computed estimates)"
    basis = next((e.basis for e in pending if e.basis), "")
    table = text_table(["stage", "what", "time", "memory", "disk"], rows, title=title, text_columns=2)
    return f"{table}\n{basis}".rstrip()


def stats_table() -> str:
    """The counts of the public data, raw and as loaded."""
    from ..data.rawdata import all_counts

    counts = all_counts()
    raw = [[name, *(f"{v:,}" for v in r[:-1]), f"{r.bundle_size:.2f}"] for name, (r, _) in counts.items()]
    used = [
        [name, " / ".join(map(str, d.sessions)), f"{d.bundles:,}", f"{d.bundle_size:.2f}", f"{d.session_size:.2f}",
         f"{d.distractors:.1%}", str(d.overlapping)]
        for name, (_, d) in counts.items()
    ]  # fmt: skip
    return "\n\n".join(
        [
            text_table(["domain", "users", "items", "sessions", "bundles", "intents", "items/bundle"], raw,
                       title="Raw data (SIGIR 2022)"),
            text_table(["domain", "train / val / test", "bundles", "items/bundle", "items/session", "distractors",
                        "sessions with overlap"], used, title="As loaded (AICL, sessions with a bundle)"),
        ]
    )  # fmt: skip


def minutes(seconds: float) -> str:
    """A duration in words."""
    if seconds < 1:
        return "< 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
