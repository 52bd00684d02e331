"""“What we found”: sentences of a chapter whose numbers come from records or from its own run, each with its condition.

A sentence names the condition under which it is true. Where that does not hold, the build of the book fails, so that
the sentence is changed; on a reader's machine, whose run may come out otherwise, the box says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..report.numbers import between, minus
from ..study.records import RunRecord

if TYPE_CHECKING:
    from ..report.findings import Finding

STRICT = "ROUTEDK_STRICT"
"""Environment variable: if it is set, as when the book is built, a sentence that is not true is an error."""


class NotTrueError(ValueError):
    """A sentence of the book says what was not found."""


class Estimate(NamedTuple):
    """A score, or a difference, with its 95 % interval; its format gives all three numbers.

    >>> f"{Estimate(0.19, 0.137, 0.244):+.3f}"
    '+0.190 [+0.137, +0.244]'
    >>> f"{Estimate(-0.002, -0.02, 0.016):+.3f}", f"{Estimate(0.709, 0.653, 0.764)}"
    ('−0.002 [−0.020, +0.016]', '0.709 [0.653, 0.764]')
    >>> f"{Estimate(0.04, 0.0002, 0.081):+.3f}"
    '+0.040 [+0.0002, +0.081]'
    """

    estimate: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.high < 0

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies between −margin and margin."""
        return -margin < self.low and self.high < margin

    def __format__(self, spec: str) -> str:
        def spelled(value: float) -> str:
            return minus(format(value, spec or ".3f"))

        return f"{spelled(self.estimate)} {between(self.low, self.high, spelled)}"


class Said(NamedTuple):
    """One sentence, filled in, and whether it is true."""

    text: str
    is_true: bool


def says(text: str, when: bool | None, **values: Any) -> Said:
    """A sentence with its numbers, and the condition under which it is true.

    Args:
        text: Markdown; `{name}` and `{name:.2f}` stand for values. A mapping with `estimate`, `low` and `high`, as
            records give it, is shown as an `Estimate`.
        when: whether the sentence is true of these values. Write it as the comparison that the words make, or as
            `Estimate.above`, `below` or `within` where the words speak of a difference that is sure.
        values: what the text speaks of.

    Raises:
        ValueError: the text names no value, one that is missing, or a value that it does not use.

    >>> says("Majority scores {a:.2f}, consensus {b:.2f}.", 0.48 < 0.64, a=0.48, b=0.64)
    Said(text='Majority scores 0.48, consensus 0.64.', is_true=True)
    """
    used = {name.split(".")[0].split("[")[0] for _, name, _, _ in Formatter().parse(text) if name is not None}
    if used != values.keys() or not used:
        raise ValueError(
            f"{text!r} speaks of {sorted(used)}, given are {sorted(values)}; fill in the same, one or more"
        )
    shown = {name: _shown(value) for name, value in values.items()}
    return Said(text.format_map(shown), bool(when))


def what_we_found(*said: Said, source: str = "", title: str = "What we found"):
    """The box that opens or closes a chapter.

    Args:
        said: its sentences, by `says`.
        source: where the numbers come from: `recorded, three seeds`, `toy, run now`.
        title: its first line.

    Raises:
        NotTrueError: a sentence is not true, and the book is being built.
    """
    from IPython.display import Markdown

    wrong = [one.text for one in said if not one.is_true]
    if wrong and os.environ.get(STRICT):
        raise NotTrueError(f"{title}: not true of these numbers: {wrong[0]!r}; change the sentence, or its condition")
    lines = [one.text if one.is_true else f"*Not so in this run:* {one.text}" for one in said]
    head = f"**{title}**" + (f" <small>({source})</small>" if source else "")
    return Markdown(
        "\n".join(['<div class="rdk-found">', "", head, "", *(f"- {line}" for line in lines), "", "</div>"])
    )


def differences(
    records: Iterable[RunRecord],
    profile: str,
    pairs: Mapping[str, tuple[str, str]],
    *,
    domains: Sequence[str],
    metric: str = "strict f1",
) -> dict[str, dict[str, dict[str, Any]]]:
    """One run less another on the test sessions, over all seeds that both have; for `Chapter.public`.

    Args:
        records: of runs.
        profile: whose.
        pairs: a name for every comparison → its two runs, with `*` for the seeds, as in `claims.yml`:
            `("fusion-dynamic-seed*", "fusion-static-seed*")`.
        domains: in which.
        metric: protocol and score: `strict f1`, `strict exact_match`.

    Returns:
        Name → domain → `estimate`, `low`, `high`, the means `a` and `b`, `seeds` and `profile`; what is not recorded is
        left out.

    Raises:
        ClaimError, RecordError: see `report.verdicts.judge_pairs`.
    """
    from ..report.verdicts import judge_pairs

    found: dict[str, dict[str, dict[str, Any]]] = {}
    for f in judge_pairs(records, profile, pairs, domains=domains, metric=metric):
        if f.is_compared:
            found.setdefault(f.comparison.label, {})[f.domain] = values_of(f) | {"profile": profile}
    return found


def values_of(f: Finding) -> dict[str, float]:
    """What is kept of one comparison."""
    values = {name: getattr(f, name) for name in ("estimate", "low", "high", "a", "b")}
    return values | {"seeds": f.n_seeds or 1}


def estimate(found: Mapping[str, float]) -> Estimate:
    """The interval of what `differences` found."""
    return Estimate(found["estimate"], found["low"], found["high"])


def by_domain(found: Mapping[str, Any], spec: str = "+.3f") -> str:
    """Differences by domain in one line, for a sentence.

    >>> by_domain({"food": Estimate(0.1, 0.05, 0.15)}, "+.2f")
    '+0.10 [+0.05, +0.15] in food'
    """
    return ", ".join(f"{_shown(one):{spec}} in {domain}" for domain, one in found.items())


def _shown(value: Any) -> Any:
    return estimate(value) if isinstance(value, Mapping) and {"estimate", "low", "high"} <= value.keys() else value
