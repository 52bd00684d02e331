"""How good a set of predicted bundles is, under two protocols.

`official` copies what the code published with AICL (arXiv 2312.16262) measures, so that our numbers can stand
beside published ones. `strict` repairs what makes those numbers easy to game; its F1 and exact match are the
ones to look at. In both, a predicted bundle is a *hit* when it is a subset of some ground-truth bundle.

================  ========================================  ================================================
quantity          official                                  strict
================  ========================================  ================================================
left out          predictions that list fewer than two      bundles under two items, and repeats, among
                  numbers                                   predictions and ground truth alike
sessions counted  those with a predicted bundle left        all; an empty or missing answer scores zero
precision         hits / predicted                          hits / predicted
recall            hits / ground truth (may exceed 1)        share of ground truth that contains a prediction
================  ========================================  ================================================

Alike in both: *coverage* is the share of its true bundle that a hit holds, averaged over all hits of all
sessions (a hit that fits several true bundles is measured against the first in file order); *F1* is computed
per session from its own precision and recall and then averaged; a session is an *exact match* when the set of
predicted bundles equals the set of true ones.

Worked example. Five products; the shopper wanted {1, 2, 3} together and {3, 4} together. The student answers
with {1, 2}, {2, 3}, {4, 5} and the single item {5}:

>>> from routedk_lite.data.sessions import Session
>>> session = Session(
...     id=7,
...     items=("a", "b", "c", "d", "e"),
...     titles=("camera", "lens", "camera bag", "tripod", "kettle"),
...     bundles=(frozenset({1, 2, 3}), frozenset({3, 4})),
... )
>>> answer = {7: [{1, 2}, {2, 3}, {4, 5}, {5}]}

Both protocols drop the single item, which leaves three bundles, two of them hits: precision 2/3. Each hit
holds two of the three items of its bundle: coverage 2/3. `official` divides the two hits by the two true
bundles, so recall is 1 although {3, 4} was never found; `strict` sees that one bundle of two was found:

>>> official = evaluate(answer, [session], "official")
>>> round(official.precision, 3), official.recall, round(official.coverage, 3), round(official.f1, 3)
(0.667, 1.0, 0.667, 0.8)
>>> strict = evaluate(answer, [session], "strict")
>>> round(strict.precision, 3), strict.recall, round(strict.coverage, 3), round(strict.f1, 3)
(0.667, 0.5, 0.667, 0.571)
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from .sessions import Bundle, Session

Protocol = Literal["official", "strict"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One protocol's numbers for one set of predictions."""

    precision: float
    """Mean over the counted sessions."""
    recall: float
    """Mean over the counted sessions; may exceed 1 under `official`."""
    coverage: float
    """Mean over all hits; 0 when nothing hit."""
    f1: float
    """Mean of the per-session F1; may exceed 1 under `official`."""
    exact_match: float
    """Share of the counted sessions."""
    valid_rate: float
    """Share of all sessions that have at least one predicted bundle left."""
    n_sessions: int
    """Sessions that the means are taken over: all under `strict`, the valid ones under `official`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionScores:
    """The same numbers before averaging, in the order of the sessions: what the bootstrap resamples.

    Where `counted` is false (`official`, nothing left), precision, recall, F1 and exact match are NaN, so
    that averaging them by mistake shows. Coverage is NaN where nothing hit; its mean over all hits is the
    mean weighted by `hits`.

    Shapes:
        every array: (sessions,)
    """

    session_ids: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    exact_match: np.ndarray
    coverage: np.ndarray
    hits: np.ndarray
    valid: np.ndarray
    counted: np.ndarray


class _Score(NamedTuple):
    precision: float
    recall: float
    f1: float
    exact_match: float
    coverage: float
    hits: int


def evaluate(
    predictions: Mapping[int, Sequence[Iterable[int]]],
    sessions: Iterable[Session],
    protocol: Protocol = "official",
) -> Metrics:
    """Score predicted bundles against the ground truth of `sessions`.

    Args:
        predictions: session id → its predicted bundles, each a collection of 1-based item numbers. A session
            that is missing here has given an empty answer.
        sessions: the sessions to score, each with at least one ground-truth bundle.
        protocol: `official` (AICL's published behaviour) or `strict`; see the top of this module.

    Returns:
        The averages. When no session counts or nothing hits, the numbers concerned are 0.

    Raises:
        TypeError: predictions of the wrong type, or an item number that is no integer.
        ValueError: an unknown protocol or session id, a number outside its session, no sessions, or a session
            without ground truth.
    """
    scores = per_session(predictions, sessions, protocol)
    n_hits = int(scores.hits.sum())
    hit = scores.hits > 0
    return Metrics(
        precision=_mean(scores.precision[scores.counted]),
        recall=_mean(scores.recall[scores.counted]),
        coverage=float(scores.coverage[hit] @ scores.hits[hit] / n_hits) if n_hits else 0.0,
        f1=_mean(scores.f1[scores.counted]),
        exact_match=_mean(scores.exact_match[scores.counted]),
        valid_rate=_mean(scores.valid),
        n_sessions=int(scores.counted.sum()),
    )


def per_session(
    predictions: Mapping[int, Sequence[Iterable[int]]],
    sessions: Iterable[Session],
    protocol: Protocol = "official",
) -> SessionScores:
    """Score every session by itself; arguments and errors are those of `evaluate`."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    sessions = tuple(sessions)
    _check_ids(predictions, sessions)
    rows, valid = [], []
    for session in sessions:
        predicted = _read_bundles(predictions.get(session.id, ()), session, protocol)
        truth = _ground_truth(session, protocol)
        valid.append(bool(predicted))
        rows.append(_score(predicted, truth, protocol))
    table = np.array(rows, dtype=float)  # (sessions, 6)
    is_valid = np.array(valid, dtype=bool)
    counted = is_valid if protocol == "official" else np.ones(len(sessions), dtype=bool)
    columns = dict(zip(_Score._fields, table.T, strict=True))
    for name in ("precision", "recall", "f1", "exact_match"):
        columns[name] = np.where(counted, columns[name], np.nan)
    columns["hits"] = columns["hits"].astype(int)
    ids = np.array([session.id for session in sessions])
    return SessionScores(session_ids=ids, valid=is_valid, counted=counted, **columns)


def _score(predicted: Sequence[Bundle], truth: Sequence[Bundle], protocol: Protocol) -> _Score:
    """Numbers of one session; an empty answer scores zero (`official` then leaves the session out)."""
    matches = [next((true for true in truth if bundle <= true), None) for bundle in predicted]
    pairs = zip(predicted, matches, strict=True)
    shares = [len(bundle) / len(true) for bundle, true in pairs if true is not None]
    if protocol == "official":
        found = len(shares)
    else:
        found = sum(any(bundle <= true for bundle in predicted) for true in truth)
    precision = len(shares) / len(predicted) if predicted else 0.0
    recall = found / len(truth)
    return _Score(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if shares else 0.0,
        exact_match=float(set(predicted) == set(truth)),
        coverage=sum(shares) / len(shares) if shares else float("nan"),
        hits=len(shares),
    )


def _read_bundles(bundles: Sequence[Iterable[int]], session: Session, protocol: Protocol) -> list[Bundle]:
    """The predicted bundles that are left; AICL takes a bundle's size from the list, repeats included."""
    if isinstance(bundles, str) or not isinstance(bundles, Iterable):
        raise TypeError(
            f"predictions[{session.id}] is {bundles!r}; give a list of bundles, each a list of item numbers"
        )
    kept = []
    for bundle in bundles:
        numbers = _read_numbers(bundle, session)
        if len(numbers if protocol == "official" else set(numbers)) > 1:
            kept.append(frozenset(numbers))
    return kept if protocol == "official" else list(dict.fromkeys(kept))


def _read_numbers(bundle: Iterable[int], session: Session) -> list[int]:
    if isinstance(bundle, str) or not isinstance(bundle, Iterable):
        raise TypeError(f"predictions[{session.id}] holds {bundle!r}; each bundle is a collection of item numbers")
    numbers = []
    for item in bundle:
        if isinstance(item, (bool, np.bool_)) or not hasattr(item, "__index__"):
            raise TypeError(f"predictions[{session.id}] holds item number {item!r}; item numbers are integers")
        number = operator.index(item)
        if not 1 <= number <= len(session.items):
            raise ValueError(
                f"predictions[{session.id}] holds item number {number}, but the session's items are numbered "
                f"1 to {len(session.items)}; parsing.parse_answer reads answers and leaves such numbers out"
            )
        numbers.append(number)
    return numbers


def _ground_truth(session: Session, protocol: Protocol) -> tuple[Bundle, ...]:
    truth = session.bundles
    if protocol == "strict":
        truth = tuple(dict.fromkeys(bundle for bundle in truth if len(bundle) > 1))
    if not truth:
        raise ValueError(
            f"session {session.called} has no ground-truth bundle to score against; leave it out of sessions"
        )
    return truth


def _check_ids(predictions: Mapping[int, Sequence[Iterable[int]]], sessions: Sequence[Session]) -> None:
    if not isinstance(predictions, Mapping):
        raise TypeError(f"predictions is a {type(predictions).__name__}; give a mapping of session id to bundles")
    if not sessions:
        raise ValueError("sessions is empty; give at least one session to score")
    known = {session.id for session in sessions}
    if len(known) < len(sessions):
        raise ValueError("sessions holds the same id twice; give each session once")
    unknown = [key for key in predictions if key not in known]
    if unknown:
        raise ValueError(
            f"predictions has {len(unknown)} session ids that are not in sessions, such as {unknown[0]!r}; "
            "give predictions for these sessions only, with integer ids"
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
