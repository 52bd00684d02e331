"""Run records: what was run, on what, with which result, and where its predictions are.

A record is one JSON file `results/<profile>/<domain>/<run>.json`; the predictions of every session stand beside it in
`<run>.predictions.jsonl`, so that every number and interval can be computed again.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .data import Domain, load_domain
from .decoding import Answer
from .files import atomic_write, sha256_file, write_json
from .metrics import PROTOCOLS, evaluate, per_session

VERSIONS_OF = ("routedk-lite", "torch", "transformers", "peft", "datasets", "numpy", "bitsandbytes")
INTERVAL_OF = ("precision", "recall", "f1", "exact_match")


class RecordError(ValueError):
    """A record is malformed, or does not agree with its predictions."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run on one test split."""

    profile: str
    domain: str
    run: str
    """Name of the run, unique within profile and domain, for example `base-seed0`."""
    seed: int | None
    """`None` where nothing is left to chance."""
    split: str
    config: Mapping[str, Any]
    """Every setting."""
    config_hash: str
    created: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the code; `None` outside a checkout."""
    dirty: bool | None
    """Whether the checkout had uncommitted changes."""
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    data_sha256: str
    student: Mapping[str, Any] | None
    """`backbone.StudentInfo`; `None` for floors."""
    adapter_sha256: Mapping[str, str] = field(default_factory=dict)
    """Expert name to the hash of its weights."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, tokens per second and the loss curve."""
    wall_seconds: float
    """Training and evaluation together."""
    peak_memory_mb: float
    """Largest resident memory of the process; on a GPU, of the device."""
    n_sessions: int
    n_invalid: int
    """Answers with no bundle that could be read."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """How often each kind of problem was met in the answers."""
    metrics: Mapping[str, Mapping[str, float]]
    """Protocol to metric to value."""
    intervals: Mapping[str, Mapping[str, Sequence[float]]]
    """Protocol to metric to 95 % bootstrap interval over sessions."""
    predictions: str
    """File name of the predictions, beside the record."""
    predictions_sha256: str
    path: Path | None = field(default=None, compare=False)
    """Where the record was read from."""


def write_record(
    folder: str | Path,
    *,
    profile: str,
    test: Domain,
    run: str,
    seed: int | None,
    config: Mapping[str, Any],
    config_hash: str,
    answers: Iterable[Answer],
    wall_seconds: float,
    student: Mapping[str, Any] | None = None,
    adapter_sha256: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Measure a run's answers and write its record and predictions.

    Args:
        folder: the results folder; the record goes to `<folder>/<profile>/<domain>/<run>.json`.
        test: the sessions that were answered.
        answers: one per session.

    Raises:
        RecordError: sessions without an answer.
    """
    by_id = {answer.id: answer for answer in answers}
    if missing := [s.id for s in test if s.id not in by_id]:
        raise RecordError(f"{run}: no answer for {len(missing)} sessions of {test.name}, {missing[0]} the first")
    place = Path(folder, profile, test.name)
    predictions = place / f"{run}.predictions.jsonl"
    with atomic_write(predictions) as file:
        for session in test:
            file.write(json.dumps(by_id[session.id].to_json(), ensure_ascii=False) + "\n")
    kinds = [problem.kind for answer in by_id.values() for problem in answer.problems]
    commit, dirty = git_state()
    record = RunRecord(
        profile=profile,
        domain=test.name,
        run=run,
        seed=seed,
        split=test.split,
        config=config,
        config_hash=config_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        versions=package_versions(),
        hardware=hardware(),
        data_sha256=test.sha256,
        student=student,
        adapter_sha256=adapter_sha256 or {},
        training=training or {},
        wall_seconds=round(wall_seconds, 1),
        peak_memory_mb=round(peak_memory_mb()),
        n_sessions=len(test),
        n_invalid=sum(not answer.bundles for answer in by_id.values()),
        problems={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        predictions=predictions.name,
        predictions_sha256=sha256_file(predictions),
        **measure({i: a.bundles for i, a in by_id.items()}, test),
        path=place / f"{run}.json",
    )
    write_json(record.path, {k: v for k, v in asdict(record).items() if k != "path"})
    return record


def measure(predictions: Mapping[int, Sequence[Iterable[int]]], test: Domain) -> dict[str, Any]:
    """Metrics and intervals of predictions under both protocols, as a record holds them."""
    import numpy as np

    from .statistics import bootstrap_interval

    metrics, intervals = {}, {}
    for protocol in PROTOCOLS:
        result = asdict(evaluate(predictions, test, protocol))
        metrics[protocol] = {name: round(value, 6) for name, value in result.items()}
        scores = per_session(predictions, test, protocol)
        intervals[protocol] = {}
        for name in INTERVAL_OF:
            values = getattr(scores, name)[scores.counted]
            if len(values) > 1:
                found = bootstrap_interval(values, generator=np.random.default_rng(0))
                intervals[protocol][name] = [round(found.low, 6), round(found.high, 6)]
    return {"metrics": metrics, "intervals": intervals}


def read_record(path: str | Path) -> RunRecord:
    """Read one record.

    Raises:
        RecordError: not JSON, or fields are missing or unknown.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RunRecord(**content, path=path)
    except (json.JSONDecodeError, TypeError) as error:
        raise RecordError(
            f"{path}: not a run record ({error}). Its fields: {[f.name for f in fields(RunRecord)]}"
        ) from error


def load_all(folder: str | Path = "results") -> list[RunRecord]:
    """All records below a folder, sorted by profile, domain and run; none if the folder does not exist.

    Raises:
        RecordError: a record is malformed.
    """
    return sorted(
        (read_record(path) for path in Path(folder).glob("*/*/*.json")),
        key=lambda r: (r.profile, r.domain, r.run),
    )


def load_predictions(record: RunRecord) -> dict[int, Answer]:
    """The answers behind a record, by session id.

    Raises:
        RecordError: the file is missing or is not the one that the record was made from.
    """
    path = record.path.with_name(record.predictions)
    if not path.exists():
        raise RecordError(f"{record.path}: its predictions {path.name} are missing")
    if sha256_file(path) != record.predictions_sha256:
        raise RecordError(f"{path}: changed since the record was written")
    with open(path, encoding="utf-8") as file:
        answers = [Answer.from_json(json.loads(line)) for line in file]
    return {answer.id: answer for answer in answers}


def verify(record: RunRecord) -> None:
    """Compute a record's numbers again from its predictions and the data.

    Raises:
        RecordError: they differ, or the data have changed.
    """
    test = load_domain(record.domain, record.split)
    if test.sha256 != record.data_sha256:
        raise RecordError(f"{record.path}: made from other data ({record.data_sha256[:12]}…, now {test.sha256[:12]}…)")
    again = measure({i: a.bundles for i, a in load_predictions(record).items()}, test)
    for name in ("metrics", "intervals"):
        if again[name] != getattr(record, name):
            raise RecordError(f"{record.path}: {name} do not follow from {record.predictions}")


# --- where it ran -------------------------------------------------------------------------------------------------


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the package's checkout, and whether tracked files differ from it."""
    root = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return commit, bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None


def package_versions() -> dict[str, str]:
    """Python's version and those of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU."""
    import psutil
    import torch

    found = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Largest memory so far: of the GPU if one is in use, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 2**20
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
