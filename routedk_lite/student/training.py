"""What every training run here is made of: padding, order, loss, optimizer, and what it shows while it goes on.

Four savings make training bearable on two CPU cores, and none of them changes the loss: sessions of similar length
share a micro-batch, micro-batches are small, logits are computed only where there is an answer to predict, and on a
CPU with bfloat16 the adapters compute in bfloat16 while the optimizer keeps float32 masters of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ..config import OptimizerConfig
from ..files import read_json
from ..locks import launched_together
from .allocator import freed_memory_given_back
from .backbone import Student, StudentInfo
from .batches import IGNORE, AnswerCollator, LengthGroupedSampler
from .checkpoints import last_whole_checkpoint
from .examples import SessionExamples
from .generation import check_tokens, pad_token
from .optimizer import MasterAdamW
from .pairs import PairReader
from .peak import begin_peak
from .trainer import KEPT, SessionTrainer, TrainingProgress


def answer_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Mean negative log-likelihood of the answer tokens, in nats.

    Shapes:
        outputs.logits: (B, K, V), for the last K positions; labels: (B, K).
    """
    logits = outputs.logits[:, :-1].float().flatten(0, 1)  # (B·(K-1), V): position k predicts token k+1
    targets = labels[:, 1:].flatten()
    total = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else (targets != IGNORE).sum())


def batch_loss(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], config: OptimizerConfig, reader: PairReader | None
) -> torch.Tensor:
    """What `trainer.SessionTrainer` minimises, of one batch from `batches.AnswerCollator`.

    Args:
        model: the student with what is trained on it.
        batch: on any device.
        config: how much answers and pairs weigh.
        reader: of the pairs, where the batch has them.
    """
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.items()}
    labels, spans, together = inputs.pop("labels"), inputs.pop("spans", None), inputs.pop("together", None)
    outputs = model(**inputs, use_cache=False, output_hidden_states=reader is not None)
    loss = config.answer_weight * answer_loss(outputs, labels)
    if reader is not None:
        hidden, count = outputs.hidden_states[reader.config.layer], (together >= 0).triu(1).sum().clamp(min=1)
        loss = loss + config.pair_weight * reader.loss(hidden, spans, together) / count
    return loss


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
        ValueError: the loss has no part: both weights are zero, or there is no reader for the pairs; or the student is
            on another GPU than the first.
    """
    info = student.info
    if student.model.device.index and not launched_together():
        raise ValueError(
            f"device = {student.model.device}: a training takes the first GPU that Python sees. Let it see no other "
            "than yours (CUDA_VISIBLE_DEVICES), and load the student on 'cuda'"
        )
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
        logging_steps=max(1, steps // 10),
        **checkpointing,
        use_cpu=not on_gpu,
        bf16=on_gpu and info.dtype == "bfloat16",
        fp16=on_gpu and info.dtype == "float16",
        dataloader_pin_memory=info.device.startswith("cuda"),
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
    )
    # With several GPUs a Trainer would cut batches apart along their first axis, which `logits_to_keep` has none of.
    arguments._n_gpu = min(arguments.n_gpu, 1)
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
        callbacks=[TrainingProgress(sampler, train, shown=progress)],
    )
    trainer.sampler, trainer.config, trainer.reader, trainer.seen = sampler, config, reader, []
    trainer.unlogged = torch.zeros((), device=trainer.args.device)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_trainer(trainer: SessionTrainer) -> tuple[list[dict[str, float]], float]:
    """Train to the end, from the last whole checkpoint if there is one; the log and the seconds, all parts included.

    Warns:
        UserWarning: of checkpoints that are damaged and left out.

    Raises:
        UnwritableError: there was no writing a checkpoint. What was written before stays.
        ValueError: the loss is not finite.
    """
    arguments, first = trainer.args, trainer.is_world_process_zero()
    checkpoint = last_whole_checkpoint(Path(arguments.output_dir), arguments.world_size, warn=first)
    if checkpoint is not None:
        trainer.take_up(read_json(checkpoint / KEPT.format(arguments.process_index), "part of a checkpoint"))
    trainer.started = time.perf_counter()
    begin_peak()
    with freed_memory_given_back():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    history = [{k: float(v) for k, v in row.items()} for row in trainer.state.log_history]
    return history, round(trainer.seconds, 1)
