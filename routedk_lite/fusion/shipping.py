"""A routed model as a folder to give away, and back again into the folders that a study works in.

There are two. `write_merged` writes an ordinary model, which anything loads that loads models from the hub. The other
folder is what `RoutedModel.from_pretrained` reads, with the notes on every training beside it. So a study that
finds its own model shipped among its records goes on from there: nobody has to train the experts again to sample from
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic_folder, write_json
from ..student.adapters import peft_tensors, read_adapter
from ..student.experts import ADAPTER_FILES
from ..student.summaries import copy_summary
from .base import Fusion
from .routed import RoutedModel
from .saved import MODEL_FILES, ROUTED_FILES, TRAINING_NOTES, saved_adapters, saved_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MERGED_NOTES = "merged.json"
_MERGED_FILES = (
    _MERGED_NOTES, "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab*", "merges.txt",
)  # fmt: skip
_FUSION_NOTES = "routing.json"


def write_shipped(
    model: RoutedModel,
    folder: Path,
    experts: Iterable[Path],
    fusion: Path | None = None,
    *,
    force: bool = False,
) -> None:
    """Write a routed model with the notes on its trainings; replaces one that was there.

    Args:
        model: trained.
        folder: to write.
        experts: their PEFT folders, from `train_expert`, in the model's order.
        fusion: the folder of `train_fusion`, where the fusion has learned.
        force: replace the folder whatever it holds.

    Raises:
        OccupiedError: the folder holds something else than a routed model.
    """
    with atomic_folder(folder, ours=ROUTED_FILES, force=force) as target:
        model.write(target)
        for name, source in zip(model.expert_names, experts, strict=True):
            notes = target / "trainings" / name
            notes.mkdir(parents=True)
            for file in TRAINING_NOTES:
                shutil.copy(source / file, notes / file)
        if fusion is not None:
            copy_summary(fusion / _FUSION_NOTES, target / _FUSION_NOTES, MODEL_FILES)


def exported_files(folder: Path, *, merged: bool) -> Collection[str]:
    """Names of what an export may replace in a folder: of a merged model nothing, unless it was written by us."""
    if not merged:
        return ROUTED_FILES
    return _MERGED_FILES if Path(folder, _MERGED_NOTES).exists() else ()


def write_merged(
    model: RoutedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, *, force: bool = False
) -> None:
    """Write a fusion that does not depend on the input as an ordinary model, with its tokenizer.

    Args:
        model: routed; it stays as it is.
        tokenizer: the student's.
        folder: to write; replaces a merged model that was there.
        force: replace the folder whatever it holds.

    Raises:
        ValueError: α depends on the input, or the weights are quantised.
        OccupiedError: the folder holds something else than a merged model.
    """
    folder = Path(folder)
    with atomic_folder(folder, ours=exported_files(folder, merged=True), force=force) as target:
        model.merge().save_pretrained(target)
        tokenizer.save_pretrained(target)
        experts = [{"name": a.name, "student": a.student, "sha256": a.sha256} for a in model.adapters]
        write_json(target / _MERGED_NOTES, {**model.fusion.to_json(), "experts": experts})


def unpack_expert(shipped: Path, folder: Path) -> bool:
    """Write the expert of a folder's name, if a shipped model has it, as the PEFT folder that `train_expert` had left.

    Whether it is the expert that is wanted, `train_expert` decides by the notes.

    Returns:
        Whether there was such an expert. A folder that exists is left alone.

    Raises:
        ValueError: a file is not the one that was shipped.
    """
    from safetensors.torch import save_file

    notes = shipped / "trainings" / folder.name
    if folder.exists() or not notes.exists():
        return False
    found = next(adapter for adapter in saved_adapters(shipped) if adapter.name == folder.name)
    with atomic_folder(folder) as target:
        save_file(peft_tensors(found), target / "adapter_model.safetensors", metadata={"format": "pt"})
        shutil.copy(notes / "adapter_config.json", target / "adapter_config.json")
        copy_summary(notes / "training.json", target / "training.json", ADAPTER_FILES)
        if read_adapter(target).sha256 != found.sha256:
            raise ValueError(f"{notes}: its adapter_config.json is not that of the shipped matrices: get both anew")
    return True


def unpack_fusion(shipped: Path, fusion: Fusion, experts: Sequence[str], folder: Path) -> bool:
    """Likewise the fusion, if it is this one of these experts, as the folder that `train_fusion` had left."""
    if folder.exists() or not (shipped / _FUSION_NOTES).exists():
        return False
    saved = saved_settings(shipped)
    settings, names = fusion.to_json(), [expert["name"] for expert in saved["experts"]]
    if names != list(experts) or settings != {name: saved.get(name) for name in settings}:
        return False
    with atomic_folder(folder) as target:
        for file in shipped.iterdir():
            if file.is_file():
                shutil.copy(file, target / file.name)
    return True
