"""Controls change α and nothing else; a knocked-out expert is gone; credit adds up."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.analysis.controls import (
    CONTROLS,
    control_alpha,
    fewer_at_a_time,
    knocked_out,
    layer_thirds,
    without,
)
from routedk_lite.analysis.diagnostics import shapley_values
from routedk_lite.answers.decoding import greedy_answers
from routedk_lite.config import DecodeConfig, PairConfig
from routedk_lite.data import domains
from routedk_lite.fusion.fusion import Average, Dynamic, Static, Ties
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha
from routedk_lite.student.adapters import Adapter, LowRank
from routedk_lite.student.pairs import make_reader, read_pairs
from routedk_lite.study import records
from routedk_lite.study import study as holdings
from routedk_lite.study.pipeline import Pipeline

NAMES = ("base", "rules", "reasoning")


@pytest.fixture
def alpha():
    """α of thirty sessions in four layers."""
    chance = np.random.default_rng(0)
    return {id_: chance.dirichlet([4, 2, 1], size=4) for id_ in range(100, 130)}


@pytest.fixture
def routed(tiny_student):
    """Makes routed models with random experts and a fusion that is not at its start."""

    def make(fusion=None):
        adapters = []
        for k, name in enumerate(NAMES):
            chance = torch.Generator().manual_seed(k)
            a, b = (torch.randn(*shape, generator=chance) for shape in ((2, 64), (32, 2)))
            modules = {f"model.layers.{layer}.mlp.down_proj": LowRank(a, b, 4.0) for layer in (0, 1)}
            adapters.append(Adapter(name, "anything", modules))
        model = RoutedModel(tiny_student.model, adapters, fusion or Dynamic())
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.weigher.parameters():
                parameter.normal_(0, 2)
        return model

    return make


# --- other weights ----------------------------------------------------------------------------------------------


def test_shuffling_keeps_all_weights_and_gives_nobody_its_own(alpha):
    found = control_alpha("shuffled", alpha, seed=3)
    assert found.keys() == alpha.keys()
    assert not any(np.array_equal(found[id_], alpha[id_]) for id_ in alpha)
    assert sorted(map(float, np.concatenate(list(found.values())).ravel())) == sorted(
        map(float, np.concatenate(list(alpha.values())).ravel())
    )
    again, other = control_alpha("shuffled", alpha, seed=3), control_alpha("shuffled", alpha, seed=4)
    assert all(np.array_equal(found[id_], again[id_]) for id_ in alpha)
    assert any(not np.array_equal(found[id_], other[id_]) for id_ in alpha)


def test_the_mean_is_one_for_all_and_shuffling_has_the_same(alpha):
    found = control_alpha("mean", alpha)
    expected = np.mean(list(alpha.values()), axis=0)
    assert all(np.allclose(one, expected) for one in found.values())
    assert np.mean(list(control_alpha("shuffled", alpha).values()), axis=0) == pytest.approx(expected)


def test_random_mixtures_are_even_on_average_and_depend_on_the_session_alone(alpha):
    found = control_alpha("random", alpha, seed=1)
    for one in found.values():
        assert one.shape == (4, 3) and one.sum(-1) == pytest.approx(np.ones(4)) and (one >= 0).all()
        assert np.ptp(one, axis=0).max() == 0  # the same in all layers
    few = control_alpha("random", {id_: alpha[id_] for id_ in (105, 101)}, seed=1)
    assert np.array_equal(few[101], found[101])
    many = control_alpha("random", dict.fromkeys(range(2000), alpha[100]))
    assert np.mean(list(many.values()), axis=(0, 1)) == pytest.approx(np.full(3, 1 / 3), abs=0.02)


@pytest.mark.parametrize(
    ("kind", "n", "message"),
    [("lucky", 5, "kind = 'lucky': choose one of random, shuffled, mean"), ("mean", 1, "alpha holds 1 sessions")],
)
def test_impossible_controls_are_refused(alpha, kind, n, message):
    with pytest.raises(ValueError, match=message):
        control_alpha(kind, dict(list(alpha.items())[:n]))


SETTINGS = DecodeConfig(batch_size=4, max_new_tokens=6)


def answers(student, model, sessions, **options):
    found = greedy_answers(model, student.tokenizer, sessions, decode=SETTINGS, progress=False, **options)
    return {a.id: a.text for a in found}


def traced(student, model, sessions):
    rows = trace_alpha(model, student.tokenizer, sessions, progress=False)
    return {s.id: one for s, one in zip(sessions, rows, strict=True)}


def test_a_router_that_is_given_its_own_weights_answers_the_same(tiny_student, routed, sessions):
    model = routed()
    own = traced(tiny_student, model, sessions)
    plain = answers(tiny_student, model, sessions)
    assert answers(tiny_student, model, sessions, alpha=own) == plain
    assert answers(tiny_student, model, sessions, alpha=control_alpha("random", own)) != plain
    assert traced(tiny_student, model, sessions)[3] == pytest.approx(own[3])  # nothing is left behind


def test_given_weights_reach_the_rows_of_their_own_sessions(tiny_student, routed, sessions):
    """Answered together or one by one: batches are sorted, and padded."""
    model = routed()
    table = control_alpha("random", traced(tiny_student, model, sessions), seed=5)
    together = answers(tiny_student, model, sessions, alpha=table)
    for session in sessions:
        with model.override(table[session.id][None]):
            alone = answers(tiny_student, model, [session])
        assert alone[session.id] == together[session.id]


def test_pairs_are_read_under_given_weights_too(tiny_student, routed, sessions):
    reader = make_reader(tiny_student, sessions, PairConfig(layer=2))
    model = routed()
    options = {"progress": False, "batch_size": 5}
    table = control_alpha("random", traced(tiny_student, model, sessions))
    found = read_pairs(model, tiny_student.tokenizer, sessions, reader, alpha=table, **options)
    plain = read_pairs(model, tiny_student.tokenizer, sessions, reader, **options)
    for session in sessions:
        with model.override(table[session.id][None]):
            alone = read_pairs(model, tiny_student.tokenizer, [session], reader, **options)
        assert found[session.id] == pytest.approx(alone[session.id], abs=1e-4)
    assert any(np.abs(found[s.id] - plain[s.id]).max() > 1e-2 for s in sessions)


def test_each_order_of_the_items_can_have_weights_of_its_own(tiny_student, routed, sessions):
    reader, single = (make_reader(tiny_student, sessions, PairConfig(layer=2, orders=orders)) for orders in (2, 1))
    model = routed()
    backwards = [s.permuted(range(len(s))[::-1]) for s in sessions]
    own = [traced(tiny_student, model, shown) for shown in (sessions, backwards)]
    options = {"progress": False, "batch_size": 5}

    def read(shown, reader, alpha=None):
        return read_pairs(model, tiny_student.tokenizer, shown, reader, alpha=alpha, **options)

    plain = read(sessions, reader)
    for id_, pairs in read(sessions, reader, {id_: np.stack([one[id_] for one in own]) for id_ in own[0]}).items():
        assert pairs == pytest.approx(plain[id_], abs=1e-4)  # each order's own weights: the router's answer
    alone = [{s.id: np.tile(np.eye(3)[k], (2, 1)) for s in sessions} for k in (0, 1)]
    first, second = read(sessions, single, alone[0]), read(backwards, single, alone[1])
    for id_, pairs in read(sessions, reader, {id_: np.stack([one[id_] for one in alone]) for id_ in alone[0]}).items():
        assert pairs == pytest.approx((first[id_] + second[id_][::-1, ::-1]) / 2, abs=1e-4)
        assert np.abs(pairs - plain[id_]).max() > 1e-3


def test_weights_for_the_wrong_layers_are_refused(routed):
    with pytest.raises(ValueError, match=r"alpha has 3 layers: give one for each of \[0, 1\]"):
        routed().override(np.full((1, 3, 3), 1 / 3)).__enter__()


# --- experts that are left out ------------------------------------------------------------------------------------

weights = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda w: torch.tensor(w) / sum(w))


@given(weights, st.sets(st.integers(0, 2), max_size=2))
def test_the_others_keep_their_ratios_and_sum_to_one(alpha, off):
    found = without(alpha, off)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5) and all(found[k] == 0 for k in off)
    left = [k for k in range(3) if k not in off]
    for i, j in combinations(left, 2):
        assert float(found[i] / found[j]) == pytest.approx(float(alpha[i] / alpha[j]), rel=1e-4)


def test_where_nothing_was_left_the_others_share_alike():
    assert without(torch.tensor([[1.0, 0.0, 0.0]]), [0]).tolist() == [[0.0, 0.5, 0.5]]
    with pytest.raises(ValueError, match="leave at least one in"):
        without(torch.tensor([0.5, 0.5]), [0, 1])


def logits(model):
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_with_all_others_out_an_expert_is_alone(routed):
    model = routed()
    with model.override([0.0, 1.0, 0.0]):
        alone = logits(model)
    with knocked_out(model, ["base", "reasoning"]):
        torch.testing.assert_close(logits(model), alone)
        assert model.alpha[0].tolist() == [[0, 1, 0]] * 2
    assert not torch.allclose(logits(model), alone, atol=1e-3)


def test_an_expert_can_be_out_in_some_layers_and_the_router_goes_on_reading(routed):
    model = routed()
    logits(model)
    before = model.alpha[0]
    with knocked_out(model, ["rules"], layers=[0]):
        logits(model)
        lower, upper = model.alpha[0]
    expected = before[0] * [1, 0, 1]
    assert lower == pytest.approx(expected / expected.sum(), abs=1e-5)
    assert upper[1] > 0 and np.abs(upper - before[1]).max() > 1e-4
    logits(model)
    assert model.alpha[0] == pytest.approx(before)


def test_static_weights_and_averages_lose_experts_too(routed, tiny_student):
    model = routed(Static())
    theta = model.weigher.theta.detach().softmax(-1).numpy()
    with knocked_out(model, ["base"]):
        logits(model)
        assert model.alpha[0][:, 1:] == pytest.approx(theta[:, 1:] / theta[:, 1:].sum(-1, keepdims=True), abs=1e-5)
    model.unload()
    average = routed(Average())
    with knocked_out(average, ["base"]):
        logits(average)
        assert average.alpha[0].tolist() == [[0, 0.5, 0.5]] * 2


@pytest.mark.parametrize(
    ("fusion", "experts", "layers", "message"),
    [
        (Dynamic(), ["law"], None, "no expert 'law': this model has base, rules, reasoning"),
        (Dynamic(), NAMES, None, "leave at least one in"),
        (Dynamic(), ["base"], [7], r"layer 7 has no experts; these have: \[0, 1\]"),
        (Ties(), ["base"], None, "Ties has no α"),
    ],
)
def test_what_cannot_be_left_out_is_refused(routed, fusion, experts, layers, message):
    model = routed(fusion)
    whole = model.weigher
    with pytest.raises(ValueError, match=message):
        knocked_out(model, experts, layers).__enter__()
    assert model.weigher is whole


@pytest.mark.parametrize("k", [1, 2])
def test_with_fewer_experts_at_a_time_a_router_is_as_if_it_had_been_made_so(tiny_student, routed, sessions, k):
    model, ids = routed(), torch.tensor([[1, 40, 50, 60, 70]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        with fewer_at_a_time(model, k):
            found, alpha = model(input_ids=ids).logits, model.alpha
        assert model(input_ids=ids).logits.allclose(whole)
    weights = model.weigher.state_dict()
    model.unload()
    sparse = routed(Dynamic(top_k=k))
    sparse.weigher.load_state_dict(weights)
    with torch.no_grad():
        assert sparse(input_ids=ids).logits.allclose(found, atol=1e-5)
    assert ((alpha > 0).sum(-1) == k).all() and not found.allclose(whole, atol=1e-3)


@pytest.mark.parametrize(
    "fusion, k, message",
    [(Static(), 1, "Static has no router"), (Dynamic(), 0, "k = 0"), (Dynamic(), 4, "choose 1 to 3")],
)
def test_impossible_numbers_of_experts_are_refused(routed, fusion, k, message):
    with pytest.raises(ValueError, match=message), fewer_at_a_time(routed(fusion), k):
        pass


def test_thirds_hold_every_layer_once():
    found = layer_thirds(range(5))
    assert found == {"lower": (0, 1), "middle": (2, 3), "upper": (4,)}
    with pytest.raises(ValueError, match="three layers or more"):
        layer_thirds([3, 4])


# --- credit -------------------------------------------------------------------------------------------------------


def worth_of(value):
    return {frozenset(c): value(frozenset(c)) for size in range(4) for c in combinations(NAMES, size)}


def test_credit_of_experts_that_add_up_is_what_each_adds():
    gains = dict(zip(NAMES, (0.3, 0.1, 0.0), strict=True))
    found = shapley_values(worth_of(lambda group: 0.2 + sum(gains[name] for name in group)))
    assert {name: float(v) for name, v in found.items()} == pytest.approx(gains)


def test_two_experts_that_do_the_same_share_the_credit():
    """Leaving out either costs nothing: knocked out one at a time, both would seem needless."""
    worth = worth_of(lambda group: float(bool(group & {"rules", "reasoning"})))
    found = shapley_values(worth)
    assert {name: float(v) for name, v in found.items()} == pytest.approx({"base": 0, "rules": 0.5, "reasoning": 0.5})


def test_credit_per_session_sums_to_the_whole_gain():
    chance = np.random.default_rng(0)
    worth = worth_of(lambda group: chance.random(7))
    found = shapley_values(worth)
    assert sum(found.values()) == pytest.approx(worth[frozenset(NAMES)] - worth[frozenset()])
    with pytest.raises(ValueError, match=r"worth lacks \['rules'\]: give all 8 sets"):
        shapley_values({group: v for group, v in worth.items() if group != {"rules"}})


# --- as runs ------------------------------------------------------------------------------------------------------


def small(name, split):
    domain = domains.load_domain(name, split)
    return replace(domain, sessions=domain.sessions[: {"train": 12, "validation": 4, "test": 10}[split]])


@pytest.mark.parametrize(
    "pairs",
    [None, PairConfig(layer=2), PairConfig(layer=2, control="order"), PairConfig(layer=2, orders=1, control="order")],
    ids=["greedy", "pairs", "orders", "one order"],
)
def test_ablations_are_recorded(tiny_profile, tmp_path, monkeypatch, pairs):
    monkeypatch.setattr(holdings, "load_domain", small)
    monkeypatch.setattr(records, "load_domain", small)
    profile = replace(tiny_profile, train=replace(tiny_profile.train, max_length=4000), pairs=pairs)
    study = Pipeline(profile, results=tmp_path / "results", work=tmp_path / "runs", progress=False)
    names = {s.name for s in study.of_part("ablations")} - {"data", "student", "explorer-seed0"}
    assert names >= {f"control-{kind}-seed0" for kind in CONTROLS}
    assert {"knockout-rules-seed0", "knockout-rules-upper-seed0", "top-1-seed0", "top-2-seed0"} <= names
    assert len(names) == 3 + 3 + 9 + 2
    wanted = ["fusion-dynamic-seed0", "control-*", "knockout-rules-seed0", "top-1-seed0"]
    found = {r.run: r for r in study.run(only=wanted)}
    for record in found.values():
        records.verify(record)
    whole = found["fusion-dynamic-seed0"]
    mean, shuffled = (found[f"control-{kind}-seed0"] for kind in ("mean", "shuffled"))
    assert mean.analysis["load"] == pytest.approx(np.array(whole.analysis["load"]), abs=1e-4)
    assert shuffled.analysis["load"] == pytest.approx(np.array(whole.analysis["load"]), abs=1e-4)
    assert mean.analysis["variance"] == [0, 0] and mean.adapter_sha256 == whole.adapter_sha256
    lesioned = found["knockout-rules-seed0"].analysis
    assert [row[1] for row in lesioned["load"]] == [0, 0] and lesioned["off"] == "rules-seed0"
    assert np.allclose(found["top-1-seed0"].analysis["effective_support"], 1)
    assert not [r for r in study.run(only=["control-*"]) if found[r.run] != r]  # done: nothing is run again
