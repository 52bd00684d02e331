"""Draw free answers token by token. Shared are prompts, and beginnings on which samples agree."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from ..student.generation import check_numbers, end_tokens, last_place, pad_left, positions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 64
"""Of each draw whose chance comes from the session's own stream, as in the recorded runs; of more, from the draw's."""


def chances(seed: int, id_: int, n: int, steps: int) -> np.ndarray:
    """The numbers that decide on the draws of a session: `seed`, its id and the number of a draw alone decide on them.

    So neither more draws nor longer ones change those before.

    Shapes:
        → (n, steps), uniform in [0, 1)
    """
    first = np.random.default_rng([seed, id_ % 2**32]).random((n, TOKENS))[:, :steps]
    if steps <= TOKENS:
        return first
    # Counted from 1: a 0 at the end would give the session's own stream again.
    more = [np.random.default_rng([seed, id_ % 2**32, k + 1]).random(steps - TOKENS) for k in range(n)]
    return np.concatenate([first, more], 1)


def draw_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    chance: np.ndarray,
    temperature: float,
    top_p: float,
    alpha: Sequence[np.ndarray] | None = None,
) -> list[list[tuple[list[int], float]]]:
    """Tokens and mean log-probability of one greedy and N sampled answers to each prompt, each up to its end token.

    Args:
        model, tokenizer: the student's, plain, with an expert, or routed.
        prompts: tokens of each.
        chance: numbers that decide on the samples.
        temperature, top_p: as for `decoding.sample_bundles`.
        alpha: weights (L, E) of each prompt that a routed model uses instead of its fusion's.

    Every row of the batch is one distinct beginning of an answer; `row[sample]` says on which of them a sample is.

    Shapes:
        chance: (B, N, steps), uniform in [0, 1)

    Raises:
        ValueError: no token ends an answer, a prompt has one that the student does not know, or its numbers overflow.
    """
    import torch
    from transformers import DynamicCache

    n_prompts, n, n_steps = chance.shape
    samples = n_prompts * (n + 1)  # the first of each prompt is the greedy one
    uniform = torch.full((n_prompts, n + 1, n_steps), -1.0)
    uniform[:, 1:] = torch.from_numpy(chance)
    uniform = uniform.flatten(0, 1)  # (samples, steps); -1 marks greedy

    padded = pad_left(prompts, model, tokenizer)
    mask, cache = padded["attention_mask"], DynamicCache(config=model.config)
    inputs, places = padded["input_ids"], positions(mask)
    row = torch.arange(n_prompts).repeat_interleave(n + 1)  # (samples,)
    live = torch.arange(samples)
    tokens = torch.zeros((samples, n_steps), dtype=torch.long)
    log_prob, length = torch.zeros(samples), torch.zeros(samples)
    ends = torch.tensor(end_tokens(model, tokenizer))
    weights = None if alpha is None else torch.from_numpy(np.stack(alpha)).to(model.device)  # (rows, L, E)
    for step in range(n_steps):
        # At every step: most fusions would make an α of their own for the tokens of the answer.
        with nullcontext() if weights is None else model.override(weights):
            output = model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last_place(),
            )
        logits = output.logits[:, -1].float()
        check_numbers(logits[:, 0], model)
        likely, log_p = logits.argmax(-1).cpu(), logits.log_softmax(-1).cpu()  # (rows,), (rows, V)
        chosen = _choose(likely, log_p, row[live], uniform[live, step], temperature, top_p)
        tokens[live, step] = chosen
        log_prob[live] += log_p[row[live], chosen]
        length[live] += 1
        going = ~torch.isin(chosen, ends)
        live, chosen = live[going], chosen[going]
        if not len(live):
            break
        pairs, inverse = torch.stack([row[live], chosen], 1).unique(dim=0, return_inverse=True)
        parents, row[live] = pairs[:, 0].to(model.device), inverse
        if not torch.equal(pairs[:, 0], torch.arange(len(mask))):
            cache.batch_select_indices(parents)
            mask = mask[parents]
            weights = None if weights is None else weights[parents]
            if hasattr(model, "select_alpha"):
                model.select_alpha(parents)
        inputs = pairs[:, 1:].to(model.device)  # (rows, 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        places = mask.sum(1, keepdim=True) - 1
    written = [row[: int(n)] for row, n in zip(tokens.tolist(), length, strict=True)]
    answers = list(zip(written, (log_prob / length).tolist(), strict=True))
    return [answers[k : k + n + 1] for k in range(0, samples, n + 1)]


def _choose(
    likely: torch.Tensor,
    log_p: torch.Tensor,
    row: torch.Tensor,
    uniform: torch.Tensor,
    temperature: float,
    top_p: float,
) -> torch.Tensor:
    """One token per sample: where its uniform number falls in the cumulated probabilities of its row.

    Shapes:
        likely: (rows,), the most likely tokens; log_p: (rows, V); row, uniform: (samples,), uniform below 0 for the
        most likely token → (samples,)
    """
    chosen = likely[row]
    for r in row.unique().tolist():
        mine = ((row == r) & (uniform >= 0)).nonzero()[:, 0]
        if len(mine):
            chosen[mine] = draw_from(log_p[r], uniform[mine], temperature, top_p)
    return chosen


def draw_from(log_p: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Where uniform numbers fall in the cumulated probabilities of one distribution.

    Shapes:
        log_p: (V,); uniform: (samples,), in [0, 1) → (samples,)
    """
    import torch

    p, order = (log_p / temperature).softmax(-1).double(), None
    if top_p < 1:
        p, order = p.sort(descending=True, stable=True)
        p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    below = p.cumsum(-1)
    # A number close to 1 is 1 in single precision, behind the last token that has any probability.
    target = (uniform.double() * below[-1]).clamp(max=torch.nextafter(below[-1], below[-1] * 0))
    index = torch.searchsorted(below, target, right=True)
    return index if order is None else order[index]
