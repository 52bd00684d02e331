"""Routed LoRA on a tiny random Llama: every fusion against what it must equal."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from adapted import PROMPTS, close, learned, logits, make_adapter, padded
from conftest import require
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from routedk_lite.fusion.catalogue import fusion_from_json
from routedk_lite.fusion.fusion import Average, Dynamic, OneHot, Static, Ties
from routedk_lite.fusion.layers import RoutedLinear
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.ties import elect_and_merge, global_threshold, merge_adapters, trim
from routedk_lite.fusion.xlora import XLora
from routedk_lite.student.adapters import Adapter, LowRank, read_adapter

# --- what each fusion must equal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("expert", range(3))
def test_one_hot_equals_the_peft_model_with_that_adapter(load, folders, expert):
    peft = logits(PeftModel.from_pretrained(load(), str(folders[expert])))
    close(logits(RoutedModel(load(), folders, OneHot(expert=expert))), peft)
    dynamic = RoutedModel(load(), folders, Dynamic())
    with dynamic.override([float(i == expert) for i in range(3)]):
        close(logits(dynamic), peft)


def test_the_stacked_product_equals_the_sum_of_the_experts(load, folders):
    routed = RoutedModel(load(), folders, Average())
    alpha = torch.tensor([0.2, 0.5, 0.3])
    adapters = [read_adapter(folder) for folder in folders]
    x = torch.randn(2, 5, 32)
    module = routed.model.get_submodule("model.layers.1.self_attn.q_proj")
    assert isinstance(module, RoutedLinear)
    module.gate.alpha = alpha.expand(2, -1)
    expected = module.base(x)
    for weight, adapter in zip(alpha, adapters, strict=True):
        a, b, scale = adapter.modules["model.layers.1.self_attn.q_proj"]
        expected = expected + weight * scale * x @ a.T @ b.T
    close(module(x), expected)


@pytest.mark.parametrize("fusion", [Dynamic(), Dynamic(scope="global"), Dynamic(pool="attention"), Static()])
def test_a_zero_initialised_fusion_is_the_exact_average(load, folders, fusion):
    routed = RoutedModel(load(), folders, fusion)
    close(logits(routed), logits(RoutedModel(load(), folders, Average())))
    np.testing.assert_allclose(routed.alpha, 1 / 3, atol=1e-7)


def test_average_equals_the_mean_delta_in_the_weights_and_pefts_linear_does_not(load, alike):
    model = load()
    weights = dict(model.named_modules())
    with torch.no_grad():
        for folder in alike:
            for name, update in read_adapter(folder).modules.items():
                weights[name].weight += update.delta() / 3
    average = logits(RoutedModel(load(), alike, Average()))
    close(average, logits(model))
    peft = PeftModel.from_pretrained(load(), str(alike[0]), adapter_name="e0")
    for i in (1, 2):
        peft.load_adapter(str(alike[i]), adapter_name=f"e{i}")
    peft.add_weighted_adapter(["e0", "e1", "e2"], [1 / 3] * 3, "linear", combination_type="linear")
    peft.set_adapter("linear")
    assert (logits(peft) - average).abs().max() > 0.01


def test_static_uses_the_softmax_of_theta(load, folders):
    routed = RoutedModel(load(), folders, Static())
    with torch.no_grad():
        routed.weigher.theta.copy_(torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]))
    logits(routed)
    expected = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]).softmax(-1)
    for row in routed.alpha:
        np.testing.assert_allclose(row, expected, atol=1e-6)
    one = learned(RoutedModel(load(), folders, Static(scope="global")))
    logits(one)
    assert one.weigher.theta.shape == (1, 3)
    np.testing.assert_allclose(one.alpha[:, 0], one.alpha[:, 1])


def test_dynamic_equals_the_router_by_hand(load, folders):
    """z is the mean of what enters the layer over the prompt; α its softmax."""
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.5)
    seen = {}
    layer = routed.model.model.layers[1]
    layer.register_forward_pre_hook(lambda m, args, kwargs: seen.update(h=args[0]), with_kwargs=True)
    logits(routed)
    for row, prompt in enumerate(PROMPTS):
        z = seen["h"][row, -len(prompt) :].mean(0)
        expected = (routed.weigher.weight[1] @ z + routed.weigher.bias[1]).softmax(-1)
        np.testing.assert_allclose(routed.alpha[row, 1], expected.detach(), atol=1e-6)
    assert routed.alpha.std(0).max() > 1e-3  # the sessions differ


# --- TIES ---------------------------------------------------------------------------------------------------------


def ties_by_definition(vectors, density):
    """The TIES paper's three steps on flat vectors, element by element."""
    kept = []
    for vector in vectors:
        n = max(1, int(density * len(vector)))
        smallest = sorted(abs(v) for v in vector)[-n]
        kept.append([v if abs(v) >= smallest else 0.0 for v in vector])
    merged = []
    for column in zip(*kept, strict=True):
        sign = np.sign(sum(column))
        agreeing = [v for v in column if v != 0 and np.sign(v) == sign]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


@pytest.mark.parametrize("density", [0.1, 0.35, 1.0])
def test_ties_equals_its_definition_on_random_matrices(density):
    torch.manual_seed(3)
    matrices = torch.randn(3, 6, 7).double()
    thresholds = [global_threshold(lambda m=m: iter([m]), density) for m in matrices]
    merged = elect_and_merge(torch.stack([trim(m, t) for m, t in zip(matrices, thresholds, strict=True)]))
    expected = ties_by_definition(matrices.flatten(1).tolist(), density)
    np.testing.assert_allclose(merged.flatten(), expected, atol=1e-12)


def test_where_both_signs_weigh_the_same_plus_is_elected():
    assert elect_and_merge(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("density", [1e-4, 0.2, 0.5, 1.0])
def test_the_global_threshold_is_the_exact_entry(density):
    torch.manual_seed(5)
    matrices = [torch.randn(50, 40) * 10.0**-k for k in range(6)] + [torch.full((30, 30), 0.25), torch.zeros(9, 9)]
    flat = torch.cat([m.flatten() for m in matrices]).abs().sort(descending=True).values
    expected = flat[max(1, int(density * len(flat))) - 1]
    assert global_threshold(lambda: iter(matrices), density) == float(expected)


def test_more_equal_entries_than_float32_can_count():
    same = torch.full((2**12, 2**12 + 8), 0.5)  # 2²⁴ and some; a count in float32 stays at 2²⁴
    same[0, :4] = 0.75
    assert global_threshold(lambda: iter([same]), 1.0) == 0.5
    assert global_threshold(lambda: iter([same]), 1e-12) == 0.75


def test_global_trimming_looks_at_all_modules_together(folders):
    adapters = [read_adapter(folder) for folder in folders[:1]]
    merged = merge_adapters(adapters, 0.2, "global")
    flat = torch.cat([adapters[0].modules[name].delta().flatten() for name in merged])
    kept = torch.cat([m.delta.flatten() for m in merged.values()])
    expected = ties_by_definition([flat.tolist()], 0.2)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    shares = [float((m.delta != 0).float().mean()) for m in merged.values()]
    assert max(shares) - min(shares) > 0.05  # unlike `module`, where every share is the same
    by_module = merge_adapters(adapters, 0.2, "module").values()
    assert all(abs(float((m.delta != 0).float().mean()) - 0.2) < 0.01 for m in by_module)


def test_ties_by_module_equals_pefts_ties_svd_at_full_rank(load, alike):
    peft = PeftModel.from_pretrained(load(), str(alike[0]), adapter_name="e0")
    for i in (1, 2):
        peft.load_adapter(str(alike[i]), adapter_name=f"e{i}")
    peft.add_weighted_adapter(
        ["e0", "e1", "e2"], [1.0] * 3, "ties", combination_type="ties_svd", density=0.3, svd_rank=32
    )
    peft.set_adapter("ties")
    close(logits(RoutedModel(load(), alike, Ties(density=0.3, trim="module"))), logits(peft), 1e-3)


def test_truncated_ties_reports_its_error(load, alike):
    full = logits(RoutedModel(load(), alike, Ties(density=0.3)))
    whole = RoutedModel(load(), alike, Ties(density=0.3, rank=32))
    assert max(whole.truncation_error.values()) < 1e-3
    close(logits(whole), full, 1e-3)
    small = RoutedModel(load(), alike, Ties(density=0.3, rank=2))
    assert 0.1 < min(small.truncation_error.values()) < max(small.truncation_error.values()) < 1
    assert (logits(small) - full).abs().max() > 1e-3


def test_large_matrices_are_truncated_nearly_as_well_as_possible():
    torch.manual_seed(0)
    a, b = torch.randn(8, 200), torch.randn(150, 8)
    adapter = Adapter("e", "s", {"model.layers.0.q": LowRank(a, b, 1.0)})
    (merged,) = merge_adapters([adapter], 0.3, "global", rank=20).values()
    (full,) = merge_adapters([adapter], 0.3, "global").values()
    best = torch.linalg.svdvals(full.delta)
    least = float((best[20:].square().sum() / best.square().sum()).sqrt())
    assert least <= merged.error < 1.02 * least
    found = float((merged.low_rank.delta() - full.delta).norm() / full.delta.norm())
    assert found == pytest.approx(merged.error, rel=1e-5)
    (again,) = merge_adapters([adapter], 0.3, "global", rank=20).values()
    assert torch.equal(again.low_rank.a, merged.low_rank.a)  # whatever else draws random numbers


def test_an_expert_of_zeros_merges_into_zeros():
    zeros = Adapter("e", "s", {"model.layers.0.q": LowRank(torch.randn(2, 9), torch.zeros(5, 2), 1.0)})
    (merged,) = merge_adapters([zeros], 0.3, "global").values()
    assert not merged.delta.any()


# --- what α sees ----------------------------------------------------------------------------------------------------

ROUTERS = [
    Dynamic(),
    Dynamic(scope="global"),
    Dynamic(pool="last"),
    Dynamic(pool="attention"),
    Dynamic(normalize=True),
    Dynamic(top_k=2),
    Dynamic(temperature=0.5),
]


@pytest.mark.parametrize("fusion", [*ROUTERS, Dynamic(pool="token")], ids=str)
def test_padding_and_company_change_nothing(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    together = logits(routed)
    alpha = routed.alpha
    for row, prompt in enumerate(PROMPTS):
        alone = logits(routed, [prompt])
        close(together[row, -len(prompt) :], alone[0], 1e-4)
        np.testing.assert_allclose(alpha[row], routed.alpha[0], atol=1e-5)
    wider = padded(PROMPTS, width=11)
    with torch.no_grad():
        close(routed(**wider).logits[:, -3:], together[:, -3:], 1e-4)


@pytest.mark.parametrize("fusion", ROUTERS, ids=str)
def test_alpha_does_not_depend_on_answer_tokens(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    alphas = []
    for answer in ([66, 67], [200, 13]):
        ids = torch.tensor([PROMPTS[0] + answer])
        mask = torch.tensor([[1] * len(PROMPTS[0]) + [0, 0]])
        with torch.no_grad():
            routed(ids, attention_mask=torch.ones_like(ids), prompt_mask=mask)
        alphas.append(routed.alpha)
    np.testing.assert_allclose(alphas[0], alphas[1], atol=1e-7)
    logits(routed, [PROMPTS[0]])
    np.testing.assert_allclose(alphas[0], routed.alpha, atol=1e-6)


def test_without_a_prompt_mask_the_answer_leaks_into_alpha(load, folders):
    """Trap 1: why `prompt_mask` exists."""
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    logits(routed, [[*PROMPTS[0], 66, 67]])
    first = routed.alpha
    logits(routed, [[*PROMPTS[0], 200, 13]])
    assert np.abs(first - routed.alpha).max() > 1e-3


@pytest.mark.parametrize("fusion", [*ROUTERS, Dynamic(pool="token"), Static(), Ties()], ids=str)
def test_cached_decoding_equals_the_uncached_run(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    prompt, answer = PROMPTS[0], [66, 67, 68]
    ids = torch.tensor([prompt + answer])
    mask = torch.tensor([[1] * len(prompt) + [0] * len(answer)])
    with torch.no_grad():
        whole = routed(ids, attention_mask=torch.ones_like(ids), prompt_mask=mask, use_cache=False).logits
        step = routed(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), use_cache=True)
        cached = [step.logits[:, -1]]
        for n, token in enumerate(answer, start=len(prompt) + 1):
            step = routed(
                torch.tensor([[token]]), attention_mask=torch.ones(1, n), past_key_values=step.past_key_values
            )
            cached.append(step.logits[:, -1])
    close(torch.stack(cached, 1), whole[:, len(prompt) - 1 :], 1e-4)


def test_alpha_stays_what_the_prompt_made_it(load, folders):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    batch = padded(PROMPTS)
    logits(routed)
    before = routed.alpha
    routed.generate(**batch, max_new_tokens=4, do_sample=False)
    np.testing.assert_allclose(routed.alpha, before, atol=1e-6)


# --- generation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [Dynamic(), Dynamic(pool="token"), Static()], ids=str)
def test_generation_of_a_batch_equals_one_by_one(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    together = routed.generate(**padded(PROMPTS), **options)[:, -5:]
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(routed.generate(**padded([prompt]), **options)[0, -5:], together[row])


def test_beams_and_several_sequences_equal_those_of_the_merged_model(load, folders):
    routed = learned(RoutedModel(load(), folders, Static()))
    plain = routed.merge()
    options = {"max_new_tokens": 4, "eos_token_id": None, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    assert torch.equal(routed.generate(**padded(PROMPTS), **options), plain.generate(**padded(PROMPTS), **options))
    dynamic = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    rows = dynamic.generate(**padded(PROMPTS), **options)
    for row, prompt in enumerate(PROMPTS):
        alone = dynamic.generate(**padded([prompt]), **options)
        assert torch.equal(rows[2 * row : 2 * row + 2, -4:], alone[:, -4:])


def test_a_batch_that_alpha_was_not_made_for_is_refused(load, folders):
    routed = RoutedModel(load(), folders, Dynamic())
    with torch.no_grad():
        step = routed(**padded(PROMPTS[:1]), use_cache=True)
        step.past_key_values.batch_repeat_interleave(2)
        later = {"attention_mask": torch.ones(2, 7), "past_key_values": step.past_key_values}
        with pytest.raises(RuntimeError, match="2 rows are decoded.*made for 1.*select_alpha"):
            routed(torch.tensor([[5], [6]]), **later)
        routed.select_alpha(torch.tensor([0, 0]))
        assert routed(torch.tensor([[5], [6]]), **later).logits.shape[0] == 2


# --- learning -------------------------------------------------------------------------------------------------------


def training_batch():
    ids = padded([[*p, 66, 67] for p in PROMPTS])
    mask = ids["attention_mask"].clone()
    mask[:, -2:] = 0
    labels = ids["input_ids"].clone()
    labels[:, :-2] = -100
    return {**ids, "prompt_mask": mask, "labels": labels}


@pytest.mark.parametrize("fusion", [Dynamic(), Dynamic(pool="attention"), Static(scope="global")], ids=str)
def test_only_the_fusion_learns(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.1)
    frozen = {name: value.clone() for name, value in routed.model.state_dict().items()}
    stacks = [m.a.clone() for m in routed.modules() if isinstance(m, RoutedLinear)]
    trainable = [p for p in routed.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in routed.weigher.parameters()}
    optimizer = torch.optim.SGD(trainable, lr=0.5)
    losses = []
    for _ in range(12):
        loss = routed(**training_batch()).loss
        loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in trainable)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in routed.model.state_dict().items())
    after = [m.a for m in routed.modules() if isinstance(m, RoutedLinear)]
    assert all(torch.equal(a, b) for a, b in zip(stacks, after, strict=True))


@pytest.mark.parametrize("fusion", [Dynamic(), Dynamic(scope="global"), Dynamic(pool="token")], ids=str)
def test_gradients_with_and_without_checkpointing_agree(load, folders, fusion):
    gradients = []
    for checkpointing in (False, True):
        routed = learned(RoutedModel(load(), folders, fusion), size=0.1)
        if checkpointing:
            routed.gradient_checkpointing_enable()
            routed.train()
        routed(**training_batch()).loss.backward()
        gradients.append([p.grad for p in routed.weigher.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        close(recomputed, plain)
    with pytest.raises(ValueError, match="use_reentrant=False"):
        routed.gradient_checkpointing_enable({"use_reentrant": True})


# --- options, files, errors -----------------------------------------------------------------------------------------


def test_top_k_keeps_the_largest_and_skips_experts_that_no_row_uses(load, folders):
    routed = RoutedModel(load(), folders, Dynamic(top_k=2))
    with torch.no_grad():
        routed.weigher.bias.copy_(torch.tensor([[2.0, 1.0, -3.0]] * 2))
    logits(routed)
    expected = torch.tensor([2.0, 1.0]).softmax(-1)
    np.testing.assert_allclose(routed.alpha[0, 0], [*expected, 0], atol=1e-6)
    assert all(gate.experts == [0, 1] for gate in routed.gates.values())
    skipped = logits(routed)
    for gate_layer in range(2):  # the same α without skipping
        assert routed.gates[gate_layer].alpha[:, 2].abs().sum() == 0
    with routed.override(routed.alpha[0, 0] + np.array([0, 0, 1e-30])):
        close(logits(routed), skipped)


def test_temperature_sharpens(load, folders):
    entropies = []
    for temperature in (0.3, 1.0, 4.0):
        routed = learned(RoutedModel(load(), folders, Dynamic(temperature=temperature)), size=0.4)
        logits(routed)
        entropies.append(-(routed.alpha * np.log(routed.alpha)).sum(-1).mean())
    assert entropies[0] < entropies[1] < entropies[2]


def test_override_of_one_layer_leaves_the_others(load, folders):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    logits(routed)
    before = routed.alpha
    with routed.override([0.0, 0.0, 1.0], layer=1):
        logits(routed)
        np.testing.assert_allclose(routed.alpha[:, 1], [[0, 0, 1]] * 3)
        np.testing.assert_allclose(routed.alpha[:, 0], before[:, 0])
    logits(routed)
    np.testing.assert_allclose(routed.alpha, before)
    with pytest.raises(ValueError, match="layer 7 has no experts"), routed.override([1, 0, 0], layer=7):
        pass
    with pytest.raises(ValueError, match="2 weights.*expert0"), routed.override([1, 0]):
        pass


@pytest.mark.parametrize("fusion", [Dynamic(scope="global"), XLora()], ids=str)
def test_an_override_of_the_lowest_layer_leaves_the_one_alpha_of_the_others_up_to_date(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    other = torch.tensor([[1, 90, 100, 77, 20, 5]])
    with torch.no_grad():
        routed(**padded([PROMPTS[0]]))
        with routed.override([1.0, 0.0, 0.0], layer=routed.layer_numbers[0]):
            routed(other)
            overridden = routed.alpha
        routed(other)
    np.testing.assert_allclose(overridden[:, 0], [[1, 0, 0]])
    if isinstance(fusion, Dynamic):  # X-LoRA's weights come from a reading that no override touches: alike in any case
        assert not np.allclose(routed.alpha[:, 0], [[1, 0, 0]], atol=1e-2)
    np.testing.assert_allclose(overridden[:, 1:], routed.alpha[:, 1:], atol=1e-6)


def test_an_override_ends_with_its_block_in_the_middle_of_an_answer(load, folders):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    prompt, then = torch.tensor([PROMPTS[0]]), torch.tensor([[60]])

    def within(override):
        return routed.override([1.0, 0.0, 0.0]) if override else nullcontext()

    def answer(prompt_in=False, first_in=False):
        """Logits of two tokens behind the prompt, which or the first of which may be read within an override."""
        with torch.no_grad():
            with within(prompt_in):
                cache = routed(prompt, use_cache=True).past_key_values
            with within(first_in):
                first = routed(then, past_key_values=cache, use_cache=True).logits
            made = {number: gate.own.clone() for number, gate in routed.gates.items()}
            second = routed(then, past_key_values=cache, use_cache=True).logits
        for number, gate in routed.gates.items():
            torch.testing.assert_close(gate.alpha, made[number], rtol=0, atol=0)
        return first, second

    plain, first, whole = answer(), answer(first_in=True), answer(prompt_in=True)
    assert not torch.allclose(plain[0], first[0], atol=1e-3)
    assert not torch.allclose(plain[0], whole[0], atol=1e-3)  # its cache was written by one expert


@pytest.mark.parametrize(
    "fusion", [Dynamic(temperature=2.0, pool="attention"), Static(), Average(), OneHot(expert=1), Ties()], ids=str
)
def test_a_saved_model_comes_back_equal(load, folders, fusion, tmp_path):
    routed = learned(RoutedModel(load(), folders, fusion))
    expected = logits(routed)
    routed.save_pretrained(tmp_path / "routed")
    assert {p.suffix for p in (tmp_path / "routed").iterdir()} == {".json", ".safetensors"}
    again = RoutedModel.from_pretrained(tmp_path / "routed", load())
    assert again.fusion == fusion and again.expert_names == routed.expert_names
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=0)


def test_experts_that_share_their_tensors_are_saved(load, folders, tmp_path):
    one = read_adapter(folders[0])
    routed = RoutedModel(load(), [one, one._replace(name="again")], Average())
    routed.save_pretrained(tmp_path / "routed")
    torch.testing.assert_close(logits(RoutedModel.from_pretrained(tmp_path / "routed", load())), logits(routed))


@pytest.mark.parametrize("fusion", [Dynamic(), Static(), XLora(depth=2, size=8)], ids=str)
def test_a_reset_fusion_is_a_new_one(load, folders, fusion):
    routed = RoutedModel(load(), folders, fusion)
    new = {name: value.clone() for name, value in routed.weigher.state_dict().items()}
    learned(routed).reset()
    for name, value in routed.weigher.state_dict().items():
        torch.testing.assert_close(value, new[name], rtol=0, atol=0)


@pytest.mark.parametrize("fusion", [XLora(depth=2, size=8), Ties(rank=1)], ids=str)
def test_making_a_fusion_leaves_chance_as_it_was(load, folders, fusion):
    model = load()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    RoutedModel(model, folders, fusion)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_router_computes_in_float32_under_autocast(load, folders):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    kept = {}
    weigh = routed.weigher.alpha

    def watched(layer, hidden, mask):
        kept[layer] = hidden, mask
        return weigh(layer, hidden, mask)

    routed.weigher.alpha = watched
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        routed(**padded(PROMPTS))
    for index, (hidden, seen) in kept.items():
        np.testing.assert_allclose(routed.alpha[:, index], weigh(index, hidden, seen).detach(), rtol=1e-5)


def test_a_changed_file_is_not_loaded(load, folders, tmp_path):
    RoutedModel(load(), folders, Dynamic()).save_pretrained(tmp_path / "one")
    learned(RoutedModel(load(), folders, Dynamic())).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "fusion.safetensors").replace(tmp_path / "one" / "fusion.safetensors")
    with pytest.raises(ValueError, match="fusion.safetensors is not the file that was saved"):
        RoutedModel.from_pretrained(tmp_path / "one", load())


@pytest.mark.parametrize("fusion", [Static(), Average(), OneHot(expert=2), Ties(density=0.5)], ids=str)
def test_merging_gives_an_ordinary_model_of_equal_logits(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion))
    expected = logits(routed)
    merged = routed.merge()
    assert not [m for m in merged.modules() if type(m).__module__.startswith("routedk_lite")]
    close(logits(merged), expected, 1e-4)
    close(logits(routed), expected)  # still what it was


def test_a_merged_model_keeps_the_hooks_of_others_alone(load, folders):
    model, seen = load(), []
    model.register_forward_hook(lambda *_: seen.append("whole"))
    model.model.register_forward_pre_hook(lambda *_: seen.append("decoder"))
    merged = RoutedModel(model, folders, Average()).merge()
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs")
    assert sum(len(getattr(module, kind)) for module in merged.modules() for kind in kinds) == 2
    logits(merged)
    assert seen == ["decoder", "whole"]


def test_a_dynamic_model_cannot_be_merged(load, folders):
    with pytest.raises(ValueError, match="Dynamic: α depends on the input"):
        RoutedModel(load(), folders, Dynamic()).merge()


def test_unload_gives_the_student_back(load, folders):
    model = load()
    before, names = logits(model), [name for name, _ in model.named_modules()]
    routed = RoutedModel(model, folders, Dynamic())
    assert (logits(routed) - before).abs().max() > 1e-3
    assert routed.unload() is model
    assert [name for name, _ in model.named_modules()] == names
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", [Average(), Dynamic(), Ties()])
def test_a_compiled_model_gives_the_same_logits_and_alpha(load, folders, fusion):
    """Traced by Dynamo and differentiated by AOT Autograd; no C++ compiler, which a reader may lack."""
    routed = learned(RoutedModel(load(), folders, fusion))
    expected = logits(routed)
    alpha = None if isinstance(fusion, Ties) else routed.alpha
    torch._dynamo.reset()
    compiled = torch.compile(routed, backend="aot_eager")
    close(logits(compiled), expected)
    if alpha is not None:
        close(torch.tensor(routed.alpha), torch.tensor(alpha))
    close(logits(compiled, PROMPTS[:1]), logits(routed, PROMPTS[:1]))  # another shape


def test_one_expert_is_a_routed_model_too(load, folders):
    peft = logits(PeftModel.from_pretrained(load(), str(folders[0])))
    close(logits(RoutedModel(load(), folders[:1], Dynamic())), peft)


def test_bfloat16_routes(load, folders):
    exact = learned(RoutedModel(load(), folders, Dynamic()), size=0.4)
    rounded = learned(RoutedModel(load(dtype=torch.bfloat16), folders, Dynamic()), size=0.4)
    close(logits(rounded).float(), logits(exact), 0.15)
    assert rounded.weigher.weight.dtype == torch.float32
    np.testing.assert_allclose(rounded.alpha, exact.alpha, atol=0.02)


# --- 4- and 8-bit weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wider(tmp_path_factory):
    """A random Llama whose modules are wide enough for blocks of 64 weights, and three experts on it."""
    top = tmp_path_factory.mktemp("wider")
    sizes = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=259, num_hidden_layers=2, pad_token_id=0, **sizes)).save_pretrained(top)
    targets = ("all-linear", ["q_proj", "v_proj", "down_proj"], ["q_proj", "k_proj", "gate_proj"])
    return top, [make_adapter(top, top / f"e{i}", r=2 + i, targets=targets[i], seed=i + 1) for i in range(3)]


@pytest.fixture
def route_quantised(wider):
    """Makes dynamic models on freshly loaded 4- or 8-bit weights, in evaluation mode."""
    require(importlib.util.find_spec("bitsandbytes"), "4- and 8-bit weights need bitsandbytes")
    from transformers import BitsAndBytesConfig

    folder, experts = wider

    def make(dtype, **settings):
        options = {"quantization_config": BitsAndBytesConfig(**settings), "device_map": {"": "cpu"}, "dtype": dtype}
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        return learned(RoutedModel(model, experts, Dynamic())).eval()

    return make


@pytest.fixture
def route_4bit(route_quantised):
    """Makes dynamic models on freshly loaded 4-bit weights, in evaluation mode."""
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    return lambda: route_quantised(torch.bfloat16, **settings)


def test_four_bit_weights_are_routed(route_4bit, wider):
    """Near an ordinary model with the weights that the 4-bit ones stand for, and moved by α."""
    from bitsandbytes.functional import dequantize_4bit

    folder, experts = wider
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, module in route_4bit().unload().named_modules():
        if hasattr(getattr(module, "weight", None), "quant_state"):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight.float()
    reference = logits(learned(RoutedModel(plain, experts, Dynamic())))
    routed = route_4bit()
    assert (logits(routed).float() - reference).abs().max() < 0.05 * reference.abs().max()
    with routed.override([1, 0, 0]):
        first = logits(routed)
    with routed.override([0, 0, 1]):
        assert (logits(routed) - first).abs().max() > 0.2 * reference.abs().max()


def test_eight_bit_weights_are_routed_and_the_router_learns(route_quantised, wider):
    folder, experts = wider
    reference = logits(learned(RoutedModel(AutoModelForCausalLM.from_pretrained(folder).eval(), experts, Dynamic())))
    routed = route_quantised(torch.float32, load_in_8bit=True)
    assert any(module.weight.dtype == torch.int8 for module in routed.modules() if isinstance(module, torch.nn.Linear))
    assert (logits(routed).float() - reference).abs().max() < 0.1 * reference.abs().max()
    routed.train()(**training_batch()).logits.float().square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in routed.weigher.parameters())


def test_four_bit_weights_train_after_an_evaluation_or_say_that_they_cannot(route_4bit):
    batch = training_batch()
    fresh = route_4bit().train()
    fresh(**batch).logits.float().square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in fresh.weigher.parameters())

    used = route_4bit()
    logits(used)
    states = [getattr(m.base.weight, "quant_state", None) for m in used.modules() if isinstance(m, RoutedLinear)]
    used.train()
    if any(getattr(state, "packing_format_for_cpu", False) for state in states):
        with pytest.raises(RuntimeError, match="repacked by an evaluation.*call `keep_backward`"):
            used(**batch)
    else:
        used(**batch).logits.float().square().mean().backward()
        for p, expected in zip(used.weigher.parameters(), fresh.weigher.parameters(), strict=True):
            assert torch.allclose(p.grad, expected.grad, rtol=0.1, atol=1e-3 * float(expected.grad.abs().max()))


# --- refusals -------------------------------------------------------------------------------------------------------


def test_experts_of_another_student_are_refused(load, folders, tmp_path):
    with pytest.raises(ValueError, match="'expert0' was trained on '.*tiny_llama.*', this student is 'other'"):
        RoutedModel(load(), folders, Average(), student="other")
    RoutedModel(load(), folders, Average()).save_pretrained(tmp_path / "r")
    with pytest.raises(ValueError, match="was trained on .*this student is 'other'"):
        RoutedModel.from_pretrained(tmp_path / "r", load(), student="other")


@pytest.mark.parametrize("weights", [[0.5, 0.5], [1.0, 0.0, 0.0]])
def test_merged_experts_have_no_alpha_to_override(load, alike, weights):
    routed = RoutedModel(load(), alike, Ties())
    refused = pytest.raises(ValueError, match="Ties merges the experts into one update, so there is no α to override")
    with refused, routed.override(weights):
        pass


def test_two_experts_of_one_name_are_refused_by_their_folders(load, tiny_llama, tmp_path):
    """As checkpoints of two trainings are called; α, knock-outs and saved files go by the name."""
    one, other = (
        make_adapter(tiny_llama, tmp_path / training / "checkpoint-10", r=2, targets=["q_proj"], seed=k)
        for k, training in enumerate("ab")
    )
    student = load()
    both = re.escape(f"{one} and {other} are both called 'checkpoint-10'") + ".*read_adapter"
    for experts in ([one, other], [str(one), str(other)]):
        with pytest.raises(ValueError, match=both):
            RoutedModel(student, experts, Average())
    with pytest.raises(ValueError, match=r"experts\[0\] and experts\[2\] are both called 'checkpoint-10'"):
        RoutedModel(student, [read_adapter(one), read_adapter(one, "x"), read_adapter(other)], Average())
    assert not [module for module in student.modules() if isinstance(module, RoutedLinear)], "nothing was touched"
    assert RoutedModel(student, [one, read_adapter(other, "b")], Average()).expert_names == ("checkpoint-10", "b")


def test_adapters_that_do_not_fit_are_refused(load, folders, tiny_llama, tmp_path):
    adapter = read_adapter(folders[0])
    wrong = adapter._replace(modules={"model.layers.9.self_attn.q_proj": next(iter(adapter.modules.values()))})
    with pytest.raises(ValueError, match="'expert0' adapts model.layers.9.*does not have"):
        RoutedModel(load(), [wrong], Average())
    name, update = next(iter(adapter.modules.items()))
    bent = adapter._replace(modules={name: update._replace(a=update.a[:, :5])})
    with pytest.raises(ValueError, match=r"'expert0' has a ΔW of \(32, 5\)"):
        RoutedModel(load(), [bent], Average())
    with pytest.raises(ValueError, match="experts is empty"):
        RoutedModel(load(), [], Average())
    dora = make_adapter(tiny_llama, tmp_path / "dora", r=2, targets=["q_proj"], seed=1, use_dora=True)
    with pytest.raises(ValueError, match="use_dora = True"):
        read_adapter(dora)
    with pytest.raises(FileNotFoundError, match=r"no file adapter_model\.safetensors"):
        read_adapter(tmp_path)


def test_rank_and_alpha_patterns_are_honoured(load, tiny_llama, tmp_path):
    folder = make_adapter(
        tiny_llama,
        tmp_path / "patterns",
        r=2,
        targets=["q_proj", "v_proj"],
        seed=4,
        rank_pattern={"v_proj": 5},
        alpha_pattern={r"layers\.1\.self_attn\.q_proj": 11},
    )
    close(logits(RoutedModel(load(), [folder], OneHot())), logits(PeftModel.from_pretrained(load(), str(folder))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dynamic(pool="max"), "pool='max'.*mean, last, attention, token"),
        (lambda: Dynamic(scope="all"), "scope='all'"),
        (lambda: Dynamic(temperature=0), "temperature=0"),
        (lambda: Dynamic(top_k=0), "top_k=0"),
        (lambda: Dynamic(top_k=4).weigher(2, 3, 8), "top_k=4.*at most 3"),
        (lambda: OneHot(expert=3).weigher(2, 3, 8), "expert=3.*0 to 2"),
        (lambda: Ties(density=0), "density=0"),
        (lambda: Ties(trim="row"), "trim='row'"),
        (lambda: Static(scope="token"), "scope='token'"),
        (lambda: fusion_from_json({"fusion": "Sum"}), "unknown fusion 'Sum'.*Average"),
        (lambda: fusion_from_json({"fusion": "Static", "pool": "mean"}), "Static has no setting 'pool'"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_settings_survive_json():
    for fusion in (Average(), OneHot(expert=2), Static(scope="global"), Dynamic(top_k=1, pool="last"), Ties(rank=4)):
        assert fusion_from_json(json.loads(json.dumps(fusion.to_json()))) == fusion


def test_a_copy_has_gates_of_its_own(load, folders):
    routed = learned(RoutedModel(load(), folders, Static()))
    merged = copy.deepcopy(routed).merge()
    close(logits(merged), logits(routed), 1e-4)


def test_a_saved_model_lies_beside_what_else_is_there(load, folders, tmp_path):
    (tmp_path / "tokenizer.json").write_text("mine")
    routed = RoutedModel(load(), folders, Average())
    for _ in range(2):
        routed.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "mine"
    assert RoutedModel.from_pretrained(tmp_path, load()).expert_names == routed.expert_names
