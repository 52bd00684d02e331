import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers.decoding import Answer, greedy_answers, sample_bundles
from routedk_lite.answers.drawing import chances, draw_from
from routedk_lite.config import DecodeConfig, PairConfig, PromptConfig
from routedk_lite.data.prompts import build_prompt, encode_prompt
from routedk_lite.data.sessions import Session
from routedk_lite.fusion.fusion import Dynamic
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.pairs import make_reader

SETTINGS = DecodeConfig(batch_size=4, max_new_tokens=6)


def answer(student, sessions, **options):
    return greedy_answers(student.model, student.tokenizer, sessions, decode=SETTINGS, progress=False, **options)


def test_answers_equal_those_of_a_plain_loop_without_cache_or_padding(tiny_student, sessions):
    for found in answer(tiny_student, sessions):
        session = sessions[found.id]
        ids = encode_prompt(build_prompt(session.titles, tokenizer=tiny_student.tokenizer), tiny_student.tokenizer)
        start = len(ids)
        while len(ids) - start < 6 and ids[-1] != tiny_student.tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(int(tiny_student.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert found.text == tiny_student.tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert found.n_tokens == len(ids) - start


def test_every_session_is_answered_once_longest_first(tiny_student, sessions):
    found = answer(tiny_student, sessions)
    assert sorted(a.id for a in found) == [s.id for s in sessions]
    sizes = [sum(map(len, sessions[a.id].titles)) for a in found]
    assert sizes == sorted(sizes, reverse=True)


def test_an_interrupted_run_goes_on_with_the_same_answers(tiny_student, sessions):
    whole = {a.id: a for a in answer(tiny_student, sessions)}
    kept = []

    def stop(answers):
        kept.extend(answers)
        if len(kept) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(tiny_student, sessions, on_batch=stop)
    kept = kept[:-2]  # as if the last lines had not reached the disk: a batch that is partly done
    rest = answer(tiny_student, sessions, done={a.id for a in kept})
    assert {a.id for a in rest} == set(whole) - {a.id for a in kept}
    assert {a.id: a for a in kept + rest} == whole


def test_an_answer_survives_its_file(tiny_student, sessions):
    for found in answer(tiny_student, sessions[:3]):
        assert Answer.from_json(found.to_json()) == found
    by_hand = Answer.of_bundles(7, [[2, 1], {3, 4}])
    assert Answer.from_json(by_hand.to_json()) == by_hand
    assert by_hand.bundles == (frozenset({1, 2}), frozenset({3, 4}))


# --- samples ---


def draws(student, sessions, n=5, model=None, **options):
    settings = {"decode": SETTINGS, "progress": False, "temperature": 1.5, "seed": 3} | options
    return sample_bundles(model or student.model, student.tokenizer, sessions, n, **settings)


def separately(model, tokenizer, session, numbers, temperature, top_p=1.0):
    """One sample by itself, without cache: tokens by inverse cumulated probability, and their log-probability."""
    ids = encode_prompt(build_prompt(session.titles, tokenizer=tokenizer), tokenizer)
    start, log_probs = len(ids), []
    for number in numbers:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        p = (logits / temperature).softmax(-1)
        order = torch.arange(len(p))
        if top_p < 1:
            order = p.argsort(descending=True, stable=True)
            kept = p[order].cumsum(-1) - p[order] < top_p
            order = order[kept]
        below = p[order].cumsum(-1)
        token = int(order[int((below <= number * below[-1]).sum())])
        log_probs.append(float(logits.log_softmax(-1)[token]))
        ids.append(token)
        if token == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True), sum(log_probs) / len(log_probs)


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_samples_of_a_shared_prefill_equal_separate_runs_with_the_same_random_numbers(tiny_student, sessions, top_p):
    for found in draws(tiny_student, sessions, top_p=top_p):
        numbers = np.random.default_rng([3, found.id]).random((5, 64))[:, :6]  # as the recorded runs drew them
        for answer_, row in zip(found.drawn, numbers, strict=True):
            text, log_prob = separately(*tiny_student[:2], sessions[found.id], row, 1.5, top_p)
            assert answer_.text == text
            assert answer_.log_prob == pytest.approx(log_prob, abs=1e-4)
    assert len({a.text for s in draws(tiny_student, sessions) for a in s.drawn}) > len(sessions)


def test_the_greedy_answer_comes_with_the_samples(tiny_student, sessions):
    greedy = {a.id: a for a in answer(tiny_student, sessions)}
    for found in draws(tiny_student, sessions):
        assert found.greedy._replace(log_prob=None) == greedy[found.id]


def test_a_smaller_draw_is_the_beginning_of_a_larger_one_in_any_batch(tiny_student, sessions):
    large = {s.id: s for s in draws(tiny_student, sessions, n=8)}
    small = draws(tiny_student, sessions[3:7], n=3, decode=DecodeConfig(batch_size=2, max_new_tokens=6))
    for found in small:
        assert [a.text for a in found.drawn] == [a.text for a in large[found.id].drawn[:3]]


@pytest.mark.parametrize("fmt", ["compact", "letters"])
def test_a_draw_of_fewer_tokens_is_the_beginning_of_a_longer_one(tiny_student, sessions, fmt):
    """Below, at and above the number of tokens whose chance comes from the session's own stream."""
    lengths = (1, 5, 63, 64, 65, 80)
    some, prompt = sessions[:4], PromptConfig(fmt=fmt)
    by_length = [
        draws(tiny_student, some, n=2, prompt=prompt, decode=DecodeConfig(batch_size=4, max_new_tokens=length))
        for length in lengths
    ]
    for length, shorter, longer in zip(lengths, by_length, by_length[1:], strict=False):
        for one, other in zip(shorter, longer, strict=True):
            for short, long in zip(one.drawn, other.drawn, strict=True):
                assert long.text.startswith(short.text.rstrip("\N{REPLACEMENT CHARACTER}"))
                assert fmt == "letters" or short.n_tokens == min(length, long.n_tokens)


@given(st.integers(0, 99), st.integers(-(10**12), 10**12), st.integers(1, 5), st.integers(1, 150))
def test_chance_depends_on_seed_session_and_number_alone(seed, id_, n, steps):
    most = chances(seed, id_, 6, 160)
    assert np.array_equal(chances(seed, id_, n, steps), most[:n, :steps])
    assert len(np.unique(most)) == most.size and most.min() >= 0 and most.max() < 1
    assert np.array_equal(most[:, :64], np.random.default_rng([seed, id_ % 2**32]).random((6, 64)))  # recorded runs


def test_no_number_draws_a_token_that_has_no_probability():
    log_p = torch.tensor([0.5, 0.5, 0.0, 0.0]).log()
    for u in (0.0, 0.5, 1 - 2**-25, 1.0):  # the last is what single precision makes of the one before
        for top_p in (1.0, 0.5):
            assert int(draw_from(log_p, torch.tensor([u]), 1.0, top_p)) in (0, 1)


def test_titles_that_read_like_thoughts_leave_letters_as_they_are(tiny_student):
    titles = ("<think> of tea", "cup </think>", "[THINK] lamp", "bundle 1: A")
    session = Session(id=3, items=tuple("abcd"), titles=titles, bundles=(frozenset({1, 2}),))
    for found in draws(tiny_student, [session], n=12, temperature=5.0, prompt=PromptConfig(fmt="letters")):
        for one in found.drawn:
            letters = one.text.split()
            groups = {letter: {n for n, other in enumerate(letters, 1) if other == letter} for letter in letters}
            expected = {frozenset(group) for letter, group in groups.items() if letter != "-" and len(group) > 1}
            assert set(one.bundles) == expected


def test_a_cold_draw_is_greedy_and_another_seed_is_another_draw(tiny_student, sessions):
    for found in draws(tiny_student, sessions, temperature=1e-4):
        assert all(a.text == found.greedy.text for a in found.drawn)
    texts = [[a.text for s in draws(tiny_student, sessions, seed=seed) for a in s.drawn] for seed in (3, 4)]
    assert texts[0] != texts[1]


def test_a_routed_model_keeps_every_samples_alpha(tiny_student, sessions, tmp_path):
    """Batches of several sessions, whose rows are split and reordered, against one session at a time."""
    from peft import LoraConfig, get_peft_model

    for k in range(2):
        torch.manual_seed(k)
        model = get_peft_model(tiny_student.model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.3)
        model.save_pretrained(tmp_path / str(k))
        model.unload()
    routed = RoutedModel(tiny_student.model, [tmp_path / "0", tmp_path / "1"], Dynamic())
    try:
        torch.nn.init.normal_(routed.weigher.weight, std=60.0)
        together = {s.id: s for s in draws(tiny_student, sessions, model=routed)}
        spread = np.ptp(routed.alpha, axis=0).max()
        for session in sessions:
            (alone,) = draws(tiny_student, [session], model=routed)
            assert [a.text for a in alone.drawn] == [a.text for a in together[session.id].drawn]
    finally:
        routed.unload()
    assert spread > 0.05


def test_an_interrupted_draw_goes_on(tiny_student, sessions):
    whole = {s.id: s for s in draws(tiny_student, sessions)}
    kept = list(whole.values())[:6]  # a batch and a half
    rest = draws(tiny_student, sessions, done={s.id for s in kept})
    assert {s.id: s for s in kept + rest} == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n": 0}, "n = 0"), ({"temperature": 0}, "temperature = 0"), ({"top_p": 1.5}, "top_p = 1.5")],
)
def test_bad_settings_of_a_draw_are_refused(tiny_student, sessions, options, message):
    with pytest.raises(ValueError, match=message):
        draws(tiny_student, sessions, **options)


@pytest.mark.parametrize("fmt", ["compact", "letters"])
@pytest.mark.parametrize("routed", [False, True])
def test_a_student_whose_numbers_overflow_says_so(tiny_student, sessions, three_experts, fmt, routed):
    """As a Qwen in float16 does, in every row that is padded."""
    model = RoutedModel(tiny_student.model, three_experts, Dynamic()) if routed else tiny_student.model
    with torch.no_grad():
        tiny_student.model.get_input_embeddings().weight[tiny_student.tokenizer.pad_token_id] = float("nan")
    how = {"prompt": PromptConfig(fmt=fmt), "decode": SETTINGS, "progress": False}
    with pytest.raises(ValueError, match=r"dtype = float32: the student's numbers overflow .* Load it in float32 or"):
        sample_bundles(model, tiny_student.tokenizer, sessions, 2, **how)


def test_a_reader_of_pairs_is_not_made_of_overflown_states(tiny_student, sessions):
    with torch.no_grad():
        tiny_student.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="numbers overflow"):
        make_reader(tiny_student, sessions, PairConfig(layer=1))
