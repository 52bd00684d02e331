import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from routedk_lite.config import KnowledgeConfig, PromptConfig, TrainConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.parsing import parse_answer
from routedk_lite.files import sha256_folder
from routedk_lite.student import experts, training
from routedk_lite.student.backbone import load_student
from routedk_lite.student.batches import IGNORE, AnswerCollator, LengthGroupedSampler
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import load_expert, save_expert, train_expert
from routedk_lite.student.optimizer import MasterAdamW
from routedk_lite.student.training import answer_loss
from routedk_lite.student.unchanged import left_as_it_was
from routedk_lite.teacher.knowledge import load_knowledge


def rows(student, sessions):
    return [encode_example(s, student.tokenizer, PromptConfig(), max_length=1024)._asdict() for s in sessions]


@pytest.fixture
def train(tiny_student, tiny_profile, sessions, tmp_path):
    def run(folder="expert", student=tiny_student, **changes):
        options = {"validation": sessions[8:], "progress": False, "seed": 0, "on_epoch": None}
        config = replace(tiny_profile.train, **{k: changes.pop(k) for k in list(changes) if k not in options})
        return train_expert(student, sessions[:8], tmp_path / folder, config=config, **options | changes)

    return run


def test_the_collator_pads_left_and_keeps_answer_positions_only(tiny_student, sessions):
    batch = rows(tiny_student, sessions[:5])
    out = AnswerCollator(0)(batch)
    width = max(len(r["input_ids"]) for r in batch)
    longest_answer = max(len(r["input_ids"]) - r["n_prompt"] for r in batch)
    assert out["input_ids"].shape == (5, width)
    assert out["labels"].shape == (5, longest_answer + 1) and len(out["logits_to_keep"]) == longest_answer + 1
    assert (out["labels"][:, 0] == IGNORE).all()
    for i, row in enumerate(batch):
        n = len(row["input_ids"])
        assert out["input_ids"][i, -n:].tolist() == row["input_ids"]
        assert out["attention_mask"][i].tolist() == [0] * (width - n) + [1] * n
        assert out["position_ids"][i, -n:].tolist() == list(range(n))
        assert out["labels"][i][out["labels"][i] != IGNORE].tolist() == row["input_ids"][row["n_prompt"] :]


def test_the_loss_equals_that_of_full_logits_over_the_answer(tiny_student, sessions):
    batch = rows(tiny_student, sessions[:5])
    out = AnswerCollator(0)(batch)
    labels = out.pop("labels")
    ours = answer_loss(tiny_student.model(**out), labels)
    total, count = 0.0, 0
    for row in batch:  # one by one, without padding, with all logits
        ids = torch.tensor([row["input_ids"]])
        log_p = tiny_student.model(input_ids=ids).logits.log_softmax(-1)[0]
        for position in range(row["n_prompt"], ids.shape[1]):
            total -= log_p[position - 1, ids[0, position]].item()
            count += 1
    assert ours.item() == pytest.approx(total / count, rel=1e-4)


def test_the_loss_of_a_known_distribution():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = math.log(3)  # p = 3/6 for token 2, after which label 2 comes
    labels = torch.tensor([[IGNORE, IGNORE, 2]])
    assert answer_loss(SimpleNamespace(logits=logits), labels).item() == pytest.approx(math.log(2))
    assert answer_loss(SimpleNamespace(logits=logits), labels, 4).item() == pytest.approx(math.log(2) / 4)


def test_the_sampler_groups_lengths_mixes_steps_and_repeats_itself():
    lengths = [(7 * i) % 97 for i in range(403)]
    sampler = LengthGroupedSampler(lengths, 4, seed=0)
    order = list(sampler)
    assert sorted(order) == list(range(403)) and list(sampler) == order
    batches = [[lengths[i] for i in order[k : k + 4]] for k in range(0, 403, 4)]
    within = sum(max(b) - min(b) for b in batches) / len(batches)
    assert within < 97 / 10  # shuffled micro-batches of four differ by more than half the range
    steps = [[n for batch in batches[k : k + 4] for n in batch] for k in range(0, 100, 4)]
    assert sum(max(s) - min(s) for s in steps) / len(steps) > 97 / 3
    sampler.epoch = 1
    assert list(sampler) != order


def test_a_too_long_session_says_what_to_change(tiny_student, sessions):
    with pytest.raises(ValueError, match=r"session 3: \d+ tokens.*max_length = 10.*max_title_words"):
        encode_example(sessions[3], tiny_student.tokenizer, PromptConfig(), max_length=10)


def test_training_learns_and_leaves_the_student_as_it_was(train, tiny_student):
    before = {k: v.clone() for k, v in tiny_student.model.state_dict().items()}
    result = train(epochs=20, r=8, learning_rate=3e-2)
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses[-1] < losses[0] - 0.3  # a random student with tied embeddings of this size cannot do much better
    assert len([row for row in result.history if "eval_loss" in row]) == 20
    after = tiny_student.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert result.tokens_per_second > 0


def test_only_layers_from_the_first_are_trained(train, tiny_student):
    n_layers = tiny_student.model.config.num_hidden_layers
    weights = load_file(train(first_layer=n_layers).folder / "adapter_model.safetensors")
    everywhere = load_file(train("everywhere").folder / "adapter_model.safetensors")
    assert {name for name in everywhere if f".layers.{n_layers - 1}." in name} == weights.keys()
    assert weights.keys() < everywhere.keys()
    one = load_file(train("one", first_layer=n_layers, target_modules=r".*q_proj").folder / "adapter_model.safetensors")
    assert {name.split(".lora_")[0] for name in one} == {
        f"base_model.model.model.layers.{n_layers - 1}.self_attn.q_proj"
    }
    with pytest.raises(ValueError, match=rf"first_layer = {n_layers + 1}: this student has {n_layers} layers"):
        train("too-high", first_layer=n_layers + 1)


def test_the_adapter_is_in_pefts_format_and_moves_the_student(train, tiny_student, sessions):
    result = train()
    assert {p.name for p in result.folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    }
    ids = torch.tensor([rows(tiny_student, sessions[:1])[0]["input_ids"]])
    plain = tiny_student.model(ids).logits
    model = load_expert(tiny_student, result.folder)
    assert not torch.allclose(model(ids).logits, plain, atol=1e-3)
    model.unload()
    assert torch.equal(tiny_student.model(ids).logits, plain)


def test_an_adapter_can_be_kept_while_it_trains(train, tiny_student, tmp_path):
    seen = []

    def keep(model, n_seen):
        known_as = model.peft_config["default"].base_model_name_or_path
        save_expert(model, tiny_student, tmp_path / f"after-{n_seen}")
        assert model.peft_config["default"].base_model_name_or_path == known_as
        seen.append(n_seen)

    watched = train("watched", on_epoch=keep)
    first, *_, last = (load_file(tmp_path / f"after-{n}" / "adapter_model.safetensors") for n in seen)
    end, alone = (load_file(r.folder / "adapter_model.safetensors") for r in (watched, train("alone")))
    assert all(torch.equal(last[name], end[name]) and torch.equal(end[name], alone[name]) for name in end)
    assert not all(torch.equal(first[name], end[name]) for name in end)
    assert {p.name for p in (tmp_path / f"after-{seen[0]}").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    load_expert(tiny_student, tmp_path / f"after-{seen[0]}").unload()  # named after its student


def test_same_seed_same_expert_other_seed_another(train):
    hashes = [sha256_folder(train(name, seed=seed).folder) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_finished_run_is_not_repeated_but_a_changed_one_is(train):
    first = train()
    written = (first.folder / "training.json").stat().st_mtime_ns
    assert train() == first
    assert (first.folder / "training.json").stat().st_mtime_ns == written
    train(learning_rate=1e-3)
    assert (first.folder / "training.json").stat().st_mtime_ns != written


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_run_goes_on_and_ends_where_it_would_have(train, tiny_profile, tmp_path, monkeypatch, dtype):
    from routedk_lite.student.trainer import TrainingProgress

    profile = replace(tiny_profile, student=replace(tiny_profile.student, dtype=dtype))
    student = load_student(profile, device="cpu")
    whole = train("whole", student, epochs=4)
    on_step_end = TrainingProgress.on_step_end

    def killed(self, args, state, control, **kwargs):
        on_step_end(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "on_step_end", killed)
    with pytest.raises(KeyboardInterrupt):
        train("cut", student, epochs=4)
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(TrainingProgress, "on_step_end", on_step_end)
    cut = train("cut", student, epochs=4)
    losses, expected = ([row["loss"] for row in found.history if "loss" in row] for found in (cut, whole))
    assert losses == expected
    one, two = (load_file(r.folder / "adapter_model.safetensors") for r in (whole, cut))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert [p.name for p in tmp_path.iterdir() if "training" in p.name] == []  # no checkpoints left behind


def test_an_expert_of_another_student_is_refused(train, tiny_student):
    result = train()
    other = tiny_student._replace(info=replace(tiny_student.info, id="another/student"))
    with pytest.raises(ValueError, match="trained on .*this student is 'another/student'"):
        load_expert(other, result.folder)


def test_no_sessions_is_an_error(tiny_student, tiny_profile, tmp_path):
    with pytest.raises(ValueError, match="sessions is empty"):
        train_expert(tiny_student, [], tmp_path / "x", config=tiny_profile.train)


class OfTwo(training.TrainingArguments):
    """Those of a machine with two GPUs."""

    def __post_init__(self):
        super().__post_init__()
        self._n_gpu = 2


def test_of_several_gpus_one_trains(train, monkeypatch):
    used, run = [], experts.run_trainer
    monkeypatch.setattr(training, "TrainingArguments", OfTwo)
    monkeypatch.setattr(experts, "run_trainer", lambda trainer: (used.append(trainer.args.n_gpu), run(trainer))[1])
    train()
    assert used == [1]


@pytest.mark.parametrize("recomputes", [False, True])
def test_what_a_training_does_to_the_student_is_undone(tiny_student, recomputes):
    model = tiny_student.model.to(torch.bfloat16).requires_grad_(False)
    if recomputes:
        model.gradient_checkpointing_enable()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    hooked = model.get_input_embeddings()(torch.tensor([[1]])).requires_grad
    with pytest.raises(KeyboardInterrupt), left_as_it_was(model):
        for weight in model.parameters():  # as PEFT prepares a student in four bits
            weight.data = weight.data.float()
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        model.enable_input_require_grads()
        raise KeyboardInterrupt
    after = dict(model.named_parameters())
    assert all(after[name].dtype == torch.bfloat16 and torch.equal(after[name], w) for name, w in before.items())
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules()) == recomputes
    assert model.get_input_embeddings()(torch.tensor([[1]])).requires_grad == hooked == recomputes


def test_missing_gradients_are_an_error_not_silence(train, monkeypatch):
    def detached(outputs, labels, num_items_in_batch=None):
        return torch.ones((), requires_grad=True) * 1

    monkeypatch.setattr(training, "answer_loss", detached)
    with pytest.raises(RuntimeError, match="no gradient reaches what is trained"):
        train()


def test_a_loss_that_is_not_finite_ends_the_training(train, monkeypatch, tmp_path):
    loss = training.answer_loss
    monkeypatch.setattr(training, "answer_loss", lambda *args, **how: loss(*args, **how) * float("nan"))
    with pytest.raises(
        ValueError, match=r"the loss is nan after step \d+: numbers overflow\. Leave the student's dtype"
    ):
        train()
    assert not list(tmp_path.rglob("training.json")) and not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.parametrize(("device", "launched", "refused"), [("cuda:1", "", True), ("cuda:1", "2", False)])
def test_a_student_on_the_second_gpu_is_not_moved_in_silence(
    tiny_student, sessions, tmp_path, monkeypatch, device, launched, refused
):
    monkeypatch.setenv("WORLD_SIZE", launched)
    monkeypatch.setattr(type(tiny_student.model), "device", torch.device(device))
    begun = RuntimeError("begun")
    monkeypatch.setattr(training, "TrainingArguments", lambda **how: (_ for _ in ()).throw(begun))
    error = (ValueError, r"device = cuda:1: .*\(CUDA_VISIBLE_DEVICES\)") if refused else (RuntimeError, "begun")
    with pytest.raises(error[0], match=error[1]):
        train_expert(tiny_student, sessions, tmp_path / "x", config=TrainConfig(), progress=False)


def test_bfloat16_trains_with_float32_masters(tiny_profile, sessions, tmp_path):
    profile = replace(tiny_profile, student=replace(tiny_profile.student, dtype="bfloat16"))
    student = load_student(profile, device="cpu")
    # So small a rate that bfloat16 alone would round every single update away from weights of this size.
    result = train_expert(student, sessions, tmp_path / "x", progress=False,
                          config=replace(profile.train, learning_rate=1e-5, epochs=20, warmup_ratio=0))  # fmt: skip
    weights = load_file(result.folder / "adapter_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert any(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)


def test_masters_follow_plain_adamw_and_survive_a_reload():
    torch.manual_seed(0)
    start = torch.randn(4, 3).bfloat16()
    plain = torch.nn.Parameter(start.float().clone())
    working = torch.nn.Parameter(start.clone())
    reference, ours = torch.optim.AdamW([plain], lr=1e-3), MasterAdamW([working], lr=1e-3)
    gradients = [torch.randn(4, 3).bfloat16() for _ in range(30)]

    def step(optimizer, parameter, gradient):
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        optimizer.zero_grad()
        assert parameter.grad is None

    for gradient in gradients[:20]:
        step(reference, plain, gradient)
        step(ours, working, gradient)
    with pytest.raises(RuntimeError, match="none of these weights has a gradient"):
        ours.step()
    reloaded_parameter = torch.nn.Parameter(working.detach().clone())
    reloaded = MasterAdamW([reloaded_parameter], lr=1e-3)
    reloaded.load_state_dict(ours.state_dict())
    for gradient in gradients[20:]:
        step(reference, plain, gradient)
        step(reloaded, reloaded_parameter, gradient)
    assert torch.equal(reloaded_parameter, plain.bfloat16())
    assert all(state["exp_avg_sq"].dtype == torch.float32 for state in reloaded.state.values())


def test_gradient_checkpointing_changes_nothing(train):
    plain, saved = (train(name, gradient_checkpointing=flag) for name, flag in (("a", False), ("b", True)))
    one, two = (load_file(r.folder / "adapter_model.safetensors") for r in (plain, saved))
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)


def test_the_configuration_is_kept_beside_the_weights(train):
    result = train()
    summary = json.loads((result.folder / "training.json").read_text())
    assert summary["config"]["seed"] == 0 and summary["config"]["r"] == 2
    assert summary["sessions"] == 8


# --- what an expert is told ---


@pytest.mark.parametrize("place", ["prompt", "masked", "target"])
def test_the_three_experts_learn_from_different_texts(place):
    """The toy shop's knowledge: rules and reasoning reach the student's text, and only where they should."""
    student, train = load_student("toy", device="cpu"), load_domain("toyshop", "train")
    knowledge = load_knowledge("toyshop")
    session = next(s for s in train if {"R1"} < set(knowledge.reasoning[s.id].rules))
    texts, answers = {}, {}
    for kind in ("none", "rules", "reasoning", "both"):
        told = KnowledgeConfig(kind=kind, place=place)
        example = encode_example(
            session, student.tokenizer, PromptConfig(), max_length=2000, knowledge=knowledge, told=told
        )
        texts[kind] = student.tokenizer.decode(example.input_ids, skip_special_tokens=True)
        answers[kind] = student.tokenizer.decode(example.input_ids[example.n_prompt :], skip_special_tokens=True)
        assert set(parse_answer(answers[kind], len(session)).bundles) == set(session.bundles)
        assert not parse_answer(answers[kind], len(session)).problems
    assert len(set(texts.values())) == 4
    raw = encode_example(session, student.tokenizer, PromptConfig(), max_length=2000)
    assert texts["none"] == student.tokenizer.decode(raw.input_ids, skip_special_tokens=True)
    reasoning, rules = knowledge.reasoning_text(session), knowledge.rules_text(session)
    assert rules in texts["rules"] and rules not in texts["reasoning"]
    assert (reasoning in texts["reasoning"]) == (place != "masked") and reasoning not in texts["rules"]
    for kind in ("rules", "reasoning"):
        assert (answers[kind] == answers["none"]) == (place != "target")


def test_experts_that_are_told_different_things_are_trained_apart(tiny_student, tiny_profile, tmp_path):
    knowledge = load_knowledge("toyshop")
    train = [s for s in load_domain("toyshop", "train") if knowledge.reasoning[s.id].rules][:4]
    prints = set()
    for kind in ("none", "rules", "reasoning"):
        found = train_expert(
            tiny_student,
            train,
            tmp_path / "expert",
            config=replace(tiny_profile.train, epochs=1, max_length=4000),
            knowledge=knowledge,
            told=KnowledgeConfig(kind=kind),
            progress=False,
        )
        prints.add(sha256_folder(found.folder))
        assert json.loads((found.folder / "training.json").read_text())["knowledge"]["kind"] == kind
    assert len(prints) == 3
