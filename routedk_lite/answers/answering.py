"""One deterministic answer per session: decoded from pairs where a profile reads them, greedy otherwise.

Everything that is compared is answered this way, so that differences are those of the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..config import DecodeConfig, Profile
from ..data.prompts import ContextOf
from ..data.sessions import Bundle, Session
from ..fusion.layers import RoutedLinear, ShiftedLinear
from ..student.pairs import PairReader, make_reader, read_pairs
from .consensus import Consensus
from .decoding import greedy_answers, sample_bundles
from .partitions import PartitionDecoder, check_sizes, fit_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..fusion.routed import RoutedModel
    from ..student.backbone import Student

ReadPairs = Callable[[Sequence[Session]], Mapping[int, np.ndarray]]
"""Sessions → session id → pair logits (items, items)."""


class Decoded(NamedTuple):
    """Bundles that were decoded from pairs, with what led to them."""

    decoder: PartitionDecoder
    logits: Mapping[int, np.ndarray]
    """Session id → (items, items), of validation and answered sessions."""
    validation: Mapping[int, list[Bundle]]
    """Answers to the sessions on which the decoder was fitted, by `cross_validated` decoders; empty where these are too
    few for that."""
    answers: Mapping[int, list[Bundle]]


def decode_pairs(
    read: ReadPairs,
    sessions: Sequence[Session],
    *,
    train: Iterable[Session],
    validation: Sequence[Session],
    exact_weight: float = DecodeConfig.exact_weight,
) -> Decoded:
    """Fit a decoder on validation sessions, and answer with it.

    Args:
        read: gives pair logits, from a student (`pairs.read_pairs`) or from anything else.
        sessions: what is to be answered.
        train: where group sizes are counted.
        validation: where the decoder is fitted.
        exact_weight: what an exact match is worth beside a strict F1 of one.

    Raises:
        ValueError: all validation pairs are alike, or a session has too many items.
    """
    check_sizes([*validation, *sessions])  # before hours of reading
    train, fitted_on = list(train), read(validation)
    decoder = fit_decoder(fitted_on, validation, train, exact_weight=exact_weight)
    try:
        held_out = cross_validated(fitted_on, validation, train=train, exact_weight=exact_weight)
    except ValueError:  # too few for folds: the decoder stands, how well it does on validation is not known
        held_out = {}
    logits = read(sessions)
    answers = {s.id: decoder.decode(logits[s.id]) for s in sessions}
    return Decoded(decoder, {**fitted_on, **logits}, held_out, answers)


FOLDS = 10
"""Of the cross-validation of decoders."""


def cross_validated(
    logits: Mapping[int, np.ndarray],
    sessions: Sequence[Session],
    *,
    train: Iterable[Session],
    exact_weight: float = DecodeConfig.exact_weight,
) -> dict[int, list[Bundle]]:
    """Answers to each tenth of the sessions by a decoder that was fitted on the other nine.

    Args:
        logits: session id → pair logits (items, items).
        sessions: the sessions behind them, with their annotated bundles.
        train: where group sizes are counted.
        exact_weight: what an exact match is worth beside a strict F1 of one.

    Raises:
        ValueError: fewer than two sessions, or all pairs of nine tenths are alike.
    """
    if len(sessions) < 2:
        raise ValueError(f"{len(sessions)} sessions: cross-validation needs at least two")
    fold = np.random.default_rng(0).permutation(len(sessions)) % FOLDS
    train, found = list(train), {}
    for held in np.unique(fold):
        others = [s for s, f in zip(sessions, fold, strict=True) if f != held]
        decoder = fit_decoder(logits, others, train, exact_weight=exact_weight)
        found |= {s.id: decoder.decode(logits[s.id]) for s, f in zip(sessions, fold, strict=True) if f == held}
    return found


def profile_reader(profile: Profile, student: Student, train: Iterable[Session]) -> PairReader | None:
    """The reader of pairs that a profile asks for, or `None`. To be made before any expert is put on the student.

    Args:
        profile: says from which layer pairs are read.
        student: without experts.
        train: training sessions.

    Raises:
        ValueError: the student carries an expert, or has too few layers, or its numbers overflow.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if profile.pairs is None:
        return None
    for name, module in student.model.named_modules():
        if isinstance(module, BaseTunerLayer | RoutedLinear | ShiftedLinear):
            raise ValueError(f"the student's {name} carries an expert: make the reader before, or unload the expert")
    return make_reader(student, train, profile.pairs, profile.prompt)


def pairs_of(
    model: PreTrainedModel | RoutedModel,
    profile: Profile,
    student: Student,
    reader: PairReader,
    *,
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
    progress: bool = True,
) -> ReadPairs:
    """Reads the pairs of any sessions with a model, as its profile says; `context` and `alpha` as for `read_pairs`."""
    return lambda sessions: read_pairs(
        model,
        student.tokenizer,
        sessions,
        reader,
        prompt=profile.prompt,
        context=context,
        alpha=alpha,
        batch_size=profile.decode.batch_size,
        progress=progress,
    )


def answer_sessions(
    model: PreTrainedModel | RoutedModel,
    sessions: Iterable[Session],
    *,
    profile: Profile,
    student: Student,
    reader: PairReader | None,
    train: Iterable[Session],
    validation: Iterable[Session],
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
    progress: bool = True,
) -> dict[int, Sequence[Bundle]]:
    """Session id → bundles.

    Args:
        model: the student, plain, with an expert, or routed.
        sessions: what is to be answered.
        profile: prompt and settings of decoding.
        student: its tokenizer is used.
        reader: from `profile_reader`; used where the profile's answers are decoded from pairs.
        train, validation: sessions of these splits; the decoder of pairs is fitted on them.
        context: what stands in each prompt beside the session, of the validation sessions too; nothing by default.
        alpha: session id → weights (L, E) that a routed model uses instead of its fusion's; of the validation sessions
            too where there is a reader.
        progress: show progress bars.
    """
    sessions = list(sessions)
    options = {"context": context, "alpha": alpha, "progress": progress}
    options |= {"prompt": profile.prompt, "decode": profile.decode}
    if profile.answers == "consensus":
        samples = sample_bundles(model, student.tokenizer, sessions, profile.vote.n, **profile.vote.sampling, **options)
        consensus = Consensus.of(profile.decode)
        return {one.id: consensus(one.drawn, one.greedy) for one in samples}
    if reader is None or profile.answers == "greedy":
        answers = greedy_answers(model, student.tokenizer, sessions, **options)
        return {a.id: a.bundles for a in answers}
    read = pairs_of(model, profile, student, reader, context=context, alpha=alpha, progress=progress)
    weight = profile.decode.exact_weight
    found = decode_pairs(read, sessions, train=train, validation=list(validation), exact_weight=weight)
    return dict(found.answers)
