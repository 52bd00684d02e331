"""The memory plan: activations are counted as they are, weights as they are loaded, and the T4 profile fits a T4."""

from __future__ import annotations

import ctypes
import importlib.util
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
import torch
from conftest import require
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from routedk_lite.config import PROFILES, KnowledgeConfig, StudentConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.formats import FORMATS
from routedk_lite.data.sessions import PUBLIC_DOMAINS
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.report import doctor
from routedk_lite.student import allocator, memory
from routedk_lite.student.backbone import load_student, student_files
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import lora_config
from routedk_lite.student.memory import KNOWN, PREDICTED, architecture, memory_plan, saved_bytes
from routedk_lite.student.training import answer_loss
from routedk_lite.study.estimate import (
    INSTRUCTION_TOKENS,
    LONGEST_TOKENS,
    STARTING,
    T4,
    UTILISATION,
    _longest,
    estimate,
    operations,
    training_tokens,
)
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.teacher.knowledge import load_knowledge

T4_GB = 12
LEARNED = 24
"""Positions at which these tests compute logits."""


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_counting_without_content_finds_what_a_real_run_keeps(tiny_profile, four_bit, dropout):
    config, train = architecture(tiny_profile.student), replace(tiny_profile.train, lora_dropout=dropout)
    shape = {"layers": 2, "batch": 3, "tokens": 40, "predicted": LEARNED}
    counted, real = (saved_bytes(config, train, four_bit, real=real, **shape) for real in (False, True))
    assert counted == real > 0


def test_activations_grow_with_texts_and_batches_and_shrink_with_checkpointing(tiny_profile):
    def kept(tokens=100, **changes):
        return memory_plan(replace(tiny_profile, train=replace(tiny_profile.train, **changes)), tokens).activations

    assert kept(200) > 2 * kept(100), "attention grows with the square"
    assert kept(micro_batch_size=8) == pytest.approx(2 * kept(micro_batch_size=4), rel=0.01)
    assert kept(gradient_checkpointing=True) < kept()
    assert kept(first_layer=2) < kept()


def test_weights_are_those_of_the_loaded_student():
    plan = memory_plan(PROFILES["toy"], 200)
    model = load_student("toy", device="cpu").model
    assert plan.weights == pytest.approx(sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9)
    assert plan.optimizer == pytest.approx(plan.adapters), "float32: weight and gradient, and two moments"


@contextmanager
def watched(model):
    """Within the block, note what the backward pass of a model keeps, itself not counted."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes(), storage
        return tensor

    found = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        yield found
    found.append(sum(size for size, _ in kept.values()))


def forward(model, *, batch, tokens, **more):
    """One forward pass with the loss of a training step."""
    ids = torch.ones((batch, tokens), dtype=torch.long)
    keep = LEARNED + 1
    options = {"logits_to_keep": torch.arange(tokens - keep, tokens), "use_cache": False}
    out = model(ids, attention_mask=torch.ones_like(ids), position_ids=ids.cumsum(1) - 1, **options, **more)
    answer_loss(out, ids[:, -keep:])


@pytest.fixture
def wider(tmp_path, tiny_llama):
    """A profile whose student is wide enough for blocks of 64 weights."""
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=300, num_hidden_layers=2, **sizes)).save_pretrained(tmp_path / "wider")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "wider")
    toy = PROFILES["toy"]
    student = StudentConfig(source="hub", id=str(tmp_path / "wider"), dtype="bfloat16")
    return replace(toy, student=student, train=replace(toy.train, lora_dropout=0.05))


def test_four_bit_weights_take_what_bitsandbytes_makes_of_them(wider):
    require(importlib.util.find_spec("bitsandbytes"), "needs bitsandbytes")
    profile = replace(wider, student=replace(wider.student, load_in_4bit=True))
    student = load_student(profile, device="cpu")
    model = prepare_model_for_kbit_training(student.model, use_gradient_checkpointing=False)
    weights = 0
    for p in model.parameters():
        weights += p.numel() * p.element_size()
        if (state := getattr(p, "quant_state", None)) is not None:
            weights += state.absmax.nbytes + state.state2.absmax.nbytes
    plan = memory_plan(profile, 200)
    assert plan.weights == pytest.approx(weights / 1e9, rel=1e-3)

    expert = get_peft_model(model, lora_config(profile.train, 2)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16), watched(expert) as found:
        forward(expert, batch=3, tokens=60)
    config = architecture(profile.student)
    assert found == [saved_bytes(config, profile.train, True, layers=2, batch=3, tokens=60, predicted=LEARNED)]


def test_a_router_keeps_less_than_an_expert(wider, tmp_path):
    folders, student = [], load_student(replace(wider, student=replace(wider.student, dtype="float32")), device="cpu")
    for name in ("a", "b", "c"):
        expert = get_peft_model(student.model, lora_config(wider.train, 2)).train()
        with watched(expert) as one:
            forward(expert, batch=3, tokens=60)
        expert.save_pretrained(tmp_path / name)
        expert.unload()
        folders.append(tmp_path / name)
    routed = RoutedModel(student.model, folders, Dynamic(), student=student.info.id).train()
    with watched(routed) as several:
        forward(routed, batch=3, tokens=60, prompt_mask=torch.ones((3, 60)))
    assert several[0] < one[0]


def test_the_t4_profile_fits_a_t4_and_would_not_without_checkpointing():
    profile = PROFILES["t4"]
    plan = memory_plan(profile, LONGEST_TOKENS)
    assert plan.total == pytest.approx(sum(plan)) and min(plan) > 0
    assert plan.total <= doctor.USABLE * profile.memory_gb and profile.memory_gb == T4_GB
    bare = replace(profile, train=replace(profile.train, gradient_checkpointing=False))
    assert memory_plan(bare, LONGEST_TOKENS).total > T4_GB
    assert profile.router.gradient_checkpointing and profile.router.micro_batch_size == profile.train.micro_batch_size


def test_the_paper_profile_fits_a_gpu_of_24_gb():
    profile = PROFILES["paper"]
    assert memory_plan(profile, LONGEST_TOKENS).total <= doctor.USABLE * profile.memory_gb and profile.memory_gb == 24


@pytest.mark.parametrize("name", ["smol", "qwen", "t4", "paper"])
def test_no_training_text_is_longer_than_the_plan_assumes(name, mirror, smol_student, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(student_files(smol_student)[0])
    profile, told = PROFILES[name], KnowledgeConfig(kind="both")
    assert PREDICTED.keys() == INSTRUCTION_TOKENS.keys() == FORMATS.keys()
    for domain in PUBLIC_DOMAINS:
        about = {"max_length": LONGEST_TOKENS, "knowledge": load_knowledge(domain), "told": told}
        texts = [encode_example(s, tokenizer, profile.prompt, **about) for s in load_domain(domain, "train")]
        longest = max(len(text.input_ids) for text in texts)
        learned = max(len(text.learned or text.input_ids[text.n_prompt :]) for text in texts)
        assert 0.6 * PREDICTED[profile.prompt.fmt] <= learned <= PREDICTED[profile.prompt.fmt]
        study = Pipeline(name, domain, results=tmp_path)
        both = next(stage for stage in study.stages if stage.name == "both-seed0")
        assert 0.8 < _longest(study, both) / longest < 1.2, "the estimate from characters"
        mean = training_tokens(study, both) / sum(len(text.input_ids) for text in texts) / study.profile.train.epochs
        assert 0.85 < mean < 1.15, "the time goes by the mean"


def test_a_training_on_a_cpu_is_planned_with_what_its_longest_text_is_told(mirror, monkeypatch, tmp_path):
    """Training on rules in float32 took 11.6 GB, and its plan had said 4.7."""
    monkeypatch.setattr(memory, "choose_dtype", lambda *_: torch.float32)
    study = Pipeline("qwen", "electronic", results=tmp_path)
    base, rules, both = (
        estimate(study, next(s for s in study.stages if s.name == f"{name}-seed0")).memory_gb
        for name in ("base", "rules", "both")
    )
    assert base + 2 < rules < both < doctor.USABLE * PROFILES["qwen"].memory_gb
    assert 11.6 < rules < 13.5


def test_a_training_gives_back_what_answering_keeps():
    def kept_of_200_mb():
        ctypes.CDLL(None).malloc_trim(0)
        before = psutil.Process().memory_info().rss
        torch.ones(50_000_000)
        return psutil.Process().memory_info().rss - before > 150e6

    allocator.keep_freed_memory()
    require(allocator._is_kept, "this C library has no options of its memory")
    assert kept_of_200_mb()
    with pytest.raises(KeyError), allocator.freed_memory_given_back():
        assert not kept_of_200_mb()
        raise KeyError
    assert kept_of_200_mb()


def test_published_architectures_have_the_sizes_of_the_profiles():
    for profile in PROFILES.values():
        if profile.student.id in KNOWN:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(architecture(profile.student))
            assert model.num_parameters() == pytest.approx(profile.parameters, rel=0.01)


def test_the_published_architecture_of_the_smol_student_is_the_one_in_the_cache(smol_student):
    own = AutoConfig.from_pretrained(student_files(smol_student)[0]).to_dict()
    assert {name: own[name] for name in KNOWN[smol_student.id]} == KNOWN[smol_student.id]


def test_plans_that_make_no_sense_are_refused(tiny_profile):
    with pytest.raises(ValueError, match="tokens = 0: must be 1 or more"):
        memory_plan(tiny_profile, 0)
    stranger = replace(tiny_profile, student=StudentConfig(source="hub", id="someone/else"))
    with pytest.raises(ValueError, match="student = 'someone/else': of unknown size here; fetch it first"):
        memory_plan(stranger, 100)


def test_a_student_at_hand_is_read_from_its_own_files(tiny_profile):
    assert architecture(tiny_profile.student).hidden_size == 32
    assert memory.architecture(PROFILES["t4"].student).model_type == "qwen2"


def test_training_takes_two_operations_a_weight_token_and_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # then a T4's data sheet counts
    profile, speed = PROFILES["t4"], T4[0] * UTILISATION["cuda"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture(profile.student))
    layers = sum(p.numel() for p in model.model.layers.parameters())
    for checkpointing, lowest, passes in ((False, 1, 2), (True, 1, 3), (False, 15, 1.5), (True, 15, 3)):
        more = {"gradient_checkpointing": checkpointing, "first_layer": lowest, "micro_batch_size": 16}
        study = Pipeline(replace(profile, train=replace(profile.train, **more)), "food", results=tmp_path)
        stages = {stage.name: stage for stage in study.stages}
        answers = estimate(study, stages["zero-shot-pairs"]).seconds
        expert = estimate(study, stages["base-seed0"])
        by_hand = 2 * passes * layers * training_tokens(study, stages["base-seed0"]) / speed
        assert expert.seconds == pytest.approx(by_hand + answers, rel=0.01)
        assert "computed for a T4" in expert.basis and "not run" in expert.basis


def test_a_profile_that_does_not_know_the_size_of_its_student_plans_nothing_below_zero():
    profile = PROFILES["toy"]
    words = architecture(profile.student).vocab_size * architecture(profile.student).hidden_size
    for parameters in (0.0, words / 2, 3.0 * words):
        read, trained = operations(replace(profile, parameters=parameters))
        assert 0 <= read <= trained and (read > 0) == (parameters > 0)


def test_small_batches_wait_for_the_processor_on_a_gpu_and_large_ones_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("routedk_lite.study.estimate.T4", (65e12, 3e11))  # a card that is fast enough to wait
    profile = PROFILES["t4"]

    def training(size: int) -> float:
        train = replace(profile.train, micro_batch_size=size, accumulation_steps=16 // size)
        study = Pipeline(replace(profile, train=train), "food", results=tmp_path)
        stages = {stage.name: stage for stage in study.stages}
        return estimate(study, stages["base-seed0"]).seconds - estimate(study, stages["zero-shot-pairs"]).seconds

    texts = 650 * profile.train.epochs
    assert training(1) == pytest.approx(texts * 28 * 3 * STARTING["train"]), "28 layers, 3 passes with checkpointing"
    assert training(1) == pytest.approx(2 * training(2))
    assert training(8) == training(16), "what is left is arithmetic"


def test_answers_take_longer_where_pairs_are_read_and_with_solved_sessions_in_the_prompt(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = Pipeline("t4", "food", results=tmp_path)
    asked = ("zero-shot", "zero-shot-pairs", "few-shot", "few-shot-rules")
    words, pairs, solved, ruled = (estimate(study, s).seconds for s in study.stages if s.name in asked)
    speed = T4[0] * UTILISATION["cuda"]
    question = 230 * operations(study.profile)[0] / speed
    n_pairs = study.profile.pairs.orders * (90 + 180)
    assert pairs - words == pytest.approx(n_pairs * question)
    assert words < pairs < solved < ruled
