"""Train one LoRA expert on a frozen student (RouteDK, expert training: likelihood of the answer).

Every expert is an ordinary PEFT adapter; what distinguishes experts is only the text they learn from. Four savings
make training bearable on two CPU cores, and none of them changes the loss: sessions of similar length share a
micro-batch, micro-batches are small, logits are computed only where there is an answer to predict, and on a CPU with
bfloat16 the adapters compute in bfloat16 while the optimizer keeps float32 masters of them.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

from .backbone import Student
from .config import PromptConfig, TrainConfig, digest
from .data import Session
from .files import atomic_folder, sha256_json, write_json
from .prompts import build_prompt, encode_answer, encode_prompt, format_answer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, Trainer

IGNORE = -100
"""Label of a position that is not learned from."""


class Example(NamedTuple):
    """One training text in tokens."""

    input_ids: list[int]
    """Prompt and answer."""
    n_prompt: int
    """How many of them belong to the prompt."""


class ExpertResult(NamedTuple):
    """What a training run leaves behind."""

    folder: Path
    """The PEFT adapter."""
    history: list[dict[str, float]]
    """Trainer's log: `loss`, `eval_loss`, `learning_rate`, … by step."""
    seconds: float
    """Wall time, resumed parts included."""
    tokens_per_second: float
    """Prompt and answer tokens per second of training, padding not counted, validation included in the time."""


def encode_example(
    session: Session, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, *, max_length: int
) -> Example:
    """A session's prompt and its annotated answer as tokens.

    Raises:
        ValueError: the text is longer than `max_length` tokens.
    """
    text = build_prompt(session.titles, fmt=prompt.fmt, tokenizer=tokenizer, max_title_words=prompt.max_title_words)
    prompt_ids = encode_prompt(text, tokenizer)
    ids = prompt_ids + encode_answer(format_answer(session.bundles, fmt=prompt.fmt), tokenizer)
    if len(ids) > max_length:
        raise ValueError(
            f"session {session.id}: {len(ids)} tokens, more than TrainConfig.max_length = {max_length}. "
            "Raise it, or shorten titles with PromptConfig.max_title_words."
        )
    return Example(ids, len(prompt_ids))


class AnswerCollator:
    """Pad examples on the left, so that all answers end together and logits are needed at the last positions only.

    Shapes:
        input_ids, attention_mask, position_ids: (B, T); labels: (B, K) for the last K = longest answer + 1 positions;
        logits_to_keep: K. The first of the K labels is never an answer token, so that shifting by one loses none.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        keep = max(len(row["input_ids"]) - row["n_prompt"] for row in rows) + 1
        ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORE)
        for i, row in enumerate(rows):
            tokens = torch.tensor(row["input_ids"])
            start = width - len(tokens)
            ids[i, start:] = tokens
            mask[i, start:] = 1
            labels[i, start + row["n_prompt"] :] = tokens[row["n_prompt"] :]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "labels": labels[:, -keep:],
            "logits_to_keep": keep,
        }


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


def train_expert(
    student: Student,
    sessions: Iterable[Session],
    folder: str | Path,
    *,
    config: TrainConfig,
    prompt: PromptConfig | None = None,
    validation: Iterable[Session] = (),
    seed: int = 0,
    progress: bool = True,
) -> ExpertResult:
    """Train a LoRA adapter to answer with the annotated bundles, and save it in PEFT's format.

    A finished run with the same configuration is not repeated; an interrupted one goes on from its last checkpoint.
    The student is the same before and after.

    Args:
        student: the frozen student.
        sessions: training sessions.
        folder: where the adapter goes, with `training.json` (configuration, log, time) beside its weights.
        config: LoRA and optimizer settings.
        prompt: how sessions are written.
        validation: sessions whose loss is measured after each epoch.
        seed: of the adapter's initial weights, the order of sessions, and dropout.
        progress: show a progress bar.

    Raises:
        ValueError: no training sessions, or one that is too long.
        RuntimeError: no gradient reaches the adapter.
    """
    folder, prompt = Path(folder), prompt or PromptConfig()
    train, valid = (
        [encode_example(s, student.tokenizer, prompt, max_length=config.max_length)._asdict() for s in part]
        for part in (sessions, validation)
    )
    if not train:
        raise ValueError("sessions is empty: an expert needs at least one training session")
    run_id = digest(config, prompt, seed, student.info.sha256, student.info.dtype, sha256_json([train, valid]))
    if (done := _finished(folder, run_id)) is not None:
        return done

    work = folder.with_name(f".{folder.name}.{run_id}.training")
    model = _add_adapter(student, config, seed)
    try:
        trainer = _trainer(model, student, config, train, valid, work, seed, progress)
        started, before = time.perf_counter(), _seconds_so_far(work)
        trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
        seconds = before + time.perf_counter() - started
        history = [{k: float(v) for k, v in row.items()} for row in trainer.state.log_history]
        tokens = config.epochs * sum(len(row["input_ids"]) for row in train)
        summary = {
            "digest": run_id,
            "config": {**config.__dict__, "seed": seed},
            "sessions": len(train),
            "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / seconds, 1),
            "history": history,
        }
        model.peft_config["default"].base_model_name_or_path = student.info.id
        with atomic_folder(folder) as target:
            model.save_pretrained(target, save_embedding_layers=False)
            (target / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
            write_json(target / "training.json", summary)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        model.unload()
    return ExpertResult(folder, history, summary["seconds"], summary["tokens_per_second"])


def load_expert(student: Student, folder: str | Path) -> PeftModel:
    """Put a trained expert on its student; `.unload()` on the result takes it off again.

    Raises:
        ValueError: the adapter was trained on another student.
    """
    from peft import PeftConfig, PeftModel

    trained_on = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if trained_on != student.info.id:
        raise ValueError(f"the expert in {folder} was trained on {trained_on!r}, this student is {student.info.id!r}")
    return PeftModel.from_pretrained(student.model, str(folder), autocast_adapter_dtype=not _low_precision(student))


def _finished(folder: Path, run_id: str) -> ExpertResult | None:
    path = folder / "training.json"
    if not path.exists():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    if summary["digest"] != run_id:
        return None
    return ExpertResult(folder, summary["history"], summary["seconds"], summary["tokens_per_second"])


def _low_precision(student: Student) -> bool:
    """Whether adapters compute in the student's bfloat16; on a GPU autocast does that to float32 adapters."""
    return student.info.device == "cpu" and student.info.dtype == "bfloat16"


def _add_adapter(student: Student, config: TrainConfig, seed: int) -> PeftModel:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import set_seed

    set_seed(seed)
    model, checkpointing = student.model, config.gradient_checkpointing
    if student.info.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.enable_input_require_grads()
    targets = config.target_modules
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    return get_peft_model(model, lora, autocast_adapter_dtype=not _low_precision(student))


def _trainer(
    model: PeftModel,
    student: Student,
    config: TrainConfig,
    train: list[dict[str, Any]],
    valid: list[dict[str, Any]],
    work: Path,
    seed: int,
    progress: bool,
) -> Trainer:
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from .progress import TrainingProgress

    class ExpertTrainer(Trainer):
        """A Trainer whose order of sessions is ours."""

        def _get_train_sampler(self, train_dataset=None):
            return sampler

    sampler = LengthGroupedSampler([len(row["input_ids"]) for row in train], config.micro_batch_size, seed=seed)

    on_gpu = student.info.device != "cpu"
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
        bf16=on_gpu and student.info.dtype == "bfloat16",
        fp16=on_gpu and student.info.dtype == "float16",
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
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    trainer = ExpertTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=valid or None,
        data_collator=AnswerCollator(student.tokenizer.pad_token_id),
        compute_loss_func=answer_loss,
        optimizers=(MasterAdamW(trainable, **options) if _low_precision(student) else None, None),
        callbacks=[TrainingProgress(work, sampler, shown=progress)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _seconds_so_far(work: Path) -> float:
    """Training time of the parts that were interrupted, up to the last checkpoint."""
    checkpoints = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    clock = checkpoints[-1] / "seconds.json" if checkpoints else None
    return json.loads(clock.read_text()) if clock and clock.exists() else 0.0
