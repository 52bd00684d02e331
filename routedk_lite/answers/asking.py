"""One session, asked closely: α, every token of the answer with its probability, pairs, bundles.

Runs over many sessions are the business of `decoding` and `answering`; here a reader looks on while one is answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..config import Profile
from ..data.chat import opened_thought
from ..data.formats import get_format
from ..data.parsing import parse_answer
from ..data.prompts import encode_prompt, encode_slots, session_prompt, shorten
from ..data.sessions import Bundle, Session
from ..student.generation import end_tokens, generate_greedily, until_end, written_text
from ..student.pairs import PairReader, read_pairs
from ..student.unchanged import evaluating
from .consensus import Consensus
from .decoding import greedy_answers, sample_bundles
from .partitions import LARGEST, PartitionDecoder

if TYPE_CHECKING:
    from ..fusion.routed import RoutedModel
    from ..student.backbone import Student


OTHERS = 3
"""Alternatives that are kept for each token."""


class Token(NamedTuple):
    """One token of a greedy answer."""

    text: str
    probability: float
    """Of all tokens, or of those that may stand there where all else of an answer is given."""
    others: tuple[tuple[str, float], ...]
    """The next likeliest tokens, with their probabilities."""
    given: str = ""
    """What stands before it and was not the student's to choose."""


class Reading(NamedTuple):
    """What a routed model made of a session."""

    alpha: np.ndarray
    """(L, E): the weights that were used."""
    tokens: tuple[Token, ...]
    """Of the greedy answer, the end of it included; where all but some choices is given, these alone."""
    pairs: np.ndarray | None
    """(n, n): probability that two items belong together; `None` where a profile does not read pairs."""
    bundles: tuple[Bundle, ...]
    """Decoded from the pairs, the consensus of samples, or read from the greedy answer."""
    seconds: float
    n_samples: int = 0
    """Of how many sampled answers the bundles are the consensus; 0 where they are not."""


def ask(
    model: RoutedModel,
    student: Student,
    session: Session,
    *,
    profile: Profile,
    reader: PairReader | None = None,
    decoder: PartitionDecoder | None = None,
) -> Reading:
    """Ask a routed model about one session, with the α of its fusion or with what `override` sets around this call.

    Args:
        model: the student with experts and fusion.
        student: its tokenizer is used.
        session: the annotated bundles are not looked at.
        profile: prompt, length of answers, and whether the answer is the consensus of samples.
        reader, decoder: pairs decide on the bundles where both are given.

    Raises:
        ValueError: only one of `reader` and `decoder`, or more items than pairs are decoded for.
    """
    if (reader is None) != (decoder is None):
        raise ValueError("reader and decoder belong together: give both, or neither for bundles from the text")
    if reader is not None and len(session) > LARGEST:
        raise ValueError(f"{len(session)} products: pairs are decoded for at most {LARGEST}")
    started, n_samples, pairs = time.perf_counter(), 0, None
    with evaluating(model), torch.inference_mode():
        read = _choices if get_format(profile.prompt.fmt).slots else _written
        tokens, bundles = read(model, student, session, profile)
        alpha = model.alpha[0]
    options = {"prompt": profile.prompt, "progress": False}
    if reader is not None and decoder is not None:
        logits = read_pairs(model, student.tokenizer, [session], reader, batch_size=1, **options)[session.id]
        bundles, pairs = decoder.decode(logits), 1 / (1 + np.exp(-logits))
    elif profile.answers == "consensus":
        options |= {"decode": profile.decode, **profile.vote.sampling}
        (found,) = sample_bundles(model, student.tokenizer, [session], profile.vote.n, **options)
        bundles = Consensus.of(profile.decode)(found.drawn, found.greedy)
        n_samples = profile.vote.n
    return Reading(alpha, tokens, pairs, tuple(bundles), time.perf_counter() - started, n_samples)


def _written(
    model: RoutedModel, student: Student, session: Session, profile: Profile
) -> tuple[tuple[Token, ...], Sequence[Bundle]]:
    """The greedy answer of a student that writes all of it, token by token."""
    tokenizer = student.tokenizer
    ids = encode_prompt(session_prompt(session, tokenizer, profile.prompt), tokenizer)
    more = {"return_dict_in_generate": True, "output_logits": True}
    made = generate_greedily(model, tokenizer, [ids], profile.decode.max_new_tokens, **more)
    ends = end_tokens(model, tokenizer)
    written = until_end(made.sequences[0, len(ids) :], ends)
    tokens = []
    for chosen, logits in zip(written, made.logits, strict=True):
        p = logits[0].float().softmax(-1)
        likely = [int(i) for i in p.topk(OTHERS + 1).indices if int(i) != chosen][:OTHERS]
        others = tuple((tokenizer.decode([i]), float(p[i])) for i in likely)
        tokens.append(Token(tokenizer.decode([chosen]), float(p[chosen]), others))
    text = opened_thought(tokenizer) + written_text(written, tokenizer, ends)
    return tuple(tokens), parse_answer(text, len(session), profile.prompt.fmt).bundles


def _choices(
    model: RoutedModel, student: Student, session: Session, profile: Profile
) -> tuple[tuple[Token, ...], Sequence[Bundle]]:
    """The greedy answer of a student that only chooses, choice by choice: all of it is read once more for that."""
    tokenizer = student.tokenizer
    (answer,) = greedy_answers(model, tokenizer, [session], prompt=profile.prompt, progress=False)
    slots = get_format(profile.prompt.fmt).slots(shorten(session.titles, profile.prompt.max_title_words))
    names = [choice.strip() for choice in slots.choices]
    chosen = [names.index(name) for name in answer.text.split()]
    prompt = encode_prompt(session_prompt(session, tokenizer, profile.prompt), tokenizer)
    known = encode_slots(slots, tokenizer)
    ids, places = known.ids(chosen)
    inputs = torch.tensor([prompt + ids], device=model.device)
    seen = torch.zeros_like(inputs)
    seen[:, : len(prompt)] = 1  # as the answer was made: the router has not seen it
    logits = model(input_ids=inputs, prompt_mask=seen, use_cache=False).logits[0, len(prompt) - 1 :].float()
    tokens = []
    for step, (choice, place) in enumerate(zip(chosen, places, strict=True)):
        legal = slots.legal(chosen[:step])
        p = dict(zip(legal, logits[place, [known.choices[c] for c in legal]].softmax(-1).tolist(), strict=True))
        likely = sorted((c for c in legal if c != choice), key=lambda c: -p[c])[:OTHERS]
        others = tuple((slots.choices[c], p[c]) for c in likely)
        tokens.append(Token(slots.choices[choice], p[choice], others, slots.given[step]))
    return tuple(tokens), answer.bundles
