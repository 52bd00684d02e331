"""Run the chapters with a student of the real kind: SmolLM2 under the settings of another profile, on a few sessions.

ROUTEDK_MIRROR=... python scripts/check_profiles.py [--profile t4] [--sessions 12] [--only "05*"]

The tests run every chapter with the toy student, in 32 bits. The same cells must hold in bfloat16 and in four bits,
with pairs and with gradient checkpointing. This takes a profile as it is, but for its student, which becomes SmolLM2
(in four bits where the profile wants that), and for its length: few sessions, one epoch, few votes. Numbers mean
nothing then; that no cell fails is the result. Chapter 01 has no student, chapter 10 chooses its own. A chapter takes
minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("smol", "t4", "paper")
WITHOUT = ("01_bundles_and_metrics", "10_scaling_up")
"""Chapters that no profile changes."""
STARTUP = """
import os
import traceback
from dataclasses import replace
from pathlib import Path
from routedk_lite import config, data, notebook

def few(name, split):
    found = load(name, split)
    return replace(found, sessions=found.sessions[:: max(1, len(found) // {sessions})])

def shortened(profile, smol):
    return replace(
        profile,
        student=replace(smol.student, load_in_4bit=profile.student.load_in_4bit),
        train=replace(profile.train, epochs=1),
        router=replace(profile.router, epochs=1),
        vote=replace(profile.vote, n=8, sizes=(1, 4, 8)),
    )

load, data.load_domain = data.load_domain, few
# Records are of all sessions; chapters that look at them do so in the tests.
notebook.results_folder = lambda: Path(os.environ["ROUTEDK_WORK"], "results")
try:
    name = os.environ["ROUTEDK_PROFILE"]
    config.PROFILES[name] = shortened(config.PROFILES[name], config.PROFILES["smol"])
except Exception:  # which IPython would print and forget
    traceback.print_exc()
    os._exit(1)
"""


def main() -> int:
    """Run the chapters; the exit code is pytest's."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--profile", choices=PROFILES, default="smol")
    options.add_argument("--sessions", type=int, default=12, help="of every split, about")
    options.add_argument("--only", default="*", help="chapters to run, a pattern of file names without ending")
    chosen = options.parse_args()
    notebooks = [p for p in sorted((ROOT / "notebooks").glob(f"{chosen.only}.ipynb")) if p.stem not in WITHOUT]
    if not notebooks:
        raise SystemExit(f"no chapter with a student fits {chosen.only!r}")
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        folder = Path(name)
        startup = folder / "ipython" / "profile_default" / "startup" / "00-few.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(STARTUP.replace("{sessions}", str(chosen.sessions)), encoding="utf-8")
        (folder / "work" / "results").mkdir(parents=True)
        for notebook in notebooks:
            shutil.copy(notebook, folder)
        environment = os.environ | {
            "IPYTHONDIR": str(folder / "ipython"), "ROUTEDK_WORK": str(folder / "work"),
            "ROUTEDK_PROFILE": chosen.profile, "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=3600", "-v", "--durations=0"]
        command += [folder / notebook.name for notebook in notebooks]
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
