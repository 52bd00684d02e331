"""What a training run shows and checks while it goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tqdm.auto import tqdm
from transformers import TrainerCallback


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
        # 4-bit layers on some CPUs lose their backward pass after an evaluation, without an error.
        if all(p.grad is None for p in model.parameters() if p.requires_grad):
            raise RuntimeError(
                "no gradient reaches the adapter: load the student afresh before training (4-bit weights that were "
                "used for evaluation on a CPU cannot be trained through)."
            )

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
