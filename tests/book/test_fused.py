"""The table of all fusions in chapter 06."""

from __future__ import annotations

import numpy as np
import pytest
from adapted import learned

from routedk_lite.book.fused import depends_on, fused_row, learn_fusion
from routedk_lite.config import PromptConfig, RouterConfig
from routedk_lite.fusion.arrow import Arrow
from routedk_lite.fusion.fusion import Average, Dynamic, Static, Ties
from routedk_lite.fusion.lorahub import LoraHub
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.xlora import XLora


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        (Average(), "nothing"),
        (Static(scope="module"), "nothing, per module"),
        (Dynamic(), "session"),
        (XLora(), "token"),
        (Arrow(), "token, per module"),
        (Ties(), "no α: one update"),
    ],
    ids=str,
)
def test_what_alpha_depends_on_is_said(load, alike, fusion, words):
    assert depends_on(RoutedModel(load(), alike, fusion)) == words


def test_a_row_counts_what_is_learned(load, alike):
    f1 = np.array([1.0, 0.0, 0.5])
    model = learned(RoutedModel(load(), alike, Dynamic()))
    row = fused_row("dynamic", model, f1, np.eye(3)[:, None].repeat(2, 1), 0.25)
    assert row["parameters learned"] == 2 * 3 * (32 + 1) and row["trained?"] == "yes"
    assert row["effective support"] == pytest.approx(1) and row["seconds a step"] == 0.25
    assert row["source"] == "arXiv 2508.17250" and row["strict F1 [95 %]"].startswith("0.500 [")
    hub = fused_row("lorahub", RoutedModel(load(), alike, LoraHub()), f1, np.ones((3, 2, 3)), None)
    assert (hub["trained?"], hub["parameters learned"]) == ("searched", 3)
    ties = fused_row("ties", RoutedModel(load(), alike, Ties()), f1, None, None)
    assert (ties["trained?"], ties["parameters learned"], ties["effective support"]) == ("no", 0, None)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_learns_as_it_needs_and_what_is_finished_is_not_done_again(tiny_student, alike, sessions, tmp_path):
    config = RouterConfig(epochs=1, micro_batch_size=4, max_length=256)

    def learn(fusion, name):
        model = RoutedModel(tiny_student.model, alike, fusion)
        seconds = learn_fusion(model, tiny_student, sessions[:8], tmp_path / name, config=config, prompt=PromptConfig())
        model.unload()
        return seconds, model

    assert learn(Arrow(), "arrow")[0] is None and not (tmp_path / "arrow").exists()
    seconds, model = learn(LoraHub(), "lorahub")
    assert seconds > 0 and model.weigher.w.any()
    first = learn(Static(scope="module"), "cat")[0]
    assert first > 0 and learn(Static(scope="module"), "cat")[0] == first
