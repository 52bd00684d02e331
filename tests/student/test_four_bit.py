"""The whole way of the t4 profile in 4 bits, on a CPU and with the smol student in place of the larger one."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import require

from routedk_lite.answers.answering import answer_sessions, profile_reader
from routedk_lite.answers.decoding import sample_bundles
from routedk_lite.config import KnowledgeConfig, get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha, train_fusion
from routedk_lite.student.adapters import read_adapter
from routedk_lite.student.backbone import load_student
from routedk_lite.student.experts import train_expert
from routedk_lite.teacher.knowledge import load_knowledge


@pytest.fixture(scope="module")
def profile(smol_student):
    """t4 with the smol student: 4-bit weights, checkpointing, pairs; one epoch of few sessions."""
    t4 = get_profile("t4")
    require(importlib.util.find_spec("bitsandbytes"), "4-bit weights need bitsandbytes")
    short = {"epochs": 1, "micro_batch_size": 1, "accumulation_steps": 1}
    return replace(
        t4,
        student=replace(smol_student, load_in_4bit=True),
        train=replace(t4.train, **short),
        router=replace(t4.router, **short),
        decode=replace(t4.decode, max_new_tokens=8),
    )


def test_the_t4_profile_trains_routes_and_answers_in_four_bits(profile, tmp_path):
    train, validation = load_domain("toyshop", "train").sessions, load_domain("toyshop", "validation").sessions[:8]
    knowledge = load_knowledge("toyshop")
    few = [session for session in train if knowledge.text(session, "rules")][:2]
    assert profile.train.gradient_checkpointing and profile.router.gradient_checkpointing

    # One load evaluates and trains: the reader of pairs is fitted on it before, and validated after.
    student = load_student(profile, device="cpu")
    assert student.info.quantization == "nf4"
    options = {"prompt": profile.prompt, "reader": profile_reader(profile, student, train), "progress": False}
    before = {name: weight.dtype for name, weight in student.model.named_parameters()}
    folders = []
    for kind in ("none", "rules"):
        told = KnowledgeConfig(kind=kind, place=profile.place)
        settings = {"config": profile.train, "knowledge": knowledge, "told": told, "validation": validation[:1]}
        trained = train_expert(student, few, tmp_path / kind, **settings, **options)
        assert np.isfinite([entry["loss"] for entry in trained.history if "loss" in entry]).all()
        folders.append(trained.folder)
    after = {name: weight.dtype for name, weight in student.model.named_parameters()}
    assert after == before, "a process that finds its expert trained never widens a weight"
    adapters = [read_adapter(folder) for folder in folders]
    assert all(update.b.abs().max() > 0 for a in adapters for update in a.modules.values()), "every module learned"

    model = RoutedModel(student.model, adapters, Dynamic(), student=student.info.id)
    train_fusion(model, student, few, tmp_path / "fusion", config=profile.router, validation=validation[:1], **options)
    assert all(parameter.abs().max() > 0 for parameter in model.weigher.parameters())
    alpha = trace_alpha(model, student.tokenizer, validation, prompt=profile.prompt, progress=False)
    assert alpha.shape == (8, len(model.layer_numbers), 2) and np.allclose(alpha.sum(-1), 1, atol=1e-5)

    reading = {"profile": profile, "student": student, "reader": options["reader"], "progress": False}
    answers = answer_sessions(model, validation[:2], train=train[:20], validation=validation, **reading)
    assert answers.keys() == {session.id for session in validation[:2]} and any(answers.values())
    settings = {"prompt": profile.prompt, "decode": profile.decode, "progress": False}
    (samples,) = sample_bundles(model, student.tokenizer, validation[:1], 2, **settings)
    assert len(samples.drawn) == 2
    assert all(torch.isfinite(parameter).all() for parameter in model.weigher.parameters())
