"""The conflict between kinds of knowledge: angles of gradients, steps for one another, overlap of updates."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from routedk_lite.analysis.conflict import (
    GradientCosines,
    Interference,
    gradient_cosines,
    interference,
    knowledge_losses,
)
from routedk_lite.analysis.overlap import DeltaOverlap, delta_inner, delta_overlap, delta_spaces, principal_angles
from routedk_lite.answers.answering import profile_reader
from routedk_lite.config import KnowledgeConfig, OptimizerConfig, PairConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.student.adapters import Adapter, LowRank, read_adapter
from routedk_lite.student.backbone import load_student
from routedk_lite.student.experts import load_expert, train_expert
from routedk_lite.teacher.knowledge import load_knowledge

KINDS = ("none", "rules", "reasoning")
SETTINGS = OptimizerConfig(max_length=4000)


def chance() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def adapted(tiny_student):
    """The tiny student with a random adapter on it, dropout included; bare again afterwards."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules="all-linear", lora_dropout=0.5)
    model = get_peft_model(tiny_student.model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    yield model
    model.unload()


@pytest.fixture(scope="module")
def toyshop():
    knowledge = load_knowledge("toyshop")
    sessions = [s for s in load_domain("toyshop", "train") if len(knowledge.reasoning[s.id].rules) == 1]
    return sorted(sessions, key=len)[:12], {k: (knowledge, KnowledgeConfig(kind=k)) for k in KINDS}


@pytest.fixture
def losses(tiny_student, adapted, toyshop):
    sessions, told = toyshop
    options = {"config": SETTINGS, "n_batches": 3, "batch_size": 2, "generator": chance()}
    return knowledge_losses(tiny_student, adapted, sessions, told, **options)


def state(model: nn.Module) -> dict:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "learns": {name: p.requires_grad for name, p in model.named_parameters()},
        "data": {name: p.data_ptr() for name, p in model.named_parameters()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
    }


def assert_same(before: dict, model: nn.Module) -> None:
    after = state(model)
    for part in ("learns", "data", "modes"):
        assert after[part] == before[part]
    assert all(torch.equal(after["weights"][name], value) for name, value in before["weights"].items())
    for name, gradient in before["gradients"].items():
        same = after["gradients"][name]
        assert same is None if gradient is None else torch.equal(same, gradient)


class Plane(nn.Module):
    """A model whose only weights are one point of the plane, as the LoRA matrix of layer 0."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].lora_A = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.point.copy_(torch.tensor([[x, y]]))

    @property
    def point(self) -> nn.Parameter:
        return self.layers[0].lora_A.weight

    def pull(self, x: float, y: float):
        """Half the squared distance from a point, as a loss."""
        return lambda: 0.5 * (self.point - torch.tensor([[x, y]])).square().sum()


# --- gradients ----------------------------------------------------------------------------------------------------


def test_a_gradient_has_cosine_one_with_itself(adapted, losses):
    same = {kind: [losses[kind][0]] * 3 for kind in KINDS}
    found = gradient_cosines(adapted, same, generator=chance())
    own = np.einsum("lkki->lki", found.cosine)
    assert found.layers == (0, 1) and found.kinds == KINDS
    assert own == pytest.approx(1, abs=1e-6)
    assert np.einsum("lkki->lki", found.gap) == pytest.approx(0, abs=1e-6)
    assert (found.cosine[..., 0] <= 1 + 1e-6).all() and (found.cosine[:, 0, 1, 0] < 1).all()


def test_cosines_equal_those_of_plain_backward_passes(adapted, losses):
    def gradient(loss, layer: int) -> torch.Tensor:
        adapted.zero_grad()
        loss().backward()
        rows = [p.grad.flatten() for n, p in adapted.named_parameters() if ".lora_" in n and f"layers.{layer}." in n]
        adapted.zero_grad()
        return torch.cat(rows)

    adapted.eval()
    found = gradient_cosines(adapted, losses, generator=chance())
    for layer in (0, 1):
        none, rules = ([gradient(loss, layer) for loss in losses[kind]] for kind in ("none", "rules"))
        pairs = [(m, k) for m in range(3) for k in range(3) if m != k]
        expected = np.mean([torch.cosine_similarity(none[m], rules[k], dim=0).item() for m, k in pairs])
        assert found.cosine[layer, 0, 1, 0] == pytest.approx(expected, abs=1e-5)
        floor = np.mean([torch.cosine_similarity(none[m], none[k], dim=0).item() for m, k in pairs])
        assert found.cosine[layer, 0, 0, 0] == pytest.approx(floor, abs=1e-5)
        own = found.cosine[layer, 1, 1, 0]
        assert found.gap[layer, 0, 1, 0] == pytest.approx(expected - math.sqrt(max(floor, 0) * max(own, 0)), abs=1e-5)
    assert np.allclose(found.cosine, found.cosine.transpose(0, 2, 1, 3), atol=0.05)
    assert (found.cosine[..., 1] <= found.cosine[..., 0]).all() and (found.cosine[..., 0] <= found.cosine[..., 2]).all()


def through_json(found):
    """What a record gives back."""
    return type(found).from_json(json.loads(json.dumps(found.to_json())))


def test_measurements_come_back_from_a_record(adapted, losses):
    cosines = gradient_cosines(adapted, losses, generator=chance())
    again = through_json(cosines)
    assert isinstance(again, GradientCosines)
    assert (again.kinds, again.layers) == (cosines.kinds, cosines.layers)
    assert np.allclose(again.cosine, cosines.cosine, atol=1e-5) and np.allclose(again.gap, cosines.gap, atol=1e-5)
    steps = interference(adapted, losses, generator=chance())
    again = through_json(steps)
    assert isinstance(again, Interference)
    assert again.kinds == steps.kinds and again.before == pytest.approx(steps.before, abs=1e-5)
    assert np.allclose(again.change, steps.change, atol=1e-7)
    for overlap in delta_overlap([random_adapter("one", 1), random_adapter("other", 2)], generator=chance()):
        again = through_json(overlap)
        assert isinstance(again, DeltaOverlap)
        assert again[:3] == overlap[:3]
        assert [*again[3:5], *again.columns, *again.rows] == pytest.approx(
            [*overlap[3:5], *overlap.columns, *overlap.rows], abs=1e-5
        )


def test_opposite_and_orthogonal_pulls_in_the_plane():
    model = Plane(0, 0)
    pulls = {"right": (2, 0), "left": (-5, 0), "up": (0, 1)}
    losses = {kind: [model.pull(*at)] * 3 for kind, at in pulls.items()}
    found = gradient_cosines(model, losses, generator=chance())
    expected = [[1, -1, 0], [-1, 1, 0], [0, 0, 1]]
    for part in range(3):  # nothing is left to chance, so the intervals are points
        assert found.cosine[0, ..., part] == pytest.approx(np.array(expected), abs=1e-6)
    assert found.gap[0, ..., 0] == pytest.approx(np.array(expected) - 1.0, abs=1e-6)


def test_the_gap_of_kinds_that_differ_in_noise_alone_is_about_zero():
    model, draw = Plane(0, 0), chance()
    losses = {
        kind: [model.pull(3 + noise * draw.normal(), noise * draw.normal()) for _ in range(60)]
        for kind, noise in (("calm", 1.0), ("noisy", 3.0))
    }
    found = gradient_cosines(model, losses, generator=chance())
    calm, between, noisy = found.cosine[0, 0, 0, 0], found.cosine[0, 0, 1, 0], found.cosine[0, 1, 1, 0]
    assert calm > between > noisy
    assert (calm + noisy) / 2 - between > 0.05  # the arithmetic mean would call this a conflict
    assert found.gap[0, 0, 1, 1] < 0 < found.gap[0, 0, 1, 2]
    assert abs(found.gap[0, 0, 1, 0]) < 0.05


@given(st.integers(0, 1000))
def test_the_interval_holds_the_estimate_of_a_symmetric_case(seed):
    model, draw = Plane(0, 0), np.random.default_rng(seed)
    losses = {kind: [model.pull(1 + draw.normal(), draw.normal()) for _ in range(8)] for kind in "ab"}
    found = gradient_cosines(model, losses, generator=chance())
    assert (found.cosine[..., 1] - 1e-9 <= found.cosine[..., 0]).all()
    assert (found.cosine[..., 0] <= found.cosine[..., 2] + 1e-9).all()
    assert (np.abs(found.cosine) <= 1 + 1e-9).all()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("measure", [gradient_cosines, interference])
def test_student_and_adapter_are_the_same_afterwards(adapted, losses, measure, mode):
    getattr(adapted, mode)()
    for number, parameter in enumerate(p for p in adapted.parameters() if p.requires_grad):
        parameter.grad = torch.full_like(parameter, number)  # of a training that is under way
        parameter.requires_grad_(number % 2 == 0)
    before = state(adapted)
    measure(adapted, losses, generator=chance())
    assert_same(before, adapted)


def test_everything_is_put_back_when_a_loss_fails(adapted, losses):
    adapted.train()
    before = state(adapted)

    def fails():
        raise KeyboardInterrupt

    broken = {**losses, "rules": [*losses["rules"][:2], fails]}
    with pytest.raises(KeyboardInterrupt):
        gradient_cosines(adapted, broken, generator=chance())
    with pytest.raises(KeyboardInterrupt):
        interference(adapted, broken, generator=chance())
    assert_same(before, adapted)


def test_dropout_plays_no_part(adapted, losses):
    adapted.train()
    first, again = (gradient_cosines(adapted, losses, generator=chance()) for _ in range(2))
    assert np.array_equal(first.cosine, again.cosine)
    adapted.eval()
    assert np.allclose(gradient_cosines(adapted, losses, generator=chance()).cosine, first.cosine, atol=1e-6)


def test_it_is_measured_while_an_expert_trains_and_changes_nothing(tiny_profile, tiny_student, toyshop, tmp_path):
    sessions, told = toyshop
    config = replace(tiny_profile.train, max_length=4000, lora_dropout=0.1)
    found = []

    def measure(model, n_seen):
        options = {"config": config, "n_batches": 3, "batch_size": 2, "generator": chance()}
        kinds = knowledge_losses(tiny_student, model, sessions, told, **options)
        found.append((n_seen, gradient_cosines(model, kinds, generator=chance())))

    watched = train_expert(tiny_student, sessions, tmp_path / "a", config=config, on_epoch=measure, progress=False)
    alone = train_expert(tiny_student, sessions, tmp_path / "b", config=config, progress=False)
    assert [n for n, _ in found] == [12, 24]
    assert not np.array_equal(found[0][1].cosine, found[1][1].cosine)
    one, other = (read_adapter(result.folder, "expert").sha256 for result in (watched, alone))
    assert one == other


def test_a_frozen_expert_of_a_bfloat16_student_is_measured_in_float32(tiny_profile, toyshop, tmp_path):
    student = load_student(replace(tiny_profile, student=replace(tiny_profile.student, dtype="bfloat16")), device="cpu")
    sessions, told = toyshop
    config = replace(tiny_profile.train, max_length=4000, epochs=1)
    folder = train_expert(student, sessions, tmp_path / "x", config=config, progress=False).folder
    model = load_expert(student, folder)
    try:
        before = state(model)
        assert {p.dtype for n, p in model.named_parameters() if "lora" in n} == {torch.bfloat16}
        options = {"config": config, "n_batches": 3, "batch_size": 2, "generator": chance()}
        losses = knowledge_losses(student, model, sessions, told, **options)
        assert np.isfinite(gradient_cosines(model, losses, generator=chance()).cosine).all()
        assert interference(model, losses, length=1e-3, generator=chance()).change[0, 0, 0] < 0
        assert_same(before, model)
    finally:
        model.unload()


# --- objectives ---------------------------------------------------------------------------------------------------


def test_an_objective_is_what_training_minimises(tiny_profile, tiny_student, toyshop):
    sessions, _ = toyshop
    profile = replace(tiny_profile, pairs=PairConfig(layer=2))
    reader = profile_reader(profile, tiny_student, sessions)
    told = {"none": (None, KnowledgeConfig())}
    options = {"n_batches": 2, "batch_size": 3}

    def total(generator, **weights):
        config = replace(SETTINGS, **weights)
        model = tiny_student.model
        given = {"config": config, "reader": reader, "generator": generator, **options}
        with torch.no_grad():
            return [float(loss()) for loss in knowledge_losses(tiny_student, model, sessions, told, **given)["none"]]

    answers = total(chance(), answer_weight=1.0, pair_weight=0.0)
    pairs = total(chance(), answer_weight=0.0, pair_weight=1.0)
    both = total(chance(), answer_weight=0.25, pair_weight=2.0)
    assert both == pytest.approx([0.25 * a + 2 * p for a, p in zip(answers, pairs, strict=True)], rel=1e-5)
    assert 0.2 < pairs[0] < 5  # nats a pair
    assert total(np.random.default_rng(1), pair_weight=0.0) != answers  # other sessions


def test_every_kind_has_the_same_sessions(tiny_student, adapted, toyshop, losses):
    sessions, told = toyshop
    options = {"config": SETTINGS, "n_batches": 3, "batch_size": 2, "generator": chance()}
    twice = {"one": told["rules"], "other": told["rules"]}
    again = knowledge_losses(tiny_student, adapted, sessions, twice, **options)
    adapted.eval()
    with torch.no_grad():
        values = {kind: [float(loss()) for loss in some] for kind, some in {**losses, **again}.items()}
    assert values["one"] == values["other"] == values["rules"]
    assert values["none"] != values["rules"] != values["reasoning"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"told": {}}, "told is empty"),
        ({"n_batches": 7}, "n_batches = 7, batch_size = 2: .*14 sessions of the 12 given"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"config": replace(SETTINGS, pair_weight=1.0)}, "pair_weight = 1.0 without a PairReader"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(tiny_student, adapted, toyshop, change, message):
    sessions, told = toyshop
    options = {"told": told, "config": SETTINGS, "n_batches": 3, "batch_size": 2, "generator": chance()} | change
    with pytest.raises(ValueError, match=message):
        knowledge_losses(tiny_student, adapted, sessions, **options)


def test_losses_and_models_that_do_not_fit_are_refused(tiny_student, adapted, losses):
    uneven = {**losses, "rules": losses["rules"][:2]}
    for measure in (gradient_cosines, interference):
        with pytest.raises(ValueError, match=r"losses has \{'none': 3, 'rules': 2, 'reasoning': 3\} batches"):
            measure(adapted, uneven, generator=chance())
        with pytest.raises(ValueError, match="losses has no batches"):
            measure(adapted, {}, generator=chance())
        with pytest.raises(ValueError, match="the model has no LoRA weights"):
            measure(nn.Linear(2, 2), losses, generator=chance())
        constant = {"a": [lambda: torch.ones((), requires_grad=True) * 1] * 3}
        with pytest.raises(RuntimeError, match="no gradient reaches the adapter"):
            measure(adapted, constant, generator=chance())
    with pytest.raises(ValueError, match="give 3 or more"):
        gradient_cosines(adapted, {"a": losses["none"][:2]}, generator=chance())
    with pytest.raises(ValueError, match="length = 0: a step needs"):
        interference(adapted, losses, length=0, generator=chance())


# --- steps --------------------------------------------------------------------------------------------------------


def test_what_a_step_in_the_plane_does_to_others():
    # From (3, 4), at distance 5 of the origin, a step of a fifth of that is 1 long: for `right` it leads to (4, 4).
    model = Plane(3, 4)
    pulls = {"right": (13, 4), "left": (-7, 4), "up": (3, 14)}
    losses = {kind: [model.pull(*at)] * 2 for kind, at in pulls.items()}
    found = interference(model, losses, length=0.2, generator=chance())
    assert found.before == (50, 50, 50)
    closer, farther, sideways = 81 / 100 - 1, 121 / 100 - 1, 101 / 100 - 1
    expected = [[closer, farther, sideways], [farther, closer, sideways], [sideways, sideways, closer]]
    assert found.change[..., 0] == pytest.approx(np.array(expected), abs=1e-6)
    assert model.point.tolist() == [[3, 4]]
    assert found.to_json()["before"] == [50, 50, 50]


def test_a_step_is_judged_by_other_sessions():
    model = Plane(0, 1)
    losses = {"a": [model.pull(1, 1), model.pull(-1, 1)]}  # two batches that disagree
    found = interference(model, losses, length=0.1, generator=chance())
    assert found.change[0, 0, 0] > 0


def test_small_steps_follow_the_cosines(adapted, losses):
    same = {kind: [losses[kind][0]] * 3 for kind in KINDS}
    found = interference(adapted, same, length=1e-3, generator=chance())
    assert (np.diagonal(found.change[..., 0]) < 0).all()
    angles = gradient_cosines(adapted, same, generator=chance()).cosine[-1, ..., 0]
    helped = found.change[..., 0] / np.diagonal(found.change[..., 0])  # (i, j): as a share of a step for j itself
    assert helped == pytest.approx(angles, abs=0.05)


# --- updates ------------------------------------------------------------------------------------------------------

NAMES = [f"model.layers.{layer}.self_attn.{module}" for layer in range(2) for module in ("q_proj", "v_proj")]


def random_adapter(name: str, seed: int, ranks=(3, 3, 2, 4), d_out: int = 12, d_in: int = 10) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    modules = {
        module: LowRank(torch.randn(r, d_in, generator=draw), torch.randn(d_out, r, generator=draw), 0.5 + seed)
        for module, r in zip(NAMES, ranks, strict=True)
    }
    return Adapter(name, "student", modules)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_cosine_equals_that_of_the_full_matrices(seed, other_seed):
    one, other = random_adapter("one", seed), random_adapter("other", other_seed, ranks=(2, 5, 2, 1))
    by_layer = {d.layer: d for d in delta_overlap([one, other], generator=chance())}
    assert list(by_layer) == [0, 1, None]
    for layer, chosen in ((0, NAMES[:2]), (1, NAMES[2:]), (None, NAMES)):
        a, b = (torch.cat([x.modules[n].delta().double().flatten() for n in chosen]) for x in (one, other))
        assert by_layer[layer].cosine == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), abs=1e-5)


def test_an_update_lies_in_its_spaces_and_lost_rank_is_noticed():
    update = random_adapter("one", 1).modules[NAMES[0]]
    columns, rows = delta_spaces(update)
    assert torch.allclose(columns @ (columns.T @ update.delta().double() @ rows) @ rows.T, update.delta().double())
    assert torch.allclose(columns.T @ columns, torch.eye(3, dtype=torch.float64), atol=1e-12)
    flat = update._replace(b=update.b[:, :1].expand(-1, 3))
    assert delta_spaces(flat)[0].shape == (12, 1)
    assert delta_inner(update, update) == pytest.approx(float(update.delta().double().square().sum()), rel=1e-5)


def test_orthogonal_experts_share_nothing_and_an_expert_shares_all_with_itself():
    eye = torch.eye(8)
    one = Adapter("one", "s", {NAMES[0]: LowRank(eye[:2], eye[:, :2], 2.0)})
    other = Adapter("other", "s", {NAMES[0]: LowRank(eye[2:5], eye[:, 2:5], 1.0)})
    same = one._replace(name="same")
    apart, _, together, *_ = delta_overlap([one, other, same], generator=chance())
    assert (apart.first, apart.second, apart.cosine) == ("one", "other", 0)
    for space in (apart.columns, apart.rows):
        assert (space.shared, space.angle) == (pytest.approx(0, abs=1e-12), pytest.approx(90))
        assert space.shared_floor == 3 / 8
    assert together.second == "same" and together.cosine == pytest.approx(1)
    assert together.columns.shared == pytest.approx(1) and together.columns.angle == pytest.approx(0, abs=1e-5)


def test_principal_angles_of_a_plane_and_a_line():
    basis = torch.tensor([[1.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    line = torch.tensor([[math.cos(0.3)], [0], [math.sin(0.3)]], dtype=torch.float64)
    assert principal_angles(basis, line) == pytest.approx([math.degrees(0.3)])
    assert principal_angles(basis, torch.eye(3, dtype=torch.float64)[:, [0, 2]]) == pytest.approx([0, 90])


def test_the_floors_are_what_random_experts_have():
    def pair(seed: int) -> list[Adapter]:
        return [random_adapter(name, 2 * seed + k, d_out=40, d_in=30) for k, name in enumerate(("one", "other"))]

    pairs = [delta_overlap(pair(seed), generator=np.random.default_rng(seed))[-1] for seed in range(60)]
    assert np.std([p.cosine for p in pairs]) == pytest.approx(np.mean([p.cosine_floor for p in pairs]), rel=0.25)
    for side in ("columns", "rows"):
        spaces = [getattr(p, side) for p in pairs]
        assert np.mean([s.shared for s in spaces]) == pytest.approx(spaces[0].shared_floor, rel=0.1)
        angles = [s.angle for s in spaces]
        assert np.mean(angles) == pytest.approx(np.mean([s.angle_floor for s in spaces]), abs=2)


def test_a_module_of_one_expert_only_counts_as_zero_in_the_other():
    one = random_adapter("one", 1)
    half = Adapter("half", "student", {name: one.modules[name] for name in NAMES[:2]})
    found = {d.layer: d for d in delta_overlap([one, half], generator=chance())}
    assert list(found) == [0, None]
    assert found[0].cosine == pytest.approx(1)
    whole, part = (sum(delta_inner(u, u) for u in adapter.modules.values()) for adapter in (one, half))
    assert found[None].cosine == pytest.approx(math.sqrt(part / whole))


def test_experts_that_cannot_be_compared_are_refused():
    one, other = random_adapter("one", 1), random_adapter("other", 2)
    with pytest.raises(ValueError, match=r"adapters = \['one'\]: give two or more"):
        delta_overlap([one], generator=chance())
    with pytest.raises(ValueError, match="different names"):
        delta_overlap([one, one], generator=chance())
    with pytest.raises(ValueError, match="adapt no common module"):
        delta_overlap([one, Adapter("far", "s", {"model.layers.7.up": one.modules[NAMES[0]]})], generator=chance())
    with pytest.raises(ValueError, match=r"q_proj: ΔW of 'one' and 'wide' have the shapes"):
        delta_overlap([one, random_adapter("wide", 2, d_in=11)], generator=chance())
    zero = {name: update._replace(b=0 * update.b) for name, update in other.modules.items()}
    with pytest.raises(ValueError, match="'fresh' has a ΔW of zero in model.layers.0.*has it been trained"):
        delta_overlap([one, Adapter("fresh", "s", zero)], generator=chance())


def test_experts_of_one_seed_begin_with_the_same_rows(tiny_student, tiny_profile, sessions, tmp_path):
    config = replace(tiny_profile.train, learning_rate=1e-4)
    folders = {
        name: train_expert(tiny_student, part, tmp_path / name, config=config, seed=seed, progress=False).folder
        for name, part, seed in (("one", sessions[:6], 0), ("other", sessions[6:], 0), ("seed1", sessions[:6], 1))
    }
    found = delta_overlap([read_adapter(folder) for folder in folders.values()], generator=chance())
    whole = {(d.first, d.second): d for d in found if d.layer is None}
    assert whole["one", "other"].rows.shared > 0.9
    assert whole["one", "seed1"].rows.shared < 0.5
