"""Pairs read from a student's states, the training that sharpens them, and the texts they stand in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from routedk_lite.answers.partitions import pair_values
from routedk_lite.config import KnowledgeConfig, PairConfig, PromptConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.prompts import build_prompt, title_spans, tokenize_prompt
from routedk_lite.data.sessions import DataError
from routedk_lite.student.batches import AnswerCollator
from routedk_lite.student.examples import SessionExamples, encode_example
from routedk_lite.student.experts import load_expert, train_expert
from routedk_lite.student.pairs import make_reader, pad_spans, read_pairs
from routedk_lite.teacher.knowledge import load_knowledge

CONFIG = PairConfig(layer=2)


def log_loss(logits, sessions):
    """Mean negative log-likelihood of "share a bundle" over all pairs of all sessions, in nats."""
    values, together = pair_values(logits, sessions)
    return float(np.logaddexp(0, np.where(together, -values, values)).mean())


def encoded(student, session, prompt=None, **options):
    return encode_example(session, student.tokenizer, prompt or PromptConfig(), max_length=10_000, **options)


@pytest.mark.parametrize("prompt", [PromptConfig(), PromptConfig(fmt="aicl"), PromptConfig(max_title_words=1)])
def test_spans_hold_the_titles(tiny_student, sessions, prompt):
    for session in [*sessions, replace(sessions[0], titles=('13" case, it\'s "new"', "13"))]:
        example = encoded(tiny_student, session, prompt)
        for title, (start, end) in zip(session.titles, example.spans, strict=True):
            written = title if prompt.max_title_words is None else " ".join(title.split()[: prompt.max_title_words])
            text = tiny_student.tokenizer.decode(example.input_ids[start:end])
            assert text.replace("\\", "") in (written, written.replace("\\", ""))


def test_targets_say_which_items_share_a_bundle(tiny_student, sessions):
    session = replace(sessions[3], bundles=(frozenset({1, 3}),))
    assert encoded(tiny_student, session).together[0][:3] == [1, 0, 1]


# --- items in another order ---


def test_a_permuted_session_has_the_same_bundles_of_titles(sessions):
    for session in sessions:
        order = list(range(len(session)))[::-1]
        moved = session.permuted(order)

        def sets(s):
            return {frozenset(s.titles[n - 1] for n in b) for b in s.bundles}

        assert sets(moved) == sets(session)
        assert moved.permuted(order) == replace(session, why=())
    with pytest.raises(DataError, match="order \\[0, 0\\] must name each"):
        sessions[0].permuted([0, 0])


def test_reasoning_follows_the_items(tiny_student):
    knowledge = load_knowledge("toyshop")
    session = next(s for s in load_domain("toyshop", "train") if len(s) == 5)
    order = [4, 2, 0, 1, 3]
    options = {"knowledge": knowledge, "told": KnowledgeConfig(kind="reasoning")}
    moved = encoded(tiny_student, session, order=order, **options)
    text = tiny_student.tokenizer.decode(moved.input_ids, skip_special_tokens=True)
    listed = [session.titles[k] for k in order]
    assert all(f"{n}. {title}" in text for n, title in enumerate(listed, 1))
    back = {str(new + 1): old + 1 for new, old in enumerate(order)}
    reasoning = text.partition("Hints:\n")[2].partition("\nBundles:")[0]
    words = reasoning.replace(",", " ").replace(".", " ").replace("(", " ").split()
    named = {back[w] for k, w in enumerate(words) if w in back and words[k - 1].lower() in ("item", "items", "and")}
    assert named and named <= set().union(*session.bundles)


def test_orders_differ_between_epochs_and_not_between_runs(tiny_student, sessions):
    def examples():
        return SessionExamples(sessions, lambda s, order: encoded(tiny_student, s, order=order), permute=True, seed=1)

    one, other = examples(), examples()
    first = [one[k]["input_ids"] for k in range(len(one))]
    assert first == [other[k]["input_ids"] for k in range(len(other))]
    one.epoch = 1
    assert first != [one[k]["input_ids"] for k in range(len(one))]
    assert [len(row["input_ids"]) for row in one.plain] == one.lengths


# --- reading ---


def by_hand(student, session, reader, order):
    """Pair logits of one prompt without padding."""
    moved = session.permuted(order)
    text = build_prompt(moved.titles, tokenizer=student.tokenizer)
    encoded = tokenize_prompt(text, student.tokenizer)
    with torch.no_grad():
        hidden = student.model(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states[CONFIG.layer][0]
    h = torch.stack([hidden[a:b].mean(0) - reader.centre for a, b in title_spans(text, encoded)])
    h = h / h.norm(dim=-1, keepdim=True)
    logits = (CONFIG.scale * h @ h.T + CONFIG.shift).numpy()
    back = np.argsort(order)
    return logits[np.ix_(back, back)]


def test_pair_logits_equal_those_by_hand_over_both_orders(tiny_student, sessions):
    reader = make_reader(tiny_student, sessions, CONFIG)
    found = read_pairs(tiny_student.model, tiny_student.tokenizer, sessions, reader, batch_size=4, progress=False)
    for session in sessions:
        n = len(session)
        orders = [list(range(n)), list(range(n))[::-1]]
        expected = np.mean([by_hand(tiny_student, session, reader, order) for order in orders], axis=0)
        assert np.allclose(found[session.id], expected, atol=1e-3)


def test_the_centre_is_the_mean_state_of_titles(tiny_student, sessions):
    reader = make_reader(tiny_student, sessions[:3], CONFIG)
    states = []
    for session in sessions[:3]:
        example = encoded(tiny_student, session)
        with torch.no_grad():
            output = tiny_student.model(torch.tensor([example.input_ids]), output_hidden_states=True)
        hidden = output.hidden_states[CONFIG.layer]
        states += [hidden[0, a:b].mean(0) for a, b in example.spans]
    assert torch.allclose(reader.centre, torch.stack(states).mean(0), atol=1e-4)


def test_a_layer_that_is_not_there_is_refused(tiny_student, sessions):
    with pytest.raises(ValueError, match="layer = 3: this student has 2 layers"):
        make_reader(tiny_student, sessions, PairConfig(layer=3))


def test_the_loss_counts_every_pair_once_and_no_padding(tiny_student, sessions):
    reader = make_reader(tiny_student, sessions, CONFIG)
    rows = [encoded(tiny_student, s)._asdict() for s in sessions[:5]]
    batch = AnswerCollator(0, pairs=True)(rows)
    with torch.no_grad():
        output = tiny_student.model(
            **{k: v for k, v in batch.items() if k not in ("labels", "spans", "together")}, output_hidden_states=True
        )
    found = reader.loss(output.hidden_states[2], batch["spans"], batch["together"])
    expected = 0.0
    for session in sessions[:5]:
        logits = by_hand(tiny_student, session, reader, list(range(len(session))))
        pairs = len(session) * (len(session) - 1) // 2
        expected += pairs * log_loss({session.id: logits}, [session])
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_padding_of_spans():
    padded = pad_spans([([(1, 3)], 2), ([(0, 1), (2, 4)], 0)])
    assert padded.tolist() == [[[3, 5], [-1, -1]], [[0, 1], [2, 4]]]


# --- training ---


def test_training_on_pairs_tells_them_apart(tiny_student, tiny_profile, sessions, tmp_path):
    """Ten sessions by heart: the pair loss falls far below what the bare student has."""
    reader = make_reader(tiny_student, sessions, CONFIG)
    before = log_loss(
        read_pairs(tiny_student.model, tiny_student.tokenizer, sessions, reader, progress=False), sessions
    )
    config = replace(
        tiny_profile.train, r=8, epochs=15, pair_weight=1.0, answer_weight=0.2, permute=True, micro_batch_size=2,
        accumulation_steps=2,
    )  # fmt: skip
    options = {"config": config, "reader": reader, "validation": sessions, "progress": False}
    result = train_expert(tiny_student, sessions, tmp_path / "expert", **options)
    losses = [row["eval_pair_loss"] for row in result.history if "eval_pair_loss" in row]
    assert len(losses) == 15 and losses[-1] < losses[0]
    assert all("pair_loss" in row for row in result.history if "loss" in row)
    model = load_expert(tiny_student, result.folder)
    after = log_loss(read_pairs(model, tiny_student.tokenizer, sessions, reader, progress=False), sessions)
    model.unload()
    assert after < 0.8 * before


def test_a_pair_weight_needs_a_reader(tiny_student, tiny_profile, sessions, tmp_path):
    config = replace(tiny_profile.train, pair_weight=1.0)
    with pytest.raises(ValueError, match="pair_weight = 1.0 without a PairReader"):
        train_expert(tiny_student, sessions, tmp_path / "x", config=config, progress=False)
    with pytest.raises(ValueError, match="answer_weight = 0, pair_weight = 0.0: nothing to learn"):
        train_expert(tiny_student, sessions, tmp_path / "x", config=replace(config, pair_weight=0.0, answer_weight=0))
