"""Activation checkpointing gives the gradients that there are without it, whatever is read in between."""

from __future__ import annotations

import copy

import pytest
import torch
from adapted import PROMPTS, learned, logits, padded

from routedk_lite.fusion.arrow import Arrow
from routedk_lite.fusion.flow import Hard, LoraFlow
from routedk_lite.fusion.furina import Furina
from routedk_lite.fusion.fusion import Average, Dynamic, Static
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora

LEARNING = [
    *(Dynamic(), Dynamic(scope="global"), Dynamic(pool="token"), Dynamic(top_k=2), Static(), Static(scope="module")),
    *(LoraFlow(), Hard(), Furina(), XLora(), XLora(scope="layer")),
]


def gradients(routed, order):
    """Of a loss over two batches, with the forward and backward passes in the order of the letters."""
    routed.zero_grad()
    batches = {"a": padded(PROMPTS[:2]), "b": padded(PROMPTS[2:])}
    outputs = {}
    for step in order:
        if step.lower() == step:
            outputs[step] = routed(**batches[step], use_cache=False).logits.float().pow(2).sum()
        else:
            outputs[step.lower()].backward()
    return [parameter.grad.clone() for parameter in routed.weigher.parameters()]


@pytest.mark.parametrize("order", ["aAbB", "abAB", "abBA"])
@pytest.mark.parametrize("fusion", LEARNING, ids=str)
def test_gradients_with_two_forward_passes_before_a_backward_pass(load, folders, fusion, order):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4).train()
    right = gradients(routed, "aAbB")
    routed.activation_checkpointing_enable()
    for found, expected in zip(gradients(routed, order), right, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_an_evaluation_and_an_override_in_between_change_nothing(load, folders):
    routed = learned(RoutedModel(load(), folders, Dynamic()), size=0.4).train()
    right = gradients(routed, "aAbB")
    routed.activation_checkpointing_enable()
    routed.zero_grad()
    for batch in (padded(PROMPTS[:2]), padded(PROMPTS[2:])):
        loss = routed(**batch, use_cache=False).logits.float().pow(2).sum()
        with routed.override([0.2, 0.3, 0.5]):
            logits(routed.eval(), PROMPTS[:1])
        routed.train()
        shown = routed.alpha
        loss.backward()
        assert (routed.alpha == shown).all()  # and α is that of what was read last
    for parameter, expected in zip(routed.weigher.parameters(), right, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_checkpointing_of_the_student_alone_is_refused(load, folders):
    student = load()
    student.gradient_checkpointing_enable()
    routed = RoutedModel(student, folders, Dynamic()).train()
    with pytest.raises(RuntimeError, match="call `activation_checkpointing_enable` of the routed model"):
        routed(**padded(PROMPTS))
    routed.activation_checkpointing_enable()
    routed(**padded(PROMPTS), use_cache=False)
    with pytest.raises(ValueError, match="context_fn"):
        routed.activation_checkpointing_enable({"context_fn": None})


@pytest.mark.parametrize("fusion", [Average(), Arrow(), *LEARNING], ids=str)
def test_a_model_is_copied_and_merged_after_a_forward_pass_with_gradients(load, folders, fusion):
    routed = learned(RoutedModel(load(), folders, fusion), size=0.4)
    expected = logits(routed)
    routed(**padded(PROMPTS))
    copied = copy.deepcopy(routed)
    learned(routed, seed=9)  # the copy must not notice
    torch.testing.assert_close(logits(copied), expected)
    if not fusion.depends_on_input:
        torch.testing.assert_close(logits(copied.merge()), expected, rtol=1e-4, atol=1e-4)
