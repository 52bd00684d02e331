"""X-LoRA (Buehler and Buehler, arXiv 2402.07148), as PEFT has it: the student reads twice.

First the student reads the tokens without any expert. A classifier makes the weights of every token from its last
hidden states h, then the student reads again with them:

    α_t = softmax(C(h_t) / temperature)

C is one linear layer (`depth` 1, PEFT's default) or several with a ReLU between them. The first reading has a meaning
that no layer's input has, since it knows what the student would have said; it costs as much as a second student. And
there is no KV cache: what a cache holds was made with experts. `generate` reads everything anew for every token, as
PEFT does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from .base import Fusion, Weigher, require
from .fusion import SCOPES


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
            torch.manual_seed(0)
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


NO_CACHE = (
    "X-LoRA reads everything twice and has no KV cache: give all tokens at once, with use_cache=False, and generate "
    "without an assistant or prompt lookup"
)


def without_cache(kwargs: dict) -> dict:
    """Arguments of `generate` that use no cache.

    Raises:
        ValueError: the way of generating needs one.
    """
    for name in ("past_key_values", "assistant_model", "prompt_lookup_num_tokens"):
        if kwargs.get(name) is not None:
            raise ValueError(f"{name} needs a cache. {NO_CACHE}")
    kwargs = {name: value for name, value in kwargs.items() if name not in ("cache_implementation", "cache_config")}
    return kwargs | {"use_cache": False}


def refuse_cache(cache: object) -> None:
    """Raises RuntimeError where a cache holds tokens already."""
    if cache is not None and int(cache.get_seq_length()):
        raise RuntimeError(f"the KV cache holds {int(cache.get_seq_length())} tokens already. {NO_CACHE}")
