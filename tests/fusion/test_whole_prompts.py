"""α belongs to a prompt: however the prompt is read, α is that of the whole, or the reading is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from adapted import PROMPTS, close, learned, logits, padded
from transformers import GenerationConfig

from routedk_lite.fusion.arrow import Arrow, GenKnowSub
from routedk_lite.fusion.flow import Hard, LoraFlow
from routedk_lite.fusion.furina import Furina
from routedk_lite.fusion.fusion import Average, Dynamic, Static, Ties
from routedk_lite.fusion.knots import DareTies, Knots
from routedk_lite.fusion.lorahub import LoraHub
from routedk_lite.fusion.reading import seen_tokens
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora

POOLED = [Dynamic(), Dynamic(scope="global"), Dynamic(pool="last"), Dynamic(pool="attention"), Hard()]
TWICE = [XLora(), XLora(scope="layer")]
READERS = [*POOLED, Dynamic(pool="token"), Arrow(top_k=2), GenKnowSub(), LoraFlow(), Hard(pool="token"), *TWICE]
FIXED = [Average(), Static(), Static(scope="module"), LoraHub(), Furina()]
MERGED = [Ties(density=0.5), Knots(), DareTies()]
FUSIONS = [*READERS, *FIXED, *MERGED]
PLAIN = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
PIECES = {
    "chunks": {"prefill_chunk_size": 2},
    "no cache": {"use_cache": False},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "static cache": {"cache_implementation": "static"},
    "chunks, sampled": {"prefill_chunk_size": 2, "do_sample": True},
    "beams without a cache": {"use_cache": False, "num_beams": 3, "num_return_sequences": 2},
}


@pytest.fixture
def put(load, alike):
    """Makes models with a fusion that has learned; its experts are of one rank, which LoraHub needs."""
    return lambda fusion: learned(RoutedModel(load(), alike, fusion), size=0.4)


@pytest.fixture
def repeating():
    """A prompt that repeats itself, so that prompt lookup has something to look up."""
    return torch.tensor([[1, 40, 50, 60, 40, 50, 60, 40, 50]])


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
@pytest.mark.parametrize("way", PIECES)
def test_every_way_of_generating_gives_what_one_piece_and_a_cache_give(put, repeating, fusion, way):
    routed = put(fusion)
    options = PLAIN | {k: v for k, v in PIECES[way].items() if k in ("num_beams", "num_return_sequences", "do_sample")}
    if fusion in TWICE and way == "prompt lookup":
        with pytest.raises(ValueError, match="prompt_lookup_num_tokens: X-LoRA reads everything twice"):
            routed.generate(repeating, **PLAIN | PIECES[way])
        return
    torch.manual_seed(0)
    right = routed.generate(repeating, **options)
    alpha = routed.alpha if fusion.has_alpha else None
    torch.manual_seed(0)
    assert torch.equal(routed.generate(repeating, **PLAIN | PIECES[way]), right)
    if alpha is not None:
        # Beams follow other beams, whose tokens may have an α of their own; the prompt's is the same for all.
        np.testing.assert_allclose(routed.alpha[:1], alpha[:1], atol=1e-5)


@pytest.mark.parametrize("way", ["chunks", "no cache", "prompt lookup"])
def test_the_student_inside_generates_likewise_until_it_is_unloaded(load, folders, repeating, way):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    right = routed.generate(repeating, **PLAIN)
    assert torch.equal(routed.model.generate(repeating, **PLAIN | PIECES[way]), right)
    copied = learned(copy.deepcopy(routed), seed=3)
    assert not torch.equal(copied.model.generate(repeating, **PLAIN), right)
    assert torch.equal(routed.model.generate(repeating, **PLAIN), right)
    assert torch.equal(routed.unload().generate(repeating, **PLAIN), load().generate(repeating, **PLAIN))


@pytest.mark.parametrize("fusion", READERS, ids=str)
def test_padded_batches_too(put, fusion):
    routed = put(fusion)
    right = routed.generate(**padded(PROMPTS), **PLAIN)
    alpha = routed.alpha
    for way in ("chunks", "no cache", "static cache"):
        assert torch.equal(routed.generate(**padded(PROMPTS), **PLAIN | PIECES[way]), right), way
        np.testing.assert_allclose(routed.alpha, alpha, atol=1e-5)


@pytest.mark.parametrize("fusion", [Dynamic(), Hard(), Arrow(), LoraFlow(), Static(scope="module")], ids=str)
def test_guesses_of_another_model_are_checked_with_the_alpha_of_the_prompt(put, load, repeating, fusion):
    routed, assistant = put(fusion), load()
    right = routed.generate(repeating, **PLAIN)
    assert torch.equal(routed.generate(repeating, **PLAIN, assistant_model=assistant), right)


def test_chunks_from_settings_are_read_in_one_piece_and_the_settings_stay(put, repeating):
    routed = put(Dynamic())
    right = routed.generate(repeating, **PLAIN)
    settings = GenerationConfig(**PLAIN, prefill_chunk_size=2)
    assert torch.equal(routed.generate(repeating, settings), right)  # also where it is not given by name
    routed.generation_config.prefill_chunk_size = 3
    assert torch.equal(routed.generate(repeating, **PLAIN), right)
    assert (settings.prefill_chunk_size, routed.generation_config.prefill_chunk_size) == (2, 3)


@pytest.mark.parametrize("fusion", READERS, ids=str)
def test_a_prefix_that_was_cached_before_is_refused_where_alpha_reads_the_whole(put, repeating, fusion):
    routed = put(fusion)
    with torch.no_grad():
        cache = routed(repeating[:, :4], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="past_key_values holds 4 tokens already.*one piece"):
            routed.generate(repeating, past_key_values=cache, **PLAIN)
        rest = {"attention_mask": torch.ones_like(repeating), "past_key_values": cache}
        with pytest.raises(RuntimeError, match="prompt_mask marks more of a prompt.*one piece"):
            routed(repeating[:, 4:], prompt_mask=torch.ones(1, 5), **rest)


@pytest.mark.parametrize("fusion", TWICE, ids=str)
def test_each_of_two_readings_has_a_cache_of_its_own(put, load, repeating, fusion):
    """A copy keeps both; one that was made or cut elsewhere is refused."""
    routed = put(fusion)
    later = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 11)}
    whole = torch.cat([repeating, later["input_ids"]], 1)
    with torch.no_grad():
        right = routed(whole, use_cache=False).logits[:, -2:]
        cache = routed(repeating, use_cache=True).past_key_values
        kept, cut = copy.deepcopy(cache), copy.deepcopy(cache)
        close(routed(**later, past_key_values=cache).logits, right, 1e-4)
        close(routed(**later, past_key_values=kept).logits, right, 1e-4)
        cut.crop(-1)
        bare = load()(repeating, use_cache=True).past_key_values
        for wrong in (cut, bare):
            with pytest.raises(RuntimeError, match="none of X-LoRA's first reading"):
                routed(**later, past_key_values=wrong)
        cache = routed(repeating, use_cache=True).past_key_values
        cache.batch_repeat_interleave(2)
        two = {"input_ids": torch.tensor([[5, 6], [5, 6]]), "attention_mask": torch.ones(2, 11)}
        with pytest.raises(RuntimeError, match="2 rows are decoded.*was of 1: call select_alpha"):
            routed(**two, past_key_values=cache)
        routed.select_alpha(torch.tensor([0, 0]))
        close(routed(**two, past_key_values=cache).logits[1:], right, 1e-4)
    with pytest.raises(ValueError, match="assistant_model: X-LoRA reads everything twice"):
        routed.generate(repeating, assistant_model=routed.model, **PLAIN)


@pytest.mark.parametrize("fusion", [*FIXED, *MERGED], ids=str)
def test_and_used_where_it_does_not(put, alike, repeating, fusion):
    routed = put(fusion)
    right = routed.generate(repeating, **PLAIN)
    with torch.no_grad():
        cache = routed(repeating[:, :4], use_cache=True).past_key_values
    again = RoutedModel(routed.unload(), alike, fusion)  # one that has not read anything yet
    again.weigher.load_state_dict(routed.weigher.state_dict())
    assert torch.equal(again.generate(repeating, past_key_values=cache, **PLAIN), right)


@pytest.mark.parametrize("fusion", POOLED, ids=str)
def test_a_cache_of_another_prompt_is_refused(put, load, fusion):
    routed = put(fusion)
    later = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, 7)}
    with torch.no_grad():
        first = routed(**padded(PROMPTS[:1]), use_cache=True).past_key_values
        kept = copy.deepcopy(first)
        right = routed(**later, past_key_values=first).logits
        close(routed(**later, past_key_values=kept).logits, right)  # a copy is of the same prompt
        kept.crop(-1)
        routed(**padded(PROMPTS[1:2]), use_cache=True)
        with pytest.raises(RuntimeError, match="not of the prompt that was read last"):
            routed(**later, past_key_values=kept)
        bare = load()(**padded(PROMPTS[:1]), use_cache=True).past_key_values
        with pytest.raises(RuntimeError, match="not of the prompt that was read last"):
            routed(**later, past_key_values=bare)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("fusion", READERS, ids=str)
def test_the_token_wise_alpha_that_is_shown_is_the_mean_over_the_prompt(load, alike, fusion, attention):
    routed = learned(RoutedModel(load(attn_implementation=attention), alike, fusion), size=0.4)
    logits(routed)
    alpha = routed.alpha
    routed.generate(**padded(PROMPTS), **PLAIN)
    np.testing.assert_allclose(routed.alpha, alpha, atol=1e-5)


def test_a_row_without_a_prompt_is_named(put):
    routed = put(Dynamic())
    with pytest.raises(ValueError, match="row 1 of the batch has no prompt"):
        routed(torch.ones(2, 3, dtype=torch.long), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]))


def test_padding_is_found_in_masks_of_every_kind():
    tokens = torch.zeros(2, 3, dtype=torch.long)
    seen = torch.tensor([[0, 1, 1], [1, 1, 1]])
    pairs = seen[:, None, None, :].bool() & torch.ones(3, 5, dtype=torch.bool).tril()[:, :3]
    wider = torch.cat([pairs, torch.zeros(2, 1, 3, 2, dtype=torch.bool)], -1)
    added = torch.where(wider, 0.0, torch.finfo(torch.float32).min)
    both = {"sliding_attention": wider & torch.ones(3, 5, dtype=torch.bool).triu(-1), "full_attention": added}
    for mask in (seen, pairs, wider, added, both, both["sliding_attention"]):
        assert torch.equal(seen_tokens(mask, tokens), seen)
    assert torch.equal(seen_tokens(None, tokens[..., None]), torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="type str does not tell"):
        seen_tokens("flex", tokens)
