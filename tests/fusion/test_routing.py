"""The training of a fusion: what learns, what is logged, what is warned of."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from stopped import Stop, stop_at, timeless

from routedk_lite.config import RouterConfig
from routedk_lite.data.prompts import build_prompt, encode_prompt
from routedk_lite.files import sha256_folder
from routedk_lite.fusion import routing
from routedk_lite.fusion.arrow import Arrow
from routedk_lite.fusion.flow import Hard, LoraFlow
from routedk_lite.fusion.furina import Furina
from routedk_lite.fusion.fusion import Average, Dynamic, Static, Ties
from routedk_lite.fusion.layers import RoutedLinear
from routedk_lite.fusion.lorahub import LoraHub
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import _FusionTrainer, trace_alpha, train_fusion
from routedk_lite.fusion.statistics import RoutingStatistics, failure_signs, routing_statistics
from routedk_lite.fusion.xlora import XLora
from routedk_lite.student import trainer
from routedk_lite.student.trainer import TrainingProgress

QUICK = RouterConfig(epochs=2, micro_batch_size=2, accumulation_steps=2, max_length=256, learning_rate=0.05)


@pytest.fixture
def experts(tiny_student, tmp_path):
    """Two random adapters on the tiny student."""
    top = tmp_path / "experts"
    for k in range(2):
        torch.manual_seed(k)
        model = get_peft_model(tiny_student.model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.5)
        model.peft_config["default"].base_model_name_or_path = tiny_student.info.id
        model.save_pretrained(top / f"expert{k}")
        model.unload()
    return [top / "expert0", top / "expert1"]


@pytest.fixture
def routed(tiny_student, experts):
    """Makes routed models; the student is bare again afterwards."""
    made = []

    def make(fusion=None):
        while made:
            made.pop().unload()
        made.append(RoutedModel(tiny_student.model, experts, fusion or Dynamic()))
        return made[-1]

    yield make
    while made:
        made.pop().unload()


@pytest.mark.parametrize("alpha", [[1.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
def test_penalties_have_a_gradient_where_an_expert_has_no_weight(alpha):
    logits = torch.tensor([[[200.0, 0.0, 1.0]]], requires_grad=True)
    soft = logits.softmax(-1)  # 200: the others underflow to 0
    hard = torch.tensor([[alpha]]) + (soft - soft.detach())
    for made in (soft, hard):
        (gradient,) = torch.autograd.grad(routing._entropy(made).mean() + routing._entropy(made.mean(0)).mean(), logits,
                                          retain_graph=True)  # fmt: skip
        assert gradient.isfinite().all()


@pytest.mark.parametrize("fusion", [Hard(), Dynamic(top_k=2), Dynamic()], ids=str)
def test_a_router_with_penalties_stays_a_number(routed, train, fusion):
    model = routed(fusion)
    train(model, entropy_weight=0.1, balance_weight=0.1)
    assert all(weight.isfinite().all() for weight in model.weigher.parameters())


def test_a_training_starts_from_the_fusions_start_whatever_was_learned_before(routed, train):
    model = routed()
    with torch.no_grad():
        model.weigher.bias.fill_(1.0)
        model.weigher.weight.normal_()
    train(model, "first")
    train(model, "second", seed=1)
    again = {name: value.clone() for name, value in model.weigher.state_dict().items()}
    alone = routed()
    train(alone, "alone", seed=1)
    for name, value in alone.weigher.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_one_expert_has_nothing_to_learn(tiny_student, experts, sessions, tmp_path):
    model = RoutedModel(tiny_student.model, experts[:1], Dynamic())
    try:
        with pytest.raises(ValueError, match="one expert, expert0"):
            train_fusion(model, tiny_student, sessions[:2], tmp_path / "f", config=QUICK)
    finally:
        model.unload()


def test_no_sessions_have_no_alpha(routed, tiny_student):
    with pytest.raises(ValueError, match="sessions is empty"):
        trace_alpha(routed(), tiny_student.tokenizer, [])


def test_a_look_at_alpha_leaves_a_model_training(routed, tiny_student, sessions):
    model = routed(XLora(depth=2, size=8))
    model.train()
    model.weigher.inner[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    trace_alpha(model, tiny_student.tokenizer, sessions[:2], progress=False)
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()


@pytest.fixture
def train(tiny_student, sessions, tmp_path):
    def run(model, folder="fusion", **changes):
        options = {"validation": sessions[8:], "progress": False, "seed": 0}
        config = replace(QUICK, **{k: changes.pop(k) for k in list(changes) if k not in options})
        return train_fusion(model, tiny_student, sessions[:8], tmp_path / folder, config=config, **options | changes)

    return run


@pytest.mark.parametrize(
    "fusion",
    [Dynamic(), Static(), Static(scope="module"), LoraFlow(), Hard(), Furina(), XLora()],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:the validation loss:UserWarning")
def test_only_the_fusion_learns_and_the_loss_falls(routed, train, sessions, fusion):
    model = routed(fusion)
    routed_modules = [m for m in model.modules() if isinstance(m, RoutedLinear)]
    updates = [(m.a.clone(), m.b.clone()) for m in routed_modules]
    before = {name: p.clone() for name, p in model.model.state_dict().items()}
    weights = [p.detach().clone() for p in model.weigher.parameters()]
    found = train(model, epochs=8, validation=sessions[:8])
    assert all(torch.equal(before[name], p) for name, p in model.model.state_dict().items())
    assert updates and all(
        torch.equal(a, m.a) and torch.equal(b, m.b) for (a, b), m in zip(updates, routed_modules, strict=True)
    )
    assert any(not torch.equal(old, p) for old, p in zip(weights, model.weigher.parameters(), strict=True))
    losses = [row["eval_loss"] for row in found.history if "eval_loss" in row]
    assert losses[-1] < losses[0]  # of the sessions it learns from
    assert all(p.grad is None or p in set(model.weigher.parameters()) for p in model.parameters())


def test_a_forward_that_the_trainer_put_over_the_models_own_goes_again(routed, train, monkeypatch):
    model, run = routed(), routing.run_trainer

    def run_with_autocast(trainer):
        found = run(trainer)
        trainer.model._original_forward = trainer.model.forward
        trainer.model.forward = lambda *args, **options: pytest.fail("no model that is loaded has this forward")
        return found

    monkeypatch.setattr(routing, "run_trainer", run_with_autocast)
    train(model)
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.isfinite().all()


@pytest.mark.filterwarnings("ignore:the validation loss:UserWarning")
def test_the_log_tells_what_alpha_does(routed, train, tiny_student, sessions):
    model = routed()
    found = train(model)
    row = [r for r in found.history if "eval_loss" in r][-1]
    alpha = trace_alpha(model, tiny_student.tokenizer, sessions[8:], progress=False)
    by_hand = routing_statistics(alpha)
    assert row["entropy"] == pytest.approx(by_hand.entropy.mean(), abs=1e-4)
    assert row["variance"] == pytest.approx(by_hand.variance.mean(), abs=1e-4)
    assert row["load_expert0"] + row["load_expert1"] == pytest.approx(1, abs=1e-5)
    assert row["load_expert1"] == pytest.approx(by_hand.load[:, 1].mean(), abs=1e-4)
    saved = json.loads((found.folder / "routing.json").read_text())
    assert np.allclose(saved["statistics"]["load"], by_hand.load, atol=1e-4)


def test_alpha_that_no_prompt_changes_is_read_from_one(routed, tiny_student, sessions):
    for fusion, n_read in ((Static(), 1), (Dynamic(), len(sessions))):
        model = routed(fusion=fusion)
        seen = []
        watch = model.register_forward_pre_hook(
            lambda _, __, given, seen=seen: seen.extend(given["input_ids"]), with_kwargs=True
        )
        head = tiny_student.model.get_output_embeddings()
        states = []
        look = head.register_forward_pre_hook(lambda _, given, states=states: states.append(given[0]))
        alpha = trace_alpha(model, tiny_student.tokenizer, sessions, progress=False)
        watch.remove(), look.remove()
        assert len(seen) == n_read and len(alpha) == len(sessions)
        assert all(state.is_contiguous() for state in states), "else the embedding is copied for every row"


@pytest.mark.filterwarnings("ignore:the validation loss:UserWarning")
def test_a_finished_training_is_loaded_and_a_changed_one_repeated(routed, train):
    first = train(routed())
    weights = load_file(first.folder / "fusion.safetensors")
    model = routed()
    again = train(model)
    assert (again.seconds, again.history) == (first.seconds, first.history)
    assert all(torch.equal(weights[name], p) for name, p in model.weigher.state_dict().items())
    other = train(routed(), learning_rate=0.01)
    assert not torch.equal(load_file(other.folder / "fusion.safetensors")["weight"], weights["weight"])


@pytest.mark.filterwarnings("ignore:the validation loss:UserWarning")
def test_a_saved_fusion_comes_back(routed, train, tiny_student, sessions):
    model = routed()
    found = train(model)
    alpha = trace_alpha(model, tiny_student.tokenizer, sessions, progress=False)
    model.unload()
    again = RoutedModel.from_pretrained(found.folder, tiny_student.model, student=tiny_student.info.id)
    try:
        assert np.allclose(trace_alpha(again, tiny_student.tokenizer, sessions, progress=False), alpha, atol=1e-6)
    finally:
        again.unload()


def outcome(folder) -> tuple[str, dict]:
    """What the training of a fusion has left, without what a clock says."""
    return sha256_folder(folder), timeless(json.loads((folder / "routing.json").read_text()))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (_FusionTrainer, "training_step", 1),
        (_FusionTrainer, "training_step", 6),
        (_FusionTrainer, "prediction_step", 1),
        (_FusionTrainer, "prediction_step", 4),
        (trainer, "seal", 1),
        (trainer, "seal", 4),
        (TrainingProgress, "on_save", 2),
        (TrainingProgress, "on_save", 4),
        (TrainingProgress, "on_train_end", 1),
    ],
)
def test_a_training_that_is_stopped_ends_as_if_it_had_not_been(routed, train, monkeypatch, owner, name, number):
    """Validation rows, statistics and signs of failure included, even if only the last line was left to do."""
    slow = {"learning_rate": 1e-9}  # a router that does not learn, and says so
    whole = outcome(train(routed(), "whole", **slow).folder)
    model = routed()
    before = {key: value.clone() for key, value in model.weigher.state_dict().items()}
    with monkeypatch.context() as patch:
        stop_at(patch, owner, name, number)
        with pytest.raises(Stop):
            train(model, "broken", **slow)
    assert all(torch.equal(value, before[key]) for key, value in model.weigher.state_dict().items())
    found = train(model, "broken", **slow)
    assert outcome(found.folder) == whole
    assert any("uniform" in sign for sign in found.warnings)
    assert len([row for row in found.history if "eval_loss" in row]) == QUICK.epochs
    assert [path.name for path in found.folder.parent.iterdir() if path.name.endswith(".training")] == []


def test_a_checkpoint_holds_the_fusion_and_nothing_of_the_student(routed, train, monkeypatch):
    sizes = []
    real = trainer.seal
    monkeypatch.setattr(
        trainer,
        "seal",
        lambda folder, n: sizes.append(sum(p.stat().st_size for p in folder.iterdir())) or real(folder, n),
    )
    model = routed()
    train(model)
    assert sum(p.numel() for p in model.weigher.parameters()) < 1000 < max(sizes) < 50_000


@pytest.mark.filterwarnings("ignore:the validation loss:UserWarning")
@pytest.mark.parametrize("harm", ["missing", "cut off", "another's"])
def test_a_finished_fusion_that_is_damaged_is_trained_again(routed, train, harm):
    first = train(routed())
    whole, path = outcome(first.folder), first.folder / "fusion.safetensors"
    content = path.read_bytes()
    if harm == "another's":
        other = routed()
        torch.nn.init.normal_(other.weigher.weight)
        other.save_pretrained(first.folder)
    else:
        path.unlink() if harm == "missing" else path.write_bytes(content[:-8])
    with pytest.warns(UserWarning, match=r"fusion\.safetensors is missing, or not what routing\.json belongs to"):
        train(routed())
    assert outcome(first.folder) == whole


def test_traces_do_not_depend_on_batches_or_order(routed, tiny_student, sessions):
    model = routed()
    torch.nn.init.normal_(model.weigher.weight, std=60.0)
    whole = trace_alpha(model, tiny_student.tokenizer, sessions, progress=False)
    assert whole.shape == (len(sessions), 2, 2)
    single = trace_alpha(model, tiny_student.tokenizer, sessions[::-1], batch_size=1, progress=False)
    assert np.allclose(single[::-1], whole, atol=1e-5)
    prompt = encode_prompt(build_prompt(sessions[3].titles, tokenizer=tiny_student.tokenizer), tiny_student.tokenizer)
    with torch.no_grad():
        model(torch.tensor([prompt]))
    assert np.allclose(model.alpha[0], whole[3], atol=1e-5)
    assert np.ptp(whole, axis=0).max() > 0.05


@pytest.mark.parametrize("fusion", [Static(scope="module"), XLora(), LoraFlow(), Furina()], ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_penalties_know_weights_of_every_kind(routed, train, fusion, monkeypatch):
    """They are means over what is no padding, so batches do not change them."""
    seen, penalty = [], _FusionTrainer._penalty

    def watched(self, alpha):
        seen.append(alpha.detach())
        return penalty(self, alpha)

    monkeypatch.setattr(_FusionTrainer, "_penalty", watched)
    model, found = routed(fusion), []
    still = {"learning_rate": 1e-9, "static_learning_rate": 1e-9}  # so that α does not move meanwhile
    for size in (4, 1):
        train(model, f"of {size}", entropy_weight=0.5, balance_weight=0.5, epochs=1, micro_batch_size=size, **still)
        found.append(torch.cat(seen))
        seen.clear()
    together, alone = found
    assert together.shape == alone.shape and together.ndim == 3
    assert torch.allclose(together.mean(0), alone.mean(0), atol=1e-4)


def leaning(model):
    """A model whose router starts with more weight on its first expert."""

    def start():
        with torch.no_grad():
            model.weigher.bias.copy_(torch.tensor([1.0, 0.0]))

    model.reset = start
    return model


@pytest.mark.parametrize(("name", "sign"), [("entropy_weight", 1.0), ("balance_weight", 1.0)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_penalties_move_alpha_the_way_they_say(routed, train, tiny_student, sessions, name, sign):
    found = {}
    for weight in (0.0, 5.0):
        model = leaning(routed())
        train(model, f"{name}-{weight}", **{name: weight, "epochs": 4})
        found[weight] = routing_statistics(trace_alpha(model, tiny_student.tokenizer, sessions, progress=False))
    if name == "entropy_weight":
        assert found[5.0].entropy.mean() < found[0.0].entropy.mean() - 0.05
    else:
        assert abs(found[5.0].load - 0.5).mean() < abs(found[0.0].load - 0.5).mean() - 0.02


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["entropy_weight", "balance_weight"])
def test_a_penalty_is_whole_in_an_incomplete_step(routed, tiny_student, sessions, tmp_path, name):
    """Two sessions are one micro-batch: whether a step could have taken four more changes nothing."""
    found = []
    for steps in (1, 3):
        model, config = leaning(routed()), replace(QUICK, accumulation_steps=steps, epochs=4, **{name: 5.0})
        options = {"config": config, "progress": False}
        train_fusion(model, tiny_student, sessions[:2], tmp_path / f"{name}-{steps}", **options)
        found.append({key: value.clone() for key, value in model.weigher.state_dict().items()})
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        (Average(), "Average has nothing to learn"),
        (Ties(), "Ties has nothing"),
        (Arrow(), "Arrow has nothing to learn by gradients: train"),
        (LoraHub(), "LoraHub has nothing to learn by gradients: call search_weights"),
        (Dynamic(top_k=1), "top_k = 1"),
    ],
)
def test_fusions_that_cannot_learn_are_refused(routed, train, fusion, words):
    with pytest.raises(ValueError, match=words):
        train(routed(fusion))


def test_a_fusion_that_several_processes_would_train_is_refused(routed, train, monkeypatch, tmp_path):
    """Each would write and remove the same folder, and the wrapper that shares gradients has no α."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="WORLD_SIZE = 2: a fusion is trained in one process"):
        train(routed())
    assert not list(tmp_path.glob("*fusion*"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert train(routed(), epochs=1).folder.is_dir()


def test_no_sessions_is_an_error(routed, tiny_student, tmp_path):
    with pytest.raises(ValueError, match="sessions is empty"):
        train_fusion(routed(), tiny_student, [], tmp_path / "x", config=QUICK)


# --- statistics ---


def test_statistics_of_a_router_that_decides_by_session():
    decided = np.zeros((2, 1, 2))
    decided[0, 0, 0] = decided[1, 0, 1] = 1.0
    found = routing_statistics(decided)
    assert found.entropy == pytest.approx([0.0])
    assert found.load.tolist() == [[0.5, 0.5]]
    assert found.variance == pytest.approx([0.25])
    assert found.mutual_information == pytest.approx([math.log(2)])
    assert found.effective_support == pytest.approx([1])


def test_statistics_of_a_uniform_router():
    found = routing_statistics(np.full((5, 3, 3), 1 / 3))
    assert found.entropy == pytest.approx([math.log(3)] * 3)
    assert found.effective_support == pytest.approx([3] * 3)
    assert found.variance == pytest.approx([0] * 3)
    assert found.mutual_information == pytest.approx([0] * 3, abs=1e-12)


def test_the_effective_support_is_the_mean_over_sessions_of_how_many_share_the_weight():
    alpha = np.array([[[1, 0, 0, 0]], [[0.25] * 4], [[0.5, 0.5, 0, 0]]])
    assert routing_statistics(alpha).effective_support == pytest.approx([(1 + 4 + 2) / 3])
    assert routing_statistics(alpha).to_json()["effective_support"] == [pytest.approx(7 / 3, abs=1e-5)]


def test_weights_that_are_no_shares_are_taken_as_shares_of_their_size():
    odd = np.array([[[-1.0, 1.0, 0.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]])
    found = routing_statistics(odd)
    assert found.effective_support == pytest.approx([2, 3, 3])
    assert found.entropy == pytest.approx(np.log([2, 3, 3]))
    assert found.load.tolist() == odd[0].tolist()


def test_statistics_that_an_earlier_version_kept_are_taken_up():
    old = {"entropy": [1.0], "load": [[0.5, 0.5]], "variance": [0.0], "mutual_information": [0.0]}
    found = RoutingStatistics(**{name: np.array(value) for name, value in old.items()})
    assert "effective_support" not in found.to_json()


@pytest.mark.parametrize("shape", [(3, 3), (0, 2, 3)])
def test_statistics_need_sessions(shape):
    with pytest.raises(ValueError, match="give \\(sessions, layers, experts\\)"):
        routing_statistics(np.zeros(shape))


NAMES = ("base", "rules", "reasoning")


def test_each_sign_of_failure_is_told_and_a_sound_router_has_none():
    chance = np.random.default_rng(0)
    sound = chance.dirichlet([2, 2, 2], size=(50, 4))
    assert failure_signs(routing_statistics(sound), NAMES, (1.0, 0.8, 0.81)) == []
    (uniform,) = failure_signs(routing_statistics(np.full((50, 4, 3), 1 / 3)), NAMES)
    assert "uniform in every layer" in uniform
    one = np.broadcast_to([0.02, 0.95, 0.03], (50, 4, 3))
    (dominant,) = failure_signs(routing_statistics(one), NAMES)
    assert "'rules' has more than 0.9" in dominant
    each = np.eye(3)[[0, 0, 2, 0]] * np.ones((50, 1, 1))
    (decided,) = failure_signs(routing_statistics(each), NAMES)
    assert decided.startswith("one expert has more than 0.9") and f"({NAMES[0]} in 3, {NAMES[2]} in 1)" in decided
    (risen,) = failure_signs(routing_statistics(sound), NAMES, (1.0, 0.8, 0.9))
    assert "rose from 0.800 to 0.900" in risen


def test_static_weights_of_equal_size_are_uniform_but_learned_ones_are_no_failure():
    learned = np.broadcast_to([0.2, 0.5, 0.3], (50, 4, 3))
    assert failure_signs(routing_statistics(learned), NAMES) == []


def test_a_failing_router_warns(routed, train):
    with pytest.warns(UserWarning, match="uniform in every layer"):
        found = train(routed(), learning_rate=1e-9)
    assert any("uniform" in sign for sign in found.warnings)
