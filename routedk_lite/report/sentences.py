"""What was found, in three sentences that are worded by the numbers.

1. What a student adds: the base expert beside the best floor, the decoder on MiniLM similarities of titles, and the
   teacher, in strict F1; beside floors and teacher in exact match as well.
2. Whether fusing matters: the router less the base expert alone and less static weights, and the range of all fusions.
3. Whether the instruments would see it: the positive control.

Comparisons are those of `verdicts`: paired by session and seed, and judged from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..answers.baselines import FLOORS
from ..data.sessions import PUBLIC_DOMAINS
from ..study.records import RunRecord
from .findings import Finding
from .numbers import between, listed, plain, signed
from .scores import BASE, DECODER, FLOOR, FUSED, ROUTER, STATIC, TEACHER, Score
from .verdicts import Judgement, judge_pairs

ABOVE, BELOW, OPEN = "above", "below", "not told apart from"
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
_RIVALS = {
    "floor": tuple(FLOOR + name for name in FLOORS),
    "decoder": (DECODER,),
    "teacher": (TEACHER,),
}
"""What the base expert is set against; of several, the best in each domain."""
_FUSED_RIVALS = {"the base expert alone": BASE, "static weights": STATIC}
"""What the router is set against."""
_CALLED = {
    "floor": "the best floor",
    "decoder": "our decoder on MiniLM similarities of titles",
    "teacher": "the teacher",
}


class Sentence(NamedTuple):
    """One finding."""

    headline: str
    figures: str

    def __str__(self) -> str:
        return f"**{self.headline}** {self.figures}"


class Compared(NamedTuple):
    """The comparisons behind the first two sentences: second run → one finding per domain where both are known."""

    f1: Mapping[str, Sequence[Finding]]
    exact: Mapping[str, Sequence[Finding]]
    """In exact match, with floors and teacher."""


def compared(records: Iterable[RunRecord], profile: str) -> Compared:
    """Compare what the first two sentences are about.

    Raises:
        ClaimError, RecordError: see `verdicts.judge_pairs`.
    """
    records = list(records)
    rivals = {run: (f"{BASE}-seed*", run) for runs in _RIVALS.values() for run in runs}
    fused = {f"{run}-seed*": (f"{ROUTER}-seed*", f"{run}-seed*") for run in (BASE, STATIC)}
    floors_and_teacher = {run: rivals[run] for name in ("floor", "teacher") for run in _RIVALS[name]}
    return Compared(
        _found(judge_pairs(records, profile, rivals | fused)),
        _found(judge_pairs(records, profile, floors_and_teacher, metric="strict exact_match")),
    )


def _found(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.is_compared:
            found.setdefault(finding.comparison.label, []).append(finding)
    return found


def sentences(scores: Sequence[Score], found: Compared, controls: Iterable[Judgement]) -> list[Sentence]:
    """All that can be said.

    Args:
        scores: of one profile.
        found: what `compared` gives for the same profile.
        controls: what `verdicts.judge_controls` gives.
    """
    said = (
        what_a_student_adds(scores, found),
        whether_the_way_matters(scores, found.f1),
        whether_it_would_be_seen(controls),
    )
    return [sentence for sentence in said if sentence]


# --- what a student adds ------------------------------------------------------------------------------------------


def what_a_student_adds(scores: Sequence[Score], found: Compared) -> Sentence | None:
    """The base expert and its rivals; nothing, where it was not run."""
    base = {s.domain: s for s in scores if s.run == BASE and s.is_trained}
    domains = [domain for domain in PUBLIC_DOMAINS if domain in base]
    if not domains:
        return None
    f1, exact = ({name: _best(by_run, runs) for name, runs in _RIVALS.items()} for by_run in found)
    reached = {
        "The base expert reaches a strict F1 of": (
            f1,
            [f"{base[d].f1.estimate:.3f} {between(*base[d].f1[1:])} in {d}" for d in domains],
        ),
        "Its exact match is": (exact, [f"{base[d].exact:.3f} in {d}" for d in domains]),
    }
    figures = []
    for start, (against, numbers) in reached.items():
        stands = [_stands(findings, _CALLED[name], domains) for name, findings in against.items() if findings]
        figures.append(f"{start} {listed(numbers)}" + (f": {'; '.join(stands)}" if stands else ""))
    return Sentence(_headline(f1, exact), f"{'. '.join(figures)}. {_seeds(base.values())}")


def _best(found: Mapping[str, Sequence[Finding]], runs: Sequence[str]) -> list[Finding]:
    """Per domain the comparison with the run that scores highest."""
    known = [finding for run in runs for finding in found.get(run, ())]
    return [
        max((f for f in known if f.domain == domain), key=lambda f: f.b)
        for domain in PUBLIC_DOMAINS
        if any(f.domain == domain for f in known)
    ]


def side(difference: Any) -> str:
    """Where a lies by the interval of a − b, from `low` to `high`."""
    return ABOVE if difference.low > 0 else BELOW if difference.high < 0 else OPEN


def _stands(findings: Sequence[Finding], rival: str, domains: Sequence[str]) -> str:
    """Sides and differences: "above the best floor (+0.116 to +0.182)", and the domains if it is not all of them."""
    by_side = {s: [f.domain for f in findings if side(f) == s] for s in (ABOVE, BELOW, OPEN)}
    parts = []
    for name, found in by_side.items():
        if found:
            where = "" if len(found) == len(domains) else f" in {listed(found)}"
            parts.append(f"{name.removesuffix(' from')}{where}" if parts else f"{name} {rival}{where}")
    return f"{', '.join(parts)} ({_range([f.estimate for f in findings], signed)})"


def _headline(f1: Mapping[str, Sequence[Finding]], exact: Mapping[str, Sequence[Finding]]) -> str:
    subject, parts = "the small student", []
    for start, findings, rival in (
        ("in strict F1", f1["floor"], "the floors"),
        ("", f1["decoder"], "title similarities read by our decoder"),
        ("in exact match", exact["floor"], "the floors"),
    ):
        if findings:
            parts.append(f"{start} {subject} {_beats(findings, rival)}".strip())
            subject = "it"
    return _capital("; ".join(parts) or "the small student is not yet set beside anything") + "."


def _beats(findings: Sequence[Finding], rival: str) -> str:
    above, below = ([f.domain for f in findings if side(f) == s] for s in (ABOVE, BELOW))
    if above and below:
        return f"beats {rival} in {listed(above)}, and loses to them in {listed(below)}"
    if not above and not below:
        return f"is nowhere shown to beat {rival}"
    where = above or below
    everywhere = len(where) == len(findings) > 1
    return f"{'beats' if above else 'loses to'} {rival} in {_all(len(where)) if everywhere else listed(where)}"


def _all(n: int) -> str:
    return "both domains that were run" if n == 2 else f"all {_NUMBERS.get(n, n)} domains"


# --- whether the way matters --------------------------------------------------------------------------------------


def whether_the_way_matters(scores: Sequence[Score], found: Mapping[str, Sequence[Finding]]) -> Sentence | None:
    """The router less the base expert and less static weights, and the range of all fusions; nothing, where none is."""
    ranges = []
    for domain in PUBLIC_DOMAINS:
        found_f1 = [s.f1.estimate for s in scores if s.domain == domain and s.is_trained and s.group == FUSED]
        if len(found_f1) > 1:
            within = _range(found_f1, plain, " and ")
            ranges.append(f"the {len(found_f1)} fusions that were run lie between {within} in {domain}")
    against = {rival: found.get(f"{run}-seed*", ()) for rival, run in _FUSED_RIVALS.items()}
    if not ranges and not any(against.values()):
        return None
    parts = [
        f"The router minus {rival}: {'; '.join(map(_difference, findings))}"
        if findings
        else f"The router and {rival} are not both recorded"
        for rival, findings in against.items()
    ]
    parts += [_capital("; ".join(ranges))] if ranges else []
    return Sentence(_fusing(against), ". ".join(parts) + ".")


def _difference(f: Finding) -> str:
    """One domain's difference, worded by its interval."""
    numbers = f"{signed(f.estimate)} {between(f.low, f.high, signed)}"
    if not f.is_judged:
        return f"{numbers} in {f.domain} ({_seed_count(f.n_seeds)})"
    what = {ABOVE: "a gain", BELOW: "a loss", OPEN: f"no difference larger than {largest(f)}"}[side(f)]
    return f"{numbers} in {f.domain}, {what}"


def largest(f: Finding) -> str:
    """The end of the interval that is farther from zero."""
    return f"{max(abs(f.low), abs(f.high)):.3f}"


def _fusing(against: Mapping[str, Sequence[Finding]]) -> str:
    known = {rival: findings for rival, findings in against.items() if findings}
    if not known:
        return "It is not known yet whether the way of fusing experts matters."
    judged = {rival: [f for f in findings if f.is_judged] for rival, findings in known.items()}
    if not all(judged.values()):
        seeds = _seed_count(min(f.n_seeds for findings in known.values() for f in findings if not f.is_judged))
        by_side: dict[str, list[str]] = {}
        for rival, findings in known.items():
            by_side.setdefault(_leads(findings), []).append(rival)
        parts = [
            f"{name} {' or '.join(rivals) if name == OPEN else listed(rivals)}" for name, rivals in by_side.items()
        ]
        return f"Whether routing helps is not judged yet, with {seeds}; so far the router is {listed(parts)}."
    parts = []
    for rival, findings in judged.items():
        said = []
        for name, verb in ((ABOVE, "gains"), (BELOW, "loses"), (OPEN, "makes no difference larger than {}")):
            if mine := [f for f in findings if side(f) == name]:
                said.append(f"{verb.format(max(map(largest, mine)))} in {listed([f.domain for f in mine])}")
        parts.append(f"against {rival}, routing {listed(said)}")
    return f"{_capital('; '.join(parts))}."


def _leads(findings: Sequence[Finding]) -> str:
    """Where the router lies so far; one word where domains agree."""
    sides = {side(f) for f in findings}
    if len(sides) == 1:
        return sides.pop()
    if {ABOVE, BELOW} <= sides:
        return "above in some domains and below in others,"
    return "in some domains apart from, in others not,"


# --- whether it would be seen -------------------------------------------------------------------------------------


def whether_it_would_be_seen(controls: Iterable[Judgement]) -> Sentence | None:
    """The positive control; nothing, where it was not run."""
    wanted = {
        f"{STATIC}-seed*": "the router minus static weights",
        "by_kind-seed*": "minus the better of its two experts alone",
        "control-shuffled-seed*": "minus the same router with another session's weights",
    }
    found = [
        f
        for judgement in controls
        for f in judgement.findings
        if f.is_compared and f.comparison.a == f"{ROUTER}-seed*" and set(f.comparison.b) <= set(wanted)
    ]
    if not found:
        return None
    parts = [f"{wanted[f.comparison.b[0]]}, {signed(f.estimate)} {between(f.low, f.high, signed)}" for f in found]
    seeds = f"over {_seed_count(min(f.n_seeds for f in found))}"
    if not all(f.is_judged for f in found):
        headline = "The positive control is not judged yet."
    elif {side(f) for f in found} == {ABOVE}:
        headline = "In a toy task made for routing, the router wins."
    else:
        headline = (
            "In a toy task made for routing, the router does not win: no other verdict on routing can be trusted."
        )
    limits = "So the code can route. The effect is large: a gain of a few hundredths might still go unseen."
    task = f"No fixed weights can solve it: {'; '.join(parts)}, {seeds}."
    return Sentence(headline, f"{task} {limits}" if headline.endswith("wins.") else task)


# --- words --------------------------------------------------------------------------------------------------------


def _range(values: Sequence[float], spelled: Callable[[float], str], joint: str = " to ") -> str:
    low, high = spelled(min(values)), spelled(max(values))
    return low if low == high else f"{low}{joint}{high}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seed_count(n: int) -> str:
    return f"{_NUMBERS.get(n, n)} seed{'s' * (n > 1)}"


def _seeds(scores: Iterable[Score]) -> str:
    counts = sorted({len(s.records) for s in scores})
    if counts == [1]:
        return "One seed: intervals cover the choice of sessions only."
    if len(counts) == 1:
        return f"{_capital(_seed_count(counts[0]))}."
    return f"{_capital(str(_NUMBERS.get(counts[0], counts[0])))} to {_seed_count(counts[-1])}."
