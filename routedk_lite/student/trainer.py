"""The Trainer of every training run here: its loss, its log, and how it can be killed and go on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

from ..config import OptimizerConfig
from ..files import write_json
from ..unfinished import remove
from .backbone import LOST_BACKWARD, lost_backward
from .batches import LengthGroupedSampler
from .checkpoints import UnwritableError, checkpoint_folder, seal, told_if_unwritable
from .examples import SessionExamples
from .pairs import PairReader
from .peak import peak_since_mb

KEPT = "progress-{}.json"
"""What each process keeps in a checkpoint beside what a Trainer does."""


class TrainingProgress(TrainerCallback):
    """A progress bar with the losses; the sampler's epoch; a check that gradients arrive; when checkpoints are written.

    At an epoch's end that is after everything else: a training that goes on from there has its validation already, and
    one that was killed before has it yet to come.
    """

    def __init__(self, sampler: LengthGroupedSampler, examples: SessionExamples, *, shown: bool) -> None:
        self.sampler, self.examples, self.shown = sampler, examples, shown
        self.bar: tqdm | None = None
        self.losses: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
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
        if state.epoch.is_integer():
            control.should_save = False

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_loss", "validation"), ("eval_pair_loss", "pairs")):
            if logs and key in logs:
                self.losses[name] = f"{float(logs[key]):.3f}"
        if self.bar is not None:
            self.bar.set_postfix(self.losses)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class SessionTrainer(Trainer):
    """A Trainer whose order of sessions is ours, whose loss may have a part for pairs, and which can be killed.

    Beside what a Trainer puts into a checkpoint, ours holds what is not logged yet, so that the log of a training that
    goes on is that of one that was never stopped.
    """

    sampler: LengthGroupedSampler
    config: OptimizerConfig
    reader: PairReader | None = None
    n_batches = n_pairs = 0
    """Micro-batches of the present optimizer step, and pairs in them."""
    seen: list[tuple[float, int]]
    """Pair loss and number of pairs of each micro-batch since the last row of the log."""
    started = before = 0.0
    """When this process began to train, and the seconds that others had trained before it."""
    peak_before = 0.0
    """Largest memory of those others, in MiB."""
    logged_at = 0
    """Optimizer steps before the last row of the log that holds a loss."""
    logged = 0.0
    """Sum of the losses of these steps."""
    unlogged: torch.Tensor
    """Sum of the losses since then."""

    @property
    def seconds(self) -> float:
        """Wall time so far, all processes included that trained one after another."""
        return self.before + time.perf_counter() - self.started

    @property
    def peak_mb(self) -> float:
        """Largest memory of the training so far, in MiB, in all processes that trained one after another."""
        return round(max(self.peak_before, peak_since_mb()), 1)

    def kept(self) -> dict[str, Any]:
        """What else a checkpoint must hold, as JSON."""
        return {
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
            "seen": self.seen,
            "logged_at": self.logged_at,
            "logged": self.logged,
            "unlogged": self.unlogged.item(),
        }

    def take_up(self, kept: dict[str, Any]) -> None:
        """Go on from what `kept` has left."""
        self.before, self.seen = kept["seconds"], [(loss, count) for loss, count in kept["seen"]]
        self.logged_at, self.logged = kept["logged_at"], kept["logged"]
        self.peak_before = kept.get("peak_mb") or 0.0  # checkpoints of earlier versions have none
        self.unlogged.fill_(kept["unlogged"])

    def _save_checkpoint(self, *args, **kwargs):
        self._finite_loss()  # a checkpoint of NaN would take the place of a good one
        folder = checkpoint_folder(self.args.output_dir, self.state.global_step)
        try:
            with told_if_unwritable(folder):
                if self.is_world_process_zero():
                    remove(folder)  # a damaged one
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(*args, **kwargs)
                write_json(folder / KEPT.format(self.args.process_index), self.kept())
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    seal(folder, self.args.world_size)
        except UnwritableError:
            remove(folder)  # half a checkpoint takes room and is good for nothing
            raise

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
        self.n_batches = len(batches)
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

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.unlogged += loss
        return loss

    def _finite_loss(self) -> float:
        """Sum of the losses since the last row of the log.

        Raises:
            ValueError: it is not finite. A scaler of float16 would skip all steps from then on, and say nothing.
        """
        total = self.accelerator.gather(self.unlogged).mean().item()
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is {total} after step {self.state.global_step}: numbers overflow. Leave the student's dtype "
                "and attention at auto, or lower the learning rate"
            )
        return total

    def log(self, logs, *args, **kwargs):
        # A Trainer that goes on has forgotten the losses of the steps before.
        if "loss" in logs or "train_loss" in logs:
            total = self._finite_loss()
            self.unlogged.zero_()
            self.logged += total
        if "loss" in logs:
            logs["loss"] = total / (self.state.global_step - self.logged_at)
            self.logged_at = self.state.global_step
            if self.reader is not None:
                logs["pair_loss"] = self._mean_pair_loss()
        if "train_loss" in logs:
            logs["train_loss"] = self.logged / self.state.global_step
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
