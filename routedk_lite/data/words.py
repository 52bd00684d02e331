"""How much the words of a text say: TF-IDF, with the document frequencies of the training sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


def fit_tfidf(texts: Sequence[str]) -> TfidfVectorizer:
    """Word weights (log term frequency) learned from texts.

    Args:
        texts: titles of training sessions, one by one or joined.

    Raises:
        ValueError: no text has a word of two or more letters or digits, so that there is nothing to weigh.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    words = vectorizer.build_analyzer()
    if not any(words(text) for text in texts):
        seen = repr(texts[0]) if texts else "none at all"
        raise ValueError(
            f"titles of the training sessions (the first: {seen}): none has a word of two or more letters or digits, "
            "and similarity of titles is counted in such words. Give titles in words."
        )
    return vectorizer.fit(texts)
