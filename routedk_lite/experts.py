"""Train one LoRA expert on a frozen student (RouteDK, expert training: likelihood of the answer).

Every expert is an ordinary PEFT adapter; what distinguishes experts is only the text they learn from.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .backbone import Student
from .config import PromptConfig, TrainConfig, digest
from .data import Session
from .files import atomic_folder, sha256_json, write_json
from .prompts import build_prompt, encode_answer, encode_prompt, format_answer
from .training import AnswerCollator, LengthGroupedSampler, MasterAdamW, TrainingProgress, answer_loss

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, Trainer


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
