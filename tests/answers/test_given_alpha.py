"""A given α holds at every step of an answer, of whatever fusion: sampled, in letters, and greedy."""

from __future__ import annotations

import numpy as np
import pytest
from adapted import learned, make_adapter

from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.config import DecodeConfig, PromptConfig
from routedk_lite.fusion.arrow import Arrow
from routedk_lite.fusion.flow import LoraFlow
from routedk_lite.fusion.fusion import Average, Dynamic, Static
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora

FUSIONS = (Average(), Static(), Dynamic(), Dynamic(pool="token"), LoraFlow(), XLora(), Arrow(top_k=1))
SETTINGS = DecodeConfig(batch_size=4, max_new_tokens=6)


@pytest.mark.parametrize("fmt", ["compact", "letters"])
@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: f"{type(fusion).__name__}-{fusion.by_token}")
def test_a_given_alpha_holds_for_the_whole_answer(tiny_student, tiny_llama, sessions, tmp_path, fusion, fmt):
    """Rows are split where samples part, so α must go with them; each session alone needs no row but its own."""
    targets = ["q_proj", "v_proj", "down_proj"]
    folders = [make_adapter(tiny_llama, tmp_path / str(k), r=2, targets=targets, seed=k) for k in range(2)]
    routed = learned(RoutedModel(tiny_student.model, folders, fusion), seed=4, size=2.0)
    alpha = {s.id: np.tile(np.eye(2, dtype=np.float32)[s.id % 2], (2, 1)) for s in sessions}
    asked = {"prompt": PromptConfig(fmt=fmt), "decode": SETTINGS, "progress": False}

    def drawn(some, given):
        draws = {"temperature": 1.5, "seed": 3}
        return {s.id: s for s in sample_bundles(routed, tiny_student.tokenizer, some, 5, alpha=given, **draws, **asked)}

    try:
        found = drawn(sessions, alpha)
        greedy = {a.id: a.text for a in greedy_answers(routed, tiny_student.tokenizer, sessions, alpha=alpha, **asked)}
        assert {i: one.greedy.text for i, one in found.items()} == greedy
        for session in sessions[:6]:
            with routed.override(alpha[session.id][0]):
                (alone,) = drawn([session], None).values()
            assert [a.text for a in alone.drawn] == [a.text for a in found[session.id].drawn]
            assert [a.log_prob for a in alone.drawn] == pytest.approx(
                [a.log_prob for a in found[session.id].drawn], abs=1e-4
            )
        assert any(len(set(one.drawn)) > 1 for one in found.values())
    finally:
        routed.unload()
