"""How a student is asked for its likeliest answer, what ends it, and what pads it.

Every setting is stated here. A student brings settings of its own, which `generate` would fill in: a penalty of
repetition, beams, forbidden tokens. None of them enters: greedy is the most likely token at every step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..data.thoughts import thought_marks, without_thoughts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends an answer: those of the student's settings of generation, and its tokenizer's.

    Raises:
        ValueError: there is none.
    """
    named = (model.generation_config.eos_token_id, tokenizer.eos_token_id)
    if named == (None, None):
        named = (getattr(model.config.get_text_config(decoder=True), "eos_token_id", None),)
    ends = {end for one in named if one is not None for end in (one if isinstance(one, list | tuple) else [one])}
    if not ends:
        raise ValueError(
            "no token ends an answer of this student: its configuration, its settings of generation and its tokenizer "
            "name none; set tokenizer.eos_token"
        )
    return tuple(sorted(ends))


def pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with, which is never looked at: the tokenizer's, or one that the student knows instead of it."""
    known = range(_n_tokens(model))
    return next((id_ for id_ in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id_ in known), 0)


def settle_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the tokenizer of a student that was just loaded pad as batches are padded here, on the left.

    A token that it names but the student has no embedding of would fail much later, as an index that is out of range.

    Raises:
        ValueError: its padding, beginning or end token is such a one, or it has neither a padding nor an end token.
    """
    size = _n_tokens(model)
    for role in ("pad", "bos", "eos"):
        number = getattr(tokenizer, f"{role}_token_id")
        if number is not None and number >= size:
            token = getattr(tokenizer, f"{role}_token")
            raise ValueError(
                f"its tokenizer's {role} token {token!r} has number {number}, its embedding only {size} rows: give it "
                "a row with `resize_token_embeddings` and save the model anew, or take the token out of the tokenizer"
            )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise ValueError(
            "its tokenizer has neither a padding nor an end token, so no answer could end: set `eos_token` in "
            "tokenizer_config.json"
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = pad_token(model, tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def pad_left(
    rows: Sequence[Sequence[int]], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Prompts as one batch on the model's device, ready to be continued.

    Args:
        rows: tokens of each.
        model, tokenizer: the student's.

    Shapes:
        → input_ids, attention_mask: (rows, longest)

    Raises:
        ValueError: a token that the student has no embedding of.
    """
    import torch

    check_tokens(rows, model, tokenizer)
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_token(model, tokenizer))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def check_numbers(values: torch.Tensor, model: PreTrainedModel) -> None:
    """Refuse what a student has computed where it overflowed.

    Args:
        values: of rows; one of each is enough, since a row overflows whole.
        model: the student.

    Raises:
        ValueError: NaN is among them.
    """
    if values.isnan().any():
        kind = str(model.dtype).removeprefix("torch.")
        raise ValueError(
            f"dtype = {kind}: the student's numbers overflow in it, and what it says is NaN. Load it in float32 or "
            "bfloat16; auto takes the one that the machine has"
        )


def most_pairs(model: PreTrainedModel) -> int | None:
    """Pairs of tokens that a batch may have where attention writes their weights to a GPU's memory; `None` on a CPU.

    Sixteen prompts of a thousand tokens: 0.8 GB for twelve heads in float32, twice which a layer needs. Prompts with
    solved sessions or all rules are three times as long.
    """
    return None if model.device.type == "cpu" else 16 * 1024**2


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Places of tokens in their own text, whatever padding stands on their left; 0 on the padding.

    Shapes:
        mask: (rows, longest), 1 where there is a token → (rows, longest)
    """
    return (mask.cumsum(1) - 1).clamp(min=0)


def check_tokens(rows: Sequence[Sequence[int]], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse tokens that the student has no embedding of, as a tokenizer to which tokens were added gives them.

    Raises:
        ValueError: there is one.
    """
    size = _n_tokens(model)
    for row in rows:
        if row and (highest := max(row)) >= size:
            raise ValueError(
                f"the tokenizer gives {tokenizer.convert_ids_to_tokens(highest)!r} the number {highest}, and the "
                f"student knows {size} tokens: take its own tokenizer, or model.resize_token_embeddings(len(tokenizer))"
            )


def last_place() -> torch.Tensor:
    """What `logits_to_keep` is told where only the logits behind the last token are wanted.

    An index copies the state of that token. The number 1 would slice it out and leave it strided, and the product with
    the vocabulary would first copy the whole embedding for every row: with a vocabulary of 152,000, two thirds of the
    time that a prompt takes.

    Shapes:
        → (1,)
    """
    import torch

    return torch.tensor([-1])


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens a student can read and write together; `None` where its configuration sets no limit."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def _n_tokens(model: PreTrainedModel) -> int:
    return model.config.get_text_config(decoder=True).vocab_size


def generate_greedily(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    **more: Any,
) -> Any:
    """The most likely token at every step, until an end token or for so many steps.

    Args:
        model: the student, plain, with an expert, or routed.
        tokenizer: its tokenizer.
        prompts: tokens of each.
        max_new_tokens: steps.
        more: what else `generate` is told, for example to give logits.

    Returns:
        What `generate` gives; by default the tokens that were written, (prompts, steps).

    Raises:
        ValueError: no token ends an answer, or a prompt has one that the student does not know.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_tokens(model, tokenizer)),
        pad_token_id=pad_token(model, tokenizer),
    )
    batch = pad_left(prompts, model, tokenizer)
    with _no_defaults(model):
        found = model.generate(**batch, generation_config=settings, logits_processor=[_Checked(model)], **more)
    return found if more else found[:, batch["input_ids"].shape[1] :]


class _Checked:
    """Leaves scores as they are, and refuses NaN among them; for `generate`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        check_numbers(scores[:, 0], self.model)
        return scores


@contextmanager
def _no_defaults(model: torch.nn.Module) -> Iterator[None]:
    """Within the block the student has no settings of its own, from which `generate` takes what it is not told."""
    from transformers import GenerationConfig

    kept = [(m, m.generation_config) for m in model.modules() if "generation_config" in vars(m)]
    for module, _ in kept:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, settings in kept:
            module.generation_config = settings


def until_end(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    """Tokens up to the first that ends them, that one included."""
    tokens = [int(token) for token in tokens]
    return tokens[: next((k for k, token in enumerate(tokens, start=1) if token in ends), len(tokens))]


def written_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> str:
    """What a student wrote, from `until_end`: without its end and special tokens, but with all marks of thoughts.

    Some students have special tokens for these, or for parts of them. Left out like the others, they would turn
    thoughts into an answer.
    """
    tokens = tokens[:-1] if len(tokens) and tokens[-1] in ends else tokens
    whole = tokenizer.decode(tokens, skip_special_tokens=False)
    if without_thoughts(whole) == whole:
        return tokenizer.decode(tokens, skip_special_tokens=True)
    marks = thought_marks(whole)
    pieces: list[str] = []
    start = 0
    for at, token in enumerate([*tokens, None]):
        mark = "" if token is None else tokenizer.decode([token], skip_special_tokens=False)
        special = token is not None and not tokenizer.decode([token], skip_special_tokens=True)
        if token is None or (special and mark and any(mark in one for one in marks)):
            pieces += [tokenizer.decode(tokens[start:at], skip_special_tokens=True), mark]
            start = at + 1
    return "".join(pieces)
