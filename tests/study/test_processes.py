"""Several jobs, several processes: who waits for whom, and what may be launched how."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest
from conftest import ROOT, load_script
from safetensors.torch import load_file

from routedk_lite.config import get_profile
from routedk_lite.student.summaries import one_at_a_time
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.records import load_all

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
    assert before("voting-dynamic-seed1") == before("fusion-dynamic-seed1") | {"fusion-dynamic-seed1"}
    assert before("explorer-seed1") > before("voting-dynamic-seed1") | {"voting-dynamic-seed1"}


def test_a_study_in_several_processes_is_refused_before_it_hangs(monkeypatch) -> None:
    for processes in ("2", "two"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(RuntimeError, match=rf"WORLD_SIZE = {processes}: a study runs in one.*workflow/Snakefile"):
            Pipeline("toy")
    for one in ("1", "0", "", " "):
        monkeypatch.setenv("WORLD_SIZE", one)
        Pipeline("toy")


@pytest.mark.parametrize(("processes", "waits"), [("", True), ("0", True), ("1", True), (" 1 ", True), ("2", False)])
def test_only_processes_that_share_a_training_do_not_wait_for_each_other(monkeypatch, tmp_path, processes, waits):
    """Of an empty `WORLD_SIZE`, as a script may leave it, there is one."""
    monkeypatch.setenv("WORLD_SIZE", processes)
    with one_at_a_time(tmp_path / "expert", "run"):
        assert (tmp_path / ".expert.run.lock").exists() is waits


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


# --- on a machine that is lent for a while ---


@pytest.fixture
def lent():
    return load_script("lent_machine")


def test_what_ends_in_time_is_packed_and_goes_on_elsewhere(lent, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["x", "--minutes", "5", "--profile", "toy", "--only", "floor-*", "--out", f"{tmp_path}/out",
                      "--work", f"{tmp_path}/runs"],
    )  # fmt: skip
    folder = tmp_path / "runs" / "toy" / "toyshop"
    for name in ("base-seed0", ".rules-seed0.x.training"):
        (folder / name).mkdir(parents=True)
        (folder / name / "training.json").write_text("{}")
    lent.main()
    records = load_all(tmp_path / "out" / "results")
    assert {r.run for r in records} == {"floor-all_pairs", "floor-pairs", "floor-random", "floor-whole"}
    with tarfile.open(tmp_path / "out" / "adapters.tar") as archive:
        assert {Path(name).parts[:3] for name in archive.getnames()} == {("toy", "toyshop", "base-seed0")}


def test_when_the_time_is_up_what_has_ended_is_kept(lent, tmp_path):
    study = Pipeline("toy", results=tmp_path / "results", work=tmp_path / "runs", progress=False)
    slow = study.chosen(["floor-pairs", "floor-whole"])
    slow[-1] = slow[-1]._replace(run=lambda: time.sleep(60), is_done=lambda: False)
    study.chosen = lambda only, part: slow
    ended = lent.run(study, [], "method", 0.05)
    assert ended[-1] == slow[-2].name and slow[-1].name not in ended
    assert [r.run for r in load_all(tmp_path / "results")] == [slow[-2].name]


def test_pieces_become_the_file_or_nothing(lent, tmp_path, monkeypatch):
    (tmp_path / "pieces").mkdir()
    for name, content in (("b", b"456"), ("a", b"123")):
        (tmp_path / "pieces" / name).write_bytes(content)
    with pytest.raises(SystemExit, match="together they have SHA-256"):
        lent.put_together(tmp_path / "pieces", "qwen", tmp_path)
    qwen = get_profile("qwen")
    right = replace(qwen, student=replace(qwen.student, file_sha256=hashlib.sha256(b"123456").hexdigest()))
    monkeypatch.setattr(lent, "get_profile", lambda name: right)
    assert lent.put_together(tmp_path / "pieces", "qwen", tmp_path).read_bytes() == b"123456"
    with pytest.raises(SystemExit, match="student of toy is not one file"):
        monkeypatch.undo() or lent.put_together(tmp_path / "pieces", "toy", tmp_path)
