"""What kind of product a title names: a phone case, a pair of boots, tea.

The published item categories cover only items that belong to a bundle, so that having one gives the labels away (see
`rawdata.title_leak`). Here a kind is read from the title, which every item has, by rules of English titles and counts
over training titles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..data.sessions import Session

_UNITS = "fl|oz|ounces?|lbs?|pounds?|grams?|g|kg|ml|liters?|count|ct|packs?|pcs?|pieces?"
_PACKAGES = "(?:bag|bottle|can|canister|container|cup|jar|package|packet|tin|tub|unit)s?|(?:box|pouch)(?:es)?"
_BREAK = re.compile(
    r"[,;:|!()\[\]{}]|\s-+\s|--|\s[–—+/*~]\s"
    r"|\s(?:for|with|w/?|fits|compatible|in|from|by|featuring|includ(?:es?|ing)|plus|without|within|on|at|made)\s"
    rf"|(?:^|\s)\d[\d.,/]*[\s-]?(?:{_UNITS})\b\.?(?:\s+(?:{_PACKAGES})\b)?",
    re.IGNORECASE,
)
"""What ends a phrase that names a product: punctuation, words that lead on to what it is for, amounts."""
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")
_NEUTRAL_WORDS = (
    "a an and at for in me of on or the to up with black white red blue green pink purple brown grey gray silver gold "
    "orange yellow clear beige navy ivory khaki fuchsia color colour colors multicolor assorted assortment variety "
    "size sizes small medium large big mini inch inches feet foot ounce ounces pound pounds gram grams volt amp gauge "
    "count piece pieces pair pairs pack packs packet packets package box boxes bulk case-of lot set sets kit kits "
    "bundle combo collection unit units pouch pouches portion serving retail packaging new style model series edition "
    "version type brand product products gift men women mens womens boy boys girl girls kid kids unisex adult junior "
    "juniors infant toddler baby baby-boys baby-girls unisex-baby newborn ladies lady male female a-male free original "
    "premium certified compatible ready light accessory"
)
_NEUTRAL = frozenset(_NEUTRAL_WORDS.split())
"""Words that stand last in a phrase without naming a kind, or before any noun: colours, sizes, packaging, wearers."""
_MIN_LETTERS = 3
_MIN_COUNT = 4
"""Training titles in which a word must be the head of the first phrase to name a kind."""
_MIN_SHARE = 0.25
"""Share of its occurrences in first phrases that a head must be last in."""
_TIE, _TIE_COUNT = 0.7, 8
"""Share of its occurrences that a word spends beside one other, and their number, that tie the two (power supply)."""


def _phrases(title: str) -> Iterator[list[str]]:
    """The words of each phrase of a title, in lower case; model numbers and amounts are left out."""
    for phrase in _BREAK.split(title.replace("’", "'")):
        stripped = (token.strip("\"'.*?#-&").removesuffix("'s") for token in phrase.lower().split())
        if words := [word for word in stripped if len(word) > 1 and _WORD.fullmatch(word)]:
            yield words


def _singular(word: str, vocabulary: frozenset[str]) -> str:
    """The singular of a plural, if training titles have it."""
    if not word.endswith("s") or word.endswith("ss"):
        return word
    forms = (word[:-1], word[:-3] + "y" if word.endswith("ies") else "", word[:-2] if word.endswith("es") else "")
    return next((form for form in forms if len(form) > 2 and form in vocabulary), word)


@dataclass(frozen=True, kw_only=True)
class KindExtractor:
    """Tells a product's kind from its title; made by `fit_kinds`."""

    vocabulary: frozenset[str]
    """Words of the training titles."""
    names: Mapping[str, str]
    """What names a kind, a noun or a noun with its modifier, in the singular → what the kind is called."""

    def kind(self, title: str) -> str | None:
        """The kind of a product: the last noun of the first phrase that names one; `None` if no phrase does.

        English compounds end in their head, so the last one counts: a tablet keyboard case is a case.
        """
        for phrase in _phrases(title):
            words = [_singular(word, self.vocabulary) for word in phrase]
            for before, word in zip([*reversed(words[:-1]), ""], reversed(words), strict=True):
                for key in (f"{before} {word}", word, f"{word}s"):  # a plural, where training titles have no singular
                    if key in self.names:
                        return self.names[key]
        return None

    def kinds(self, session: Session) -> list[str | None]:
        """The kind of each item of a session."""
        return [self.kind(title) for title in session.titles]

    def coverage(self, titles: Iterable[str]) -> float:
        """Share of titles that have a kind.

        Raises:
            ValueError: no titles.
        """
        found = [self.kind(title) is not None for title in titles]
        if not found:
            raise ValueError("titles is empty: coverage is a share of one title or more")
        return sum(found) / len(found)


def fit_kinds(train: Iterable[Session]) -> KindExtractor:
    """Find out from training titles which words name a kind of product.

    A word is a head when it often and mostly ends the first phrase of a title, less colours, sizes and packaging.
    A word that mostly begins titles is a brand.

    Args:
        train: training sessions; only their titles are read.

    Raises:
        ValueError: no sessions.
    """
    titles = sorted({title for session in train for title in session.titles})
    if not titles:
        raise ValueError("train is empty: kinds are learned from the titles of training sessions")
    plain = [list(_phrases(title)) for title in titles]
    vocabulary = frozenset(word for phrases in plain for phrase in phrases for word in phrase)
    total, pairs, first, last, named = Counter(), Counter(), Counter(), Counter(), Counter()
    for phrases in plain:
        phrases = [[_singular(word, vocabulary) for word in phrase] for phrase in phrases]
        for phrase in phrases:
            total.update(phrase)
            pairs.update(pairwise(phrase))
        naming = phrases[0] if phrases else []
        while naming and naming[-1] in _NEUTRAL:
            naming = naming[:-1]
        named.update(set(naming))
        if len(naming) > 1:  # a word alone may be a brand or a kind
            first[naming[0]] += 1
            last[naming[-1]] += 1
    barred = _NEUTRAL | {word for word, count in first.items() if 2 * count > named[word]}  # brands
    heads = {
        word
        for word, count in last.items()
        if count >= max(_MIN_COUNT, _MIN_SHARE * named[word]) and len(word) >= _MIN_LETTERS and word not in barred
    }
    ties = {pair: count for pair, count in pairs.items() if count >= _TIE_COUNT and pair[0] not in barred}
    compounds = {" ".join(pair) for pair, count in ties.items() if pair[1] in heads and count >= _TIE * total[pair[0]]}
    always_after = {pair[1]: pair[0] for pair, count in ties.items() if count >= _TIE * total[pair[1]]}

    def full_name(kind: str) -> str:
        before = always_after.get(kind.split()[0])
        return f"{before} {kind}" if before else kind

    return KindExtractor(vocabulary=vocabulary, names={kind: full_name(kind) for kind in sorted(heads | compounds)})
