"""Several jobs, several processes: who waits for whom, and what may be launched how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from subprocess import PIPE

import pytest
from conftest import ROOT
from safetensors.torch import load_file

from routedk_lite.study.pipeline import Pipeline

SCRIPT = """
import os, sys
from dataclasses import replace
from routedk_lite.student.backbone import load_student
from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.student.experts import train_expert

toy = get_profile("toy")
config = replace(toy.train, epochs=1, micro_batch_size=8, learning_rate=1e-3)
sessions = load_domain("toyshop", "train").sessions[:32]
result = train_expert(load_student(toy, device="cpu"), sessions, sys.argv[1], config=config, progress=False)
steps = [row["step"] for row in result.history if "step" in row]
runtime = next(row["train_runtime"] for row in result.history if "train_runtime" in row)
# In one piece, since two processes write here.
os.write(1, f"RANK {os.environ.get('RANK')} STEPS {int(max(steps))}\\nRUNTIME {runtime}\\n".encode())
"""


def test_a_stage_comes_after_what_it_uses(tmp_path) -> None:
    study = Pipeline("toy", seed=1, results=tmp_path)
    stages = {stage.name: stage for stage in study.stages}
    order = list(stages)

    def before(name: str) -> set[str]:
        found = {stage.name for stage in study.before(stages[name])}
        assert all(order.index(other) < order.index(name) for other in found)
        return found

    experts = {f"{name}-seed1" for name in ("base", "rules", "reasoning", "both")}
    assert before("data") == set()
    assert before("base-seed1") == before("zero-shot") == {"data", "student"}
    assert before("fusion-dynamic-seed1") == {"data", "student"} | experts
    assert before("voting-dynamic-seed1") > before("fusion-dynamic-seed1") | {"fusion-dynamic-seed1"}
    assert before("explorer-seed1") > before("voting-dynamic-seed1") | {"voting-dynamic-seed1"}


def test_a_study_in_several_processes_is_refused_before_it_hangs(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"WORLD_SIZE = 2: a study runs in one process.*workflow/Snakefile"):
        Pipeline("toy")
    monkeypatch.setenv("WORLD_SIZE", "1")
    Pipeline("toy")


def test_one_training_in_two_processes_shares_the_texts_and_leaves_one_expert(tmp_path) -> None:
    script = tmp_path / "launched.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, str(tmp_path / "expert")], env=on_a_cpu(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = sorted(line for line in done.stdout.splitlines() if line.startswith("RANK"))
    assert told == ["RANK 0 STEPS 2", "RANK 1 STEPS 2"], "32 texts, 8 in each of two processes: two steps"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert", "launched.py"]
    weights = load_file(tmp_path / "expert" / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name), "it has learned"
    assert json.loads((tmp_path / "expert" / "training.json").read_text())["sessions"] == 32


def test_two_processes_that_want_the_same_expert_train_it_once(tmp_path) -> None:
    script, folder = tmp_path / "side_by_side.py", tmp_path / "expert"
    script.write_text(SCRIPT, encoding="utf-8")
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)], env=on_a_cpu(), stdout=PIPE, stderr=PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    one, other = (result.splitlines()[-1] for result, _ in said)
    assert one == other and one.startswith("RUNTIME "), "the time of one training, to a tenth of a millisecond"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "training.json",
    ]  # fmt: skip


def on_a_cpu() -> dict[str, str]:
    """The environment of a process that shares its machine with others."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
