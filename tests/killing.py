"""A small study that is killed again and again: `python killing.py FOLDER SEED KILLS`.

A program of its own, since a process that has used torch should not be forked: this one only imports it, and every run
of the study is a fork of it. Three of four kills come at the n-th thing that happens to a file of the study or to a
training, which is the same in every test, and half of these leave the last file cut off; the others come after a random
time. Prints what was found, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import scipy.stats  # noqa: F401  (statistics needs it)
import torch
from stopped import timeless

from routedk_lite.config import VoteConfig, get_profile
from routedk_lite.data import domains
from routedk_lite.files import sha256_file
from routedk_lite.student import trainer
from routedk_lite.study import study as holdings
from routedk_lite.study.pipeline import Pipeline

LIMIT = {"train": 10, "validation": 4, "test": 5}
"""Sessions; with two in a micro-batch and two micro-batches in a step, an epoch ends in an incomplete step."""
STAGES = ("base-seed0", "fusion-dynamic-k2-seed0", "voting-base-seed0")


class Kill(NamedTuple):
    """When a run is killed."""

    event: int | None = None
    """At this event of the run, counted from 1."""
    cut: float | None = None
    """Before that, cut the last file that was opened for writing to this share."""
    seconds: float | None = None
    """Or after this time."""


def run_study(folder: Path) -> None:
    """Experts with dropout, in bfloat16, whose items change places; a router with penalties; answers and votes."""
    toy = get_profile("toy")
    quick = {"epochs": 2, "micro_batch_size": 2, "accumulation_steps": 2}
    profile = replace(
        toy,
        student=replace(toy.student, dtype="bfloat16"),
        train=replace(toy.train, **quick, r=2, lora_dropout=0.2, permute=True),
        router=replace(toy.router, **quick, learning_rate=0.05, entropy_weight=0.1, balance_weight=0.1),
        decode=replace(toy.decode, batch_size=2, max_new_tokens=6),
        vote=VoteConfig(n=3, sizes=(1, 3)),
    )
    holdings.load_domain = first_sessions
    Pipeline(profile, results=folder / "results", work=folder / "runs", progress=False).run(only=STAGES)


def first_sessions(name: str, split: str):
    domain = domains.load_domain(name, split)
    return replace(domain, sessions=domain.sessions[: LIMIT[split]])


def arm(folder: Path, kill: Kill, log: Path) -> list[int]:
    """Count what happens in this process, and kill it at its time; the count so far."""
    count, written, busy = [0], [""], [False]

    def happened(what: str) -> None:
        count[0] += 1
        if count[0] == kill.event:
            busy[0] = True
            if kill.cut is not None and os.path.isfile(written[0]):
                os.truncate(written[0], int(kill.cut * os.path.getsize(written[0])))
            log.open("a").write(what + "\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple) -> None:
        if busy[0] or not (event == "open" or event.startswith(("os.", "shutil."))):
            return
        path = next((os.fspath(a) for a in arguments if isinstance(a, str | os.PathLike)), "")
        if isinstance(path, str) and path.startswith(str(folder)):
            if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                written[0] = path
            happened(f"{event} {path.removeprefix(str(folder))}")

    def counted(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def wrapped(self, *args, **kwargs):
            happened(name)
            return real(self, *args, **kwargs)

        setattr(kind, name, wrapped)

    sys.addaudithook(heard)
    for name in ("training_step", "prediction_step"):
        counted(trainer.SessionTrainer, name)
    counted(torch.optim.AdamW, "step")
    return count


def worker(folder: Path, kill: Kill, log: Path) -> int:
    """Fork a process that runs the study and may be killed; its exit status. Events of a whole run go to the log."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            output = os.open(log.with_name("output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            count = arm(folder, kill, log)
            run_study(folder)
            if kill == Kill():
                log.open("a").write(f"{count[0]}\n")
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    if kill.seconds is not None:
        time.sleep(kill.seconds)
        os.kill(pid, signal.SIGKILL)
        log.open("a").write("time\n")
    return os.waitpid(pid, 0)[1]


def contents(folder: Path) -> dict[str, object]:
    """What a study has left, file by file, without what a clock says."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file():
            found[name] = timeless(json.loads(path.read_text())) if path.suffix == ".json" else sha256_file(path)
    return found


def draw(chance: random.Random, n_events: int, seconds: float) -> Kill:
    """A time to kill: early in what is left of a run, so that one run is killed several times."""
    if chance.random() < 0.25:
        return Kill(seconds=chance.uniform(0.05, 0.6) * seconds)
    return Kill(event=1 + int(n_events * chance.random() ** 2), cut=chance.choice([None, chance.random()]))


def main(top: Path, seed: int, n_kills: int) -> None:
    for split in LIMIT:  # once for all
        domains.load_domain("toyshop", split)
    gc.freeze()
    log = top / "kills.log"
    started = time.perf_counter()
    if worker(top / "whole", Kill(), log):
        sys.exit(f"the run that nobody kills failed: {log.with_name('output.log').read_text()[-3000:]}")
    seconds, n_events, whole = time.perf_counter() - started, int(log.read_text()), contents(top / "whole")
    log.write_text("")
    chance, kills, runs, wrong = random.Random(seed), 0, 0, []
    while kills < n_kills:
        folder, times = top / f"run-{runs}", []
        while True:
            kill = draw(chance, n_events, seconds) if kills < n_kills else Kill(event=n_events * 10)
            status = worker(folder, kill, log)
            if status == 0:
                break
            if not os.WIFSIGNALED(status):
                sys.exit(f"failed after {times}: {log.with_name('output.log').read_text()[-3000:]}")
            kills += 1
            times.append(kill)
        found, runs = contents(folder), runs + 1
        wrong += [(folder.name, k, times) for k in found.keys() | whole.keys() if found.get(k) != whole.get(k)]
        shutil.rmtree(folder)
    where = Counter(line.split(" ")[0] for line in log.read_text().splitlines())
    report = {"kills": kills, "runs": runs, "different": wrong, "events": n_events, "where": where}
    print(json.dumps(report | {"files": sorted(whole)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
