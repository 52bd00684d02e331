"""The answer that agrees best with all samples: minimum Bayes risk (Kumar and Byrne 2004; Bertsch et al. 2023).

A vote takes the most frequent answer, the mode of what was sampled. Where a model spreads its belief over many answers
the mode is a matter of luck, and often the boldest answer of all. The samples still say much together: how often two
items share a bundle, and which answers differ least from most others. So each candidate is scored by its mean strict F1
against all samples, as if each of them were the truth, and by how often it is one of them exactly. Candidates are the
samples, and clusterings of how often two items share a bundle; the best of them is then improved by moving single items
for as long as that helps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..config import DecodeConfig
from ..data.sessions import Bundle
from .decoding import Answer
from .partitions import mutual_f1
from .voting import Candidate

Scorer = Callable[[Sequence[Candidate]], np.ndarray]
"""Candidates → their scores."""

WAYS = ("bundles", "pairs")
STARTS = 4
"""Candidates that are improved by moves; the best of what they become is chosen."""


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """Chooses the answer with the best mean agreement with all samples; a `choosing.Chooser`."""

    exact_weight: float = 0.5
    """What being equal to a sample is worth beside a strict F1 of one. 0 aims at F1 alone; large is the vote."""
    by: str = "bundles"
    """What agreement is: strict F1 of `bundles`, or F1 of the `pairs` of items that share one."""

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise ValueError(f"Consensus.by = {self.by!r}: choose one of {', '.join(WAYS)}")
        if self.exact_weight < 0:
            raise ValueError(f"Consensus.exact_weight = {self.exact_weight}: must be 0 or more")

    @classmethod
    def of(cls, decode: DecodeConfig) -> Consensus:
        """As a profile's settings of decoding have it."""
        return cls(exact_weight=decode.exact_weight)

    def __call__(self, answers: Sequence[Answer], greedy: Answer, worth: object = None) -> Sequence[Bundle]:
        """The bundles that are chosen; the greedy answer's where no sample can be read."""
        counts = Counter(frozenset(answer.bundles) for answer in answers if answer.bundles)
        if not counts:
            return greedy.bundles
        items = {n for candidate in counts for bundle in candidate for n in bundle}
        candidates = sorted(counts.keys() | clusterings(counts), key=_order)
        score = self._scorer(counts)
        scores = score(candidates)
        starts = np.argsort(-scores, kind="stable")[:STARTS]
        improved = [_improved(candidates[k], float(scores[k]), items, score) for k in starts]
        best, _ = max(improved, key=lambda found: found[1])
        return tuple(sorted(best, key=sorted))

    def _scorer(self, counts: Counter[Candidate]) -> Scorer:
        """Gives candidates their mean agreement with all samples, and what it is worth to be one of them.

        The samples are looked at once, however many candidates there will be.
        """
        prepare, compare = (_masks, mutual_f1) if self.by == "bundles" else (_pairs, _pair_f1)
        samples, weights = prepare(list(counts)), np.array(list(counts.values())) / counts.total()

        def score(candidates: Sequence[Candidate]) -> np.ndarray:
            exact = np.array([counts[candidate] for candidate in candidates]) / counts.total()
            return compare(prepare(candidates), samples) @ weights + self.exact_weight * exact

        return score


def _improved(best: Candidate, value: float, items: Iterable[int], score: Scorer) -> tuple[Candidate, float]:
    """The candidate after all moves that help, the best one first, and its score."""
    while moved := sorted(neighbours(best, items), key=_order):
        scores = score(moved)
        if scores.max() <= value + 1e-9:
            break
        best, value = moved[int(scores.argmax())], float(scores.max())
    return best, value


def bundle_agreement(candidates: Sequence[Candidate], truths: Sequence[Candidate] | None = None) -> np.ndarray:
    """Strict F1 of each candidate as the answer where another is the truth; by default each against each.

    Shapes:
        → (C answers, T truths)
    """
    masks, others = _masks(candidates), None if truths is None else _masks(truths)
    return mutual_f1(masks, others)


def _masks(candidates: Sequence[Candidate]) -> np.ndarray:
    """Each bundle's items as bits; Python integers, which have any number of them, where 63 are too few."""
    highest = max((n for candidate in candidates for bundle in candidate for n in bundle), default=0)
    width = max(map(len, candidates), default=0)
    masks = np.zeros((len(candidates), width), dtype=object if highest > 62 else np.int64)
    for row, candidate in enumerate(candidates):
        masks[row, : len(candidate)] = [sum(1 << n for n in bundle) for bundle in candidate]
    return masks


def pair_agreement(candidates: Sequence[Candidate], truths: Sequence[Candidate] | None = None) -> np.ndarray:
    """F1 of the pairs that share a bundle, of each candidate against others; by default each against each.

    Shapes:
        → (C, T)
    """
    rows = _pairs(candidates)
    return _pair_f1(rows, rows if truths is None else _pairs(truths))


def _pairs(candidates: Sequence[Candidate]) -> list[frozenset[tuple[int, int]]]:
    return [pairs_in(candidate) for candidate in candidates]


def _pair_f1(rows: Sequence[frozenset], columns: Sequence[frozenset]) -> np.ndarray:
    return np.array([[2 * len(a & b) / max(len(a) + len(b), 1) for b in columns] for a in rows])


def pairs_in(bundles: Iterable[Bundle]) -> frozenset[tuple[int, int]]:
    """Pairs of items that share a bundle, the smaller number first."""
    return frozenset(pair for bundle in bundles for pair in combinations(sorted(bundle), 2))


def clusterings(counts: Mapping[Candidate, int]) -> Collection[Candidate]:
    """Sets of disjoint bundles from how often two items share one, at every threshold (average linkage).

    Args:
        counts: how often each candidate was sampled.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    items = sorted({n for candidate in counts for bundle in candidate for n in bundle})
    place = {n: k for k, n in enumerate(items)}
    together = np.zeros((len(items), len(items)))
    for candidate, count in counts.items():
        for a, b in pairs_in(candidate):
            together[place[a], place[b]] += count
    apart = 1 - (together + together.T) / sum(counts.values())
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), "average")
    found = set()
    for height in np.unique(tree[:, 2]):
        labels = fcluster(tree, height + 1e-9, "distance")
        groups = (frozenset(n for n, label in zip(items, labels, strict=True) if label == g) for g in np.unique(labels))
        found.add(_real(groups))
    return found


def neighbours(candidate: Candidate, items: Iterable[int]) -> Collection[Candidate]:
    """What one move makes of disjoint bundles: an item goes to another bundle, to a free item or away from all, or two
    bundles become one.

    Of bundles that overlap, nothing: there is no telling which of its bundles an item leaves.

    Args:
        candidate: a set of bundles.
        items: all items that may stand in bundles.
    """
    bundles = sorted(candidate, key=sorted)
    used = frozenset().union(*bundles)
    if sum(map(len, bundles)) != len(used):
        return set()
    groups = bundles + [frozenset({item}) for item in sorted(set(items) - used)]
    found = set()
    for place, group in enumerate(groups):
        rest = groups[:place] + groups[place + 1 :]
        for item in group:
            left = group - {item}
            found.add(_real([*rest, left]))
            found |= {_real([*rest[:k], other | {item}, *rest[k + 1 :], left]) for k, other in enumerate(rest)}
        found |= {_real([*rest[:k], other | group, *rest[k + 1 :]]) for k, other in enumerate(rest)}
    return found - {frozenset(), candidate}


def _real(groups: Iterable[Bundle]) -> Candidate:
    return frozenset(group for group in groups if len(group) > 1)


def _order(candidate: Candidate) -> list[list[int]]:
    """By which ties are broken, the same in every run."""
    return sorted(map(sorted, candidate))
