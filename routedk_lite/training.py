"""What every training run here is made of: padding, order, loss, optimizer, and what it shows while it goes on.

Four savings make training bearable on two CPU cores, and none of them changes the loss: sessions of similar length
share a micro-batch, micro-batches are small, logits are computed only where there is an answer to predict, and on a
CPU with bfloat16 the adapters compute in bfloat16 while the optimizer keeps float32 masters of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from .backbone import LOST_BACKWARD, StudentInfo, lost_backward
from .config import OptimizerConfig

IGNORE = -100
"""Label of a position that is not learned from."""


class AnswerCollator:
    """Pad examples on the left, so that all answers end together and logits are needed at the last positions only.

    Shapes:
        input_ids, attention_mask, position_ids: (B, T); labels: (B, K) for the last K = longest answer + 1 positions;
        logits_to_keep: (K,), their positions. The first label is never an answer token: shifting by one loses none.
        prompt_mask: (B, T), on demand: 1 at the tokens that a router may see.
    """

    def __init__(self, pad_token_id: int, *, prompt_mask: bool = False) -> None:
        self.pad_token_id, self.prompt_mask = pad_token_id, prompt_mask

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        keep = max(len(row["input_ids"]) - row["n_prompt"] for row in rows) + 1
        ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORE)
        prompt = torch.zeros_like(mask)
        for i, row in enumerate(rows):
            tokens = torch.tensor(row["input_ids"])
            start = width - len(tokens)
            ids[i, start:] = tokens
            mask[i, start:] = 1
            prompt[i, start : start + row["n_prompt"]] = 1
            labels[i, start + row["n_prompt"] :] = tokens[row["n_prompt"] :]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "labels": labels[:, -keep:],
            # Positions instead of their number: an index copies the hidden states, a slice would leave them strided,
            # and the product with the vocabulary would first copy the whole embedding for every row.
            "logits_to_keep": torch.arange(width - keep, width),
        } | ({"prompt_mask": prompt} if self.prompt_mask else {})


class LengthGroupedSampler(torch.utils.data.Sampler[int]):
    """Order of an epoch in which neighbours have similar lengths but optimizer steps mix all lengths.

    Sessions are shuffled and cut into groups of `spread` micro-batches; each group is sorted by length and cut into
    micro-batches; then the micro-batches are shuffled. The order depends on `seed` and `epoch` alone, so that a
    resumed run sees what it would have seen.
    """

    def __init__(self, lengths: Sequence[int], micro_batch_size: int, *, seed: int, spread: int = 32) -> None:
        self.lengths, self.size, self.seed, self.spread = lengths, micro_batch_size, seed, spread
        self.epoch = 0
        """Set at the beginning of each epoch (`TrainingProgress`)."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self.seed}-{self.epoch}")
        order = chance.sample(range(len(self)), len(self))
        step = self.size * self.spread
        groups = (sorted(order[i : i + step], key=self.lengths.__getitem__) for i in range(0, len(order), step))
        batches = [group[i : i + self.size] for group in groups for i in range(0, len(group), self.size)]
        chance.shuffle(batches)
        batches.sort(key=len, reverse=True)  # an incomplete micro-batch anywhere else would shift all after it
        return iter([index for batch in batches for index in batch])


def answer_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Mean negative log-likelihood of the answer tokens, in nats.

    Shapes:
        outputs.logits: (B, K, V), for the last K positions; labels: (B, K).
    """
    logits = outputs.logits[:, :-1].float().flatten(0, 1)  # (B·(K-1), V): position k predicts token k+1
    targets = labels[:, 1:].flatten()
    total = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else (targets != IGNORE).sum())


class MasterAdamW(torch.optim.AdamW):
    """AdamW for low-precision parameters: weights are updated in float32 and copied back after each step.

    In bfloat16 alone learning stops silently: a small update rounds to nothing, and so does the decay of the second
    moment.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **options: Any) -> None:
        self._working = list(parameters)
        self._masters = [p.detach().float().clone() for p in self._working]
        super().__init__(self._masters, **options)

    @torch.no_grad()
    def step(self, closure=None):
        for master, working in zip(self._masters, self._working, strict=True):
            master.grad = None if working.grad is None else working.grad.float()
        result = super().step(closure)
        for master, working in zip(self._masters, self._working, strict=True):
            working.copy_(master)
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in (*self._masters, *self._working):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Torch's state and the masters, which a resumed run needs."""
        return {**super().state_dict(), "masters": self._masters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = dict(state_dict)
        with torch.no_grad():
            for master, saved in zip(self._masters, state_dict.pop("masters"), strict=True):
                master.copy_(saved)
        super().load_state_dict(state_dict)


class TrainingProgress(TrainerCallback):
    """A progress bar with the losses; the sampler's epoch; the time spent, beside every checkpoint; a check that
    gradients arrive."""

    def __init__(self, work: Path, sampler, *, shown: bool) -> None:
        self.work, self.sampler, self.shown = work, sampler, shown
        self.bar: tqdm | None = None
        self.losses: dict[str, str] = {}
        self.started = self.before = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()
        clock = self.work / f"checkpoint-{state.global_step}" / "seconds.json"
        self.before = json.loads(clock.read_text()) if clock.exists() else 0.0
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            desc="training",
            disable=not self.shown,
        )

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.epoch = int(state.epoch)  # in a resumed run the epoch may begin in its middle

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if any(lost_backward(module) for module in model.modules()):
            raise RuntimeError(LOST_BACKWARD)
        if all(p.grad is None for p in model.parameters() if p.requires_grad):
            raise RuntimeError("no gradient reaches what is trained: is the loss computed from the model's logits?")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_loss", "validation")):
            if logs and key in logs:
                self.losses[name] = f"{float(logs[key]):.3f}"
        if self.bar is not None:
            self.bar.set_postfix(self.losses)

    def on_save(self, args, state, control, **kwargs):
        folder = self.work / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / "seconds.json").write_text(json.dumps(self.before + time.perf_counter() - self.started))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class SessionTrainer(Trainer):
    """A Trainer whose order of sessions is ours."""

    sampler: LengthGroupedSampler

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler


def low_precision(info: StudentInfo) -> bool:
    """Whether what is trained computes in the student's bfloat16; on a GPU autocast does that to float32 weights."""
    return info.device == "cpu" and info.dtype == "bfloat16"


def make_trainer(
    kind: type[SessionTrainer],
    model: torch.nn.Module,
    info: StudentInfo,
    config: OptimizerConfig,
    *,
    train: Sequence[dict[str, Any]],
    valid: Sequence[dict[str, Any]],
    collator: AnswerCollator,
    work: Path,
    seed: int,
    progress: bool,
) -> SessionTrainer:
    """A Trainer for all parameters of `model` that require gradients, with checkpoints in `work`.

    Args:
        kind: the class of the trainer.
        model: what is trained, on its student.
        info: the student's.
        config: steps, rates, batches.
        train, valid: examples as `AnswerCollator` takes them; without `valid` nothing is validated.
        collator: makes batches of them.
        work: checkpoints; a Trainer that is made again with the same arguments goes on from the last.
        seed: of the order of sessions, and dropout.
        progress: show a progress bar.
    """
    sampler = LengthGroupedSampler([len(row["input_ids"]) for row in train], config.micro_batch_size, seed=seed)
    on_gpu = info.device != "cpu"
    checkpointing = {}
    if config.gradient_checkpointing:
        checkpointing = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        }
    steps = -(-len(train) // (config.micro_batch_size * config.accumulation_steps))  # of one epoch
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.micro_batch_size,
        per_device_eval_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_ratio * steps * config.epochs),
        weight_decay=config.weight_decay,
        eval_strategy="epoch" if valid else "no",
        save_strategy="steps",
        save_steps=max(1, steps // 4),
        save_total_limit=1,
        logging_steps=max(1, steps // 10),
        **checkpointing,
        use_cpu=not on_gpu,
        bf16=on_gpu and info.dtype == "bfloat16",
        fp16=on_gpu and info.dtype == "float16",
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
    )
    trainable = [p for p in model.parameters() if p.requires_grad]
    masters = None
    if any(p.dtype == torch.bfloat16 for p in trainable) and low_precision(info):
        masters = MasterAdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=valid or None,
        data_collator=collator,
        compute_loss_func=answer_loss,
        optimizers=(masters, None),
        callbacks=[TrainingProgress(work, sampler, shown=progress)],
    )
    trainer.sampler = sampler
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_trainer(trainer: Trainer) -> tuple[list[dict[str, float]], float]:
    """Train to the end, from the last checkpoint if there is one; Trainer's log and the seconds, all parts included."""
    work = Path(trainer.args.output_dir)
    checkpoints = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    clock = checkpoints[-1] / "seconds.json" if checkpoints else None
    before = json.loads(clock.read_text()) if clock and clock.exists() else 0.0
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=bool(checkpoints))
    seconds = before + time.perf_counter() - started
    history = [{k: float(v) for k, v in row.items()} for row in trainer.state.log_history]
    return history, round(seconds, 1)
