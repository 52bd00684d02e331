"""Read bundles out of a model: greedy answers, or N sampled ones, for many sessions at once.

Samples share work: each prompt is read once, and while samples of a session agree they are one row of the batch. A
sample costs a row of its own only from the token on at which it differs from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..config import DecodeConfig, PromptConfig
from ..data.chat import opened_thought
from ..data.formats import get_format
from ..data.parsing import Problem, parse_answer, read_letters
from ..data.prompts import ContextOf, Row, encode_slots, prompt_batches, shorten
from ..data.sessions import Bundle, Session
from ..student.generation import (
    check_tokens,
    end_tokens,
    generate_greedily,
    most_pairs,
    until_end,
    written_text,
)
from ..student.unchanged import evaluating
from .drawing import chances, draw_texts
from .slots import Asked, draw_choices

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = {"cpu": 528, "cuda": 72}
"""Answers in one batch of samples. On a CPU larger caches take longer to move than to compute with: the toy student
drew 32 answers in half the time from a quarter of the batch or less. On a GPU they must fit: 72 rows of short sessions
took a student of eight billion weights 14 GB in all (`benchmarks/gpu.py`)."""
SLOT_ROWS = ROWS | {"cpu": 33}
"""The same where most of an answer is given. The pieces between choices differ in length from session to session, and
those of one session don't: 32 answers to one session at a time need no padding, and keep a core busy as well."""


T = TypeVar("T", "Answer", "Samples")


class Answer(NamedTuple):
    """A model's answer to one session."""

    id: int
    """The session's."""
    text: str
    """What was written, behind the mark of a thought that the chat template has begun; of an answer in letters, the
    letters alone, since everything else is given."""
    bundles: tuple[Bundle, ...]
    """What the parser read in it."""
    problems: tuple[Problem, ...]
    """What it could not read."""
    n_tokens: int
    """Tokens generated, up to the first end token, that one included. Of an answer in letters only these are; files of
    earlier versions count what was given, too."""
    log_prob: float | None = None
    """Mean log-probability of these tokens at temperature 1, in nats; `None` where it was not asked for."""
    cut: bool = False
    """Whether it has as many tokens as were allowed, and none of them ends it. Files of earlier versions do not say."""

    @classmethod
    def of_bundles(cls, id_: int, bundles: Iterable[Iterable[int]]) -> Answer:
        """An answer that no model wrote."""
        return cls(id=id_, text="", bundles=tuple(frozenset(b) for b in bundles), problems=(), n_tokens=0)

    def to_json(self) -> dict[str, Any]:
        """As a line of a predictions file."""
        row = {
            "id": self.id,
            "bundles": [sorted(b) for b in self.bundles],
            "text": self.text,
            "problems": [list(p) for p in self.problems],
            "n_tokens": self.n_tokens,
        }
        row |= {} if self.log_prob is None else {"log_prob": round(self.log_prob, 5)}
        return row | ({"cut": True} if self.cut else {})

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Answer:
        """Back from a line of a predictions file."""
        return cls(
            id=row["id"],
            text=row["text"],
            bundles=tuple(frozenset(b) for b in row["bundles"]),
            problems=tuple(Problem(*p) for p in row["problems"]),
            n_tokens=row["n_tokens"],
            log_prob=row.get("log_prob"),
            cut=row.get("cut", False),
        )


class Samples(NamedTuple):
    """Several answers to one session."""

    id: int
    """The session's."""
    greedy: Answer
    """The answer of always taking the most likely token."""
    drawn: tuple[Answer, ...]
    """N sampled answers, in the order of the draw: the first n of them are a draw of n."""

    def to_json(self) -> dict[str, Any]:
        """As a line of a samples file, each distinct answer once; of answers in letters, the letters alone."""
        distinct = list(dict.fromkeys(self.drawn))
        # A text in another format may look like letters: it is kept as such only if all else can be read from it again.
        alike = len({answer.n_tokens for answer in distinct}) == 1
        whole = all(a.log_prob is not None and not a.cut for a in distinct)
        if alike and whole and all(read_letters(a.text) == (a.bundles, a.problems) for a in distinct):
            return {
                "id": self.id,
                "greedy": self.greedy.to_json(),
                "letters": [[answer.text, round(answer.log_prob, 4)] for answer in distinct],
                "n_tokens": distinct[0].n_tokens,
                "drawn": [distinct.index(answer) for answer in self.drawn],
            }
        return {
            "id": self.id,
            "greedy": self.greedy.to_json(),
            "answers": [answer.to_json() for answer in distinct],
            "drawn": [distinct.index(answer) for answer in self.drawn],
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Samples:
        """Back from a line of a samples file."""
        if "letters" in row:
            distinct = [
                Answer(row["id"], text, *read_letters(text), n_tokens=row["n_tokens"], log_prob=log_prob)
                for text, log_prob in row["letters"]
            ]
        else:
            distinct = [Answer.from_json(answer) for answer in row["answers"]]
        return cls(row["id"], Answer.from_json(row["greedy"]), tuple(distinct[k] for k in row["drawn"]))


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Iterable[Session],
    *,
    prompt: PromptConfig | None = None,
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
    decode: DecodeConfig | None = None,
    done: Collection[int] = (),
    on_batch: Callable[[list[Answer]], object] = lambda answers: None,
    progress: bool = True,
) -> list[Answer]:
    """The most likely next token at every step, for all sessions, in length-sorted batches.

    None of the student's own settings of generation enters (`student.generation`).

    Batches depend on all sessions, not on `done`: an interrupted evaluation that goes on gives the same answers.

    Args:
        model: the student, with or without an expert on it.
        tokenizer: its tokenizer, padding on the left.
        sessions: what to answer.
        prompt: how sessions are written; must equal what the expert was trained with.
        context: what stands in each prompt beside the session; nothing by default, as the experts are asked.
        alpha: session id → weights (L, E) that a routed model uses instead of its fusion's.
        decode: batch size and longest answer.
        done: ids of sessions that were answered before; they are left out of the result.
        on_batch: called with the answers of each batch as soon as they are known.
        progress: show a progress bar with the number of bundles found per second.

    Returns:
        Answers, longest prompt first.

    Raises:
        ValueError: a prompt cannot be written or read, no token ends an answer, or the student's numbers overflow.
    """
    prompt, decode = prompt or PromptConfig(), decode or DecodeConfig()
    slots = get_format(prompt.fmt).slots
    read = None if slots else _Reader(model, tokenizer, prompt.fmt)
    batches = list(
        prompt_batches(sessions, tokenizer, prompt, decode.batch_size, context, most_pairs=most_pairs(model))
    )

    def answer(batch: Sequence[Row]) -> list[Answer]:
        weights = [alpha[row.session.id] for row in batch] if alpha else None
        if slots:
            return [one[0] for one in _choices(model, tokenizer, batch, prompt, 0, 0, alpha=weights)]
        with model.override(np.stack(weights)) if weights else nullcontext():
            written = generate_greedily(model, tokenizer, [row.ids for row in batch], decode.max_new_tokens).tolist()
        return [read.answer(row.session, tokens) for row, tokens in zip(batch, written, strict=True)]

    with evaluating(model):
        return _in_batches(batches, answer, "answering", done=done, on_batch=on_batch, progress=progress)


def sample_bundles(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Iterable[Session],
    n: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    prompt: PromptConfig | None = None,
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
    decode: DecodeConfig | None = None,
    done: Collection[int] = (),
    on_batch: Callable[[list[Samples]], object] = lambda samples: None,
    progress: bool = True,
) -> list[Samples]:
    """Draw n answers to every session, and the greedy one with them (RouteDK, test-time scaling).

    Chance depends on `seed`, the session's id and the number of the draw alone, so neither batches nor `n` change a
    draw: the first 8 answers of a draw of 32 are what a draw of 8 gives. With a smaller `decode.max_new_tokens` each is
    cut, and stays the same up to there.

    Args:
        model: the student, plain, with an expert, or routed.
        tokenizer: its tokenizer, padding on the left.
        sessions: what to answer.
        n: answers per session.
        temperature: above 1 more varied, below 1 closer to the greedy answer.
        top_p: draw among the most likely tokens that together hold this much probability; 1 is all of them.
        seed: of the draws.
        prompt, context, alpha, decode, done, on_batch, progress: as for `greedy_answers`.

    Returns:
        Samples, longest prompt first.

    Raises:
        ValueError: `n`, `temperature` or `top_p` out of range, or as for `greedy_answers`.
    """
    for name, value, ok, rule in (
        ("n", n, n >= 1, "1 or more"),
        ("temperature", temperature, temperature > 0, "above 0 (greedy_answers is the limit at 0)"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1"),
    ):
        if not ok:
            raise ValueError(f"{name} = {value!r}: must be {rule}")
    prompt, decode = prompt or PromptConfig(), decode or DecodeConfig()
    slots = get_format(prompt.fmt).slots
    rows = SLOT_ROWS if slots else ROWS
    size = max(1, min(decode.batch_size, rows.get(model.device.type, rows["cuda"]) // (n + 1)))
    read = None if slots else _Reader(model, tokenizer, prompt.fmt)
    batches = list(prompt_batches(sessions, tokenizer, prompt, size, context, most_pairs=most_pairs(model)))

    def draw(batch: Sequence[Row]) -> list[Samples]:
        how = {"temperature": temperature, "top_p": top_p}
        how["alpha"] = [alpha[row.session.id] for row in batch] if alpha else None
        if slots:
            rows = _choices(model, tokenizer, batch, prompt, n, seed, **how)
        else:
            chance = np.stack([chances(seed, row.session.id, n, decode.max_new_tokens) for row in batch])
            texts = draw_texts(model, tokenizer, [row.ids for row in batch], chance, **how)
            rows = [
                [read.answer(row.session, tokens, log_prob) for tokens, log_prob in drawn]
                for row, drawn in zip(batch, texts, strict=True)
            ]
        return [Samples(answers[0].id, answers[0], tuple(answers[1:])) for answers in rows]

    with evaluating(model):
        return _in_batches(batches, draw, f"{n} draws", done=done, on_batch=on_batch, progress=progress)


def _in_batches(
    batches: Sequence[Sequence[Row]],
    answer: Callable[[Sequence[Row]], list[T]],
    what: str,
    *,
    done: Collection[int],
    on_batch: Callable[[list[T]], object],
    progress: bool,
) -> list[T]:
    """What `answer` gives for all batches, without the sessions that are done, behind a progress bar."""
    import torch
    from tqdm.auto import tqdm

    result: list[T] = []
    with tqdm(total=sum(map(len, batches)), unit="session", desc=what, disable=not progress) as bar:
        for batch in batches:
            if any(row.session.id not in done for row in batch):
                # A batch that is only partly done is computed whole, so that its padding is what it always was.
                with torch.inference_mode():
                    found = [one for one in answer(batch) if one.id not in done]
                on_batch(found)
                result += found
            bar.update(len(batch))
            seconds = bar.format_dict["elapsed"]
            if result and seconds:
                greedy = (one.greedy if isinstance(one, Samples) else one for one in result)
                bar.set_postfix({"bundles/s": f"{sum(len(one.bundles) for one in greedy) / seconds:.1f}"})
    return result


class _Reader:
    """Reads bundles in the tokens that a student wrote."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fmt: str) -> None:
        self.tokenizer, self.fmt = tokenizer, fmt
        self.ends, self.begun = end_tokens(model, tokenizer), opened_thought(tokenizer)

    def answer(self, session: Session, tokens: Sequence[int], log_prob: float | None = None) -> Answer:
        """What stands before the first end token."""
        tokens = until_end(tokens, self.ends)
        text = self.begun + written_text(tokens, self.tokenizer, self.ends)
        bundles, problems = parse_answer(text, len(session), self.fmt)
        return Answer(session.id, text, bundles, problems, len(tokens), log_prob, cut=tokens[-1] not in self.ends)


def _choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Row],
    prompt: PromptConfig,
    n: int,
    seed: int,
    **how: Any,
) -> list[list[Answer]]:
    """One greedy and N sampled answers to each session, in a format of which only choices are the student's."""
    asked, uniform = [], []
    for session, _, ids in batch:
        slots = get_format(prompt.fmt).slots(shorten(session.titles, prompt.max_title_words))
        asked.append(Asked(ids, slots, encode_slots(slots, tokenizer)))
        check_tokens([ids, *asked[-1].tokens.given, asked[-1].tokens.choices], model, tokenizer)
        each = [np.random.default_rng([seed, session.id % 2**32, k]) for k in range(n)]
        uniform.append(np.array([one.random(len(session)) for one in each]).reshape(n, len(session)))
    answers = []
    for (session, _, _), one, drawn in zip(batch, asked, draw_choices(model, asked, uniform, **how), strict=True):
        # Read from the letters and not from the whole text, which repeats words of titles.
        letters = [" ".join(one.slots.choices[c].strip() for c in chosen.choices) for chosen in drawn]
        answers.append([
            Answer(session.id, short, *read_letters(short), len(chosen.choices), chosen.log_prob)
            for short, chosen in zip(letters, drawn, strict=True)
        ])  # fmt: skip
    return answers
