"""A small model that has learned how good a sampled answer is: reward-guided selection.

It looks at an answer as everybody can see it: how likely the student found it, how well it agrees with the other
samples, what its bundles look like, and, where pairs of items were read as well, how well they hold together. It
learns from samples on *training* sessions, whose annotations say what each of them was worth; test sessions have no
part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..data.metrics import per_session
from ..data.sessions import Bundle, Session
from .consensus import bundle_agreement, pair_agreement, pairs_in
from .decoding import Answer, Samples
from .voting import Candidate

FEATURES = (
    "log-probability of the whole answer",
    "log-probability per token",
    "share of the samples",
    "mean strict F1 against the samples",
    "mean pair F1 against the samples",
    "number of bundles",
    "items in bundles",
    "items in the largest bundle",
    "largest number of an item that any sample names",
    "mean pair logit inside its bundles",
    "mean pair logit across them",
)
"""What the verifier sees of a candidate; the last two are missing where pairs were not read."""


class Verifier(NamedTuple):
    """Chooses the candidate that it expects to score best; a `choosing.Chooser`."""

    model: object
    """A regressor of scikit-learn: features → expected strict F1."""
    pairs: Mapping[int, np.ndarray]
    """Session id → pair logits (items, items), of the sessions that are asked about; may be empty."""

    def __call__(self, answers: Sequence[Answer], greedy: Answer, worth: object = None) -> Sequence[Bundle]:
        """The bundles that are chosen; the greedy answer's where no sample can be read."""
        candidates, features = candidate_features(answers, self.pairs.get(greedy.id))
        if not candidates:
            return greedy.bundles
        expected = self.model.predict(features[:, : self.model.n_features_in_])
        return tuple(sorted(candidates[int(expected.argmax())], key=sorted))


def fit_verifier(
    samples: Iterable[Samples],
    sessions: Iterable[Session],
    *,
    pairs: Mapping[int, np.ndarray] | None = None,
    seed: int = 0,
) -> Verifier:
    """Learn from sampled answers what makes them good.

    Args:
        samples: drawn for training sessions.
        sessions: these sessions with their annotated bundles.
        pairs: session id → pair logits, of these sessions and of all that will be asked about; none by default.
        seed: of the model.

    Raises:
        ValueError: a sample is about a session that was not given, or no answer can be read.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    by_id, pairs = {session.id: session for session in sessions}, pairs or {}
    rows, scores = [], []
    for one in samples:
        if one.id not in by_id:
            raise ValueError(f"samples: session {one.id} is not among the sessions that were given")
        candidates, features = candidate_features(one.drawn, pairs.get(one.id))
        rows.append(features)
        for candidate in candidates:
            scores.append(float(per_session({one.id: list(candidate)}, [by_id[one.id]], "strict").f1[0]))
    if not scores:
        raise ValueError("samples: no answer can be read, so there is nothing to learn from")
    model = HistGradientBoostingRegressor(max_iter=120, learning_rate=0.06, max_leaf_nodes=12, random_state=seed)
    n_features = len(FEATURES) if pairs else len(FEATURES) - 2
    return Verifier(model.fit(np.concatenate(rows)[:, :n_features], scores), pairs)


def candidate_features(
    answers: Sequence[Answer], logits: np.ndarray | None = None
) -> tuple[list[Candidate], np.ndarray]:
    """The distinct readable answers, and what can be seen of each (`FEATURES`).

    Shapes:
        logits: (items, items) → (candidates, features), NaN where something is unknown
    """
    found: dict[Candidate, list[Answer]] = {}
    for answer in answers:
        if answer.bundles:
            found.setdefault(frozenset(answer.bundles), []).append(answer)
    candidates = sorted(found, key=lambda c: sorted(map(sorted, c)))
    if not candidates:
        return [], np.empty((0, len(FEATURES)))
    counts = Counter({candidate: len(found[candidate]) for candidate in candidates})
    share = np.array([counts[c] for c in candidates]) / len(answers)
    weights = share / share.sum()
    agree, agree_pairs = bundle_agreement(candidates) @ weights, pair_agreement(candidates) @ weights
    n_items = max(n for candidate in candidates for bundle in candidate for n in bundle)
    rows = []
    for k, candidate in enumerate(candidates):
        log_probs = [np.nan if a.log_prob is None else a.log_prob for a in found[candidate]]
        whole = [p * a.n_tokens for p, a in zip(log_probs, found[candidate], strict=True)]
        sizes = [len(bundle) for bundle in candidate]
        covered = len(frozenset().union(*candidate))
        shape = [len(sizes), covered, max(sizes), n_items]
        likely = [max(whole), max(log_probs)]
        rows.append([*likely, share[k], agree[k], agree_pairs[k], *shape, *_coherence(candidate, logits)])
    return candidates, np.array(rows, dtype=float)


def _coherence(candidate: Candidate, logits: np.ndarray | None) -> tuple[float, float]:
    """Mean pair logit inside the bundles and across them; NaN where there is no such pair."""
    if logits is None:
        return np.nan, np.nan
    inside = np.zeros(logits.shape, dtype=bool)
    for a, b in pairs_in(candidate):
        inside[a - 1, b - 1] = True
    upper = np.triu(np.ones(logits.shape, dtype=bool), 1)
    parts = (logits[inside], logits[upper & ~inside])
    return tuple(float(part.mean()) if part.size else np.nan for part in parts)
