"""The replication report: the page `book/replication.md` and its figure, from the claims and the run records.

The records of a smaller student judge the same claims on `book/smaller-scale.md`. What is prose on these pages is
written there. Between their markers stands what this module makes; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..config import Profile, get_profile
from ..data.sessions import PUBLIC_DOMAINS
from ..files import atomic_write, sha256_json
from ..study.records import RunRecord
from .choosing import by_choice, choosing_table, what_choosing_changes
from .claims import Claims, check_chapters, check_recorded, check_runs
from .coverage import coverage_table
from .figure import claims_figure
from .findings import NOT_JUDGED, NOT_RUN, Finding
from .frozen import check_frozen
from .opening import found_sentences
from .sections import claim_section
from .style import write_twins
from .tables import UNBROKEN, fill_marked, provenance, text_table
from .verdicts import Judgement, judge, judge_controls


class Page(NamedTuple):
    """One page of claims, below the folder of the book."""

    name: str
    figure: str
    anchor: str
    """What the targets of its sections begin with."""


STUDY = Page("replication.md", "assets/replication.svg", "claim")
SMALLER = Page("smaller-scale.md", "assets/smaller-scale.svg", "smaller")
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
        RecipeChangedError: the grid's recipe is not what it was.
    """
    check_runs(claims, stages)
    if claims.frozen is not None:
        check_frozen(claims.frozen)
    if root is not None:
        check_chapters(claims, root)
    runs: dict[str, list[str]] = {}
    for record in records:
        if record.profile == claims.profile:
            runs.setdefault(record.domain, []).append(record.run)
    check_recorded(claims, runs)
    return judge(claims, records)


def at_smaller_scale(claims: Claims) -> Claims:
    """The same claims, judged by the smaller student; nothing is frozen there."""
    return replace(claims, profile=claims.smaller_profile, frozen=None)


def summary_table(judgements: Iterable[Judgement], *, anchor: str = "") -> str:
    """One row per claim: what the paper reports, the verdict in each domain, and over all.

    Args:
        judgements: one per claim.
        anchor: what the targets of the sections begin with, for a table in Markdown; without one, for the terminal.
    """
    rows = []
    for judgement in judgements:
        claim = judgement.claim
        domains = [_in_domain(judgement, domain) for domain in PUBLIC_DOMAINS]
        name = f"[{claim.title}](#{anchor}-{claim.id})" if anchor else claim.id
        verdict = judgement.words
        if anchor:
            verdict = f"**{verdict.replace('one seed', f'one{UNBROKEN}seed')}**"
        reports = claim.reports if anchor else _shortened(claim.reports)
        rows.append([name, reports, *domains, verdict])
    return text_table(SUMMARY_HEADER, rows, text_columns=len(SUMMARY_HEADER), markdown=bool(anchor))


def _in_domain(judgement: Judgement, domain: str) -> str:
    """The verdict; where seeds or runs are missing, the direction so far."""
    verdict = judgement.by_domain.get(domain, "not claimed")
    if verdict == NOT_RUN and (direction := judgement.direction(domain)):
        deciding = judgement.deciding(domain)
        return f"so far {direction} in {sum(f.is_compared for f in deciding)} of {len(deciding)} comparisons"
    return f"so far {judgement.direction(domain)}" if verdict.startswith(NOT_JUDGED) else judgement.worded(verdict)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39].rstrip()}…"


def page_parts(
    claims: Claims, judgements: Sequence[Judgement], records: Sequence[RunRecord], folder: Path, page: Page = STUDY
) -> dict[str, str]:
    """Everything between a page's markers, by their names.

    Args:
        claims: what is claimed.
        judgements: one per claim.
        records: all that are known.
        folder: the page's, from which records are linked.
        page: which of the two.
    """
    own = [record for record in records if record.profile == claims.profile]
    counts = Counter(judgement.verdict for judgement in judgements)
    controls = judge_controls(claims, records) if page == STUDY else []
    state = "; ".join(f"{verdict}: {number}" for verdict, number in counts.most_common())
    where = provenance(own) if own else "No records yet."
    choices = by_choice(claims, own)
    sentences = found_sentences(claims.profile, judgements, controls, own)
    sentences += filter(None, [what_choosing_changes(choices)])
    return {
        "found": "\n".join(f"{n}. {sentence}" for n, sentence in enumerate(sentences, 1)),
        "coverage": coverage_table() if page == STUDY else "",
        "state": f"The {len(claims)} claims so far: {state}.\n\n*{where}*",
        "summary": summary_table(judgements, anchor=page.anchor),
        "choosing_strict": choosing_table(choices, "strict f1"),
        "choosing_exact": choosing_table(choices, "strict exact_match"),
        "settings": settings_table(get_profile(claims.profile), own),
        "control": "\n\n".join(claim_section(claims, j, folder) for j in controls),
        "claims": "\n\n".join(claim_section(claims, j, folder, anchor=page.anchor) for j in judgements),
    }


def settings_table(profile: Profile, records: Sequence[RunRecord]) -> str:
    """Settings that the papers leave open or that differ, beside ours, which come from the profile and the records."""
    train, router, vote = profile.train, profile.router, profile.vote
    seeds = sorted({r.seed for r in records if r.seed is not None})
    domains = [d for d in PUBLIC_DOMAINS if any(r.domain == d and r.student for r in records)]
    batch = train.micro_batch_size * train.accumulation_steps
    jointly = f"{train.joint_epochs} on three domains + " if train.joint_epochs else ""
    reads = "the mean state of the prompt" + ", divided by its root mean square" * router.normalize
    rows = [
        ["student", "Llama-3.1-8B-Instruct (public summary)", f"`{profile.student.id}`"],
        ["weights of the student", "4-bit, QLoRA (public summary)", _weights(profile)],
        ["adapters: rank, scale", "unknown", f"{train.r}, {train.lora_alpha}"],
        ["adapters: where", "unknown", f"all linear modules from layer {train.first_layer} up"],
        ["experts: rate, epochs, batch", "unknown", f"{train.learning_rate:g}, {jointly}{train.epochs}, {batch}"],
        ["loss", "likelihood of the answer", f"answers × {train.answer_weight:g} + pairs × {train.pair_weight:g}"],
        ["where knowledge stands", "in the prompt in training (public summary)", f"the same (`{profile.place}`)"],
        ["router: what it reads", "pooled hidden states; over which tokens is unknown (public summary)", reads],
        ["router: rate, epochs", "unknown", f"{router.learning_rate:g}, {router.epochs}"],
        ["vote: answers, temperature", "up to 32, unknown", f"{vote.n}, {vote.temperature:g}"],
        [
            "answer",
            "the most frequent",
            {"pairs": "decoded from pairs", "consensus": "consensus"}.get(profile.answers, "the most likely"),
        ],
        ["titles", "whole (earlier code)", f"cut to {profile.prompt.max_title_words} words"],
        ["seeds", "unknown", ", ".join(map(str, seeds)) or NOT_RUN],
        ["domains with a student", "electronic, clothing, food", ", ".join(domains) or NOT_RUN],
    ]
    return text_table(["setting", "the paper", "here"], rows, text_columns=3, markdown=True)


def _weights(profile: Profile) -> str:
    if profile.student.load_in_4bit:
        return "4-bit, NF4"
    quantised = re.search(r"(?i)q4_\w+", profile.student.file)  # llama.cpp's names: Q4_1, Q4_K_M
    return f"de-quantised from 4-bit {quantised[0].upper()}" if quantised else "as published"


# --- the files ----------------------------------------------------------------------------------------------------


def filled_page(
    text: str,
    claims: Claims,
    judgements: Sequence[Judgement],
    records: Sequence[RunRecord],
    folder: Path,
    page: Page = STUDY,
) -> str:
    """The page's text with what the records give now."""
    return fill_marked(text, page_parts(claims, judgements, records, folder, page))


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
) -> list[Path]:
    """Bring the pages of a book and their figures up to date.

    Args:
        book: its folder.
        claims: what is claimed; where another profile judges them than the smaller one, that has its page as well.
        judgements: one per claim.
        records: all that are known.

    Returns:
        Every page, each followed by its light figure.
    """
    written = _write_page(Path(book), STUDY, claims, judgements, records)
    if claims.smaller_profile not in ("", claims.profile):
        smaller = at_smaller_scale(claims)
        written += _write_page(Path(book), SMALLER, smaller, judge(smaller, records), records)
    return written


def _write_page(
    book: Path, page: Page, claims: Claims, judgements: Sequence[Judgement], records: Sequence[RunRecord]
) -> list[Path]:
    path = book / page.name
    text = filled_page(path.read_text(encoding="utf-8"), claims, judgements, records, book, page)
    with atomic_write(path) as file:
        file.write(text)
    own = [r for r in records if r.profile == claims.profile]
    figure = claims_figure(judgements, note=provenance(own) if own else "no records yet")
    picture, _ = write_twins(figure, book / page.figure, salt=path.stem, key=figure_key(judgements))
    return [path, picture]
