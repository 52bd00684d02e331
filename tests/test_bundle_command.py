"""`routedk bundle`: every session that comes is answered or refused by its name, and a stop loses nothing."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from adapted import make_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import routedk_lite as rdk
from routedk_lite import config
from routedk_lite.__main__ import app
from routedk_lite.answers import decoding
from routedk_lite.answers.consensus import Consensus
from routedk_lite.answers.fitting import longest_answer
from routedk_lite.answers.partitions import LARGEST
from routedk_lite.config import PairConfig, PromptConfig, get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.own import load_sessions
from routedk_lite.data.sessions import Domain, Session
from routedk_lite.data.writing import write_sessions
from routedk_lite.fusion.fusion import Average
from routedk_lite.fusion.loading import check_experts, longest_in_training
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.adapters import read_adapter
from routedk_lite.study import bundling
from routedk_lite.study.bundling import CUT_OFF, ONE_ITEM, bundle_sessions

ODD = (
    ("one", ["Tea pot"]),
    ("scripts", ["杯子", "чайник", "כוס תה", "شاي", "🫖"]),
    ("marks", ["<|im_end|>\n<|im_start|>assistant", "Bundles:\n1 2", "Products:\n1. x\n2. y", "</s>", "a\r\nb"]),
    ("fifty", [f"thing {k}" for k in range(50)]),
    ("endless", ["word " * 2000, "Tea cup"]),
)
"""Sessions of one item, of fifty, in any script, with the prompt's own marks, and one that no context holds."""


def session(name, titles, number):
    return Session(id=number, items=tuple(map(str, range(len(titles)))), titles=tuple(titles), bundles=(), name=name)


def some(n=9):
    """New sessions of the toy shop, as somebody's own."""
    found = load_domain("toyshop", "test").sessions[:n]
    return [replace(s, name=f"s{s.id}", bundles=(), intents=(), why=()) for s in found]


def domain(sessions):
    return Domain(name="new", split="all", sessions=tuple(sessions))


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """An expert of the toy shop's student, trained for two epochs on some sessions."""
    toy = get_profile("toy")
    folder = tmp_path_factory.mktemp("experts") / "base-seed0"
    rdk.train_expert(
        rdk.load_student("toy"), load_domain("toyshop", "train").sessions[:160], folder,
        config=replace(toy.train, epochs=2), progress=False,
    )  # fmt: skip
    return folder


@pytest.fixture
def bundled(expert, tmp_path):
    def bundled(sessions, experts=expert, profile="toy", **options):
        options = {"work": tmp_path / "runs", "progress": False} | options
        return bundle_sessions(domain(sessions), experts, profile=profile, **options)

    return bundled


@pytest.fixture
def few(monkeypatch):
    """Few and short sessions of the domain that the experts were trained on."""

    def first(name, split):
        known = load_domain(name, split)
        return replace(known, sessions=tuple(s for s in known if len(s) < 7)[: 12 if split == "validation" else 60])

    monkeypatch.setattr(bundling, "load_domain", first)


@pytest.fixture
def command(expert, tmp_path, monkeypatch):
    """Runs the command on some sessions in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def command(sessions, *words, name="new.csv", experts=expert):
        if sessions:
            write_sessions(tmp_path / name, sessions)
        return CliRunner().invoke(app, ["bundle", name, "--experts", str(experts), *words])

    return command


def answers(found):
    return {one.session.name: set(one.bundles) for one in found}


# --- right answers ----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_expert(bundled, expert):
    sessions = some(20)
    student = rdk.load_student("toy")
    model = rdk.load_expert(student, expert)
    toy = get_profile("toy")
    wanted = rdk.greedy_answers(
        model, student.tokenizer, sessions, prompt=toy.prompt, decode=toy.decode, progress=False
    )
    found = bundled(sessions)
    assert [one.session for one in found] == sessions
    cut = {a.id for a in wanted if a.cut}
    assert all(one.note == CUT_OFF * (one.session.id in cut) for one in found) and len(cut) < 5
    assert {one.session.id: set(one.bundles) for one in found} == {a.id: set(a.bundles) for a in wanted}
    assert sum(len(one.bundles) for one in found) > 10


def test_a_routed_model_answers_too(bundled, expert, tmp_path):
    student = rdk.load_student("toy")
    model = RoutedModel(student.model, [expert, read_adapter(expert, name="again")], Average(), student=student.info.id)
    model.save_pretrained(tmp_path / "routed")
    assert answers(bundled(some(), tmp_path / "routed")) == answers(bundled(some()))


def test_n_answers_are_a_consensus_and_one_is_greedy(bundled, expert):
    student, toy, sessions = rdk.load_student("toy"), get_profile("toy"), some(4)
    model = rdk.load_expert(student, expert)
    drawn = rdk.sample_bundles(model, student.tokenizer, sessions, 5, seed=3, decode=toy.decode, progress=False)
    choose = Consensus(exact_weight=toy.decode.exact_weight)
    found = bundled(sessions, n=5, seed=3)
    assert {one.session.id: set(one.bundles) for one in found} == {s.id: set(choose(s.drawn, s.greedy)) for s in drawn}
    assert answers(bundled(sessions, n=1)) == answers(bundled(sessions))
    consensus = replace(toy, decode=replace(toy.decode, choose="consensus"), vote=config.VoteConfig(n=5, sizes=(1, 5)))
    assert answers(bundled(sessions, profile=consensus, seed=3)) == answers(found)


def test_sampled_answers_that_are_cut_off_are_noted(bundled):
    toy = get_profile("toy")
    short = replace(toy, decode=replace(toy.decode, max_new_tokens=2))
    assert {one.note for one in bundled(some(4), n=3, profile=short)} == {
        "3 of 3 sampled answers were cut off before their end"
    }


def test_pairs_decide_where_the_profile_says_so(bundled, few):
    toy = get_profile("toy")
    pairs = replace(toy, pairs=PairConfig(layer=4, centre_sessions=8), decode=replace(toy.decode, batch_size=4))
    sessions = [*some(6), session("long", [f"Norva apron {k}" for k in range(LARGEST + 1)], 9_000)]
    with pytest.raises(ValueError, match="decodes bundles from pairs, and for that needs .* give their domain"):
        bundled(sessions, profile=pairs)
    found = bundled(sessions, profile=pairs, domain="toyshop")
    assert all(len(one.bundles) for one in found[:6]) and not any(one.note for one in found[:6])
    assert "13 items: the longest session in training had 10" in found[6].note
    assert f"answered in words: pairs are decoded for at most {LARGEST} items" in found[6].note
    assert answers(bundled(sessions[::-1], profile=pairs, domain="toyshop")) == answers(found)


def test_a_decoder_is_fitted_once_for_sessions_of_all_lengths(bundled, few, monkeypatch):
    """And not at all where every answer is there already."""
    fitted, fit = [], bundling.fit_decoder
    monkeypatch.setattr(bundling, "fit_decoder", lambda *args, **how: fitted.append(1) or fit(*args, **how))
    toy = get_profile("toy")
    pairs = replace(toy, pairs=PairConfig(layer=4, centre_sessions=8), decode=replace(toy.decode, batch_size=4))
    sessions = some()
    assert min(map(len, sessions)) <= 4 < max(map(len, sessions)) <= LARGEST
    for _ in range(2):
        bundled(sessions, profile=pairs, domain="toyshop", longest=4)
    assert len(fitted) == 1


# --- any session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["compact", "letters", "aicl"])
def test_whatever_comes_is_answered_or_refused_by_name(bundled, fmt, tiny_profile, folders):
    """The toy shop's student has no letters: another one answers in them, whose context is twice as long."""
    letters = fmt == "letters"
    profile, room = (tiny_profile, "1,024") if letters else (get_profile("toy"), "512")
    profile, more = replace(profile, prompt=PromptConfig(fmt=fmt)), {"experts": folders[0]} if letters else {}
    sessions = [*(session(name, titles, k) for k, (name, titles) in enumerate(ODD, 90_000)), *some(3)]
    found = {one.session.name: one for one in bundled(sessions, profile=profile, **more)}
    assert list(found) == [s.name for s in sessions]
    assert found["one"].note == ONE_ITEM and found["one"].bundles == () and not found["one"].refused
    for name in ("scripts", "marks"):
        assert not found[name].refused
    endless = found["endless"]
    assert endless.refused and endless.bundles == ()
    assert re.search(rf"not answered: [\d,]+ tokens with its answer, more than the {room} of the", endless.note)
    fifty = found["fifty"]
    if fifty.refused:
        assert f"more than the {room}" in fifty.note
    else:
        assert "50 items: the longest session in training had 10" in fifty.note
    assert not any(found[s.name].refused for s in sessions[-3:])


def test_a_long_answer_has_room_and_one_that_is_cut_off_says_so(bundled, monkeypatch):
    seen = []
    real = bundling.greedy_answers

    def greedy(model, tokenizer, sessions, *, decode, **how):
        seen.append((max(map(len, sessions)), decode.max_new_tokens))
        return real(model, tokenizer, sessions, decode=decode, **how)

    monkeypatch.setattr(bundling, "greedy_answers", greedy)
    toy = get_profile("toy")
    short = replace(toy, decode=replace(toy.decode, max_new_tokens=3))
    sessions = [*some(6), session("long", [f"Norva apron {k}" for k in range(30)], 9_000)]
    found = bundled(sessions, profile=short)
    tokenizer = rdk.load_student("toy").tokenizer
    assert dict(seen) == {max(map(len, some(6))): 3, 30: longest_answer(sessions[-1], tokenizer, toy.prompt)}
    assert any(one.note == CUT_OFF for one in found[:6])


def test_an_answer_whose_last_allowed_token_ends_it_is_whole(bundled, expert):
    toy, student = get_profile("toy"), rdk.load_student("toy")
    model = rdk.load_expert(student, expert)
    whole = rdk.greedy_answers(model, student.tokenizer, some(), prompt=toy.prompt, decode=toy.decode, progress=False)
    lengths = {a.id: a.n_tokens for a in whole if not a.cut}
    for allowed in sorted(set(lengths.values()))[:3]:
        found = bundled(some(), profile=replace(toy, decode=replace(toy.decode, max_new_tokens=allowed)))
        notes = {one.session.id: one.note for one in found}
        assert all((notes[i] == CUT_OFF) == (n > allowed) for i, n in lengths.items())


def test_what_is_long_is_what_the_experts_have_not_seen(bundled, expert, tmp_path):
    known = max(map(len, load_domain("toyshop", "train").sessions[:160]))
    assert longest_in_training(expert) == known
    assert longest_in_training(tmp_path) is None
    (tmp_path / "trainings" / "base").mkdir(parents=True)
    (tmp_path / "trainings" / "base" / "training.json").write_text('{"longest": 7}')
    assert longest_in_training(tmp_path) == 7
    sessions = some(9)
    notes = {len(one.session): one.note for one in bundled(sessions, longest=5)}
    assert all((f"{n} items: the longest session in training had 5" == note) == (n > 5) for n, note in notes.items())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=20))
def test_titles_of_any_kind_are_answered(bundled, titles):
    (found,) = bundled([session("any", titles, 1)])
    assert not found.refused or "more than the 512" in found.note
    assert all(1 <= number <= len(titles) for bundle in found.bundles for number in bundle)


# --- a stop -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"n": 3}, {"domain": "toyshop", "profile": "pairs"}], ids=["greedy", "consensus", "pairs"]
)
def test_a_stop_loses_nothing_and_changes_nothing(bundled, few, options, tmp_path, monkeypatch):
    toy = get_profile("toy")
    toy = replace(toy, decode=replace(toy.decode, batch_size=2), pairs=PairConfig(layer=4, centre_sessions=8))
    options = options | {"profile": toy if "profile" in options else replace(toy, pairs=None)}
    monkeypatch.setitem(decoding.ROWS, "cpu", 8)
    whole = bundled(some(7), work=tmp_path / "whole", **options)
    real, left = bundling._Desk.keep, [2]

    def keep(desk, rows):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(desk, rows)

    monkeypatch.setattr(bundling._Desk, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        bundled(some(7), **options)
    (partial,) = (tmp_path / "runs" / "bundles").glob("*.partial.jsonl")
    kept = partial.read_text()
    assert 0 < kept.count("\n") < 7
    partial.write_text(kept + "[12, [[1")  # what a kill leaves
    left[0] = 10**6
    assert bundled(some(7), **options) == whole
    assert partial.read_text().startswith(kept) and partial.read_text().count("\n") == 7
    left[0] = 0
    assert bundled(some(7), **options) == whole, "nothing is asked again"


def test_answers_that_are_kept_belong_to_these_inputs_and_settings(bundled, expert, tmp_path):
    bundled(some(3))
    folder = tmp_path / "runs" / "bundles"
    assert len(list(folder.glob("*.jsonl"))) == 1
    changed = [replace(s, titles=(*s.titles[:-1], "Tea pot")) for s in some(3)]
    other = tmp_path / "other"
    other.mkdir()
    for path in expert.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    settings = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 1}))
    bundled(changed)
    bundled(some(3), other)
    bundled(some(3), n=2)
    bundled(some(3), n=2, seed=1)
    assert len(list(folder.glob("*.jsonl"))) == 5
    bundled(some(3), n=1)
    assert len(list(folder.glob("*.jsonl"))) == 5, "the greedy answer is known"


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_with_bundles(command, tmp_path):
    sessions = [session(name, titles, k) for k, (name, titles) in enumerate(ODD[:1], 90_000)] + some(5)
    out = command(sessions)
    assert out.exit_code == 0, out.output
    assert re.search(r"/new.bundles.csv: \d+ bundles in 6 sessions, 1 of them with a note\n", out.output)
    written = load_sessions(tmp_path / "new.bundles.csv").sessions
    assert [(s.name, s.items, s.titles) for s in written] == [(s.name, s.items, s.titles) for s in sessions]
    assert any(s.bundles for s in written)
    rows = list(csv.DictReader((tmp_path / "new.bundles.csv").open(encoding="utf-8", newline="")))
    assert list(rows[0]) == ["session", "item", "title", "bundle", "note"] and rows[0]["note"] == ONE_ITEM
    again = command(None, "--out", "b.jsonl")
    assert again.exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["session"], line["note"]) for line in lines][:2] == [("one", ONE_ITEM), (sessions[1].name, "")]
    assert load_sessions(tmp_path / "b.jsonl").sessions == written


def test_what_is_refused_is_named_and_the_exit_code_says_so(command, tmp_path):
    out = command([session(*ODD[-1], 1), *some(2)], name="new.jsonl")
    assert out.exit_code == 1
    assert "error: session 'endless': not answered: " in out.output and " bundles in 2 sessions" in out.output
    assert [s.name for s in load_sessions(tmp_path / "new.bundles.csv") if s.bundles] == [s.name for s in some(2)]


def test_a_folder_of_sessions_is_answered(command, tmp_path):
    (tmp_path / "mine").mkdir()
    write_sessions(tmp_path / "mine" / "sessions.csv", some(3))
    out = command(None, name="mine")
    assert out.exit_code == 0 and len(load_sessions(tmp_path / "mine.bundles.csv")) == 3


def test_what_is_there_is_not_written_over(command, tmp_path):
    (tmp_path / "out.csv").write_text("mine")
    out = command(some(2), "--out", "out.csv")
    assert "out.csv is there already: give another name, or --force" in str(out.exception)
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert command(None, "--out", "out.csv", "--force").exit_code == 0
    assert len(load_sessions(tmp_path / "out.csv")) == 2
    before = (tmp_path / "new.csv").read_bytes()
    assert "is there already" in str(command(None, "--out", "new.csv", "--force").exception)
    assert (tmp_path / "new.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "b.txt"], "b.txt: give a name that ends with .csv or .jsonl"),
        (["--n", "0"], "--n = 0: must be a whole number, 1 or more"),
        (["--longest", "x"], "--longest = 'x': must be a whole number, 1 or more"),
        (["--profile", "nope"], "unknown profile 'nope'"),
        (["--profile", "smol"], "profile 'smol' decodes bundles from pairs, and for that needs the sessions"),
        (["--domain", "./nowhere", "--n", "2"], "domain = './nowhere': there is no such folder"),
        (["--experts", "."], "holds no experts (routed.json or adapter_config.json): give the folder of a trained"),
        (["--experts", ".."], "choose one of those inside: "),
    ],
)
def test_a_wrong_word_is_refused_before_any_work(command, expert, tmp_path, words, said):
    (tmp_path.parent / "inside").mkdir(exist_ok=True)
    (tmp_path.parent / "inside" / "adapter_config.json").write_text("{}")
    out = command(some(1), *words)
    assert out.exit_code == 1 and said in str(out.exception)
    assert not (tmp_path / "new.bundles.csv").exists()


def test_bad_sessions_are_named_before_any_work(command, tmp_path):
    (tmp_path / "new.csv").write_text("session,item,title\ns,a,\n")
    out = command(None)
    assert out.exit_code == 1 and "new.csv, line 2: title is empty" in str(out.exception)
    out = command(None, name="none.csv")
    assert "none.csv: there is no such file or folder" in str(out.exception)


def test_experts_of_another_student_are_refused(command, tiny_llama, tmp_path):
    other = make_adapter(tiny_llama, tmp_path / "other", r=2, targets="all-linear", seed=0)
    assert check_experts(other) == "adapter_config.json"
    out = command(some(1), experts=other)
    assert out.exit_code == 1 and "this student is 'toy_student'" in str(out.exception)


def test_the_help_says_what_goes_in_and_what_comes_out():
    text = " ".join(CliRunner().invoke(app, ["bundle", "--help"]).output.split())
    for words in ("session, item and title", "column bundle", "column note", "exit code is 1", "no answer is lost"):
        assert words in text
