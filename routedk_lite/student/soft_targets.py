"""Context distillation: an expert that reads raw sessions learns what a teacher with knowledge in its prompt expects.

An expert that is trained with knowledge in its prompt and asked without reads another text in the exam than in
training. Context distillation (Snell, Klein & Zhong, arXiv 2209.15189) avoids that mismatch: the knowledge stands in
the prompt of a teacher, which is the same student, and the expert learns the teacher's distribution of the answer from
the prompt that it will see at test time. That takes the distributions of a student with open weights, and no API.

Two things are ours. The teacher is not the bare student, since a small one cannot use knowledge that it has not learned
to read: it is the expert that was trained with this knowledge in its prompt. And the teacher is asked about the
annotated answer, token by token (*teacher forcing*), before training. SDFT (arXiv 2601.19897) asks about answers that
the student draws while it learns, which takes a teacher beside it all the time, and a draw for every step.

Kept are the k likeliest tokens of each place and, in one cell, the mass of all others. The loss is exactly the KL of
these coarser distributions, and thus a lower bound of the KL over the whole vocabulary; with k = V the two are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch.nn import functional
from tqdm.auto import tqdm

from ..config import TrainConfig
from ..files import atomic_write, read_tensors
from .backbone import Student
from .batches import IGNORE, AnswerCollator, longest_first
from .checkpoints import told_if_unwritable
from .examples import SessionExamples
from .generation import pad_token
from .trainer import SessionTrainer
from .unchanged import evaluating

if TYPE_CHECKING:
    from peft import PeftModel


class SoftTargets(NamedTuple):
    """What a teacher expects at the learned tokens of one answer.

    Shapes:
        n: tokens that are learned, k: tokens that are told apart.
    """

    ids: torch.Tensor
    """(n, k): the teacher's likeliest tokens, int32."""
    log_p: torch.Tensor
    """(n, k + 1): logarithms of their probabilities and of that of all others together, float32; (n, V) if k = V."""


def cells(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Logarithms of the probabilities of some tokens and, in a last cell, of all others; none is left if k = V.

    Shapes:
        logits: (n, V); ids: (n, k) → (n, k + 1), or (n, V)
    """
    ids, total = ids.long(), logits.logsumexp(-1, keepdim=True)
    found = logits.gather(-1, ids)
    if ids.shape[-1] < logits.shape[-1]:
        others = logits.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
        found = torch.cat([found, others], -1)
    return found - total


def soft_loss(logits: torch.Tensor, ids: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) over the cells of `SoftTargets`, in nats, summed over tokens.

    Shapes:
        logits: (n, V), the student's; ids, log_p: as in `SoftTargets` → ()
    """
    return functional.kl_div(cells(logits, ids), log_p, log_target=True, reduction="sum")


def soft_targets(
    model: PeftModel, student: Student, rows: Sequence[dict[str, Any]], config: TrainConfig, *, progress: bool = True
) -> list[SoftTargets]:
    """What a teacher expects at the learned tokens of examples, by one forward pass over each.

    Args:
        model: the teacher, on its student.
        student: gives the tokenizer.
        rows: examples as the teacher reads them, `Example.row()`.
        config: `soft_tokens`, and `micro_batch_size` for examples at a time, sorted by length.
        progress: show a progress bar.
    """
    found: dict[int, SoftTargets] = {}
    collate = AnswerCollator(pad_token(student.model, student.tokenizer))
    bar = tqdm(total=len(rows), unit="session", desc="asking the teacher", disable=not progress)
    with evaluating(model), bar:
        for chosen in longest_first([row["input_ids"] for row in rows], config.micro_batch_size):
            batch = {k: v.to(student.model.device) for k, v in collate([rows[i] for i in chosen]).items()}
            learned = batch.pop("labels")[:, 1:] != IGNORE
            with torch.inference_mode():
                logits = model(**batch, use_cache=False).logits[:, :-1][learned].float()  # (tokens of all rows, V)
                ids = logits.topk(min(config.soft_tokens, logits.shape[-1])).indices
                log_p = cells(logits, ids)
            counts = learned.sum(1).tolist()
            split = zip(ids.int().cpu().split(counts), log_p.cpu().split(counts), strict=True)
            found |= {i: SoftTargets(*one) for i, one in zip(chosen, split, strict=True)}
            bar.update(len(chosen))
    return [found[i] for i in range(len(rows))]


class TaughtExamples(SessionExamples):
    """Raw examples that carry what a teacher expects of their answers, once it has been asked (`ask`).

    Args:
        raw: the examples as the expert reads them.
        taught: the same sessions as the teacher reads them, in the same orders, with the same answers.
    """

    def __init__(self, raw: SessionExamples, taught: SessionExamples) -> None:
        super().__init__(raw.sessions, raw.encode, permute=raw.permute, seed=raw.seed)
        self.taught = taught
        self.targets: list[list[SoftTargets]] = []
        """By epoch, if items come in another order in each, and session."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch = self.epoch if self.permute else 0
        return super().__getitem__(index) | {"soft": self.targets[epoch][index]}

    def ask(self, model: PeftModel, student: Student, work: Path, config: TrainConfig, *, progress: bool) -> None:
        """Ask the teacher about every example of a training. What a killed process has asked is not asked again.

        Args:
            model: the teacher, on its student.
            student: gives the tokenizer.
            work: the training's folder; one file for each epoch goes there.
            config: `epochs`, and what `soft_targets` takes.
            progress: show progress bars.

        Raises:
            UnwritableError: no room for the files.
        """
        self.targets = []
        for epoch in range(config.epochs if self.permute else 1):
            path, self.taught.epoch = work / f"soft-{epoch}.safetensors", epoch
            rows = list(self.taught)
            targets = _kept(path, rows)
            if targets is None:
                targets = soft_targets(model, student, rows, config, progress=progress)
                with told_if_unwritable(path), atomic_write(path, "wb") as file:
                    joined = zip(SoftTargets._fields, map(torch.cat, zip(*targets, strict=True)), strict=True)
                    file.write(save(dict(joined)))
            self.targets.append(targets)


def _kept(path: Path, rows: Sequence[dict[str, Any]]) -> list[SoftTargets] | None:
    """What was asked before; `None` if there is no such file, or it is damaged."""
    counts = [len(row.get("learned") or row["input_ids"][row["n_prompt"] :]) for row in rows]
    try:
        kept = read_tensors(path)
        parts = [kept[name].split(counts) for name in SoftTargets._fields]
    except (FileNotFoundError, SafetensorError, RuntimeError, KeyError):
        return None
    return [SoftTargets(*one) for one in zip(*parts, strict=True)]


class SoftTrainer(SessionTrainer):
    """Its loss of the answer is the teacher's; where no teacher was asked, in validation, the annotated answer's."""

    config: TrainConfig
    soft: dict[str, torch.Tensor] | None = None
    """Soft targets of the present micro-batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answer_loss, self.compute_loss_func = self.compute_loss_func, self.mixed_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.soft = inputs.pop("soft", None)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def mixed_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Mean per answer token, as that of `training.answer_loss`, so that both are weighed alike."""
        if self.soft is None:
            return self.answer_loss(outputs, labels, num_items_in_batch)
        learned, weight = labels[:, 1:] != IGNORE, self.config.soft_weight
        logits = outputs.logits[:, :-1][learned].float()
        total = soft_loss(logits, *(self.soft[name][learned] for name in SoftTargets._fields))
        soft = total / (num_items_in_batch if num_items_in_batch is not None else learned.sum())
        return soft if weight == 1 else torch.lerp(self.answer_loss(outputs, labels, num_items_in_batch), soft, weight)
