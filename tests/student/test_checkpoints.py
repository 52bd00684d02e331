"""A training that is stopped at any moment ends as if nobody had stopped it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from full_disk import files_up_to
from stopped import Stop, stop_at, timeless
from transformers import TrainingArguments

from routedk_lite.config import PairConfig
from routedk_lite.files import UnreadableError, sha256_folder, write_json
from routedk_lite.student import checkpoints, trainer, training
from routedk_lite.student.backbone import load_student
from routedk_lite.student.checkpoints import UnwritableError, checkpoint_folder, last_whole_checkpoint, seal
from routedk_lite.student.experts import train_expert
from routedk_lite.student.pairs import make_reader

STEPS = 3
"""Of an epoch: ten sessions, two in a micro-batch, two of these in a step, so that the last step is incomplete."""


@pytest.fixture(scope="module")
def student(tiny_profile):
    """In bfloat16, where the optimizer holds masters of the weights."""
    return load_student(replace(tiny_profile, student=replace(tiny_profile.student, dtype="bfloat16")), device="cpu")


@pytest.fixture(scope="module")
def teach(student, tiny_profile):
    """Trains with everything that chance has a part in."""
    config = replace(
        tiny_profile.train, micro_batch_size=2, accumulation_steps=2, lora_dropout=0.3, permute=True, max_length=256
    )

    def run(folder, sessions, **options):
        options = {"validation": sessions[10:], "progress": False, "config": config} | options
        return train_expert(student, sessions[:10], folder, **options)

    return run


@pytest.fixture(scope="module")
def whole(teach, tmp_path_factory):
    """The folder of a training that nobody stops, made once."""
    return tmp_path_factory.mktemp("whole") / "expert"


def facts(folder: Path) -> tuple[str, dict]:
    """What a training has left, without what a clock says."""
    return sha256_folder(folder), timeless(json.loads((folder / "training.json").read_text()))


def as_if_never_stopped(folder: Path, whole: Path, teach, sessions) -> bool:
    teach(whole, sessions)
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".training")] == []
    assert len([row for row in facts(folder)[1]["history"] if "eval_loss" in row]) == 2
    return facts(folder) == facts(whole)


MOMENTS = {
    "before a step": (trainer.SessionTrainer, "training_step"),
    "after a step": (trainer.TrainingProgress, "on_step_end"),
    "in a validation": (trainer.SessionTrainer, "prediction_step"),
    "after a validation": (trainer.TrainingProgress, "on_evaluate"),
    "before a checkpoint": (trainer.SessionTrainer, "_save_checkpoint"),
    "within a checkpoint": (trainer, "seal"),
    "before an older checkpoint is removed": (checkpoints.shutil, "rmtree"),
    "after a checkpoint": (trainer.TrainingProgress, "on_save"),
    "at the end": (trainer.TrainingProgress, "on_train_end"),
}


@pytest.mark.filterwarnings("ignore:.*without what is damaged:UserWarning")
@pytest.mark.parametrize(
    ("moment", "number"),
    [("before a step", k) for k in (1, 2, 3 * STEPS)]
    + [("after a step", k) for k in (1, STEPS, STEPS + 1, 2 * STEPS)]
    + [("in a validation", k) for k in (1, 2)]
    + [("after a validation", k) for k in (1, 2)]
    + [("before a checkpoint", k) for k in (STEPS, 2 * STEPS)]
    + [("within a checkpoint", k) for k in (1, STEPS, 2 * STEPS)]
    + [("before an older checkpoint is removed", k) for k in (1, STEPS)]
    + [("after a checkpoint", k) for k in (STEPS, 2 * STEPS)]
    + [("at the end", 1)],
)
def test_a_training_that_is_stopped_ends_as_if_it_had_not_been(
    teach, whole, sessions, tmp_path, monkeypatch, moment, number
):
    with monkeypatch.context() as patch:
        stop_at(patch, *MOMENTS[moment], number)
        with pytest.raises(Stop):
            teach(tmp_path / "expert", sessions)
    assert not (tmp_path / "expert").exists()
    teach(tmp_path / "expert", sessions)
    assert as_if_never_stopped(tmp_path / "expert", whole, teach, sessions)


def stopped(folder: Path, teach, sessions, monkeypatch, after: int) -> Path:
    """Stop a training after so many checkpoints, and keep all of them; where they lie."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", lambda *args, **kwargs: None)
        stop_at(patch, *MOMENTS["after a checkpoint"], after)
        with pytest.raises(Stop):
            teach(folder, sessions)
    (work,) = folder.parent.glob(f".{folder.name}.*.training")
    return work


@pytest.mark.parametrize(
    ("part", "harm"),
    [
        ("optimizer.pt", "missing"), ("optimizer.pt", "cut off"), ("optimizer.pt", "another"),
        ("adapter_model.safetensors", "another"), ("scheduler.pt", "missing"), ("rng_state.pth", "another"),
        ("trainer_state.json", "missing"), ("progress-0.json", "cut off"), ("manifest.json", "missing"),
        ("manifest.json", "cut off"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    teach, whole, sessions, tmp_path, monkeypatch, part, harm
):
    work = stopped(tmp_path / "expert", teach, sessions, monkeypatch, STEPS)
    path = checkpoint_folder(work, STEPS) / part
    if harm == "missing":
        path.unlink()
    elif harm == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        other = checkpoint_folder(work, STEPS - 1) / part
        shutil.copy(other, path)
    why = f"training goes on from checkpoint-{STEPS - 1}, without what is damaged: checkpoint-{STEPS}: .*{part}"
    with pytest.warns(UserWarning, match=why):
        teach(tmp_path / "expert", sessions)
    assert as_if_never_stopped(tmp_path / "expert", whole, teach, sessions)


def test_losses_between_two_rows_of_the_log_are_not_lost(student, teach, sessions, tiny_profile, tmp_path, monkeypatch):
    """Nor those of pairs: a row of four steps that begins before the stop is the row that it would have been."""
    monkeypatch.setattr(
        training, "TrainingArguments", lambda **given: TrainingArguments(**given | {"logging_steps": 4})
    )
    config = replace(tiny_profile.train, micro_batch_size=2, lora_dropout=0.3, pair_weight=0.5, max_length=256)
    options = {"config": config, "reader": make_reader(student, sessions[:10], PairConfig(layer=2))}
    history = teach(tmp_path / "whole", sessions, **options).history
    assert [row["step"] for row in history if "loss" in row] == [4, 8]
    with monkeypatch.context() as patch:
        stop_at(patch, *MOMENTS["after a checkpoint"], 3)
        with pytest.raises(Stop):
            teach(tmp_path / "expert", sessions, **options)
    teach(tmp_path / "expert", sessions, **options)
    assert facts(tmp_path / "expert") == facts(tmp_path / "whole")
    assert all(row["pair_loss"] > 0 for row in history if "loss" in row)
    everything = [row for row in history if "train_loss" in row]
    assert everything[0]["train_loss"] == pytest.approx(history[0]["loss"], rel=0.3)


def test_without_any_whole_checkpoint_a_training_starts_again_and_says_so(
    teach, whole, sessions, tmp_path, monkeypatch
):
    work = stopped(tmp_path / "expert", teach, sessions, monkeypatch, 2)
    for folder in work.iterdir():
        (folder / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match="starts again from the beginning.*checkpoint-2: its optimizer.pt is missing"):
        teach(tmp_path / "expert", sessions)
    assert as_if_never_stopped(tmp_path / "expert", whole, teach, sessions)


def test_a_checkpoint_of_more_processes_is_left_out(tmp_path):
    for step, processes in ((2, 1), (10, 2)):
        folder = checkpoint_folder(tmp_path, step)
        folder.mkdir()
        write_json(folder / "trainer_state.json", {"step": step})
        seal(folder, processes)
        (tmp_path / "checkpoint-best").mkdir(exist_ok=True)  # none of a Trainer's
    assert not checkpoint_folder(tmp_path, 2).exists(), "the older one is removed"
    assert last_whole_checkpoint(tmp_path, 2) == checkpoint_folder(tmp_path, 10)
    with pytest.warns(UserWarning, match="written by 2 processes, and now there are 1"):
        assert last_whole_checkpoint(tmp_path, 1) is None


def test_who_looks_at_each_epoch_misses_none(teach, sessions, tmp_path):
    """And is shown an epoch again whose end was not got over: half a look is none."""
    seen = []

    def look(model, n_seen):
        seen.append(n_seen)
        if len(seen) in (1, 3):
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            teach(tmp_path / "expert", sessions, on_epoch=look)
    teach(tmp_path / "expert", sessions, on_epoch=look)
    assert seen == [10, 10, 20, 20]


# --- a full disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before a checkpoint", "at the end"])
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(teach, whole, sessions, tmp_path, monkeypatch, moment):
    owner, name = MOMENTS[moment]
    real, full, count = getattr(owner, name), files_up_to(1000), [0]

    def filling(*args, **kwargs):
        count[0] += 1
        if count[0] == (2 if moment == "before a checkpoint" else 1):
            full.__enter__()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, filling)
    try:
        with pytest.raises(UnwritableError, match=r"cannot write \S+(checkpoint-2|expert) \(.*\): make room there"):
            teach(tmp_path / "expert", sessions)
    finally:
        full.__exit__(None, None, None)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".training"]
    monkeypatch.setattr(owner, name, real)
    teach(tmp_path / "expert", sessions)
    assert as_if_never_stopped(tmp_path / "expert", whole, teach, sessions)


# --- a finished expert --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("harm", ["missing", "cut off", "another"])
def test_a_finished_expert_that_is_damaged_is_trained_again(teach, whole, sessions, tmp_path, part, harm):
    teach(whole, sessions)
    folder = shutil.copytree(whole, tmp_path / "expert")
    content = (folder / part).read_bytes()
    (folder / part).unlink()
    if harm != "missing":
        (folder / part).write_bytes(content[:-10] if harm == "cut off" else b"{}" + content)
    with pytest.warns(UserWarning, match=f"{part} is missing, or not what training.json belongs to: trained again"):
        teach(folder, sessions)
    assert as_if_never_stopped(folder, whole, teach, sessions)


def test_what_a_finished_training_had_no_time_to_remove_is_removed(teach, whole, sessions, tmp_path):
    teach(whole, sessions)
    folder = shutil.copytree(whole, tmp_path / "expert")
    digest = json.loads((folder / "training.json").read_text())["digest"]
    left, other = (tmp_path / f".expert.{run}.training" for run in (digest, "abcd1234"))
    for work in (left, other):
        checkpoint_folder(work, 1).mkdir(parents=True)
    teach(folder, sessions)
    assert not left.exists() and other.exists(), "another training's checkpoints stay"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ('{"digest": "x"', "no JSON, or cut off"),
        ("[1]", "expected an object, found a list"),
        ('{"digest": "x"}', "seconds is missing"),
        ('{"digest": 3, "seconds": 1, "history": [], "tokens_per_second": 1}', "digest is 3"),
    ],
)
def test_a_summary_that_is_none_is_named(teach, sessions, tmp_path, content, why):
    (tmp_path / "expert").mkdir()
    (tmp_path / "expert" / "training.json").write_text(content)
    with pytest.raises(UnreadableError, match=rf"expert/training\.json: not the summary of a training: {why}.*remove"):
        teach(tmp_path / "expert", sessions)
