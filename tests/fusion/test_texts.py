"""A router for people who never heard of bundles: any model, any adapters, any texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adapted import learned
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from test_families import experts, make

from routedk_lite.config import RouterConfig
from routedk_lite.files import DownloadError
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha, train_fusion
from routedk_lite.student import hub
from routedk_lite.student.adapters import read_adapter
from routedk_lite.student.backbone import Student
from routedk_lite.student.texts import Text, encode_text_example, text_prompt_ids

TEXTS = [(f"{kind} {k}?", answer) for k in range(6) for kind, answer in (("aaaa", "xx"), ("zzzz", "yy"))]
CONFIG = RouterConfig(epochs=12, micro_batch_size=4, accumulation_steps=1, learning_rate=0.05, max_length=64)


@pytest.fixture
def student(tiny_student):
    """A model and a tokenizer that somebody else has loaded."""
    size = len(tiny_student.tokenizer)
    return Student.of(make("Qwen3", vocab_size=size), tiny_student.tokenizer, "my-own")


@pytest.fixture
def opposed(student, tmp_path):
    """Two experts with opposite updates: what one makes likelier, the other makes less likely."""
    folders = []
    for sign in (1, -1):
        model = get_peft_model(student.model, LoraConfig(r=2, target_modules=["down_proj"]))
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.5).mul_(sign)
                elif "lora_A" in name:
                    parameter.normal_(0, 0.5)
        model.save_pretrained(folder := tmp_path / f"expert{sign:+d}")
        model.unload()
        folders.append(folder)
    return folders


@pytest.mark.parametrize("family", ["Qwen3", "GPTNeo"])
def test_alpha_does_not_depend_on_padding_where_positions_are_learned_either(family, tiny_student, tmp_path):
    def student():
        return make(family, vocab_size=len(tiny_student.tokenizer))

    model = learned(RoutedModel(student(), experts(student, tmp_path), Dynamic()), size=0.4)
    texts = [("a", "x"), ("a longer question, which pads the other?", "y")]
    alpha = trace_alpha(model, tiny_student.tokenizer, texts, progress=False)
    alone = trace_alpha(model, tiny_student.tokenizer, texts, batch_size=1, progress=False)
    np.testing.assert_allclose(alpha, alone, atol=1e-5)
    assert np.abs(alpha[0] - alpha[1]).max() > 0.01


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_router_learns_from_texts_and_is_saved(student, opposed, tmp_path):
    model = RoutedModel(student.model, opposed, Dynamic())
    result = train_fusion(
        model, student, TEXTS[:8], tmp_path / "f", config=CONFIG, validation=TEXTS[8:], progress=False
    )
    losses = [row["eval_loss"] for row in result.history if "eval_loss" in row]
    assert losses[-1] < losses[0]
    alpha = trace_alpha(model, student.tokenizer, TEXTS, progress=False)
    assert alpha.shape == (len(TEXTS), 2, 2)
    one_by_one = trace_alpha(model, student.tokenizer, TEXTS, batch_size=1, progress=False)
    np.testing.assert_allclose(alpha, one_by_one, atol=1e-5)
    kinds = alpha[0::2].mean(0) - alpha[1::2].mean(0)
    assert np.abs(kinds).max() > 0.02  # the two kinds of prompts are told apart
    ids = torch.tensor([text_prompt_ids(TEXTS[0], student.tokenizer)])
    with torch.no_grad():
        expected = model(ids).logits
        model.unload()
        again = RoutedModel.from_pretrained(result.folder, student.model)
        torch.testing.assert_close(again(ids).logits, expected)
    again.unload()


def test_the_loss_is_that_of_the_answer_and_its_end(student, opposed, tmp_path):
    model = RoutedModel(student.model, opposed, Dynamic())
    config = RouterConfig(epochs=1, micro_batch_size=1, accumulation_steps=1, learning_rate=1e-12, max_length=64)
    with pytest.warns(UserWarning, match="uniform"):
        result = train_fusion(
            model, student, TEXTS[:1], tmp_path / "f", config=config, validation=TEXTS[1:2], progress=False
        )
    example = encode_text_example(TEXTS[1], student.tokenizer, max_length=64)
    ids, prompt = torch.tensor([example.input_ids]), torch.zeros(1, len(example.input_ids))
    prompt[:, : example.n_prompt] = 1
    with torch.no_grad():
        logits = model(ids, prompt_mask=prompt).logits[0, example.n_prompt - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, example.n_prompt :])
    assert example.input_ids[-1] == student.tokenizer.eos_token_id
    assert next(r["eval_loss"] for r in result.history if "eval_loss" in r) == pytest.approx(float(expected), abs=1e-5)
    model.unload()


def test_prompts_are_read_as_they_stand_or_by_the_chat_template(student):
    tokenizer = student.tokenizer
    plain = text_prompt_ids(("what?", "x"), tokenizer)
    assert tokenizer.decode(plain, skip_special_tokens=True) == "what?"
    messages = [{"role": "user", "content": "what?"}]
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = None
        with pytest.raises(ValueError, match="no chat template"):
            text_prompt_ids((messages, "x"), tokenizer)
        tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>"
        ids = text_prompt_ids(Text(messages, "x"), tokenizer)
        assert tokenizer.decode(ids) == "<user>what?<bot>"
    finally:
        tokenizer.chat_template = before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (("what?",), r"a text is a pair"),
        (("", "x"), r"the prompt is empty"),
        (([], "x"), r"the prompt is empty|no chat template"),
        ((7, "x"), r"prompt = 7: must be a string"),
        (("what?", ""), r"answer = '': must be a string"),
        (("what?", None), r"answer = None: must be a string"),
        (("what? " * 60, "x"), r"tokens, more than max_length = 64"),
    ],
)
def test_a_text_that_cannot_be_learned_from_is_named(student, opposed, tmp_path, text, message):
    model = RoutedModel(student.model, opposed, Dynamic())
    with pytest.raises(ValueError, match=rf"texts\[1\]: .*({message})"):
        train_fusion(model, student, [TEXTS[0], text], tmp_path / "f", config=CONFIG, progress=False)
    assert not (tmp_path / "f").exists()
    model.unload()


@pytest.mark.parametrize(("name", "value"), [("permute", True), ("pair_weight", 1.0)])
def test_what_only_sessions_have_is_refused_for_texts(student, opposed, tmp_path, name, value):
    model = RoutedModel(student.model, opposed, Dynamic())
    config = RouterConfig(**{name: value})
    with pytest.raises(ValueError, match=f"{name} = {value}: a text has no"):
        train_fusion(model, student, TEXTS, tmp_path / "f", config=config, progress=False)
    model.unload()


def test_a_student_that_was_loaded_elsewhere_is_known_by_its_weights(student, tiny_student):
    size = len(tiny_student.tokenizer)
    same = Student.of(make("Qwen3", vocab_size=size), tiny_student.tokenizer)
    assert same.info.sha256 == student.info.sha256
    assert (same.info.id, student.info.id) == ("Qwen3ForCausalLM", "my-own")
    with torch.no_grad():
        same.model.lm_head.weight[0, 0] += 1
    assert Student.of(same.model, same.tokenizer).info.sha256 != student.info.sha256
    assert student.info.dtype == "float32" and student.info.quantization == "none" and student.info.device == "cpu"
    assert not any(p.requires_grad for p in student.model.parameters())


def test_a_student_that_is_no_decoder_is_refused(tiny_student):
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match="'mine' is an encoder with a decoder"):
        Student.of(model, tiny_student.tokenizer, "mine")


# --- adapters from the hub ---


@pytest.fixture
def on_the_hub(student, opposed, tmp_path, monkeypatch):
    """The hub's cache with one repository in it, and no network."""
    cache = tmp_path / "hub"
    snapshot = cache / "models--shop--two-adapters" / "snapshots" / ("c" * 40)
    for place in (snapshot, snapshot / "inner" / "other"):
        place.mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (place / file).write_bytes((opposed[0] / file).read_bytes())
    refs = cache / "models--shop--two-adapters" / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    (refs / "v1").write_text("c" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return opposed[0]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("shop/two-adapters", "two-adapters"),
        ("shop/two-adapters@v1", "two-adapters"),
        ("shop/two-adapters/inner/other", "other"),
        (f"shop/two-adapters/inner/other@{'c' * 40}", "other"),
    ],
)
def test_an_adapter_is_read_from_the_hub(on_the_hub, where, name):
    found = read_adapter(where)
    assert found.name == name
    assert found.sha256 == read_adapter(on_the_hub).sha256


def test_experts_of_a_routed_model_may_be_ids_and_folders(on_the_hub, student):
    model = RoutedModel(student.model, ["shop/two-adapters", on_the_hub], Dynamic())
    assert model.expert_names == ("two-adapters", on_the_hub.name)
    model.unload()


@pytest.mark.parametrize("where", ["nobody/nothing", "shop/two-adapters@v9"])
def test_an_adapter_that_is_nowhere_says_so(on_the_hub, where):
    with pytest.raises(DownloadError, match=rf"cannot fetch the adapter .*there is none {where!r} here"):
        read_adapter(where)


def test_a_folder_is_never_looked_for_on_the_hub(on_the_hub, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "hub_folder", lambda *args, **options: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    for where in ("runs/base", Path("nobody/nothing"), tmp_path / "none", "/none/here", "nothing"):
        with pytest.raises(FileNotFoundError, match="holds no file"):
            read_adapter(where)


def test_random_experts_of_a_family_learn_from_texts_too(tiny_student, tmp_path):
    """Nothing above hangs on how those experts were made."""
    size = len(tiny_student.tokenizer)
    own = Student.of(make("Phi3", vocab_size=size), tiny_student.tokenizer)
    folders = experts(lambda: make("Phi3", vocab_size=size), tmp_path)
    model = RoutedModel(own.model, folders, Dynamic())
    before = {name: value.clone() for name, value in model.weigher.state_dict().items()}
    config = RouterConfig(epochs=1, micro_batch_size=2, accumulation_steps=1, learning_rate=0.05, max_length=64)
    train_fusion(model, own, TEXTS[:4], tmp_path / "f", config=config, progress=False)
    assert any(not torch.equal(before[name], value) for name, value in model.weigher.state_dict().items())
