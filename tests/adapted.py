"""Random adapters and learned fusions for the tiny student, prompts, and how answers are compared."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def make_adapter(tiny_llama, folder, *, r, targets, seed, **options):
    """A PEFT folder with a random adapter whose B is not zero."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    settings = {"r": r, "lora_alpha": 3 * r + seed, "target_modules": targets, "task_type": "CAUSAL_LM"} | options
    peft = get_peft_model(model, LoraConfig(**settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    peft.save_pretrained(folder)
    return folder


def learned(routed, *, seed=0, size=1.0):
    """The same model with a router, θ or w that is not zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        searched = [routed.weigher.w] if hasattr(routed.weigher, "w") else []
        for parameter in (*routed.weigher.parameters(), *searched):
            parameter.normal_(0, size)
    return routed


PROMPTS = [[1, 40, 50, 60, 70, 80], [1, 90, 100], [1, 33, 44, 55]]


def padded(prompts, *, width=None):
    """Left-padded ids and mask."""
    width = width or max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    return {"input_ids": ids, "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])}


def logits(model, prompts=PROMPTS, **options):
    with torch.no_grad():
        return model(**padded(prompts), **options).logits


def close(a, b, tolerance=2e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
