import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from routedk_lite.config import KnowledgeConfig, PromptConfig, TrainConfig, digest
from routedk_lite.data.sessions import Session
from routedk_lite.student import soft_targets as soft
from routedk_lite.student.batches import IGNORE, AnswerCollator
from routedk_lite.student.examples import SessionExamples, encode_example
from routedk_lite.student.experts import load_expert, train_expert
from routedk_lite.student.soft_targets import SoftTargets, TaughtExamples, cells, soft_loss
from routedk_lite.student.starting import Start
from routedk_lite.student.trainer import TrainingProgress
from routedk_lite.teacher.knowledge import Knowledge, Reasoning

DISTILLED = KnowledgeConfig(kind="reasoning", place="distilled")


@pytest.fixture
def knowledge(sessions):
    """Reasoning that names one item, so that it is rewritten when items are permuted."""
    about = {s.id: Reasoning(f"See item {len(s)} first.", (), noisy=False) for s in sessions}
    return Knowledge(domain="toyshop", rules={}, reasoning=about)


@pytest.fixture
def train(tiny_student, tiny_profile, sessions, knowledge, tmp_path):
    def run(folder, *, place="distilled", student=tiny_student, teacher=None, **changes):
        config = replace(tiny_profile.train, **changes)
        how = {"knowledge": knowledge, "told": KnowledgeConfig(kind="reasoning", place=place), "teacher": teacher}
        return train_expert(student, sessions[:8], tmp_path / folder, config=config, progress=False, **how)

    return run


@pytest.fixture
def teacher(train):
    """The expert that was told the reasoning in its prompt."""
    folder = train("teacher", place="prompt").folder
    return Start("teacher", lambda: folder)


@pytest.fixture
def examples(tiny_student, sessions, knowledge):
    def make(told=None, *, permute=False, fmt="compact"):
        def encode(session: Session, order):
            more = {"max_length": 1024, "knowledge": knowledge, "told": told, "order": order}
            return encode_example(session, tiny_student.tokenizer, PromptConfig(fmt=fmt), **more)

        return SessionExamples(sessions[:5], encode, permute=permute)

    return make


PROMPTED = KnowledgeConfig(kind="reasoning", place="prompt")


def weights(result):
    return load_file(result.folder / "adapter_model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)


def log_p_of(model, row):
    """One row's log-probabilities at the tokens it learns, from the whole text without padding."""
    learned = row.get("learned") or range(row["n_prompt"], len(row["input_ids"]))
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].float()
    return logits[[place - 1 for place in learned]].log_softmax(-1)


# --- the loss ---


def test_with_the_whole_vocabulary_it_is_torchs_own_kl():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 7, 11) * 3
    ids = teacher.topk(11).indices
    found = soft_loss(student, ids, cells(teacher, ids))
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    assert found.item() == pytest.approx(functional.kl_div(log_q, log_p, log_target=True, reduction="sum").item())


def test_cells_of_a_known_distribution():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    found = cells(logits, torch.tensor([[0, 1]])).exp()
    assert found.tolist() == [pytest.approx([0.5, 0.25, 0.25])]
    uniform = torch.zeros(1, 4)
    expected = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()  # over 1/2, 1/4, 1/4 and 1/4, 1/4, 1/2
    assert soft_loss(uniform, torch.tensor([[0, 1]]), found.log()).item() == pytest.approx(expected.item())


@given(seed=st.integers(0, 10**6), size=st.floats(0.1, 60.0))
def test_fewer_tokens_give_a_lower_bound_that_rises_to_the_kl(seed, size):
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(2, 3, 9, generator=generator) * size
    ids = teacher.topk(9).indices
    bounds = [soft_loss(student, ids[:, :k], cells(teacher, ids[:, :k])).item() for k in range(1, 10)]
    assert bounds[0] >= -1e-4 and all(a <= b + 1e-4 * max(1, b) for a, b in pairwise(bounds))


def test_who_expects_the_same_has_nothing_to_learn(tiny_student, tiny_profile, examples):
    rows = examples()
    targets = soft.soft_targets(tiny_student.model, tiny_student, list(rows), tiny_profile.train, progress=False)
    taught = TaughtExamples(rows, rows)
    taught.targets = [targets]
    batch = AnswerCollator(0)(list(taught))
    tiny_student.model.requires_grad_(True)
    learned = batch.pop("labels")[:, 1:] != IGNORE
    asked = batch.pop("soft")
    loss = soft_loss(
        tiny_student.model(**batch).logits[:, :-1][learned], asked["ids"][learned], asked["log_p"][learned]
    )
    loss.backward()
    assert abs(loss.item()) < 1e-4
    assert max(p.grad.abs().max() for p in tiny_student.model.parameters() if p.grad is not None) < 1e-4


# --- what is asked ---


@pytest.mark.parametrize("fmt", ["compact", "letters"])
def test_soft_targets_are_the_teachers_at_the_same_tokens(tiny_student, tiny_profile, examples, fmt):
    told, raw = examples(PROMPTED, fmt=fmt), examples(fmt=fmt)
    model, config = tiny_student.model, replace(tiny_profile.train, soft_tokens=5)
    targets = soft.soft_targets(model, tiny_student, list(told), config, progress=False)
    for row, other, found in zip(told, raw, targets, strict=True):
        expected = log_p_of(model, row)
        assert found.ids.shape == (len(expected), 5) and found.log_p.shape == (len(expected), 6)
        assert found.log_p[:, :5].allclose(expected.gather(-1, found.ids.long()), atol=1e-4)
        assert found.log_p.exp().sum(-1).allclose(torch.ones(len(expected)), atol=1e-5)
        assert len(row["input_ids"]) > len(other["input_ids"]), "the expert does not see what the teacher was told"
        assert row["input_ids"][row["n_prompt"] :] == other["input_ids"][other["n_prompt"] :]


def test_in_a_batch_each_soft_target_stands_at_its_token(tiny_student, tiny_profile, examples):
    raw = examples()
    taught = TaughtExamples(raw, examples(PROMPTED))
    n_tokens = [len(row["input_ids"]) - row["n_prompt"] for row in raw]
    taught.targets = [
        [SoftTargets(torch.full((n, 1), i), torch.arange(n)[:, None] + 0.5) for i, n in enumerate(n_tokens)]
    ]
    batch = AnswerCollator(0)(list(taught))
    for i, row in enumerate(raw):
        learned = batch["labels"][i, 1:] != IGNORE
        assert batch["labels"][i, 1:][learned].tolist() == row["input_ids"][row["n_prompt"] :]
        assert batch["soft"]["log_p"][i][learned].flatten().tolist() == [n + 0.5 for n in range(n_tokens[i])]
        assert (batch["soft"]["ids"][i][learned] == i).all() and not batch["soft"]["ids"][i][~learned].any()


def test_permuted_items_have_the_soft_targets_of_the_same_order(
    tiny_student, tiny_profile, examples, teacher, tmp_path
):
    taught = TaughtExamples(examples(permute=True), examples(PROMPTED, permute=True))
    config = replace(tiny_profile.train, epochs=3, soft_tokens=4)
    model = load_expert(tiny_student, teacher.folder())
    taught.ask(model, tiny_student, tmp_path / "work", config, progress=False)
    told, seen = examples(PROMPTED, permute=True), set()
    for epoch in range(3):
        taught.epoch = told.epoch = epoch
        for row, told_row in zip(taught, told, strict=True):
            assert row["input_ids"][row["n_prompt"] :] == told_row["input_ids"][told_row["n_prompt"] :]
            expected = log_p_of(model, told_row)
            assert row["soft"].log_p[:, :4].allclose(expected.gather(-1, row["soft"].ids.long()), atol=1e-4)
        seen.add(tuple(taught[4]["input_ids"]))
    model.unload()
    assert len(seen) > 1, "otherwise every order would do"


def test_what_was_asked_is_not_asked_again_unless_it_is_damaged(
    tiny_student, tiny_profile, examples, tmp_path, monkeypatch
):
    raw, told, work = examples(permute=True), examples(PROMPTED, permute=True), tmp_path / "work"
    calls, ask = [], soft.soft_targets
    monkeypatch.setattr(soft, "soft_targets", lambda *args, **more: [calls.append(1), ask(*args, **more)][1])

    def asked():
        taught = TaughtExamples(raw, told)
        taught.ask(tiny_student.model, tiny_student, work, tiny_profile.train, progress=False)
        return [tensor for epoch in taught.targets for one in epoch for tensor in one]

    first = asked()
    assert len(calls) == tiny_profile.train.epochs == 2
    again = asked()
    assert len(calls) == 2 and all(a.equal(b) and a.dtype == b.dtype for a, b in zip(first, again, strict=True))
    path = work / "soft-1.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    repaired = asked()
    assert len(calls) == 3 and all(a.equal(b) for a, b in zip(first, repaired, strict=True))


# --- training ---


def test_an_expert_comes_to_expect_what_its_teacher_does(train, teacher, tiny_student, examples):
    def far_from_the_teacher(folder):
        model = load_expert(tiny_student, folder)
        found = [log_p_of(model, row) for row in examples()]
        model.unload()
        p, q = torch.cat(asked), torch.cat(found)
        return float(functional.kl_div(q, p, log_target=True, reduction="sum"))

    model = load_expert(tiny_student, teacher.folder())
    asked = [log_p_of(model, row) for row in examples(PROMPTED)]
    model.unload()
    before = {name: tensor.clone() for name, tensor in tiny_student.model.state_dict().items()}
    start = far_from_the_teacher(train("still", teacher=teacher, learning_rate=1e-12, epochs=1).folder)
    distilled = train("distilled", teacher=teacher, epochs=12, r=8)
    assert far_from_the_teacher(distilled.folder) < 0.2 * start
    assert same(before, tiny_student.model.state_dict())
    assert {path.name for path in distilled.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "training.json",
    }  # fmt: skip
    summary = json.loads((distilled.folder / "training.json").read_text())
    assert summary["knowledge"] == {"kind": "reasoning", "place": "distilled"}
    assert not list(distilled.folder.parent.glob(".*.training"))


def test_the_loss_is_a_mean_over_all_tokens_of_a_step(train, teacher):
    """However a step is cut into micro-batches; the last of four holds a single session."""
    how = {"teacher": teacher, "epochs": 1, "warmup_ratio": 0.0}
    for weight in (1.0, 0.5):
        whole = train("whole", micro_batch_size=8, accumulation_steps=1, soft_weight=weight, **how)
        cut = train("cut", micro_batch_size=3, accumulation_steps=3, soft_weight=weight, **how)
        one, two = ([row["loss"] for row in r.history if "loss" in row] for r in (whole, cut))
        assert one == pytest.approx(two, rel=1e-4)


def test_a_weight_mixes_in_the_annotated_answers(train, teacher, tmp_path):
    still = {"learning_rate": 1e-12, "epochs": 1}
    losses = {
        weight: train(f"weight-{weight}", teacher=teacher, soft_weight=weight, **still).history[0]["loss"]
        for weight in (1.0, 0.25)
    }
    hard = train("base", place="distilled", teacher=teacher, soft_weight=1e-9, **still).history[0]["loss"]
    assert losses[0.25] == pytest.approx(0.25 * losses[1.0] + 0.75 * hard, rel=1e-4)
    assert losses[1.0] < hard


def test_validation_asks_for_the_annotated_answers_as_with_every_expert(
    tiny_student, tiny_profile, sessions, knowledge, teacher, tmp_path
):
    config = replace(tiny_profile.train, learning_rate=1e-12, epochs=1)
    common = {"config": config, "validation": sessions[8:], "progress": False}
    raw = train_expert(tiny_student, sessions[:8], tmp_path / "raw", **common)
    how = {"knowledge": knowledge, "told": DISTILLED, "teacher": teacher}
    taught = train_expert(tiny_student, sessions[:8], tmp_path / "taught", **common, **how)
    one, two = ([row["eval_loss"] for row in r.history if "eval_loss" in row] for r in (raw, taught))
    assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("moment", ["while the teacher is asked", "in training"])
def test_a_stopped_training_ends_as_one_that_was_never_stopped(train, teacher, monkeypatch, tmp_path, moment):
    whole = train("whole", teacher=teacher, permute=True, epochs=3)
    ask, step, asked = soft.soft_targets, TrainingProgress.on_step_end, []

    def counted(*args, **more):
        asked.append(1)
        if moment.startswith("while") and len(asked) == 2:
            raise KeyboardInterrupt
        return ask(*args, **more)

    def stopped(self, args, state, control, **more):
        step(self, args, state, control, **more)
        if state.global_step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(soft, "soft_targets", counted)
    monkeypatch.setattr(TrainingProgress, "on_step_end", stopped if moment == "in training" else step)
    with pytest.raises(KeyboardInterrupt):
        train("cut", teacher=teacher, permute=True, epochs=3)
    monkeypatch.setattr(TrainingProgress, "on_step_end", step)
    before = len(asked)
    cut = train("cut", teacher=teacher, permute=True, epochs=3)
    assert len(asked) - before == (2 if moment.startswith("while") else 0), "each epoch is asked about once"
    assert same(weights(whole), weights(cut))
    one, two = ([row["loss"] for row in r.history if "loss" in row] for r in (whole, cut))
    assert one == two


def test_a_finished_expert_needs_no_teacher_but_is_known_by_it(train, teacher):
    done = train("expert", teacher=teacher)

    def never():
        raise AssertionError("nothing is to be trained")

    assert train("expert", teacher=Start("teacher", never)).history == done.history
    with pytest.raises(AssertionError, match="nothing is to be trained"):
        train("expert", teacher=Start("another", never))
    with pytest.raises(AssertionError, match="nothing is to be trained"):
        train("expert", teacher=Start("teacher", never), soft_weight=0.5)


def test_what_the_teacher_is_told_counts_too(tiny_student, tiny_profile, sessions, knowledge, teacher, tmp_path):
    digests = set()
    for other in (knowledge, replace(knowledge, reasoning={s.id: Reasoning("No.", (), False) for s in sessions})):
        how = {"knowledge": other, "told": DISTILLED, "teacher": teacher, "config": tiny_profile.train}
        result = train_expert(tiny_student, sessions[:4], tmp_path / "x", progress=False, **how)
        digests.add(json.loads((result.folder / "training.json").read_text())["digest"])
    assert len(digests) == 2


def test_settings_of_other_experts_keep_their_digest():
    plain = TrainConfig()
    assert digest(plain) == "0abb427e", "as in the records made before there was a teacher"
    assert digest(plain) == digest(replace(plain, soft_weight=1.0, soft_tokens=64))
    assert len({digest(plain), digest(replace(plain, soft_weight=0.5)), digest(replace(plain, soft_tokens=8))}) == 3


# --- what is refused ---


@pytest.mark.parametrize(
    ("field", "value"), [("soft_weight", 0.0), ("soft_weight", 1.5), ("soft_tokens", 0), ("soft_tokens", 2.5)]
)
def test_settings_are_checked_by_field(field, value):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})


def test_a_teacher_and_something_to_distil_belong_together(train, teacher):
    with pytest.raises(ValueError, match="distilled.*give teacher"):
        train("expert")
    with pytest.raises(ValueError, match="nothing to learn from it"):
        train("expert", place="prompt", teacher=teacher)
