"""Which products go together, read from the student's own states of their titles.

A prompt lists the titles. At some upper layer each title has a state: the mean of its tokens' hidden states, less what
all titles share. Two items belong together as far as their states point the same way:

    logit(i, j) = scale · cos(h_i − μ, h_j − μ) + shift

Training an expert to tell pairs by these logits teaches a small student in minutes what its answers alone do not: an
answer gives a handful of decisions, a session of seven products has 21 pairs. At test time the logits of all pairs,
not one chain of sampled tokens, decide (`partitions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from ..config import OptimizerConfig, PairConfig, PromptConfig
from ..data.prompts import ContextOf, prompt_batches
from ..data.sessions import Session
from .examples import encode_example
from .generation import check_numbers, last_place, most_pairs, pad_left, positions
from .unchanged import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .backbone import Student


class PairReader(NamedTuple):
    """Reads pair logits from hidden states. The same reader serves every expert of a student."""

    config: PairConfig
    centre: torch.Tensor
    """(D,): μ, the mean state of titles in the student without any expert."""

    def states(self, hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
        """Mean hidden state of each title, less the centre, at unit length; zero where there is no title.

        Shapes:
            hidden: (B, T, D); spans: (B, N, 2), -1 where there is no title → (B, N, D)
        """
        means = title_means(hidden, spans) - self.centre.to(hidden.device)
        return functional.normalize(means, dim=-1) * (spans[..., :1] >= 0)

    def logits(self, hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
        """Logit that two items share a bundle.

        Shapes:
            hidden: (B, T, D); spans: (B, N, 2) → (B, N, N)
        """
        h = self.states(hidden, spans)
        return self.config.scale * (h @ h.transpose(1, 2)) + self.config.shift

    def loss(self, hidden: torch.Tensor, spans: torch.Tensor, together: torch.Tensor) -> torch.Tensor:
        """Sum over all pairs of the negative log-likelihood of whether they share a bundle, in nats.

        Shapes:
            hidden: (B, T, D); spans: (B, N, 2); together: (B, N, N), 1, 0, or -1 where there is no pair
        """
        upper = torch.ones_like(together, dtype=torch.bool).triu(1) & (together >= 0)
        logits = self.logits(hidden, spans)[upper]
        return functional.binary_cross_entropy_with_logits(logits, together[upper].float(), reduction="sum")


def make_reader(
    student: Student, sessions: Iterable[Session], config: PairConfig, prompt: PromptConfig | None = None
) -> PairReader:
    """Measure the centre on the student without experts.

    Args:
        student: without any expert on it.
        sessions: training sessions; the first `config.centre_sessions` are read.
        config: layer and scale.
        prompt: how sessions are written.

    Raises:
        ValueError: the student has fewer layers than `config.layer`, or its numbers overflow.
    """
    inside = student.model.config.get_text_config()
    n_layers = inside.num_hidden_layers
    if config.layer > n_layers:
        raise ValueError(f"PairConfig.layer = {config.layer}: this student has {n_layers} layers")
    total, count = torch.zeros(inside.hidden_size), 0
    chosen, prompt = list(sessions)[: config.centre_sessions], prompt or PromptConfig()
    if config.at == "lines":
        batches = _answered(chosen, student, prompt, 8)
    else:
        batches = (batch for batch, _ in _batches(chosen, student.model, student.tokenizer, prompt, 8))
    for batch in batches:
        spans = batch.pop("spans")
        means = title_means(_hidden(student.model, batch, config.layer).cpu(), spans)
        total += means.sum((0, 1))  # places without a title hold zeros
        count += int((spans[..., 0] >= 0).sum())
    check_numbers(total, student.model)
    return PairReader(config, total / max(count, 1))


def needed_reader(config: OptimizerConfig, reader: PairReader | None) -> PairReader | None:
    """The reader that a loss asks for; `None` where pairs have no weight in it.

    Raises:
        ValueError: they have one, and there is no reader.
    """
    if config.pair_weight and reader is None:
        raise ValueError(f"pair_weight = {config.pair_weight} without a PairReader: give one, or set the weight to 0")
    return reader if config.pair_weight else None


def pairs_at(config: OptimizerConfig, reader: PairReader | None) -> str:
    """Where a training reads the states of items (`PairConfig.at`)."""
    return reader.config.at if reader is not None and config.pair_weight else "titles"


def title_means(hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Mean hidden state of each title, in float32; zero where there is no title.

    Shapes:
        hidden: (B, T, D); spans: (B, N, 2), -1 where there is no title → (B, N, D)
    """
    at = torch.arange(hidden.shape[1], device=hidden.device)
    inside = ((at >= spans[..., :1]) & (at < spans[..., 1:])).float()  # (B, N, T)
    return (inside / inside.sum(-1, keepdim=True).clamp(min=1)) @ hidden.float()


def read_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sessions: Iterable[Session],
    reader: PairReader,
    *,
    prompt: PromptConfig | None = None,
    context: ContextOf | None = None,
    alpha: Mapping[int, np.ndarray] | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> dict[int, np.ndarray]:
    """Pair logits of every session, mean over the orders in which its items are shown.

    A title's state knows only the titles above it; read a second time from the end, it knows the others.

    Args:
        model: the student, plain, with an expert, or routed.
        tokenizer: its tokenizer, padding on the left.
        sessions: what is read.
        reader: from `make_reader`.
        prompt: how sessions are written.
        context: what stands in each prompt beside the session. It is asked for every order of its items.
        alpha: session id → weights (L, E) that a routed model uses instead of its fusion's, whatever the order; or
            (orders, L, E), for each order its own.
        batch_size: prompts at a time, sorted by length.
        progress: show a progress bar.

    Returns:
        Session id → (items, items), symmetric.

    Raises:
        ValueError: the reader reads the lines of answers, which are not there yet.
    """
    from tqdm.auto import tqdm

    if reader.config.at != "titles":
        raise ValueError(f"PairConfig.at = {reader.config.at!r}: these states exist in training only; read the titles'")
    sessions, prompt = list(sessions), prompt or PromptConfig()
    total = {s.id: np.zeros((len(s), len(s))) for s in sessions}
    n_orders = reader.config.orders
    bar = tqdm(total=n_orders * len(sessions), unit="prompt", desc="reading pairs", disable=not progress)
    with evaluating(model), bar:
        for order, step in enumerate((1, -1)[:n_orders]):  # from the first title to the last, and back
            moved = [s.permuted(range(len(s))[::step]) for s in sessions]
            for batch, shown in _batches(moved, model, tokenizer, prompt, batch_size, context):
                spans = batch.pop("spans").to(model.device)
                given = model.override(_of_order(alpha, shown, order)) if alpha else nullcontext()
                with given:
                    hidden = _hidden(model, batch, reader.config.layer)
                logits = reader.logits(hidden, spans).cpu().numpy()
                for row, session in zip(logits, shown, strict=True):
                    n = len(session)
                    total[session.id] += row[:n, :n][::step, ::step] / n_orders
                bar.update(len(shown))
    return total


def _of_order(alpha: Mapping[int, np.ndarray], sessions: Iterable[Session], order: int) -> np.ndarray:
    """The weights that go with one order of the items.

    Shapes:
        alpha: (L, E) or (orders, L, E) each → (B, L, E)
    """
    given = (alpha[session.id] for session in sessions)
    return np.stack([one[order] if one.ndim == 3 else one for one in given])


def _hidden(model: PreTrainedModel, batch: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """Hidden states that leave a layer, counted from 1.

    Shapes:
        → (B, T, D)
    """
    with torch.inference_mode():
        batch = {name: value.to(model.device) for name, value in batch.items()}
        output = model(**batch, output_hidden_states=True, use_cache=False, logits_to_keep=last_place())
    return output.hidden_states[layer]


def _batches(
    sessions: Iterable[Session],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    size: int,
    context: ContextOf | None = None,
) -> Iterator[tuple[dict[str, torch.Tensor], list[Session]]]:
    """Padded prompts with the spans of their titles, longest first, and the sessions in them."""
    options = {"spans": True, "most_pairs": most_pairs(model)}
    for rows in prompt_batches(sessions, tokenizer, prompt, size, context, **options):
        batch = pad_left([row.ids for row in rows], model, tokenizer)
        width = batch["input_ids"].shape[1]
        batch["spans"] = pad_spans([(row.spans, width - len(row.ids)) for row in rows])
        batch["position_ids"] = positions(batch["attention_mask"])
        yield batch, [row.session for row in rows]


def _answered(
    sessions: Sequence[Session], student: Student, prompt: PromptConfig, size: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Padded prompts with their annotated answers and the places where letters are chosen."""
    for start in range(0, len(sessions), size):
        options = {"max_length": 10**6, "pairs_at": "lines"}
        rows = [encode_example(s, student.tokenizer, prompt, **options) for s in sessions[start : start + size]]
        batch = pad_left([row.input_ids for row in rows], student.model, student.tokenizer)
        width = batch["input_ids"].shape[1]
        batch["spans"] = pad_spans([(row.spans, width - len(row.input_ids)) for row in rows])
        batch["position_ids"] = positions(batch["attention_mask"])
        yield batch


def pad_spans(rows: Sequence[tuple[Sequence[tuple[int, int]], int]]) -> torch.Tensor:
    """Spans of several prompts as one tensor, each shifted by the padding on its left; -1 where there is no title.

    Shapes:
        → (B, N, 2)
    """
    longest = max(len(spans) for spans, _ in rows)
    padded = torch.full((len(rows), longest, 2), -1)
    for i, (spans, shift) in enumerate(rows):
        padded[i, : len(spans)] = torch.tensor(spans) + shift
    return padded
