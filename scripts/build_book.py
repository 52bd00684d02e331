"""Execute the notebooks that changed, build the site, print where its first page is.

Jupyter Book looks executed notebooks up in a cache that is keyed by their cells alone: it would go on showing old
outputs after a change of the package or of the recorded results. This script drops the cache then, and what the
chapters had trained; otherwise they share one folder for it, as they do where a reader runs them one by one. It fetches
the public sessions first (14 MB, once), since chapters have more to show with them, and goes on without if it must. It
executes what is missing with nbmake, two notebooks side by side where there are two cores, so that a notebook runs
once and serves as a test and as a page; and it always builds every page, because an incremental build does not
repeat the warnings of an unchanged page.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
WORK = BUILD / "runs"
"""What chapters train, and what later chapters need not train again."""
INDEX = BUILD / "html" / "index.html"

WIDGET = "application/vnd.jupyter.widget-view+json"

CODE = ("routedk_lite", "results", "claims.yml", "pyproject.toml", "constraints.txt")
"""What the outputs of a notebook depend on, besides its own cells."""
PAGES = ("book", "notebooks", "_config.yml", "_toc.yml")
"""What the pages depend on, besides the outputs."""

_EXPERTS = "02_knowledge_conflict"
_ROUTER = "05_router_and_fusion"
TRAINED_BY = {
    "03_distillation": [_EXPERTS],
    "04_lora_experts": [_EXPERTS],
    "05_router_and_fusion": [_EXPERTS],
    "06_fusion_ablations": [_EXPERTS, _ROUTER],
    "07_test_time_scaling": [_EXPERTS, _ROUTER],
}
"""chapter → chapters that train what it loads: these run first, so that nothing is trained twice at once."""


class Ran(NamedTuple):
    """What came of a notebook."""

    notebook: NotebookNode | None
    """With outputs; `None` if a cell failed."""
    seconds: float
    said: str
    """What was printed, which names the cell that failed."""


def fingerprint(names: Iterable[str], data: bool = False) -> str:
    """Return a hash over the names and contents of files below the root, and our environment variables.

    Args:
        names: Paths relative to the root; what does not exist counts as empty.
        data: Whether chapters have the public sessions.
    """
    from routedk_lite.files import DESKTOP

    digest = hashlib.sha256(f"public data: {data}\n".encode())
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            inside = path.relative_to(ROOT).parts
            # Neither what tools keep beside files nor what a file browser leaves in a folder.
            ours = not {"__pycache__", *DESKTOP} & set(inside) and not any(part.startswith(".") for part in inside)
            if path.is_file() and ours:
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    for name, value in sorted(os.environ.items()):
        if name.startswith("ROUTEDK_"):
            digest.update(f"{name}={value}\0".encode())
    return digest.hexdigest()


def remembered(stamp: Path) -> str:
    """Return what the file `stamp` holds, or the empty string."""
    return stamp.read_text() if stamp.exists() else ""


def have_data(fetch: bool) -> bool:
    """Say whether chapters will have the public sessions, and fetch what is missing of them."""
    from routedk_lite.data.domains import domain_is_cached
    from routedk_lite.data.public import fetch_all
    from routedk_lite.data.sessions import PUBLIC_DOMAINS

    if not fetch:
        return all(map(domain_is_cached, PUBLIC_DOMAINS))
    try:
        fetch_all()
    except (OSError, RuntimeError, ValueError) as error:
        print(f"Without the public sessions, chapters show what is recorded of them: {error}")
        return False
    return True


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


def run_one(source: Path, timeout: int, threads: int) -> Ran:
    """Run one notebook through nbmake, as it stands in the repository."""
    import nbformat

    # A sentence of a chapter that its numbers do not bear out stops the build.
    ours = {"ROUTEDK_WORK": str(WORK), "OMP_NUM_THREADS": str(threads), "ROUTEDK_STRICT": "yes", "PYTHONUTF8": "1"}
    environment = ours | os.environ
    options = ["--nbmake", "--overwrite", f"--nbmake-timeout={timeout}", "-q", "--no-header", "-rN"]
    # Outside _build, which nbmake passes over, and away from this repository's pytest settings.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(source, folder))
        begin = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"--rootdir={folder}", *options, copy.name]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        notebook = None if done.returncode else nbformat.read(copy, as_version=4)
        return Ran(notebook, time.monotonic() - begin, done.stdout.decode(errors="replace"))


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook as its page shows it."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # nbmake's timings would change the cache's key
        # A page has no kernel: a progress bar would stand at its beginning for ever. What has a picture of
        # itself shows that instead.
        outputs = cell.get("outputs", [])
        for output in outputs:
            if "text/html" in output.get("data", {}):
                output["data"].pop(WIDGET, None)
        outputs[:] = [output for output in outputs if WIDGET not in output.get("data", {})]
    return notebook


def execute(paths: list[Path], timeout: int, jobs: int = 1) -> None:
    """Run notebooks, `jobs` of them side by side, and put the outputs into the cache.

    Raises:
        SystemExit: If a cell raised or took longer than `timeout` seconds; finished notebooks are kept.
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from tqdm import tqdm

    cache, failed, ready = get_cache(CACHE), [], []
    running: dict[Future[Ran], Path] = {}
    order = TopologicalSorter({p: [q for q in paths if q.stem in TRAINED_BY.get(p.stem, ())] for p in paths})
    order.prepare()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(paths), desc="executing", unit="notebook") as bar:
        while order.is_active():
            ready += order.get_ready()
            while ready and len(running) < jobs:  # nothing waits in the pool: Ctrl-C ends what runs, and that is all
                source = ready.pop(0)
                running[pool.submit(run_one, source, timeout, threads)] = source
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                source, ran = running.pop(future), future.result()
                order.done(source)
                bar.write(f"{source.name}: {ran.seconds:.0f} s" if ran.notebook else ran.said)
                bar.update()
                if not ran.notebook:
                    failed.append(source.name)
                    continue
                taken = {"execution_seconds": round(ran.seconds, 1)}
                made = CacheBundleIn(cleaned(ran.notebook), str(source), data=taken)
                cache.cache_notebook_bundle(made, overwrite=True)
    if failed:
        raise SystemExit(f"These notebooks failed, their errors stand above: {', '.join(failed)}")


def build() -> None:
    """Build every page; any warning is an error.

    Raises:
        SystemExit: If Jupyter Book reports a warning or an error.
    """
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    # The one of this Python: a script of that name on the PATH may belong to another environment.
    program = shutil.which("jupyter-book", path=sysconfig.get_path("scripts"))
    if program is None:
        raise SystemExit("jupyter-book is not installed beside this Python: pip install -e '.[notebook,book,test]'")
    command = [program, "build", str(ROOT), "--all", "-W", "-n", "--keep-going"]
    if subprocess.run(command, cwd=ROOT).returncode:
        shutil.rmtree(BUILD / "html", ignore_errors=True)
        raise SystemExit("The book has warnings or errors, they stand above.")


def main() -> None:
    """Bring the outputs and the site up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=int, default=600, help="seconds that one cell may take (default 600)")
    jobs = min(2, os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help=f"notebooks side by side (here: {jobs})")
    parser.add_argument("--no-data", action="store_true", help="do not fetch the public sessions")
    chosen = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # a file on Windows may not know all letters
    BUILD.mkdir(exist_ok=True)

    data = have_data(fetch=not chosen.no_data)
    code, code_stamp = fingerprint(CODE, data), BUILD / "code.sha256"
    if remembered(code_stamp) != code:
        shutil.rmtree(CACHE, ignore_errors=True)
        shutil.rmtree(WORK, ignore_errors=True)
        code_stamp.write_text(code)

    site, site_stamp = fingerprint(CODE + PAGES, data), BUILD / "site.sha256"
    if remembered(site_stamp) == site and INDEX.exists():
        print("The book is up to date.")
    else:
        execute(stale(notebooks()), chosen.timeout, chosen.jobs)
        build()
        site_stamp.write_text(site)
    print(f"Open {INDEX}")


if __name__ == "__main__":
    main()
