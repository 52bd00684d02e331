"""Tiny tokenizers of the families that students come with, and chat templates with their ways of a system's turn."""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PLAIN_CHAT = TURN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
"""As Qwen's and SmolLM's."""
REFUSES_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}<start_of_turn>model\n"
)
"""As Gemma's."""
DROPS_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' "
    "else m.content + eos_token }}{% endfor %}"
)
SYSTEM_LAST = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's: what a system says stands in the last turn."""
CHATS = {"plain": PLAIN_CHAT, "refuses": REFUSES_SYSTEM, "drops": DROPS_SYSTEM, "last": SYSTEM_LAST}

_LETTERS = [*string.ascii_letters, *string.digits, *"<>/|_. \n:,'\"[]-()", "▁", "▁l", "la"]


def byte_level(*, ends_itself: bool = False, **options) -> PreTrainedTokenizerBase:
    """As those of Llama 3, Qwen and GPT-2."""
    names = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    words = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "ea"]
    core = Tokenizer(models.BPE(vocab={word: k for k, word in enumerate(words)}, merges=[("Ġ", "t"), ("e", "a")]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return _finished(core, names, ends_itself, options)


def sentence_pieces(scheme: str = "first", *, ends_itself: bool = False, **options) -> PreTrainedTokenizerBase:
    """As those of Llama 2 and Gemma; `scheme` is where a space is put before the text, "normalizer" the older way."""
    names = ["<unk>", "<s>", "</s>"]
    words = [*names, *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS]
    vocabulary = {word: k for k, word in enumerate(words)}
    core = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[("▁", "l"), ("l", "a")], unk_token="<unk>", byte_fallback=True)
    )
    if scheme == "normalizer":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return _finished(core, names, ends_itself, {"unk_token": "<unk>", **options})


def unigrams(*, ends_itself: bool = False, **options) -> PreTrainedTokenizerBase:
    """As those of T5's family, which have their special tokens among the pieces that a text is made of."""
    names = ["<pad>", "<s>", "</s>", "<unk>"]
    pieces = [*((name, 0.0) for name in names), *((letter, -3.0) for letter in _LETTERS)]
    core = Tokenizer(models.Unigram(pieces, unk_id=3))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _finished(core, names, ends_itself, {"unk_token": "<unk>", **options})


def bytes_only() -> PreTrainedTokenizerBase:
    """A slow one: there is no fast one of its kind."""
    return ByT5Tokenizer(extra_ids=2)


def _finished(core: Tokenizer, names: list[str], ends_itself: bool, options: dict) -> PreTrainedTokenizerBase:
    special = [("<s>", names.index("<s>")), ("</s>", names.index("</s>"))]
    template = "<s> $A </s>" if ends_itself else "<s> $A"
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    settings = {"bos_token": "<s>", "eos_token": "</s>", "padding_side": "left", **options}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **settings)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<end_of_turn>"]})
    tokenizer.add_tokens(["<image>", "<think>", "linen"])
    return tokenizer


FAST = {
    "bytes": byte_level,
    "first": sentence_pieces,
    "always": lambda **options: sentence_pieces("always", **options),
    "normalizer": lambda **options: sentence_pieces("normalizer", **options),
    "unigrams": unigrams,
}
"""Fast tokenizers by name."""
