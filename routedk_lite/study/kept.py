"""What is kept as it comes, so that an interrupted run goes on: in which file, and what it has taken so far.

A file of answers is of one model: its name changes with the student, its experts, and what a fusion has learned. An
expert that was trained anew is asked anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import digest
from ..files import naming, read_json, read_lines, write_json
from ..fusion.routed import RoutedModel
from ..locks import locked
from ..student.adapters import tensor_bytes
from ..student.peak import peak_memory_mb

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

    from ..student.backbone import Student

Keep = Callable[[Iterable[Any]], None]
"""Adds rows to a file."""


@contextmanager
def appending(partial: Path) -> Iterator[tuple[list[Any], Keep]]:
    """The rows that are kept in a file, and a function that adds some; one process at a time.

    Args:
        partial: a file of JSON lines, which need not exist. A line that was cut off does not count.
    """
    with locked(partial):
        known = read_lines(partial)
        with naming(partial), open(partial, "a", encoding="utf-8") as file:

            def keep(rows: Iterable[Any]) -> None:
                file.writelines(json.dumps(row) + "\n" for row in rows)
                file.flush()

            yield known, keep


@dataclass
class Spent:
    """Time and memory that the rows of a file have taken, all runs together."""

    before: float
    """Seconds of earlier runs."""
    seconds: float
    """Seconds in all, up to the last row."""
    peak_before: float = 0.0
    """Largest memory of earlier runs, in MiB."""


@contextmanager
def timed(partial: Path) -> Iterator[tuple[list[Any], Keep, Spent]]:
    """As `appending`, with what the rows have taken: noted beside them, so that a run that goes on adds to it.

    The note comes first: rows that are kept are never answered again, so nobody would write it after them. Time between
    a note and a kill counts twice. Waiting for another process does not count.
    """
    path = partial.with_suffix(".seconds.json")
    with appending(partial) as (rows, keep):
        before, peak_before = 0.0, 0.0
        if rows and path.exists():
            noted = read_json(path, "the seconds of what is kept", fields={"seconds": (int, float)})
            before, peak_before = float(noted["seconds"]), float(noted.get("peak_mb") or 0.0)
        spent, started = Spent(before, before, peak_before), time.perf_counter()

        def keep_timed(new: Iterable[Any]) -> None:
            spent.seconds = before + time.perf_counter() - started
            write_json(path, {"seconds": round(spent.seconds, 3), "peak_mb": round(max(peak_before, peak_memory_mb()))})
            keep(new)

        yield rows, keep_timed, spent


class Answered(NamedTuple):
    """Answers to the test sessions, and their time."""

    answers: list
    """`Answer` or `Samples`."""
    seconds: float
    """What they have taken, in all runs of the stage."""
    before: float
    """What of that was taken in earlier runs, to be added to the stage's wall time."""
    peak_before: float = 0.0
    """Largest memory of earlier runs, in MiB."""

    @property
    def times(self) -> dict[str, float]:
        """As fields that a stage makes."""
        return {"answer_seconds": self.seconds, "seconds_before": self.before, "peak_before": self.peak_before}


def model_digest(student: Student, model: PreTrainedModel | RoutedModel) -> str:
    """Eight hexadecimal digits that change with whatever a model's answers depend on, beside settings.

    Args:
        student: its hash and type of numbers.
        model: plain, with an expert, or routed: hashes of the experts, and of what the fusion has learned.
    """
    experts = []
    if isinstance(model, RoutedModel):
        experts = [*(adapter.sha256 for adapter in model.adapters), _hashed(model.weigher.state_dict())]
    elif hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        experts = [_hashed(get_peft_model_state_dict(model, save_embedding_layers=False))]
    return digest(*student.info.identity, experts)


def _hashed(tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor_bytes(tensor))
    return found.hexdigest()
