"""What a record says of the code that made it is true, or it says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, load_script, require

from routedk_lite.study import machine
from routedk_lite.study.machine import git_state

COMMIT = "20d802eeb90f200b86029e4b7a78da5f24428806"


def git(folder, *words):
    identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["git", *words], cwd=folder, env=os.environ | identity, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """This module's file alone, in a repository that knows nothing of it."""
    require(shutil.which("git"), "needs git")
    monkeypatch.delenv("ROUTEDK_COMMIT", raising=False)
    git(tmp_path, "init", "-q")
    (tmp_path / "thesis.txt").write_text("theirs")
    git(tmp_path, "add", "thesis.txt")
    git(tmp_path, "commit", "-qm", "theirs")
    path = tmp_path / "venv/routedk_lite/study/machine.py"
    path.parent.mkdir(parents=True)
    shutil.copy(machine.__file__, path)
    monkeypatch.setattr(machine, "__file__", str(path))
    return tmp_path


def test_the_commit_is_that_of_the_checkout(copied):
    git(copied, "add", "venv")
    git(copied, "commit", "-qm", "ours")
    assert git_state() == (git(copied, "rev-parse", "HEAD"), False)
    Path(machine.__file__).write_text("changed")
    assert git_state() == (git(copied, "rev-parse", "HEAD"), True)


def test_somebody_elses_repository_is_not_taken_for_ours(copied):
    assert git_state() == (None, None)


@pytest.mark.parametrize(("told", "state"), [(COMMIT, (COMMIT, False)), (f" {COMMIT}+\n", (COMMIT, True))])
def test_a_copied_tree_is_what_its_owner_says_it_is(copied, monkeypatch, told, state):
    monkeypatch.setenv("ROUTEDK_COMMIT", told)
    assert git_state() == state


@pytest.mark.parametrize("told", ["main", "20d802e", COMMIT + "-dirty", COMMIT.upper()])
def test_what_is_no_commit_is_refused(monkeypatch, told):
    monkeypatch.setenv("ROUTEDK_COMMIT", told)
    with pytest.raises(ValueError, match=f"ROUTEDK_COMMIT = '{told}': must be the forty digits of a commit"):
        git_state()


def test_a_lent_machine_is_told_the_commit_and_complains_at_once(monkeypatch, tmp_path):
    lent = load_script("lent_machine")
    monkeypatch.setenv("ROUTEDK_COMMIT", "")  # is put back afterwards
    words = ["lent_machine.py", "--minutes", "1", "--out", str(tmp_path), "--commit", "HEAD"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(ValueError, match="ROUTEDK_COMMIT = 'HEAD'"):
        lent.main()


def test_what_git_prints_for_a_lent_machine_is_understood(copied, monkeypatch):
    git(copied, "tag", "v1")
    asked = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    for change, dirty in (("theirs", False), ("changed", True)):
        (copied / "thesis.txt").write_text(change)
        monkeypatch.setenv("ROUTEDK_COMMIT", git(copied, *asked))
        assert git_state() == (git(copied, "rev-parse", "HEAD"), dirty)


def test_the_record_of_the_gpu_says_that_its_commit_was_corrected():
    path = ROOT / "results/benchmarks/gpu.json"
    require(path.exists(), "records come with the repository only")
    assert f'"commit": "{COMMIT}"' in path.read_text() and "corrected" in path.read_text()
