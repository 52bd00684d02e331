"""LoRA-Flow, the hard router and X-LoRA against their definitions, and X-LoRA against PEFT's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapted import PROMPTS, close, learned, logits, padded
from peft import XLoraConfig, get_peft_model

from routedk_lite.fusion.flow import Hard, LoraFlow
from routedk_lite.fusion.fusion import Average, Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora


def test_lora_flow_weighs_each_token_by_its_own_gate(load, folders):
    """One prompt at a time, token by token, with the weights of every expert by hand."""
    routed = learned(RoutedModel(load(), folders, LoraFlow()), size=0.5)
    seen = {}
    layer = routed.model.model.layers[1]
    layer.register_forward_pre_hook(lambda m, args, kwargs: seen.update(h=args[0]), with_kwargs=True)
    logits(routed, PROMPTS[:1])
    for token, x in enumerate(seen["h"][0]):
        expected = (routed.weigher.weight[1] @ x + routed.weigher.bias[1]).softmax(-1)
        torch.testing.assert_close(routed.gates[1].alpha[0, token], expected)
    assert routed.gates[1].alpha[0].std(0).max() > 1e-3  # the tokens differ
    same = RoutedModel(load(), folders, Dynamic(pool="token"))
    same.weigher.load_state_dict(routed.weigher.state_dict())
    close(logits(same), logits(routed))


# --- the hard router ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_a_hard_router_gives_all_to_the_likeliest_expert(load, folders, pool):
    hard = learned(RoutedModel(load(), folders, Hard(pool=pool)), size=0.4)
    logits(hard)
    for gate in hard.gates.values():
        assert set(gate.alpha.unique().tolist()) <= {0.0, 1.0} and bool((gate.alpha.sum(-1) == 1).all())
    soft = RoutedModel(load(), folders, Dynamic(pool=pool))
    soft.weigher.load_state_dict(hard.weigher.state_dict())
    logits(soft)
    chosen = soft.gates[0].alpha.argmax(-1)  # the lowest layer reads the same in both
    assert torch.equal(hard.gates[0].alpha.argmax(-1), chosen)


def test_the_straight_through_gradient_is_that_of_the_softmax_at_the_hard_choice(load, folders, monkeypatch):
    """What α of the last layer does to the loss, times what its router does to the softmax."""
    routed = learned(RoutedModel(load(), folders, Hard()), size=0.4)
    routed(**padded(PROMPTS)).logits.square().mean().backward()
    found = routed.weigher.bias.grad[1].clone()
    soft = Dynamic().weigher(2, 3, 32)
    soft.load_state_dict(routed.weigher.state_dict())
    alphas, made = {}, routed.weigher.alpha

    def alpha(layer, hidden, mask):
        alphas[layer] = made(layer, hidden, mask).detach().requires_grad_()
        alphas["soft"] = soft.alpha(layer, hidden.detach(), mask)
        return alphas[layer]

    monkeypatch.setattr(routed.weigher, "alpha", alpha)
    (by_alpha,) = torch.autograd.grad(routed(**padded(PROMPTS)).logits.square().mean(), alphas[1])
    (expected,) = torch.autograd.grad((alphas["soft"] * by_alpha).sum(), soft.bias)
    torch.testing.assert_close(found, expected[1], rtol=1e-4, atol=1e-7)
    assert found.abs().max() > 1e-6


def test_experts_that_nobody_chose_are_skipped_and_change_nothing(load, folders):
    routed = RoutedModel(load(), folders, Hard())
    with torch.no_grad():
        routed.weigher.bias.copy_(torch.tensor([[0.0, 2.0, 1.0]] * 2))
    skipped = logits(routed)
    assert all(gate.experts == [1] for gate in routed.gates.values())
    close(routed(**padded(PROMPTS)).logits, skipped)
    assert all(gate.experts is None for gate in routed.gates.values())


def test_a_hard_router_has_no_top_k():
    with pytest.raises(ValueError, match="top_k=2.*one expert in any case"):
        Hard(top_k=2)


# --- X-LoRA -------------------------------------------------------------------------------------------------------


def pefts(load, folders, fusion):
    adapters = {str(i): str(folder) for i, folder in enumerate(folders)}
    model = load()
    model.config.use_cache = False
    config = XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=32,
        adapters=adapters,
        layerwise_scalings=fusion.scope == "layer",
        xlora_depth=fusion.depth,
        xlora_size=fusion.size,
        softmax_temperature=fusion.temperature,
    )
    return get_peft_model(model, config).eval()


@pytest.mark.parametrize(
    "fusion",
    [XLora(), XLora(temperature=0.5), XLora(depth=3, size=16), XLora(scope="layer"), XLora(scope="layer", depth=2)],
    ids=str,
)
def test_xlora_equals_pefts_with_the_same_classifier(load, alike, fusion):
    routed = learned(RoutedModel(load(), alike, fusion), size=0.3)
    peft = pefts(load, alike, fusion)
    classifier = peft.base_model.internal_xlora_classifier.layers
    theirs = [m for m in classifier if isinstance(m, torch.nn.Linear)]
    ours = [m for m in routed.weigher.inner if isinstance(m, torch.nn.Linear)] + [routed.weigher.last]
    with torch.no_grad():
        for one, other in zip(theirs, ours, strict=True):
            weight, bias = other.weight, other.bias
            if one.weight.shape != weight.shape:  # theirs has rows for each of two modules in a layer
                weight = weight.unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1)
                bias = bias.unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1)
            one.weight.copy_(weight)
            one.bias.copy_(bias)
    close(logits(routed), logits(peft), 1e-4)
    with torch.no_grad():
        ids = padded([PROMPTS[0]])
        written = routed.generate(**ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert torch.equal(peft.generate(**ids, max_new_tokens=6, do_sample=False, eos_token_id=None), written)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_xlora_reads_the_student_without_experts_first(load, folders, scope):
    routed = learned(RoutedModel(load(), folders, XLora(scope=scope)), size=0.3)
    logits(routed)
    with torch.no_grad():
        states = load()(**padded(PROMPTS), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(routed.reading.states, states, rtol=1e-5, atol=1e-5)
    for index, gate in enumerate(routed.gates.values()):
        rows = slice(3 * index, 3 * index + 3) if scope == "layer" else slice(0, 3)
        expected = (states @ routed.weigher.last.weight[rows].T + routed.weigher.last.bias[rows]).softmax(-1)
        torch.testing.assert_close(gate.alpha, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", [XLora(), XLora(scope="layer")], ids=str)
def test_the_states_that_are_given_are_those_of_the_second_reading(load, folders, fusion):
    """Pairs of items are read from them."""
    routed = learned(RoutedModel(load(), folders, fusion), size=0.3)
    with torch.no_grad():
        output = routed(**padded(PROMPTS), output_hidden_states=True, use_cache=False)
    assert len(output.hidden_states) == 3
    close(routed.model.lm_head(output.hidden_states[-1]), output.logits)
    assert (output.hidden_states[-1] - routed.reading.states).abs().max() > 1e-3


def test_xlora_starts_from_the_average_and_its_classifier_learns(load, folders):
    routed = RoutedModel(load(), folders, XLora(depth=2, size=8))
    close(logits(routed), logits(RoutedModel(load(), folders, Average())))
    again = RoutedModel(load(), folders, XLora(depth=2, size=8))
    for one, other in zip(routed.weigher.parameters(), again.weigher.parameters(), strict=True):
        assert torch.equal(one, other)  # whatever else draws random numbers
    routed(**padded(PROMPTS), use_cache=False).logits.square().mean().backward()
    assert routed.weigher.last.weight.grad.abs().max() > 0
    np.testing.assert_allclose(routed.alpha, 1 / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: XLora(scope="module"), "scope='module'"),
        (lambda: XLora(depth=0), "depth=0"),
        (lambda: XLora(size=0), "size=0"),
        (lambda: XLora(dropout=1), "dropout=1"),
        (lambda: XLora(temperature=0), "temperature=0"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
