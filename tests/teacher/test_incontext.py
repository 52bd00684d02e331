"""What stands in a prompt beside the session that is asked about."""

from __future__ import annotations

import pytest

from routedk_lite.answers.decoding import greedy_answers, sample_bundles
from routedk_lite.config import DecodeConfig, PairConfig, PromptConfig
from routedk_lite.data.domains import load_domain
from routedk_lite.data.prompts import (
    Context,
    build_prompt,
    format_answer,
    session_prompt,
    title_spans,
    tokenize_prompt,
)
from routedk_lite.data.sessions import Domain
from routedk_lite.student.pairs import make_reader, read_pairs
from routedk_lite.teacher.incontext import in_context


@pytest.fixture(scope="module")
def splits():
    return {split: load_domain("toyshop", split) for split in ("train", "test")}


def test_the_nearest_solved_session_stands_last_above_the_question(splits):
    context = in_context(splits["train"], splits["test"], demonstrations=2)
    session = splits["test"].sessions[0]
    far, near = context(session).demonstrations
    words = set(" ".join(session.titles).split())
    shared = [len(words & set(" ".join(s.titles).split())) / len(words) for s in (far, near)]
    everyone = [len(words & set(" ".join(s.titles).split())) / len(words) for s in splits["train"]]
    assert min(shared) > sum(everyone) / len(everyone)
    text = build_prompt(session.titles, demonstrations=[far, near])
    solved = [build_prompt(s.titles) + format_answer(s.bundles) for s in (far, near)]
    assert text == "\n\n".join([*solved, build_prompt(session.titles)])


def test_official_neighbours_come_first_where_there_are_any(splits):
    ids = [s.id for s in splits["train"].sessions[5:8]]
    session = splits["test"].sessions[0]
    asked = Domain(name="toyshop", split="test", sessions=(session,), neighbours={session.id: tuple(ids)})
    shown = in_context(splits["train"], asked, demonstrations=2)(session).demonstrations
    assert [s.id for s in shown] == [ids[1], ids[0]]


def test_a_session_is_never_its_own_demonstration(splits):
    train = splits["train"]
    context = in_context(train, train, demonstrations=3)
    assert all(s not in context(s).demonstrations for s in train.sessions[:20])


def test_public_neighbours_are_training_sessions(mirror):
    train, test = (load_domain("food", split) for split in ("train", "test"))
    context = in_context(train, test, demonstrations=10)
    for session in test:
        assert [d.id for d in context(session).demonstrations] == list(reversed(test.neighbours[session.id]))


def test_hints_stand_below_the_products_and_need_no_demonstrations(splits):
    context = in_context(splits["train"], splits["test"], hints=lambda s: f"{len(s)} products")
    session = splits["test"].sessions[0]
    assert context(session) == Context(f"{len(session)} products", ())
    text = build_prompt(session.titles, **context(session)._asdict())
    assert text.endswith(f"Hints:\n{len(session)} products\nBundles:\n")


def test_too_many_demonstrations_are_refused(splits):
    with pytest.raises(ValueError, match="demonstrations = -1: choose 0 to"):
        in_context(splits["train"], splits["test"], demonstrations=-1)


def test_a_chat_model_sees_demonstrations_as_earlier_turns(tiny_student, splits):
    tokenizer = tiny_student.tokenizer
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    solved, session = splits["train"].sessions[0], splits["test"].sessions[0]
    text = session_prompt(session, tokenizer, PromptConfig(), Context("", (solved,)))
    roles = [line.partition(">")[0][1:] for line in text.splitlines() if line.startswith("<")]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert f"<assistant>{format_answer(solved.bundles)}\n<user>" in text


def test_every_way_of_asking_takes_a_context(tiny_student, splits):
    context = in_context(splits["train"], splits["test"], demonstrations=1)
    asked, model, tokenizer = splits["test"].sessions[:3], tiny_student.model, tiny_student.tokenizer
    decode = DecodeConfig(max_new_tokens=6)
    options = {"decode": decode, "progress": False}
    greedy = {a.id: a for a in greedy_answers(model, tokenizer, asked, context=context, **options)}
    alone = {found.id: found.greedy for found in sample_bundles(model, tokenizer, asked, 1, **options)}
    for found in sample_bundles(model, tokenizer, asked, 1, context=context, **options):
        assert found.greedy.text == greedy[found.id].text
        assert found.greedy.log_prob != alone[found.id].log_prob
    reader = make_reader(tiny_student, splits["train"].sessions[:8], PairConfig(layer=2))
    read = {"reader": reader, "progress": False}
    beside = read_pairs(model, tokenizer, asked, context=context, **read)
    without = read_pairs(model, tokenizer, asked, **read)
    assert all(beside[s.id].shape == without[s.id].shape for s in asked)
    assert any(abs(beside[s.id] - without[s.id]).max() > 1e-4 for s in asked)


def test_titles_are_found_below_demonstrations_with_the_same_ones(tiny_student, splits):
    session = splits["test"].sessions[0]
    text = build_prompt(session.titles, demonstrations=[session])
    spans = title_spans(text, tokenize_prompt(text, tiny_student.tokenizer))
    below = len(tiny_student.tokenizer(text[: text.rindex("Products:")])["input_ids"])
    assert all(start >= below for start, _ in spans)
