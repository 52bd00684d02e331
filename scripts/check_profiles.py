"""Run the chapters with a student of the real kind: SmolLM2 under the settings of another profile, on a few sessions.

ROUTEDK_MIRROR=... python scripts/check_profiles.py [--profile t4] [--sessions 40] [--only "05*"]

The tests run every chapter with the toy student, in 32 bits. The same cells must hold in bfloat16 and in four bits,
with pairs and with gradient checkpointing. This takes a profile as it is, but for its student, which becomes SmolLM2
(in four bits where the profile wants that), and for its length: few sessions, one epoch, few votes. Numbers mean
nothing then; that no cell fails is the result. Chapter 01 has no student, chapter 10 chooses its own. A chapter takes
minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import nbformat
from check_colab import all_chapters, execution

from routedk_lite import config
from routedk_lite.book import notebook
from routedk_lite.data import domains
from routedk_lite.data.sessions import Domain

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("smol", "t4", "paper")
WITHOUT = ("01_bundles_and_metrics", "10_scaling_up")
"""Chapters that no profile changes."""
LATE = ("03_distillation",)
"""Chapters that look for particular sessions and their neighbours; here few are trained on, and few asked."""
TRAINING = "load_domain(domain, s) for s in"
"""How a chapter gets what it trains on."""


def shorten(name: str) -> None:
    """In a chapter's kernel: one epoch, few votes, and SmolLM2 under the settings of the profile."""
    profile, smol = config.PROFILES[name], config.PROFILES["smol"]
    # Records are of all sessions; chapters that look at them do so in the tests.
    notebook.own_file = lambda name: Path(os.environ["ROUTEDK_WORK"], name)
    config.PROFILES[name] = replace(
        profile,
        student=replace(smol.student, load_in_4bit=profile.student.load_in_4bit),
        train=replace(profile.train, epochs=1),
        router=replace(profile.router, epochs=1),
        vote=replace(profile.vote, n=8, sizes=(1, 4, 8)),
    )


def thin(n_sessions: int) -> Callable[[str, str], Domain]:
    """In a chapter's kernel: few sessions of every public domain, for the chapter and all that it imports later."""
    load = domains.load_domain

    def few(domain: str, split: str) -> Domain:
        found = load(domain, split)
        if domain == "toyshop":  # small as it is, and chapters pick sessions from it
            return found
        return replace(found, sessions=found.sessions[:: max(1, len(found) // n_sessions)])

    domains.load_domain = few
    return few


def copy(chapter: Path, folder: Path, name: str, n_sessions: int) -> None:
    """A copy of a chapter that begins with `shorten`, and with `thin` at once or where it trains."""
    made = nbformat.read(chapter, as_version=4)
    shorter = f"import check_profiles\ncheck_profiles.shorten({name!r})"
    fewer = f"import check_profiles\nload_domain = check_profiles.thin({n_sessions})"
    if chapter.stem in LATE:
        where = next(i for i, cell in enumerate(made.cells) if TRAINING in cell.source)
        fewer += "\nvalidation, test = (load_domain(domain, s) for s in ('validation', 'test'))"
        fewer += "\ntaught = load_domain(domain, 'train').sessions"
        made.cells.insert(where + 1, nbformat.v4.new_code_cell(fewer))
    else:
        made.cells.insert(0, nbformat.v4.new_code_cell(fewer))
    made.cells.insert(0, nbformat.v4.new_code_cell(shorter))
    nbformat.write(made, folder / chapter.name)


def main() -> int:
    """Run the chapters; the exit code is pytest's."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--profile", choices=PROFILES, default="smol")
    options.add_argument("--sessions", type=int, default=40, help="of every split, about")
    options.add_argument("--only", default="*", help="chapters to run, a pattern of file names without ending")
    chosen = options.parse_args()
    chapters = [p for p in all_chapters() if fnmatch(p.stem, chosen.only) and p.stem not in WITHOUT]
    if not chapters:
        raise SystemExit(f"no chapter with a student fits {chosen.only!r}")
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        folder = Path(name)
        (folder / "work" / "results").mkdir(parents=True)
        for chapter in chapters:
            copy(chapter, folder, chosen.profile, chosen.sessions)
        environment = os.environ | {
            "ROUTEDK_WORK": str(folder / "work"),
            "ROUTEDK_PROFILE": chosen.profile,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        }
        command = execution(sys.executable, [folder / chapter.name for chapter in chapters], 3600)
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
