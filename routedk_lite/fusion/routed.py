"""`RoutedModel`: a frozen student, its LoRA experts and a fusion, as one model.

Three things happen in a forward pass. A hook on the decoder notes which tokens are prompt. A hook on every layer asks
the fusion for the layer's α and lays it in the layer's `Gate`. Every linear module that has experts adds their updates,
weighed by its layer's gate. Once a prompt is in the KV cache, α stays as it is: pooling over the one new token of a
decoding step would change the output silently.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..files import UnreadableError, read_json, sha256_file, write_json, written_beside
from ..student.adapters import Adapter, LowRank, read_adapter
from .fusion import Dynamic, Fusion, Ties, fusion_from_json
from .layers import LAYER, Gate, RoutedLinear, ShiftedLinear, find_layers, set_module
from .ties import merge_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILES = ("experts.safetensors", "fusion.safetensors")
MODEL_FILES = (*_FILES, "routed.json")
"""What `RoutedModel.from_pretrained` reads."""
ROUTED_FILES = (*MODEL_FILES, "routing.json", "trainings")
"""What we write into the folder of a routed model: its files, and the notes on its trainings."""


class RoutedModel(nn.Module):
    """A frozen causal language model with several LoRA experts and a fusion of them.

    Only the fusion's parameters can learn. `generate` and a forward pass work as on the model itself.

    Args:
        model: a `transformers` causal LM: plain, bfloat16, or 4-/8-bit through bitsandbytes. Its linear modules are
            replaced in place until `unload`.
        experts: PEFT folders or adapters that were read before, in the order of α. Ranks, scales and target modules
            may differ.
        fusion: how they are weighed.
        student: what the experts must have been trained on; `None` does not check.

    Raises:
        ValueError: no experts; an expert of another student, or one that does not fit the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        experts: Sequence[str | Path | Adapter],
        fusion: Fusion,
        *,
        student: str | None = None,
    ) -> None:
        super().__init__()
        if not experts:
            raise ValueError("experts is empty: a routed model needs at least one LoRA expert")
        self.adapters = tuple(e if isinstance(e, Adapter) else read_adapter(e) for e in experts)
        for adapter in self.adapters:
            if student is not None and adapter.student != student:
                raise ValueError(
                    f"the expert {adapter.name!r} was trained on {adapter.student!r}, this student is {student!r}"
                )
        self.fusion = fusion
        self.model = model.requires_grad_(False)
        modules = list(dict.fromkeys(name for adapter in self.adapters for name in adapter.modules))
        stack, self.layer_numbers = find_layers(model, modules, self.adapters)
        self.gates = {number: Gate() for number in self.layer_numbers}
        self.truncation_error: dict[str, float] = {}
        """TIES with a rank: the relative error of each module's truncated ΔW."""
        self._hooks: list[Any] = []
        self._insert(modules)
        weigher = fusion.weigher(len(self.layer_numbers), len(self.adapters), model.config.hidden_size)
        self.weigher = weigher.to(model.device)
        self._prompt_mask: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._routing = True
        self._override: dict[int, torch.Tensor] = {}
        decoder = model.get_submodule(stack.rpartition(".")[0])
        self._hooks.append(decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True))
        layers = model.get_submodule(stack)
        for index, number in enumerate(self.layer_numbers):
            hook = self._layer_hook(index, self.gates[number])
            self._hooks.append(layers[number].register_forward_pre_hook(hook, with_kwargs=True))

    # --- use ----------------------------------------------------------------------------------------------------

    @property
    def config(self):
        """The student's configuration."""
        return self.model.config

    @property
    def generation_config(self):
        """The student's settings of generation."""
        return self.model.generation_config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Names of the experts, in the order of α."""
        return tuple(adapter.name for adapter in self.adapters)

    def forward(self, input_ids: torch.Tensor | None = None, *, prompt_mask: torch.Tensor | None = None, **kwargs):
        """As the student's forward.

        Args:
            input_ids: tokens.
            prompt_mask: 1 at the tokens that the router may see. Needed where answers stand in `input_ids`, as in
                training: pooled over, they would tell the router what the answer is. By default all that
                `attention_mask` does not hide.

        Shapes:
            input_ids, prompt_mask: (B, T)
        """
        self._prompt_mask = prompt_mask
        try:
            return self.model(input_ids=input_ids, **kwargs)
        finally:
            self._prompt_mask = None

    def generate(self, *args, **kwargs):
        """As the student's `generate`: greedy, sampled, several sequences per prompt, or beams."""
        return self.model.generate(*args, **kwargs)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping | None = None, **options
    ) -> None:
        """Recompute activations in the backward pass; non-reentrant only, the reentrant kind would crash.

        Args:
            activation_checkpointing_kwargs: of `torch.utils.checkpoint`.
            options: what the student's method of this name takes beside them, for example `every_n_layers`.

        Raises:
            ValueError: `use_reentrant` is asked for.
        """
        if (activation_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ValueError("use_reentrant=True: a routed model needs use_reentrant=False, since α comes from outside")
        kwargs = {**(activation_checkpointing_kwargs or {}), "use_reentrant": False}
        if hasattr(self.model, "activation_checkpointing_enable"):
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs, **options)
        else:  # transformers called it so at first
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs, **options)

    def activation_checkpointing_disable(self) -> None:
        getattr(self.model, "activation_checkpointing_disable", self.model.gradient_checkpointing_disable)()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping | None = None, **options: Any):
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    gradient_checkpointing_disable = activation_checkpointing_disable

    @property
    def alpha(self) -> np.ndarray:
        """α of the last prompt that was read; where every token has its own, their mean over the prompt.

        Shapes:
            (B, L, E), for the L layers that have experts (`layer_numbers`)
        """
        layers = []
        for gate in self.gates.values():
            if gate.alpha is None:
                raise RuntimeError("no α yet: run the model on a prompt first (TIES has none at all)")
            alpha = gate.alpha.detach().float()
            if alpha.ndim == 3:
                seen = self._mask.to(alpha.dtype)[..., None]
                alpha = (alpha * seen).sum(1) / seen.sum(1) if alpha.shape[1] == seen.shape[1] else alpha.mean(1)
            layers.append(alpha.cpu())
        return torch.stack(layers, 1).numpy()

    @contextmanager
    def override(self, alpha: Sequence[float] | torch.Tensor, layer: int | None = None) -> Iterator[None]:
        """Within the block, use this α instead of the fusion's.

        Args:
            alpha: one weight per expert, or per row of the batch and expert, or per row, layer and expert; need not
                sum to one.
            layer: number of the decoder layer; `None` is every layer.

        Shapes:
            alpha: (E,), (B, E), or (B, L, E) for all layers at once

        Raises:
            ValueError: wrong number of experts or layers, or a layer without experts.
        """
        weights = torch.as_tensor(alpha, dtype=torch.float32, device=self.device)
        if weights.shape[-1] != len(self.adapters) or isinstance(self.fusion, Ties):
            raise ValueError(f"alpha has {weights.shape[-1]} weights: give one for each of {list(self.expert_names)}")
        if layer is not None and layer not in self.gates:
            raise ValueError(f"layer {layer} has no experts; these have: {list(self.layer_numbers)}")
        numbers = self.layer_numbers if layer is None else [layer]
        if weights.ndim == 3 and weights.shape[1] != len(numbers):
            raise ValueError(f"alpha has {weights.shape[1]} layers: give one for each of {list(numbers)}")
        before = dict(self._override)
        by_layer = weights.unbind(1) if weights.ndim == 3 else [weights] * len(numbers)
        self._override |= dict(zip(numbers, by_layer, strict=True))
        try:
            yield
        finally:
            self._override = before

    def select_alpha(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder the rows of α as those of the KV cache were.

        Shapes:
            rows: (new B,), indices into the present rows
        """
        for gate in self.gates.values():
            if gate.alpha is not None:
                gate.alpha = gate.alpha[rows]

    def merge(self) -> PreTrainedModel:
        """An ordinary model with the fused experts in its weights; this one stays as it is.

        Raises:
            ValueError: α depends on the input, or the weights are quantised.
        """
        if self.fusion.depends_on_input:
            name = type(self.fusion).__name__
            raise ValueError(f"{name}: α depends on the input, so no single set of weights equals it")
        merged = copy.deepcopy(self.model)
        for hooked in merged.modules():
            hooked._forward_pre_hooks.clear()
            hooked._forward_pre_hooks_with_kwargs.clear()
        probe = torch.zeros(1, 1, self.config.hidden_size, device=self.device)
        with torch.no_grad():
            for name, module in list(merged.named_modules()):
                if not isinstance(module, RoutedLinear | ShiftedLinear):
                    continue
                weight = module.base.weight
                if not weight.is_floating_point():
                    raise ValueError(f"{name}: the weights are quantised; load the student without 4-/8-bit to merge")
                if isinstance(module, RoutedLinear):
                    index = self.layer_numbers.index(int(LAYER.match(name)["number"]))
                    alpha = self.weigher.alpha(index, probe, probe.new_ones(1, 1))[0]
                    weights = alpha[module.owner] * module.scale  # (R,)
                    delta = (module.b.float() * weights) @ module.a.float()
                else:
                    delta = module.delta.float()
                weight.copy_(weight.float() + delta)
                set_module(merged, name, module.base)
        return merged

    def unload(self) -> PreTrainedModel:
        """Take experts and hooks off the student again and give it back."""
        for hook in self._hooks:
            hook.remove()
        for name, module in list(self.model.named_modules()):
            if isinstance(module, RoutedLinear | ShiftedLinear):
                set_module(self.model, name, module.base)
        return self.model

    # --- files --------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write experts and fusion, not the student: `routed.json` and two safetensors files, beside what is there.

        Raises:
            OccupiedError: `folder` is a file.
        """
        with written_beside(Path(folder), last="routed.json") as target:
            self.write(target)

    def write(self, folder: Path) -> None:
        """As `save_pretrained`, into a folder that exists."""
        from safetensors.torch import save_file

        tensors, experts = {}, []
        for i, adapter in enumerate(self.adapters):
            experts.append({"name": adapter.name, "student": adapter.student, "scales": {}})
            for module, update in adapter.modules.items():
                tensors[f"{i}.{module}.a"], tensors[f"{i}.{module}.b"] = update.a.contiguous(), update.b.contiguous()
                experts[-1]["scales"][module] = update.scale
        save_file(tensors, folder / "experts.safetensors")
        save_file({k: v.contiguous() for k, v in self.weigher.state_dict().items()}, folder / "fusion.safetensors")
        hashes = {name: sha256_file(folder / name) for name in _FILES}
        write_json(folder / "routed.json", {**self.fusion.to_json(), "experts": experts, "sha256": hashes})

    @classmethod
    def from_pretrained(cls, folder: str | Path, model: PreTrainedModel, *, student: str | None = None) -> RoutedModel:
        """Put saved experts and their fusion on a student.

        Raises:
            FileNotFoundError: the folder holds no routed model.
            ValueError: the experts were trained on another student, or a file is not the one that was saved.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        settings = saved_settings(folder)
        fusion = fusion_from_json({k: v for k, v in settings.items() if k not in ("experts", "sha256")})
        routed = cls(model, _adapters(folder, settings["experts"]), fusion, student=student)
        routed.weigher.load_state_dict(load_file(folder / "fusion.safetensors"))
        return routed

    # --- how it works -------------------------------------------------------------------------------------------

    def _insert(self, modules: Sequence[str]) -> None:
        """Replace linear modules by routed ones."""
        merged = {}
        if isinstance(self.fusion, Ties):
            merged = merge_adapters(self.adapters, self.fusion.density, self.fusion.trim, self.fusion.rank)
        for name in modules:
            base = self.model.get_submodule(name)
            gate = self.gates[int(LAYER.match(name)["number"])]
            if name not in merged:
                updates = {i: a.modules[name] for i, a in enumerate(self.adapters) if name in a.modules}
                set_module(self.model, name, RoutedLinear(base, updates, gate))
            elif merged[name].low_rank is not None:
                self.truncation_error[name] = merged[name].error
                set_module(self.model, name, RoutedLinear(base, {0: merged[name].low_rank}, gate))
            else:
                set_module(self.model, name, ShiftedLinear(base, merged[name].delta))

    def _before_decoder(self, decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Tell a prefill from a later step, and prompt from the rest."""
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
        cache = kwargs.get("past_key_values")
        self._routing = cache is None or cache.get_seq_length() == 0
        if not self._routing:
            return
        mask = self._prompt_mask
        if mask is None:
            mask = kwargs.get("attention_mask")
        if mask is None:
            mask = inputs.new_ones(inputs.shape[:2], dtype=torch.int64)
        if mask.ndim != 2 or mask.shape != inputs.shape[:2]:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, the prompt {tuple(inputs.shape[:2])}: give an attention_mask "
                "or prompt_mask with one 0 or 1 per token"
            )
        self._mask = mask

    def _layer_hook(self, index: int, gate: Gate):
        number = self.layer_numbers[index]
        sparse = isinstance(self.fusion, Dynamic) and self.fusion.top_k is not None
        per_token = isinstance(self.fusion, Dynamic) and self.fusion.pool == "token"

        def hook(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            overridden = self._override.get(number)
            if overridden is not None:
                gate.alpha = overridden.expand(hidden.shape[0], -1)
            elif self._routing or per_token:
                gate.alpha = self.weigher.alpha(index, hidden, self._mask)
            elif gate.alpha.shape[0] != hidden.shape[0]:
                raise RuntimeError(
                    f"{hidden.shape[0]} rows are decoded, but α was made for {gate.alpha.shape[0]}: call select_alpha "
                    "after selecting rows of the KV cache"
                )
            gate.experts = None
            if sparse or overridden is not None or not self.fusion.depends_on_input:
                used = gate.alpha.detach().flatten(0, -2).any(0)
                gate.experts = None if bool(used.all()) else used.nonzero()[:, 0].tolist()

        return hook


def saved_adapters(folder: str | Path) -> list[Adapter]:
    """The experts of a saved routed model, in its order.

    Raises:
        FileNotFoundError: the folder holds no routed model.
        ValueError: a file is not the one that was saved.
    """
    return _adapters(folder, saved_settings(folder)["experts"])


def _adapters(folder: str | Path, experts: Sequence[Mapping[str, Any]]) -> list[Adapter]:
    from safetensors.torch import load_file

    tensors = load_file(Path(folder, "experts.safetensors"))
    return [
        Adapter(
            expert["name"],
            expert["student"],
            {m: LowRank(tensors[f"{i}.{m}.a"], tensors[f"{i}.{m}.b"], s) for m, s in expert["scales"].items()},
        )
        for i, expert in enumerate(experts)
    ]


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
    for name in _FILES:
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds routed.json, but no {name}: get both anew")
        if sha256_file(folder / name) != settings["sha256"].get(name):
            raise ValueError(f"{folder / name} is not the file that was saved with routed.json: get both anew")
    return settings
