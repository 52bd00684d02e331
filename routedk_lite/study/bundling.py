"""Bundles for sessions of your own, by experts that were trained before: `routedk bundle`.

Nothing needs to be known about the sessions but their titles. Whatever session comes is answered, or refused by its
name while the others are answered. Answers are kept as they come: what is stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..answers.answering import pairs_of, profile_reader
from ..answers.consensus import Consensus
from ..answers.decoding import Answer, Samples, greedy_answers, sample_bundles
from ..answers.fitting import longest_answer, misfit
from ..answers.partitions import LARGEST, PartitionDecoder, check_sizes, fit_decoder
from ..config import Profile, digest, get_profile, settings
from ..data.domains import load_domain
from ..data.sessions import Bundle, Domain, Session
from ..fusion.loading import check_experts, experts_on, experts_sha256, longest_in_training
from ..student.backbone import Student, load_student
from .kept import appending

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..config import DecodeConfig
    from ..fusion.routed import RoutedModel
    from ..student.pairs import PairReader

LONGEST = 10
"""Items of the longest training session, where the experts' folder does not say: so many have the longest of every
domain of this package."""
ONE_ITEM = "one item: there is nothing to bundle it with"
CUT_OFF = "the answer was cut off before its end"


class Bundled(NamedTuple):
    """What came of one session."""

    session: Session
    bundles: tuple[Bundle, ...]
    note: str
    """What is to be known about the answer, or why there is none; usually empty."""
    refused: bool = False
    """Whether the student was not asked."""


def bundle_sessions(
    sessions: Domain,
    experts: str | Path,
    *,
    profile: str | Profile,
    domain: str | Path | None = None,
    n: int | None = None,
    longest: int | None = None,
    seed: int = 0,
    work: str | Path = "runs",
    progress: bool = True,
) -> list[Bundled]:
    """Answer sessions with an expert, or with several in a routed model, the way the profile answers.

    Args:
        sessions: from `load_sessions`; bundles that they may have are not looked at.
        experts: the folder of an expert (PEFT), or of a routed model (`routedk export`).
        profile: the student that the experts were trained on, prompt and way of answering.
        domain: whose sessions the experts were trained on. Profiles that decode bundles from pairs need it: its
            training and validation sessions say what is usual.
        n: by consensus of so many sampled answers, or greedily if it is 1, instead of the profile's way.
        longest: items of the longest session in training; a longer one is flagged. By default as the folder of the
            experts says, or `domain`, or `LONGEST`.
        seed: of the samples.
        work: where answers are kept as they come, in `bundles`, under a name that inputs and settings decide on.
        progress: show progress bars.

    Returns:
        One per session, in the order given. Flagged in `note` are sessions of a single item, which nobody is asked
        about, sessions longer than those of training, answers that were cut off, and what was refused: a session that
        does not fit the student's context, or cannot be written in its tokens.

    Raises:
        ValueError: `n` below 1, pairs without a `domain`, no experts in the folder, or those of another student.
        DownloadError: student or domain are neither cached nor to be had.
    """
    profile, experts = get_profile(profile), Path(experts)
    if n is not None and n < 1:
        raise ValueError(f"n = {n}: must be 1 or more")
    way = profile.answers if n is None else "greedy" if n == 1 else "consensus"
    if way == "pairs" and domain is None:
        raise ValueError(
            f"profile {profile.name!r} decodes bundles from pairs, and for that needs the sessions that the experts "
            "were trained on: give their domain (--domain), or n answers instead (--n 1 is the greedy one)"
        )
    check_experts(experts)
    known = None if domain is None else [load_domain(domain, split) for split in ("train", "validation")]
    longest = longest or longest_in_training(experts) or max(map(len, known[0] if known else ()), default=LONGEST)
    student = load_student(profile)
    reader = profile_reader(profile, student, known[0]) if way == "pairs" else None
    draw = {"n": n or profile.vote.n, "seed": seed, **profile.vote.sampling}
    with experts_on(student, experts) as model:
        asked, found = [], {}
        for session in sessions:
            if len(session) == 1:
                found[session.id] = Bundled(session, (), ONE_ITEM)
            elif (why := misfit(session, student, profile.prompt, pairs=way == "pairs")) is not None:
                found[session.id] = Bundled(session, (), f"not answered: {why}", refused=True)
            else:
                asked.append(session)
        name = digest(
            [way, draw if way == "consensus" else None, longest, settings(profile.prompt), settings(profile.decode)],
            [settings(profile.pairs), *(split.sha256 for split in known)] if reader else None,
            [*student.info.identity, experts_sha256(experts)],
            replace(sessions, sessions=tuple(asked)).sha256,
        )
        with appending(Path(work, "bundles", f"{name}.partial.jsonl")) as (rows, keep):
            desk = _Desk(model, student, profile, rows, keep, progress)
            decoder = cache(lambda: _fitted(desk, known, reader))  # for all parts, once it is needed
            for part, decode in _parts(asked, longest, student, profile):
                in_words = [s for s in part if reader is None or len(s) > LARGEST]
                if way == "consensus":
                    _answer_consensus(desk, in_words, decode, draw)
                elif in_words:
                    _answer_greedily(desk, in_words, decode)
                if in_pairs := [s for s in part if reader is not None and len(s) <= LARGEST]:
                    _answer_pairs(desk, in_pairs, reader, decoder)
    by_id = {row[0]: row for row in rows}
    for session in asked:
        _, bundles, note = by_id[session.id]
        notes = [note] if note else []
        if len(session) > longest:
            notes.append(f"{len(session)} items: the longest session in training had {longest}")
        if reader is not None and len(session) > LARGEST:
            notes.append(f"answered in words: pairs are decoded for at most {LARGEST} items")
        found[session.id] = Bundled(session, tuple(map(frozenset, bundles)), "; ".join(notes))
    return [found[session.id] for session in sessions]


def _parts(
    sessions: Sequence[Session], longest: int, student: Student, profile: Profile
) -> Iterator[tuple[list[Session], DecodeConfig]]:
    """Sessions as long as those of training, and longer ones, with room for their answers."""
    if usual := [s for s in sessions if len(s) <= longest]:
        yield usual, profile.decode
    if longer := [s for s in sessions if len(s) > longest]:
        room = max(longest_answer(s, student.tokenizer, profile.prompt) for s in longer)
        yield longer, replace(profile.decode, max_new_tokens=max(profile.decode.max_new_tokens, room))


# --- asking ---------------------------------------------------------------------------------------------------------


class _Desk(NamedTuple):
    """Who is asked, and where answers go."""

    model: PreTrainedModel | RoutedModel
    student: Student
    profile: Profile
    rows: list[list[Any]]
    """Of answers that are known: session id, bundles, note."""
    write: Callable[[list[list[Any]]], None]
    progress: bool

    @property
    def done(self) -> set[int]:
        """Sessions that were answered before."""
        return {row[0] for row in self.rows}

    def keep(self, answers: Iterable[tuple[int, Iterable[Bundle], str]]) -> None:
        """Keep some answers; of repeated bundles one."""
        new = [[id_, sorted(map(sorted, set(bundles))), note] for id_, bundles, note in answers]
        self.write(new)
        self.rows.extend(new)

    @property
    def options(self) -> dict[str, Any]:
        """Of all that asks in words."""
        return {"prompt": self.profile.prompt, "done": self.done, "progress": self.progress}


def _answer_greedily(desk: _Desk, sessions: Sequence[Session], decode: DecodeConfig) -> None:
    def keep(batch: list[Answer]) -> None:
        desk.keep((a.id, a.bundles, CUT_OFF if a.cut else "") for a in batch)

    greedy_answers(desk.model, desk.student.tokenizer, sessions, decode=decode, on_batch=keep, **desk.options)


def _answer_consensus(desk: _Desk, sessions: Sequence[Session], decode: DecodeConfig, draw: Mapping[str, Any]) -> None:
    consensus = Consensus.of(desk.profile.decode)

    def keep(batch: list[Samples]) -> None:
        desk.keep((one.id, consensus(one.drawn, one.greedy), _cut_off(one)) for one in batch)

    sample_bundles(desk.model, desk.student.tokenizer, sessions, decode=decode, on_batch=keep, **draw, **desk.options)


def _cut_off(samples: Samples) -> str:
    n_cut = sum(answer.cut for answer in samples.drawn)
    return f"{n_cut} of {len(samples.drawn)} sampled answers were cut off before their end" if n_cut else ""


def _fitted(desk: _Desk, known: Sequence[Domain], reader: PairReader) -> PartitionDecoder:
    """The decoder of pairs, fitted on the validation sessions of the experts' own domain."""
    train, validation = known
    check_sizes(validation)
    read = pairs_of(desk.model, desk.profile, desk.student, reader, progress=desk.progress)
    return fit_decoder(read(validation.sessions), validation, train, exact_weight=desk.profile.decode.exact_weight)


def _answer_pairs(
    desk: _Desk, sessions: Sequence[Session], reader: PairReader, decoder: Callable[[], PartitionDecoder]
) -> None:
    from tqdm.auto import tqdm

    ordered = sorted(sessions, key=lambda s: (-sum(map(len, s.titles)), s.id))
    done, size = desk.done, desk.profile.decode.batch_size
    # Batches depend on all sessions, not on what is done: so a stop changes no answer.
    batches = [ordered[k : k + size] for k in range(0, len(ordered), size)]
    left = [batch for batch in batches if any(s.id not in done for s in batch)]
    if not left:
        return
    decode, read = decoder().decode, pairs_of(desk.model, desk.profile, desk.student, reader, progress=False)
    with tqdm(total=len(ordered), unit="session", desc="answering", disable=not desk.progress) as bar:
        bar.update(len(ordered) - sum(map(len, left)))
        for batch in left:
            logits = read(batch)
            desk.keep((s.id, decode(logits[s.id]), "") for s in batch if s.id not in done)
            bar.update(len(batch))
