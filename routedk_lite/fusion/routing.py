"""Train a fusion: the router's weights, or the static ones, and nothing else (RouteDK, router training).

The experts are frozen, the sessions raw, the loss the likelihood of the annotated answer. In place of sessions any
texts with a prompt and an answer will do. Beside the loss we log what the weights α do, since a router can fail quietly
(`statistics`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..config import PromptConfig, RouterConfig, digest
from ..data.prompts import encode_prompt, session_prompt
from ..data.sessions import Session, about
from ..files import atomic_folder, check_ours, sha256_json
from ..locks import launched_together
from ..student.backbone import Student
from ..student.batches import longest_first
from ..student.checkpoints import told_if_unwritable
from ..student.examples import Example, SessionExamples, encode_example
from ..student.generation import last_place, pad_left, positions
from ..student.pairs import PairReader, pairs_at
from ..student.summaries import finished_summary, one_at_a_time, write_summary
from ..student.texts import Text, encode_text_example, is_text, text_prompt_ids
from ..student.trainer import SessionTrainer
from ..student.training import make_trainer, run_trainer
from ..student.unchanged import evaluating, unchanged_after_an_error
from ..unfinished import remove
from .fusion import Dynamic
from .lorahub import LoraHub
from .routed import RoutedModel
from .saved import MODEL_FILES, ROUTED_FILES
from .statistics import RoutingStatistics, failure_signs, routing_statistics

Lesson = Session | Text | tuple[Any, str]
"""What a fusion learns from: a session, or a text with its answer (`student.texts`)."""


class FusionResult(NamedTuple):
    """What the training of a fusion leaves behind."""

    folder: Path
    """Experts and fusion, for `RoutedModel.from_pretrained`; `routing.json` beside them."""
    history: list[dict[str, float]]
    """Trainer's log: `loss`, `eval_loss`, and of each epoch's α on validation `entropy`, `variance`,
    `mutual_information`, `effective_support`, `load_<expert>`, means over layers."""
    seconds: float
    """Wall time, resumed parts included."""
    warnings: tuple[str, ...]
    """Signs of failure that were found at the end."""
    peak_mb: float = 0.0
    """Largest memory of this training, in MiB, resumed parts included; 0 where an earlier version did not note it."""


def trace_alpha(
    model: RoutedModel,
    tokenizer,
    sessions: Iterable[Lesson],
    *,
    prompt: PromptConfig | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> np.ndarray:
    """α of the prompt of every session or text, in their order; of a fusion that reads no prompt, one is enough.

    Shapes:
        → (sessions, L, E)

    Raises:
        ValueError: there are no sessions.
    """
    from tqdm.auto import tqdm

    prompt, found = prompt or PromptConfig(), {}
    ids = [_prompt_ids(one, k, tokenizer, prompt) for k, one in enumerate(sessions)]
    if not ids:
        raise ValueError("sessions is empty: α is that of a prompt; give one session or text at least")
    wanted = ids if model.fusion.depends_on_input else ids[:1]
    bar = tqdm(total=len(wanted), unit="session", desc="tracing α", disable=not progress)
    with evaluating(model), bar:
        for rows in longest_first(wanted, batch_size):
            batch = pad_left([wanted[k] for k in rows], model, tokenizer)
            places = positions(batch["attention_mask"])
            with torch.inference_mode():
                model(**batch, position_ids=places, use_cache=False, logits_to_keep=last_place())
            found |= dict(zip(rows, model.alpha, strict=True))
            bar.update(len(rows))
    alpha = np.stack([found[k] for k in range(len(wanted))])
    return np.repeat(alpha, len(ids) // len(wanted), axis=0)


def _prompt_ids(one: Lesson, place: int, tokenizer, prompt: PromptConfig) -> list[int]:
    if is_text(one):
        with _about_text(place):
            return text_prompt_ids(one, tokenizer)
    with about(one):
        return encode_prompt(session_prompt(one, tokenizer, prompt), tokenizer)


@contextmanager
def _about_text(place: int) -> Iterator[None]:
    """Errors within the block say which text they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"texts[{place}]: {error}") from error


class _FusionTrainer(SessionTrainer):
    """Adds penalties to the loss, watches α during validation, and keeps only what is learned in checkpoints."""

    config: RouterConfig
    names: Sequence[str]
    statistics: RoutingStatistics | None = None
    """Of α in the last validation."""

    def kept(self) -> dict[str, Any]:
        found = self.statistics
        known = found and {k: v.tolist() for k, v in found._asdict().items() if v is not None}
        return super().kept() | {"statistics": known}

    def take_up(self, kept: dict[str, Any]) -> None:
        super().take_up(kept)
        if kept["statistics"]:
            self.statistics = RoutingStatistics(**{k: np.array(v) for k, v in kept["statistics"].items()})

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not model.training:
            self.alphas.append(model.alpha)
        elif self.config.entropy_weight or self.config.balance_weight:
            made = [alpha for gate in model.gates.values() for alpha in gate.alphas()]
            alpha = torch.stack(made, -2)  # (B, layers or modules, E), or (B, T, layers, E)
            if alpha.ndim == 4:
                alpha = alpha[inputs["attention_mask"].bool()]  # (tokens, layers, E): padding is no token
            loss = loss + self._penalty(alpha) / self.n_batches
        return (loss, outputs) if return_outputs else loss

    def _penalty(self, alpha: torch.Tensor) -> torch.Tensor:
        entropy = _entropy(alpha).mean()
        load = alpha.mean(0)  # (L, E)
        imbalance = (math.log(load.shape[-1]) - _entropy(load)).mean()  # KL(load ‖ uniform)
        return self.config.entropy_weight * entropy + self.config.balance_weight * imbalance

    def evaluation_loop(self, *args, **kwargs):
        self.alphas: list[np.ndarray] = []
        output = super().evaluation_loop(*args, **kwargs)
        self.statistics = routing_statistics(np.concatenate(self.alphas))
        means = {name: float(np.mean(getattr(self.statistics, name))) for name in ("entropy", "variance")}
        means["mutual_information"] = float(self.statistics.mutual_information.mean())
        means["effective_support"] = float(self.statistics.effective_support.mean())
        loads = zip(self.names, self.statistics.load.mean(0).tolist(), strict=True)
        output.metrics.update(means | {f"load_{name}": load for name, load in loads})
        return output

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        from safetensors.torch import save_file

        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learned = self.model.weigher.state_dict()
        save_file({name: value.contiguous() for name, value in learned.items()}, folder / "fusion.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        from safetensors.torch import load_file

        self.model.weigher.load_state_dict(load_file(Path(resume_from_checkpoint) / "fusion.safetensors"))


def _entropy(alpha: torch.Tensor) -> torch.Tensor:
    """In nats, over the last axis; an α of 0 adds nothing, and gets no gradient where the exact one is infinite."""
    return torch.special.entr(alpha.clamp_min(torch.finfo(alpha.dtype).tiny)).sum(-1)


def train_fusion(
    model: RoutedModel,
    student: Student,
    sessions: Iterable[Lesson],
    folder: str | Path,
    *,
    config: RouterConfig | None = None,
    prompt: PromptConfig | None = None,
    reader: PairReader | None = None,
    validation: Iterable[Lesson] = (),
    seed: int = 0,
    progress: bool = True,
) -> FusionResult:
    """Learn the fusion's weights from raw sessions, or from any texts, and save experts and fusion.

    A finished training with the same configuration is loaded instead of repeated; an interrupted one goes on from its
    last whole checkpoint, and ends as if it had never been stopped.

    It starts from where the fusion starts, whatever the model has learned before.

    Args:
        model: the student with its experts and a fusion that can learn; trained in place.
        student: the student inside it; `Student.of` makes one of any model and tokenizer.
        sessions: training sessions; or texts, as pairs (prompt, answer).
        folder: where experts and fusion go, with `routing.json` (configuration, log, statistics) beside them.
        config: optimizer settings and penalties.
        prompt: how sessions are written.
        reader: reads pairs of items, where `config.pair_weight` asks for them.
        validation: sessions or texts whose loss and α are looked at after each epoch.
        seed: of the order of sessions.
        progress: show a progress bar.

    Raises:
        ValueError: the fusion has nothing to learn (one expert alone has not, either), or cannot learn (`top_k=1`); no
            sessions, or one too long; texts, where the configuration asks for what only sessions have; a student on
            another GPU than the first; a loss that is not finite.
        RuntimeError: no gradient reaches the fusion, or several processes were launched to share this training.
        UnwritableError: no room for a checkpoint or the fusion.

    Warns:
        UserWarning: signs of failure; damaged checkpoints that are left out; a finished fusion that is damaged and
            trained again.
    """
    folder, config, prompt = Path(folder), config or RouterConfig(), prompt or PromptConfig()
    _check_fusion(model)
    if processes := launched_together():
        raise RuntimeError(
            f"WORLD_SIZE = {processes}: a fusion is trained in one process; launch this script without `accelerate "
            "launch`, or train only experts (`train_expert`) in a launched one"
        )

    lessons, held_out = list(sessions), list(validation)
    _check_texts([*lessons, *held_out], config)
    places = {id(one): k for part in (held_out, lessons) for k, one in enumerate(part)}

    def encode(session: Lesson, order: Sequence[int] | None) -> Example:
        if is_text(session):
            with _about_text(places[id(session)]):
                return encode_text_example(session, student.tokenizer, max_length=config.max_length)
        options = {"max_length": config.max_length, "pairs_at": pairs_at(config, reader)}
        return encode_example(session, student.tokenizer, prompt, order=order, **options)

    train = SessionExamples(lessons, encode, permute=config.permute, seed=seed)
    valid = SessionExamples(held_out, encode)
    if not len(train):
        raise ValueError("sessions is empty: a fusion needs at least one training session")
    experts = [adapter.sha256 for adapter in model.adapters]
    routed = [model.fusion.to_json(), experts, seed, *student.info.identity]
    run_id = digest(config, prompt, *routed, sha256_json([train.plain, valid.plain]), reader and reader.config)
    work = folder.with_name(f".{folder.name}.{run_id}.training")
    if (done := _finished(model, folder, run_id, work)) is not None:
        return done

    check_ours(folder, ROUTED_FILES)
    with one_at_a_time(folder, run_id):
        if (done := _finished(model, folder, run_id, work)) is not None:  # by another process, while this one waited
            return done
        rate = config.static_learning_rate if model.fusion.static_rate else config.learning_rate
        with unchanged_after_an_error(model.weigher):
            model.reset()  # before an optimizer copies what it begins with
            trainer = make_trainer(
                _FusionTrainer,
                model,
                student,
                replace(config, learning_rate=rate),
                train=train,
                valid=valid,
                work=work,
                seed=seed,
                progress=progress,
                prompt_mask=True,
                reader=reader,
            )
            trainer.names = model.expert_names
            try:
                history, seconds = run_trainer(trainer)
            finally:
                # On a GPU the Trainer has put a forward with autocast over the model's own; a model whose training is
                # found finished has none, and both must answer alike.
                for name in ("forward", "_original_forward"):
                    vars(model).pop(name, None)
        signs = []
        if trainer.statistics is not None:
            losses = [row["eval_loss"] for row in history if "eval_loss" in row]
            known = trainer.statistics if model.weigher.shares else None
            signs = failure_signs(known, model.expert_names, losses)
        summary = {
            "digest": run_id,
            "config": {**config.__dict__, "seed": seed},
            "sessions": len(train),
            "seconds": seconds,
            "peak_mb": trainer.peak_mb,
            "statistics": trainer.statistics.to_json() if trainer.statistics is not None else None,
            "warnings": signs,
            "history": history,
        }
        model.eval()
        with told_if_unwritable(folder), atomic_folder(folder, ours=ROUTED_FILES) as target:
            model.write(target)
            write_summary(target / "routing.json", summary, MODEL_FILES)
        remove(work)
        for sign in signs:
            warnings.warn(sign, stacklevel=2)
        return FusionResult(folder, history, seconds, tuple(signs), summary["peak_mb"])


def _check_texts(lessons: Sequence[Lesson], config: RouterConfig) -> None:
    """Refuse what only sessions have, where there are texts."""
    if any(map(is_text, lessons)):
        for name, what in (("permute", "items in another order"), ("pair_weight", "pairs of items")):
            if value := getattr(config, name):
                raise ValueError(f"{name} = {value}: a text has no {what}; set it to {type(value)()}, or give sessions")


def _check_fusion(model: RoutedModel) -> None:
    fusion = model.fusion
    if not list(model.weigher.parameters()):
        way = "call search_weights" if isinstance(fusion, LoraHub) else "train a Static or a Dynamic fusion"
        raise ValueError(f"{type(fusion).__name__} has nothing to learn by gradients: {way}")
    if len(model.adapters) == 1 and model.weigher.shares:
        raise ValueError(
            f"adapters has one expert, {model.expert_names[0]}: its weight is always 1, so there is nothing to learn. "
            "Give two or more"
        )
    if isinstance(fusion, Dynamic) and fusion.top_k == 1:
        raise ValueError(
            "top_k = 1: the one weight that is left is always 1, so no gradient reaches the router. "
            "Train with top_k = 2 or None, and set top_k = 1 afterwards."
        )


def _finished(model: RoutedModel, folder: Path, run_id: str, work: Path) -> FusionResult | None:
    from safetensors.torch import load_file

    summary = finished_summary(folder / "routing.json", run_id, MODEL_FILES, {"warnings": list})
    if summary is None:
        return None
    remove(work)
    model.weigher.load_state_dict(load_file(folder / "fusion.safetensors"))
    model.eval()
    cost = {"seconds": summary["seconds"], "peak_mb": summary.get("peak_mb") or 0.0}
    return FusionResult(folder, summary["history"], warnings=tuple(summary["warnings"]), **cost)
