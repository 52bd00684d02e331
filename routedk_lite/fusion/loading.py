"""A folder of experts that were trained before, put on their student: one expert (PEFT), or a routed model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import read_json, sha256_file, sha256_folder
from ..student.experts import load_expert
from .routed import RoutedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..student.backbone import Student

KINDS = ("routed.json", "adapter_config.json")
"""By these files a folder is known: of a routed model, of an expert."""


def check_experts(folder: Path) -> str:
    """Make sure that a folder holds experts; the file that it is known by.

    Raises:
        ValueError: it does not; the message names folders inside that do.
    """
    for file in KINDS:
        if (folder / file).is_file():
            return file
    inside = sorted({path.parent.name for file in KINDS for path in folder.glob(f"*/{file}")})
    hint = f"; choose one of those inside: {', '.join(inside)}" if inside else ""
    raise ValueError(
        f"{folder} holds no experts ({' or '.join(KINDS)}): give the folder of a trained expert or of `routedk export`"
        f"{hint}"
    )


@contextmanager
def experts_on(student: Student, folder: Path) -> Iterator[PreTrainedModel | RoutedModel]:
    """Within the block, the student carries the experts of a folder.

    Raises:
        ValueError: the folder holds none, they were trained on another student, or a file is damaged.
    """
    if check_experts(folder) == "routed.json":
        model = RoutedModel.from_pretrained(folder, student.model, student=student.info.id)
    else:
        model = load_expert(student, folder)
    try:
        yield model
    finally:
        model.unload()


def experts_sha256(folder: Path) -> list[str]:
    """Hashes of all that the answers of a folder's experts depend on: weights and settings."""
    return [sha256_folder(folder), sha256_file(folder / check_experts(folder))]


def longest_in_training(experts: Path) -> int | None:
    """Items of the longest session that any of the experts has learned from; `None` where nobody has noted it."""
    found = []
    for path in [experts / "training.json", *experts.glob("trainings/*/training.json")]:
        if path.is_file():
            found.append(read_json(path, "the summary of a training").get("longest"))
    counts = [count for count in found if isinstance(count, int)]
    return max(counts, default=None)
