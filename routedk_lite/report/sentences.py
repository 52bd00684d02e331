"""What was found, in three sentences that are worded by the numbers.

1. What a student adds: the base expert beside the best floor, the best clustering, and the decoder on MiniLM
   similarities of titles.
2. Whether the way of teaching and fusing matters: the range of all ways, and the router less static weights.
3. Whether the instruments would see it: the positive control.

Comparisons are those of `verdicts`: paired by session and seed, and judged from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..answers.baselines import FLOORS, SIMILARITIES
from ..data.sessions import PUBLIC_DOMAINS
from ..study.records import RunRecord
from .findings import Finding
from .scores import BASE, CLUSTERING, DECODER, FLOOR, FUSED, ROUTER, STATIC, TEACHER, Score
from .verdicts import Judgement, judge_pairs

ABOVE, BELOW, OPEN = "above", "below", "not told apart from"
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
_RIVALS = {
    "floor": tuple(FLOOR + name for name in FLOORS),
    "clustering": tuple(CLUSTERING + name for name in SIMILARITIES),
    "decoder": (DECODER,),
    "teacher": (TEACHER,),
}
"""What the base expert is set against; of several, the best in each domain."""
_CALLED = {
    "floor": "the best floor",
    "clustering": "the better clustering of titles",
    "decoder": "our decoder on MiniLM similarities of titles",
    "teacher": "the teacher",
}


class Sentence(NamedTuple):
    """One finding."""

    headline: str
    figures: str

    def __str__(self) -> str:
        return f"**{self.headline}** {self.figures}"


def compared(records: Iterable[RunRecord], profile: str) -> dict[str, list[Finding]]:
    """The comparisons behind the first two sentences, by the second run's name, one per domain where both are known."""
    rivals = [run for runs in _RIVALS.values() for run in runs]
    pairs = {run: (f"{BASE}-seed*", run) for run in rivals}
    pairs[f"{STATIC}-seed*"] = f"{ROUTER}-seed*", f"{STATIC}-seed*"
    found: dict[str, list[Finding]] = {}
    for finding in judge_pairs(records, profile, pairs):
        if not finding.missing:
            found.setdefault(finding.comparison.label, []).append(finding)
    return found


def sentences(
    scores: Sequence[Score], found: Mapping[str, Sequence[Finding]], controls: Iterable[Judgement]
) -> list[Sentence]:
    """All that can be said.

    Args:
        scores: of one profile.
        found: what `compared` gives for the same profile.
        controls: what `verdicts.judge_controls` gives.
    """
    said = (
        what_a_student_adds(scores, found),
        whether_the_way_matters(scores, found),
        whether_it_would_be_seen(controls),
    )
    return [sentence for sentence in said if sentence]


# --- what a student adds ------------------------------------------------------------------------------------------


def what_a_student_adds(scores: Sequence[Score], found: Mapping[str, Sequence[Finding]]) -> Sentence | None:
    """The base expert and its rivals; nothing, where it was not run."""
    base = {s.domain: s for s in scores if s.run == BASE and s.is_trained}
    domains = [domain for domain in PUBLIC_DOMAINS if domain in base]
    if not domains:
        return None
    against = {name: _best(found, runs) for name, runs in _RIVALS.items()}
    numbers = listed([f"{base[d].f1.estimate:.3f} {between(*base[d].f1[1:])} in {d}" for d in domains])
    stands = [_stands(findings, _CALLED[name], domains) for name, findings in against.items() if findings]
    figures = f"The base expert reaches a strict F1 of {numbers}"
    if stands:
        figures += f": {'; '.join(stands)}"
    return Sentence(_headline(against), f"{figures}. {_seeds(base.values())}")


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


def _headline(against: Mapping[str, Sequence[Finding]]) -> str:
    subject, parts = "the small student", []
    for name, rival in (("floor", "the floors"), ("decoder", "plain similarities of titles")):
        if against[name]:
            parts.append(f"{subject} {_beats(against[name], rival)}")
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
    """The range of all fusions, and the router less static weights; nothing, where neither is known."""
    ranges = []
    for domain in PUBLIC_DOMAINS:
        found_f1 = [s.f1.estimate for s in scores if s.domain == domain and s.is_trained and s.group == FUSED]
        if len(found_f1) > 1:
            within = _range(found_f1, plain, " and ")
            ranges.append(f"the {len(found_f1)} fusions that were run lie between {within} in {domain}")
    differences = found.get(f"{STATIC}-seed*", ())
    if not ranges and not differences:
        return None
    parts = [_capital("; ".join(ranges))] if ranges else []
    if differences:
        parts.append(f"The router less static weights: {'; '.join(map(_difference, differences))}")
    else:
        parts.append("The router and static weights are not both recorded")
    return Sentence(_fusing(differences), ". ".join(parts) + ".")


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


def _fusing(differences: Sequence[Finding]) -> str:
    if not differences:
        return "Whether it matters how experts are fused is not known yet."
    judged = [f for f in differences if f.is_judged]
    if not judged:
        seeds = _seed_count(max(f.n_seeds for f in differences))
        return f"Whether it matters how experts are fused is not judged yet, with {seeds}."
    parts = []
    for name, verb in ((ABOVE, "gains"), (BELOW, "loses"), (OPEN, "makes no difference larger than {}")):
        if found := [f for f in judged if side(f) == name]:
            parts.append(f"{verb.format(max(map(largest, found)))} in {listed([f.domain for f in found])}")
    return f"Against fixed weights, routing {listed(parts)}."


# --- whether it would be seen -------------------------------------------------------------------------------------


def whether_it_would_be_seen(controls: Iterable[Judgement]) -> Sentence | None:
    """The positive control; nothing, where it was not run."""
    wanted = {
        f"{STATIC}-seed*": "the router less static weights",
        "control-shuffled-seed*": "less itself with another session's weights",
    }
    found = [
        f
        for judgement in controls
        for f in judgement.findings
        if not f.missing and f.comparison.a == f"{ROUTER}-seed*" and set(f.comparison.b) <= set(wanted)
    ]
    if not found:
        return None
    parts = [f"{wanted[f.comparison.b[0]]}, {signed(f.estimate)} {between(f.low, f.high, signed)}" for f in found]
    seeds = f"over {_seed_count(min(f.n_seeds for f in found))}"
    if not all(f.is_judged for f in found):
        headline = "The positive control is not judged yet."
    elif {side(f) for f in found} == {ABOVE}:
        headline = "Where routing must win, we see it win."
    else:
        headline = "Where routing must win, we do not see it win: no other verdict on routing can be trusted."
    return Sentence(headline, f"A toy task that no fixed weights can solve: {'; '.join(parts)}, {seeds}.")


# --- words --------------------------------------------------------------------------------------------------------


def plain(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """Three decimals with their sign, a true minus.

    >>> signed(-0.0021), signed(0.0001)
    ('−0.002', '0.000')
    """
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def between(low: float, high: float, spelled: Callable[[float], str] = plain) -> str:
    """An interval in brackets."""
    return f"[{spelled(low)}, {spelled(high)}]"


def _range(values: Sequence[float], spelled: Callable[[float], str], joint: str = " to ") -> str:
    low, high = spelled(min(values)), spelled(max(values))
    return low if low == high else f"{low}{joint}{high}"


def listed(parts: Sequence[str]) -> str:
    """One, two and three.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seed_count(n: int) -> str:
    return f"{_NUMBERS.get(n, n)} seed{'s' * (n > 1)}"


def _seeds(scores: Iterable[Score]) -> str:
    counts = sorted({len(s.records) for s in scores})
    if counts == [1]:
        return "One seed: intervals count the sessions only."
    if len(counts) == 1:
        return f"{_capital(_seed_count(counts[0]))}."
    return f"{_capital(str(_NUMBERS.get(counts[0], counts[0])))} to {_seed_count(counts[-1])}."
