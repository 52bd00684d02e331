"""Knowledge in context: solved training sessions, rules and patterns in the prompt of the session that is asked about.

The companion paper (arXiv 2504.17220) compares three uses of distilled knowledge: in context, by fine-tuning, and both.
In-context use needs no training; it needs a longer prompt for every question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..data.prompts import Context, ContextOf
from ..data.sessions import Domain, Session
from ..data.words import fit_tfidf


def in_context(
    train: Domain,
    asked: Domain,
    *,
    demonstrations: int = 0,
    hints: Callable[[Session], str] = lambda session: "",
) -> ContextOf:
    """What stands beside each session of a split.

    Args:
        train: where demonstrations come from.
        asked: the split that is asked about. Where it has no official list of neighbours, the training sessions with
            the most similar titles (TF-IDF) are shown.
        demonstrations: solved sessions, the nearest one last, next to the question.
        hints: knowledge that needs no annotation of the session, such as all rules, or `patterns.patterns_text`.

    Raises:
        ValueError: a negative number, more demonstrations than training sessions, or titles without words
            (`data.words.fit_tfidf`) where the domain has no list of similar sessions.
    """
    if not 0 <= demonstrations <= len(train):
        raise ValueError(
            f"demonstrations = {demonstrations}: choose 0 to {len(train)}, the number of training sessions"
        )
    near: dict[int, Sequence[Session]] = {}
    if demonstrations:
        near = _nearest(train, asked, demonstrations)

    def context(session: Session) -> Context:
        return Context(hints(session), tuple(reversed(near.get(session.id, ()))))

    return context


def _nearest(train: Domain, asked: Domain, n: int) -> dict[int, Sequence[Session]]:
    """The n most similar training sessions of every session, nearest first, never the session itself."""
    listed = asked.neighbours
    if all(len(listed.get(session.id, ())) >= n for session in asked):
        return {s.id: [train.by_id[id_] for id_ in listed[s.id][:n]] for s in asked}
    texts = [" ".join(s.titles) for s in train]
    vectorizer = fit_tfidf(texts)
    similar = (vectorizer.transform(" ".join(s.titles) for s in asked) @ vectorizer.transform(texts).T).toarray()
    found = {}
    for session, row in zip(asked, similar, strict=True):
        order = np.argsort(-row, kind="stable")
        others = (train.sessions[k] for k in order if (train.sessions[k].id, train.split) != (session.id, asked.split))
        found[session.id] = [other for other, _ in zip(others, range(n), strict=False)]
    return found
