"""Words are weighed by how rare they are, and titles without words are refused with what to do."""

from __future__ import annotations

import pytest

from routedk_lite.data.words import fit_tfidf


def test_a_rare_word_counts_more_than_a_common_one():
    weigh = fit_tfidf(["red cup", "red pan", "red lid"])
    row = dict(zip(weigh.get_feature_names_out(), weigh.transform(["red cup"]).toarray()[0], strict=True))
    assert row["cup"] > row["red"] > 0 == row["pan"]


@pytest.mark.parametrize("texts", [["7", "+ ×", "A"], []])
def test_titles_without_words_are_refused(texts):
    with pytest.raises(ValueError, match=r"titles of the training sessions .*(7|none at all).*Give titles in words"):
        fit_tfidf(texts)
