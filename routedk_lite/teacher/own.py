"""What a teacher knows about sessions of your own: files that lie beside them, as `routedk distill` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from ..data.sessions import DataError, Domain

KNOWLEDGE_FILES = ("rules.json", "reasoning.jsonl")
"""What rules and reasoning are kept in, in the order in which they are distilled."""


def has_knowledge(folder: Path) -> bool:
    """Whether a folder of sessions holds all of a teacher's knowledge."""
    return all((folder / name).exists() for name in KNOWLEDGE_FILES)


def how_to_distil(folder: Path) -> str:
    """The commands that make what is missing, in words."""
    return (
        f"ask a teacher with `routedk distill --domain {folder} --kind rules --teacher openai --model <model>` (or "
        "`--teacher local`), then the same with `--kind reasoning`"
    )


def check_distilled(folder: Path) -> None:
    """Make sure that a folder of sessions holds a teacher's knowledge.

    Raises:
        DataError: a file is missing; the message says how it is made.
    """
    for name in KNOWLEDGE_FILES:
        if not (folder / name).exists():
            raise DataError(f"{folder} holds no {name}, so no teacher has said anything: {how_to_distil(folder)}")


def check_current(folder: Path, made_from: str, train: Domain) -> None:
    """Make sure that reasoning is about the training sessions as they are.

    Args:
        folder: of the sessions.
        made_from: the provenance of the reasoning, which holds the hash of its sessions if `routedk distill` wrote it.
        train: the training sessions.

    Raises:
        DataError: they were others.
    """
    known = re.search("[0-9a-f]{64}", made_from)
    if known is not None and known[0] != train.sha256:
        raise DataError(
            f"{folder / KNOWLEDGE_FILES[1]}: the training sessions have changed since: distil it anew, for which what "
            f"the teacher answered before is not asked again; {how_to_distil(folder)}"
        )
