"""How examples become micro-batches: padding, the order of an epoch, labels only where there is something to learn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .generation import positions
from .pairs import pad_spans

IGNORE = -100
"""Label of a position that is not learned from."""


class AnswerCollator:
    """Pad examples on the left, so that all answers end together, and ask for logits only where something is learned.

    Shapes:
        input_ids, attention_mask, position_ids: (B, T); logits_to_keep: (K,), the positions before tokens that any row
        learns, and the last one; labels: (B, K), shifted: labels[:, k + 1] is what the k-th of them should predict.
        The first label is never a token: shifting by one loses none.
        prompt_mask: (B, T), on demand: 1 at the tokens that a router may see.
        spans, together: (B, N, 2), (B, N, N), on demand: what `pairs.PairReader.loss` takes.
        soft: where rows have soft targets, `ids` and `log_p`, (B, K - 1, k) and (B, K - 1, k + 1): [:, j] belongs to
        labels[:, j + 1], and holds zeros where that is no token.
    """

    def __init__(self, pad_token_id: int, *, prompt_mask: bool = False, pairs: bool = False) -> None:
        self.pad_token_id, self.prompt_mask, self.pairs = pad_token_id, prompt_mask, pairs

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        starts = [width - len(row["input_ids"]) for row in rows]
        learned = [row.get("learned") or range(row["n_prompt"], len(row["input_ids"])) for row in rows]
        keep = sorted({start + k - 1 for start, places in zip(starts, learned, strict=True) for k in places})
        column = {position: k for k, position in enumerate(keep, start=1)}
        ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), len(keep) + 1), IGNORE)
        prompt = torch.zeros_like(mask)
        columns = [[column[start + k - 1] for k in places] for start, places in zip(starts, learned, strict=True)]
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            tokens = torch.tensor(row["input_ids"])
            ids[i, start:] = tokens
            mask[i, start:] = 1
            prompt[i, start : start + row["n_prompt"]] = 1
            labels[i, columns[i]] = tokens[list(learned[i])]
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions(mask),
            "labels": labels,
            # Positions instead of their number: an index copies the hidden states, a slice would leave them strided,
            # and the product with the vocabulary would first copy the whole embedding for every row.
            "logits_to_keep": torch.tensor([*keep, width - 1]),
        }
        if self.prompt_mask:
            batch["prompt_mask"] = prompt
        if self.pairs:
            spans = pad_spans([(row["spans"], width - len(row["input_ids"])) for row in rows])
            together = torch.full((len(rows), spans.shape[1], spans.shape[1]), -1)
            for i, row in enumerate(rows):
                n = len(row["spans"])
                together[i, :n, :n] = torch.tensor(row["together"])
            batch |= {"spans": spans, "together": together}
        if "soft" in rows[0]:
            batch["soft"] = {}
            for name, first in rows[0]["soft"]._asdict().items():
                batch["soft"][name] = padded = first.new_zeros(len(rows), len(keep) + 1, first.shape[1])
                for i, row in enumerate(rows):
                    padded[i, columns[i]] = getattr(row["soft"], name)
                batch["soft"][name] = padded[:, 1:]
        return batch


def longest_first(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Places of texts in batches, the longest first: what needs most memory fails at once or not at all.

    Args:
        rows: the tokens of each text.
        size: texts at a time.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


SPREAD = 32
"""Micro-batches whose sessions are sorted by length among themselves."""


class LengthGroupedSampler(torch.utils.data.Sampler[int]):
    """Order of an epoch in which neighbours have similar lengths but optimizer steps mix all lengths.

    Sessions are shuffled and cut into groups of `SPREAD` micro-batches; each group is sorted by length and cut into
    micro-batches; then the micro-batches are shuffled. The order depends on `seed` and `epoch` alone, so that a
    resumed run sees what it would have seen.
    """

    def __init__(self, lengths: Sequence[int], micro_batch_size: int, *, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, micro_batch_size, seed
        self.epoch = 0
        """Set at the beginning of each epoch (`TrainingProgress`)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self.seed}-{self.epoch}")
        order = chance.sample(range(len(self)), len(self))
        step = self.size * SPREAD
        groups = (sorted(order[i : i + step], key=self.lengths.__getitem__) for i in range(0, len(order), step))
        batches = [group[i : i + self.size] for group in groups for i in range(0, len(group), self.size)]
        chance.shuffle(batches)
        batches.sort(key=len, reverse=True)  # an incomplete micro-batch anywhere else would shift all after it
        return iter([index for batch in batches for index in batch])
