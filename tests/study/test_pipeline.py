import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.config import PairConfig, VoteConfig
from routedk_lite.data import domains
from routedk_lite.files import OccupiedError, sha256_folder
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha
from routedk_lite.fusion.shipping import unpack_expert
from routedk_lite.report.tables import plan_table, results_table
from routedk_lite.study import experiments, fused, records, stages
from routedk_lite.study import study as holdings
from routedk_lite.study.measurements import load_measurements
from routedk_lite.study.pipeline import Pipeline

N_RUNS = 22
"""Records of one study of the toy shop."""
LIMIT = {"train": 12, "validation": 4, "test": 10}


def small(name, split):
    """A handful of toy sessions."""
    domain = domains.load_domain(name, split)
    return replace(domain, sessions=domain.sessions[: LIMIT[split]])


@pytest.fixture(scope="module")
def profile(tiny_profile):
    """A random student; rules and reasoning are long in its tokens, which are bytes."""
    train = replace(tiny_profile.train, max_length=4000)
    return replace(tiny_profile, train=train, vote=VoteConfig(n=8, sizes=(1, 4, 8)))


@pytest.fixture(scope="module")
def finished(profile, tmp_path_factory):
    """The folder of a study that has been run to its end."""
    top = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holdings, "load_domain", small)
        patch.setattr(stages, "CONFLICT_BATCHES", 3)  # twelve sessions are all there are
        Pipeline(profile, results=top / "results", work=top / "runs", progress=False).run()
    return top


@pytest.fixture
def study(profile, tmp_path, monkeypatch):
    """Makes studies that begin with nothing."""
    monkeypatch.setattr(holdings, "load_domain", small)
    monkeypatch.setattr(stages, "CONFLICT_BATCHES", 3)
    monkeypatch.setattr(records, "load_domain", small)

    def make(changed=profile, **options):
        return Pipeline(changed, results=tmp_path / "results", work=tmp_path / "runs", progress=False, **options)

    return make


@pytest.fixture
def done(study, finished, tmp_path):
    """The same, beginning where a finished one ends."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return study


def follow(study):
    """Run a study; give the names of the stages that were run."""
    ran = []
    study.run(lambda stage, done: None if done else ran.append(stage.name))
    return ran


def test_a_study_ends_in_records_that_verify(done):
    found = done().run()
    assert [r.run for r in found] == [
        "base-few-shot-seed0", "base-seed0", "both-seed0", "cluster-tfidf", "few-shot", "few-shot-patterns",
        "few-shot-rules", "floor-all_pairs", "floor-pairs", "floor-random", "floor-whole", "fusion-average-seed0",
        "fusion-dynamic-k2-seed0", "fusion-dynamic-seed0", "fusion-static-seed0", "fusion-ties-seed0", "patterns",
        "reasoning-seed0", "rules-seed0", "voting-base-seed0", "voting-dynamic-seed0", "zero-shot",
    ]  # fmt: skip
    for record in found:
        records.verify(record)
    base = found[1]
    assert base.seed == 0 and base.student["revision"] == "local" and base.n_sessions == LIMIT["test"]
    assert len(base.adapter_sha256["base"]) == 64
    assert base.training["history"] and base.wall_seconds >= base.training["seconds"]
    assert all(r.student is None for r in found if r.run.startswith(("floor", "cluster", "patterns")))


def test_only_long_prompts_are_read_with_sdpa_and_the_record_says_so(done):
    attention = {r.run: r.student["attention"] for r in done().run() if r.student}
    few_shot = {"base-few-shot-seed0", "few-shot", "few-shot-patterns", "few-shot-rules"}
    on_gpu = torch.cuda.is_available()  # where sdpa is left alone
    assert {run for run, name in attention.items() if name == "sdpa"} == (set() if on_gpu else few_shot)
    assert attention["voting-base-seed0"] == "eager", "made after the few-shot runs"


def test_experts_differ_and_fusions_use_all_of_them(done):
    found = {r.run: r for r in done().run()}
    alone = [found[f"{name}-seed0"].adapter_sha256[name] for name in ("base", "rules", "reasoning", "both")]
    assert len(set(alone)) == 4
    dynamic = found["fusion-dynamic-seed0"]
    assert list(dynamic.adapter_sha256) == ["base-seed0", "rules-seed0", "reasoning-seed0"]
    assert list(found["fusion-dynamic-k2-seed0"].adapter_sha256) == ["base-seed0", "both-seed0"]
    traces = records.load_attachment(dynamic, "alpha")
    assert [row["id"] for row in traces] == [s.id for s in done().split("test")]
    for row in traces:
        assert len(row["alpha"]) == len(dynamic.analysis["layers"]) == 2
        assert all(sum(weights) == pytest.approx(1, abs=1e-3) for weights in row["alpha"])
    assert len(dynamic.analysis["entropy"]) == 2 and dynamic.training["history"]
    assert found["fusion-average-seed0"].analysis["mutual_information"] == [0, 0]
    assert "alpha" not in found["fusion-ties-seed0"].attachments


def test_one_draw_gives_the_whole_sweep(done):
    found = {r.run: r for r in done().run()}
    for name in ("dynamic", "base"):
        record = found[f"voting-{name}-seed0"]
        samples = [Samples.from_json(row) for row in records.load_attachment(record, "samples")]
        assert all(len(s.drawn) == 8 for s in samples) and len(samples) == LIMIT["test"]
        assert [p["n"] for p in record.analysis["curves"]["f1"]] == [1, 4, 8]
        last = record.analysis["curves"]["f1"][-1]
        assert last["nested"] == pytest.approx(record.metrics["strict"]["f1"], abs=1e-5)
        assert record.analysis["fallbacks"] >= 0 and 0 < record.analysis["diversity"]["share"] <= 1


def test_the_conflict_is_measured_while_a_student_learns_both(done):
    study = done()
    (found,) = load_measurements(study.results)
    assert (found.name, found.seed, found.domain) == ("conflict-seed0", 0, "toyshop")
    epochs = study.profile.train.epochs
    assert [p["sessions"] for p in found.values["training"]] == [12 * (k + 1) for k in range(epochs)]
    for point in found.values["training"]:
        assert point["cosines"]["kinds"] == point["interference"]["kinds"] == ["base", "rules", "reasoning"]
    compared = {(o["first"], o["second"]) for o in found.values["overlap"] if o["layer"] is None}
    assert ("base-seed0", "rules-seed0") in compared and ("both-seed0", "both-seed1") in compared
    assert len(found.adapter_sha256) == 5


def test_a_student_that_nobody_watched_is_watched_beside_it(study):
    one = study()
    experiments.train(one, "both", seed=1)  # as the expert of another study's seed
    before = sha256_folder(one.work / "both-seed1")
    one.run(only=["conflict-seed0"])
    (found,) = load_measurements(one.results)
    assert len(found.values["training"]) == one.profile.train.epochs
    assert sha256_folder(one.work / "both-seed1") == before
    assert [path.name for path in one.work.iterdir() if path.name.startswith("conflict-seed") and path.is_dir()] == []
    assert not [path for path in one.work.glob("conflict-*") if path.is_dir()]


def test_votes_say_which_experts_gave_them(done):
    found = {r.run: r for r in done().run()}
    assert found["voting-dynamic-seed0"].adapter_sha256 == found["fusion-dynamic-seed0"].adapter_sha256
    assert list(found["voting-base-seed0"].adapter_sha256) == ["base-seed0"]


def test_only_some_stages(study):
    ran = []
    study().run(lambda stage, done: ran.append(stage.name), only=["floor-*", "zero-shot"])
    assert ran == ["data", "student", "floor-whole", "floor-pairs", "floor-random", "floor-all_pairs", "zero-shot"]
    with pytest.raises(ValueError, match="no stage 'flor'"):
        study().run(only=["flor"])


def test_finished_stages_are_skipped_and_changed_ones_are_not(done, profile):
    assert follow(done()) == []
    assert {name.rpartition("-")[2] for name in follow(done(seed=1))} == {"seed1"}
    router = replace(profile, router=replace(profile.router, learning_rate=0.1))
    ran = follow(done(router))
    assert {"fusion-static-seed0", "fusion-dynamic-seed0", "voting-dynamic-seed0"} <= set(ran)
    assert all(name.startswith(("fusion", "voting")) for name in ran)
    changed = replace(profile, train=replace(profile.train, learning_rate=1e-3))
    ran = follow(done(changed))
    assert "base-seed0" in ran and "zero-shot" not in ran
    longer = replace(profile, decode=replace(profile.decode, max_new_tokens=9))
    assert follow(done(longer))[:2] == ["zero-shot", "few-shot"]


def test_a_stage_whose_files_were_lost_is_done_again(done):
    study = done()
    lost = {"floor-pairs": "predictions", "fusion-average-seed0": "alpha", "voting-base-seed0": "samples"}
    before = {r.run: records.load_predictions(r) for r in study.records()}
    for run, what in lost.items():
        path = study.results / "toy" / "toyshop" / f"{run}.{what}.jsonl"
        path.write_bytes(path.read_bytes()[:-1]) if what == "predictions" else path.unlink()
    with pytest.warns(UserWarning) as said:
        assert follow(study) == list(lost)
    assert f"{path}: " not in str(said[0].message)
    told = " ".join(str(one.message) for one in said)
    assert "floor-pairs.predictions.jsonl: changed since the record was written: done again" in told
    assert "its file fusion-average-seed0.alpha.jsonl is missing: done again" in told
    assert {r.run: records.load_predictions(r) for r in study.records()} == before
    assert follow(study) == []


def test_answering_that_was_stopped_goes_on(study, profile, tmp_path, monkeypatch):
    """Ctrl-C in the middle of the test sessions: what was answered is kept, the rest is answered later."""
    profile = replace(profile, decode=replace(profile.decode, batch_size=4))
    real = experiments.greedy_answers

    def interrupted(*args, on_batch, **options):
        def stop_after_first(answers):
            on_batch(answers)
            raise KeyboardInterrupt

        return real(*args, on_batch=stop_after_first, **options)

    monkeypatch.setattr(experiments, "greedy_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(profile).run(only=["zero-shot"])
    partial = next((tmp_path / "runs").rglob("zero-shot-*.partial.jsonl"))
    assert len(partial.read_text().splitlines()) == 4
    partial.write_text(partial.read_text() + '{"id": 1, "bun')  # a line that was cut off
    answered = []

    def counted(*args, done, **options):
        answered.append(len(done))
        return real(*args, done=done, **options)

    monkeypatch.setattr(experiments, "greedy_answers", counted)
    found = study(profile).run(only=["zero-shot", "base-seed*"])
    assert answered == [4, 0]
    assert next(r for r in found if r.run == "zero-shot").n_sessions == LIMIT["test"]


def test_bundles_are_decoded_from_pairs_where_the_profile_says_so(study, profile):
    """Everything that stands beside each other in a table goes through the same decoder."""
    paired = replace(profile, pairs=PairConfig(layer=2), router=replace(profile.router, pair_weight=1.0))
    wanted = ["decode-*", "zero-shot-pairs", "base-seed*", "fusion-average-*"]
    found = {r.run: r for r in study(paired).run(only=wanted)}
    assert list(found) == ["base-seed0", "decode-tfidf", "fusion-average-seed0", "zero-shot-pairs"]
    for record in found.values():
        records.verify(record)
        assert record.analysis["decoder"]["exact_weight"] == paired.decode.exact_weight
        assert 0 <= record.analysis["pair_auc"]["test"] <= 1
        assert 0 <= record.analysis["validation"]["f1"] <= 1
    greedy = [Answer.from_json(row) for row in records.load_attachment(found["base-seed0"], "greedy")]
    assert {a.id for a in greedy} == {s.id for s in study(paired).split("test")}
    assert found["base-seed0"].analysis["greedy"]["metrics"]["strict"]["valid_rate"] >= 0
    assert found["decode-tfidf"].student is None and found["zero-shot-pairs"].student
    bolder = replace(paired, decode=replace(paired.decode, exact_weight=2.0))
    ran = []
    study(bolder).run(lambda stage, done: None if done else ran.append(stage.name), only=["decode-*"])
    assert ran == ["decode-tfidf"]  # another decoder, another record


def test_an_exported_model_is_the_recorded_one(done, tmp_path):
    study = done()
    record = next(r for r in study.run() if r.run == "fusion-dynamic-seed0")
    study.export(tmp_path / "out")
    model = RoutedModel.from_pretrained(tmp_path / "out", study.student.model, student=study.student.info.id)
    assert {a.name: a.sha256 for a in model.adapters} == record.adapter_sha256
    sessions = study.split("test")
    alpha = trace_alpha(model, study.student.tokenizer, sessions, prompt=study.profile.prompt, progress=False)
    recorded = [row["alpha"] for row in records.load_attachment(record, "alpha")]
    assert alpha == pytest.approx(np.array(recorded), abs=1e-3)
    with pytest.raises(ValueError, match="fusion = 'mean': choose among average, ties, static"):
        study.export(tmp_path / "out", "mean")


def test_a_merged_model_is_an_ordinary_one_that_answers_as_the_fusion_does(done, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    study, folder = done(), tmp_path / "merged"
    study.export(folder, "average", merged=True)
    study.export(folder, "average", merged=True)  # its own folder is replaced
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("A camera and its case", return_tensors="pt")["input_ids"]
    with torch.inference_mode(), fused.routed(study, "average") as (model, _):
        assert loaded(ids).logits.allclose(model(input_ids=ids).logits, atol=1e-4)
    assert not loaded(ids).logits.allclose(study.student.model(ids).logits, atol=1e-2)
    assert loaded.state_dict().keys() == study.student.model.state_dict().keys()
    notes = json.loads((folder / "merged.json").read_text())
    assert notes["fusion"] == "Average" and len(notes["experts"]) == 3


def test_only_what_does_not_depend_on_the_input_is_merged_and_nobody_elses_model_is_replaced(done, tmp_path):
    study = done()
    with pytest.raises(ValueError, match="choose among average, ties, static"):
        study.export(tmp_path / "out", "dynamic", merged=True)
    assert not (tmp_path / "out").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    (mine / "model.safetensors").write_text("weeks of work")
    with pytest.raises(OccupiedError, match=r"config\.json, model\.safetensors"):
        study.export(mine, "average", merged=True)
    assert (mine / "model.safetensors").read_text() == "weeks of work"


def test_a_study_goes_on_from_its_shipped_model(done, profile, tmp_path, monkeypatch):
    first = done()
    again = Pipeline(profile, results=tmp_path / "other results", work=tmp_path / "other runs", progress=False)
    first.export(again.shipped)
    for module in ("student.experts", "fusion.routing"):
        monkeypatch.setattr(f"routedk_lite.{module}.run_trainer", lambda trainer: pytest.fail("trained again"))
    with fused.routed(first, "dynamic") as (model, result):
        was = {adapter.name: adapter.sha256 for adapter in model.adapters}
        weights = {name: value.clone() for name, value in model.weigher.state_dict().items()}
    with fused.routed(again, "dynamic") as (model, found):
        assert {adapter.name: adapter.sha256 for adapter in model.adapters} == was
        assert all(torch.equal(value, weights[name]) for name, value in model.weigher.state_dict().items())
    assert (found.history, found.seconds) == (result.history, result.seconds)
    for name in was:
        assert sha256_folder(again.work / name) == sha256_folder(first.work / name)
    assert not unpack_expert(again.shipped, tmp_path / "both-seed0")  # it is no expert of that fusion
    (again.shipped / "experts.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"experts.safetensors is not the file that was saved"):
        unpack_expert(again.shipped, tmp_path / "base-seed0")
    assert not (tmp_path / "base-seed0").exists()


def test_bad_choices_name_the_good_ones(study):
    with pytest.raises(ValueError, match="'food' does not go with profile 'toy': choose one of toyshop"):
        study(domain="food")
    with pytest.raises(ValueError, match="seed = -1"):
        study(seed=-1)


def test_the_plan_lists_every_stage_and_what_is_done(study, finished, tmp_path):
    plan = plan_table(study())
    assert all(stage.name in plan for stage in study().of_part("method"))
    assert plan.count("done") == 2  # data and student are local
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert plan_table(study()).count("done") == N_RUNS + 3  # a measurement, data and student


def test_the_results_table_is_sorted_and_labelled(done):
    found = done().run()
    table = results_table(found)
    assert "toy, toyshop (test, 10 sessions)" in table
    best = max(found, key=lambda r: r.metrics["strict"]["f1"])
    rows = [line for line in table.splitlines() if any(r.run in line for r in found)]
    assert len(rows) == N_RUNS and best.run in rows[-1]
    markdown = results_table(found, markdown=True)
    assert markdown.count("\n|") == N_RUNS + 2 and f"{best.metrics['strict']['f1']:.3f}" in markdown


def test_floors_are_answers_without_text(done):
    found = done().run()
    pairs = records.load_predictions(next(r for r in found if r.run == "floor-pairs"))
    first = done().split("test").sessions[0]
    assert pairs[first.id] == Answer.of_bundles(first.id, [(i, i + 1) for i in range(1, len(first), 2)])
