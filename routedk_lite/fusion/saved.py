"""The folder of a routed model: experts and fusion as they were saved, and the hashes of what belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checked import is_finite
from ..files import UnreadableError, read_json, read_tensors, sha256_file, write_json
from ..student.adapters import Adapter, LowRank

if TYPE_CHECKING:
    from .base import Fusion, Weigher

_FILES = ("experts.safetensors", "fusion.safetensors")
MODEL_FILES = (*_FILES, "routed.json")
"""What `RoutedModel.from_pretrained` reads."""
TRAINING_NOTES = ("adapter_config.json", "training.json")
"""What is kept of the training of an expert, in `trainings/<expert>`."""
ROUTED_FILES = (*MODEL_FILES, "routing.json", *(f"trainings/*/{name}" for name in TRAINING_NOTES))
"""What we write into the folder of a routed model: its files, and the notes on its trainings."""


def write_saved(folder: Path, adapters: Sequence[Adapter], fusion: Fusion, weigher: Weigher) -> None:
    """Write experts and fusion into a folder that exists, `routed.json` last."""
    from safetensors.torch import save_file

    tensors, experts = {}, []
    for i, adapter in enumerate(adapters):
        experts.append({"name": adapter.name, "student": adapter.student, "scales": {}})
        for module, update in adapter.modules.items():
            # Copies: experts may share a tensor, which a file may not hold twice.
            tensors |= {f"{i}.{module}.{part}": getattr(update, part).clone().contiguous() for part in "ab"}
            experts[-1]["scales"][module] = update.scale
    save_file(tensors, folder / "experts.safetensors")
    save_file({k: v.contiguous() for k, v in weigher.state_dict().items()}, folder / "fusion.safetensors")
    hashes = {name: sha256_file(folder / name) for name in _FILES}
    write_json(folder / "routed.json", {**fusion.to_json(), "experts": experts, "sha256": hashes})


def saved_adapters(folder: str | Path) -> list[Adapter]:
    """The experts of a saved routed model, in its order.

    Raises:
        FileNotFoundError: the folder holds no routed model.
        ValueError: a file is not the one that was saved.
    """
    return adapters_of(folder, saved_settings(folder))


def adapters_of(folder: str | Path, settings: Mapping[str, Any]) -> list[Adapter]:
    """The experts beside settings that were read before.

    Raises:
        ValueError: the settings do not name the matrices that are there.
    """
    tensors = read_tensors(Path(folder, "experts.safetensors"))
    named = {f"{i}.{m}.{half}" for i, e in enumerate(settings["experts"]) for m in e["scales"] for half in "ab"}
    if odd := sorted(named ^ tensors.keys()):
        where = ("routed.json", "experts.safetensors")[:: 1 if odd[0] in named else -1]
        raise UnreadableError(f"{folder}: {where[0]} names {odd[0]}, which {where[1]} has not: get both anew")
    return [
        Adapter(
            expert["name"],
            expert["student"],
            {m: LowRank(tensors[f"{i}.{m}.a"], tensors[f"{i}.{m}.b"], s) for m, s in expert["scales"].items()},
        )
        for i, expert in enumerate(settings["experts"])
    ]


def load_learned(folder: str | Path, weigher: Weigher) -> None:
    """Give a weigher what its fusion has learned.

    Raises:
        ValueError: the file is of another fusion, or holds values that are not finite.
    """
    from safetensors.torch import load_file

    path = Path(folder, "fusion.safetensors")
    found, wanted = load_file(path), weigher.state_dict()
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in wanted.items()}:
        shown = ", ".join(f"{name} {tuple(value.shape)}" for name, value in found.items()) or "nothing"
        raise UnreadableError(f"{path} holds {shown}, which is not of the fusion in routed.json: get both anew")
    if not all(bool(value.isfinite().all()) for value in found.values()):
        raise UnreadableError(f"{path} holds values that are not finite: its training diverged, or it is damaged")
    weigher.load_state_dict(found)


def saved_settings(folder: str | Path) -> dict[str, Any]:
    """`routed.json` of a saved routed model: its fusion's settings, `experts` and `sha256`, which the files have.

    Raises:
        FileNotFoundError: the folder holds no routed model.
        ValueError: a file is not the one that was saved.
    """
    folder = Path(folder)
    if not (folder / "routed.json").exists():
        raise FileNotFoundError(f"{folder} holds no routed.json: give a folder that save_pretrained wrote")
    fields = {"fusion": str, "experts": list, "sha256": dict}
    settings = read_json(folder / "routed.json", "the settings of a routed model", fields=fields)
    for expert in settings["experts"]:
        if not isinstance(expert, dict) or not expert.keys() >= {"name", "student", "scales"}:
            raise UnreadableError(f"{folder / 'routed.json'}: experts holds {expert!r:.60}: get the folder anew")
        scales = expert["scales"]
        if not isinstance(scales, dict) or not all(map(is_finite, scales.values())):
            raise UnreadableError(
                f"{folder / 'routed.json'}: the scales of {expert['name']!r} are not a finite number for each module: "
                "get the folder anew"
            )
    for name in _FILES:
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds routed.json, but no {name}: get both anew")
        if sha256_file(folder / name) != settings["sha256"].get(name):
            raise ValueError(f"{folder / name} is not the file that was saved with routed.json: get both anew")
    return settings
