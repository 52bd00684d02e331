"""Execute the notebooks that changed, build the site, print where its first page is.

Jupyter Book looks executed notebooks up in a cache that is keyed by their cells alone: it would go on showing
old outputs after a change of the package or of the recorded results. This script drops the cache then, and what the
chapters had trained; otherwise they share one folder for it, as they do where a reader runs them one by one. It
executes what is missing with nbmake, so that a notebook runs once and serves as a test and as a page; and it
always builds every page, because an incremental build does not repeat the warnings of an unchanged page.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
WORK = BUILD / "runs"
"""What chapters train, and what later chapters need not train again."""
INDEX = BUILD / "html" / "index.html"

WIDGET = "application/vnd.jupyter.widget-view+json"

CODE = ("routedk_lite", "results", "pyproject.toml", "constraints.txt")
"""What the outputs of a notebook depend on, besides its own cells."""
PAGES = ("book", "notebooks", "_config.yml", "_toc.yml")
"""What the pages depend on, besides the outputs."""


def fingerprint(names: Iterable[str]) -> str:
    """Return a hash over the names and contents of files below the root, and our environment variables.

    Args:
        names: Paths relative to the root; what does not exist counts as empty.
    """
    digest = hashlib.sha256()
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    for name, value in sorted(os.environ.items()):
        if name.startswith("ROUTEDK_"):
            digest.update(f"{name}={value}\0".encode())
    return digest.hexdigest()


def remembered(stamp: Path) -> str:
    """Return what the file `stamp` holds, or the empty string."""
    return stamp.read_text() if stamp.exists() else ""


def notebooks() -> list[Path]:
    """Return the chapters that the table of contents names, in its order."""
    import yaml

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [ROOT / f"{file}.ipynb" for file in files if file.startswith("notebooks/")]


def stale(paths: list[Path]) -> list[Path]:
    """Return the notebooks whose outputs are not in the cache."""
    import nbformat
    from jupyter_cache import get_cache

    cache = get_cache(CACHE)
    known = {record.hashkey for record in cache.list_cache_records()}
    return [p for p in paths if cache.create_hashed_notebook(nbformat.read(p, as_version=4))[1] not in known]


def execute(paths: list[Path], timeout: int) -> None:
    """Run notebooks through nbmake, each as it stands in the repository, and put the outputs into the cache.

    Raises:
        SystemExit: If a cell raised or took longer than `timeout` seconds; finished notebooks are kept.
    """
    import nbformat
    from jupyter_cache import get_cache

    cache = get_cache(CACHE)
    environment = {"ROUTEDK_WORK": str(WORK)} | os.environ
    options = ["--nbmake", "--overwrite", f"--nbmake-timeout={timeout}", "-q", "--no-header", "-rN"]
    failed = []
    for source in paths:
        # Outside _build, which nbmake passes over, and away from this repository's pytest settings.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(source, folder))
            begin = time.monotonic()
            command = [sys.executable, "-m", "pytest", f"--rootdir={folder}", *options, copy.name]
            if subprocess.run(command, cwd=folder, env=environment).returncode:
                failed.append(source.name)
                continue
            notebook = nbformat.read(copy, as_version=4)
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)  # nbmake's timings would change the cache's key
                # A page has no kernel: a progress bar would stand at its beginning for ever. What has a picture of
                # itself shows that instead.
                outputs = cell.get("outputs", [])
                for output in outputs:
                    if "text/html" in output.get("data", {}):
                        output["data"].pop(WIDGET, None)
                outputs[:] = [output for output in outputs if WIDGET not in output.get("data", {})]
            nbformat.write(notebook, copy)
            seconds = {"execution_seconds": round(time.monotonic() - begin, 1)}
            cache.cache_notebook_file(copy, uri=str(source), data=seconds, overwrite=True)
    if failed:
        raise SystemExit(f"These notebooks failed, their errors stand above: {', '.join(failed)}")


def build() -> None:
    """Build every page; any warning is an error.

    Raises:
        SystemExit: If Jupyter Book reports a warning or an error.
    """
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    # The one beside this Python: a script of that name on the PATH may belong to another environment.
    command = [str(Path(sys.executable).with_name("jupyter-book"))]
    command += ["build", str(ROOT), "--all", "-W", "-n", "--keep-going"]
    if subprocess.run(command, cwd=ROOT).returncode:
        shutil.rmtree(BUILD / "html", ignore_errors=True)
        raise SystemExit("The book has warnings or errors, they stand above.")


def main() -> None:
    """Bring the outputs and the site up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=int, default=600, help="seconds that one cell may take (default 600)")
    timeout = parser.parse_args().timeout
    BUILD.mkdir(exist_ok=True)

    code, code_stamp = fingerprint(CODE), BUILD / "code.sha256"
    if remembered(code_stamp) != code:
        shutil.rmtree(CACHE, ignore_errors=True)
        shutil.rmtree(WORK, ignore_errors=True)
        code_stamp.write_text(code)

    site, site_stamp = fingerprint(CODE + PAGES), BUILD / "site.sha256"
    if remembered(site_stamp) == site and INDEX.exists():
        print("The book is up to date.")
    else:
        execute(stale(notebooks()), timeout)
        build()
        site_stamp.write_text(site)
    print(f"Open {INDEX}")


if __name__ == "__main__":
    main()
