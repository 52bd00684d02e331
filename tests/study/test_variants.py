import json
from dataclasses import replace

import pytest

from routedk_lite.config import KnowledgeConfig
from routedk_lite.data import domains
from routedk_lite.files import sha256_folder
from routedk_lite.report.tables import plan_table
from routedk_lite.student.examples import encode_example
from routedk_lite.study import experiments, records, stages
from routedk_lite.study import study as holdings
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.variants import VARIANTS, Variant, cite, tell_only, told_by, train_variant, variants
from routedk_lite.teacher.knowledge import load_knowledge

LIMIT = {"train": 16, "validation": 4, "test": 6}


@pytest.fixture
def study(tiny_profile, tmp_path, monkeypatch):
    """A study of a handful of toy sessions by a random student, whose tokens are bytes."""

    def small(name, split):
        domain = domains.load_domain(name, split)
        return replace(domain, sessions=domain.sessions[: LIMIT[split]])

    for module in (holdings, records):
        monkeypatch.setattr(module, "load_domain", small)
    profile = replace(tiny_profile, train=replace(tiny_profile.train, max_length=4000, epochs=1))
    return Pipeline(profile, results=tmp_path / "results", work=tmp_path / "runs", progress=False)


def texts(study, name):
    """What a variant's student reads, one text per session."""
    variant = VARIANTS[name]
    sessions, knowledge = told_by(study, variant)
    told = KnowledgeConfig(kind=variant.kind, place=variant.place)
    given = knowledge if variant.kind != "none" else None
    examples = [
        encode_example(s, study.student.tokenizer, study.profile.prompt, max_length=9999, knowledge=given, told=told)
        for s in sessions
    ]
    return {s.id: study.student.tokenizer.decode(e.input_ids) for s, e in zip(sessions, examples, strict=True)}


def test_every_variant_that_is_trained_on_all_sessions_reads_something_else(study):
    whole = {
        name: v
        for name, v in variants(study).items()
        if v.sessions == 1 and v.strategy == "random" and v.place != "distilled"
    }
    read = {name: tuple(texts(study, name).values()) for name in whole}
    assert len(set(read.values())) == len(whole) > 8
    assert "reasoning-domains-2" not in read, "the toy shop cannot be joined with a public domain"


def test_a_share_of_the_sessions_is_told_something_and_the_others_are_raw(study):
    most, few = texts(study, "reasoning-random-75"), texts(study, "reasoning-random-25")
    raw, full = (
        {
            s.id: study.student.tokenizer.decode(
                encode_example(
                    s,
                    study.student.tokenizer,
                    study.profile.prompt,
                    max_length=9999,
                    knowledge=load_knowledge("toyshop"),
                    told=KnowledgeConfig(kind=kind),
                ).input_ids
            )
            for s in study.split("train")
        }
        for kind in ("none", "reasoning")
    )
    for found, share in ((most, 0.75), (few, 0.25)):
        assert found.keys() == raw.keys()
        told = {id_ for id_, text in found.items() if text == full[id_] and text != raw[id_]}
        assert len(told) == share * len(raw)
        assert all(found[id_] == raw[id_] for id_ in raw.keys() - told)


def test_random_citations_keep_their_number_and_do_not_depend_on_the_session_order():
    knowledge = load_knowledge("electronic")
    drawn = cite(knowledge, "random", seed=1)
    assert drawn == cite(knowledge, "random", seed=1) != cite(knowledge, "random", seed=2)
    counts = [(len(e.rules), len(drawn.reasoning[id_].rules)) for id_, e in knowledge.reasoning.items()]
    assert all(a == b for a, b in counts)
    changed = sum(set(e.rules) != set(drawn.reasoning[id_].rules) for id_, e in knowledge.reasoning.items())
    assert changed > len(counts) / 2
    half = dict(list(knowledge.reasoning.items())[::2])
    again = cite(replace(knowledge, reasoning=half), "random", seed=1)
    assert all(again.reasoning[id_] == drawn.reasoning[id_] for id_ in half)
    assert all(len(e.rules) == 12 for e in cite(knowledge, "all").reasoning.values())
    with pytest.raises(ValueError, match="rules = 'own': choose one of random, all"):
        cite(knowledge, "own")


def test_nothing_is_told_about_the_sessions_that_were_not_chosen(study):
    train = study.split("train").sessions
    found = tell_only(load_knowledge("toyshop"), train[:3])
    assert [bool(found.text(s, "both")) for s in train[:5]] == [True, True, True, False, False]


def test_difficult_sessions_are_those_that_the_base_expert_finds_unlikely(study, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "routedk_lite.study.variants.answer_nats",
        lambda student, sessions, **_: [asked.append(s.id) or s.id for s in sessions],
    )
    _, knowledge = told_by(study, VARIANTS["reasoning-difficulty-25"])
    told = [id_ for id_, entry in knowledge.reasoning.items() if entry.text]
    assert len(asked) == LIMIT["train"] and len(told) == LIMIT["train"] / 4
    hardest = sorted(study.split("train"), key=lambda s: -s.id / len(s))
    assert set(told) == {s.id for s in hardest[: len(told)]}
    assert (study.work / "base-seed0").is_dir()


def test_variants_end_in_records(study, monkeypatch):
    wanted = ["rules-target-seed0", "rules-everywhere-seed0", "patterns-both-seed0"]
    prompts = {}
    greedy = experiments.greedy_answers

    def noted(model, tokenizer, *, context, decode, sessions, **more):
        sessions = list(sessions)
        prompts[len(prompts)] = (context and context(sessions[0]).hints, decode.max_new_tokens)
        return greedy(model, tokenizer, context=context, decode=decode, sessions=sessions, **more)

    monkeypatch.setattr(experiments, "greedy_answers", noted)
    found = study.run(only=wanted)
    assert [r.run for r in found] == sorted(wanted)
    for record in found:
        records.verify(record)
        assert record.training["history"] and record.config["expert"] == record.run.removesuffix("-seed0")
    target, everywhere, patterns = (prompts[k] for k in range(3))
    normal = study.profile.decode.max_new_tokens
    assert target[0] is None and target[1] > normal, "room for the text before the answer"
    assert len(everywhere[0].splitlines()) == len(load_knowledge("toyshop").rules) and everywhere[1] == normal
    assert patterns == (None, normal)
    assert not [r for r in study.run(only=wanted) if r not in found]


@pytest.mark.parametrize("fmt", ["compact", "letters"])
def test_a_distilled_variant_learns_raw_from_the_expert_that_was_told_the_same(study, fmt):
    profile = replace(study.profile, prompt=replace(study.profile.prompt, fmt=fmt))
    study = Pipeline(profile, results=study.results, work=study.work, progress=False)
    wanted = ["rules-distilled-seed0", "reasoning-distilled-seed0"]
    found = study.run(only=wanted)
    assert [r.run for r in found] == sorted(wanted)
    for record in found:
        records.verify(record)
        kind = record.config["kind"]
        teacher, expert = study.work / f"{kind}-seed0", study.work / f"{kind}-distilled-seed0"
        assert record.config["place"] == "distilled"
        assert record.adapter_sha256 == {f"{kind}-distilled": sha256_folder(expert)} != sha256_folder(teacher)
        summaries = [json.loads((folder / "training.json").read_text()) for folder in (teacher, expert)]
        assert [s["knowledge"] for s in summaries] == [{"kind": kind, "place": p} for p in ("prompt", "distilled")]
    written = (study.work / "rules-seed0" / "training.json").stat().st_mtime_ns
    teacher = experiments.train(study, "rules")
    assert (teacher.folder / "training.json").stat().st_mtime_ns == written, "the teacher is the method's own expert"


def test_a_profile_may_distil_all_that_experts_are_told(study):
    profile = replace(study.profile, name="distilling", place="distilled")
    study = Pipeline(profile, results=study.results, work=study.work, progress=False)
    told, base = experiments.train(study, "rules"), experiments.train(study, "base")
    assert (told.folder.name, base.folder.name) == ("rules-seed0", "base-seed0")
    places = {
        folder.name: json.loads((folder / "training.json").read_text())["knowledge"]["place"]
        for folder in study.work.iterdir()
        if (folder / "training.json").exists()
    }
    assert places == {"rules-seed0": "distilled", "rules-prompt-seed0": "prompt", "base-seed0": "distilled"}
    assert train_variant(study, "rules-distilled")[0] == told, "which is this profile's ordinary expert"


def test_nothing_stands_before_an_answer_in_letters(study):
    assert "reasoning-target" in variants(study)
    study.profile = replace(study.profile, prompt=replace(study.profile.prompt, fmt="letters"))
    found = variants(study)
    assert {v.place for v in found.values()} == {"prompt", "masked", "distilled"}
    assert not any("target" in stage.name for stage in study.stages)


def test_asking_a_teacher_is_part_of_the_estimate(study):
    stages_ = {stage.name: stage for stage in study.stages}
    assert stages_["rules-distilled-seed0"].sessions == 1.5 and stages_["rules-target-seed0"].sessions == 1
    assert stages_["rules-seed0"].sessions == 1


def test_the_companion_is_a_part_of_its_own(study):
    method, companion, *_ = ({s.name for s in study.of_part(part)} for part in stages.PARTS)
    assert method & companion == {"data", "student"}
    assert "patterns-seed0" in companion and "patterns" in method
    table = plan_table(study, "companion")
    assert "reasoning-masked-seed0" in table and "fusion-dynamic" not in table
    with pytest.raises(ValueError, match="part = 'all': choose one of method, companion"):
        study.run(part="all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "law"}, "Variant.kind = 'law'"),
        ({"source": "books"}, "Variant.source = 'books'"),
        ({"share": 0.0}, "Variant.share = 0.0"),
        ({"domains": 4}, "Variant.domains = 4"),
        ({"at_test": True}, "only all rules in the prompt"),
        ({"kind": "none", "place": "distilled"}, "Variant.kind = 'none'"),
        ({"share": 0.5, "place": "distilled"}, "its teacher is an expert of the method"),
    ],
)
def test_impossible_variants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Variant(**change)
