"""What a student has learned, measured cheaply: nats below a reader of numbers, pairs told apart, learning curves.

Whether an answer is right says little while a student is weak. Its likelihood says more: a model that never read a
title can still know how many bundles sessions of seven products have and how large they are. `ContentFree` is that
model; only nats *below* it were learned from the products.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..answers.answering import cross_validated, pairs_of
from ..answers.partitions import pair_values
from ..config import Profile, PromptConfig
from ..data.metrics import evaluate
from ..data.sessions import Bundle, Session
from ..statistics import Interval, bootstrap_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..student.backbone import Student
    from ..student.pairs import PairReader


class LearningPoint(NamedTuple):
    """One measurement on the validation sessions while a student learns."""

    sessions: int
    """Training sessions seen, repetitions counted."""
    nats: float
    """Mean negative log-likelihood of the annotated answers, per item."""
    below: Interval
    """How far that is below the content-free model, per item, with its interval over sessions."""
    auc: float
    """Of telling pairs that share a bundle from those that do not."""
    f1: float
    """Strict F1 of bundles decoded from pairs, decoders cross-validated."""
    exact_match: float
    """Likewise."""


class SizePattern(NamedTuple):
    """A session's bundles with the names of the items forgotten."""

    n_items: int
    masks: tuple[int, ...]
    """For each item in some order, the bundles that hold it as bits; in the smallest order there is."""
    arrangements: int
    """Different sets of bundles with this pattern."""


def pattern(n_items: int, bundles: Iterable[Bundle]) -> SizePattern:
    """What is left of a session's bundles when items are not told apart.

    >>> pattern(4, [frozenset({1, 2}), frozenset({3, 4})])
    SizePattern(n_items=4, masks=(1, 1, 2, 2), arrangements=3)
    """
    bundles = list(dict.fromkeys(bundles))
    members = [[item in bundle for bundle in bundles] for item in range(1, n_items + 1)]
    orders = list(permutations(range(len(bundles)))) if len(bundles) < 7 else [tuple(range(len(bundles)))]
    shapes = Counter(
        tuple(sorted(sum(row[old] << new for new, old in enumerate(order)) for row in members)) for order in orders
    )
    smallest = min(shapes)
    labelled = math.factorial(n_items)  # ways to give the items of this shape their places …
    for count in Counter(smallest).values():
        labelled //= math.factorial(count)
    # … each counted once per symmetry of the bundles
    return SizePattern(n_items, smallest, labelled // shapes[smallest])


class ContentFree:
    """Likelihood of an answer given everything but the titles: how patterns are distributed among sessions of a length.

    A pattern seen in training has its share of the sessions with as many items, spread evenly over its arrangements.
    For patterns never seen some probability is put aside: bundles drawn one after another at random, half of the
    time another one.

    Args:
        sessions: training sessions.
        smoothing: weight of the random bundles, in sessions per length.
    """

    def __init__(self, sessions: Iterable[Session], *, smoothing: float = 1.0) -> None:
        self.smoothing = smoothing
        self.counts: dict[int, Counter[SizePattern]] = {}
        for session in sessions:
            self.counts.setdefault(len(session), Counter())[pattern(len(session), _clean(session))] += 1

    def nats(self, session: Session) -> float:
        """Negative log-likelihood of a session's bundles."""
        bundles, n = _clean(session), len(session)
        if n < 2:
            return 0.0
        counts, found = self.counts.get(n, Counter()), pattern(n, bundles)
        total = sum(counts.values())
        k, choices = max(len(bundles), 1), 2**n - n - 1
        random = math.exp(math.lgamma(k + 1) - k * math.log(2 * choices))
        seen = counts[found] / found.arrangements
        return -math.log((seen + self.smoothing * random) / (total + self.smoothing))


def answer_nats(
    student: Student,
    sessions: Iterable[Session],
    *,
    model: PreTrainedModel | None = None,
    prompt: PromptConfig | None = None,
    batch_size: int = 4,
    progress: bool = True,
) -> np.ndarray:
    """Negative log-likelihood of each session's annotated answer, in nats; the closing token is counted.

    Args:
        student: gives tokenizer and, by default, the model.
        sessions: what is answered.
        model: the student with an expert on it, or routed.
        prompt: how sessions are written.
        batch_size: sessions at a time, sorted by length.
        progress: show a progress bar.

    Shapes:
        → (sessions,)
    """
    import torch
    from tqdm.auto import tqdm

    from ..student.batches import IGNORE, AnswerCollator
    from ..student.examples import encode_example
    from ..student.generation import pad_token
    from ..student.unchanged import evaluating

    prompt, model = prompt or PromptConfig(), model or student.model
    rows = [encode_example(s, student.tokenizer, prompt, max_length=10**6).row() for s in sessions]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    collate = AnswerCollator(pad_token(student.model, student.tokenizer), prompt_mask=hasattr(model, "weigher"))
    nats = np.zeros(len(rows))
    bar = tqdm(total=len(rows), unit="session", desc="likelihood", disable=not progress)
    with evaluating(model), bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {k: v.to(student.model.device) for k, v in collate([rows[i] for i in chosen]).items()}
            labels = batch.pop("labels")[:, 1:]
            with torch.inference_mode():
                log_p = model(**batch, use_cache=False).logits[:, :-1].float().log_softmax(-1)
            counts = labels != IGNORE
            token = log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            nats[chosen] = -(token * counts).sum(1).cpu().numpy()
            bar.update(len(chosen))
    return nats


def nats_below(
    nats: np.ndarray, sessions: Sequence[Session], content_free: ContentFree, *, generator: np.random.Generator
) -> Interval:
    """How many nats per item a student is below the content-free model: what it learned from the products.

    Args:
        nats: of each session's answer, from `answer_nats`.
        sessions: the same sessions.
        content_free: made from the training sessions.
        generator: of the bootstrap over sessions.
    """
    gains = np.array([content_free.nats(s) for s in sessions]) - np.asarray(nats)
    items = np.array([len(s) for s in sessions], dtype=float)
    return bootstrap_interval(gains / items, weights=items, generator=generator)


def learning_point(
    student: Student,
    model: PreTrainedModel,
    n_seen: int,
    *,
    profile: Profile,
    reader: PairReader,
    train: Sequence[Session],
    validation: Sequence[Session],
    progress: bool = True,
) -> LearningPoint:
    """What a student has learned by now, on the validation sessions.

    Args:
        student: gives the tokenizer.
        model: the student in training.
        n_seen: training sessions seen, repetitions counted.
        profile: prompt and settings of decoding.
        reader: reads pairs.
        train: for the content-free model and the sizes of groups.
        validation: what is measured on.
        progress: show progress bars.
    """
    nats = answer_nats(
        student, validation, model=model, prompt=profile.prompt, batch_size=profile.train.micro_batch_size,
        progress=progress,
    )  # fmt: skip
    logits = pairs_of(model, profile, student, reader, progress=progress)(validation)
    weight = profile.decode.exact_weight
    found = evaluate(cross_validated(logits, validation, train=train, exact_weight=weight), validation, "strict")
    return LearningPoint(
        sessions=n_seen,
        nats=float(nats.sum() / sum(map(len, validation))),
        below=nats_below(nats, validation, ContentFree(train), generator=np.random.default_rng(0)),
        auc=pair_auc(logits, validation),
        f1=found.f1,
        exact_match=found.exact_match,
    )


def pair_auc(scores: Mapping[int, np.ndarray], sessions: Iterable[Session]) -> float:
    """Area under the ROC curve of telling pairs of items that share a bundle from those that do not.

    Args:
        scores: session id → (items, items), higher where two items rather belong together; the upper half is read.
        sessions: the sessions with their annotated bundles.

    Raises:
        ValueError: all pairs are alike.
    """
    from sklearn.metrics import roc_auc_score

    values, together = pair_values(scores, sessions)
    if together.all() or not together.any():
        raise ValueError("every pair shares a bundle, or none does: an AUC needs both kinds of pairs")
    return float(roc_auc_score(together, values))


def shapley_values(worth: Mapping[frozenset[str], float | np.ndarray]) -> dict[str, np.ndarray]:
    """Each expert's share in what all of them reach together (Shapley 1953): what it adds on average when it joins.

    Experts join one after another; the mean runs over all orders. The shares sum to the worth of everyone less the
    worth of no one, and two experts that do the same share alike, which leaving out one at a time would not tell: each
    would seem needless while the other is there.

    Args:
        worth: for every set of experts, the empty one included, what it reaches: a number, or one per session.

    Shapes:
        worth: () or (sessions,) each → the same

    Raises:
        ValueError: a set of experts is missing.
    """
    everyone = sorted(frozenset().union(*worth))
    groups = [frozenset(c) for size in range(len(everyone) + 1) for c in combinations(everyone, size)]
    if missing := [sorted(group) for group in groups if group not in worth]:
        raise ValueError(f"worth lacks {missing[0]}: give all {len(groups)} sets of {', '.join(everyone)}")
    orders = list(permutations(everyone))
    shares = {name: np.zeros(np.shape(worth[frozenset()])) for name in everyone}
    for order in orders:
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            shares[name] = shares[name] + (np.asarray(worth[before | {name}]) - worth[before]) / len(orders)
    return shares


def _clean(session: Session) -> list[Bundle]:
    """Distinct bundles of two or more items, as the answer text and the strict protocol have them."""
    return [b for b in dict.fromkeys(session.bundles) if len(b) > 1]
