"""One session, asked closely: α, every token of the answer with its probability, pairs, bundles.

Runs over many sessions are the business of `decoding` and `answering`; here a reader looks on while one is answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..config import Profile
from ..data.chat import opened_thought
from ..data.parsing import parse_answer
from ..data.prompts import encode_prompt, session_prompt
from ..data.sessions import Bundle, Session
from ..student.generation import end_tokens, generate_greedily, until_end, written_text
from ..student.pairs import PairReader, read_pairs
from .partitions import LARGEST, PartitionDecoder

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from ..student.backbone import Student


class Token(NamedTuple):
    """One token of a greedy answer."""

    text: str
    probability: float
    others: tuple[tuple[str, float], ...]
    """The next likeliest tokens, with their probabilities."""


class Reading(NamedTuple):
    """What a routed model made of a session."""

    alpha: np.ndarray
    """(L, E): the weights that were used."""
    tokens: tuple[Token, ...]
    """Of the greedy answer, the end of it included."""
    pairs: np.ndarray | None
    """(n, n): probability that two items belong together; `None` where a profile does not read pairs."""
    bundles: tuple[Bundle, ...]
    """Decoded from the pairs, or else read from the text."""
    seconds: float


def ask(
    model: RoutedModel,
    student: Student,
    session: Session,
    *,
    profile: Profile,
    reader: PairReader | None = None,
    decoder: PartitionDecoder | None = None,
    others: int = 3,
) -> Reading:
    """Ask a routed model about one session, with the α of its fusion or with what `override` sets around this call.

    Args:
        model: the student with experts and fusion.
        student: its tokenizer is used.
        session: the annotated bundles are not looked at.
        profile: prompt and length of answers.
        reader, decoder: pairs decide on the bundles where both are given.
        others: alternatives kept for each token.

    Raises:
        ValueError: only one of `reader` and `decoder`, or more items than pairs are decoded for.
    """
    if (reader is None) != (decoder is None):
        raise ValueError("reader and decoder belong together: give both, or neither for bundles from the text")
    if reader is not None and len(session) > LARGEST:
        raise ValueError(f"{len(session)} products: pairs are decoded for at most {LARGEST}")
    started, tokenizer = time.perf_counter(), student.tokenizer
    ids = encode_prompt(session_prompt(session, tokenizer, profile.prompt), tokenizer)
    model.eval()
    with torch.inference_mode():
        more = {"return_dict_in_generate": True, "output_logits": True}
        made = generate_greedily(model, tokenizer, [ids], profile.decode.max_new_tokens, **more)
    alpha = model.alpha[0]
    ends = end_tokens(model, tokenizer)
    written = until_end(made.sequences[0, len(ids) :], ends)
    tokens = tuple(
        _token(token, logits[0].float(), tokenizer, others) for token, logits in zip(written, made.logits, strict=True)
    )
    text = opened_thought(tokenizer) + written_text(written, tokenizer, ends)
    bundles, pairs = parse_answer(text, len(session), profile.prompt.fmt).bundles, None
    if reader is not None and decoder is not None:
        found = read_pairs(model, tokenizer, [session], reader, prompt=profile.prompt, batch_size=1, progress=False)
        logits = found[session.id]
        bundles, pairs = tuple(decoder.decode(logits)), 1 / (1 + np.exp(-logits))
    return Reading(alpha, tokens, pairs, bundles, time.perf_counter() - started)


def _token(chosen: int, logits: torch.Tensor, tokenizer, others: int) -> Token:
    p = logits.softmax(-1)
    likely = [int(i) for i in p.topk(others + 1).indices if int(i) != chosen][:others]
    return Token(
        tokenizer.decode([chosen]), float(p[chosen]), tuple((tokenizer.decode([i]), float(p[i])) for i in likely)
    )
