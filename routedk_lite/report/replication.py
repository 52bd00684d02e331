"""The replication report: the page `book/replication.md` and its figure, from the claims and the run records.

What is prose on that page is written there. Between its markers stands what this module makes; a test keeps the two
equal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from textwrap import fill

from ..config import Profile, get_profile
from ..data.sessions import PUBLIC_DOMAINS
from ..files import atomic_write, sha256_json
from ..study.records import RunRecord
from .claims import Claim, Claims, Paper, check_chapters, check_recorded, check_runs
from .figure import claims_figure
from .findings import NOT_RUN, Finding
from .tables import fill_marked, provenance, text_table
from .verdicts import Judgement, judge, judge_controls

PAGE, FIGURE = "replication.md", "assets/replication.svg"
UNBROKEN = "\u00a0"
"""A space at which no line ends, for narrow columns."""
SUMMARY_HEADER = ("claim", "the paper reports", *PUBLIC_DOMAINS, "verdict")


def judged_claims(
    claims: Claims, records: Sequence[RunRecord], stages: Mapping[str, Sequence[str]], *, root: Path | None = None
) -> list[Judgement]:
    """Check what the claims cite, and judge them.

    Args:
        claims: what is claimed.
        records: all that are known.
        stages: domain → names of the stages of a study.
        root: the checkout, if chapters are to be looked for.

    Raises:
        ClaimError: a claim cites a chapter, a run or a record that does not exist, or records do not fit together.
    """
    check_runs(claims, stages)
    if root is not None:
        check_chapters(claims, root)
    runs: dict[str, list[str]] = {}
    for record in records:
        if record.profile == claims.profile:
            runs.setdefault(record.domain, []).append(record.run)
    check_recorded(claims, runs)
    return judge(claims, records)


def summary_table(judgements: Iterable[Judgement], *, markdown: bool = False) -> str:
    """One row per claim: what the paper reports, the verdict in each domain, and over all."""
    rows = []
    for judgement in judgements:
        claim = judgement.claim
        domains = [_brief(judgement.by_domain.get(domain, "not claimed")) for domain in PUBLIC_DOMAINS]
        name = f"[{claim.title}](#claim-{claim.id})" if markdown else claim.id
        verdict = judgement.verdict
        if markdown:
            verdict = f"**{verdict.replace('one seed', f'one{UNBROKEN}seed')}**"
        reports = claim.reports if markdown else _shortened(claim.reports)
        rows.append([name, reports, *domains, verdict])
    return text_table(SUMMARY_HEADER, rows, text_columns=len(SUMMARY_HEADER), markdown=markdown)


def _brief(verdict: str) -> str:
    """Without what stands in brackets: how many seeds there are says another column."""
    return verdict.partition(" (")[0]


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39].rstrip()}…"


def page_parts(
    claims: Claims, judgements: Sequence[Judgement], records: Sequence[RunRecord], folder: Path
) -> dict[str, str]:
    """Everything between the page's markers, by their names.

    Args:
        claims: what is claimed.
        judgements: one per claim.
        records: all that are known.
        folder: the page's, from which records are linked.
    """
    own = [record for record in records if record.profile == claims.profile]
    counts = Counter(judgement.verdict for judgement in judgements)
    state = "; ".join(f"{verdict}: {number}" for verdict, number in counts.most_common())
    where = provenance(own) if own else "No records yet."
    return {
        "state": f"The {len(claims)} claims so far: {state}.\n\n*{where}*",
        "summary": summary_table(judgements, markdown=True),
        "settings": settings_table(get_profile(claims.profile), own),
        "control": "\n\n".join(claim_section(claims, j, records, folder) for j in judge_controls(claims, records)),
        "claims": "\n\n".join(claim_section(claims, j, own, folder) for j in judgements),
    }


def settings_table(profile: Profile, records: Sequence[RunRecord]) -> str:
    """Settings that the papers leave open or that differ, beside ours, which come from the profile and the records."""
    train, router, vote = profile.train, profile.router, profile.vote
    seeds = sorted({r.seed for r in records if r.seed is not None})
    domains = [d for d in PUBLIC_DOMAINS if any(r.domain == d and r.student for r in records)]
    batch = train.micro_batch_size * train.accumulation_steps
    reads = "the same" + ", divided by its root mean square" * router.normalize
    rows = [
        ["student", "Llama-3.1-8B-Instruct (public summary)", f"`{profile.student.id}`"],
        ["weights of the student", "4-bit, QLoRA (public summary)", _weights(profile)],
        ["adapters: rank, scale", "unknown", f"{train.r}, {train.lora_alpha}"],
        ["adapters: where", "unknown", f"all linear modules from layer {train.first_layer} up"],
        ["experts: rate, epochs, batch", "unknown", f"{train.learning_rate:g}, {train.epochs}, {batch}"],
        ["loss", "likelihood of the answer", f"answers × {train.answer_weight:g} + pairs × {train.pair_weight:g}"],
        ["where knowledge stands", "in the prompt in training (public summary)", f"the same (`{profile.place}`)"],
        ["router: what it reads", "the mean state of the prompt (public summary)", reads],
        ["router: rate, epochs", "unknown", f"{router.learning_rate:g}, {router.epochs}"],
        ["vote: answers, temperature", "up to 32, unknown", f"{vote.n}, {vote.temperature:g}"],
        ["titles", "whole", f"cut to {profile.prompt.max_title_words} words"],
        ["seeds", "unknown", ", ".join(map(str, seeds)) or NOT_RUN],
        ["domains with a student", "electronic, clothing, food", ", ".join(domains) or NOT_RUN],
    ]
    return text_table(["setting", "the paper", "here"], rows, text_columns=3, markdown=True)


def _weights(profile: Profile) -> str:
    if profile.student.load_in_4bit:
        return "4-bit, NF4"
    return "de-quantised from 4-bit Q4_1" if profile.student.file.endswith("Q4_1.gguf") else "as published"


# --- one claim --------------------------------------------------------------------------------------------------


def claim_section(claims: Claims, judgement: Judgement, records: Sequence[RunRecord], folder: Path) -> str:
    """Everything about one claim in MyST Markdown."""
    claim = judgement.claim
    source = f" ({claim.source})" if claim.source else ""
    facts = [
        *([["the paper reports", claim.reports + source]] if claim.paper else []),
        ["tested in", f"[chapter {Path(claim.chapter).name[:2]}](../{claim.chapter}.ipynb)"],
        ["rule", _rule(claim)],
        ["verdict", f"**{judgement.verdict}**"],
    ]
    parts = [
        f"(claim-{claim.id})=\n### {claim.title}",
        claim.statement + (f" {_cited(claims.papers[claim.paper], claim.where)}" if claim.paper else ""),
        text_table(["", ""], facts, text_columns=2, markdown=True),
    ]
    if known := [f for f in judgement.findings if f.is_compared]:
        parts.append(findings_table(known))
    if hindered := [f for f in judgement.findings if f.hindrance]:
        reasons = (f"{f.comparison.label} ({f.domain}): {f.hindrance}" for f in hindered)
        parts.append(f"Cannot be compared: {'; '.join(reasons)}.")
    if missing := _missing(judgement):
        parts.append(f"Not run yet: {missing}.")
    if claim.costs:
        parts.append(_costs_table(claim, records))
    if claim.note:
        parts.append(claim.note)
    if judgement.records:
        parts.append(_records_dropdown(judgement.records, folder))
    return "\n\n".join(parts)


def _cited(paper: Paper, where: str) -> str:
    return f"*{paper.name[0].upper()}{paper.name[1:]} {{cite}}`{paper.key}`, {where}.*"


def _rule(claim: Claim) -> str:
    """How the claim is judged, in a sentence."""
    if claim.unmeasured:
        return claim.unmeasured
    deciding = [c for c in claim.comparisons if c.decides]
    first = deciding[0]
    what = first.metric.replace("f1", "F1").replace("_", " ")
    rule = {
        "greater": f"a − b above 0 in {what}; less than {first.margin:g} does not count",
        "not worse": f"a − b above −{first.margin:g} in {what}",
        "varies": f"an expert's weight differs by {first.margin:g} or more",
    }[first.test]
    many = f"{'all' if claim.needs == 'all' else 'any'} of {len(deciding)} comparisons, " if len(deciding) > 1 else ""
    return f"{many}{rule}; corrected for {len(deciding) * len(claim.domains)} tests"


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
        relative = f"{100 * f.estimate / f.b:+.1f}{UNBROKEN}%" if f.comparison.test != "varies" and f.b > 0 else ""
        verdict = _brief(f.verdict) if f.comparison.decides else "shown beside"
        rows.append([
            f.comparison.label.replace(" = ", f"{UNBROKEN}={UNBROKEN}"),
            f.domain,
            f"{f.a:.3f}",
            f"{f.b:.3f}",
            f"{f.estimate:+.3f} [{f.low:+.3f},{UNBROKEN}{f.high:+.3f}]",
            relative,
            f"{f.p_holm:.3f}" if f.p_holm == f.p_holm else "–",
            "–" if f.n_seeds is None else str(f.n_seeds),
            f"{f.detectable:.3f}" if f.detectable == f.detectable else "–",
            verdict,
        ])  # fmt: skip
    return text_table(header, rows, text_columns=2, markdown=True)


def _costs_table(claim: Claim, records: Sequence[RunRecord]) -> str:
    rows = []
    for record in records:
        if record.student and any(fnmatch(record.run, pattern) for pattern in claim.costs):
            spent = record.wall_seconds - record.training.get("seconds", 0.0)
            rows.append([
                record.run,
                record.domain,
                f"{record.student['parameters'] / 1e6:,.0f} million",
                f"{spent / record.n_sessions:.2f} s",
                f"{record.peak_memory_mb / 1000:.1f} GB",
            ])  # fmt: skip
    if not rows:
        return "Not run yet: " + ", ".join(f"`{run}`" for run in claim.costs) + "."
    header = ["run", "domain", "weights", "time a test session, without training", "peak memory"]
    return text_table(header, rows, text_columns=2, markdown=True)


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


# --- the files ----------------------------------------------------------------------------------------------------


def filled_page(
    text: str, claims: Claims, judgements: Sequence[Judgement], records: Sequence[RunRecord], folder: Path
) -> str:
    """The page's text with what the records give now."""
    return fill_marked(text, page_parts(claims, judgements, records, folder))


def figure_key(judgements: Sequence[Judgement]) -> str:
    """Names what the figure shows; stands in its metadata, so that a figure that is out of date can be told."""
    shown = [
        [j.claim.title, j.verdict, *([f.comparison.label, f.domain, f.verdict, *_rounded(f)] for f in j.findings)]
        for j in judgements
    ]
    return sha256_json(shown)


def _rounded(finding: Finding) -> list[str]:
    return [f"{value:.4f}" for value in (finding.estimate, finding.low, finding.high)]


def write_report(
    book: str | Path, claims: Claims, judgements: Sequence[Judgement], records: Sequence[RunRecord]
) -> tuple[Path, Path]:
    """Bring `replication.md` of a book and its figure up to date; returns both paths."""
    import matplotlib.pyplot as plt

    book = Path(book)
    page, picture = book / PAGE, book / FIGURE
    text = filled_page(page.read_text(encoding="utf-8"), claims, judgements, records, book)
    with atomic_write(page) as file:
        file.write(text)
    own = [r for r in records if r.profile == claims.profile]
    figure = claims_figure(judgements, note=fill(provenance(own), 100) if own else "no records yet")
    about = {"Date": None, "Description": figure_key(judgements)}
    with atomic_write(picture, "wb") as file, plt.rc_context({"svg.hashsalt": "replication"}):  # the same ids each time
        figure.savefig(file, format="svg", metadata=about)
    return page, picture
