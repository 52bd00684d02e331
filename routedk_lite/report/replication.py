"""The replication report: the page `book/replication.md` and its figure, from the claims and the run records.

What is prose on that page is written there. Between its markers stands what this module makes; a test keeps the two
equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..config import Profile, get_profile
from ..data.sessions import PUBLIC_DOMAINS
from ..files import atomic_write, sha256_json
from ..study.records import RunRecord
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

PAGE, FIGURE = "replication.md", "assets/replication.svg"
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


def summary_table(judgements: Iterable[Judgement], *, markdown: bool = False) -> str:
    """One row per claim: what the paper reports, the verdict in each domain, and over all."""
    rows = []
    for judgement in judgements:
        claim = judgement.claim
        domains = [_in_domain(judgement, domain) for domain in PUBLIC_DOMAINS]
        name = f"[{claim.title}](#claim-{claim.id})" if markdown else claim.id
        verdict = judgement.words
        if markdown:
            verdict = f"**{verdict.replace('one seed', f'one{UNBROKEN}seed')}**"
        reports = claim.reports if markdown else _shortened(claim.reports)
        rows.append([name, reports, *domains, verdict])
    return text_table(SUMMARY_HEADER, rows, text_columns=len(SUMMARY_HEADER), markdown=markdown)


def _in_domain(judgement: Judgement, domain: str) -> str:
    """The verdict; where seeds are missing, the direction so far. How many there are says another column."""
    verdict = judgement.by_domain.get(domain, "not claimed")
    return f"so far {judgement.direction(domain)}" if verdict.startswith(NOT_JUDGED) else judgement.worded(verdict)


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
    controls = judge_controls(claims, records)
    state = "; ".join(f"{verdict}: {number}" for verdict, number in counts.most_common())
    where = provenance(own) if own else "No records yet."
    sentences = found_sentences(claims.profile, judgements, controls, own)
    return {
        "found": "\n".join(f"{n}. {sentence}" for n, sentence in enumerate(sentences, 1)),
        "coverage": coverage_table(),
        "state": f"The {len(claims)} claims so far: {state}.\n\n*{where}*",
        "summary": summary_table(judgements, markdown=True),
        "settings": settings_table(get_profile(claims.profile), own),
        "control": "\n\n".join(claim_section(claims, j, records, folder) for j in controls),
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
    """Bring `replication.md` of a book and its figure up to date; returns the page's path and the light figure's."""
    book = Path(book)
    page = book / PAGE
    text = filled_page(page.read_text(encoding="utf-8"), claims, judgements, records, book)
    with atomic_write(page) as file:
        file.write(text)
    own = [r for r in records if r.profile == claims.profile]
    figure = claims_figure(judgements, note=provenance(own) if own else "no records yet")
    picture, _ = write_twins(figure, book / FIGURE, salt="replication", key=figure_key(judgements))
    return page, picture
