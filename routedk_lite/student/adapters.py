"""Read trained LoRA adapters from PEFT folders as plain matrices, ready to be stacked.

Only what a routed layer can honour is accepted: plain LoRA on linear modules (rank and alpha patterns and rsLoRA
included). Anything else that a PEFT folder can hold is refused by name, so that nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

_PREFIX = "base_model.model."


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

    @property
    def sha256(self) -> str:
        """Of all matrices and scales, whatever file they came from."""
        import torch

        digest = hashlib.sha256()
        for module, update in sorted(self.modules.items()):
            digest.update(f"{module} {update.scale!r}".encode())
            for matrix in (update.a, update.b):
                digest.update(matrix.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def read_adapter(folder: str | Path, name: str | None = None) -> Adapter:
    """Read a PEFT LoRA folder.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        name: of the expert; by default the folder's.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: the adapter uses something that a routed layer cannot reproduce.
    """
    from peft import PeftConfig
    from safetensors.torch import load_file

    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{folder} holds no adapter_model.safetensors: give a folder that PEFT has written")
    config = PeftConfig.from_pretrained(str(folder))
    _check_plain_lora(config, folder)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(weights).items():
        module, _, half = key.removeprefix(_PREFIX).rpartition(".lora_")
        if half not in ("A.weight", "B.weight") or tensor.ndim != 2:
            raise ValueError(f"{folder}: {key} is not a LoRA matrix of a linear module")
        halves.setdefault(module, {})[half[0]] = tensor
    modules = {
        module: LowRank(pair["A"], pair["B"], _scale(config, module, pair["A"].shape[0]))
        for module, pair in halves.items()
    }
    return Adapter(name or folder.name, config.base_model_name_or_path or "", modules)


def peft_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """An adapter's matrices under the names that PEFT saves them by."""
    return {
        f"{_PREFIX}{module}.lora_{half}.weight": matrix.contiguous()
        for module, update in adapter.modules.items()
        for half, matrix in (("A", update.a), ("B", update.b))
    }


def _check_plain_lora(config: LoraConfig, folder: Path) -> None:
    if getattr(config.peft_type, "value", config.peft_type) != "LORA":
        raise ValueError(f"{folder}: peft_type is {config.peft_type}; a routed model takes LoRA adapters")
    unsupported = {
        "use_dora": config.use_dora,
        "bias": config.bias != "none",
        "lora_bias": config.lora_bias,
        "fan_in_fan_out": config.fan_in_fan_out,
        "modules_to_save": bool(config.modules_to_save),
        "trainable_token_indices": bool(config.trainable_token_indices),
    }
    if found := [option for option, used in unsupported.items() if used]:
        raise ValueError(f"{folder}: uses {', '.join(found)}, which a routed layer cannot; train without")


def _scale(config: LoraConfig, module: str, r: int) -> float:
    """s of one module; PEFT's patterns match the end of a module's name."""
    from peft.utils.other import get_pattern_key

    key = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha = config.alpha_pattern.get(key, config.lora_alpha)
    return alpha / (math.sqrt(r) if config.use_rslora else r)
