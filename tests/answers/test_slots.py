"""Answers of which only letters are chosen: against a plain loop without cache or padding, plain and routed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapted import learned, make_adapter
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.analysis.diagnostics import answer_nats
from routedk_lite.answers.decoding import Answer, Samples, greedy_answers, sample_bundles
from routedk_lite.answers.verifier import FEATURES, candidate_features
from routedk_lite.config import DecodeConfig, PairConfig, PromptConfig
from routedk_lite.data.formats import FORMATS, letter_slots, letters_of
from routedk_lite.data.parsing import parse_answer, read_letters
from routedk_lite.data.prompts import build_prompt, encode_prompt, encode_slots
from routedk_lite.fusion.fusion import Average, Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.batches import IGNORE, AnswerCollator
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import load_expert, train_expert
from routedk_lite.student.pairs import make_reader, read_pairs

LETTERS = PromptConfig(fmt="letters")
SETTINGS = DecodeConfig(batch_size=4)


def draw(student, sessions, model=None, n=6, **options):
    options = {"prompt": LETTERS, "decode": SETTINGS, "progress": False, "seed": 3} | options
    found = sample_bundles(model or student.model, student.tokenizer, sessions, n, **options)
    return {one.id: one for one in found}


def plainly(student, session, uniform, model=None, **routing):
    """One answer by a loop that reads everything anew for each letter: its letters, and their mean log-probability."""
    model, tokenizer = model or student.model, student.tokenizer
    slots = letter_slots(session.titles)
    tokens = encode_slots(slots, tokenizer)
    prompt = encode_prompt(build_prompt(session.titles, fmt="letters", tokenizer=tokenizer), tokenizer)
    ids, chosen, nats = list(prompt), [], 0.0
    for place, before in enumerate(tokens.given):
        ids += before
        legal = slots.legal(chosen)
        if routing:
            mask = torch.tensor([[1] * len(prompt) + [0] * (len(ids) - len(prompt))])
            routing["prompt_mask"] = mask
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False, **routing).logits[0, -1]
        log_p = logits[[tokens.choices[c] for c in legal]].log_softmax(-1).double()
        below = log_p.exp().cumsum(0)
        k = int(log_p.argmax()) if uniform is None else int((below <= float(uniform[place]) * below[-1]).sum())
        chosen.append(legal[k])
        nats += float(log_p[k])
        ids.append(tokens.choices[legal[k]])
    return " ".join(slots.choices[c].strip() for c in chosen), nats / len(chosen), len(chosen)


def check(student, sessions, found, model=None, **routing):
    for session in sessions:
        text, log_prob, n_tokens = plainly(student, session, None, model, **routing)
        greedy = found[session.id].greedy
        assert (greedy.text, greedy.n_tokens) == (text, n_tokens)
        assert greedy.log_prob == pytest.approx(log_prob, abs=1e-4)
        for k, answer in enumerate(found[session.id].drawn):
            uniform = np.random.default_rng([3, session.id, k]).random(len(session))
            text, log_prob, _ = plainly(student, session, uniform, model, **routing)
            assert answer.text == text and answer.log_prob == pytest.approx(log_prob, abs=1e-4)


def test_samples_equal_those_of_a_plain_loop(tiny_student, sessions):
    found = draw(tiny_student, sessions)
    check(tiny_student, sessions, found)
    assert len({answer.text for one in found.values() for answer in one.drawn}) > 10


def test_greedy_answers_are_the_greedy_ones_of_a_draw(tiny_student, sessions):
    drawn = draw(tiny_student, sessions, n=2)
    for answer in greedy_answers(
        tiny_student.model, tiny_student.tokenizer, sessions, prompt=LETTERS, decode=SETTINGS, progress=False
    ):
        assert answer.bundles == drawn[answer.id].greedy.bundles and answer.text == drawn[answer.id].greedy.text


def test_a_longer_draw_begins_with_the_shorter_one_whatever_the_batches(tiny_student, sessions):
    long = draw(tiny_student, sessions, n=8)
    short = draw(tiny_student, sessions[:5], n=3, decode=DecodeConfig(batch_size=1, max_new_tokens=3))
    for id_, one in short.items():
        assert [a.text for a in one.drawn] == [a.text for a in long[id_].drawn[:3]]


def test_only_legal_letters_are_chosen_and_all_of_them_can_be(tiny_student, sessions):
    found = draw(tiny_student, sessions, n=40, temperature=5.0)
    for session in sessions:
        texts = {answer.text for answer in found[session.id].drawn}
        for text in texts:
            letters = list(dict.fromkeys(c for c in text.split() if c != "-"))
            assert letters == list("AB"[: max(len(session) // 2, 1)])[: len(letters)]
    assert {answer.text for answer in found[0].drawn} == {"A A", "A -", "- A", "- -"}


def test_a_cold_draw_and_a_small_top_p_are_greedy(tiny_student, sessions):
    for options in ({"temperature": 1e-4}, {"top_p": 1e-6}):
        for one in draw(tiny_student, sessions, n=3, **options).values():
            assert {answer.text for answer in one.drawn} == {one.greedy.text}


def rounded(answer):
    return answer._replace(log_prob=round(answer.log_prob, 4))


def test_samples_survive_their_file(tiny_student, sessions):
    """With what is wrong with them: a letter that only one product has, or none at all."""
    kinds = set()
    for one in draw(tiny_student, sessions[:4], n=30, temperature=5.0).values():
        row = json.loads(json.dumps(one.to_json()))
        again = Samples.from_json(row)
        assert "letters" in row and list(map(rounded, again.drawn)) == list(map(rounded, one.drawn))
        assert rounded(again.greedy) == rounded(one.greedy)
        kinds |= {problem.kind for answer in again.drawn for problem in answer.problems}
    assert kinds == {"single item", "unreadable"}


def test_the_whole_answers_log_probability_is_the_mean_times_the_tokens_that_are_chosen(tiny_student, sessions):
    """Sessions of several lengths are compared by it (`verifier`), and what is given costs nothing."""
    for one in draw(tiny_student, sessions, n=4).values():
        for answer in one.drawn:
            _, log_probs = candidate_features([answer])
            whole, mean = (log_probs[0, FEATURES.index(name)] for name in FEATURES[:2]) if answer.bundles else (0, 0)
            assert whole == pytest.approx(mean * len(sessions[one.id]))


@given(st.lists(st.text("AB- 12\n", max_size=8), min_size=1, max_size=3), st.sampled_from(sorted(FORMATS)))
def test_answers_that_only_look_like_letters_keep_their_problems(texts, fmt):
    drawn = tuple(Answer(7, text, *parse_answer(text, 3, fmt), len(text), -0.5) for text in texts)
    assert Samples.from_json(Samples(7, drawn[0], drawn).to_json()).drawn == drawn


def test_what_is_wrong_with_letters_is_said():
    assert read_letters("A B A C") == ((frozenset({1, 3}),), (("single item", "2"), ("single item", "4")))
    assert read_letters("- -") == ((), (("unreadable", "- -"),))
    assert read_letters("A 1") is None and read_letters("") is None


# --- routed ---


@pytest.fixture
def routed(tiny_student, tiny_llama, tmp_path):
    folders = [make_adapter(tiny_llama, tmp_path / f"e{k}", r=2, targets="all-linear", seed=k + 1) for k in range(2)]
    model = learned(RoutedModel(tiny_student.model, folders, Dynamic()), size=0.5)
    yield model
    model.unload()


def test_the_router_sees_the_prompt_and_not_what_is_given_of_the_answer(tiny_student, routed, sessions):
    check(tiny_student, sessions, draw(tiny_student, sessions, routed), routed, prompt_mask=None)


def test_given_weights_replace_those_of_the_router(tiny_student, routed, sessions):
    even = {s.id: np.full((2, 2), 0.5, dtype=np.float32) for s in sessions}
    found = draw(tiny_student, sessions, routed, alpha=even)
    own = draw(tiny_student, sessions, routed)
    assert any(found[i].greedy.log_prob != pytest.approx(own[i].greedy.log_prob, abs=1e-3) for i in found)
    folders = routed.adapters
    routed.unload()
    average = RoutedModel(tiny_student.model, folders, Average())
    same = draw(tiny_student, sessions, average)
    for id_, one in found.items():
        assert [a.text for a in one.drawn] == [a.text for a in same[id_].drawn]
    average.unload()


# --- in training ---


def test_only_letters_are_learned_and_their_logits_alone_are_computed(tiny_student, sessions):
    rows = [encode_example(s, tiny_student.tokenizer, LETTERS, max_length=1024) for s in sessions[:4]]
    batch = AnswerCollator(0)([row.row() for row in rows])
    tokenizer, width = tiny_student.tokenizer, batch["input_ids"].shape[1]
    keep = batch["logits_to_keep"].tolist()
    assert keep == sorted(set(keep)) and keep[-1] == width - 1
    for row, ids, labels, session in zip(rows, batch["input_ids"], batch["labels"], sessions, strict=False):
        assert labels[0] == IGNORE
        places = zip(keep[:-1], labels[1:].tolist(), strict=True)
        wanted = [int(ids[k + 1]) for k, label in places if label != IGNORE]
        assert wanted == [label for label in labels.tolist() if label != IGNORE]
        slots = letter_slots(session.titles)
        choices = encode_slots(slots, tokenizer).choices
        assert wanted == [choices[c] for c in letters_of(session.bundles, len(session))]
        assert tokenizer.decode(row.input_ids).endswith(slots.text(letters_of(session.bundles, len(session))))


def test_states_of_lines_are_those_before_their_letters(tiny_student, sessions):
    row = encode_example(sessions[3], tiny_student.tokenizer, LETTERS, max_length=1024, pairs_at="lines")
    assert row.spans == [(place - 1, place) for place in row.learned] and len(row.spans) == len(sessions[3])
    with pytest.raises(ValueError, match="pairs_at = 'lines': an answer in the format 'compact'"):
        encode_example(sessions[3], tiny_student.tokenizer, PromptConfig(), max_length=1024, pairs_at="lines")


def test_an_expert_learns_letters_with_the_states_of_its_lines(tiny_student, tiny_profile, sessions, tmp_path):
    reader = make_reader(tiny_student, sessions, PairConfig(layer=1, at="lines"), LETTERS)
    config = replace(tiny_profile.train, pair_weight=0.5, epochs=8, permute=True)
    before = answer_nats(tiny_student, sessions, prompt=LETTERS, progress=False).sum()
    options = {"config": config, "prompt": LETTERS, "reader": reader, "validation": sessions[:4], "progress": False}
    result = train_expert(tiny_student, sessions, tmp_path / "letters", **options)
    pairs = [row["eval_pair_loss"] for row in result.history if "eval_pair_loss" in row]
    assert pairs[-1] < pairs[0]
    model = load_expert(tiny_student, result.folder)
    assert answer_nats(tiny_student, sessions, model=model, prompt=LETTERS, progress=False).sum() < before - 15
    with pytest.raises(ValueError, match="at = 'lines': these states exist in training only"):
        read_pairs(model, tiny_student.tokenizer, sessions, reader, prompt=LETTERS)
    model.unload()
