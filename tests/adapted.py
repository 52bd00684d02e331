"""Random adapters and learned fusions for the tiny student."""

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
    """The same model with a router or θ that is not zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in routed.weigher.parameters():
            parameter.normal_(0, size)
    return routed
