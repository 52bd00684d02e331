"""Read trained LoRA adapters from PEFT folders as plain matrices, ready to be stacked.

Only what a routed layer can honour is accepted: plain LoRA on linear modules (rank and alpha patterns and rsLoRA
included), complete and finite. Anything else that a PEFT folder can hold is refused by name, so that nothing is dropped
in silence; `adapter_config` has the list.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import read_json, read_tensors
from .adapter_config import read_settings
from .hub import adapter_folder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from peft import LoraConfig

_PREFIX = "base_model.model."
_WEIGHTS, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"


class LowRank(NamedTuple):
    """One expert's update of one linear module: ΔW = scale · B A."""

    a: torch.Tensor
    """Shapes: (r, d_in)."""
    b: torch.Tensor
    """Shapes: (d_out, r)."""
    scale: float
    """s in the papers: lora_alpha / r, or lora_alpha / √r for rsLoRA (arXiv 2312.03732)."""

    def delta(self) -> torch.Tensor:
        """ΔW in float32.

        Shapes:
            (d_out, d_in)
        """
        return self.scale * (self.b.float() @ self.a.float())


class Adapter(NamedTuple):
    """A trained adapter."""

    name: str
    student: str
    """What it was trained on."""
    modules: Mapping[str, LowRank]
    """By the name of the linear module in the student, for example `model.layers.0.self_attn.q_proj`."""
    settings: LoraConfig | None = None
    """Which modules it must have an update of, where it was read from a PEFT folder."""

    @property
    def sha256(self) -> str:
        """Of all matrices and scales, whatever file they came from."""
        digest = hashlib.sha256()
        for module, update in sorted(self.modules.items()):
            digest.update(f"{module} {update.scale!r}".encode())
            for matrix in (update.a, update.b):
                digest.update(tensor_bytes(matrix))
        return digest.hexdigest()

    def misses(self, module: str) -> bool:
        """Whether a module of the student should have an update, by the settings, and has none."""
        from peft.tuners.tuners_utils import check_target_module_exists

        if self.settings is None or module in self.modules:
            return False
        return bool(check_target_module_exists(self.settings, module))


def tensor_bytes(tensor: torch.Tensor) -> np.ndarray:
    """What a tensor holds, byte by byte, for a hash."""
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def read_adapter(folder: str | Path, name: str | None = None) -> Adapter:
    """Read a PEFT LoRA folder, or fetch one from the model hub and read it.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`; or an id as `hub.adapter_folder` takes it.
        name: of the expert; by default the folder's.

    Raises:
        DownloadError: there is neither such a folder nor such an id, or the hub cannot be reached.
        FileNotFoundError: the folder holds no adapter, or only one as a pickle, which is not read.
        ValueError: the adapter uses something that a routed layer cannot reproduce, or its weights are damaged.
    """
    folder, called = adapter_folder(folder)
    _check_files(folder)
    settings = read_settings(read_json(folder / _SETTINGS, "the settings of an adapter"), str(folder / _SETTINGS))
    halves = _halves(folder / _WEIGHTS)
    modules = {}
    for module, pair in halves.items():
        _check_pair(pair, settings, module, folder / _WEIGHTS)
        modules[module] = LowRank(pair["A"], pair["B"], scale_of(settings, module, pair["A"].shape[0]))
    return Adapter(name or called, settings.base_model_name_or_path or "", modules, settings)


def read_experts(experts: Sequence[str | Path | Adapter], student: str | None = None) -> tuple[Adapter, ...]:
    """The adapters of several experts, each of another name.

    Args:
        experts: what `read_adapter` takes, or adapters that were read before.
        student: what they must have been trained on; `None` does not check.

    Raises:
        ValueError: there is none, two have one name, or one is of another student.
    """
    if not experts:
        raise ValueError("experts is empty: a routed model needs at least one LoRA expert")
    adapters = tuple(e if isinstance(e, Adapter) else read_adapter(e) for e in experts)
    places: dict[str, str] = {}
    for number, (adapter, given) in enumerate(zip(adapters, experts, strict=True)):
        here = f"experts[{number}]" if isinstance(given, Adapter) else str(given)
        if adapter.name in places:
            raise ValueError(
                f"{places[adapter.name]} and {here} are both called {adapter.name!r}, and experts are known by their "
                "names: give one of them another, as `read_adapter(folder, name)`"
            )
        places[adapter.name] = here
        if student is not None and adapter.student != student:
            raise ValueError(
                f"the expert {adapter.name!r} was trained on {adapter.student!r}, this student is {student!r}"
            )
    return adapters


def adapted_modules(adapters: Iterable[Adapter]) -> list[str]:
    """Names of the modules that any of them adapts, each once, in the order in which they are met."""
    return list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))


def peft_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """An adapter's matrices under the names that PEFT saves them by."""
    return {
        f"{_PREFIX}{module}.lora_{half}.weight": matrix.contiguous()
        for module, update in adapter.modules.items()
        for half, matrix in (("A", update.a), ("B", update.b))
    }


def _check_files(folder: Path) -> None:
    if not (folder / _WEIGHTS).is_file() and (folder / "adapter_model.bin").exists():
        raise FileNotFoundError(
            f"{folder} holds its weights as a pickle (adapter_model.bin), which can run code and is not read: load it "
            "once with peft's `PeftModel.from_pretrained`, and `save_pretrained` it to a new folder"
        )
    for name in (_WEIGHTS, _SETTINGS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no file {name}: give a folder that PEFT's save_pretrained has written"
            )


def _halves(file: Path) -> dict[str, dict[str, torch.Tensor]]:
    """A and B of every module in a file."""
    from safetensors import SafetensorError

    try:
        tensors = read_tensors(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or cut short ({error}): get it anew") from error
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, half = key.removeprefix(_PREFIX).rpartition(".lora_")
        if half not in ("A.weight", "B.weight") or tensor.ndim != 2:
            raise ValueError(f"{file}: {key} {tuple(tensor.shape)} is not a LoRA matrix of a linear module")
        halves.setdefault(module, {})[half[0]] = tensor
    if not halves:
        raise ValueError(f"{file} holds no LoRA matrices: the adapter is empty")
    return halves


def _check_pair(pair: Mapping[str, torch.Tensor], settings: LoraConfig, module: str, file: Path) -> None:
    """Both halves, of the rank that the settings give, and nothing in them that is not a number."""
    for half in "AB":
        if half not in pair:
            raise ValueError(
                f"{file} lacks {_PREFIX}{module}.lora_{half}.weight: the file is not complete, get it anew"
            )
    r = _of_module(settings.rank_pattern, module, settings.r)
    for half, found in (("A", pair["A"].shape[0]), ("B", pair["B"].shape[1])):
        if found != r:
            raise ValueError(
                f"{file}: lora_{half} of {module} has rank {found}, {_SETTINGS} says {r}: these are of two adapters"
            )
        matrix = pair[half]
        if not matrix.is_floating_point() or not bool(matrix.isfinite().all()):
            raise ValueError(
                f"{file}: lora_{half} of {module} holds values that are not finite numbers (NaN, infinity or another "
                "type): its training diverged, or the file is damaged"
            )


def scale_of(settings: LoraConfig, module: str, r: int) -> float:
    """s of one module, whose rank is r, in an adapter of these settings."""
    return _of_module(settings.alpha_pattern, module, settings.lora_alpha) / (
        math.sqrt(r) if settings.use_rslora else r
    )


def _of_module(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """What is set for one module; PEFT's patterns match the end of a module's name."""
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(patterns.keys(), module), otherwise)
