"""Read bundles out of a model: greedy answers for many sessions at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .config import DecodeConfig, PromptConfig
from .data import Bundle, Session
from .prompts import Problem, build_prompt, encode_prompt, parse_answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Answer(NamedTuple):
    """A model's answer to one session."""

    id: int
    """The session's."""
    text: str
    bundles: tuple[Bundle, ...]
    """What the parser read in it."""
    problems: tuple[Problem, ...]
    """What it could not read."""
    n_tokens: int
    """Tokens generated, the end-of-sequence token included."""

    @classmethod
    def of_bundles(cls, id_: int, bundles: Iterable[Iterable[int]]) -> Answer:
        """An answer that no model wrote."""
        return cls(id=id_, text="", bundles=tuple(frozenset(b) for b in bundles), problems=(), n_tokens=0)

    def to_json(self) -> dict[str, Any]:
        """As a line of a predictions file."""
        return {
            "id": self.id,
            "bundles": [sorted(b) for b in self.bundles],
            "text": self.text,
            "problems": [list(p) for p in self.problems],
            "n_tokens": self.n_tokens,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Answer:
        """Back from a line of a predictions file."""
        return cls(
            id=row["id"],
            text=row["text"],
            bundles=tuple(frozenset(b) for b in row["bundles"]),
            problems=tuple(Problem(*p) for p in row["problems"]),
            n_tokens=row["n_tokens"],
        )


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Iterable[Session],
    *,
    prompt: PromptConfig | None = None,
    decode: DecodeConfig | None = None,
    done: Collection[int] = (),
    on_batch: Callable[[list[Answer]], object] = lambda answers: None,
    progress: bool = True,
) -> list[Answer]:
    """The most likely next token at every step, for all sessions, in length-sorted batches.

    Batches depend on all sessions, not on `done`: an interrupted evaluation that goes on gives the same answers.

    Args:
        model: the student, with or without an expert on it.
        tokenizer: its tokenizer, padding on the left.
        sessions: what to answer.
        prompt: how sessions are written; must equal what the expert was trained with.
        decode: batch size and longest answer.
        done: ids of sessions that were answered before; they are left out of the result.
        on_batch: called with the answers of each batch as soon as they are known.
        progress: show a progress bar with the number of bundles found per second.

    Returns:
        Answers, longest prompt first.
    """
    import torch
    from tqdm.auto import tqdm
    from transformers import GenerationConfig

    prompt, decode = prompt or PromptConfig(), decode or DecodeConfig()
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=decode.max_new_tokens,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    batches = list(_batches(list(sessions), tokenizer, prompt, decode.batch_size))
    answers: list[Answer] = []
    model.eval()
    with tqdm(total=sum(map(len, batches)), unit="session", desc="answering", disable=not progress) as bar:
        for batch in batches:
            rows = [(s, ids) for s, ids in batch if s.id not in done]
            if rows:
                # A batch that is only partly done is computed whole, so that its padding is what it always was.
                padded = tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt").to(model.device)
                with torch.inference_mode():
                    output = model.generate(**padded, generation_config=settings)
                new = output[:, padded["input_ids"].shape[1] :].cpu()
                found = [_answer(s, t, tokenizer, prompt.fmt) for (s, _), t in zip(batch, new, strict=True)]
                found = [answer for answer in found if answer.id not in done]
                on_batch(found)
                answers += found
            bar.update(len(batch))
            seconds = bar.format_dict["elapsed"]
            if answers and seconds:
                bar.set_postfix({"bundles/s": f"{sum(len(a.bundles) for a in answers) / seconds:.1f}"})
    return answers


def _batches(
    sessions: list[Session], tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, size: int
) -> Iterator[list[tuple[Session, list[int]]]]:
    """Sessions with their prompt tokens, longest first: what needs most memory fails at once or not at all."""
    texts = [
        build_prompt(s.titles, fmt=prompt.fmt, tokenizer=tokenizer, max_title_words=prompt.max_title_words)
        for s in sessions
    ]
    rows = [(s, encode_prompt(text, tokenizer)) for s, text in zip(sessions, texts, strict=True)]
    rows.sort(key=lambda row: (-len(row[1]), row[0].id))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _answer(session: Session, tokens: Any, tokenizer: PreTrainedTokenizerBase, fmt: str) -> Answer:
    ended = (tokens == tokenizer.eos_token_id).nonzero()
    n_tokens = int(ended[0, 0]) + 1 if len(ended) else len(tokens)
    text = tokenizer.decode(tokens[:n_tokens], skip_special_tokens=True)
    bundles, problems = parse_answer(text, len(session), fmt)
    return Answer(session.id, text, bundles, problems, n_tokens)
