"""Arrow and GenKnowSub against their definitions on full matrices, and against PEFT's Arrow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapted import PROMPTS, close, logits, make_adapter, padded
from peft import ArrowConfig, PeftModel
from peft.tuners.lora.arrow import create_arrow_model
from safetensors.torch import load_file, save_file

from routedk_lite.fusion.arrow import Arrow, GenKnowSub, first_direction, subtracted
from routedk_lite.fusion.fusion import Average, OneHot
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.adapters import LowRank, read_adapter


@pytest.fixture(scope="module")
def pointed(tiny_llama, tmp_path_factory):
    """Three experts whose updates have one direction far ahead, so that PEFT's power iteration finds it exactly."""
    top = tmp_path_factory.mktemp("pointed")
    folders = []
    for i in range(3):
        folders.append(make_adapter(tiny_llama, top / f"p{i}", r=4, targets=["q_proj", "down_proj"], seed=i + 1))
        file = folders[-1] / "adapter_model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "lora_A" in name:
                tensor[0] *= 12
        save_file(tensors, file, metadata={"format": "pt"})
    return folders


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (2, 1.0), (3, 1.0), (2, 4.0)])
def test_arrow_equals_pefts(load, pointed, top_k, temperature):
    settings = ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=0)
    peft = create_arrow_model(load(), [str(folder) for folder in pointed], settings).eval()
    routed = RoutedModel(load(), pointed, Arrow(top_k=top_k, temperature=temperature))
    close(logits(routed), logits(peft), 1e-4)
    assert (logits(routed) - logits(RoutedModel(load(), pointed, Average()))).abs().max() > 0.01


def test_arrow_equals_its_definition_on_full_matrices(load, folders):
    """By SVD of every ΔW; experts differ in rank and in the modules that they adapt."""
    routed = RoutedModel(load(), folders, Arrow(top_k=2, temperature=0.7))
    adapters = [read_adapter(folder) for folder in folders]
    torch.manual_seed(0)
    for name in ("model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"):
        module, there = routed.model.get_submodule(name), [i for i, a in enumerate(adapters) if name in a.modules]
        x = torch.randn(2, 5, module.base.in_features)
        expected = module.base(x)
        for row in range(2):
            for token in range(5):
                one = x[row, token]
                deltas = {i: adapters[i].modules[name].delta() for i in there}
                scores = {i: float((torch.linalg.svd(delta).Vh[0] @ one).abs()) for i, delta in deltas.items()}
                best = sorted(there, key=scores.get, reverse=True)[:2]
                shares = (torch.tensor([scores[i] for i in best]) / 0.7).softmax(0)
                for i, share in zip(best, shares, strict=True):
                    expected[row, token] += share * deltas[i] @ one
        close(module(x), expected, 1e-4)


def test_the_first_direction_is_that_of_the_whole_matrix():
    torch.manual_seed(1)
    for r, d_out, d_in in [(1, 6, 9), (4, 30, 20), (5, 3, 40)]:
        update = LowRank(torch.randn(r, d_in), torch.randn(d_out, r), -0.7)
        expected = torch.linalg.svd(update.delta()).Vh[0]
        assert float((first_direction(update) @ expected).abs()) == pytest.approx(1, abs=1e-5)
    assert not first_direction(LowRank(torch.randn(2, 5), torch.zeros(4, 2), 1.0)).any()


def test_subtraction_is_exact_and_pefts_is_another(load, alike):
    """PEFT subtracts A and B apart."""
    adapters = [read_adapter(folder) for folder in alike]
    for name, left in subtracted(adapters[1], adapters[0]).modules.items():
        mine, general = adapters[1].modules[name], adapters[0].modules[name]
        torch.testing.assert_close(left.delta(), mine.delta() - general.delta(), rtol=1e-5, atol=1e-5)
        assert left.a.shape[0] == 8
        apart = mine.scale * (mine.b - general.b) @ (mine.a - general.a)
        assert float((apart - left.delta()).norm() / left.delta().norm()) > 0.1


def test_genknowsub_is_arrow_on_the_differences(load, folders):
    general = read_adapter(folders[1])
    left = [subtracted(read_adapter(folder), general) for folder in (folders[0], folders[2])]
    routed = RoutedModel(load(), folders, GenKnowSub(general=1, top_k=2))
    close(logits(routed), logits(RoutedModel(load(), left, Arrow(top_k=2))), 1e-4)
    assert not routed.alpha[..., 1].any()
    np.testing.assert_allclose(routed.alpha.sum(-1), 1, atol=1e-5)
    with routed.override([1, 1, 1]):  # what is left of the general one is nothing
        both = logits(routed)
    with routed.override([1, 0, 1]):
        close(logits(routed), both)


def test_one_expert_beyond_a_general_one_that_knows_nothing_is_itself(load, alike):
    nothing = read_adapter(alike[0])
    nothing = nothing._replace(modules={n: u._replace(b=torch.zeros_like(u.b)) for n, u in nothing.modules.items()})
    routed = RoutedModel(load(), [nothing, read_adapter(alike[1])], GenKnowSub())
    close(logits(routed), logits(PeftModel.from_pretrained(load(), str(alike[1]))), 1e-4)


@pytest.mark.parametrize(
    ("fusion", "n", "words"),
    [
        (GenKnowSub(general=3), 3, r"general=3.*0 to 2, the place of the general one among 'expert0', 'expert1'"),
        (GenKnowSub(), 1, "nothing is left of 'expert0', which is the general expert"),
    ],
)
def test_a_general_expert_is_needed(load, folders, fusion, n, words):
    model = load()
    with pytest.raises(ValueError, match=words):
        RoutedModel(model, folders[:n], fusion)
    RoutedModel(model, folders, OneHot())  # nothing was touched


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="top_k=0"):
        Arrow(top_k=0)
    with pytest.raises(ValueError, match="temperature=0"):
        GenKnowSub(temperature=0)


def test_arrow_reads_every_token_and_padding_changes_nothing(load, folders):
    routed = RoutedModel(load(), folders, Arrow(top_k=2))
    together, alpha = logits(routed), routed.alpha
    for row, prompt in enumerate(PROMPTS):
        close(together[row, -len(prompt) :], logits(routed, [prompt])[0], 1e-4)
        np.testing.assert_allclose(routed.alpha[0], alpha[row], atol=1e-5)
    with torch.no_grad():
        close(routed(**padded(PROMPTS, width=11)).logits[:, -3:], together[:, -3:], 1e-4)
