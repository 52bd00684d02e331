"""Which tokens are prompt: α is made from a prompt, and from nothing else.

A decoder is called with a prompt, with a prompt and an answer, with the next token of an answer, or with several. The
length of the KV cache does not tell these apart: decoding without a cache reads the prompt again with the answer behind
it, prompt lookup and assisted decoding put guesses behind it at once, and a prompt that was cut into chunks comes with
a cache. So it goes by position within `generate`, by what the caller of `forward` says, and by which prompt a cache is
of; what is left is refused.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import GenerationConfig

_MARK = "_routedk_prompt"
"""Attribute of a KV cache: the number of the prompt that it begins with. A copied cache keeps it."""
_NUMBERS = itertools.count(1)

_ONE_PIECE = (
    "α is made from the whole prompt, so a prompt must be read in one piece: give it whole and without a cache, or use "
    "a fusion that does not read the input (Average, Static, Ties)"
)


class Reading:
    """What the layers of a routed model know about the tokens that come in.

    Args:
        whole: whether α depends on the prompt, so that it must come in one piece.
        by_token: whether every token has an α of its own, which no cache can lose.
    """

    def __init__(self, *, whole: bool, by_token: bool) -> None:
        self.whole, self.by_token = whole, by_token
        self.mask: torch.Tensor | None = None
        """(B, T): 1 at the prompt's tokens, of the last prompt that was read."""
        self.begins = True
        """Whether the tokens that come in begin with a prompt, and α is to be made."""
        self.said: torch.Tensor | None = None
        """(B, T): what the caller of `forward` said is prompt."""
        self.states: torch.Tensor | None = None
        """(B, T, D): what the student without experts makes of the tokens, where the fusion reads them twice."""
        self.first: Any = None
        """The KV cache that was last used for that."""
        self.bare = False
        """Whether the student is reading without experts."""
        self.override: Mapping[int, torch.Tensor] = {}
        """By layer: α to use instead of the fusion's."""
        self._columns: int | None = None  # within generate: the prompt's width
        self._prompt = 0

    def enter(self, inputs: torch.Tensor, cache: Any, attention_mask: Any) -> None:
        """Before the decoder: find out what comes in.

        Shapes:
            inputs: (B, T) or (B, T, D); attention_mask: (B, T), (B, 1, T, K), or one of these by kind of layer

        Raises:
            ValueError: no mask can be told from what was given, or a row has no prompt.
            RuntimeError: the cache is of another prompt, or more of a prompt comes after its beginning.
        """
        self.begins = cache is None or int(cache.get_seq_length()) == 0
        if not self.begins:
            self._continue(cache)
            return
        mask = self.said
        if mask is None:
            mask = seen_tokens(attention_mask, inputs)
        if mask.shape != inputs.shape[:2]:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, the prompt {tuple(inputs.shape[:2])}: give an attention_mask "
                "or prompt_mask with one 0 or 1 per token"
            )
        if self._columns is not None and mask.shape[1] != self._columns:
            if mask.shape[1] < self._columns and self.whole:
                raise RuntimeError(f"{mask.shape[1]} of the prompt's {self._columns} tokens came alone. {_ONE_PIECE}")
            mask = mask.clone()
            mask[:, self._columns :] = 0
        if self.whole and not bool(mask.any(1).all()):
            empty = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"row {empty} of the batch has no prompt: its mask is 0 everywhere")
        self.mask, self._prompt = mask, next(_NUMBERS)
        self.leave(cache)

    def leave(self, cache: Any) -> None:
        """Note on a KV cache which prompt it is of."""
        if cache is not None and self.begins:
            setattr(cache, _MARK, self._prompt)

    def _continue(self, cache: Any) -> None:
        if not self.whole:
            return
        if self.said is not None and bool(self.said.any()):
            raise RuntimeError(f"prompt_mask marks more of a prompt whose beginning is in the cache. {_ONE_PIECE}")
        if not self.by_token and getattr(cache, _MARK, None) != self._prompt:
            raise RuntimeError(
                "this KV cache is not of the prompt that was read last, so its α is gone (or never was): read the "
                f"prompt anew before going on with its answer. {_ONE_PIECE}"
            )

    @contextmanager
    def overriding(self, by_layer: Mapping[int, torch.Tensor]) -> Iterator[None]:
        """Within the block, these layers have this α, beside those that had one given already."""
        before = self.override
        self.override = {**before, **by_layer}
        try:
            yield
        finally:
            self.override = before

    @contextmanager
    def generation(
        self, generate: Callable, defaults: GenerationConfig, args: tuple, kwargs: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Within the block, `generate` reads a prompt in one piece, and what stands behind it is answer.

        Args:
            generate: the student's.
            defaults: its settings of generation.
            args, kwargs: of `generate`; the block gets all of them by name, as they must be given.

        Raises:
            ValueError: a cache is given that holds a part of the prompt.
        """
        kwargs = {**inspect.signature(generate).bind_partial(*args).arguments, **kwargs}
        named = (kwargs.get(name) for name in ("inputs_embeds", "input_ids", "inputs"))
        prompt = next((value for value in named if value is not None), None)
        cache = kwargs.get("past_key_values")
        if cache is not None and int(cache.get_seq_length()):
            raise ValueError(f"past_key_values holds {int(cache.get_seq_length())} tokens already. {_ONE_PIECE}")
        kwargs.pop("prefill_chunk_size", None)
        if (settings := kwargs.get("generation_config")) is not None:
            kwargs["generation_config"] = copy.copy(settings)
            kwargs["generation_config"].prefill_chunk_size = None
        chunks, before = defaults.prefill_chunk_size, self._columns
        defaults.prefill_chunk_size = None
        self._columns = 1 if prompt is None else prompt.shape[1]
        try:
            yield kwargs
        finally:
            defaults.prefill_chunk_size, self._columns = chunks, before


def seen_tokens(attention_mask: Any, inputs: torch.Tensor) -> torch.Tensor:
    """1 at the tokens that are not padding.

    Args:
        attention_mask: as a decoder gets it: nothing, one entry per token, or who sees whom, where a token that does
            not even see itself is padding; for models with several kinds of layers, such a mask for each.
        inputs: tokens or their embeddings.

    Shapes:
        attention_mask: (B, T) or (B, 1, T, K) with K ≥ T; inputs: (B, T) or (B, T, D) → (B, T)

    Raises:
        ValueError: any other kind of mask.
    """
    rows, width = inputs.shape[:2]
    if isinstance(attention_mask, Mapping):
        return seen_tokens(attention_mask.get("full_attention", next(iter(attention_mask.values()))), inputs)
    if attention_mask is None:
        return torch.ones((rows, width), dtype=torch.int64, device=inputs.device)
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
        return attention_mask
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4 and attention_mask.shape[2] == width:
        itself = attention_mask[:, 0].diagonal(dim1=-2, dim2=-1)  # (B or 1, T)
        seen = itself if itself.dtype == torch.bool else itself == 0
        return seen.to(torch.int64).expand(rows, -1)
    raise ValueError(
        f"an attention mask of type {type(attention_mask).__name__} does not tell which tokens are padding: choose the "
        "attention 'eager' or 'sdpa' for the student, or give a prompt_mask"
    )
