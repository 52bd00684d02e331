"""Run as many stages of a study as fit into some minutes, and pack what they made: for a machine lent for a while.

    python scripts/lent_machine.py --minutes 12 --profile qwen --domain electronic --seed 0 --out out

Records and adapters come to lie in `<out>/results` and in `<out>/adapters.tar`; unpack the first over `results/`, and
the second over `runs/`, so that `routedk run` goes on from there. A stage that is not through when the time is up is
left out. Where no model hub can be reached, give the student's file, whole or in pieces that sort by name:

    split -b 30M student.gguf pieces/student.gguf. && python scripts/lent_machine.py --pieces pieces …

The machine has a copy of the tree, and git may know nothing of it there, or something older. So say what it is:

    --commit 8d13a4c00b1f9d380b79335171fdf2f2e554373f

It is one process and knows nothing of the machine: try it on a CPU first, with `--profile toy`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tarfile
import tempfile
import time
from pathlib import Path

from routedk_lite import get_profile
from routedk_lite.errors import ended
from routedk_lite.files import sha256_file
from routedk_lite.places import check_writable, user_folder
from routedk_lite.study.machine import git_state
from routedk_lite.study.pipeline import Pipeline, Stage


class TimeIsUpError(Exception):
    """Raised in the middle of whatever is going on."""


def put_together(pieces: Path, profile: str, folder: Path) -> Path:
    """The student's file from pieces of it, where `ROUTEDK_STUDENTS` looks for it.

    Args:
        pieces: a folder with nothing else in it.
        profile: names the file and its hash.
        folder: where the file goes.
    """
    student = get_profile(profile).student
    if not student.file:
        raise SystemExit(f"--pieces: the student of {profile} is not one file")
    target = folder / Path(student.file).name
    with open(target, "wb") as whole:
        for piece in sorted(pieces.iterdir()):
            with open(piece, "rb") as part:
                shutil.copyfileobj(part, whole)
    if (found := sha256_file(target)) != student.file_sha256:
        wanted = student.file_sha256[:12]
        raise SystemExit(f"--pieces {pieces}: together they have SHA-256 {found[:12]}…, not {wanted}…")
    return target


def run(study: Pipeline, only: list[str], part: str, minutes: float) -> list[str]:
    """Run stages until all are done or the time is up; give the names of those that ended."""
    ended: list[str] = []
    started = time.monotonic()

    def stop(*_: object) -> None:
        raise TimeIsUpError

    def say(stage: Stage, done: bool) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {'done   ' if done else 'running'}  {stage.name}", flush=True)
        if done:
            ended.append(stage.name)

    signal.signal(signal.SIGALRM, stop)
    # Again and again: what is raised in a destructor, or where a library catches everything, is lost.
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 30)
    try:
        for stage in study.chosen(only, part):
            say(stage, stage.is_done())
            if stage.name not in ended:
                stage.run()
                ended.append(stage.name)
    except TimeIsUpError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"{minutes:g} minutes are over", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ended


def pack(work: Path, target: Path) -> None:
    """Whole adapters, as they lie in the work folder; unfinished trainings begin with a dot and stay behind."""
    with tarfile.open(target, "w") as archive:
        for summary in (*work.rglob("training.json"), *work.rglob("routing.json")):
            folder = summary.parent
            if not any(part.startswith(".") for part in folder.relative_to(work).parts):
                archive.add(folder, folder.relative_to(work))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--profile", default="qwen")
    parser.add_argument("--domain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="method")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--pieces", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--commit", help="of the tree, forty digits, then a + if it was changed")
    args = parser.parse_args()
    if args.commit:
        os.environ["ROUTEDK_COMMIT"] = args.commit
    git_state()  # both complain now, not after hours
    check_writable(user_folder(args.out, "--out"), "--out")
    with tempfile.TemporaryDirectory() as brought:
        if args.pieces:
            put_together(args.pieces, args.profile, Path(brought))
            os.environ["ROUTEDK_STUDENTS"] = brought
        options = {"results": args.out / "results", "work": args.work, "progress": False}
        study = Pipeline(args.profile, args.domain, args.seed, **options)
        ended = run(study, args.only, args.part, args.minutes)
    args.out.mkdir(parents=True, exist_ok=True)
    pack(args.work, args.out / "adapters.tar")
    print(f"{len(ended)} stages; packed in {args.out}")


if __name__ == "__main__":
    raise SystemExit(ended(main))
