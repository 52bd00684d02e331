"""KnOTS, DARE-TIES, FURINA, LoraHub and CAT against their definitions on full matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapted import close, learned, logits
from peft.utils.merge_utils import dare_ties

from routedk_lite.config import RouterConfig
from routedk_lite.fusion import lorahub
from routedk_lite.fusion.furina import Furina, directed, row_lengths
from routedk_lite.fusion.fusion import Average, OneHot, Static
from routedk_lite.fusion.knots import DareTies, Knots, common_basis
from routedk_lite.fusion.lorahub import BOUND, LoraHub, search_weights
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.adapters import Adapter, LowRank, adapted_modules, read_adapter


def weights_of(model, adapters, update):
    """The student with `update(module, {expert: ΔW})` added to its weights."""
    with torch.no_grad():
        for name in adapted_modules(adapters):
            deltas = {i: a.modules[name].delta() for i, a in enumerate(adapters) if name in a.modules}
            model.get_submodule(name).weight += update(name, deltas).float()
    return model


def ties(matrices, thresholds):
    """Entry by entry: drop what is below its threshold, let the heavier sign win, average what has it."""
    merged = np.zeros_like(matrices[0])
    for place in np.ndindex(merged.shape):
        kept = [m[place] for m, least in zip(matrices, thresholds, strict=True) if abs(m[place]) >= least]
        agreeing = [v for v in kept if v * sum(kept) > 0]
        merged[place] = sum(agreeing) / len(agreeing) if agreeing else 0
    return merged


# --- KnOTS --------------------------------------------------------------------------------------------------------


def knots_by_definition(deltas, density):
    """Dense SVD of all ΔW side by side."""
    u, s, vt = np.linalg.svd(np.concatenate(deltas, 1), full_matrices=False)
    kept = s > 1e-6 * s[0]
    parts = np.split(s[kept, None] * vt[kept], len(deltas), 1)
    n = max(1, int(density * parts[0].size))
    return u[:, kept] @ ties(parts, [np.sort(np.abs(p).flatten())[-n] for p in parts])


@pytest.mark.parametrize("density", [0.15, 0.5, 1.0])
@pytest.mark.parametrize(("d_out", "d_in"), [(9, 14), (14, 9), (5, 20)])
def test_knots_equals_the_dense_definition(density, d_out, d_in):
    """Also where the experts' ranks together exceed the matrix."""
    torch.manual_seed(d_out)
    updates = [LowRank(torch.randn(2 + i, d_in), torch.randn(d_out, 2 + i), 0.5 + i) for i in range(3)]
    adapters = [Adapter(f"e{i}", "s", {"model.layers.0.q": update}) for i, update in enumerate(updates)]
    (merged,) = Knots(density=density, trim="module").merged(adapters).values()
    expected = knots_by_definition([update.delta().double().numpy() for update in updates], density)
    np.testing.assert_allclose(merged.low_rank.delta(), expected, atol=1e-4)
    assert merged.low_rank.a.shape[0] == min(d_out, 9)


def test_knots_of_one_expert_is_the_expert(load, folders):
    close(
        logits(RoutedModel(load(), folders[:1], Knots(density=1))), logits(RoutedModel(load(), folders, OneHot())), 1e-4
    )


def test_global_trimming_of_knots_keeps_the_largest_of_all_modules(folders):
    adapters = [read_adapter(folder) for folder in folders]
    kept, total = 0, 0
    fusion = Knots(density=0.1)
    merged = fusion.merged(adapters[:1])
    for name, one in merged.items():
        whole = common_basis(adapters[:1], name).T.float() @ adapters[0].modules[name].delta()
        assert set(one.low_rank.a[one.low_rank.a != 0].tolist()) <= set(whole.flatten().tolist()) or torch.allclose(
            one.low_rank.a[one.low_rank.a != 0], whole[one.low_rank.a != 0], atol=1e-5
        )
        kept, total = kept + int((one.low_rank.a != 0).sum()), total + whole.numel()
    assert kept == pytest.approx(0.1 * total, abs=1)
    assert fusion.merged(adapters).keys() == set(adapted_modules(adapters))  # experts of other modules and ranks, too


def test_a_direction_that_no_expert_has_is_left_out():
    a, b = torch.randn(3, 8), torch.randn(7, 3)
    twice = [Adapter(n, "s", {"model.layers.0.q": LowRank(a, s * b, 1.0)}) for n, s in (("x", 1.0), ("y", 2.0))]
    (merged,) = Knots(density=1).merged(twice).values()
    assert merged.low_rank.a.shape[0] == 3
    torch.testing.assert_close(merged.low_rank.delta(), 1.5 * b @ a, rtol=1e-4, atol=1e-4)
    zeros = Adapter("z", "s", {"model.layers.0.q": LowRank(a, torch.zeros(7, 3), 1.0)})
    (nothing,) = Knots().merged([zeros]).values()
    assert not nothing.low_rank.delta().any()


# --- DARE-TIES ----------------------------------------------------------------------------------------------------


def test_dare_ties_equals_pefts_on_the_same_drops(monkeypatch):
    torch.manual_seed(0)
    deltas = [torch.randn(6, 7) for _ in range(3)]
    fusion = DareTies(drop=0.6, seed=3)
    masks = [fusion.dropped(i, "m", torch.ones(6, 7)) != 0 for i in range(3)]
    drawn = iter(masks)
    monkeypatch.setattr(torch, "bernoulli", lambda p: next(drawn).float())
    expected = dare_ties(deltas, torch.ones(3), 0.4)
    adapters = [Adapter(f"e{i}", "s", {"m": LowRank(d, torch.eye(6), 1.0)}) for i, d in enumerate(deltas)]
    (merged,) = fusion.merged(adapters).values()
    torch.testing.assert_close(merged.delta, expected)


def test_dare_ties_equals_its_definition(load, folders):
    adapters, fusion = [read_adapter(folder) for folder in folders], DareTies(drop=0.3, seed=1)

    def by_definition(name, deltas):
        left = []
        for i, delta in deltas.items():
            gone = fusion.dropped(i, name, torch.ones_like(delta)) == 0
            left.append(np.where(gone, 0, delta.double().numpy() / (1 - 0.3)))
        return torch.tensor(ties(left, [0] * len(left)))

    expected = logits(weights_of(load(), adapters, by_definition))
    close(logits(RoutedModel(load(), folders, fusion)), expected, 1e-4)


def test_drops_are_seeded_rescaled_and_of_the_rate_that_was_asked_for():
    ones = torch.ones(200, 300)
    fusion = DareTies(drop=0.9, seed=5)
    left = fusion.dropped(0, "m", ones)
    assert left.unique().tolist() == pytest.approx([0, 10])
    assert float(left.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(fusion.dropped(0, "m", ones), left)
    for other in (fusion.dropped(1, "m", ones), fusion.dropped(0, "n", ones), DareTies(drop=0.9).dropped(0, "m", ones)):
        assert not torch.equal(other, left)
    assert torch.equal(DareTies(drop=0).dropped(0, "m", ones), ones)


def test_truncated_dare_ties_reports_its_error(load, alike):
    full = logits(RoutedModel(load(), alike, DareTies()))
    whole = RoutedModel(load(), alike, DareTies(rank=32))
    close(logits(whole), full, 1e-3)
    assert min(RoutedModel(load(), alike, DareTies(rank=2)).truncation_error.values()) > 0.1


# --- CAT ----------------------------------------------------------------------------------------------------------


def test_cat_weighs_each_module_by_the_softmax_of_its_own_theta(load, folders):
    routed = learned(RoutedModel(load(), folders, Static(scope="module")))
    adapters = [read_adapter(folder) for folder in folders]
    names = sorted(adapted_modules(adapters))
    assert routed.weigher.theta.shape == (len(names), 3)
    shares = dict(zip(names, routed.weigher.theta.detach().softmax(-1), strict=True))
    expected = weights_of(load(), adapters, lambda name, ds: sum(shares[name][i] * d for i, d in ds.items()))
    close(logits(routed), logits(expected), 1e-4)
    of_layer = [shares[name] for name in names if ".1." in name]
    np.testing.assert_allclose(routed.alpha[0, 1], torch.stack(of_layer).mean(0), atol=1e-6)


def test_cat_starts_from_the_average(load, folders):
    close(logits(RoutedModel(load(), folders, Static(scope="module"))), logits(RoutedModel(load(), folders, Average())))


# --- FURINA -------------------------------------------------------------------------------------------------------


def test_furina_equals_its_definition(load, folders):
    routed = learned(RoutedModel(load(), folders, Furina()))
    adapters = [read_adapter(folder) for folder in folders]

    def by_definition(name, deltas):
        directions = sum(delta / delta.norm(dim=1, keepdim=True) for delta in deltas.values())
        start = torch.stack([delta.norm(dim=1) for delta in deltas.values()]).mean(0) / 3
        factor = routed.weigher.factors[routed.weigher.place[name]].detach()
        return (start * factor)[:, None] * directions

    close(logits(routed), logits(weights_of(load(), adapters, by_definition)), 1e-4)


def test_furina_of_experts_with_rows_of_one_length_starts_from_the_average(load, alike):
    even = [read_adapter(folder) for folder in alike]
    even = [a._replace(modules={n: directed(u) for n, u in a.modules.items()}) for a in even]
    close(logits(RoutedModel(load(), even, Furina())), logits(RoutedModel(load(), even, Average())), 1e-4)


def test_rows_are_measured_without_the_matrix_and_rows_of_zeros_stay():
    torch.manual_seed(0)
    update = LowRank(torch.randn(3, 9), torch.randn(5, 3), -2.0)
    update.b[2] = 0
    torch.testing.assert_close(row_lengths(update).float(), update.delta().norm(dim=1))
    lengths = directed(update).delta().norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1, 0, 1, 1]))
    assert float((directed(update).delta() * update.delta()).sum()) > 0  # a scale below zero is kept


# --- LoraHub ------------------------------------------------------------------------------------------------------


def test_lorahub_sums_a_and_b_apart(load, alike):
    routed = learned(RoutedModel(load(), alike, LoraHub()))
    w, adapters = routed.weigher.w, [read_adapter(folder) for folder in alike]
    model = load()
    with torch.no_grad():
        for name in adapted_modules(adapters):
            updates = [adapter.modules[name] for adapter in adapters]
            a = sum(w[i] * u.scale**0.5 * u.a for i, u in enumerate(updates))
            b = sum(w[i] * u.scale**0.5 * u.b for i, u in enumerate(updates))
            model.get_submodule(name).weight += b @ a
    close(logits(routed), logits(model), 1e-4)
    np.testing.assert_allclose(routed.alpha, np.broadcast_to(w, routed.alpha.shape), atol=1e-6)


def test_lorahub_begins_with_the_student_and_one_expert_of_weight_one_is_itself(load, alike):
    routed = RoutedModel(load(), alike, LoraHub())
    close(logits(routed), logits(load()))
    with routed.override([0, 1, 0]):
        close(logits(routed), logits(RoutedModel(load(), alike, OneHot(expert=1))), 1e-4)


def test_lorahub_needs_one_rank(load, folders):
    with pytest.raises(ValueError, match=r"needs one rank, and in .*'expert0' has 2, 'expert\d' has \d"):
        RoutedModel(load(), folders, LoraHub())


def test_the_search_finds_lower_losses_and_is_repeatable(tiny_student, alike, sessions):
    model = RoutedModel(tiny_student.model, alike, LoraHub())
    found = search_weights(model, tiny_student, sessions, n_examples=4, evaluations=15, seed=1)
    assert found.objective == min(found.history) <= found.history[0] and len(found.history) <= 15
    assert all(abs(one) <= BOUND for one in found.weights) and any(found.weights)
    np.testing.assert_allclose(model.weigher.w, found.weights, atol=1e-6)
    assert search_weights(model, tiny_student, sessions, n_examples=4, evaluations=15, seed=1) == found
    other = search_weights(model, tiny_student, sessions, n_examples=4, evaluations=15, seed=2)
    assert other.history != found.history
    model.unload()


def test_a_search_that_is_stopped_leaves_the_model_as_it_was(tiny_student, alike, sessions, monkeypatch):
    model = RoutedModel(tiny_student.model, alike, LoraHub())
    search_weights(model, tiny_student, sessions, n_examples=2, evaluations=5)
    model.train()
    before, calls = model.weigher.w.clone(), []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.tensor(1.0 / len(calls))

    monkeypatch.setattr(lorahub, "batch_loss", stopped)
    with pytest.raises(KeyboardInterrupt):
        search_weights(model, tiny_student, sessions, n_examples=2, seed=3)
    assert torch.equal(model.weigher.w, before) and model.training
    model.unload()


def test_a_search_needs_lorahub_and_sessions(tiny_student, alike, sessions):
    model = RoutedModel(tiny_student.model, alike, LoraHub())
    with pytest.raises(ValueError, match="sessions is empty"):
        search_weights(model, tiny_student, [])
    with pytest.raises(ValueError, match="pair_weight = 1.0 without a PairReader"):
        search_weights(model, tiny_student, sessions, config=RouterConfig(pair_weight=1.0))
    model = RoutedModel(model.unload(), alike, Average())
    with pytest.raises(ValueError, match="Average has no weights to search"):
        search_weights(model, tiny_student, sessions)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Knots(density=0), "density=0"),
        (lambda: Knots(trim="row"), "trim='row'"),
        (lambda: DareTies(drop=1), "drop=1"),
        (lambda: DareTies(rank=0), "rank=0"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
