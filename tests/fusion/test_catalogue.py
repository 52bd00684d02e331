"""What every fusion keeps to, whatever paper it comes from."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch
from adapted import PROMPTS, close, learned, logits, padded
from peft import PeftModel

from routedk_lite.analysis.controls import knocked_out
from routedk_lite.fusion.arrow import Arrow, GenKnowSub
from routedk_lite.fusion.catalogue import FUSIONS, fusion_from_json
from routedk_lite.fusion.flow import Hard, LoraFlow
from routedk_lite.fusion.furina import Furina
from routedk_lite.fusion.fusion import Average, Dynamic, OneHot, Static, Ties
from routedk_lite.fusion.knots import DareTies, Knots
from routedk_lite.fusion.lorahub import LoraHub
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora

ALL = [
    *(Average(), OneHot(expert=1), Static(), Dynamic(), Ties(density=0.5)),
    *(Arrow(top_k=2), GenKnowSub(general=1), Knots(), DareTies(drop=0.3), Static(scope="module"), LoraFlow()),
    *(LoraHub(), Furina(), XLora(), XLora(scope="layer"), Hard(), Hard(pool="token", scope="layer")),
]
WEIGHING = [fusion for fusion in ALL if fusion.has_alpha]


@pytest.fixture
def put(load, alike):
    """Makes models with a fusion that has learned."""
    return lambda fusion: learned(RoutedModel(load(), alike, fusion), size=0.4)


def test_all_of_them_are_tested_here():
    assert {type(fusion) for fusion in ALL} == set(FUSIONS.values())


@pytest.mark.parametrize("fusion", ALL, ids=str)
def test_settings_and_model_come_back_from_files(put, load, fusion, tmp_path):
    assert fusion_from_json(json.loads(json.dumps(fusion.to_json()))) == fusion
    routed = put(fusion)
    expected = logits(routed)
    routed.save_pretrained(tmp_path / "routed")
    again = RoutedModel.from_pretrained(tmp_path / "routed", load())
    assert again.fusion == fusion and again.expert_names == routed.expert_names
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", ALL, ids=str)
def test_what_does_not_read_the_input_is_merged_and_what_does_is_not(put, load, fusion):
    routed = put(fusion)
    expected = logits(routed)
    if fusion.depends_on_input:
        with pytest.raises(ValueError, match=f"{type(fusion).__name__}: α depends on the input"):
            routed.merge()
    else:
        merged = routed.merge()
        assert not [m for m in merged.modules() if type(m).__module__.startswith("routedk_lite")]
        close(logits(merged), expected, 1e-4)
    close(logits(copy.deepcopy(routed)), expected, 0)
    close(logits(routed), expected, 0)  # still what it was
    close(logits(routed.unload()), logits(load()), 0)


@pytest.mark.parametrize("fusion", ALL, ids=str)
def test_a_source_is_an_arxiv_number(fusion):
    ours = type(fusion) in (Average, OneHot) or fusion == Static()
    assert re.fullmatch(r"" if ours else r"\d{4}\.\d{5}", fusion.source)


@pytest.mark.parametrize("fusion", WEIGHING, ids=str)
def test_weights_that_are_shares_sum_to_one(put, fusion):
    routed = put(fusion)
    logits(routed)
    if routed.weigher.shares:
        np.testing.assert_allclose(routed.alpha.sum(-1), 1, atol=1e-5)
    assert routed.alpha.shape == (3, 2, 3)


@pytest.mark.parametrize("fusion", [f for f in WEIGHING if not isinstance(f, GenKnowSub | Furina)], ids=str)
def test_an_override_is_obeyed_by_every_module(put, load, alike, fusion):
    routed = put(fusion)
    before = logits(routed)
    with routed.override([0, 1, 0]):
        close(logits(routed), logits(PeftModel.from_pretrained(load(), str(alike[1]))), 1e-4)
        np.testing.assert_allclose(routed.alpha, [[[0, 1, 0]] * 2] * 3)
    close(logits(routed), before, 0)


@pytest.mark.parametrize("fusion", [f for f in WEIGHING if not isinstance(f, OneHot)], ids=str)
def test_an_expert_that_is_knocked_out_does_nothing(put, fusion):
    routed = put(fusion)
    whole = logits(routed)
    alpha = routed.alpha
    with knocked_out(routed, [routed.expert_names[2]]):
        logits(routed)
        assert not routed.alpha[..., 2].any()
        if routed.weigher.shares:
            np.testing.assert_allclose(routed.alpha.sum(-1), 1, atol=1e-5)
        else:
            np.testing.assert_allclose(routed.alpha[..., :2], alpha[..., :2], atol=1e-6)
    with knocked_out(routed, [routed.expert_names[2]], [1]):
        logits(routed)
        np.testing.assert_allclose(routed.alpha[:, 0], alpha[:, 0], atol=1e-6)
    close(logits(routed), whole, 0)


@pytest.mark.parametrize("fusion", [f for f in ALL if not f.has_alpha], ids=str)
def test_merged_experts_have_no_weights(put, fusion):
    routed = put(fusion)
    logits(routed)
    with pytest.raises(ValueError, match="there is no α to override"), routed.override([1, 0, 0]):
        pass
    with pytest.raises(ValueError, match="has no α"), knocked_out(routed, [routed.expert_names[0]]):
        pass


@pytest.mark.parametrize("fusion", ALL, ids=str)
def test_bfloat16_gives_nearly_the_same(put, load, alike, fusion):
    rounded = learned(RoutedModel(load(dtype=torch.bfloat16), alike, fusion), size=0.4)
    found = logits(rounded).float()
    assert found.isfinite().all()
    chosen = isinstance(fusion, Hard | Arrow)  # a rounded state may choose another expert
    assert chosen or (found - logits(put(fusion))).abs().max() < 0.3


@pytest.mark.parametrize("fusion", [Arrow(), Static(scope="module"), LoraHub(), Furina(), Hard(), XLora()], ids=str)
def test_a_compiled_model_gives_the_same(put, fusion):
    routed = put(fusion)
    expected, alpha = logits(routed), routed.alpha
    torch._dynamo.reset()
    compiled = torch.compile(routed, backend="aot_eager")
    close(logits(compiled), expected, 1e-4)
    np.testing.assert_allclose(routed.alpha, alpha, atol=1e-4)
    close(logits(compiled, PROMPTS[:1]), logits(routed, PROMPTS[:1]), 1e-4)


@pytest.mark.parametrize("fusion", WEIGHING, ids=str)
def test_rows_follow_a_cache_that_was_reordered(put, fusion):
    routed, rows = put(fusion), torch.tensor([2, 0, 0])
    ids = padded(PROMPTS)
    positions = (ids["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        step = routed(**ids, position_ids=positions, use_cache=True)
        alpha = routed.alpha
        step.past_key_values.batch_select_indices(rows)
        routed.select_alpha(rows)
        np.testing.assert_allclose(routed.alpha, alpha[rows], atol=1e-6)
        mask = torch.cat([ids["attention_mask"][rows], torch.ones(3, 1, dtype=torch.long)], 1)
        after = routed(
            torch.tensor([[5]] * 3),
            attention_mask=mask,
            position_ids=mask.sum(1, keepdim=True) - 1,
            past_key_values=step.past_key_values,
        )
        whole = [[*PROMPTS[row], 5] for row in rows]
        ids = padded(whole)
        prompt = ids["attention_mask"].clone()
        prompt[:, -1] = 0
        positions = (ids["attention_mask"].cumsum(1) - 1).clamp(min=0)
        expected = routed(**ids, position_ids=positions, prompt_mask=prompt, use_cache=False)
        close(after.logits[:, -1], expected.logits[:, -1], 1e-4)
