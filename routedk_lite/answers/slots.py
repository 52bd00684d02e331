"""Decoding where most of an answer is given: only the choices between its pieces are the student's.

What is given is read in one step, all its tokens at once, so an answer of seven products takes seven steps and not
seventy. A choice is made among the legal ones: their probabilities are the student's, renormalised (grammar-constrained
decoding). As everywhere, a prompt is read once, and answers that agree so far are one row of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..data.formats import Slots
from ..data.prompts import SlotTokens
from ..student.generation import check_numbers, last_place, positions
from .drawing import draw_from

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Asked(NamedTuple):
    """One session that is to be answered."""

    prompt: list[int]
    """Its tokens."""
    slots: Slots
    tokens: SlotTokens


class Chosen(NamedTuple):
    """One answer."""

    choices: tuple[int, ...]
    """One per slot, as indices into `Slots.choices`."""
    log_prob: float
    """Mean log-probability of the choices among the legal ones, at temperature 1, in nats."""


def draw_choices(
    model: PreTrainedModel,
    asked: Sequence[Asked],
    uniform: Sequence[np.ndarray],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    alpha: Sequence[np.ndarray] | None = None,
) -> list[list[Chosen]]:
    """Answers to several sessions at once; the first of each takes the most likely choice everywhere.

    Args:
        model: the student, plain, with an expert, or routed.
        asked: what is asked.
        uniform: of each session, numbers in [0, 1) that decide on its samples.
        temperature, top_p: as for `decoding.sample_bundles`, among the legal choices.
        alpha: weights (L, E) of each session that a routed model uses instead of its fusion's.

    Shapes:
        uniform: (N, slots) each → N + 1 answers to each session

    Raises:
        ValueError: the student's numbers overflow.
    """
    import torch
    from transformers import DynamicCache

    n = len(uniform[0])
    chance = [np.concatenate([np.full((1, u.shape[1]), -1.0), u]) for u in uniform]  # below 0: the most likely
    session_of = [b for b in range(len(asked)) for _ in range(n + 1)]
    made: list[list[int]] = [[] for _ in session_of]
    nats = np.zeros(len(session_of))
    row = np.repeat(np.arange(len(asked)), n + 1)  # of each answer
    owner = list(range(len(asked)))  # of each row
    weights = None if alpha is None else np.stack(alpha)  # (sessions, L, E)
    cache = DynamicCache(config=model.config)
    pieces = [one.prompt + one.tokens.given[0] for one in asked]
    mask = torch.zeros((len(asked), 0), dtype=torch.long)
    for step in range(max(len(one.slots.given) for one in asked)):
        # At every step: most fusions would make an α of their own for the tokens of the answer.
        given = nullcontext() if weights is None else model.override(weights[owner])
        seen = [len(one.prompt) for one in asked] if step == 0 and hasattr(model, "select_alpha") else None
        with given:
            logits, mask = _read(model, pieces, mask, cache, seen)
        check_numbers(logits[:, 0], model)
        rows: dict[tuple[int, int], int] = {}
        options: dict[int, tuple[list[int], int, torch.Tensor]] = {}  # row → legal choices, the likeliest, all log p
        for k in range(len(session_of)):
            one = asked[session_of[k]]
            if step >= len(one.slots.given):
                continue
            if row[k] not in options:
                legal = one.slots.legal(made[k])
                tokens = [one.tokens.choices[c] for c in legal]
                options[row[k]] = legal, int(logits[row[k], tokens].argmax()), logits[row[k], tokens].log_softmax(-1)
            legal, likely, log_p = options[row[k]]
            u = chance[session_of[k]][k % (n + 1), step]
            place = likely if u < 0 else int(draw_from(log_p, torch.tensor([u]), temperature, top_p))
            made[k].append(legal[place])
            nats[k] += float(log_p[place])
            if step + 1 < len(one.slots.given):
                row[k] = rows.setdefault((int(row[k]), legal[place]), len(rows))
        if not rows:
            break
        parents = [parent for parent, _ in rows]
        owner = [owner[parent] for parent in parents]
        pieces = [
            [asked[b].tokens.choices[choice], *asked[b].tokens.given[step + 1]]
            for b, (_, choice) in zip(owner, rows, strict=True)
        ]
        if parents != list(range(len(mask))):
            index = torch.tensor(parents)
            cache.batch_select_indices(index.to(model.device))
            mask = mask[index]
            if hasattr(model, "select_alpha"):
                model.select_alpha(index.to(model.device))
    answers = [Chosen(tuple(made[k]), float(nats[k]) / len(made[k])) for k in range(len(session_of))]
    return [answers[k : k + n + 1] for k in range(0, len(answers), n + 1)]


def _read(
    model: PreTrainedModel,
    pieces: Sequence[list[int]],
    mask: torch.Tensor,
    cache: object,
    seen: Sequence[int] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read one more piece in every row, padded on its left, and give the logits behind it.

    Args:
        seen: of a routed model's first piece, how many tokens its router may see: the prompt, not what is given.

    Shapes:
        mask: (rows, T), of what was read before → logits (rows, V), mask (rows, T + longest piece)
    """
    import torch

    longest = max(map(len, pieces))
    ids = torch.zeros((len(pieces), longest), dtype=torch.long)
    new, prompt = torch.zeros_like(ids), torch.zeros_like(ids)
    for r, piece in enumerate(pieces):
        start = longest - len(piece)
        ids[r, start:] = torch.tensor(piece)
        new[r, start:] = 1
        if seen is not None:
            prompt[r, start : start + seen[r]] = 1
    mask = torch.cat([mask, new], 1)
    places = positions(mask)[:, -longest:]
    routed = {} if seen is None else {"prompt_mask": prompt.to(model.device)}
    output = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=places.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last_place(),
        **routed,
    )
    return output.logits[:, -1].float().cpu(), mask
