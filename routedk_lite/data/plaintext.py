"""Tokens of a text of which parts are plain: whatever is written there is text, also what looks like a special token.

A tokenizer reads "</s>" as the end of a text wherever it finds it. In a chat template that is meant; in a product's
title it is not.
"""

from __future__ import annotations

import json
import secrets
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First place, and the one behind the last."""


class Encoded(NamedTuple):
    """A text in tokens."""

    ids: list[int]
    places: list[Span] | None
    """The characters of each token; `None` where the tokenizer cannot tell."""


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, plain: Sequence[Span] | None = None) -> Encoded:
    """Tokens of a text, without any that a tokenizer adds to it.

    Args:
        text: what is encoded.
        tokenizer: a student's.
        plain: the parts in which nothing is a special token, in order; `None` is all of it.

    Raises:
        ValueError: a character is none (a lone surrogate).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = ascii(text[max(error.start - 30, 0) : error.end])
        raise ValueError(
            f"a text holds half a character (a lone surrogate) in {near}: mend it where it was made"
        ) from None
    plain = ((0, len(text)),) if plain is None else plain
    if not tokenizer.is_fast:
        return Encoded(_encode_slowly(text, tokenizer, plain), None)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = list(found["input_ids"]), list(found["offset_mapping"])
    marks = _marks(tokenizer)
    special = [(id_, place) for id_, place in zip(ids, places, strict=True) if id_ in marks.contents]
    meant = [(id_, place) for id_, place in special if not _touches(place, plain)]
    return Encoded(ids, places) if len(meant) == len(special) else marks.shield(tokenizer).encode(text, meant)


def beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that a tokenizer puts before a text; not those that it puts behind, which would end an answer."""
    with_all, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(with_all) - len(bare) + 1)
    return with_all[: next((k for k in starts if with_all[k : k + len(bare)] == bare), 0)]


def _touches(place: Span, spans: Sequence[Span]) -> bool:
    return any(place[0] < end and start < place[1] for start, end in spans)


def _encode_slowly(text: str, tokenizer: PreTrainedTokenizerBase, plain: Sequence[Span]) -> list[int]:
    """With a tokenizer that knows no places: in one piece where no mark stands in plain text, else part by part."""
    marks = _marks(tokenizer).contents.values()
    if not any(mark in text[start:end] for start, end in plain for mark in marks):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids, at = [], 0
    for start, end in [*plain, (len(text), len(text))]:
        for piece, is_plain in ((text[at:start], False), (text[start:end], True)):
            if piece:
                ids += tokenizer(piece, add_special_tokens=False, split_special_tokens=is_plain)["input_ids"]
        at = end
    return ids


class _Marks:
    """The added tokens of a tokenizer that mean something else than their text.

    All but spaces, which some tokenizers add by the run, and words that somebody has added as such.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokens = {
            id_: token
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.special or not (token.content.isspace() or token.content.replace(" ", "").isalnum())
        }
        self.contents = {id_: token.content for id_, token in self.tokens.items()}
        self._shield: _Shield | None = None

    def shield(self, tokenizer: PreTrainedTokenizerBase) -> _Shield:
        """Made when it is first needed: large tokenizers take a second."""
        if self._shield is None:
            self._shield = _Shield(tokenizer.backend_tokenizer, self.tokens)
        return self._shield


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, _Marks]] = WeakKeyDictionary()


def _marks(tokenizer: PreTrainedTokenizerBase) -> _Marks:
    """Kept for as long as nothing is added to the tokenizer: some have thousands."""
    now = (len(tokenizer), tuple(tokenizer.all_special_ids))
    before, marks = _KNOWN.get(tokenizer, (None, None))
    if marks is None or before != now:
        marks = _Marks(tokenizer)
        _KNOWN[tokenizer] = now, marks
    return marks


class _Shield:
    """A copy of a fast tokenizer that finds no mark in a text, but names that stand in for them.

    The marks that are meant are replaced by their names, so that the text is cut where the tokenizer cuts it.
    """

    def __init__(self, backend: Tokenizer, marks: Mapping[int, AddedToken]) -> None:
        from tokenizers import AddedToken, Tokenizer

        key = secrets.token_hex(8)  # no text holds it
        self.names = {id_: f"\ufdd0{key}:{id_}\ufdd1" for id_ in marks}
        state = json.loads(backend.to_str())
        if state["model"]["type"] == "Unigram":  # the only kind that would find a whole mark among its pieces
            for id_ in marks.keys() & set(range(len(state["model"]["vocab"]))):
                state["model"]["vocab"][id_][0] = self.names[id_]
        self.copy = Tokenizer.from_str(json.dumps(state))
        self.copy.no_truncation()
        self.copy.no_padding()
        self.copy.add_special_tokens([AddedToken(mark.content, special=True) for mark in marks.values()])
        how = ("lstrip", "rstrip", "single_word")
        named = [
            AddedToken(self.names[id_], special=False, normalized=False, **{name: getattr(mark, name) for name in how})
            for id_, mark in marks.items()
        ]
        self.copy.add_tokens(named)
        self.copy.encode_special_tokens = True  # that is, as text
        self.meaning = {self.copy.token_to_id(name): id_ for id_, name in self.names.items()}

    def encode(self, text: str, meant: Sequence[tuple[int, Span]]) -> Encoded:
        """Tokens of a text in which only these marks are meant, each with its place."""
        pieces, here, there = [], [0], [0]  # places in the text with names, and what they are in the text
        at = length = 0
        for id_, (start, end) in meant:
            for piece, upto in ((text[at:start], start), (self.names[id_], end)):
                pieces.append(piece)
                length += len(piece)
                here.append(length)
                there.append(upto)
            at = end
        found = self.copy.encode("".join([*pieces, text[at:]]), add_special_tokens=False)

        def original(place: int) -> int:
            k = bisect_right(here, place) - 1
            return there[k] + place - here[k]

        ids = [self.meaning.get(id_, id_) for id_ in found.ids]
        return Encoded(ids, [(original(a), original(b)) for a, b in found.offsets])
