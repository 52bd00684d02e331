"""The workflow knows every stage of a study, in an order in which no two jobs make the same thing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from threading import Thread
from time import sleep

import pytest
from conftest import ROOT, require

from routedk_lite.locks import locked
from routedk_lite.study.pipeline import Pipeline

SNAKEFILE = ROOT / "workflow" / "Snakefile"


@pytest.fixture
def plan(tmp_path):
    """The jobs that a dry run names, by output, with their inputs; and all that it said."""
    require(SNAKEFILE.exists(), "the workflow comes with the repository only")
    require(importlib.util.find_spec("snakemake"), "needs snakemake: pip install 'routedk-lite[workflow]'")

    def dry_run(*settings):
        places = [f"results={tmp_path / 'results'}", f"work={tmp_path / 'runs'}"]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--cores", "2", "--dry-run", "-p"]
        done = subprocess.run(
            [*command, "--directory", str(tmp_path), "--config", *places, *settings],
            capture_output=True, text=True, env=os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        said = (done.stdout + done.stderr).replace(f"{tmp_path}/", "")
        jobs = re.findall(r"(?:    input: (.*)\n)?    output: (.+)\n", said)
        return {output: set(inputs.split(", ")) - {""} for inputs, output in jobs}, said

    return dry_run


def test_every_stage_says_which_record_it_ends_with(tmp_path):
    study = Pipeline("toy", results=tmp_path, work=tmp_path / "runs", progress=False)
    stages = [stage for stage in study.stages if stage.kind != "fetch"]
    assert len({stage.record for stage in stages}) == len(stages)
    (record,) = study.run(only=["floor-pairs"])
    (floor,) = [stage for stage in stages if stage.name == "floor-pairs"]
    assert floor.record == record.path
    (conflict,) = [stage for stage in stages if stage.name == "conflict-seed0"]
    assert conflict.record == tmp_path / "toy/toyshop/measured/conflict-seed0.json"


def test_two_who_want_to_make_the_same_thing_take_turns(tmp_path):
    seen = []

    def make(name):
        with locked(tmp_path / "folder" / "expert"):
            seen.append(name)
            sleep(0.2)
            seen.append(name)

    threads = [Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen in ([*"aabb"], [*"bbaa"])


def test_the_grid_is_domain_times_seed_times_stage(plan):
    jobs, said = plan("profile=toy", "seeds=0,1", "part=method,companion,ablations,fusions")
    stages = {
        str(stage.record)
        for seed in (0, 1)
        for stage in Pipeline("toy", seed=seed, results="results").stages
        if stage.kind != "fetch"
    }
    assert jobs.keys() == stages | {"runs/toy/toyshop/fetched"}, said
    assert re.search(rf"stage +{len(stages)}\n", said)


@pytest.mark.parametrize(
    ("results", "work", "there"),
    [
        ("my results", "./runs//", ("my results", "runs")),
        ("~/out/", "it's $HOME", ("out", "it's $HOME")),
    ],
)
def test_folders_may_be_written_as_users_write_them(plan, results, work, there):
    jobs, said = plan("profile=toy", "seeds=0", f"results={results}", f"work={work}")
    assert f"{there[0]}/toy/toyshop/floor-pairs.json" in jobs, said
    assert f"{there[1]}/toy/toyshop/fetched" in jobs
    commands = [shlex.split(line) for line in said.splitlines() if "routedk run" in line]
    assert len(commands) == len(jobs)
    for command in commands:
        assert tuple(command[command.index(option) + 1] for option in ("--results", "--work")) == there


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["profile=nope"], "unknown profile 'nope': choose one of toy, smol"),
        (["profile=toy", "seeds=0,x"], "seeds = 'x': must be a whole number, 0 or more"),
        (["profile=toy", "results=file"], "results = file is a file: give the name of a folder"),
    ],
)
def test_settings_that_make_no_sense_are_named(plan, tmp_path, settings, said):
    (tmp_path / "file").touch()
    assert said in plan(*settings)[1]


def test_jobs_wait_for_what_they_need(plan):
    jobs, _ = plan("profile=toy", "seeds=0,1", "part=method,ablations")

    def before(name):
        return {path.removeprefix("results/toy/toyshop/") for path in jobs[f"results/toy/toyshop/{name}.json"]}

    experts = {f"{name}-seed0.json" for name in ("base", "rules", "reasoning", "both")}
    assert before("floor-pairs") == before("base-seed0") == {"runs/toy/toyshop/fetched"}
    assert experts <= before("fusion-dynamic-seed0") and "fusion-static-seed0.json" not in before(
        "fusion-dynamic-seed0"
    )
    assert {"fusion-dynamic-seed0.json", "base-seed0.json"} <= before("voting-dynamic-seed0")
    assert "voting-dynamic-seed0.json" in before("measured/explorer-seed0")
    assert "measured/conflict-seed0.json" in before("both-seed1"), "or nobody would watch its training"


def test_what_is_recorded_is_not_run_again_and_other_settings_are_noticed(plan, tmp_path):
    Pipeline("toy", results=tmp_path / "results", work=tmp_path / "runs", progress=False).run(only=["floor-pairs"])
    record = tmp_path / "results/toy/toyshop/floor-pairs.json"
    jobs, _ = plan("profile=toy", "seeds=0")
    assert "results/toy/toyshop/floor-pairs.json" not in jobs and "results/toy/toyshop/floor-whole.json" in jobs
    content, stale = json.loads(record.read_text()), "or data, or whose files are missing or changed, move them away"
    record.write_text(json.dumps({**content, "config_hash": "other"}))
    _, said = plan("profile=toy", "seeds=0")
    assert stale in said and "floor-pairs.json" in said
    record.write_text(json.dumps(content))
    (beside,) = (path for path in record.parent.iterdir() if path.name.startswith("floor-pairs.") and path != record)
    beside.write_bytes(b"")
    assert stale in plan("profile=toy", "seeds=0")[1]
    record.write_text("{}", encoding="utf-16")
    _, said = plan("profile=toy", "seeds=0")
    assert "floor-pairs.json is no record" in said and "move it away to run it again" in said
