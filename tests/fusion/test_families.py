"""Students of other families: experts go into any decoder with linear modules; what cannot carry one is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from adapted import PROMPTS, close, learned, logits, padded
from peft import LoraConfig, PeftModel, get_peft_model

from routedk_lite.config import PairConfig
from routedk_lite.fusion.fusion import Average, Dynamic, OneHot
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.backbone import Student
from routedk_lite.student.local_teacher import LocalTeacher
from routedk_lite.student.pairs import make_reader, read_pairs
from routedk_lite.teacher.teachers import TeacherError

SMALL = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "Llama": {},
    "Mistral": {"sliding_window": 4},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "sliding_window": 4},
    "Gemma3": {"head_dim": 8, "sliding_window": 4},
    "Phi": {},
    "Phi3": {},
    "GPTNeoX": {},
    "GPTNeo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},  # learned positions
    "Olmo2": {},
    "Granite": {},
    "StableLm": {},
}


def make(family, **options):
    """A random causal language model of a family."""
    torch.manual_seed(0)
    prefix = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{prefix}Config")(**SMALL | FAMILIES.get(family, {}) | options)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def experts(student, folder, targets="all-linear", n=2):
    """Random experts of a student; PEFT itself decides which modules are linear."""
    folders = []
    for i in range(n):
        model = get_peft_model(student(), LoraConfig(r=2 + i, lora_alpha=8, target_modules=targets))
        torch.manual_seed(i)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0, 0.2)
        model.save_pretrained(folder / f"expert{i}")
        folders.append(folder / f"expert{i}")
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_of_every_family_answer_as_in_peft_and_are_routed(family, tmp_path):
    folders = experts(lambda: make(family), tmp_path)
    expected = logits(PeftModel.from_pretrained(make(family), str(folders[1])).eval())
    close(logits(RoutedModel(make(family), folders, OneHot(expert=1))), expected, 1e-4)
    routed = learned(RoutedModel(make(family), folders, Dynamic()), size=0.4)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    right = routed.generate(**padded(PROMPTS), **options)
    alpha = routed.alpha
    assert np.abs(alpha - 0.5).max() > 0.01
    assert torch.equal(routed.generate(**padded(PROMPTS), **options, use_cache=False), right)
    np.testing.assert_allclose(routed.alpha, alpha, atol=1e-4)


def seeing_student(**text):
    """A random text model inside one that sees."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = SMALL | {"head_dim": 8, "sliding_window": 4} | text
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


def test_a_text_model_inside_a_larger_one_is_routed(tmp_path):
    student = seeing_student
    names = [name for name, module in student().named_modules() if isinstance(module, torch.nn.Linear)]
    text = [name for name in names if "language_model.layers" in name]
    assert len(text) < len(names)
    folders = experts(student, tmp_path, targets=r".*language_model\.layers.*_proj")
    close(
        logits(RoutedModel(student(), folders, OneHot())),
        logits(PeftModel.from_pretrained(student(), folders[0])),
        1e-4,
    )
    routed = learned(RoutedModel(student(), folders, Dynamic()), size=0.4)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    right = routed.generate(**padded(PROMPTS), **options)
    assert torch.equal(routed.generate(**padded(PROMPTS), **options, use_cache=False), right)
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(routed.generate(**padded([prompt]), **options)[0, -6:], right[row, -6:])
    everywhere = experts(student, tmp_path / "vision", targets=["q_proj", "v_proj"], n=1)
    with pytest.raises(ValueError, match="more than one stack of layers.*vision.*text model alone"):
        RoutedModel(student(), everywhere, Average())
    seeing = experts(student, tmp_path / "seeing", targets=r".*vision_tower.*layers.*_proj", n=1)
    with pytest.raises(ValueError, match="is not the list of this student's 2 decoder layers"):
        RoutedModel(student(), seeing, Average())


def test_modules_that_store_their_weights_transposed_are_named(tmp_path):
    def student():
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=259))

    (folder,) = experts(student, tmp_path, targets=["c_attn"], n=1)
    with pytest.raises(ValueError, match="fan_in_fan_out = True .*Conv1D"):
        RoutedModel(student(), [folder], Average())
    settings = folder / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"fan_in_fan_out": true', '"fan_in_fan_out": false'))
    with pytest.raises(ValueError, match=r"adapts transformer\.h\.0\.attn\.c_attn, a Conv1D, which cannot carry"):
        RoutedModel(student(), [folder], Average())


def test_experts_on_a_mixture_of_experts_are_named(tmp_path):
    def student():
        return make("Mixtral", num_local_experts=2, num_experts_per_tok=1)

    model = get_peft_model(student(), LoraConfig(r=2, target_modules=[], target_parameters=["experts.gate_up_proj"]))
    model.save_pretrained(tmp_path / "moe")
    with pytest.raises(ValueError, match="target_parameters = .*mixture of experts"):
        RoutedModel(student(), [tmp_path / "moe"], Average())
    routed = RoutedModel(student(), experts(student, tmp_path, targets=["q_proj", "v_proj"]), Dynamic())
    assert logits(routed).isfinite().all()  # beside them is another matter


def test_a_linear_module_that_gets_tokens_of_several_rows_is_named(tmp_path):
    class Mixed(torch.nn.Module):
        """Hands its tokens on without their rows, as a mixture of experts does."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.flatten(0, 1)).view(x.shape)

    def student():
        model = make("Llama", intermediate_size=32)
        model.model.layers[0].mlp = Mixed(torch.nn.Linear(32, 32))
        return model

    routed = RoutedModel(student(), experts(student, tmp_path, targets=["inner"]), Dynamic())
    with pytest.raises(RuntimeError, match=r"input of \(18, 32\).*mixture of experts"):
        logits(routed)


def test_a_student_that_is_spread_over_gpus_is_refused(tmp_path):
    model = make("Llama")
    folders = experts(lambda: make("Llama"), tmp_path)
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "lm_head": "cpu"}
    with pytest.raises(ValueError, match=r"hf_device_map: .* spread over 0, 1, cpu, .* one device"):
        RoutedModel(model, folders, Average())
    model.hf_device_map = {"": 0}
    assert RoutedModel(model, folders, Average()).adapters


def test_pairs_are_read_from_a_text_model_inside_a_larger_one(tiny_student, sessions):
    student = Student.of(seeing_student(max_position_embeddings=1024), tiny_student.tokenizer)
    reader = make_reader(student, sessions, PairConfig(layer=2))
    found = read_pairs(student.model, student.tokenizer, sessions[:3], reader, progress=False)
    assert all(np.isfinite(found[one.id]).all() and found[one.id].shape == (len(one),) * 2 for one in sessions[:3])
    with pytest.raises(ValueError, match="this student has 2 layers"):
        make_reader(student, sessions, PairConfig(layer=3))


def test_a_text_model_inside_a_larger_one_teaches(tiny_student):
    """It says how long its context is; some models have no limit to say."""
    model, tokenizer = seeing_student(), tiny_student.tokenizer
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    teacher = LocalTeacher(Student.of(model, tokenizer))
    short, long = ([{"role": "user", "content": "x" * n}] for n in (9, 120))
    assert len(teacher.ask([short], max_tokens=3, progress=False)) == 1
    with pytest.raises(TeacherError, match="do not fit into its context of 128"):
        teacher.ask([long], max_tokens=3, progress=False)
    del model.config.text_config.max_position_embeddings
    assert len(teacher.ask([short], max_tokens=4, progress=False)) == 1
