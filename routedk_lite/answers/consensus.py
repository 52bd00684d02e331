"""The answer that agrees best with all samples: minimum Bayes risk (Kumar and Byrne 2004; Bertsch et al. 2023).

A vote takes the most frequent answer, the mode of what was sampled. Where a model spreads its belief over many answers
the mode is a matter of luck, and often the boldest answer of all. The samples still say much together: how often two
items share a bundle, and which answers differ least from most others. So each candidate is scored by its mean strict F1
against all samples, as if each of them were the truth, and by how often it is one of them exactly. Candidates are the
samples, and clusterings of how often two items share a bundle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..data.sessions import Bundle
from .decoding import Answer
from .partitions import mutual_f1
from .voting import Candidate

WAYS = ("bundles", "pairs")


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

    def __call__(self, answers: Sequence[Answer], greedy: Answer, worth: object = None) -> Sequence[Bundle]:
        """The bundles that are chosen; the greedy answer's where no sample can be read."""
        counts = Counter(frozenset(answer.bundles) for answer in answers if answer.bundles)
        if not counts:
            return greedy.bundles
        chosen = sorted(counts.keys() | clusterings(counts), key=_order)
        agreement = (bundle_agreement if self.by == "bundles" else pair_agreement)(chosen)
        weights = np.array([counts[candidate] for candidate in chosen]) / counts.total()
        score = agreement @ weights + self.exact_weight * weights
        return tuple(sorted(chosen[int(score.argmax())], key=sorted))


def bundle_agreement(candidates: Sequence[Candidate]) -> np.ndarray:
    """Strict F1 of each candidate as the answer where another is the truth.

    Shapes:
        → (C answers, C truths)
    """
    masks = np.zeros((len(candidates), max(map(len, candidates), default=0)), dtype=object)  # any number of items
    for row, candidate in enumerate(candidates):
        masks[row, : len(candidate)] = [sum(1 << n for n in bundle) for bundle in candidate]
    return mutual_f1(masks if masks.size and masks.max() >= 1 << 62 else masks.astype(np.int64))


def pair_agreement(candidates: Sequence[Candidate]) -> np.ndarray:
    """F1 of the pairs that share a bundle, of each candidate against each other; symmetric.

    Shapes:
        → (C, C)
    """
    every = [pairs_in(candidate) for candidate in candidates]
    return np.array([[2 * len(a & b) / max(len(a) + len(b), 1) for b in every] for a in every])


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
        found.add(frozenset(group for group in groups if len(group) > 1))
    return found


def _order(candidate: Candidate) -> list[list[int]]:
    """By which ties are broken, the same in every run."""
    return sorted(map(sorted, candidate))
