"""Run every chapter as Colab would: a stock machine, an empty folder, no repository. Takes some ten minutes.

python scripts/check_colab.py [--python python3.12] [--only 00_quickstart]

Colab itself cannot be reached from a test. This builds the wheel, makes a fresh virtual environment with what Colab
brings along (torch, numpy and the usual libraries, but not all that the package needs) and a stub of `google.colab`,
installs the wheel without its dependencies, which is what the first cell of a chapter does from the repository, and
lets the chapters do the rest.
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
STOCK = (
    *("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn"),
    *("safetensors", "huggingface_hub", "transformers", "accelerate", "datasets"),
    *("requests", "tqdm", "rich", "typer", "psutil", "pyyaml", "packaging", "platformdirs", "ipykernel", "ipywidgets"),
)
"""What Colab has. peft, mlxtend and gguf are left for the chapters to install."""
REPORT = "import torch, numpy, importlib.metadata as m; print(torch.__version__, numpy.__version__, m.version('scipy'))"


def main() -> int:
    """Build, install, run; the exit code is pytest's."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default=shutil.which("python3.12") or sys.executable)
    options.add_argument("--only", default="*", help="chapters to run, a pattern of file names without ending")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="colab-") as folder:
        return check(Path(folder), chosen.python, chosen.only)


def check(folder: Path, python: str, only: str) -> int:
    """Everything below one empty folder."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "wheel", ROOT])
    run([python, "-m", "venv", "--without-pip", folder / "venv"])
    inside = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet"]
    run([*pip, "--constraint", ROOT / "constraints.txt", "pip", "nbmake", *STOCK])
    (wheel,) = (folder / "wheel").glob("*.whl")
    run([*pip, "--no-deps", wheel])
    (site,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("", encoding="utf-8")

    work = folder / "content"
    work.mkdir()
    notebooks = sorted((ROOT / "notebooks").glob(f"{only}.ipynb"))
    if not notebooks:
        raise SystemExit(f"no chapter fits {only!r}: choose among {', '.join(p.stem for p in all_chapters())}")
    for notebook in notebooks:
        shutil.copy(notebook, work)
    before = versions(inside)
    dropped = ("ROUTEDK_MIRROR", "ROUTEDK_WORK", "ROUTEDK_PROFILE", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | {
        "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
    }  # fmt: skip
    code = subprocess.run(execution(inside, sorted(work.iterdir()), 900), cwd=work, env=environment).returncode
    if (after := versions(inside)) != before:
        print(f"torch, numpy and scipy were {before} and are {after}: a chapter must not touch them")
        return 1
    print(f"{Path(python).name}: torch, numpy and scipy are still {before}")
    return code


def execution(python: Path | str, notebooks: list[Path], timeout: int) -> list[Path | str]:
    """The command that executes notebooks, every cell within `timeout` seconds."""
    return [python, "-m", "pytest", "--nbmake", f"--nbmake-timeout={timeout}", "-v", "--durations=0", *notebooks]


def all_chapters() -> list[Path]:
    """The notebooks of the book."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def versions(python: Path) -> str:
    """Of what no chapter may replace."""
    return subprocess.run([python, "-c", REPORT], capture_output=True, text=True, check=True).stdout.strip()


def run(command: list[object]) -> None:
    """Run a command, show it, stop if it fails."""
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    sys.exit(main())
