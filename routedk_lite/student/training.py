"""What every training run here is made of: padding, order, loss, optimizer, and what it shows while it goes on.

Four savings make training bearable on two CPU cores, and none of them changes the loss: sessions of similar length
share a micro-batch, micro-batches are small, logits are computed only where there is an answer to predict, and on a
CPU with bfloat16 the adapters compute in bfloat16 while the optimizer keeps float32 masters of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ..config import OptimizerConfig
from ..files import locked
from .backbone import LOST_BACKWARD, Student, StudentInfo, lost_backward
from .batches import IGNORE, AnswerCollator, LengthGroupedSampler
from .examples import SessionExamples
from .generation import check_tokens, pad_token
from .pairs import PairReader


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
        if all(working.grad is None for working in self._working):
            raise RuntimeError("none of these weights has a gradient: does the model still train them, or copies?")
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

    def __init__(self, work: Path, sampler, examples: SessionExamples, *, shown: bool) -> None:
        self.work, self.sampler, self.examples, self.shown = work, sampler, examples, shown
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
        # In a resumed run the epoch may begin in its middle.
        self.sampler.epoch = self.examples.epoch = int(state.epoch)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if any(lost_backward(module) for module in model.modules()):
            raise RuntimeError(LOST_BACKWARD)
        if all(p.grad is None for p in model.parameters() if p.requires_grad):
            raise RuntimeError("no gradient reaches what is trained: is the loss computed from the model's logits?")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_loss", "validation"), ("eval_pair_loss", "pairs")):
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
    """A Trainer whose order of sessions is ours, and whose loss may have a part for pairs."""

    sampler: LengthGroupedSampler
    config: OptimizerConfig
    reader: PairReader | None = None
    n_pairs = 0
    """Pairs in the batches of the present optimizer step."""

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if not isinstance(model, PeftModel):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        # Trainer's own way gives the adapter new weights, in float32, and the optimizer would go on with the old ones.
        weights = load_file(Path(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME))
        return set_peft_model_state_dict(model, weights)

    def get_batch_samples(self, *args, **kwargs):
        batches, n_items = super().get_batch_samples(*args, **kwargs)
        if self.reader is not None:
            self.n_pairs = sum(_count_pairs(batch["together"]) for batch in batches)
        return batches, n_items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        spans, together = inputs.pop("spans", None), inputs.pop("together", None)
        if self.reader is not None:
            inputs["output_hidden_states"] = True
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        loss = self.config.answer_weight * loss
        if self.reader is not None:
            hidden = outputs.hidden_states[self.reader.config.layer]
            total, count = self.reader.loss(hidden, spans, together), _count_pairs(together)
            self.seen.append((float(total.detach()), count))
            loss = loss + self.config.pair_weight * total / ((self.n_pairs if model.training else count) or 1)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        if self.reader is not None and "loss" in logs:
            logs["pair_loss"] = self._mean_pair_loss()
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        before, self.seen = self.seen, []
        output = super().evaluation_loop(*args, **kwargs)
        if self.reader is not None:
            output.metrics["eval_pair_loss"] = self._mean_pair_loss()
        self.seen = before
        return output

    def _mean_pair_loss(self) -> float:
        total, count = (sum(values) for values in zip(*self.seen, strict=True)) if self.seen else (0.0, 0)
        self.seen.clear()
        return total / max(count, 1)


def _count_pairs(together: torch.Tensor) -> int:
    return int(((together >= 0).triu(1)).sum())


def low_precision(info: StudentInfo) -> bool:
    """Whether what is trained computes in the student's bfloat16; on a GPU autocast does that to float32 weights."""
    return info.device == "cpu" and info.dtype == "bfloat16"


def make_trainer(
    kind: type[SessionTrainer],
    model: torch.nn.Module,
    student: Student,
    config: OptimizerConfig,
    *,
    train: SessionExamples,
    valid: SessionExamples,
    work: Path,
    seed: int,
    progress: bool,
    prompt_mask: bool = False,
    reader: PairReader | None = None,
) -> SessionTrainer:
    """A Trainer for all parameters of `model` that require gradients, with checkpoints in `work`.

    Args:
        kind: the class of the trainer.
        model: what is trained, on its student.
        student: the student inside it.
        config: steps, rates, batches.
        train, valid: examples; without any in `valid` nothing is validated.
        work: checkpoints; a Trainer that is made again with the same arguments goes on from the last.
        seed: of the order of sessions, and dropout.
        progress: show a progress bar.
        prompt_mask: whether the model takes one.
        reader: reads pairs, where `config.pair_weight` asks for them.

    Raises:
        ValueError: the loss has no part: both weights are zero, or there is no reader for the pairs.
    """
    info = student.info
    if config.pair_weight == 0:
        reader = None
    if reader is None and (config.answer_weight == 0 or config.pair_weight > 0):
        raise ValueError(
            f"answer_weight = {config.answer_weight}, pair_weight = {config.pair_weight}"
            f"{'' if config.pair_weight == 0 else ' without a PairReader (Profile.pairs is None)'}: nothing to learn"
        )
    sampler = LengthGroupedSampler(train.lengths, config.micro_batch_size, seed=seed)
    on_gpu = info.device != "cpu"
    checkpointing = {}
    if config.gradient_checkpointing:
        new_name = hasattr(TrainingArguments, "activation_checkpointing")
        name = "activation_checkpointing" if new_name else "gradient_checkpointing"
        checkpointing = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
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
        eval_strategy="epoch" if len(valid) else "no",
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
    check_tokens([row["input_ids"] for row in [*train.plain, *valid.plain]], student.model, student.tokenizer)
    pad = pad_token(student.model, student.tokenizer)
    trainable = [p for p in model.parameters() if p.requires_grad]
    masters = None
    if any(p.dtype == torch.bfloat16 for p in trainable) and low_precision(info):
        masters = MasterAdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=valid if len(valid) else None,
        data_collator=AnswerCollator(pad, prompt_mask=prompt_mask, pairs=reader is not None),
        compute_loss_func=answer_loss,
        optimizers=(masters, None),
        callbacks=[TrainingProgress(work, sampler, train, shown=progress)],
    )
    trainer.sampler, trainer.config, trainer.reader, trainer.seen = sampler, config, reader, []
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


@contextmanager
def one_at_a_time(folder: Path, run_id: str) -> Iterator[None]:
    """Let one process at a time train this into the folder: two chapters that run side by side may want the same.

    Processes that were launched together share their training, and do not wait for each other here.
    """
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with nullcontext() if together else locked(folder.with_name(f"{folder.name}.{run_id}")):
        yield


def finished_summary(path: Path, run_id: str) -> dict[str, Any] | None:
    """What a training of this digest left in its summary file; `None` if there is no such file, or of another one."""
    if not path.exists():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    return summary if summary["digest"] == run_id else None
