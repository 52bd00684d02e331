"""Run records: what was run, on what, with which result, and where its predictions are.

A record is one JSON file `results/<profile>/<domain>/<run>.json`; the predictions of every session stand beside it in
`<run>.predictions.jsonl`, so that every number and interval can be computed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..answers.decoding import Answer
from ..data.domains import load_domain
from ..data.metrics import PROTOCOLS, evaluate, per_session
from ..data.own import own_folder
from ..data.sessions import DOMAINS, Domain
from ..files import atomic_write, sha256_file, write_json
from ..student.peak import peak_memory_mb
from .machine import surroundings
from .provenance import REMEDY, Provenance, RecordError, read_all, read_fields, record_path, record_pattern

INTERVAL_OF = ("precision", "recall", "f1", "exact_match")


NEEDED = (*INTERVAL_OF, "coverage", "valid_rate")
"""Metrics without which a record says too little."""


@dataclass(frozen=True, kw_only=True)
class RunRecord(Provenance):
    """One run on one test split, beside its `Provenance`."""

    run: str
    """Name of the run, unique within profile and domain, for example `base-seed0`."""
    split: str
    training: Mapping[str, Any] = field(default_factory=dict)
    """Seconds, tokens per second and the loss curve."""
    answer_seconds: float | None = None
    """What answering the test sessions took and nothing else, in all runs of a stage that was stopped. `None` where
    nobody has timed it, as in records of earlier versions."""
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
    analysis: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of a fusion (what α does) or of votes (curves, diversity), where there are any."""
    attachments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further files beside the record: what → `file`, `sha256`. `alpha`: weights of every test session. `samples`:
    all sampled answers."""

    @property
    def place(self) -> Path:
        """Where the record lies in a results folder."""
        return record_path("", self.profile, self.domain, self.run)

    @property
    def beside(self) -> dict[str, str]:
        """The files beside the record: name → hash."""
        attached = {one["file"]: one["sha256"] for one in self.attachments.values()}
        return {self.predictions: self.predictions_sha256, **attached}


def without_seed(name: str) -> str:
    """What a run or one of its experts is called in figures and claims: `base` for `base-seed0`."""
    return re.sub(r"-seed\d+$", "", name)


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
    answer_seconds: float | None = None,
    peak_before: float = 0.0,
    analysis: Mapping[str, Any] | None = None,
    attachments: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
) -> RunRecord:
    """Measure a run's answers and write its record, predictions and attachments.

    Args:
        folder: the results folder; the record goes to `<folder>/<profile>/<domain>/<run>.json`.
        test: the sessions that were answered.
        answers: one per session.
        peak_before: largest memory of earlier processes of this run, in MiB.
        attachments: what → rows, written to `<run>.<what>.jsonl`.

    Raises:
        RecordError: sessions without an answer.
    """
    by_id = {answer.id: answer for answer in answers}
    if missing := [s.id for s in test if s.id not in by_id]:
        raise RecordError(f"{run}: no answer for {len(missing)} sessions of {test.name}, {missing[0]} the first")
    main = record_path(folder, profile, test.name, run)
    place = main.parent
    predictions = place / f"{run}.predictions.jsonl"
    _write_lines(predictions, (by_id[session.id].to_json() for session in test))
    attached = {}
    for what, rows in (attachments or {}).items():
        path = place / f"{run}.{what}.jsonl"
        _write_lines(path, rows)
        attached[what] = {"file": path.name, "sha256": sha256_file(path)}
    kinds = [problem.kind for answer in by_id.values() for problem in answer.problems]
    record = RunRecord(
        profile=profile,
        domain=test.name,
        run=run,
        seed=seed,
        split=test.split,
        config=config,
        config_hash=config_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        data_sha256=test.sha256,
        student=student,
        adapter_sha256=adapter_sha256 or {},
        training=training or {},
        answer_seconds=None if answer_seconds is None else round(answer_seconds, 2),
        wall_seconds=round(wall_seconds, 1),
        peak_memory_mb=round(max(peak_before, peak_memory_mb())),
        n_sessions=len(test),
        n_invalid=sum(not answer.bundles for answer in by_id.values()),
        problems={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        predictions=predictions.name,
        predictions_sha256=sha256_file(predictions),
        analysis=analysis or {},
        attachments=attached,
        **measure({i: a.bundles for i, a in by_id.items()}, test),
        path=main,
    )
    write_json(record.path, {k: v for k, v in asdict(record).items() if k != "path"})
    return record


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def measure(predictions: Mapping[int, Sequence[Iterable[int]]], test: Domain) -> dict[str, Any]:
    """Metrics and intervals of predictions under both protocols, as a record holds them."""
    import numpy as np

    from ..statistics import bootstrap_interval

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
        RecordError: no JSON, or a field is missing, unknown, of another type or no finite number.
    """
    record = read_fields(RunRecord, Path(path), "a run record")
    for name in ("metrics", "intervals"):
        if missing := [p for p in PROTOCOLS if p not in getattr(record, name)]:
            raise RecordError(f"{path}: not a run record: {name}.{missing[0]} is missing; {REMEDY}")
    for protocol, found in record.metrics.items():
        if missing := [metric for metric in NEEDED if metric not in found]:
            raise RecordError(f"{path}: not a run record: metrics.{protocol}.{missing[0]} is missing; {REMEDY}")
    for what, attached in record.attachments.items():
        if missing := {"file", "sha256"} - attached.keys():
            raise RecordError(f"{path}: not a run record: attachments.{what}.{min(missing)} is missing; {REMEDY}")
    if strange := [name for name in record.beside if name != Path(name).name]:
        raise RecordError(f"{path}: not a run record: {strange[0]!r} is no name of a file beside it; {REMEDY}")
    return record


def load_all(
    folder: str | Path = "results", *, profile: str | None = None, domain: str | None = None
) -> list[RunRecord]:
    """All records below a folder, sorted by profile, domain and run; none if the folder does not exist.

    Args:
        folder: the results folder.
        profile, domain: read only those of this profile or domain; others may be malformed.

    Raises:
        RecordError: a record is malformed, or lies where another should.
    """
    found = read_all(folder, record_pattern(profile, domain), read_record)
    return sorted(found, key=lambda r: (r.profile, r.domain, r.run))


def load_predictions(record: RunRecord) -> dict[int, Answer]:
    """The answers behind a record, by session id.

    Raises:
        RecordError: the file is missing or is not the one that the record was made from.
    """
    rows = _read_lines(record, record.predictions)
    return {row["id"]: Answer.from_json(row) for row in rows}


def load_attachment(record: RunRecord, what: str) -> list[dict[str, Any]]:
    """The rows of a file that a record names beside its predictions.

    Raises:
        RecordError: there is no such file, or it is not the one that the record was made with.
    """
    if what not in record.attachments:
        known = ", ".join(record.attachments) or "none"
        raise RecordError(f"{record.path}: no attachment {what!r}; there is: {known}")
    return _read_lines(record, record.attachments[what]["file"])


def _read_lines(record: RunRecord, name: str) -> list[dict[str, Any]]:
    if (wrong := _damage(record, name)) is not None:
        raise RecordError(wrong)
    with open(record.path.with_name(name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def damage(record: RunRecord) -> str | None:
    """What is wrong with the files beside a record, in words; `None` if all are those that it was made with."""
    return next((wrong for name in record.beside if (wrong := _damage(record, name))), None)


def _damage(record: RunRecord, name: str) -> str | None:
    path = record.path.with_name(name)
    if not path.exists():
        return f"{record.path}: its file {name} is missing"
    return None if sha256_file(path) == record.beside[name] else f"{path}: changed since the record was written"


def verify(record: RunRecord, domain: str | Path | None = None) -> None:
    """Compute a record's numbers again from its predictions and the data, and look whether all its files are whole.

    Args:
        record: of any domain.
        domain: where its sessions are, if they are your own; by default the domain that it names.

    Raises:
        RecordError: they differ, a file is missing or has changed, or the data have changed.
    """
    if (wrong := damage(record)) is not None:
        raise RecordError(wrong)
    if domain is None and record.domain not in DOMAINS and own_folder(record.domain) is None:
        raise RecordError(f"{record.path}: made from sessions of your own: give their folder (--domain) to verify it")
    test = load_domain(domain or record.domain, record.split)
    if test.sha256 != record.data_sha256:
        raise RecordError(f"{record.path}: made from other data ({record.data_sha256[:12]}…, now {test.sha256[:12]}…)")
    again = measure({i: a.bundles for i, a in load_predictions(record).items()}, test)
    for name in ("metrics", "intervals"):
        if again[name] != getattr(record, name):
            raise RecordError(f"{record.path}: {name} do not follow from {record.predictions}")
