"""What the README, the first page and the page of results show: made from the records, put between their markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import get_profile
from ..data.sessions import DOMAINS, PUBLIC_DOMAINS
from ..files import atomic_write
from ..study.records import RunRecord
from .asked import Seen, seen, seen_table
from .choosing import by_choice, what_choosing_changes
from .claims import load_claims
from .numbers import between
from .scores import BASE, DECODER, FLOOR, ROUTER, TEACHER, Score, main_profile, scored
from .sentences import Sentence, compared, sentences
from .strip import richest_domain, strip_figure, strip_key
from .style import write_twins
from .tables import f1_cell, fill_marked, provenance, text_table
from .verdicts import judge_controls
from .when import Contrast, contrasts, contrasts_in_words
from .written import chosen, what_choosing_adds

FIGURE = "assets/findings.svg"
"""Below the folder of the book."""
PAGES = ("README.md", "book/intro.md", "book/results.md", "book/summary.md", "book/open-questions.md")
"""What is filled."""
LINE = "<br>"
"""Ends a line within a cell."""
ABSENT = "–"
"""Stands in a cell for a run that is not recorded."""


@dataclass(frozen=True)
class Landing:
    """All that the pages show."""

    profile: str
    """Whose study is the most complete."""
    scores: tuple[Score, ...]
    """Of all profiles."""
    sentences: tuple[Sentence, ...]
    contrasts: tuple[Contrast, ...] = ()
    """When the router gains over static weights, of that profile."""
    asked: tuple[Seen, ...] = ()
    """What it says about the paper's other open questions."""

    @property
    def own(self) -> list[Score]:
        """Scores of the profile in the public domains."""
        return [s for s in self.scores if s.profile == self.profile and s.domain in PUBLIC_DOMAINS]

    @property
    def drawn(self) -> list[Score]:
        """What the strip plot shows."""
        return [s for s in self.own if s.domain == richest_domain(self.own)]

    @property
    def parts(self) -> dict[str, str]:
        """What stands between the markers, by their names."""
        return {
            "findings": "\n".join(f"{n}. {sentence}" for n, sentence in enumerate(self.sentences, 1))
            or "Nothing is recorded yet.",
            "headlines": "\n".join(f"{n}. {sentence.headline}" for n, sentence in enumerate(self.sentences, 1)),
            "five": five_rows(self.own),
            "drawn": drawn_from(self.drawn),
            "results": results_rows(self.scores),
            "when": contrasts_in_words(self.contrasts),
            "asked": seen_table(self.asked),
        }


def landing(records: Sequence[RunRecord]) -> Landing:
    """Score and compare all that is recorded of the domains of this package.

    Raises:
        RecordError: predictions are missing or changed, or made from other sessions than those at hand.
        DownloadError: the public sessions are neither cached nor to be had.
    """
    # Not of somebody's own sessions, and not of the toy shop, which everybody runs to try a command.
    records = [record for record in records if record.domain in (*PUBLIC_DOMAINS, "habits")]
    profile = main_profile(records)
    scores = tuple(scored(records))
    own = [s for s in scores if s.profile == profile]
    found = compared(records, profile)
    claims, choices = load_claims(), chosen(r for r in records if r.profile == profile)
    said = sentences(own, found, judge_controls(claims, records))
    by_way = by_choice(replace(claims, profile=profile), records) if profile else []
    said += filter(None, [what_choosing_adds(choices), what_choosing_changes(by_way)])
    asked = seen(records, profile, choices)
    return Landing(profile, scores, tuple(said), tuple(contrasts(records, profile)), tuple(asked))


def five_rows(scores: Sequence[Score]) -> str:
    """Floors, decoder on MiniLM, base expert, RouteDK, teacher: strict F1 and exact match in every domain, in Markdown.

    Args:
        scores: of one profile.
    """
    if not scores:
        return "Nothing is recorded yet."

    def is_floor(score: Score) -> bool:
        return score.run.startswith(FLOOR)

    wanted: dict[str, tuple[Callable[[Score], bool], Callable[[Score], float]]] = {
        "best floor by F1, reads no title": (is_floor, _f1),
        "best floor by exact match": (is_floor, lambda s: s.exact),
        "MiniLM of titles, our decoder": (lambda s: s.run == DECODER, _f1),
        "base expert": (lambda s: s.run == BASE, _f1),
        "RouteDK: three experts, one router": (lambda s: s.run == ROUTER, _f1),
        "teacher": (lambda s: s.run == TEACHER, _f1),
    }
    rows, used = [], []
    for label, (fits, by) in wanted.items():
        best = [max((s for s in scores if s.domain == d and fits(s)), key=by, default=None) for d in PUBLIC_DOMAINS]
        used += [s for s in best if s]
        rows.append([label, *(f"{f1_cell(*s.f1)}{LINE}{s.exact:.3f}" if s else ABSENT for s in best)])
        if label.startswith("RouteDK") and (voted := [_majority(s) for s in best]) != [ABSENT] * len(best):
            rows.append(["the same, by majority as in the paper", *voted])
    if not used:
        return "Nothing is recorded yet."
    header = [f"strict F1 [95 %]{LINE}exact match", *PUBLIC_DOMAINS]
    absent = f" {ABSENT}: not run." if any(ABSENT in row for row in rows) else ""
    records = [record for s in used for record in s.records]
    answered = _answered(scores[0].profile)
    where = f"{records[0].n_sessions} test sessions a domain, {answered}.{absent} {provenance(records)}"
    return f"{text_table(header, rows, markdown=True)}\n\n*{where}*"


def _majority(score: Score | None) -> str:
    """What the majority of the same samples scores, means over the seeds."""
    if score is None or any("majority" not in record.analysis for record in score.records):
        return ABSENT
    found = [record.analysis["majority"]["metrics"]["strict"] for record in score.records]
    f1, exact = (sum(one[name] for one in found) / len(found) for name in ("f1", "exact_match"))
    return f"{f1:.3f}{LINE}{exact:.3f}"


def _answered(profile: str) -> str:
    """What a student's answer is."""
    known = get_profile(profile)
    return (
        f"students by consensus of {known.vote.n} written answers"
        if known.answers == "consensus"
        else "students without the vote"
    )


def _f1(score: Score) -> float:
    return score.f1.estimate


def drawn_from(scores: Sequence[Score]) -> str:
    """What the strip plot shows, and where its numbers come from."""
    if not scores:
        return "Nothing is recorded yet."
    records = [record for s in scores for record in s.records]
    n = sum(bool(s.group) for s in scores)
    where = f"{scores[0].domain.capitalize()}, {records[0].n_sessions} test sessions"
    return f"*{where}: a dot is one of {n} runs of the student. {provenance(records)}*"


def results_rows(scores: Sequence[Score]) -> str:
    """All runs in Markdown, the best first within profile and domain, those of real sessions before the toys."""
    known = (*PUBLIC_DOMAINS, *(d for d in DOMAINS if d not in PUBLIC_DOMAINS))
    ordered = sorted(scores, key=lambda s: (s.domain not in PUBLIC_DOMAINS, s.profile, known.index(s.domain), -_f1(s)))
    rows = [
        [
            *(s.words, s.profile, s.domain, _seeds(s), f"{_f1(s):.3f}", between(*s.f1[1:]), f"{s.exact:.3f}"),
            *(f"{_official(s, name):.3f}" for name in ("precision", "recall", "coverage", "valid_rate")),
        ]
        for s in ordered
    ]
    header = ["run", "profile", "domain", "seeds", "strict F1", "95 %", "exact match"]
    header += ["P", "R", "C", "answers"]
    return text_table(header, rows, text_columns=3, markdown=True)


def _official(score: Score, name: str) -> float:
    """A published metric, its mean over the seeds."""
    return sum(record.metrics["official"][name] for record in score.records) / len(score.records)


def _seeds(score: Score) -> str:
    return str(len(score.records)) if score.is_trained else ABSENT


def write_landing(root: str | Path, records: Sequence[RunRecord]) -> list[Path]:
    """Bring the pages of a checkout and the strip plot up to date; returns their paths."""
    root = Path(root)
    made = landing(records)
    parts = made.parts
    for page in PAGES:
        text = fill_marked((root / page).read_text(encoding="utf-8"), parts)
        with atomic_write(root / page) as file:
            file.write(text)
    written = [root / page for page in PAGES]
    if made.drawn:
        picture = root / "book" / FIGURE
        written += write_twins(strip_figure(made.drawn), picture, salt="findings", key=strip_key(made.drawn))
    return written
