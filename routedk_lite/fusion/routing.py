"""Train a fusion: the router's weights, or the static ones, and nothing else (RouteDK, router training).

The experts are frozen, the sessions raw, the loss the likelihood of the annotated answer. Beside the loss we log what
the weights α do, since a router can fail quietly: the same weights everywhere, one expert for everything, or weights
that suit the training sessions better and better and all others worse.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..config import PromptConfig, RouterConfig, digest
from ..data.prompts import prompt_batches
from ..data.sessions import Session
from ..files import atomic_folder, check_ours, sha256_json, write_json
from ..student.backbone import Student
from ..student.examples import Example, SessionExamples, encode_example
from ..student.generation import pad_left
from ..student.pairs import PairReader, pairs_at
from ..student.training import SessionTrainer, finished_summary, make_trainer, one_at_a_time, run_trainer
from .fusion import Dynamic, Static
from .routed import ROUTED_FILES, RoutedModel

UNIFORM_ENTROPY, UNIFORM_VARIANCE = 0.99, 1e-4
"""Share of the largest possible entropy, and variance between sessions, that look like a router that does nothing."""
DOMINANT_LOAD = 0.9
"""Mean weight above which one expert has taken over a layer."""
RISEN = 1.02
"""Last validation loss over the lowest one, above which a fusion learns what holds for its training sessions only. That
it is above the training loss says nothing: the experts know the training sessions already."""


class RoutingStatistics(NamedTuple):
    """What the weights of many sessions look like, layer by layer."""

    entropy: np.ndarray
    """(L,): mean over sessions of the entropy of α, in nats; ln E is uniform."""
    load: np.ndarray
    """(L, E): mean weight of each expert."""
    variance: np.ndarray
    """(L,): variance of a weight between sessions, mean over experts."""
    mutual_information: np.ndarray
    """(L,): between session and expert, in nats: entropy of the mean α minus mean entropy of α."""

    def to_json(self) -> dict[str, Any]:
        """As plain lists, five decimals."""
        return {name: np.round(value, 5).tolist() for name, value in self._asdict().items()}


class FusionResult(NamedTuple):
    """What the training of a fusion leaves behind."""

    folder: Path
    """Experts and fusion, for `RoutedModel.from_pretrained`; `routing.json` beside them."""
    history: list[dict[str, float]]
    """Trainer's log: `loss`, `eval_loss`, and of each epoch's α on validation `entropy`, `variance`,
    `mutual_information`, `load_<expert>`, means over layers."""
    seconds: float
    """Wall time, resumed parts included."""
    warnings: tuple[str, ...]
    """Signs of failure that were found at the end."""


def routing_statistics(alpha: np.ndarray) -> RoutingStatistics:
    """Entropy, load, variance and mutual information of the weights of many sessions.

    Shapes:
        alpha: (sessions, L, E)

    Raises:
        ValueError: another shape, or no sessions.
    """
    alpha = np.asarray(alpha, dtype=float)
    if alpha.ndim != 3 or not len(alpha):
        raise ValueError(f"alpha has shape {alpha.shape}: give (sessions, layers, experts), at least one session")

    def entropy(p: np.ndarray) -> np.ndarray:
        return -np.sum(p * np.log(np.clip(p, 1e-12, None)), axis=-1)

    load = alpha.mean(0)
    mean_entropy = entropy(alpha).mean(0)
    return RoutingStatistics(
        entropy=mean_entropy,
        load=load,
        variance=alpha.var(0).mean(-1),
        mutual_information=np.maximum(entropy(load) - mean_entropy, 0.0),
    )


def failure_signs(statistics: RoutingStatistics, names: Sequence[str], losses: Sequence[float] = ()) -> list[str]:
    """The published signs of a router that failed, in words; none of them proves it.

    Args:
        statistics: of the validation sessions.
        names: the experts'.
        losses: validation losses, epoch by epoch.
    """
    signs = []
    n_experts = statistics.load.shape[1]
    if n_experts > 1:
        uniform = statistics.entropy > UNIFORM_ENTROPY * math.log(n_experts)
        if uniform.all() and (statistics.variance < UNIFORM_VARIANCE).all():
            signs.append(
                f"α is uniform in every layer (entropy {statistics.entropy.mean():.3f} of ln {n_experts} = "
                f"{math.log(n_experts):.3f}, no variance between sessions): the router learned nothing beyond averaging"
            )
        if (statistics.load.max(1) > DOMINANT_LOAD).all():
            chosen = Counter(names[k] for k in statistics.load.argmax(1))
            who = f"the expert {next(iter(chosen))!r} has" if len(chosen) == 1 else "one expert has"
            layers = "" if len(chosen) == 1 else f" ({', '.join(f'{name} in {n}' for name, n in chosen.most_common())})"
            signs.append(f"{who} more than {DOMINANT_LOAD} of the weight in every layer{layers}, whatever the session")
    if losses and losses[-1] > RISEN * min(losses):
        signs.append(
            f"the validation loss rose from {min(losses):.3f} to {losses[-1]:.3f}: what the fusion learns by now holds "
            "for its training sessions only"
        )
    return signs


def trace_alpha(
    model: RoutedModel,
    tokenizer,
    sessions: Iterable[Session],
    *,
    prompt: PromptConfig | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> np.ndarray:
    """α of every session's prompt, in the order of the sessions.

    Shapes:
        → (sessions, L, E)
    """
    from tqdm.auto import tqdm

    prompt, sessions = prompt or PromptConfig(), list(sessions)
    found: dict[int, np.ndarray] = {}
    model.eval()
    with tqdm(total=len(sessions), unit="session", desc="tracing α", disable=not progress) as bar:
        for rows in prompt_batches(sessions, tokenizer, prompt, batch_size):
            batch = pad_left([row.ids for row in rows], model, tokenizer)
            with torch.inference_mode():
                model(**batch, use_cache=False, logits_to_keep=1)
            found |= {session.id: alpha for (session, _, _), alpha in zip(rows, model.alpha, strict=True)}
            bar.update(len(rows))
    return np.stack([found[session.id] for session in sessions])


class _FusionTrainer(SessionTrainer):
    """Adds penalties to the loss, watches α during validation, and keeps only what is learned in checkpoints."""

    config: RouterConfig
    names: Sequence[str]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not model.training:
            self.alphas.append(model.alpha)
        elif self.config.entropy_weight or self.config.balance_weight:
            alpha = torch.stack([gate.alpha for gate in model.gates.values()], -2).flatten(0, -3)  # (B or B·T, L, E)
            loss = loss + self._penalty(alpha) / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _penalty(self, alpha: torch.Tensor) -> torch.Tensor:
        entropy = torch.special.entr(alpha).sum(-1).mean()
        load = alpha.mean(0)  # (L, E)
        imbalance = (math.log(load.shape[-1]) - torch.special.entr(load).sum(-1)).mean()  # KL(load ‖ uniform)
        return self.config.entropy_weight * entropy + self.config.balance_weight * imbalance

    def evaluation_loop(self, *args, **kwargs):
        self.alphas: list[np.ndarray] = []
        output = super().evaluation_loop(*args, **kwargs)
        self.statistics = routing_statistics(np.concatenate(self.alphas))
        means = {name: float(np.mean(getattr(self.statistics, name))) for name in ("entropy", "variance")}
        means["mutual_information"] = float(self.statistics.mutual_information.mean())
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


def train_fusion(
    model: RoutedModel,
    student: Student,
    sessions: Iterable[Session],
    folder: str | Path,
    *,
    config: RouterConfig | None = None,
    prompt: PromptConfig | None = None,
    reader: PairReader | None = None,
    validation: Iterable[Session] = (),
    seed: int = 0,
    progress: bool = True,
) -> FusionResult:
    """Learn the fusion's weights from raw sessions, and save experts and fusion.

    A finished training with the same configuration is loaded instead of repeated; an interrupted one goes on.

    Args:
        model: the student with its experts and a fusion that can learn; trained in place.
        student: the student inside it.
        sessions: training sessions.
        folder: where experts and fusion go, with `routing.json` (configuration, log, statistics) beside them.
        config: optimizer settings and penalties.
        prompt: how sessions are written.
        reader: reads pairs of items, where `config.pair_weight` asks for them.
        validation: sessions whose loss and α are looked at after each epoch.
        seed: of the order of sessions.
        progress: show a progress bar.

    Raises:
        ValueError: the fusion has nothing to learn, or cannot learn (`top_k=1`); no sessions, or one too long.
        RuntimeError: no gradient reaches the fusion.
    """
    folder, config, prompt = Path(folder), config or RouterConfig(), prompt or PromptConfig()
    _check_fusion(model)

    def encode(session: Session, order: Sequence[int] | None) -> Example:
        options = {"max_length": config.max_length, "pairs_at": pairs_at(config, reader)}
        return encode_example(session, student.tokenizer, prompt, order=order, **options)

    train = SessionExamples(sessions, encode, permute=config.permute, seed=seed)
    valid = SessionExamples(validation, encode)
    if not len(train):
        raise ValueError("sessions is empty: a fusion needs at least one training session")
    experts = [adapter.sha256 for adapter in model.adapters]
    about = [model.fusion.to_json(), experts, seed, student.info.sha256, student.info.dtype]
    run_id = digest(config, prompt, *about, sha256_json([train.plain, valid.plain]), reader and reader.config)
    if (done := _finished(model, folder, run_id)) is not None:
        return done

    check_ours(folder, ROUTED_FILES)
    with one_at_a_time(folder, run_id):
        if (done := _finished(model, folder, run_id)) is not None:  # by another process, while this one waited
            return done
        work = folder.with_name(f".{folder.name}.{run_id}.training")
        static = isinstance(model.fusion, Static)
        rate = config.static_learning_rate if static else config.learning_rate
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
        trainer.names, trainer.statistics = model.expert_names, None
        history, seconds = run_trainer(trainer)
        signs = []
        if trainer.statistics is not None:
            losses = [row["eval_loss"] for row in history if "eval_loss" in row]
            signs = failure_signs(trainer.statistics, model.expert_names, losses)
        summary = {
            "digest": run_id,
            "config": {**config.__dict__, "seed": seed},
            "sessions": len(train),
            "seconds": seconds,
            "statistics": trainer.statistics.to_json() if trainer.statistics is not None else None,
            "warnings": signs,
            "history": history,
        }
        model.eval()
        with atomic_folder(folder, ours=ROUTED_FILES) as target:
            model.write(target)
            write_json(target / "routing.json", summary)
        shutil.rmtree(work, ignore_errors=True)
        for sign in signs:
            warnings.warn(sign, stacklevel=2)
        return FusionResult(folder, history, seconds, tuple(signs))


def _check_fusion(model: RoutedModel) -> None:
    fusion = model.fusion
    if not list(model.weigher.parameters()):
        raise ValueError(f"{type(fusion).__name__} has nothing to learn: train a Static or a Dynamic fusion")
    if isinstance(fusion, Dynamic) and fusion.top_k == 1:
        raise ValueError(
            "top_k = 1: the one weight that is left is always 1, so no gradient reaches the router. "
            "Train with top_k = 2 or None, and set top_k = 1 afterwards."
        )


def _finished(model: RoutedModel, folder: Path, run_id: str) -> FusionResult | None:
    from safetensors.torch import load_file

    summary = finished_summary(folder / "routing.json", run_id)
    if summary is None:
        return None
    model.weigher.load_state_dict(load_file(folder / "fusion.safetensors"))
    model.eval()
    return FusionResult(folder, summary["history"], summary["seconds"], tuple(summary["warnings"]))
