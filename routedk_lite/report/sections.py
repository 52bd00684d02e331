"""What the replication report says about one claim, with every number and every record behind it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..study.records import RunRecord
from .claims import Claim, Claims, Paper
from .costs import CALLS, MACHINES, READ_ON, memory_gb
from .findings import Finding
from .numbers import between, minus, signed
from .tables import UNBROKEN, text_table
from .verdicts import Judgement

SO_FAR = (
    "Not judged yet, because seeds are missing. The last column shows the direction so far. *detectable* is the "
    "smallest true difference that so much data would probably show: with one seed, as if seeds added no variance; "
    "with two, by what these two say about it, which is little."
)
SELDOM = 0.9
"""A run that names a bundle in fewer sessions is pointed out."""
FORMULA = r"""In dollars a session, the student costs $s\,(n\,c + g\,m) / 3600$ and the teacher $(q\,r + a\,w) / 10^6$:

- $s$ seconds on $n$ cores with $g$ GB of memory, at a price of $c$ for a core and $m$ for a GB, both an hour;
- $q$ tokens in the question and $a$ in the answer, at a price of $r$ per million tokens read and $w$ per million
  written."""
MEASURED = (
    "Seconds are those of answering or, where a record does not say them, of all but training. Memory is the peak of "
    "the whole run; where the run trained its router, that is part of it. In records before December 2026 it is the "
    "peak of the last process, which may lack what was trained before a stop, and may hold what the process ran before."
)


def claim_section(claims: Claims, judgement: Judgement, folder: Path, *, anchor: str = "claim") -> str:
    """Everything about one claim in MyST Markdown.

    Args:
        claims: of which this is one.
        judgement: on it.
        folder: the page's, from which records are linked.
        anchor: what the name of the section's target begins with.
    """
    claim = judgement.claim
    source = f" ({claim.source})" if claim.source else ""
    facts = [
        *([["the paper reports", claim.reports + source]] if claim.paper else []),
        ["tested in", f"[chapter {Path(claim.chapter).name[:2]}](../{claim.chapter}.ipynb)"],
        ["rule", _rule(claim)],
        ["verdict", f"**{judgement.words}**"],
    ]
    parts = [
        f"({anchor}-{claim.id})=\n### {claim.title}",
        claim.statement + (f" {_cited(claims.papers[claim.paper], claim.where)}" if claim.paper else ""),
        text_table(["", ""], facts, text_columns=2, markdown=True),
    ]
    if known := [f for f in judgement.findings if f.is_compared]:
        parts.append(findings_table(known))
        if not all(f.is_judged for f in known):
            parts.append(SO_FAR)
    if few := _seldom_answered(judgement.records):
        parts.append(few)
    if hindered := [f for f in judgement.findings if f.hindrance]:
        reasons = (f"{f.comparison.label} ({f.domain}): {f.hindrance}" for f in hindered)
        parts.append(f"Cannot be compared: {'; '.join(reasons)}.")
    if missing := _missing(judgement):
        parts.append(f"Not run yet: {missing}.")
    if claim.costs:
        parts += costs_parts(judgement)
    if claim.note:
        parts.append(claim.note)
    if judgement.records:
        parts.append(_records_dropdown(judgement.records, folder))
    return "\n\n".join(parts)


def _seldom_answered(records: Iterable[RunRecord]) -> str:
    """Which runs name a bundle in few sessions only; empty if none does."""
    few = [r for r in records if r.metrics["strict"]["valid_rate"] < SELDOM]
    if not few:
        return ""
    named = "; ".join(f"`{r.run}` in {100 * r.metrics['strict']['valid_rate']:.0f} % ({r.domain})" for r in few)
    return f"Sessions in which a bundle is named at all: {named}. A difference from such a run measures that first."


def _cited(paper: Paper, where: str) -> str:
    return f"*{paper.name[0].upper()}{paper.name[1:]} {{cite}}`{paper.key}`, {where}.*"


def _rule(claim: Claim) -> str:
    """How the claim is judged, in a sentence."""
    if claim.costs:
        return "the student's high end lies below the teacher's low end, in dollars a session"
    deciding = [c for c in claim.comparisons if c.decides]
    first = deciding[0]
    what = first.metric.replace("f1", "F1").replace("_", " ")
    rule = {
        "greater": f"a − b above 0 in {what}, unless the whole interval lies below {first.margin:g}",
        "not worse": f"a − b above −{first.margin:g} in {what}",
        "varies": f"an expert's weight differs, unless the whole interval lies within {first.margin:g} of 0",
    }[first.test]
    many = f"{'all' if claim.needs == 'all' else 'any'} of {len(deciding)} comparisons, " if len(deciding) > 1 else ""
    n_tests = len(deciding) * len(claim.domains)
    return f"{many}{rule}; {f'corrected for {n_tests} tests' if n_tests > 1 else 'one test, nothing to correct'}"


def _missing(judgement: Judgement) -> str:
    """Runs that are not recorded, each with its domains."""
    found: dict[str, list[str]] = {}
    for finding in judgement.findings:
        for run in finding.missing:
            if finding.domain not in found.setdefault(run, []):
                found[run].append(finding.domain)
    return "; ".join(f"`{run}` ({', '.join(domains)})" for run, domains in found.items())


def findings_table(findings: Iterable[Finding]) -> str:
    """The numbers of comparisons that were run, in Markdown."""
    difference = f"difference [95{UNBROKEN}%]"
    header = ["a − b", "domain", "a", "b", difference, "relative", "p", "seeds", "detectable", "verdict"]
    rows = []
    for f in findings:
        relative = ""
        if f.comparison.test != "varies" and f.b > 0:
            relative = minus(f"{100 * f.estimate / f.b:+.1f}{UNBROKEN}%")
        verdict = f.words if f.is_judged else f"so far {f.direction}"
        rows.append([
            f.comparison.label.replace(" = ", f"{UNBROKEN}={UNBROKEN}"),
            f.domain,
            f"{f.a:.3f}",
            f"{f.b:.3f}",
            f"{signed(f.estimate)} {between(f.low, f.high, signed, joint=f',{UNBROKEN}')}",
            relative,
            _p(f.p_holm),
            "–" if f.n_seeds is None else str(f.n_seeds),
            f"{f.detectable:.3f}" if f.detectable == f.detectable else "–",
            verdict if f.comparison.decides else f"{verdict} (beside{', p not corrected' * f.is_judged})",
        ])  # fmt: skip
    return text_table(header, rows, text_columns=2, markdown=True)


def _p(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else f"<{UNBROKEN}0.001"


def costs_parts(judgement: Judgement) -> list[str]:
    """The formula of a claim about cost, its inputs, what comes out, and what is missing, in Markdown."""
    rows = [
        [
            cost.record.run,
            cost.domain,
            f"{cost.seconds:.2f} s",
            f"{cost.record.hardware['cores']}, {memory_gb(cost.record):.1f} GB",
            _dollars(cost.low, cost.high),
            "{:,.0f}, {:,.0f}".format(*cost.tokens),
            _dollars(cost.teacher_low, cost.teacher_high),
            cost.verdict,
        ]
        for cost in judgement.costs
    ]
    header = ["run", "domain", "time a session", "cores, memory", "student, dollars per 1,000", "tokens in, out",
              "teacher, dollars per 1,000", "verdict"]  # fmt: skip
    calls = [[f"[{c.model}]({c.source})", c.why, f"{c.question:.2f}", f"{c.answer:.2f}"] for c in CALLS]
    machines = [[f"[{m.name}]({m.source})", f"{m.core:.5f}", f"{m.gigabyte:.6f}"] for m in MACHINES]
    found = {(cost.pattern, cost.domain) for cost in judgement.costs}
    missing = {
        run: [domain for domain in judgement.claim.domains if (run, domain) not in found]
        for run in judgement.claim.costs
    }
    parts = [FORMULA, MEASURED]
    if rows:
        parts.append(text_table(header, rows, text_columns=2, markdown=True))
    if any(missing.values()):
        named = "; ".join(f"`{run}` ({', '.join(domains)})" for run, domains in missing.items() if domains)
        parts.append(f"Not run yet, or only on a GPU, for which no price stands here: {named}.")
    return [
        *parts,
        f"Prices as of {READ_ON}, in dollars. A call of a teacher, per million tokens:",
        text_table(["model", "why", "read", "written"], calls, text_columns=2, markdown=True),
        "A machine, per hour:",
        text_table(["machine", "a core", "a GB of memory"], machines, markdown=True),
    ]


def _dollars(low: float, high: float) -> str:
    """Of a thousand sessions, as a range."""
    return f"{1000 * low:.3f} to {1000 * high:.3f}"


def _records_dropdown(records: Sequence[RunRecord], folder: Path) -> str:
    rows = []
    for record in records:
        link = Path(os.path.relpath(record.path, folder)).as_posix()
        student = record.student["id"] if record.student else "none"
        where = record.hardware.get("gpu") or record.hardware["cpu"]
        made = [record.created[:10], f"{(record.commit or 'unknown')[:7]}{'+' * bool(record.dirty)}"]
        rows.append([f"[{record.run}]({link})", record.domain, f"`{student}`", where, *made])
    header = ["run", "domain", "student", "hardware", "date", "commit"]
    table = text_table(header, rows, text_columns=len(header), markdown=True)
    return f":::{{dropdown}} Records behind these numbers\n{table}\n:::"
