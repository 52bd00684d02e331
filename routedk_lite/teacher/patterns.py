"""Frequent patterns: which kinds of products stand in one bundle again and again.

The plainest of the three formats of knowledge in the companion paper (arXiv 2504.17220: patterns, rules, reasoning),
which mines them over item categories; `kinds` says why these are not used here.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.own import domain_name
from ..data.sessions import Bundle, DataError, Session
from ..files import UnreadableError, read_json
from .kinds import KindExtractor, fit_kinds
from .knowledge import Knowledge, Reasoning, Rule

MINER = "FP-growth on the kinds of products in training bundles"
"""Who says so, where patterns stand beside a teacher's knowledge."""
MIN_SUPPORT, MAX_SIZE = 3, 3
"""Bundles that must hold a pattern, and products in the largest one, unless it is said otherwise."""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Pattern(NamedTuple):
    """Kinds of products that stand in one bundle; a kind that stands here twice means two such products."""

    kinds: tuple[str, ...]
    """In alphabetical order."""
    support: int
    """Training bundles that hold them."""
    confidence: float
    """Of the training sessions that show such products, the share in which a bundle holds them together."""

    @property
    def claim(self) -> str:
        """What it says, in words only: no numeral that could be taken for an item's number.

        >>> Pattern(("cable", "cable", "mouse"), 3, 0.5).claim
        'two cable items and mouse are bought together'
        """
        parts = [kind if n == 1 else f"{_NUMBERS[n]} {kind} items" for kind, n in Counter(self.kinds).items()]
        listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
        return f"{listed} are bought together"

    @property
    def text(self) -> str:
        """The claim with its support, for readers."""
        return f"{self.claim} (support {self.support} bundle{'s' * (self.support != 1)})"


def mine_patterns(
    sessions: Iterable[Session],
    extractor: KindExtractor,
    *,
    min_support: int = MIN_SUPPORT,
    max_size: int = MAX_SIZE,
) -> list[Pattern]:
    """Kinds that stand together in many training bundles, by FP-growth (Han et al. 2000), most frequent first.

    FP-growth knows sets only. Bundles often hold several products of a kind, so the second tea of a bundle is an
    entry of its own, "tea, second". Products without a kind are left out.

    Args:
        sessions: training sessions.
        extractor: tells kinds.
        min_support: bundles that must hold a pattern.
        max_size: products in the largest pattern.

    Raises:
        ValueError: a setting that makes no sense.
    """
    import pandas as pd

    with warnings.catch_warnings():  # importing it makes Python show every deprecation from then on
        from mlxtend.frequent_patterns import fpgrowth

    if min_support < 1:
        raise ValueError(f"min_support = {min_support}: a pattern stands in one bundle at least; choose 1 or more")
    if not 2 <= max_size < len(_NUMBERS):
        raise ValueError(f"max_size = {max_size}: choose 2 to {len(_NUMBERS) - 1} products")
    shown: dict[tuple[str, int], set[int]] = {}  # entry → sessions whose titles show it
    rows, owners = [], []  # the entries of each bundle, and its session
    for session in sessions:
        kinds = extractor.kinds(session)
        for entry in _entries(kinds):
            shown.setdefault(entry, set()).add(session.id)
        for bundle in dict.fromkeys(session.bundles):
            rows.append(_entries(kinds[number - 1] for number in sorted(bundle)))
            owners.append(session.id)
    columns = sorted(set().union(*rows))
    if not columns or min_support > len(rows):
        return []
    table = pd.DataFrame([[entry in row for entry in columns] for row in rows])
    share = (min_support - 0.5) / len(rows)  # halfway to the next whole number: no rounding can matter
    found = fpgrowth(table, min_support=share, max_len=max_size)
    patterns = []
    for support, places in zip(found["support"], found["itemsets"], strict=True):
        entries = {columns[place] for place in places}
        if len(entries) > 1 and all(copy == 1 or (kind, copy - 1) in entries for kind, copy in entries):
            together = {owner for row, owner in zip(rows, owners, strict=True) if entries <= row}
            confidence = len(together) / len(set.intersection(*(shown[entry] for entry in entries)))
            kinds = tuple(sorted(kind for kind, _ in entries))
            patterns.append(Pattern(kinds, round(support * len(rows)), confidence))
    return sorted(patterns, key=lambda p: (-p.support, -p.confidence, p.kinds))


def _entries(kinds: Iterable[str | None]) -> set[tuple[str, int]]:
    """Known kinds, each with its number among those of its kind: (tea, 1), (tea, 2), …"""
    return {(kind, copy) for kind, n in Counter(kinds).items() if kind for copy in range(1, n + 1)}


def applying(session: Session, patterns: Iterable[Pattern], extractor: KindExtractor) -> list[Pattern]:
    """The patterns whose kinds are all among a session's titles; its bundles are not looked at."""
    there = Counter(extractor.kinds(session))
    return [pattern for pattern in patterns if Counter(pattern.kinds) <= there]


def patterns_text(session: Session, patterns: Iterable[Pattern], extractor: KindExtractor, *, most: int = 6) -> str:
    """The patterns that apply to a session, one a line, in the order given; empty if none does.

    It needs titles only, so that a test session can be told its patterns as well.

    Args:
        session: of any split.
        patterns: from `mine_patterns`.
        extractor: the one that they were mined with.
        most: lines.

    Raises:
        ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"most = {most}: choose 1 line or more")
    return "\n".join(pattern.claim for pattern in applying(session, patterns, extractor)[:most])


def pattern_knowledge(
    domain: str, sessions: Iterable[Session], patterns: Sequence[Pattern], extractor: KindExtractor, *, most: int = 6
) -> Knowledge:
    """Patterns in the form of rules, each session citing those that apply to it: knowledge of the kind `rules`.

    Args:
        domain: what the sessions belong to.
        sessions: whose patterns are wanted.
        patterns: from `mine_patterns`.
        extractor: the one that they were mined with.
        most: patterns per session, first ones first.
    """
    ids = {pattern: f"P{number}" for number, pattern in enumerate(patterns, start=1)}
    rules = {id_: Rule(id_, "other", pattern.claim, pattern.text) for pattern, id_ in ids.items()}
    cited = {s.id: tuple(ids[p] for p in applying(s, patterns, extractor)[:most]) for s in sessions}
    reasoning = {id_: Reasoning("", rules_of, noisy=False) for id_, rules_of in cited.items()}
    return Knowledge(domain=domain, rules=rules, reasoning=reasoning, provenance={"teacher": MINER})


def load_patterns(domain: str | Path, folder: str | Path) -> list[Pattern]:
    """The patterns in a folder, as `recording.write_patterns` writes them, most frequent first.

    Args:
        domain: whose patterns they must be; a name, or a folder of sessions.
        folder: holds `patterns.json`.

    Raises:
        DataError: the file is missing or malformed, or holds the patterns of another domain.
    """
    path = Path(folder) / "patterns.json"
    try:
        table = read_json(path, "a file of patterns", fields={"patterns": list, "domain": str})
        found = [Pattern(tuple(p["kinds"]), int(p["support"]), float(p["confidence"])) for p in table["patterns"]]
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a file of patterns: there is none") from error
    except UnreadableError as error:
        raise DataError(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a file of patterns ({type(error).__name__}: {error})") from error
    name, expected = table["domain"], domain_name(domain)
    if name != expected:
        raise DataError(f"{path}: domain is {name!r}, expected {expected!r}; choose the folder of that domain")
    return found


# --- patterns as a baseline ---------------------------------------------------------------------------------------


def pattern_predictions(
    train: Iterable[Session], sessions: Iterable[Session], *, min_support: int = 1, max_size: int = 3
) -> dict[int, list[Bundle]]:
    """Bundles from patterns alone: the most frequent pattern takes its products, the next from those that are left.

    Args:
        train: where kinds and patterns come from.
        sessions: the sessions to answer.
        min_support, max_size: see `mine_patterns`. A pattern seen once is a poor law but better than no answer: 1
            was the best of 1, 2 and 3 on the validation sessions of all three public domains.

    Raises:
        ValueError: no training sessions, or a setting that makes no sense.
    """
    train = list(train)
    extractor = fit_kinds(train)
    patterns = mine_patterns(train, extractor, min_support=min_support, max_size=max_size)
    return {session.id: _bundles(session, patterns, extractor) for session in sessions}


def _bundles(session: Session, patterns: Sequence[Pattern], extractor: KindExtractor) -> list[Bundle]:
    """Greedily by the order of the patterns; each pattern once, each product once, earlier products first."""
    free: dict[str | None, list[int]] = {}
    for number, kind in enumerate(extractor.kinds(session), start=1):
        free.setdefault(kind, []).append(number)
    bundles = []
    for pattern in applying(session, patterns, extractor):
        wanted = Counter(pattern.kinds)
        if all(len(free[kind]) >= n for kind, n in wanted.items()):
            bundles.append(frozenset(free[kind].pop(0) for kind in pattern.kinds))
    return bundles
