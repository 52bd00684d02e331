"""Answers on disk: what was paid for is kept, and what is no answer is asked for again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.thoughts import without_thoughts
from ..files import atomic_write, cache_dir, sha256_json
from .teachers import CUT_OFF, CutOff, TeacherError


def answer_of(record: Mapping[str, Any]) -> str:
    """The answer in what was stored with it; a `CutOff` where it is one."""
    return CutOff(record["answer"]) if record.get("finish") in CUT_OFF else record["answer"]


def is_answer(text: str) -> bool:
    """Whether a reply says anything: blanks and thoughts alone do not."""
    return bool(without_thoughts(text).strip())


def plain(text: str) -> str:
    """The text with lone surrogates replaced, which no tokenizer and no server takes; pairs of them are joined.

    >>> plain("mug \\ud83d\\ude00 \\ud83d")
    'mug 😀 \ufffd'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_text(value: Any, **options: Any) -> str:
    """JSON that can be written as UTF-8 and is read back the same, lone surrogates too."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


class CallCache:
    """Answers on disk, one file each, named by a hash of the request.

    A request has several files where it was answered more than once: by another model at the same address, or after an
    answer that could not be used. None of them is ever written over, but for an empty one.

    Args:
        folder: where they lie; by default in the cache folder of the package.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else cache_dir("teacher")

    def get(self, request: Mapping[str, Any]) -> str | None:
        """The last answer to a request, if there is one.

        Raises:
            TeacherError: a file is not one of ours.
        """
        found = self.usable(request)
        return answer_of(found[-1]) if found else None

    def usable(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Everything that was stored with each answer to a request, the oldest first; without what is no answer.

        Raises:
            TeacherError: a file is not one of ours.
        """
        records = map(_read, self._paths(request))
        return [record for record in records if is_answer(record["answer"]) and not record.get("rejected")]

    def put(self, request: Mapping[str, Any], answer: str, **more: Any) -> dict[str, Any]:
        """Store an answer, whole or not at all, beside the request and whatever else is worth keeping.

        Returns:
            What was stored.

        Raises:
            TeacherError: it cannot be written.
        """
        record = {"request": request, "answer": answer, **more}
        paths = self._paths(request)
        if paths and not _read(paths[-1])["answer"]:
            path = paths[-1]
        else:
            path = self._path(sha256_json(request), _number(paths[-1]) + 1 if paths else 1)
        self._write(path, record)
        return record

    def reject(self, request: Mapping[str, Any], answer: str, why: str) -> None:
        """Mark an answer to a request as unusable: it is kept, and the request is made again next time."""
        for path in self._paths(request):
            record = _read(path)
            if record["answer"] == answer:
                self._write(path, {**record, "rejected": why})

    def check_writable(self) -> None:
        """Find out before anything is paid for whether it can be kept.

        Raises:
            TeacherError: it cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._unwritable(error) from error

    def _write(self, path: Path, record: Mapping[str, Any]) -> None:
        try:
            with atomic_write(path) as file:
                file.write(json_text(record, indent=1) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> TeacherError:
        return TeacherError(
            f"{self.folder}: answers cannot be kept here ({error.strerror or error}); make room, or set ROUTEDK_CACHE "
            "to another folder."
        )

    def _paths(self, request: Mapping[str, Any]) -> list[Path]:
        """The files of a request, the oldest first."""
        first = self._path(sha256_json(request), 1)
        # Looked for and not counted: a damaged one may have been deleted.
        found = [path for name in (first.stem, f"{first.stem}-[0-9]*") for path in first.parent.glob(f"{name}.json")]
        return sorted(found, key=_number)

    def _path(self, key: str, number: int) -> Path:
        return self.folder / key[:2] / (f"{key}.json" if number == 1 else f"{key}-{number}.json")


def _number(path: Path) -> int:
    """Which answer to its request a file holds, counted from 1."""
    return int(path.stem.partition("-")[2] or 1)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["answer"], str):
            raise TypeError("answer is no text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TeacherError(f"{path}: not a stored answer ({type(error).__name__}: {error}); delete it") from error
    return record
