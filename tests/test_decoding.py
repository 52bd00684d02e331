import pytest
import torch

from routedk_lite.config import DecodeConfig
from routedk_lite.decoding import Answer, greedy_answers
from routedk_lite.prompts import build_prompt, encode_prompt

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
