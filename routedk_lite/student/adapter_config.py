"""What an `adapter_config.json` says, as far as it is understood here.

A routed layer adds scale · B A x to what the student's own layer gives. PEFT can be told to do many other things under
the name of LoRA, and learns new ones with every version. So every field is named here: with what it means, as one that
says nothing about the finished weights, or with why it is refused. A field that is not named, and is set, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..checked import is_finite, is_whole

if TYPE_CHECKING:
    from peft import LoraConfig

HONOURED = frozenset(
    (
        "peft_type",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "init_lora_weights",
        "base_model_name_or_path",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
    )
)
"""Read: they decide the scale of every ΔW, and where one must be."""

SILENT = frozenset(
    (
        "task_type",
        "auto_mapping",
        "peft_version",
        "revision",
        "inference_mode",
        "lora_dropout",
        "runtime_config",
        "megatron_core",
        "qalora_group_size",
        "ensure_weight_tying",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "loftq_config",
    )
)
"""Say how an adapter was made or trained, not what it does: dropout acts in training alone, the settings of an
initialisation count only where `init_lora_weights` names it, and so on."""

REFUSED = {
    "use_dora": "it rescales the student's own weights",
    "use_qalora": "it pools the inputs of A",
    "use_bdlora": "its A or B are block-diagonal and stored otherwise",
    "bias": "it changes the student's biases",
    "lora_bias": "it adds a bias to B",
    "fan_in_fan_out": "its matrices are for layers that store their weights transposed (Conv1D)",
    "modules_to_save": "it replaces modules of the student",
    "trainable_token_indices": "it changes the student's embeddings",
    "target_parameters": "it changes weights outside linear modules, as those of a mixture of experts",
    "layer_replication": "it builds another student out of this one's layers",
    "alora_invocation_tokens": "it acts on some tokens only",
    "arrow_config": "it brings a router of its own",
    "kasa_config": "it changes the student's own weights",
    "monteclora_config": "it draws its weights at random",
    "megatron_config": "it is for layers of Megatron",
    "velora_config": "it saves tensors beside A and B",
}
"""Change what a layer does in a way that α · scale · B A x is not, and how."""

HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` that leave the student's own weights alone, now and when PEFT loads the adapter."""


def read_settings(raw: Any, where: str) -> LoraConfig:
    """The settings that are understood; everything else must be off.

    Args:
        raw: what `adapter_config.json` holds.
        where: the file, for messages.

    Raises:
        ValueError: it is no LoRA, a value is of the wrong kind, or something is set that a routed layer cannot
            reproduce. The message names the field and its value.
    """
    from peft import LoraConfig

    if not isinstance(raw, Mapping):
        raise ValueError(f"{where} holds {type(raw).__name__}, not the settings of an adapter: have PEFT save it again")
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"{where}: peft_type is {raw.get('peft_type')!r}; a routed model takes LoRA adapters ('LORA')")
    refused = [
        f"{name} = {raw[name]!r} ({reason})"
        for name, reason in REFUSED.items()
        if raw.get(name) and not (name == "bias" and raw[name] == "none")
    ]
    refused += [
        f"{name} = {value!r} (not known here; written by PEFT {raw.get('peft_version', 'of an unknown version')})"
        for name, value in raw.items()
        if value and name not in HONOURED | SILENT | REFUSED.keys()
    ]
    if refused:
        raise ValueError(
            f"{where} sets {'; '.join(refused)}: a routed layer cannot reproduce that. Train without, or convert the "
            "adapter to plain LoRA (peft's `convert_to_lora`) and give that"
        )
    _check_start(raw.get("init_lora_weights", True), where)
    settings = {name: raw[name] for name in HONOURED if raw.get(name) is not None}
    _check_numbers(settings, where)
    return LoraConfig(**{k: v for k, v in settings.items() if k not in ("peft_type", "init_lora_weights")})


def _check_start(start: Any, where: str) -> None:
    """Some initialisations take the adapter's first value out of the student's weights, and so change them."""
    if any(start is harmless or start == harmless for harmless in HARMLESS_STARTS):
        return
    raise ValueError(
        f"{where}: init_lora_weights = {start!r} changes the student's own weights before training, and this student "
        "has them unchanged, so the adapter's answers cannot be reproduced. Save it as plain LoRA: give "
        "`save_pretrained` the `path_initial_model_for_weight_conversion`, as PEFT documents for it"
    )


def _check_numbers(settings: Mapping[str, Any], where: str) -> None:
    def require(ok: bool, name: str, rule: str) -> None:
        if not ok:
            raise ValueError(f"{where}: {name} = {settings[name]!r} must be {rule}")

    def rank(value: Any) -> bool:
        return is_whole(value) and value > 0

    for name, pattern, ok, rule in (
        ("r", "rank_pattern", rank, "a whole number above 0"),
        ("lora_alpha", "alpha_pattern", is_finite, "a number"),
    ):
        if name in settings:
            require(ok(settings[name]), name, rule)
        if pattern in settings:
            entries = settings[pattern]
            fine = isinstance(entries, Mapping) and all(ok(value) for value in entries.values())
            require(fine, pattern, f"names of modules, each with {rule}")
    if "use_rslora" in settings:
        require(isinstance(settings["use_rslora"], bool), "use_rslora", "true or false")
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        if name in settings:
            names = settings[name]
            one_or_more = isinstance(names, str) or (isinstance(names, list) and all(isinstance(n, str) for n in names))
            require(one_or_more, name, "a name, a pattern or a list of names")
    if "layers_to_transform" in settings:
        layers = settings["layers_to_transform"]
        numbers = layers if isinstance(layers, list) else [layers]
        require(all(isinstance(n, int) and n >= 0 for n in numbers), "layers_to_transform", "layer numbers, from 0")
    if "base_model_name_or_path" in settings:
        require(isinstance(settings["base_model_name_or_path"], str), "base_model_name_or_path", "a name or a folder")
