"""Adapters of other people: what is accepted answers as PEFT answers, everything else is refused by name."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from adapted import close, logits, make_adapter
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from routedk_lite.fusion.fusion import Average, Dynamic, OneHot
from routedk_lite.fusion.layers import RoutedLinear
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.adapter_config import HONOURED, REFUSED, SILENT, read_settings
from routedk_lite.student.adapters import read_adapter

ACCEPTED = {
    "plain": {},
    "all modules": {"targets": "all-linear"},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"v_proj": 5}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 11}},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "one layer": {"layers_to_transform": 0},
    "a pattern of names": {
        "targets": r".*\.(0|1)\.self_attn\.(q|o)_proj",
        "exclude_modules": r".*\.0\.self_attn\.o_proj",
    },
    "dropout": {"lora_dropout": 0.3},
    "fraction": {"lora_alpha": 2.5},
    "random start": {"init_lora_weights": False},
    "gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "eva start": {"init_lora_weights": "eva"},
    "mica start": {"init_lora_weights": "mica"},
    "tied": {"ensure_weight_tying": True},
    "another task": {"task_type": None},
}


def saved(tiny_llama, folder, **options):
    targets = options.pop("targets", ["q_proj", "v_proj"])
    return make_adapter(tiny_llama, folder, r=options.pop("r", 2), targets=targets, seed=4, **options)


def edited(folder, **fields):
    """The adapter of a folder with some fields of its settings changed."""
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(settings))
    return folder


@pytest.fixture
def plain(tiny_llama, tmp_path):
    return saved(tiny_llama, tmp_path / "plain")


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_is_accepted_answers_as_peft_does(load, tiny_llama, tmp_path, kind):
    folder = saved(tiny_llama, tmp_path / "adapter", **ACCEPTED[kind])
    expected = logits(PeftModel.from_pretrained(load(), str(folder)).eval())
    assert (expected - logits(load())).abs().max() > 0.1  # it does something
    close(logits(RoutedModel(load(), [folder], OneHot())), expected)
    close(logits(RoutedModel(load(), [folder, read_adapter(folder, name="again")], Average())), expected)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_2", "olora"])
def test_a_start_that_changes_the_student_is_refused_until_it_is_converted(load, tiny_llama, tmp_path, start):
    folder = saved(tiny_llama, tmp_path / "adapter", init_lora_weights=start)
    with pytest.raises(ValueError, match=rf"adapter_config.json: init_lora_weights = '{start}' changes the student's"):
        RoutedModel(load(), [folder], Average())


@pytest.mark.parametrize("start", ["loftq", "corda", "lora_ga", "mylora", 3, ["pissa"]])
def test_so_is_one_that_is_not_known(plain, start):
    with pytest.raises(ValueError, match="init_lora_weights = "):
        read_adapter(edited(plain, init_lora_weights=start))


def test_a_converted_adapter_answers_as_peft_does(load, tmp_path):
    from peft import get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")
    peft = get_peft_model(load(), config)
    peft.peft_config["default"].init_lora_weights = True  # as PEFT documents the conversion
    peft.save_pretrained(tmp_path / "start")
    peft.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path / "converted"
    peft.save_pretrained(folder, path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    close(logits(RoutedModel(load(), [folder], OneHot())), logits(peft.eval()), 1e-4)


SET = {
    "use_dora": True,
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "bias": "lora_only",
    "lora_bias": True,
    "fan_in_fan_out": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
    "target_parameters": ["mlp.experts.gate_up_proj"],
    "layer_replication": [[0, 2], [1, 2]],
    "alora_invocation_tokens": [5],
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 0.1},
    "monteclora_config": {"n": 2},
    "megatron_config": {"x": 1},
    "velora_config": {"num_groups": 4},
}


@pytest.mark.parametrize("field", SET)
def test_what_a_routed_layer_cannot_do_is_refused_by_field_and_value(plain, field):
    with pytest.raises(ValueError, match=rf"adapter_config\.json sets {field} = .*a routed layer cannot"):
        read_adapter(edited(plain, **{field: SET[field]}))


def test_every_field_of_this_peft_is_understood_or_refused():
    assert SET.keys() == REFUSED.keys()
    assert {field.name for field in dataclasses.fields(LoraConfig)} <= HONOURED | SILENT | REFUSED.keys()


def test_a_field_that_nobody_has_heard_of(plain):
    read_adapter(edited(plain, use_xlora=False, some_list=[], some_name=None))
    with pytest.raises(ValueError, match=r"use_xlora = 'yes' \(not known here; written by PEFT \d"):
        read_adapter(edited(plain, use_xlora="yes"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"r": 0}, "r = 0 must be a whole number above 0"),
        ({"r": "8"}, "r = '8' must be"),
        ({"lora_alpha": None, "alpha_pattern": {"q_proj": "much"}}, "alpha_pattern = .*a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": 10**400}, "lora_alpha = 10+ must be a number"),
        ({"use_rslora": "yes"}, "use_rslora = 'yes' must be true or false"),
        ({"target_modules": [1]}, r"target_modules = \[1\]"),
        ({"layers_to_transform": ["a"]}, "layers_to_transform"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path = 3"),
        ({"r": 3}, r"lora_A of .*q_proj has rank 2, adapter_config.json says 3"),
        ({"rank_pattern": {"q_proj": 1}}, r"q_proj has rank 2, adapter_config.json says 1"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(plain, fields, words):
    with pytest.raises(ValueError, match=words):
        read_adapter(edited(plain, **fields))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(HONOURED | SILENT | REFUSED.keys() | {"new"})), JSON, max_size=4) | JSON)
def test_any_settings_are_read_or_refused(raw):
    base = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    raw = base | raw if isinstance(raw, dict) else raw
    try:
        settings = read_settings(raw, "adapter_config.json")
    except ValueError as error:
        assert "adapter_config.json" in str(error)
    else:
        assert isinstance(settings, LoraConfig)
        assert not any(raw.get(name) for name in (REFUSED.keys() - {"bias"}) | {"new"})


# --- weights --------------------------------------------------------------------------------------------------------


def change(folder, edit):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    return folder


NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(NAME.format("B")), r"lacks base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"),
        (lambda t: t.pop(NAME.format("A")), r"lacks base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"),
        (lambda t: t[NAME.format("A")].fill_(float("nan")), "lora_A of .*q_proj holds values that are not finite"),
        (lambda t: t[NAME.format("B")][0].fill_(float("inf")), "lora_B of .*q_proj holds values that are not finite"),
        (lambda t: t.update({NAME.format("A"): t[NAME.format("A")].int()}), "lora_A of .* another"),
        (lambda t: t.update({NAME.format("B"): t[NAME.format("B")][:, :1].clone()}), "lora_B of .* has rank 1"),
        (lambda t: t.update({"lora_embedding_A": torch.ones(2, 2)}), "lora_embedding_A .* is not a LoRA matrix"),
        (lambda t: t.update({"x.lora_A.default.weight": torch.ones(2, 2)}), "x.lora_A.default.weight"),
        (lambda t: t.clear(), "the adapter is empty"),
    ],
)
def test_weights_that_are_damaged_are_named(plain, edit, words):
    with pytest.raises(ValueError, match=words):
        read_adapter(change(plain, edit))


def test_a_module_without_weights_is_named(load, plain):
    def drop(tensors):
        for name in [name for name in tensors if "layers.1" in name and "v_proj" in name]:
            del tensors[name]

    with pytest.raises(ValueError, match=r"'plain' has no matrices for model\.layers\.1\.self_attn\.v_proj, which its"):
        RoutedModel(load(), [change(plain, drop)], Average())


def test_files_that_are_missing_cut_or_of_another_kind(plain, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no file adapter_model\.safetensors: give a folder that PEFT"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no file adapter_model\.safetensors: give a folder that PEFT"):
        read_adapter(tmp_path)
    cut = shutil.copytree(plain, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes((plain / "adapter_model.safetensors").read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged or cut short"):
        read_adapter(cut)
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="pickle.*not read.*save_pretrained"):
        read_adapter(plain)
    (cut / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file adapter_config\.json"):
        read_adapter(cut)


def test_updates_that_the_student_cannot_hold_are_refused(load, plain):
    huge = change(plain, lambda t: t[NAME.format("A")].mul_(1e6))
    RoutedModel(load(), [huge], Average())
    student = load(dtype=torch.float16)
    with pytest.raises(ValueError, match=r"q_proj: the update of 'plain' .* not finite in torch\.float16"):
        RoutedModel(student, [huge], Average())
    assert not any(isinstance(module, RoutedLinear) for module in student.modules())


# --- the student that they go into ----------------------------------------------------------------------------------


def test_a_second_routed_model_on_the_same_student_is_refused_and_the_first_goes_on(load, folders):
    student = load()
    first = RoutedModel(student, folders, Average())
    expected = logits(first)
    with pytest.raises(ValueError, match=r"carries experts already \(in model\.layers\.0.*call `unload\(\)`"):
        RoutedModel(student, folders, Average())
    close(logits(first), expected)
    close(logits(RoutedModel(first.unload(), folders, Average())), expected)


def test_a_peft_model_is_refused(load, folders):
    peft = PeftModel.from_pretrained(load(), str(folders[0]))
    for student in (peft, peft.get_base_model()):
        with pytest.raises(ValueError, match="carries an adapter of PEFT already.*unload"):
            RoutedModel(student, folders, Average())


@pytest.mark.parametrize("fusion", [Dynamic(top_k=9), OneHot(expert=5)], ids=str)
def test_a_fusion_that_is_refused_leaves_the_student_as_it_was(load, folders, fusion):
    student = load()
    expected = logits(student)
    trainable = [parameter.requires_grad for parameter in student.parameters()]
    with pytest.raises(ValueError, match="at most 3|0 to 2"):
        RoutedModel(student, folders, fusion)
    assert [parameter.requires_grad for parameter in student.parameters()] == trainable
    close(logits(student), expected)
    close(
        logits(RoutedModel(student, folders[:1], OneHot())), logits(PeftModel.from_pretrained(load(), str(folders[0])))
    )
