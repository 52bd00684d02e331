"""kill -9 at any moment: of training, saving, validating, writing experts and records."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from conftest import ROOT

KILLS = 50


def test_a_study_that_is_killed_fifty_times_leaves_what_an_unharmed_one_does(tmp_path) -> None:
    """Every file, byte by byte; of JSON everything but what a clock says. And no file more."""
    alone = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "killing.py"), str(tmp_path), "0", str(KILLS)],
        env=os.environ | alone, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["different"] == []
    assert report["kills"] == KILLS and report["runs"] > 1
    assert not [name for name in report["files"] if "training" in name.split("/")[-2] or "unfinished" in name]
    assert {"results/toy/toyshop/voting-base-seed0.json", "runs/toy/toyshop/both-seed0/training.json"} <= set(
        report["files"]
    )
