"""`RoutedModel`: a frozen student, its LoRA experts and a fusion, as one model.

Three things happen in a forward pass. A hook on the decoder notes which tokens are prompt. A hook on every layer asks
the fusion for the layer's α and lays it in the layer's `Gate`. Every linear module that has experts adds their updates,
weighed by its layer's gate. α belongs to a prompt (see `reading`): once it is made, it stays as it is for the answer.
Pooling over the one new token of a decoding step would change the output silently.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..files import written_beside
from ..student.adapters import Adapter, read_experts
from .base import Fusion, Weigher
from .catalogue import fusion_from_json
from .layers import Gate, RoutedLinear, ShiftedLinear, mean_over
from .merging import write_in
from .placing import find_layers, replacements, set_module
from .reading import Reading
from .recomputing import check_recomputing, enable_recomputing, recomputing
from .saved import adapters_of, load_learned, saved_settings, write_saved
from .xlora import generating_twice, keep_first, read_without_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        ValueError: no experts, or two of one name; an expert of another student, or one that does not fit the model; or
            a model that is spread over several devices.
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
        if len(places := set(getattr(model, "hf_device_map", {}).values())) > 1:
            raise ValueError(
                f"hf_device_map: the student's layers are spread over {', '.join(sorted(map(str, places)))}, and one "
                "router weighs the experts of all layers. Load it on one device (device_map={'': 0}), in four bits if "
                "it is large"
            )
        self.adapters = read_experts(experts, student)
        self.fusion = fusion
        stack, self.layer_numbers = find_layers(model, self.adapters)
        self.gates = {number: Gate() for number in self.layer_numbers}
        prepared = fusion.prepared(self.adapters)
        weigher = self._new_weigher(prepared, model)
        merged = fusion.merged(self.adapters)
        self.truncation_error = {name: one.error for name, one in merged.items() if one.low_rank is not None}
        """A merge with a rank: the relative error of each module's truncated ΔW."""
        made = replacements(model, prepared, merged, self.gates, weigher, self._of_module)
        # Nothing of the student has been touched so far, and from here on nothing is refused.
        self.model = model.requires_grad_(False)
        for name, module in made.items():
            set_module(model, name, module)
        self.weigher = weigher.to(model.device).train(model.training)
        self.training = model.training
        self.reading = Reading(whole=fusion.depends_on_input, by_token=fusion.by_token)
        self._stack = stack
        self._hooks = [*self._hooked(model)]
        model.generate = self.generate

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
    def dtype(self) -> torch.dtype:
        """Type that the student computes in."""
        return self.model.dtype

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
        self.reading.said = prompt_mask
        try:
            return self.model(input_ids=input_ids, **kwargs)
        finally:
            self.reading.said = None

    def generate(self, *args, **kwargs):
        """As the student's `generate`: greedy, sampled, several sequences per prompt, beams, with guesses that are
        checked, with or without a cache.

        Where α depends on the prompt, the prompt is read in one piece, whatever `prefill_chunk_size` says. The
        student's own `generate` is this one, until `unload`: a pipeline may be given either.

        Raises:
            ValueError: `past_key_values` holds a part of the prompt already, and α depends on the whole; or guesses are
                to be checked by X-LoRA, which cannot take them back.
        """
        generate = partial(type(self.model).generate, self.model)
        if not self.fusion.depends_on_input:
            return generate(*args, **kwargs)
        with self.reading.generation(generate, self.generation_config, args, kwargs) as named:
            if self.weigher.reads_twice:
                named = generating_twice(named, self.generation_config)
            return generate(**named)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping | None = None, **options
    ) -> None:
        """Recompute activations in the backward pass, with the α of the forward pass that they are of.

        Non-reentrant only: the reentrant kind would crash.

        Args:
            activation_checkpointing_kwargs: of `torch.utils.checkpoint`.
            options: what the student's method of this name takes beside them, for example `every_n_layers`.

        Raises:
            ValueError: `use_reentrant` or a `context_fn` is asked for.
        """
        enable_recomputing(self.model, self._recomputing, activation_checkpointing_kwargs or {}, options)

    def activation_checkpointing_disable(self) -> None:
        getattr(self.model, "activation_checkpointing_disable", self.model.gradient_checkpointing_disable)()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping | None = None, **options: Any):
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    gradient_checkpointing_disable = activation_checkpointing_disable

    @property
    def alpha(self) -> np.ndarray:
        """α of the last prompt that was read; where every token or module has its own, their mean.

        Shapes:
            (B, L, E), for the L layers that have experts (`layer_numbers`); E = 1 where the experts are merged into one

        Raises:
            RuntimeError: no prompt was read yet.
        """
        layers = []
        for gate in self.gates.values():
            if (shown := gate.shown()) is None:
                raise RuntimeError("no α yet: run the model on a prompt first")
            layers.append(shown.detach().float().cpu())
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
            ValueError: merged experts, which have no α; wrong number of experts or layers, or a layer without experts.
        """
        if not self.fusion.has_alpha:
            name = type(self.fusion).__name__
            raise ValueError(f"{name} merges the experts into one update, so there is no α to override")
        if not isinstance(alpha, torch.Tensor):
            alpha = np.array(alpha, dtype=np.float32)  # a copy: torch warns of arrays that must not be written
        weights = torch.as_tensor(alpha, dtype=torch.float32, device=self.device)
        if weights.shape[-1] != len(self.adapters):
            raise ValueError(f"alpha has {weights.shape[-1]} weights: give one for each of {list(self.expert_names)}")
        if layer is not None and layer not in self.gates:
            raise ValueError(f"layer {layer} has no experts; these have: {list(self.layer_numbers)}")
        numbers = self.layer_numbers if layer is None else [layer]
        if weights.ndim == 3 and weights.shape[1] != len(numbers):
            raise ValueError(f"alpha has {weights.shape[1]} layers: give one for each of {list(numbers)}")
        by_layer = weights.unbind(1) if weights.ndim == 3 else [weights] * len(numbers)
        with self.reading.overriding(dict(zip(numbers, by_layer, strict=True))):
            yield

    def select_alpha(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder the rows of α as those of the KV cache were.

        Shapes:
            rows: (new B,), indices into the present rows
        """
        for gate in self.gates.values():
            gate.select(rows)
        if self.reading.first is not None:
            self.reading.first.batch_select_indices(rows)

    def reset(self) -> None:
        """Put the fusion back to where it starts, as if nothing had ever been learned."""
        start = self._new_weigher(self.fusion.prepared(self.adapters), self.model)
        self.weigher.load_state_dict(start.state_dict())

    def merge(self) -> PreTrainedModel:
        """An ordinary model with the fused experts in its weights; this one stays as it is.

        Raises:
            ValueError: α depends on the input, or the weights are quantised.
        """
        if self.fusion.depends_on_input:
            name = type(self.fusion).__name__
            raise ValueError(f"{name}: α depends on the input, so no single set of weights equals it")
        # The hooks lead to this model and the gates to the graph of the last forward pass: neither is copied.
        merged = copy.deepcopy(self.model, {id(self): self} | {id(gate): gate for gate in self.gates.values()})
        del merged.generate
        for module in merged.modules():
            for hooks in (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, module._forward_hooks):
                for hook in self._hooks:
                    hooks.pop(hook.id, None)  # a copied hook has its number; those of others stay
        write_in(merged, self.weigher, self.layer_numbers)
        return merged

    def unload(self) -> PreTrainedModel:
        """Take experts and hooks off the student again and give it back."""
        for hook in self._hooks:
            hook.remove()
        vars(self.model).pop("generate", None)
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
        write_saved(folder, self.adapters, self.fusion, self.weigher)

    @classmethod
    def from_pretrained(cls, folder: str | Path, model: PreTrainedModel, *, student: str | None = None) -> RoutedModel:
        """Put saved experts and their fusion on a student.

        Raises:
            FileNotFoundError: the folder holds no routed model.
            ValueError: the experts were trained on another student, or a file is not the one that was saved.
        """
        folder = Path(folder)
        settings = saved_settings(folder)
        fusion = fusion_from_json({k: v for k, v in settings.items() if k not in ("experts", "sha256")})
        routed = cls(model, adapters_of(folder, settings), fusion, student=student)
        try:
            load_learned(folder, routed.weigher)
        except ValueError:
            routed.unload()
            raise
        return routed

    # --- how it works -------------------------------------------------------------------------------------------

    def _new_weigher(self, prepared: Sequence[Adapter], model: PreTrainedModel) -> Weigher:
        return self.fusion.weigher_of(prepared, len(self.layer_numbers), model.config.get_text_config().hidden_size)

    def _hooked(self, model: PreTrainedModel) -> Iterator[Any]:
        """Hooks on the decoder and on its layers that have experts; a copy of this model takes them along."""
        decoder, layers = model.get_submodule(self._stack.rpartition(".")[0]), model.get_submodule(self._stack)
        yield decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True)
        yield decoder.register_forward_hook(self._after_decoder)
        for index, number in enumerate(self.layer_numbers):
            yield layers[number].register_forward_pre_hook(partial(self._before_layer, index), with_kwargs=True)

    def _before_decoder(self, decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
        if self.fusion.depends_on_input and decoder.training and torch.is_grad_enabled():
            check_recomputing(self.model.get_submodule(self._stack), self._recomputing)
        self.reading.enter(inputs, kwargs.get("past_key_values"), kwargs.get("attention_mask"))
        if self.weigher.reads_twice:
            read_without_experts(self.reading, decoder, args, kwargs, rows=len(inputs), config=self.config)

    def _after_decoder(self, decoder: nn.Module, args: tuple, output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        self.reading.leave(cache)
        if self.weigher.reads_twice:
            keep_first(cache, self.reading.first)

    def _before_layer(self, index: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Lay the layer's α in its gate."""
        number = self.layer_numbers[index]
        gate, overridden = self.gates[number], self.reading.override.get(number)
        hidden = args[0] if args else kwargs["hidden_states"]
        if self.reading.bare:
            gate.alpha, gate.experts = hidden.new_zeros((len(hidden), len(self.adapters))), []
            return
        if self.weigher.by_module and self.reading.begins:
            gate.mask, gate.by_module = self.reading.mask, {}
        elif self.weigher.by_module:
            gate.mask = None
        elif self.reading.begins or self.reading.by_token or not self.fusion.depends_on_input:
            gate.own = self._made(index, hidden)  # overridden or not: other layers, and later tokens, may need it
        else:
            gate.check_rows(hidden.shape[0])
        gate.alpha = gate.own if overridden is None else overridden.expand(hidden.shape[0], -1)
        gate.experts = None
        if gate.alpha is None:
            return
        if self.reading.begins:
            gate.of_prompt = mean_over(gate.alpha, self.reading.mask)
        if self.fusion.sparse or overridden is not None or not self.fusion.depends_on_input:
            gate.find_experts()

    def _made(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """What the fusion makes of a layer's input, in float32 wherever the student computes under autocast."""
        if self.weigher.reads_twice:
            hidden = self.reading.states
        if self.weigher.once and index > 0:
            return self.gates[self.layer_numbers[0]].own
        with torch.autocast(hidden.device.type, enabled=False):
            return self.weigher.alpha(index, hidden, self.reading.mask)

    def _of_module(self, index: int, module: str, x: torch.Tensor) -> torch.Tensor:
        """A module's own α, from the weigher that there is then."""
        with torch.autocast(x.device.type, enabled=False):
            return self.weigher.of_module(index, module, x)

    def _recomputing(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Asked for when a layer's activations are computed that will be computed again."""
        return recomputing(self.reading, list(self.gates.values()))
