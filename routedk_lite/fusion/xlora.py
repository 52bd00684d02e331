"""X-LoRA (Buehler and Buehler, arXiv 2402.07148), as PEFT has it: the student reads twice.

First the student reads the tokens without any expert. A classifier makes the weights of every token from its last
hidden states h, then the student reads again with them:

    α_t = softmax(C(h_t) / temperature)

C is one linear layer (`depth` 1, PEFT's default) or several with a ReLU between them. The first reading has a meaning
that no layer's input has, since it knows what the student would have said; it costs as much as a second student. PEFT
uses no KV cache and reads everything anew for every token. Here each reading has a cache of its own, that of the first
beside that of the second (`first_cache`), so that a token costs two and not two for every token before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .base import Fusion, Weigher, require
from .fusion import SCOPES
from .reading import Reading


@dataclass(frozen=True, kw_only=True)
class XLora(Fusion):
    """α of every token from the last hidden states that the student has without experts. The defaults are PEFT's.

    With the same adapters and classifier it equals PEFT's X-LoRA. Left out are PEFT's `scaling_pass_value` other than
    zero (experts in the first reading), weights without a softmax, `top_k_lora`, `global_scaling_weight`, and layerwise
    weights that differ within a layer: at the scope `layer` all modules of a layer share them. Unlike PEFT's, the
    classifier's last layer starts from zero, that is, from the average.
    """

    source = "2402.07148"
    depends_on_input = by_token = learns = True

    scope: str = "global"
    """`global`: one α for all layers. `layer`: one for each (PEFT's `layerwise_scalings`, by module there)."""
    depth: int = 1
    """Linear layers of the classifier."""
    size: int = 2048
    """Width between them."""
    dropout: float = 0.2
    """Between them, in training."""
    temperature: float = 1.0
    """Above 1: flatter α. Below 1: sharper."""

    def __post_init__(self) -> None:
        require(self.scope in SCOPES, self, "scope", "layer or global")
        require(self.depth >= 1, self, "depth", "1 or more")
        require(self.size >= 1, self, "size", "1 or more")
        require(0 <= self.dropout < 1, self, "dropout", "from 0 up, below 1")
        require(self.temperature > 0, self, "temperature", "above 0")

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return _Classifier(n_layers, n_experts, hidden_size, self)


class _Classifier(Weigher):
    reads_twice = True

    def __init__(self, n_layers: int, n_experts: int, hidden_size: int, options: XLora) -> None:
        super().__init__(n_layers, n_experts)
        self.options, self.once = options, options.scope == "global"
        widths = [hidden_size] + [options.size] * (options.depth - 1)
        inner: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # that of CPUs alone: no GPU's is put back behind it
            for narrow, wide in pairwise(widths):
                inner += [nn.Linear(narrow, wide), nn.ReLU(), nn.Dropout(options.dropout)]
            last = nn.Linear(widths[-1], n_experts * (1 if self.once else n_layers))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.inner, self.last = nn.Sequential(*inner), last

    def alpha(self, layer, hidden, mask):
        rows = slice(0, self.n_experts) if self.once else slice(layer * self.n_experts, (layer + 1) * self.n_experts)
        states = self.inner(hidden.float())  # (B, T, D) or (B, T, size)
        logits = nn.functional.linear(states, self.last.weight[rows], self.last.bias[rows])  # (B, T, E)
        return (logits / self.options.temperature).softmax(-1)


_FIRST = "_routedk_first"
"""Attribute of a KV cache: that of the first reading of the same tokens. A copied cache keeps a copy of it."""


def first_cache(cache: Any, rows: int, *, wanted: bool, config: Any) -> Any:
    """The KV cache of the first reading that goes with one of the second.

    Args:
        cache: of the second reading; nothing, empty, or of earlier tokens.
        rows: of the batch.
        wanted: whether there shall be one where `cache` is nothing.
        config: the student's.

    Raises:
        RuntimeError: there is none of these tokens and rows.
    """
    from transformers import DynamicCache

    if cache is None:
        return DynamicCache(config=config) if wanted else None
    length = int(cache.get_seq_length())
    if not length:
        keep_first(cache, DynamicCache(config=config))
    found = getattr(cache, _FIRST, None)
    if length and (found is None or int(found.get_seq_length()) != length):
        raise RuntimeError(
            f"this KV cache holds {length} tokens, and none of X-LoRA's first reading of them: it was made by another "
            "model, or cut; read all tokens anew"
        )
    if length and len(found.layers[0].keys) != rows:
        raise RuntimeError(
            f"{rows} rows are decoded, but X-LoRA's first reading was of {len(found.layers[0].keys)}: call "
            "select_alpha after selecting rows of the KV cache"
        )
    return found


def keep_first(cache: Any, first: Any) -> None:
    """Lay the KV cache of the first reading beside that of the second."""
    if cache is not None and first is not None:
        setattr(cache, _FIRST, first)


def read_without_experts(
    reading: Reading, decoder: nn.Module, args: tuple, kwargs: dict[str, Any], *, rows: int, config: Any
) -> None:
    """The first of two readings: its states and its cache go into `reading`.

    Args:
        reading: of the routed model.
        decoder: the student's; its layers give no weight to any expert while `reading.bare`.
        args, kwargs: of the decoder, as the second reading will have them.
        rows: of the batch.
        config: the student's.
    """
    wanted = kwargs.get("use_cache")
    wanted = config.get_text_config().use_cache if wanted is None else wanted
    cache = first_cache(kwargs.get("past_key_values"), rows, wanted=bool(wanted), config=config)
    own = {"past_key_values": cache, "use_cache": cache is not None, "output_hidden_states": False}
    reading.bare, reading.first = True, cache
    try:
        with torch.no_grad():
            reading.states = decoder.forward(*args, **kwargs | own)[0]
    finally:
        reading.bare = False


def generating_twice(kwargs: dict[str, Any], defaults: Any) -> dict[str, Any]:
    """Arguments of `generate` with which both readings stay together.

    What a search for beams reorders, and where guesses are cut off, is the second cache alone: beams have no cache,
    and guesses are refused. Every cache grows with its tokens.

    Args:
        kwargs: of `generate`, by name; `generation_config` is a copy that may be changed.
        defaults: the student's settings of generation.

    Raises:
        ValueError: an assistant or prompt lookup is asked for.
    """
    settings = kwargs.get("generation_config") or defaults
    for name in ("assistant_model", "prompt_lookup_num_tokens"):
        if kwargs.get(name, getattr(settings, name, None)) is not None:
            raise ValueError(f"{name}: X-LoRA reads everything twice and cannot take guesses back; generate without")
    kwargs = {name: value for name, value in kwargs.items() if name not in ("cache_implementation", "cache_config")}
    if kwargs.get("generation_config") is not None:
        settings.cache_implementation = None
    beams = kwargs.get("num_beams", settings.num_beams) or 1
    return kwargs | ({"use_cache": False} if beams > 1 else {})
