"""Rough time, memory and disk of a stage, before it is run: arithmetic on the profile, not a measurement.

A token that is read costs a multiplication and an addition per weight of the layers (embeddings are looked up). One
that is trained on costs as much again in each layer that the backward pass goes through, that is from the lowest
adapter on; the adapters themselves are small. A generated token must read all weights from memory. And a GPU can only
compute what has been started: where texts are few and short, it waits for the processor.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ..answers.decoding import ROWS
from ..data.domains import domain_is_cached
from ..data.formats import get_format
from ..data.prompts import shorten
from ..student.memory import architecture, memory_plan

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from ..config import OptimizerConfig, Profile
    from ..data.sessions import Session
    from .pipeline import Stage
    from .study import Study

CHARACTERS_PER_TOKEN = 3.0
"""Of product titles, which are full of model numbers."""
CHARACTERS_PER_LONG_TOKEN = 2.6
"""Of the longest sessions' titles, which have even more of them."""
CHARACTERS_PER_WORD_TOKEN = 4.5
"""Of plain English."""
INSTRUCTION_TOKENS = {"compact": 70, "letters": 40, "aicl": 85}
"""What a chat student is told, with the marks of its turns."""
LONGEST_TOKENS = 1100
"""More than any training text of the public domains has, with whole titles, the rules it cites and its reasoning."""
ANSWER_TOKENS = 10
"""Of an answer, beside what is given of it."""
UTILISATION = {"cpu": 0.5, "cuda": 0.3}
"""Share of the matrix-product speed that a training step reaches; the rest is everything else."""
STARTING = {"train": 7e-3, "answer": 3e-3}
"""Seconds in which the processor starts the kernels of one layer with experts, per pass of a batch, however small it
is; rounded from what `benchmarks/gpu.py` measured beside an H200 with both profiles for GPUs."""
SAMPLED_ANSWERS = 2.5
"""What a draw of 32 costs, in greedy answers: prompts are read once, and samples that agree are one row."""
EXPLORED_ANSWERS = 15
"""The router explorer's grid, in evaluations of the whole test split: some 80 settings, on a sixth of the sessions."""
T4 = (8.1e12, 3.0e11)
"""float32 operations and bytes a second of a T4 (NVIDIA's data sheet), assumed where there is no GPU to measure."""


class Machine(NamedTuple):
    """What the figures rest on."""

    speed: float
    """Operations a second."""
    bandwidth: float
    """Bytes a second."""
    utilisation: float
    basis: str
    """Where they come from."""
    compute_bytes: float
    """Per computed number."""
    is_gpu: bool


class Estimate(NamedTuple):
    """What a stage may take."""

    seconds: float
    memory_gb: float
    disk_mb: float
    basis: str
    """What the figures rest on."""


def estimate(study: Study, stage: Stage) -> Estimate:
    """Estimate one stage of a study; the sessions are only read if they are cached."""
    profile = study.profile
    weight_bytes = 0.6 if profile.student.load_in_4bit else 4.0
    if stage.kind == "floor":
        return Estimate(0.5, 0.2, 0.2, "")
    if stage.kind == "fetch":
        if stage.name == "data":
            return Estimate(5, 0.1, 3, "")
        from_gguf = bool(profile.student.file)  # about five bits a weight, unpacked to 16 once
        download = profile.parameters * (0.8 if from_gguf else 2)
        memory = 0.5 + from_gguf * 6 * profile.parameters / 1e9
        return Estimate(download / 10e6 + from_gguf * 40, memory, profile.parameters * 2 / 1e6, "")
    speed, bandwidth, utilisation, basis, compute_bytes, is_gpu = _machine(profile)
    layers = _layers(profile) if is_gpu else 0
    if not profile.student.load_in_4bit:
        weight_bytes = compute_bytes
    weights = profile.parameters * weight_bytes
    _, n_validation, n_test, prompt = _sizes(study)
    asked = prompt + stage.demonstrations * (prompt + ANSWER_TOKENS)
    if stage.kind == "answer" and stage.knowledge == "rules":  # every question shows all of them
        rules = study.knowledge.rules.values()
        asked += sum(len(rule.text) for rule in rules) / CHARACTERS_PER_WORD_TOKEN
    questions = n_test  # in words; pairs are read of the sessions on which the decoder is fitted, too
    if profile.answers == "pairs" and stage.pairs:
        questions += profile.pairs.orders * (n_validation + n_test)
    forward, trained = operations(profile)
    read = questions * asked * forward / (speed * utilisation)
    steps = -(-n_test // profile.decode.batch_size) * min(profile.decode.max_new_tokens, 2 * ANSWER_TOKENS)
    token = weights / bandwidth + profile.decode.batch_size * 2 * profile.parameters / speed
    answer = read + steps * max(token, layers * STARTING["answer"])
    if profile.answers == "consensus":
        answer *= SAMPLED_ANSWERS
    memory = (1.0 if basis else 0) + weights / 1e9
    if stage.kind == "answer":
        return Estimate(answer, memory + 0.3, 0.1, basis)
    if stage.kind == "explore":
        return Estimate(answer * EXPLORED_ANSWERS, memory + 0.3, 0.2, basis)
    if stage.kind == "sample":  # while samples agree they are one row; in the end every one may stand alone
        memory += 1.0 + (2 * _cache_gb(profile, prompt, compute_bytes) if is_gpu else 0)
        return Estimate(SAMPLED_ANSWERS * answer, memory, 1.0, basis)
    passes = 3 if profile.train.gradient_checkpointing else 2  # forward and backward; checkpointing, forward again
    computing = training_tokens(study, stage) * trained / (speed * utilisation)
    train = max(computing, micro_batches(study, stage) * passes * layers * STARTING["train"])
    # All linear layers of a Llama get r·(inputs + outputs) weights: about r/200 of the model at these widths.
    adapter = profile.parameters * profile.train.r / 200 / (profile.parameters / 1e8) ** 0.35
    try:
        memory = memory_plan(profile, _longest(study, stage)).total
    except ValueError:  # a student of unknown architecture that is not here yet
        live = profile.train.micro_batch_size * prompt * 20 * profile.parameters**0.5
        live *= 0.15 if profile.train.gradient_checkpointing else 1
        memory += (adapter * 16 + live * compute_bytes) / 1e9
    return Estimate(train + answer, memory, adapter * 2.5 * compute_bytes / 1e6, basis)


def operations(profile: Profile) -> tuple[float, float]:
    """Operations for a token that is read, and for one that is trained on, both ways through the layers."""
    weights, share, checkpointing = profile.parameters, 1.0, profile.train.gradient_checkpointing
    if student := _decoder(profile):
        words = student.vocab_size * student.hidden_size * (1 if student.tie_word_embeddings else 2)
        weights -= words if weights > words else 0  # a profile need not know the size of its student
        # With checkpointing the backward pass goes through all layers, down to what enters the first.
        share = 1.0 if checkpointing else 1 - (profile.train.first_layer - 1) / student.num_hidden_layers
    forward = 2 * weights
    return forward, forward * (1 + checkpointing + share)


def training_tokens(study: Study, stage: Stage) -> float:
    """Tokens that a training reads in all its epochs: prompts, what they are told, and answers."""
    n_train, _, _, prompt = _sizes(study)
    epochs = _training(study, stage).epochs
    return n_train * stage.sessions * (prompt + _knowledge_tokens(study, stage) + ANSWER_TOKENS) * epochs


def micro_batches(study: Study, stage: Stage) -> float:
    """Micro-batches that a training reads in all its epochs."""
    training = _training(study, stage)
    return _sizes(study)[0] * stage.sessions * training.epochs / training.micro_batch_size


def _training(study: Study, stage: Stage) -> OptimizerConfig:
    return study.profile.router if stage.kind == "router" else study.profile.train


def _cache_gb(profile: Profile, prompt: float, compute_bytes: float) -> float:
    """Keys and values of a batch of samples; while rows part, there are two of them."""
    student = _decoder(profile)
    if student is None:
        return 0.0
    width = student.hidden_size * student.num_key_value_heads / student.num_attention_heads
    return ROWS["cuda"] * prompt * student.num_hidden_layers * 2 * width * compute_bytes / 1e9


def _layers(profile: Profile) -> int:
    """Layers of the student; as many as those of one to eight billion weights have, where nobody knows."""
    student = _decoder(profile)
    return student.num_hidden_layers if student else 32


def _decoder(profile: Profile) -> PretrainedConfig | None:
    """The student's architecture; `None` where it is unknown."""
    try:
        return architecture(profile.student)
    except ValueError:
        return None


def _sizes(study: Study) -> tuple[int, int, int, float]:
    """Training, validation and test sessions, mean tokens of a prompt with what is given of its answer."""
    if not domain_is_cached(study.source):
        return 650, 90, 180, 230
    train, validation, test = map(study.split, ("train", "validation", "test"))
    characters = sum(_characters(study, session) for session in train) / len(train)
    return len(train), len(validation), len(test), _instruction(study) + characters / CHARACTERS_PER_TOKEN


def _characters(study: Study, session: Session) -> int:
    """Characters of a session's products, and of all that is given of an answer."""
    prompt = study.profile.prompt
    titles, slots = shorten(session.titles, prompt.max_title_words), get_format(prompt.fmt).slots
    given = sum(map(len, slots(titles).given)) if slots else 0
    return sum(len(title) + 4 for title in titles) + given


def _instruction(study: Study) -> int:
    return 0 if study.profile.student.source == "package" else INSTRUCTION_TOKENS[study.profile.prompt.fmt]


def _knowledge_tokens(study: Study, stage: Stage) -> float:
    """Mean length of what a training session is told."""
    if stage.knowledge == "none" or not domain_is_cached(study.source):
        return 0.0
    knowledge = study.knowledge
    texts = [knowledge.text(session, stage.knowledge) for session in study.split("train")]
    return sum(map(len, texts)) / len(texts) / CHARACTERS_PER_WORD_TOKEN


def _longest(study: Study, stage: Stage) -> int:
    """Tokens of the longest training text; the longest of all domains where the sessions are not at hand."""
    if not domain_is_cached(study.source):
        return LONGEST_TOKENS
    told = stage.knowledge != "none"
    lengths = (
        _characters(study, session) / CHARACTERS_PER_LONG_TOKEN
        + (len(study.knowledge.text(session, stage.knowledge)) / CHARACTERS_PER_WORD_TOKEN if told else 0)
        for session in study.split("train")
    )
    longest = _instruction(study) + ANSWER_TOKENS + max(lengths)
    return -(-round(longest) // 50) * 50  # a plan is counted anew for every length


def _machine(profile: Profile) -> Machine:
    """The GPU or the processor here; a T4 where a student needs a GPU and there is none."""
    import torch

    from ..student.backbone import choose_dtype

    gpu = torch.cuda.is_available()
    if not gpu and profile.student.load_in_4bit:
        basis = "No GPU here: computed for a T4 from its data sheet; not run."
        return Machine(*T4, UTILISATION["cuda"], basis, 4, is_gpu=True)
    device = "cuda" if gpu else "cpu"
    dtype = choose_dtype(profile.student.dtype, device)
    speed, bandwidth = _measure(device, dtype)
    name = torch.cuda.get_device_name() if gpu else "this CPU"
    basis = f"Computed from {name}: {speed / 1e9:.0f} GFLOP/s and {bandwidth / 1e9:.0f} GB/s measured just now."
    return Machine(speed, bandwidth, UTILISATION[device], basis, dtype.itemsize, is_gpu=gpu)


@cache
def _measure(device: str, dtype: torch.dtype, seconds: float = 0.3) -> tuple[float, float]:
    """Speed of a matrix product as in a small model's MLP, and of reading memory."""
    import torch

    on_gpu = device == "cuda"
    size, at_once = (2**30, 50) if on_gpu else (2**26, 1)  # one after another, a GPU would wait to be asked
    a, b = torch.randn(800, 576, device=device).to(dtype), torch.randn(576, 1536, device=device).to(dtype)
    block = torch.zeros(size, dtype=torch.uint8, device=device).view(torch.int64)
    rates = []
    for work, amount in ((lambda: a @ b, 2 * 800 * 576 * 1536), (lambda: block.sum(), size)):
        work()
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            for _ in range(at_once):
                work()
            if on_gpu:
                torch.cuda.synchronize()
            count += at_once
        rates.append(count * amount / spent)
    return rates[0], rates[1]
