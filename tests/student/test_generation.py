"""Greedy is the most likely token whatever a student's own settings say; any end token ends; pads never matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapted import learned, make_adapter
from tokenized import CHATS, byte_level
from transformers import GenerationConfig

from routedk_lite.answers.asking import ask
from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.config import DecodeConfig, PairConfig, PromptConfig
from routedk_lite.data.parsing import parse_answer
from routedk_lite.data.prompts import build_prompt, encode_prompt
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.batches import AnswerCollator
from routedk_lite.student.examples import encode_example
from routedk_lite.student.experts import train_expert
from routedk_lite.student.generation import end_tokens, pad_token, until_end, written_text
from routedk_lite.student.local_teacher import LocalTeacher
from routedk_lite.student.pairs import make_reader, read_pairs

SETTINGS = DecodeConfig(batch_size=4, max_new_tokens=12)


def greedy(student, sessions, model=None, **options):
    options = {"decode": SETTINGS, "progress": False} | options
    return {a.id: a for a in greedy_answers(model or student.model, student.tokenizer, sessions, **options)}


def drawn(student, sessions, n=3, model=None, **options):
    options = {"decode": SETTINGS, "progress": False, "temperature": 1.5} | options
    return {s.id: s for s in sample_bundles(model or student.model, student.tokenizer, sessions, n, **options)}


def by_hand(student, ids, steps, ends, model=None):
    """The most likely token at every step, without cache or padding."""
    made = []
    while len(made) < steps and (not made or made[-1] not in ends):
        with torch.no_grad():
            logits = (model or student.model)(torch.tensor([ids + made]), use_cache=False).logits
        made.append(int(logits[0, -1].argmax()))
    return made


OWN = [
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 1},
    {"num_beams": 3},
    {"min_new_tokens": 10},
    {"min_length": 4000},
    {"max_length": 3},
    {"do_sample": True, "temperature": 3.0},
    {"bad_words_ids": [[k] for k in range(3, 140)]},
    {"suppress_tokens": list(range(3, 140))},
    {"begin_suppress_tokens": list(range(3, 140))},
    {"forced_bos_token_id": 9},
    {"forced_eos_token_id": 9},
    {"sequence_bias": [[[7], 100.0]]},
    {"exponential_decay_length_penalty": [0, 9.0]},
    {"guidance_scale": 4.0},
    {"encoder_repetition_penalty": 3.0},
    {"remove_invalid_values": True},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"prompt_lookup_num_tokens": 3},
    {"use_cache": False},
    {"cache_implementation": "static"},
    {"return_dict_in_generate": True, "output_scores": True},
    {"num_return_sequences": 2, "num_beams": 2},
]


@pytest.mark.parametrize("own", OWN, ids=lambda own: next(iter(own)))
def test_greedy_is_argmax_whatever_the_student_brings(tiny_student, sessions, own):
    usual = greedy(tiny_student, sessions[:5])
    before = tiny_student.model.generation_config = GenerationConfig(eos_token_id=2, **own)
    assert greedy(tiny_student, sessions[:5]) == usual
    assert tiny_student.model.generation_config is before
    for session in sessions[:2]:
        ids = encode_prompt(build_prompt(session.titles), tiny_student.tokenizer)
        made = by_hand(tiny_student, ids, 12, {2})
        assert usual[session.id].n_tokens == len(made)
        assert usual[session.id].text == tiny_student.tokenizer.decode(made, skip_special_tokens=True)


def test_experts_and_routed_models_are_asked_likewise(tiny_student, tiny_llama, tiny_profile, sessions, tmp_path):
    from peft import PeftModel

    folders = [make_adapter(tiny_llama, tmp_path / f"e{k}", r=2, targets="all-linear", seed=k) for k in range(2)]
    own = GenerationConfig(eos_token_id=2, repetition_penalty=1.9, num_beams=2)

    def check(model, unload):
        usual = greedy(tiny_student, sessions[:4], model)
        tiny_student.model.generation_config = own
        assert greedy(tiny_student, sessions[:4], model) == usual
        assert model.generation_config is own
        ids = encode_prompt(build_prompt(sessions[3].titles), tiny_student.tokenizer)
        made = by_hand(tiny_student, ids, 12, {2}, model)
        assert usual[3].n_tokens == len(made)
        unload()
        tiny_student.model.generation_config = GenerationConfig(eos_token_id=2)

    expert = PeftModel.from_pretrained(tiny_student.model, str(folders[0]))
    check(expert, expert.unload)
    routed = learned(RoutedModel(tiny_student.model, folders, Dynamic()))
    reading = ask(routed, tiny_student, sessions[3], profile=tiny_profile)
    tiny_student.model.generation_config = own
    again = ask(routed, tiny_student, sessions[3], profile=tiny_profile)
    assert [t.text for t in again.tokens] == [t.text for t in reading.tokens]
    assert again.bundles == reading.bundles
    tiny_student.model.generation_config = GenerationConfig(eos_token_id=2)
    check(routed, routed.unload)


def test_settings_of_a_student_come_back_after_an_error(tiny_student, sessions, monkeypatch):
    own = tiny_student.model.generation_config

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_student.model, "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        greedy(tiny_student, sessions[:1])
    assert tiny_student.model.generation_config is own


# --- ends ---


@pytest.fixture
def two_ends(tiny_student, sessions):
    """The student, and an end token of its settings that its tokenizer does not know as one: what it often writes."""
    counts = np.zeros(259, dtype=int)
    for session in sessions:
        ids = encode_prompt(build_prompt(session.titles), tiny_student.tokenizer)
        counts[by_hand(tiny_student, ids, 12, {2})[3]] += 1
    other = int(counts.argmax())
    tiny_student.model.generation_config = GenerationConfig(eos_token_id=[2, other])
    return tiny_student, other


def test_any_end_token_ends_and_is_counted_once(two_ends, sessions):
    student, other = two_ends
    assert end_tokens(student.model, student.tokenizer) == tuple(sorted((2, other)))
    found, samples = greedy(student, sessions), drawn(student, sessions, n=8)
    ended = 0
    for session in sessions:
        ids = encode_prompt(build_prompt(session.titles), student.tokenizer)
        made = by_hand(student, ids, 12, {2, other})
        assert found[session.id].n_tokens == len(made)
        kept = made[:-1] if made[-1] in (2, other) else made
        assert found[session.id].text == student.tokenizer.decode(kept, skip_special_tokens=True)
        assert samples[session.id].greedy._replace(log_prob=None) == found[session.id]
        for answer in samples[session.id].drawn:
            again = student.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
            assert other not in again
            if answer.n_tokens < 12:
                ended += 1
    assert ended > 5


def test_the_likeliest_answer_counts_tokens_to_the_first_end(two_ends, sessions):
    """The whole log-probability is the sum over the tokens that were written, and no more."""
    student, other = two_ends
    checked = 0
    for samples in drawn(student, sessions, n=8).values():
        ids = encode_prompt(build_prompt(sessions[samples.id].titles), student.tokenizer)
        for answer in samples.drawn:
            if not answer.text.isascii() or answer.n_tokens == 12:
                continue
            made = student.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
            if len(made) != answer.n_tokens - 1:
                continue
            with torch.no_grad():
                log_p = student.model(torch.tensor([ids + made])).logits[0, len(ids) - 1 :].log_softmax(-1)
            nats = sum(float(log_p[k, token]) for k, token in enumerate(made))
            whole = answer.log_prob * answer.n_tokens  # and that of whichever end came
            assert min(abs(whole - nats - float(log_p[-1, end])) for end in (2, other)) < 1e-3
            checked += 1
    assert checked


def test_end_token_zero_is_an_end_token(tiny_student):
    tiny_student.model.generation_config = GenerationConfig(eos_token_id=0)
    assert end_tokens(tiny_student.model, tiny_student.tokenizer) == (0, 2)


def test_where_no_token_ends_an_answer_it_is_said(tiny_student, sessions):
    tiny_student.model.generation_config = GenerationConfig()
    assert greedy(tiny_student, sessions[:2])  # the tokenizer knows one
    tiny_student.tokenizer.eos_token = None
    assert end_tokens(tiny_student.model, tiny_student.tokenizer) == (2,)  # and so does the configuration
    assert greedy(tiny_student, sessions[:2])
    tiny_student.model.config.eos_token_id = None
    for how in (greedy, drawn):
        with pytest.raises(ValueError, match=r"no token ends an answer .* set tokenizer\.eos_token"):
            how(tiny_student, sessions[:2])


def test_tokens_up_to_an_end():
    assert until_end([5, 6, 2, 7, 2], (2, 9)) == [5, 6, 2]
    assert until_end([5, 6], (2,)) == [5, 6]
    assert until_end([], (2,)) == []


# --- what was written ---


def test_thoughts_in_special_tokens_stay_thoughts():
    tokenizer = byte_level()
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)
    text = "[THINK]1 2\n[/THINK]3 4<s>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "1 2\n3 4"
    assert written_text([*ids, 2], tokenizer, (2,)) == "[THINK]1 2\n[/THINK]3 4"
    assert written_text(tokenizer("é 1 2", add_special_tokens=False)["input_ids"], tokenizer, (2,)) == "é 1 2"


def test_marks_of_thoughts_may_be_made_of_several_special_tokens():
    tokenizer = byte_level()
    names = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>"]
    tokenizer.add_tokens(names, special_tokens=True)
    text = "<|channel|>analysis<|message|>1 2\n<|end|><|start|>assistant<|channel|>final<|message|>3 4<|return|>"
    written = written_text(tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer, (2,))
    assert parse_answer(written, 4).bundles == (frozenset({3, 4}),)


def test_an_end_token_that_is_no_special_token_is_no_text():
    tokenizer = byte_level()
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    ids = tokenizer("1 2\n", add_special_tokens=False)["input_ids"]
    assert written_text(ids, tokenizer, (newline,)) == "1 2"


def test_a_thought_that_the_template_has_begun_is_no_answer(tiny_student, sessions, monkeypatch):
    """The student writes "1 2" for ever; behind an open thought that is no answer."""
    tokenizer = tiny_student.tokenizer
    line = tokenizer("1 2\n", add_special_tokens=False)["input_ids"]

    def generate(*, input_ids, **kwargs):
        return torch.cat([input_ids, torch.tensor([line * 2] * len(input_ids))], 1)

    monkeypatch.setattr(tiny_student.model, "generate", generate)
    tokenizer.chat_template = CHATS["plain"]
    assert greedy(tiny_student, sessions[:1])[0].bundles
    tokenizer.chat_template = CHATS["plain"] + "<think>\n"
    (found,) = greedy(tiny_student, sessions[:1]).values()
    assert found.bundles == () and found.text.startswith("<think>1 2") and found.n_tokens == len(line * 2)


# --- pads ---


def odd_pads(tokenizer):
    yield None
    yield from (tokenizer.convert_tokens_to_ids("<pad>"), tokenizer.eos_token_id)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # beyond the embedding
    yield tokenizer.pad_token_id


def test_pads_and_their_side_never_matter(tiny_student, tiny_profile, sessions, tmp_path):
    tokenizer = tiny_student.tokenizer
    usual, samples = greedy(tiny_student, sessions), drawn(tiny_student, sessions[:4])
    reader = make_reader(tiny_student, sessions, PairConfig(layer=2))
    pairs = read_pairs(tiny_student.model, tokenizer, sessions[:3], reader, progress=False)
    for pad in odd_pads(tokenizer):
        tokenizer.pad_token_id, tokenizer.padding_side = pad, "right"
        assert 0 <= pad_token(tiny_student.model, tokenizer) < 259
        assert greedy(tiny_student, sessions) == usual
        assert drawn(tiny_student, sessions[:4]) == samples
        again = read_pairs(tiny_student.model, tokenizer, sessions[:3], reader, progress=False)
        assert all(np.array_equal(again[k], pairs[k]) for k in pairs)
    assert tokenizer.pad_token == "[PAD]"
    config = replace(tiny_profile.train, epochs=1)
    result = train_expert(tiny_student, sessions, tmp_path / "x", config=config, progress=False)
    assert result.history
    rows = [encode_example(s, tokenizer, PromptConfig(), max_length=500).row() for s in sessions[:3]]
    assert int(AnswerCollator(pad_token(tiny_student.model, tokenizer))(rows)["input_ids"].max()) < 259


def test_a_token_beyond_the_embedding_is_named(tiny_student, tiny_profile, sessions, tmp_path):
    tokenizer = tiny_student.tokenizer
    tokenizer.add_tokens(["[SEP]", "thing a"], special_tokens=False)
    tokenizer.chat_template = "[SEP]" + CHATS["plain"]
    message = r"gives '\[SEP\]' the number 259, and the student knows 259 tokens: .*resize_token_embeddings"
    for how in (
        lambda: greedy(tiny_student, sessions[1:3]),
        lambda: drawn(tiny_student, sessions[1:3]),
        lambda: drawn(tiny_student, sessions[1:3], prompt=PromptConfig(fmt="letters")),
        lambda: make_reader(tiny_student, sessions[1:3], PairConfig(layer=2)),
        lambda: train_expert(tiny_student, sessions[1:3], tmp_path / "x", config=tiny_profile.train, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            how()


# --- a teacher that is a student ---


def test_a_local_teacher_is_asked_likewise(tiny_student, tmp_path):
    tokenizer = tiny_student.tokenizer
    tokenizer.chat_template = CHATS["refuses"]
    messages = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "tea </s> or cup?"}]
    (usual,) = LocalTeacher(tiny_student, folder=tmp_path / "a").ask([messages], max_tokens=12, progress=False)
    tiny_student.model.generation_config = GenerationConfig(eos_token_id=2, repetition_penalty=1.9, num_beams=2)
    (again,) = LocalTeacher(tiny_student, folder=tmp_path / "b").ask([messages], max_tokens=12, progress=False)
    assert again == usual
    asked = LocalTeacher(tiny_student)._encode({"messages": messages})
    assert tokenizer.eos_token_id not in asked and tokenizer.decode(asked).count("Answer.\n\ntea </s>") == 1


def test_no_state_meets_the_vocabulary_strided(tiny_student, sessions):
    """Else the product copies the whole embedding once for every row."""
    contiguous = []
    head = tiny_student.model.get_output_embeddings()
    watch = head.register_forward_pre_hook(lambda _, given: contiguous.append(given[0].is_contiguous()))
    student, some = tiny_student, sessions[:4]
    readers = {
        "draws": lambda: drawn(student, some, prompt=PromptConfig()),
        "letters": lambda: drawn(student, some, prompt=PromptConfig(fmt="letters")),
        "pairs": lambda: make_reader(student, some, PairConfig(layer=2)),
    }
    try:
        for name, read in readers.items():
            contiguous.clear()
            read()
            assert contiguous and all(contiguous), name
    finally:
        watch.remove()
