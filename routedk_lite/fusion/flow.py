"""LoRA-Flow and the hard router: two neighbours of RouteDK's router, with the same W x + b behind them.

*LoRA-Flow* (Wang et al., arXiv 2402.11455) weighs anew at every token, of the answer as well: in layer l,
α_t = softmax(W_l x_t + b_l), x_t what enters the layer at token t. RouteDK's router has one α for a whole prompt.

*Hard routing* gives one expert the whole weight, as it was trained to have. Hard-Routed MoR-LoRA (Molavi et al., arXiv
2606.31413) observes that soft mixtures of frozen experts often end up with nearly all weight on one of them, and that
any other share scales an update in a way it was never trained with. ReMix (Qiu et al., arXiv 2603.10160) proves and
measures the same collapse for learned routers. How far a router has gone is its effective support, see `statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .base import Fusion, Weigher, require
from .fusion import Dynamic, Router


@dataclass(frozen=True, kw_only=True)
class LoraFlow(Fusion):
    """α = softmax(W_l x_t + b_l) of every token t: the gate of LoRA-Flow at its layer level.

    The same as `Dynamic(pool="token")`. We know the paper's formula from summaries alone. The authors' code adds b
    after the softmax (so weights may be negative) and starts it at (−0.5, 0.5), for two LoRAs; ours starts from the
    average, as all our routers do.
    """

    source = "2402.11455"
    depends_on_input = by_token = learns = True

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return Router(n_layers, n_experts, hidden_size, Dynamic(pool="token"))


@dataclass(frozen=True, kw_only=True)
class Hard(Dynamic):
    """The router's likeliest expert alone, α = 1; it learns by the straight-through estimator.

    Forwards α is the one-hot vector of the largest entry of softmax((W z + b) / temperature), backwards its gradient is
    that of the softmax (Bengio et al., arXiv 1308.3432). The routers of Hard-Routed MoR-LoRA decide token by token and
    share one W (`pool="token"`, as we read it); a small LoRA on the attention, which it trains beside the router, is
    left out, since here all experts are frozen. By default ours decides once for a prompt, as RouteDK's does.
    """

    source = "2606.31413"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.top_k is None, self, "top_k", "None: there is one expert in any case")

    @property
    def sparse(self) -> bool:
        return not torch.is_grad_enabled()  # while it learns, its gradient needs what the others would have done

    def weigher(self, n_layers: int, n_experts: int, hidden_size: int) -> Weigher:
        return _HardRouter(n_layers, n_experts, hidden_size, self)


class _HardRouter(Router):
    def alpha(self, layer, hidden, mask):
        soft = super().alpha(layer, hidden, mask)
        hard = nn.functional.one_hot(soft.argmax(-1), self.n_experts).to(soft.dtype)
        return hard + (soft - soft.detach()) if torch.is_grad_enabled() and soft.requires_grad else hard
