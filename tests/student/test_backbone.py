import json
import shutil
from dataclasses import replace

import pytest
import torch

from routedk_lite.config import StudentConfig
from routedk_lite.files import DownloadError
from routedk_lite.student import backbone


def local(profile, folder, **changes):
    return replace(profile, student=StudentConfig(source="hub", id=str(folder), **{"dtype": "float32"} | changes))


def test_a_local_student_is_loaded_frozen_and_described(tiny_profile, tiny_llama):
    student = backbone.load_student(tiny_profile, device="cpu")
    assert not student.model.training
    assert not any(p.requires_grad for p in student.model.parameters())
    assert student.tokenizer.padding_side == "left"
    assert student.info.id == str(tiny_llama) and student.info.revision == "local"
    assert student.info.parameters == sum(p.numel() for p in student.model.parameters())
    assert len(student.info.sha256) == 64
    assert student.info.attention == "eager"


def test_the_hash_follows_the_weights(tiny_profile, tiny_llama, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    same = backbone.student_files(local(tiny_profile, copy).student)[2]
    assert same == backbone.student_files(tiny_profile.student)[2]
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert backbone.student_files(local(tiny_profile, copy).student)[2] != same


def test_a_tokenizer_without_padding_gets_one(tiny_profile, tiny_llama, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    student = backbone.load_student(local(tiny_profile, copy), device="cpu")
    assert student.tokenizer.pad_token_id == student.tokenizer.eos_token_id


def test_the_toy_student_needs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    student = backbone.load_student("toy", device="cpu")
    assert 7e5 < student.info.parameters < 1.5e6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_the_compute_type_goes_by_capability_not_by_what_the_gpu_says(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # what a T4 claims
    assert backbone.choose_dtype("auto", "cuda") is expected
    assert backbone.choose_dtype("float32", "cuda") is torch.float32


def test_a_cpu_without_native_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(backbone, "has_fast_bf16", lambda: False)
    assert backbone.choose_dtype("auto", "cpu") is torch.float32
    monkeypatch.setattr(backbone, "has_fast_bf16", lambda: True)
    assert backbone.choose_dtype("auto", "cpu") is torch.bfloat16


def test_an_unreachable_hub_student_says_what_to_do(tiny_profile, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match=r"'nobody/nothing' \(revision default\).*local folder"):
        backbone.load_student(local(tiny_profile, "nobody/nothing"))
    assert not backbone.is_cached(StudentConfig(source="hub", id="nobody/nothing"))


def test_four_bit_without_bitsandbytes_says_how_to_get_it(tiny_profile, tiny_llama, monkeypatch):
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"routedk-lite\[gpu\]"):
        backbone.load_student(local(tiny_profile, tiny_llama, load_in_4bit=True), device="cpu")
