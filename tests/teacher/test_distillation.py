"""From a teacher's answers to a folder of knowledge: feedback by code, strict reading, nothing from test sessions."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace

import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st
from scripted import HAS_OPENAI, ScriptedTeacher, Server, toy_answer
from typer.testing import CliRunner

from routedk_lite.__main__ import app
from routedk_lite.data.domains import load_domain
from routedk_lite.data.sessions import DataError, Session
from routedk_lite.files import asset
from routedk_lite.teacher.answers import read_bundles, read_reasoning, read_rules, read_sentences
from routedk_lite.teacher.distillation import (
    distill_answers,
    distill_reasoning,
    distill_rules,
    distilled_text,
    estimate,
    estimate_text,
    reasoning_plan,
    rules_plan,
)
from routedk_lite.teacher.endpoint import TeacherError, Usage
from routedk_lite.teacher.kinds import fit_kinds
from routedk_lite.teacher.knowledge import (
    Rule,
    check_knowledge,
    item_references,
    load_knowledge,
    load_rules,
    rewrite_references,
    teacher_answers,
)
from routedk_lite.teacher.objects import UnreadableReply
from routedk_lite.teacher.patterns import load_patterns, mine_patterns
from routedk_lite.teacher.recording import FILES, distill, export_recorded, folder_plan, write_knowledge, write_patterns
from routedk_lite.teacher.teaching import FEEDBACK, ask_bundles, ask_reasoning, ask_reflection, feedback

TRAIN, TEST = load_domain("toyshop", "train"), load_domain("toyshop", "test")
RULES = {"R1": Rule("R1", "other", "Be brave.", "It helped."), "R2": Rule("R2", "other", "Be kind.", "It helped.")}
SESSION = Session(
    id=1,
    items=tuple("abcdef"),
    titles=("red mug", "blue mug", "lamp", "bulb", "shade", "rope"),
    bundles=(frozenset({1, 2}), frozenset({3, 4, 5})),
    intents=("choose a mug", ""),
)

# --- feedback -----------------------------------------------------------------------------------------------------

BUNDLE = st.frozensets(st.integers(1, 6), min_size=1)


@given(BUNDLE, st.lists(BUNDLE, min_size=1, max_size=3))
def test_feedback_says_how_a_bundle_differs_from_the_nearest_one(bundle, annotated):
    (kind,) = feedback([bundle], replace(SESSION, bundles=tuple(annotated), intents=()))
    nearest = [true for true in annotated if len(bundle & true) * 99 // len(bundle | true) > 0]
    assert kind in FEEDBACK
    assert (kind == "correct") == (bundle in annotated)
    assert (kind == "invalid") == (not nearest)
    if kind == "irrelevant":
        assert any(bundle - true for true in nearest)
    if kind in ("missing", "single"):
        assert any(bundle < true for true in nearest)
        assert (kind == "single") == (len(bundle) == 1)


@pytest.mark.parametrize(
    ("bundle", "kind"),
    [
        ({1, 2}, "correct"),
        ({6}, "invalid"),
        ({3, 4, 6}, "irrelevant"),
        ({3, 4}, "missing"),
        ({3}, "single"),
        ({1, 2, 3, 4, 5}, "irrelevant"),
    ],
)
def test_each_kind_of_feedback(bundle, kind):
    assert feedback([frozenset(bundle)], SESSION) == [kind]


def test_reflection_shows_feedback_and_annotation_after_the_prediction():
    prediction = read_bundles('{"bundles": [[1, 2], [3, 4], [6]], "intents": ["a", "b", "c"]}', 6, smallest=1)
    _, first, answer, last = ask_reflection(SESSION, prediction).messages
    assert "red mug" in first["content"] and "choose a mug" not in first["content"]
    assert json.loads(answer["content"])["bundles"] == [[1, 2], [3, 4], [6]]
    assert "- items 1 and 2: is right." in last["content"]
    assert f"- items 3 and 4: {FEEDBACK['missing']}." in last["content"]
    assert f"- item 6: {FEEDBACK['invalid']}." in last["content"]
    assert "- items 1 and 2 (intent: choose a mug)\n- items 3, 4 and 5\n" in last["content"]


# --- reading ------------------------------------------------------------------------------------------------------


@given(st.text() | st.text(alphabet='{}[]":,item reasoningbundlesrules0123456789'))
def test_whatever_is_written_is_read_or_refused(text):
    for read in (
        read_sentences,
        lambda t: read_bundles(t, 6),
        lambda t: read_rules(t, 12),
        lambda t: read_reasoning(t, SESSION, RULES),
        lambda t: read_reasoning(json.dumps({"reasoning": t, "rules": ["R1"], "noisy": True}), SESSION, RULES),
    ):
        try:
            read(text)
        except UnreadableReply as problem:
            assert str(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no idea", "no complete JSON object"),
        ('{"bundles": [[1, 2]], "int', "no complete JSON object"),
        ('{"intents": []}', "bundles is None; give a list"),
        ('{"bundles": [[1, 2]]}', "intents is None"),
        ('{"bundles": [[1, 2]], "intents": []}', "give one text per bundle"),
        ('{"bundles": [["1", "2"]], "intents": ["a"]}', "each bundle is a list of item numbers"),
        ('{"bundles": [[true, 2]], "intents": ["a"]}', "each bundle is a list of item numbers"),
        ('{"bundles": [[1, 7]], "intents": ["a"]}', "names item 7, and the items are numbered 1 to 6"),
        ('{"bundles": [[0, 1]], "intents": ["a"]}', "names item 0"),
        ('{"bundles": [[2, 2]], "intents": ["a"]}', "too few items"),
    ],
)
def test_a_bad_answer_is_told_what_is_wrong(text, problem):
    with pytest.raises(UnreadableReply) as error:
        read_bundles(text, 6)
    assert problem in str(error.value)


def test_thoughts_and_fences_around_an_answer_do_no_harm():
    text = '<think>maybe {"bundles": [[1, 3]]}</think>Sure:\n```json\n{"bundles": [[2, 1]], "intents": ["a"]}\n```'
    assert read_bundles(text, 6).bundles == (frozenset({1, 2}),)
    assert read_sentences("<think>hm</think> Well.") == "Well."
    with pytest.raises(UnreadableReply, match="empty"):
        read_sentences("<think>hm</think> .")


def test_rules_are_numbered_and_cut_to_size():
    entries = [{"text": f"Do {n}.", "kind": "taste" if n else "distractor", "why": "so"} for n in range(3)]
    rules = read_rules(json.dumps({"rules": entries}), 2)
    assert rules == {"R1": Rule("R1", "distractor", "Do 0.", "so"), "R2": Rule("R2", "other", "Do 1.", "so")}
    for bad in ([], ["Do."], [{"text": "Do."}], [{"text": " ", "why": "so"}]):
        with pytest.raises(UnreadableReply):
            read_rules(json.dumps({"rules": bad}), 2)


GOOD = "Items 1, and 2 are mugs; items 3, 4, and 5 belong to a lamp. Item 6 is a rope."


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"reasoning": "Items 1 and 2 are mugs, items 3 and 4 a lamp."}, "does not name item 5"),
        ({"reasoning": "Items 1 and 2 are mugs, items 3 to 5 a lamp."}, "says 'items 3 to 5'; write every item"),
        ({"reasoning": "Items 1 and 2, items 3-5."}, "says 'items 3-5'"),
        ({"reasoning": GOOD + " Item 7 too."}, "names item 7, and the items are numbered 1 to 6"),
        ({"reasoning": GOOD + " word" * 130}, "words; write at most 60"),
        ({"reasoning": ""}, "reasoning is ''"),
        ({"rules": []}, "rules is []; name one to three of R1, R2"),
        ({"rules": ["R9"]}, "rules is ['R9']"),
        ({"noisy": "no"}, "noisy is 'no'; give true or false"),
    ],
)
def test_reasoning_that_students_could_not_use_is_refused(change, problem):
    answer = {"reasoning": GOOD, "rules": ["R1"], "noisy": False} | change
    with pytest.raises(UnreadableReply) as error:
        read_reasoning(json.dumps(answer), SESSION, RULES)
    assert problem in str(error.value)


def test_reasoning_about_a_long_session_may_name_all_its_items():
    names = tuple(f"thing {n}" for n in range(80))
    long = replace(SESSION, items=names, titles=names, bundles=(frozenset(range(1, 81)),), intents=(), why=())
    question = ask_reasoning(long, RULES)
    assert question.read(question.typical).text.startswith("Items 1, 2, ")


def test_good_reasoning_can_be_renumbered():
    answer = {"reasoning": GOOD, "rules": ["R2", "R1", "R2"], "noisy": True}
    reasoning = read_reasoning(json.dumps(answer), SESSION, RULES)
    assert (reasoning.rules, reasoning.noisy) == (("R2", "R1"), True)
    moved = rewrite_references(reasoning.text, 6, lambda n: str(7 - n), explicit=True)
    assert moved == "Items 6, and 5 are mugs; items 4, 3, and 2 belong to a lamp. Item 1 is a rope."


def test_a_list_of_items_may_be_written_in_several_ways():
    for text in ("items 1, 2, and 3", "items 1, 2 and 3", "items 1, 2 or 3", "Items 1, 2, 3"):
        assert [text[a:b] for a, b in item_references(text, 6, explicit=True)] == ["1", "2", "3"]


# --- asking -------------------------------------------------------------------------------------------------------


def test_an_unreadable_answer_is_asked_for_once_more_and_then_counted():
    never, later = TRAIN.sessions[1], TRAIN.sessions[2]

    def answer(messages):
        first = messages[1]["content"]
        if never.titles[0] in first and never.titles[1] in first:
            return ""
        if later.titles[0] in first and later.titles[1] in first and len(messages) == 2:
            return "hm"
        return toy_answer(messages[:2])

    teacher = ScriptedTeacher(answer)
    done = distill_reasoning(teacher, TRAIN, RULES, limit=4)
    assert list(done.found) == [s.id for s in TRAIN.sessions[:4] if s is not never]
    assert (done.asked, done.again) == (4, 2)
    assert done.unreadable == (f"session {never.id}: it holds no complete JSON object",)
    *_, said, told = teacher.asked[-1]
    assert said["content"] == "hm" and "cannot be read: it holds no complete JSON object" in told["content"]
    assert teacher.asked[-2][-2]["content"] == "(no answer)"  # servers refuse empty turns
    text = distilled_text(done, Usage(calls=6, prompt_tokens=10**6, answer_tokens=10**6, unmetered=1), 1, 2)
    assert "3 of them found in 4 questions; 2 were asked once more" in text and done.unreadable[0] in text
    assert "1 calls whose tokens nobody counted" in text and "Cost: 3.0000" in text


def test_rules_come_from_predictions_feedback_and_reflections():
    teacher = ScriptedTeacher()
    done = distill_rules(teacher, TRAIN, limit=5, n_rules=2, seed=3)
    assert list(done.found) == ["R1", "R2"] and (done.asked, done.again) == (11, 0)
    predictions, reflections, (summary,) = teacher.asked[:5], teacher.asked[5:10], teacher.asked[10:]
    assert all(len(messages) == 2 for messages in predictions)
    assert all("The annotated bundles are:" in messages[-1]["content"] for messages in reflections)
    assert summary[-1]["content"].count("I split too much.") == 5
    assert "at most 2 general rules" in summary[-1]["content"]
    assert "looked for the bundles of 5 sessions" in summary[-1]["content"]
    other = ScriptedTeacher()
    distill_rules(other, TRAIN, limit=5, n_rules=2, seed=4)
    assert other.asked[0] != teacher.asked[0]


@pytest.mark.parametrize(
    ("silent", "message"), [("lists of item", "gave bundles"), ("Reflect", "reflections"), ("Sum up", "no rules")]
)
def test_without_anything_to_go_on_the_last_problem_is_told(silent, message):
    def answer(messages):
        return "" if any(silent in turn["content"] for turn in messages) else toy_answer(messages)

    with pytest.raises(TeacherError, match=f"{message}.*The last problem was: "):
        distill_rules(ScriptedTeacher(answer), TRAIN, limit=2)


def test_the_estimate_counts_what_is_really_asked():
    teacher = ScriptedTeacher()
    left = estimate(rules_plan(TRAIN, limit=5), teacher)
    assert teacher.asked == []
    distill_rules(teacher, TRAIN, limit=5)
    assert left.calls == len(teacher.asked) == 11
    letters = sum(len(turn["content"]) for messages in teacher.asked for turn in messages)
    assert 0.5 < left.prompt_tokens * 4 / letters < 2
    assert left.answer_tokens < left.most_answer_tokens
    text = estimate_text(left, 1.0, 2.0)
    assert text.startswith("11 calls to make, 0 answers on disk. Estimated at 4 characters a token")
    assert f"at most {(left.prompt_tokens + 2 * left.most_answer_tokens) / 1e6:.4f}" in text
    assert "Give both prices" in estimate_text(left)


def test_the_estimate_knows_what_is_on_disk():
    class Remembering(ScriptedTeacher):
        def known(self, messages, max_tokens):
            return toy_answer(messages) if messages in self.asked else "" if len(messages) == 2 else None

    teacher = Remembering()
    distill_reasoning(teacher, TRAIN, RULES, limit=3)
    left = estimate(reasoning_plan(TRAIN, RULES, limit=5), teacher)
    assert (left.calls, left.from_disk) == (2, 5)  # two answers on disk cannot be read: they are asked for again


def test_test_sessions_never_enter_knowledge():
    for split in (TEST, load_domain("toyshop", "validation")):
        with pytest.raises(DataError, match=f"split is '{split.split}'"):
            distill_rules(ScriptedTeacher(), split)
        with pytest.raises(DataError, match="training sessions only"):
            distill_reasoning(ScriptedTeacher(), split, RULES)
    asked = ask_bundles(SESSION).messages
    assert asked == ask_bundles(replace(SESSION, bundles=(frozenset({1, 6}),), intents=())).messages


def test_a_bad_argument_is_named():
    bare = replace(TRAIN, sessions=(replace(TRAIN.sessions[0], bundles=(), intents=(), why=()),))
    with pytest.raises(DataError, match=f"session {TRAIN.sessions[0].id} has no annotated bundle"):
        distill_rules(ScriptedTeacher(), bare)
    with pytest.raises(DataError, match="rules is empty"):
        distill_reasoning(ScriptedTeacher(), TRAIN, {})
    with pytest.raises(ValueError, match="limit = 0: must be a whole number, 1 or more"):
        distill_answers(ScriptedTeacher(), TEST, limit=0)
    with pytest.raises(ValueError, match="n_rules = 0"):
        distill_rules(ScriptedTeacher(), TRAIN, n_rules=0)


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_distilled_folder_loads_and_holds(tmp_path):
    teacher = ScriptedTeacher()
    with pytest.raises(DataError, match="distil rules into it first"):
        distill(teacher, "reasoning", "toyshop", tmp_path)
    for kind, limit in (("rules", 4), ("reasoning", 9), ("answers", 7)):
        assert not distill(teacher, kind, "toyshop", tmp_path, limit=limit).unreadable
    knowledge = load_knowledge("toyshop", tmp_path)
    check_knowledge(knowledge, TRAIN, complete=False)
    with pytest.raises(DataError, match=f"no reasoning for training session {TRAIN.sessions[9].id}"):
        check_knowledge(knowledge, TRAIN)
    assert list(knowledge.rules) == ["R1", "R2", "R3"] and len(knowledge.reasoning) == 9
    session = TRAIN.sessions[0]
    assert knowledge.text(session, "both").startswith("Rule 2 of some words.\nRule 1 of some words.\n")
    assert knowledge.provenance["teacher"] == "scripted" and knowledge.explicit
    answers = teacher_answers("toyshop", tmp_path)
    assert list(answers) == [s.id for s in TEST.sessions[:7]]
    assert all(bundle <= set(range(1, 11)) for bundles in answers.values() for bundle in bundles)


def test_a_teacher_that_cannot_be_read_at_all_leaves_no_file(tmp_path):
    with pytest.raises(TeacherError, match="none of 3 answers can be read .* nothing is written. The last problem was"):
        distill(ScriptedTeacher(lambda messages: "hm"), "answers", "toyshop", tmp_path, limit=3)
    assert os.listdir(tmp_path) == []


def test_public_knowledge_of_ones_own_has_explicit_items(mirror, tmp_path):
    sizes = {ask_bundles(s).messages[1]["content"].split("\n\n")[0]: len(s) for s in load_domain("food", "train")}

    def answer(messages):
        numbers = range(1, sizes[messages[1]["content"].split("\n\n")[0]] + 1)
        text = f"Items {', '.join(map(str, numbers))}, each a pack of 6 for 7 days."
        return json.dumps({"reasoning": text, "rules": ["R1"], "noisy": False})

    export_recorded("rules", "food", tmp_path)
    distill(ScriptedTeacher(answer), "reasoning", "food", tmp_path, limit=3)
    knowledge = load_knowledge("food", tmp_path)
    assert knowledge.explicit and not load_knowledge("food").explicit
    assert knowledge.provenance["teacher"] == load_knowledge("food").provenance["teacher"]  # of the rules


@pytest.mark.parametrize("kind", list(FILES))
def test_recorded_knowledge_is_given_out_as_it_is(kind, tmp_path):
    path = export_recorded(kind, "food", tmp_path)
    assert path.read_bytes() == asset("teacher", "food", FILES[kind]).read_bytes()
    if kind != "rules":
        export_recorded(kind, "food", tmp_path, limit=2)
        assert len(path.read_text().splitlines()) == 3


def test_the_toy_shops_knowledge_goes_the_same_way(tmp_path):
    for kind in ("rules", "reasoning"):
        export_recorded(kind, "toyshop", tmp_path)
    assert load_knowledge("toyshop", tmp_path).sha256 == load_knowledge("toyshop").sha256
    with pytest.raises(ValueError, match="the toy shop has no answers"):
        export_recorded("answers", "toyshop", tmp_path)
    with pytest.raises(ValueError, match="limit = 3: .*rules come as a whole"):
        export_recorded("rules", "toyshop", tmp_path, limit=3)


def test_nothing_is_written_over_what_others_rest_on(tmp_path):
    export_recorded("rules", "toyshop", tmp_path)
    with pytest.raises(DataError, match="is from \"the toy shop's laws\", not 'scripted': choose another folder"):
        distill(ScriptedTeacher(), "rules", "toyshop", tmp_path)
    with pytest.raises(DataError, match="domain is 'toyshop', expected 'food'"):
        load_rules("food", tmp_path)
    export_recorded("reasoning", "toyshop", tmp_path, limit=2)
    write_knowledge(tmp_path, "rules", "toyshop", load_knowledge("toyshop").rules, {"teacher": "x"})
    with pytest.raises(DataError, match="rests on other rules"):
        write_knowledge(tmp_path, "rules", "toyshop", RULES, {"teacher": "x"})
    (tmp_path / "reasoning.jsonl").write_text("[]")
    with pytest.raises(DataError, match="does not say whose it is"):
        export_recorded("reasoning", "toyshop", tmp_path)
    with pytest.raises(ValueError, match="kind = 'recipes': choose one of rules, reasoning, answers"):
        export_recorded("recipes", "toyshop", tmp_path)


def test_patterns_are_mined_into_the_same_folder(tmp_path):
    export_recorded("rules", "toyshop", tmp_path)
    path, found = write_patterns("toyshop", tmp_path, limit=200)
    sessions = TRAIN.sessions[:200]
    assert found == mine_patterns(sessions, fit_kinds(sessions)) and len(found) > 20
    read = load_patterns("toyshop", tmp_path)
    assert [(p.kinds, p.support) for p in read] == [(p.kinds, p.support) for p in found]
    assert [p.confidence for p in read] == pytest.approx([p.confidence for p in found], abs=1e-5)
    table = json.loads(path.read_text())
    assert table["provenance"]["split"] == "train" and table["provenance"]["sessions"] == "200 of 600"
    assert TRAIN.sha256 in table["provenance"]["data"] and table["patterns"][0]["claim"] == found[0].claim
    write_patterns("toyshop", tmp_path)  # its own may be written anew
    assert len(load_patterns("toyshop", tmp_path)) > len(found)
    assert sorted(os.listdir(tmp_path)) == ["patterns.json", "rules.json"]


def test_patterns_are_refused_with_a_reason(tmp_path):
    for call in (export_recorded, folder_plan):
        with pytest.raises(ValueError, match="kind = 'patterns': no teacher is asked for these"):
            call("patterns", "toyshop", tmp_path)
    with pytest.raises(ValueError, match="limit = 0: must be a whole number, 1 or more"):
        write_patterns("toyshop", tmp_path, limit=0)
    with pytest.raises(DataError, match="toyshop: no kinds of products stand together in 3 bundles of 1 sessions"):
        write_patterns("toyshop", tmp_path, limit=1)
    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match="patterns.json: not a file of patterns"):
        load_patterns("toyshop", tmp_path)
    (tmp_path / "patterns.json").write_text('{"provenance": {"teacher": "me"}, "domain": "toyshop", "patterns": []}')
    with pytest.raises(DataError, match="is from 'me', not 'FP-growth"):
        write_patterns("toyshop", tmp_path)
    with pytest.raises(DataError, match="domain is 'toyshop', expected 'food'"):
        load_patterns("food", tmp_path)


# --- the command --------------------------------------------------------------------------------------------------


def command(*words, **options):
    return CliRunner().invoke(app, ["distill", "--domain", "toyshop", *map(str, words)], **options)


def test_the_command_distils_through_a_server_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    require(HAS_OPENAI, "the openai package (pip install 'routedk-lite[teacher]')")
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OTHER_KEY", "k")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        words = ("--teacher", "openai", "--model", "m", "--base-url", server.url, "--out", tmp_path / "out")
        words += ("--key-variable", "OTHER_KEY", "--price-in", 1, "--price-out", 2)
        plan = command("--kind", "rules", "--limit", 4, "--dry-run", *words)
        assert plan.exit_code == 0 and "9 calls to make" in plan.output and not server.requests
        first = command("--kind", "rules", "--limit", 4, *words)
        assert first.exit_code == 0, first.output
        assert "3 of them found in 9 questions; 0 were asked once more." in first.output
        assert "99 tokens of questions, 63 of answers. Cost: 0.0002" in first.output
        second = command("--kind", "rules", "--limit", 4, *words)
        assert "0 calls to make, 9 answers on disk" in second.output and len(server.requests) == 9
        third = command("--kind", "reasoning", "--limit", 3, *words, "--concurrency", 1, "--extra", '{"seed": 1}')
        assert third.exit_code == 0, third.output
        assert server.requests[-1]["seed"] == 1 and set(server.keys) == {"Bearer k"}
        server.shutdown()
    check_knowledge(load_knowledge("toyshop", tmp_path / "out"), TRAIN, complete=False)


def test_the_command_asks_before_it_spends(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ("--kind", "answers", "--teacher", "openai", "--model", "m", "--limit", 2, "--out", tmp_path / "out")
    no = command(*words, input="n\n")
    assert no.exit_code == 1 and "2 calls to make" in no.output and "Go on? [y/N]" in no.output
    yes = command(*words, "--yes")
    assert isinstance(yes.exception, TeacherError) and "OPENAI_API_KEY is not set" in str(yes.exception)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--teacher", "oracle"), "teacher = 'oracle': choose one of recorded, openai, local"),
        (("--teacher", "openai"), "model = '': name the teacher's model"),
        (("--teacher", "openai", "--model", "m", "--extra", "[]"), "extra: a list, must be a JSON object"),
        (("--teacher", "openai", "--model", "m", "--extra", "{key: sk-abc}"), "extra: no JSON, at character 2"),
        (("--teacher", "openai", "--model", "m", "--limit", "0"), "limit = 0"),
        (("--teacher", "local", "--model", "toy"), "has no chat template"),
        (("--kind", "patterns", "--teacher", "openai"), "teacher = 'openai': patterns are mined"),
        (("--kind", "recipes"), "kind = 'recipes': choose one of rules, reasoning, answers, patterns"),
        (("--kind", "recipes", "--dry-run"), "kind = 'recipes'"),
    ],
)
def test_a_bad_option_is_named(words, message, tmp_path):
    out = command("--kind", "answers", "--out", tmp_path, *words)
    assert isinstance(out.exception, ValueError) and message in str(out.exception)


def test_the_command_mines_patterns_and_asks_nobody(tmp_path):
    words = ("--kind", "patterns", "--out", tmp_path / "out")
    plan = command(*words, "--dry-run")
    assert plan.exit_code == 0 and "Nobody is asked" in plan.output and not (tmp_path / "out").exists()
    mined = command(*words, "--limit", 300)
    assert mined.exit_code == 0, mined.output
    (first, *_) = load_patterns("toyshop", tmp_path / "out")
    assert first.text in mined.output and f"Written: {tmp_path / 'out' / 'patterns.json'}" in mined.output
