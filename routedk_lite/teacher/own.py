"""What a teacher knows about sessions of your own: files that lie beside them, as `routedk distill` writes them."""

from __future__ import annotations

from pathlib import Path

from ..data.sessions import DataError

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
