"""Families of recorded comparisons: the numbers are those of the records, corrected as one, and drawn as they are."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from drawings import texts

from routedk_lite.book.compared import families, families_figure, in_words, recorded_by
from routedk_lite.statistics import holm, paired_difference, smallest_detectable_difference

matplotlib.use("agg")

PAIRS = {"floor": ("base-seed*", "floor-all_pairs"), "none": ("no-run", "base-seed*"),
         "teacher": ("teacher", "base-seed*")}  # fmt: skip


def values(estimate: float, p: float = 0.01, seeds: int = 1) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01, "p": p, "least": 0.02,
            "seeds": seeds}  # fmt: skip


def test_a_family_is_paired_by_session_and_corrected_within_its_domain(mirror, monkeypatch):
    monkeypatch.setenv("ROUTEDK_MIRROR", str(mirror))
    from routedk_lite.data.domains import load_domain
    from routedk_lite.data.metrics import per_session
    from routedk_lite.files import own_file
    from routedk_lite.study.records import load_all, load_predictions

    every = load_all(own_file("results"))
    found = families(every, "smol", PAIRS, domains=("electronic", "food"))
    assert list(found) == ["electronic", "food"] and list(found["food"]) == ["floor", "teacher"]
    records = {r.run: r for r in every if r.profile == "smol" and r.domain == "electronic"}
    test, f1 = load_domain("electronic", "test"), {}
    for run in ("base-seed0", "floor-all_pairs", "teacher"):
        answers = {k: a.bundles for k, a in load_predictions(records[run]).items()}
        f1[run] = per_session(answers, test, "strict").f1
    pairs = {"floor": ("base-seed0", "floor-all_pairs"), "teacher": ("teacher", "base-seed0")}
    chance = {name: np.random.default_rng(0) for name in pairs}
    alone = {name: paired_difference(f1[a], f1[b], generator=chance[name]) for name, (a, b) in pairs.items()}
    corrected = holm([d.p_value for d in alone.values()])
    for (name, d), p in zip(alone.items(), corrected, strict=True):
        values = found["electronic"][name]
        assert [values[k] for k in ("estimate", "low", "high", "p")] == pytest.approx([*d[:3], p])
        a, b = pairs[name]
        assert values["least"] == pytest.approx(smallest_detectable_difference(f1[a] - f1[b]))


def test_nothing_recorded_is_no_family(tmp_path):
    assert families([], "smol", PAIRS, domains=("electronic",)) == {}
    assert in_words({}) == "not recorded"


def test_a_source_names_the_student_its_size_and_its_seeds():
    found = {"a": {"food": {"profile": "qwen", "seeds": 3}, "clothing": {"profile": "qwen", "seeds": 3}}}
    assert recorded_by(found) == "Qwen2.5-Coder (494 million weights), recorded, 3 seeds"
    found["b"] = {"food": {"profile": "t4", "seeds": 1}}
    assert recorded_by(found).startswith("Qwen2.5-Coder (494 million weights), t4 (1,540 million weights), recorded")


def test_the_figure_keeps_the_order_and_leaves_out_what_is_nowhere_recorded():
    found = {"food": {"b": values(0.05, p=0.2), "a": values(-0.05)}, "clothing": {}}
    figure = families_figure(found, ["a", "b", "c"], note="recorded")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [-0.05, 0.05]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True]
    assert "food" in texts(figure) and "clothing" not in texts(figure)


def test_a_domain_with_half_of_the_rows_says_which_are_missing():
    found = {"food": {row: values(0.0) for row in "abc"}, "clothing": {row: values(0.0) for row in "ab"}}
    assert texts(families_figure(found, "abc", note="recorded")).count(" not recorded") == 1


@pytest.mark.parametrize("seeds, words", [
    ((1, 1), "recorded, one seed: intervals count sessions only"),
    ((3, 3), "recorded, 3 seeds"),
    ((1, 3), "recorded, 1 to 3 seeds: with one seed, intervals count sessions only"),
])  # fmt: skip
def test_captions_count_the_seeds(seeds, words):
    assert in_words({"food": {str(k): values(0.0, seeds=n) for k, n in enumerate(seeds)}}) == words
