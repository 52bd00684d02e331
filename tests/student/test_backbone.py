import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from routedk_lite.config import StudentConfig
from routedk_lite.files import DownloadError
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student import backbone
from routedk_lite.student.adapters import read_adapter
from routedk_lite.student.experts import train_expert


def local(profile, folder, **changes):
    return replace(profile, student=StudentConfig(source="hub", id=str(folder), **{"dtype": "float32"} | changes))


def test_quantised_weights_are_another_student_and_whole_ones_are_known_as_before(tiny_profile, tiny_llama):
    info = backbone.load_student(local(tiny_profile, tiny_llama), device="cpu").info
    assert info.identity == (info.sha256, "float32")
    assert replace(info, quantization="nf4").identity == (info.sha256, "float32", "nf4")


def test_a_local_student_is_loaded_frozen_and_described(tiny_profile, tiny_llama):
    student = backbone.load_student(tiny_profile, device="cpu")
    assert not student.model.training
    assert not any(p.requires_grad for p in student.model.parameters())
    assert student.tokenizer.padding_side == "left"
    assert student.info.id == str(tiny_llama) and student.info.revision == "local"
    assert student.info.parameters == sum(p.numel() for p in student.model.parameters())
    assert len(student.info.sha256) == 64
    assert student.info.attention == "eager"


ALLOCATING = """
import resource, torch
from routedk_lite.student.backbone import load_student

load_student("toy", device="cpu")
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(64 * 2**20, dtype=torch.uint8).fill_(1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""


def test_memory_that_a_tensor_freed_is_used_again():
    """Linux's C library would give every block of this size back to the system, and get it anew page by page."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only the GNU C library can be told to")
    done = subprocess.run([sys.executable, "-c", ALLOCATING], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 64 * 2**20 / 4096 / 10


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


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
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


@pytest.mark.parametrize(
    ("there", "whole"),
    [
        ([], False),
        (["config.json"], False),
        (["config.json", "tokenizer.json", "model.safetensors.index.json"], False),
        (["config.json", "model.safetensors.index.json", "model-1.safetensors"], False),
        (["config.json", "model-1.safetensors", "model-2.safetensors"], False),
        (["model.safetensors"], False),
        (["config.json", "model.safetensors"], True),
        (["config.json", "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"], True),
    ],
)
def test_a_download_that_broke_off_is_no_cached_student(monkeypatch, tmp_path, there, whole):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    top, commit = tmp_path / "models--me--mine", "c" * 40
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    index = json.dumps({"weight_map": shards})
    made = {f"refs/{name}": commit for name in ("main", "v1")} | {f"snapshots/{commit}/{name}": index for name in there}
    for path, text in made.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    for revision in (None, "v1", commit):
        assert backbone.is_cached(StudentConfig(source="hub", id="me/mine", revision=revision)) is whole
    assert not backbone.is_cached(StudentConfig(source="hub", id="me/mine", revision="v2"))


def test_four_bit_without_bitsandbytes_says_how_to_get_it(tiny_profile, tiny_llama, monkeypatch):
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"routedk-lite\[gpu\]"):
        backbone.load_student(local(tiny_profile, tiny_llama, load_in_4bit=True), device="cpu")


# --- students of other kinds ----------------------------------------------------------------------------------------


@pytest.fixture
def copied(tiny_llama, tmp_path):
    """The random Llama in a folder that may be changed."""
    return shutil.copytree(tiny_llama, tmp_path / "student")


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_text_model_of_a_multimodal_one_alone_gets_experts(tiny_profile, tiny_llama, sessions, tmp_path):
    import transformers

    text = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": 0}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "student")
    transformers.AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "student")
    student = backbone.load_student(local(tiny_profile, tmp_path / "student"), device="cpu")
    assert backbone.text_model_name(student.model) == "model.language_model"
    result = train_expert(student, sessions, tmp_path / "expert", config=tiny_profile.train, progress=False)
    adapter = read_adapter(result.folder)
    assert adapter.modules and all(name.startswith("model.language_model.layers.") for name in adapter.modules)
    assert RoutedModel(student.model, [adapter], Dynamic()).layer_numbers == (0, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda at: edit(at / "config.json", model_type="newer"),
            "what kind of model .*newer transformers",
        ),
        (
            lambda at: edit(at / "config.json", model_type="t5"),
            "a t5, an encoder with a decoder: choose",
        ),
        (lambda at: edit(at / "config.json", model_type="vit"), "a vit, which writes no text"),
        (lambda at: (at / "adapter_config.json").write_text("{}"), "is an adapter, not a model"),
        (
            lambda at: edit(at / "config.json", model_type="own", auto_map={"AutoConfig": "x.Y"}),
            "brings code of its own, which is not run",
        ),
    ],
)
def test_what_is_no_student_is_named(tiny_profile, copied, change, words):
    change(copied)
    with pytest.raises(ValueError, match=words):
        backbone.load_student(local(tiny_profile, copied), device="cpu")


def test_a_padding_token_beyond_the_embedding_is_named(tiny_profile, copied):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(copied)
    with pytest.raises(ValueError, match=r"pad token '\[PAD\]' has number 259, .* only 259 rows.*resize_token"):
        backbone.load_student(local(tiny_profile, copied), device="cpu")


def test_a_tokenizer_that_cannot_end_is_named(tiny_profile, copied):
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    for name in ("pad_token", "eos_token"):
        settings.pop(name, None)
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    (copied / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        backbone.load_student(local(tiny_profile, copied), device="cpu")
