"""Chapter 07: what ways to choose among sampled answers are worth, on recorded draws and on a fresh one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..answers.choosing import CHOOSERS, ChoicePoint, Chooser, Worth, choice_curve, oracle, remembering
from ..answers.decoding import Answer, Samples
from ..answers.verifier import fit_verifier
from ..answers.voting import resampled_scores
from ..data.metrics import per_session
from ..data.sessions import Bundle, Session
from ..report.numbers import between, signed
from ..statistics import Interval, PairedDifference, holm, paired_difference
from ..study.records import RunRecord, load_attachment
from .found import estimate

METRICS = {"f1": "strict F1", "exact_match": "exact match"}
WAYS = ("oracle", "verifier", "consensus", "majority", "likeliest")
"""To choose an answer, in the order of figures and tables."""
COMPARED = (
    ("consensus", "majority"),
    ("verifier", "majority"),
    ("likeliest", "majority"),
    ("oracle", "majority"),
    ("verifier", "consensus"),
    ("consensus", "greedy"),
    ("majority", "greedy"),
)
"""Ways that are compared session by session, all answers at hand."""
FOLDS = 5
SUBSETS = 5
"""Of the draw, at each number of answers below all; as many as the recorded curves have."""


def cross_fitted(samples: Sequence[Samples], sessions: Iterable[Session], folds: int = FOLDS) -> Chooser:
    """A verifier for sessions whose own samples are all there is: each is judged by one that never saw it.

    Args:
        samples: one entry per session.
        sessions: with their annotated bundles.
        folds: parts; the verifier of a part learns from all others.

    Raises:
        ValueError: fewer sessions than folds, or see `answers.verifier.fit_verifier`.
    """
    by_id = {session.id: session for session in sessions}
    if not 2 <= folds <= len(by_id):
        raise ValueError(f"folds = {folds}: need 2 or more, and no more than the {len(by_id)} sessions")
    part = {id_: k % folds for k, id_ in enumerate(sorted(by_id))}
    judges = []
    for fold in range(folds):
        others = [one for one in samples if part[one.id] != fold]
        judges.append(fit_verifier(others, [by_id[one.id] for one in others]))
    return lambda answers, greedy, worth: judges[part[greedy.id]](answers, greedy)


def limit(answers: Sequence[Answer], greedy: Answer, worth: Worth) -> Sequence[Bundle]:
    """The oracle, with the greedy answer where no sample can be read, as all other ways have it; a `Chooser`."""
    readable = [answer for answer in answers if answer.bundles]
    return oracle(readable or [greedy], greedy, worth)


def choices_of(record: RunRecord, sessions: Iterable[Session]) -> dict[str, Any]:
    """What every way to choose among a run's recorded answers is worth, in aggregates.

    The curves of majority and consensus are those of the record. The verifier is `cross_fitted`, since samples are
    recorded of test sessions alone, and the oracle is `limit`.

    Args:
        record: of a run that keeps its samples, and the curves of majority and consensus.
        sessions: its test sessions.

    Returns:
        `curves`: metric → way → points, each with `n` and `score`; `greedy`: metric → score of the greedy answer;
        `less`: metric → `a − b` → `estimate`, `low`, `high` and `p_value` of the paired difference (`COMPARED`), among
        all answers; `drawn`: how many these are; `sessions`: how many there are.

    Raises:
        ValueError: samples and sessions do not match.
    """
    sessions = list(sessions)
    samples = [Samples.from_json(row) for row in load_attachment(record, "samples")]
    # Curves and differences in both metrics ask about the same answers.
    blind = {**CHOOSERS, "verifier": cross_fitted(samples, sessions)}
    del blind["oracle"]
    ways = {way: remembering(choose) for way, choose in blind.items()} | {"oracle": limit}
    ways["greedy"] = lambda answers, greedy, worth: greedy.bundles
    known = record.analysis["curves"]
    sizes = [point["n"] for point in known["majority"]["f1"]]
    found: dict[str, Any] = {"curves": {}, "greedy": {}, "less": {}, "drawn": sizes[-1], "sessions": len(sessions)}
    for metric in METRICS:
        found["curves"][metric] = {
            way: known[way][metric] if way in known else _curve(ways[way], samples, sessions, sizes, metric)
            for way in WAYS
        }
        found["greedy"][metric] = record.analysis["greedy"]["metrics"]["strict"][metric]
        scores = {way: chosen_scores(ways[way], samples, sessions, metric) for way in (*WAYS, "greedy")}
        found["less"][metric] = {
            f"{a} − {b}": paired_difference(scores[a], scores[b], generator=np.random.default_rng(0))._asdict()
            for a, b in COMPARED
        }
    return found


def _curve(
    choose: Chooser, samples: Sequence[Samples], sessions: Sequence[Session], sizes: Sequence[int], metric: str
) -> list[dict[str, Any]]:
    how = {"generator": np.random.default_rng(0), "metric": metric, "resamples": SUBSETS}
    return [point._asdict() for point in choice_curve(samples, sessions, choose, sizes, **how)]


def chosen_scores(choose: Chooser, samples: Sequence[Samples], sessions: Sequence[Session], metric: str) -> np.ndarray:
    """A strict metric of every session when all of its answers are at hand.

    Args:
        choose: one of `choosing.CHOOSERS`, or your own.
        samples: the draw.
        sessions: the sessions with their annotated bundles.
        metric: `f1` or `exact_match`.

    Shapes:
        → (sessions,)

    Raises:
        KeyError: a session has no samples.
    """
    drawn = {one.id: one for one in samples}
    scores = []
    for session in sessions:

        def worth(bundles, session=session) -> float:
            return float(getattr(per_session({session.id: list(bundles)}, [session], "strict"), metric)[0])

        one = drawn[session.id]
        scores.append(worth(choose(one.drawn, one.greedy, worth)))
    return np.array(scores)


def curves_by_domain(found: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, dict[str, list[ChoicePoint]]]:
    """Panels for `plots.voting.sweep_figure`, from domain → `choices_of`."""
    return {
        domain: {
            way: [ChoicePoint(point["n"], Interval(*point["score"])) for point in points]
            for way, points in values["curves"][metric].items()
        }
        for domain, values in found.items()
    }


def levels_by_domain(found: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, dict[str, float]]:
    """Panel → what one greedy answer scores, for the same figure."""
    return {domain: {"greedy": values["greedy"][metric]} for domain, values in found.items()}


def differences_table(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for `notebook.table`, from domain → `choices_of`: one per comparison and domain, a column per metric."""
    return [
        {"choice": f"{a} − {b}", "domain": domain}
        | {METRICS[metric]: f"{estimate(less[f'{a} − {b}']):+.3f}" for metric, less in values["less"].items()}
        for a, b in COMPARED
        for domain, values in found.items()
    ]


def compare_sizes(
    samples: Sequence[Samples], sessions: Iterable[Session], metric: str, *, resamples: int = 50
) -> dict[str, PairedDifference]:
    """A vote among 8 and among all answers against one answer and against each other, session by session.

    Args:
        samples: the draw, one entry per session.
        sessions: with their annotated bundles.
        metric: `f1` or `exact_match`, under the strict protocol.
        resamples: random subsets per number of answers.

    Returns:
        The two numbers → their difference; p values are corrected for three comparisons (Holm).

    Raises:
        ValueError: fewer than eight answers were drawn.
    """
    most, sessions = len(samples[0].drawn), list(sessions)
    pairs = ((8, 1), (most, 1), (8, most))
    chance = {"generator": np.random.default_rng(0)}
    score = {
        n: resampled_scores(samples, sessions, n, metric=metric, resamples=resamples, **chance)[0]
        for n in sorted({n for pair in pairs for n in pair})
    }
    found = [paired_difference(score[a], score[b], **chance) for a, b in pairs]
    return {
        f"N = {a:>2} − {b:>2}": one._replace(p_value=float(p))
        for (a, b), one, p in zip(pairs, found, holm([one.p_value for one in found]), strict=True)
    }


def say_sizes(found: Mapping[str, Sequence[float]]) -> str:
    """What `compare_sizes` found, a line per comparison."""
    lines = []
    for sizes, (difference, low, high, p) in found.items():
        word = "not told apart"
        if p < 0.05 and not low <= 0 <= high:
            word = "better" if low > 0 else "worse"
        lines.append(f"  {sizes}: {signed(difference)} {between(low, high, signed)}  p = {p:.3f}  {word}")
    return "\n".join(lines)
