from dataclasses import replace

import pytest

from routedk_lite import data, pipeline, records
from routedk_lite.decoding import Answer
from routedk_lite.pipeline import Study
from routedk_lite.report import plan_table, results_table

LIMIT = {"train": 12, "validation": 4, "test": 10}


@pytest.fixture
def study(tiny_profile, tmp_path, monkeypatch):
    """A study of a random student on a handful of toy sessions."""

    def small(name, split):
        domain = data.load_domain(name, split)
        return replace(domain, sessions=domain.sessions[: LIMIT[split]])

    monkeypatch.setattr(pipeline, "load_domain", small)
    monkeypatch.setattr(records, "load_domain", small)

    def make(profile=tiny_profile, **options):
        return Study(profile, results=tmp_path / "results", work=tmp_path / "runs", progress=False, **options)

    return make


def follow(study):
    """Run a study; give the names of the stages that were run."""
    ran = []
    study.run(lambda stage, done: None if done else ran.append(stage.name))
    return ran


def test_a_study_ends_in_records_that_verify(study):
    found = study().run()
    assert [r.run for r in found] == [
        "base-seed0", "floor-all_pairs", "floor-pairs", "floor-random", "floor-whole", "zero-shot"
    ]  # fmt: skip
    for record in found:
        records.verify(record)
    base = found[0]
    assert base.seed == 0 and base.student["revision"] == "local" and base.n_sessions == LIMIT["test"]
    assert len(base.adapter_sha256["base"]) == 64
    assert base.training["history"] and base.wall_seconds >= base.training["seconds"]
    assert all(r.student is None for r in found if r.run.startswith("floor"))


def test_finished_stages_are_skipped_and_changed_ones_are_not(study, tiny_profile):
    assert len(follow(study())) == 6
    assert follow(study()) == []
    assert follow(study(seed=1)) == ["base-seed1"]
    changed = replace(tiny_profile, train=replace(tiny_profile.train, learning_rate=1e-3))
    assert follow(study(changed)) == ["base-seed0"]
    longer = replace(tiny_profile, decode=replace(tiny_profile.decode, max_new_tokens=9))
    assert follow(study(longer)) == ["zero-shot", "base-seed0"]


def test_answering_that_was_stopped_goes_on(study, tiny_profile, tmp_path, monkeypatch):
    """Ctrl-C in the middle of the test sessions: what was answered is kept, the rest is answered later."""
    profile = replace(tiny_profile, decode=replace(tiny_profile.decode, batch_size=4))
    real = pipeline.greedy_answers

    def interrupted(*args, on_batch, **options):
        def stop_after_first(answers):
            on_batch(answers)
            raise KeyboardInterrupt

        return real(*args, on_batch=stop_after_first, **options)

    monkeypatch.setattr(pipeline, "greedy_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(profile).run()
    partial = next((tmp_path / "runs").rglob("zero-shot-*.partial.jsonl"))
    assert len(partial.read_text().splitlines()) == 4
    partial.write_text(partial.read_text() + '{"id": 1, "bun')  # a line that was cut off
    answered = []

    def counted(*args, done, **options):
        answered.append(len(done))
        return real(*args, done=done, **options)

    monkeypatch.setattr(pipeline, "greedy_answers", counted)
    found = study(profile).run()
    assert answered == [4, 0]
    assert next(r for r in found if r.run == "zero-shot").n_sessions == LIMIT["test"]


def test_bad_choices_name_the_good_ones(study):
    with pytest.raises(ValueError, match="'food' does not go with profile 'toy': choose one of toyshop"):
        study(domain="food")
    with pytest.raises(ValueError, match="seed = -1"):
        study(seed=-1)


def test_the_plan_lists_every_stage_and_what_is_done(study):
    plan = plan_table(study())
    assert all(stage.name in plan for stage in study().stages)
    assert plan.count("done") == 2  # data and student are local
    study().run()
    assert plan_table(study()).count("done") == 8


def test_the_results_table_is_sorted_and_labelled(study):
    found = study().run()
    table = results_table(found)
    assert "toy, toyshop (test, 10 sessions)" in table
    best = max(found, key=lambda r: r.metrics["strict"]["f1"])
    rows = [line for line in table.splitlines() if any(r.run in line for r in found)]
    assert len(rows) == 6 and best.run in rows[-1]
    markdown = results_table(found, markdown=True)
    assert markdown.count("\n|") == 8 and f"{best.metrics['strict']['f1']:.3f}" in markdown


def test_floors_are_answers_without_text(study):
    found = study().run()
    pairs = records.load_predictions(next(r for r in found if r.run == "floor-pairs"))
    first = study().split("test").sessions[0]
    assert pairs[first.id] == Answer.of_bundles(first.id, [(i, i + 1) for i in range(1, len(first), 2)])
