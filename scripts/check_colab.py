"""Run every chapter as Colab would: its packages, an empty folder, no repository. Takes some twenty minutes.

python scripts/check_colab.py [--python python3.13] [--only 00_quickstart] [--torch 2.13.0]
python scripts/check_colab.py --renew pip-freeze.txt

Colab itself cannot be reached from a test. This makes a fresh virtual environment with the versions in `colab.txt`, the
rest of what Colab brings along, and a stub of `google.colab`. Then it lets the chapters install the package by
themselves, as their first cell does from the repository; the last commit here stands in for the address on GitHub.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = Path(__file__).with_name("colab.txt")
STOCK = (
    *("torch", "torchao", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn"),
    *("safetensors", "huggingface_hub", "transformers", "peft", "accelerate", "datasets"),
    *("requests", "tqdm", "rich", "typer", "psutil", "pyyaml", "packaging", "platformdirs"),
    *("ipykernel", "ipython", "ipywidgets", "notebook", "jupyter_client", "tornado", "pyzmq"),
)
"""What Colab has of all that a chapter meets. mlxtend, gguf and bitsandbytes are left for the chapters to install."""
KEPT = ("torch", "numpy", "scipy", "ipython", "notebook", "ipywidgets", "ipykernel")
"""What no chapter may replace."""
FIRST_CELL = 60
"""Seconds that the first cell may take on a machine that has never seen the package."""


def main() -> int:
    """Install, run; the exit code is pytest's, or 1 where the first cell did more than it may."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default=next(filter(answers, ("python3.13", sys.executable))))
    options.add_argument("--only", default="*", help="chapters to run, a pattern of file names without ending")
    options.add_argument("--torch", help="another version than the pinned one, where that has no CPU build to be had")
    options.add_argument("--renew", type=Path, metavar="FILE", help="take the pins from a pip-freeze.txt, and stop")
    chosen = options.parse_args()
    if chosen.renew:
        return renew(chosen.renew)
    with tempfile.TemporaryDirectory(prefix="colab-") as folder:
        return check(Path(folder), chosen.python, chosen.only, chosen.torch)


def answers(python: str) -> bool:
    """Whether there is such a Python, and more than a name that a version manager holds free."""
    return bool(shutil.which(python)) and not subprocess.run([python, "--version"], capture_output=True).returncode


def renew(freeze: Path) -> int:
    """Write the pins anew from what Colab publishes."""
    listed = [line.strip() for line in freeze.read_text(encoding="utf-8").splitlines()]
    found = pins(listed)
    if "torch" not in found or "numpy" not in found:
        print(f"{freeze} pins neither torch nor numpy: give the pip-freeze.txt of googlecolab/backend-info")
        return 1
    python = next((m[1] for line in listed if (m := re.search(r"-cp3(\d+)-", line))), "13")
    PINS.write_text(
        "# What Colab's image holds, of the packages that a chapter meets: googlecolab/backend-info, pip-freeze.txt.\n"
        f"# Snapshot of {datetime.date.today()}, Python 3.{python}. Renewed by: python scripts/check_colab.py --renew "
        "pip-freeze.txt\n" + "".join(f"{name}=={version}\n" for name, version in sorted(found.items())),
        encoding="utf-8",
    )
    print(f"{len(found)} pins in {PINS.relative_to(ROOT)}")
    return 0


def pins(lines: list[str]) -> dict[str, str]:
    """Versions of the packages in `STOCK`, from lines as pip freezes them; a wheel's name holds its version too."""
    wanted = {plain(name): name for name in STOCK}
    found = {}
    for line in lines:
        match = re.match(r"([\w.-]+)(?:==| @ \S*/[\w.]+-)(\d[\w.]*)", line)
        if match and plain(match[1]) in wanted:
            found[wanted[plain(match[1])]] = match[2]
    return found


def plain(name: str) -> str:
    """A package's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check(folder: Path, python: str, only: str, torch: str | None) -> int:
    """Everything below one empty folder."""
    chapters = sorted((ROOT / "notebooks").glob(f"{only}.ipynb"))
    if not chapters:
        raise SystemExit(f"no chapter fits {only!r}: choose among {', '.join(p.stem for p in all_chapters())}")
    run([python, "-m", "venv", "--without-pip", folder / "venv"])
    inside = folder / "venv" / "bin" / "python"
    pinned = pins(PINS.read_text(encoding="utf-8").splitlines())
    pinned |= {"torch": torch} if torch else {}
    stock = [f"{name}=={pinned[name]}" if name in pinned else name for name in STOCK]
    run([sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "pip", "nbmake", *stock])
    (site,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("", encoding="utf-8")

    work = folder / "content"
    work.mkdir()
    for chapter in chapters:
        shutil.copy(chapter, work)
    before, environment = versions(inside), as_on_colab(folder)
    seconds = first_cell(inside, sorted(work.iterdir())[0], environment)
    code = subprocess.run(execution(inside, sorted(work.iterdir()), 1800), cwd=work, env=environment).returncode
    after = versions(inside)
    print(f"{Path(python).name}: the first cell took {seconds:.0f} s, from nothing installed")
    if changed := [f"{name} {before[name]} → {after[name]}" for name in KEPT if before[name] != after[name]]:
        print("a chapter must not touch these:", ", ".join(changed))
        return 1
    print("as before:", ", ".join(f"{name} {before[name]}" for name in KEPT))
    return code or int(seconds > FIRST_CELL)


def as_on_colab(folder: Path) -> dict[str, str]:
    """Environment variables: none of ours, a home of its own, this checkout behind the repository's address."""
    dropped = ("ROUTEDK_", "PYTHON", "VIRTUAL_ENV", "PIP_CONSTRAINT")
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | {
        "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"),
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf", "GIT_CONFIG_VALUE_0": address,
        "GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": "*",
    }  # fmt: skip


def first_cell(python: Path, chapter: Path, environment: dict[str, str]) -> float:
    """Run a chapter's set-up cell on the untouched machine, show what it prints, and give its seconds."""
    import nbformat

    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells = [next(cell for cell in notebook.cells if cell.cell_type == "code")]
    alone = chapter.parent.parent / "first.ipynb"
    nbformat.write(notebook, alone)
    began = time.monotonic()
    run([python, "-m", "jupyter", "nbconvert", "--to", "notebook", "--inplace", "--execute", alone], environment)
    seconds = time.monotonic() - began
    for output in nbformat.read(alone, as_version=4).cells[0].outputs:
        print("   ", output.get("text", "").strip().replace("\n", "\n    "))
    return seconds


def execution(python: Path | str, notebooks: list[Path], timeout: int) -> list[Path | str]:
    """The command that executes notebooks, every cell within `timeout` seconds."""
    return [python, "-m", "pytest", "--nbmake", f"--nbmake-timeout={timeout}", "-v", "--durations=0", *notebooks]


def all_chapters() -> list[Path]:
    """The notebooks of the book."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def versions(python: Path) -> dict[str, str]:
    """Of what no chapter may replace."""
    report = f"import importlib.metadata as m\nfor name in {KEPT}: print(m.version(name))"
    done = subprocess.run([python, "-c", report], capture_output=True, text=True, check=True)
    return dict(zip(KEPT, done.stdout.split(), strict=True))


def run(command: list[object], environment: dict[str, str] | None = None) -> None:
    """Run a command, show it, stop if it fails."""
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
