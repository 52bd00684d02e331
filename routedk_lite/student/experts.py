"""Train one LoRA expert on a frozen student (RouteDK, expert training: likelihood of the answer).

Every expert is an ordinary PEFT adapter; what distinguishes experts is only the text they learn from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import TrainerCallback

from ..config import KnowledgeConfig, PromptConfig, TrainConfig, digest
from ..data.sessions import Session
from ..files import atomic_folder, check_ours, sha256_json
from ..teacher.knowledge import Knowledge
from ..unfinished import remove
from .backbone import Student, text_model_name
from .checkpoints import told_if_unwritable
from .examples import Example, SessionExamples, encode_example
from .pairs import PairReader, pairs_at
from .soft_targets import SoftTrainer, TaughtExamples
from .starting import Start, start_from
from .summaries import finished_summary, one_at_a_time, write_summary
from .trainer import SessionTrainer
from .training import low_precision, make_trainer, run_trainer
from .unchanged import left_as_it_was

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""An adapter in PEFT's format."""
EXPERT_FILES = (*ADAPTER_FILES, "training.json")
"""What we write into the folder of an expert."""


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
    peak_mb: float = 0.0
    """Largest memory of this training, in MiB, resumed parts included; of several processes at once, the first one's. 0
    where an earlier version did not note it."""


def train_expert(
    student: Student,
    sessions: Iterable[Session],
    folder: str | Path,
    *,
    config: TrainConfig,
    prompt: PromptConfig | None = None,
    knowledge: Knowledge | None = None,
    told: KnowledgeConfig | None = None,
    reader: PairReader | None = None,
    validation: Iterable[Session] = (),
    start: Start | None = None,
    teacher: Start | None = None,
    on_epoch: Callable[[PeftModel, int], object] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ExpertResult:
    """Train a LoRA adapter to answer with the annotated bundles, and save it in PEFT's format.

    A finished run with the same configuration is not repeated; an interrupted one goes on from its last whole
    checkpoint, and ends as if it had never been stopped. The student is the same before and after.

    Args:
        student: the frozen student.
        sessions: training sessions.
        folder: where the adapter goes, with `training.json` (configuration, log, time, items of the longest session)
            beside its weights.
        config: LoRA and optimizer settings.
        prompt: how sessions are written.
        knowledge: a teacher's knowledge of the training sessions.
        told: which part of it the expert is told, and where; nothing by default.
        reader: reads pairs of items from the student's states, where `config.pair_weight` asks for them.
        validation: sessions whose loss is measured after each epoch: raw, as at test time.
        start: the adapter where this one starts; by default it starts from nothing.
        teacher: where knowledge is to be `distilled`, the expert that was told it in its prompt; this one learns its
            distributions (`soft_targets`). Validation keeps to the annotated answers.
        on_epoch: called after each epoch with the student in training and the sessions seen so far; again for an epoch
            whose end a stopped run had not got over.
        seed: of the adapter's initial weights, the order of sessions, and dropout.
        progress: show a progress bar.

    Raises:
        ValueError: no training sessions, one that is too long, fewer layers than `config.first_layer`, a `start`
            with other modules, rank or scale, or a `teacher` where nothing is distilled, or none where something is;
            a student on another GPU than the first; a loss that is not finite.
        RuntimeError: no gradient reaches the adapter.
        UnwritableError: no room for a checkpoint or the adapter.

    Warns:
        UserWarning: damaged checkpoints are left out, or a finished adapter is damaged and trained again.
    """
    folder, prompt = Path(folder), prompt or PromptConfig()
    distilled = knowledge is not None and told is not None and told.kind != "none" and told.place == "distilled"
    if distilled != (teacher is not None):
        raise ValueError(
            'told.place = "distilled" needs the expert that was told this in its prompt: give teacher'
            if distilled
            else 'teacher: there is nothing to learn from it; give knowledge, and told with place="distilled"'
        )

    def examples(part: Iterable[Session], permute: bool, **extra: Any) -> SessionExamples:
        def encode(session: Session, order: Sequence[int] | None) -> Example:
            options = {"max_length": config.max_length, "pairs_at": pairs_at(config, reader), **extra}
            return encode_example(session, student.tokenizer, prompt, order=order, **options)

        return SessionExamples(part, encode, permute=permute, seed=seed)

    train = examples(sessions, config.permute, knowledge=knowledge, told=told)
    valid = examples(validation, False)
    if not len(train):
        raise ValueError("sessions is empty: an expert needs at least one training session")
    if teacher is not None:
        prompted = {"knowledge": knowledge, "told": replace(told, place="prompt")}
        train = TaughtExamples(train, examples(train.sessions, config.permute, **prompted))
    texts, pairs = sha256_json([train.plain, valid.plain]), reader and reader.config
    known_by = [config, prompt, seed, *student.info.identity, texts, pairs]
    learned_from = [teacher.digest, sha256_json(train.taught.plain)] if teacher else []
    run_id = digest(*known_by, *([start.digest] if start else []), *learned_from)
    work = folder.with_name(f".{folder.name}.{run_id}.training")
    if (done := _finished(folder, run_id, work)) is not None:
        return done

    check_ours(folder, EXPERT_FILES)
    with one_at_a_time(folder, run_id):
        if (done := _finished(folder, run_id, work)) is not None:  # by another process, while this one waited
            return done
        first = start and start.folder()  # before this adapter stands on the student
        if teacher is not None:
            _ask(teacher, train, student, work, config, progress=progress)
        with left_as_it_was(student.model), unloaded(_add_adapter(student, config, seed)) as model:
            if first is not None:
                start_from(model, first)
            trainer = make_trainer(
                SessionTrainer if teacher is None else SoftTrainer,
                model,
                student,
                config,
                train=train,
                valid=valid,
                work=work,
                seed=seed,
                progress=progress,
                reader=reader,
            )
            if on_epoch is not None:
                trainer.add_callback(_AfterEpoch(on_epoch, len(train)))
            history, seconds = run_trainer(trainer)
            tokens = config.epochs * sum(train.lengths)
            summary = {
                "digest": run_id,
                "config": {**config.__dict__, "seed": seed},
                "knowledge": asdict(told or KnowledgeConfig()),
                "sessions": len(train),
                "longest": max(map(len, train.sessions)),
                "seconds": seconds,
                "peak_mb": trainer.peak_mb,
                "tokens_per_second": round(tokens / seconds, 1),
                "history": history,
            }
            if trainer.is_world_process_zero():  # under `accelerate launch`, one of several processes writes
                with told_if_unwritable(folder), atomic_folder(folder, ours=EXPERT_FILES) as target:
                    _write_adapter(model, student, target)
                    write_summary(target / "training.json", summary, ADAPTER_FILES)
                remove(work)
            trainer.accelerator.wait_for_everyone()
        return ExpertResult(folder, history, summary["seconds"], summary["tokens_per_second"], summary["peak_mb"])


@contextmanager
def unloaded(model: PeftModel) -> Iterator[PeftModel]:
    """The student with its adapter, from `load_expert`; when the block ends the adapter comes off."""
    try:
        yield model
    finally:
        model.unload()


def _ask(teacher: Start, train: TaughtExamples, student: Student, *where: Any, progress: bool) -> None:
    with unloaded(load_expert(student, teacher.folder())) as model:
        train.ask(model, student, *where, progress=progress)


class _AfterEpoch(TrainerCallback):
    """Shows the model as it is after each epoch to whom it may concern."""

    def __init__(self, show: Callable[[PeftModel, int], object], n_sessions: int) -> None:
        self.show, self.n_sessions = show, n_sessions

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.show(model, round(state.epoch) * self.n_sessions)
        model.train()


def save_expert(model: PeftModel, student: Student, folder: str | Path) -> None:
    """Save the adapter that stands on a student, trained or in training, for `load_expert`; replaces one there.

    Args:
        model: the student with its adapter, as `train_expert` shows it to `on_epoch`.
        student: the bare student.
        folder: where the adapter goes.
    """
    with atomic_folder(Path(folder), ours=EXPERT_FILES) as target:
        _write_adapter(model, student, target)


def load_expert(student: Student, folder: str | Path) -> PeftModel:
    """Put a trained expert on its student; `.unload()` on the result, or `unloaded`, takes it off again.

    Raises:
        ValueError: the adapter was trained on another student.
    """
    from peft import PeftConfig, PeftModel

    trained_on = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if trained_on != student.info.id:
        raise ValueError(f"the expert in {folder} was trained on {trained_on!r}, this student is {student.info.id!r}")
    return PeftModel.from_pretrained(student.model, str(folder), autocast_adapter_dtype=not low_precision(student.info))


def _write_adapter(model: PeftModel, student: Student, folder: Path) -> None:
    """In PEFT's format, named after the student; PEFT's own notes on the model stay as they are."""
    config = model.peft_config["default"]
    known_as, targets = config.base_model_name_or_path, config.target_modules
    config.base_model_name_or_path = student.info.id
    if isinstance(targets, set):  # which PEFT would write in another order each time
        config.target_modules = sorted(targets)
    try:
        model.save_pretrained(folder, save_embedding_layers=False)
    finally:  # a Trainer that goes on would look for the student under its new name, on the network
        config.base_model_name_or_path, config.target_modules = known_as, targets
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def _finished(folder: Path, run_id: str, work: Path) -> ExpertResult | None:
    summary = finished_summary(folder / "training.json", run_id, ADAPTER_FILES, {"tokens_per_second": (int, float)})
    if summary is None:
        return None
    remove(work)  # there it is if the training was killed after its last line but one
    cost = summary["seconds"], summary["tokens_per_second"], summary.get("peak_mb") or 0.0
    return ExpertResult(folder, summary["history"], *cost)


def lora_config(config: TrainConfig, n_layers: int) -> LoraConfig:
    """PEFT's configuration of an expert, for a student of so many layers.

    Raises:
        ValueError: fewer layers than `config.first_layer`.
    """
    from peft import LoraConfig

    if config.first_layer > n_layers:
        raise ValueError(f"TrainConfig.first_layer = {config.first_layer}: this student has {n_layers} layers")
    below = "|".join(str(index) for index in range(config.first_layer - 1))
    targets = config.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        # The first number in a module's name is its layer, counted from 0.
        exclude_modules=rf"\D*\.({below})\..*" if below else None,
    )


def _add_adapter(student: Student, config: TrainConfig, seed: int) -> PeftModel:
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import set_seed

    set_seed(seed)
    model, checkpointing = student.model, config.gradient_checkpointing
    if student.info.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.enable_input_require_grads()
    lora = lora_config(config, model.config.get_text_config().num_hidden_layers)
    if (text := text_model_name(model)) is not None:  # leave the vision tower of a multimodal student alone
        outside = rf"(?!{re.escape(text)}\.).*"
        lora.exclude_modules = f"{lora.exclude_modules}|{outside}" if lora.exclude_modules else outside
    return get_peft_model(model, lora, autocast_adapter_dtype=not low_precision(student.info))
