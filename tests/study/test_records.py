import json
import re
import shutil
from dataclasses import replace
from functools import reduce

import pytest
import torch
from conftest import ROOT

from routedk_lite.answers.decoding import Answer
from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.parsing import Problem
from routedk_lite.data.sessions import Domain
from routedk_lite.study import records
from routedk_lite.study.measurements import load_measurements, write_measurement
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.records import (
    RecordError,
    damage,
    load_all,
    load_attachment,
    load_predictions,
    read_record,
    verify,
    write_record,
)


@pytest.fixture
def test_split():
    domain = load_domain("toyshop", "test")
    return domain


@pytest.fixture
def answers(test_split):
    """Half of the sessions right, a quarter wrong, a quarter unreadable."""
    made = []
    for i, s in enumerate(test_split):
        bundles = {0: s.bundles, 1: s.bundles, 2: (frozenset(range(1, len(s) + 1)),), 3: ()}[i % 4]
        problems = () if bundles else (Problem("unreadable", "?"),)
        made.append(Answer(s.id, "text", tuple(dict.fromkeys(bundles)), problems, 3))
    return made


@pytest.fixture
def write(test_split, answers, tmp_path):
    def run(**changes):
        options = {"profile": "toy", "test": test_split, "run": "base-seed0", "seed": 0, "config": {"a": 1},
                   "config_hash": "abc", "answers": answers, "wall_seconds": 1.23}  # fmt: skip
        return write_record(tmp_path, **options | changes)

    return run


def test_a_record_is_read_back_as_it_was_written(write, tmp_path):
    written = write()
    assert load_all(tmp_path) == [written]
    assert written.path == tmp_path / "toy" / "toyshop" / "base-seed0.json"
    assert written.wall_seconds == 1.2
    assert written.n_invalid == written.problems["unreadable"] == written.n_sessions // 4


def test_a_record_holds_both_protocols_and_their_intervals(write, test_split, answers):
    record = write()
    for protocol in ("official", "strict"):
        expected = evaluate({a.id: a.bundles for a in answers}, test_split, protocol)
        assert record.metrics[protocol]["f1"] == pytest.approx(expected.f1, abs=1e-6)
        low, high = record.intervals[protocol]["f1"]
        assert low < expected.f1 < high
    assert record.metrics["strict"]["valid_rate"] == pytest.approx(0.75)


def test_a_record_says_where_it_was_made(write):
    record = write()
    assert record.versions.keys() >= {"python", "torch", "transformers", "peft"}
    assert record.hardware["cores"] >= 1 and record.hardware["memory_gb"] > 0
    assert record.peak_memory_mb > (1 if torch.cuda.is_available() else 50)
    assert record.created.endswith("+00:00")
    assert record.commit is None or len(record.commit) == 40


def test_predictions_stand_beside_the_record_and_verify_it(write, answers):
    record = write()
    assert load_predictions(record) == {a.id: a for a in answers}
    verify(record)


def test_changed_predictions_are_noticed(write):
    record = write()
    path = record.path.with_name(record.predictions)
    path.write_text(path.read_text().replace("[1,2]", "[1,3]", 1))
    with pytest.raises(RecordError, match="changed since the record was written"):
        verify(record)
    path.unlink()
    with pytest.raises(RecordError, match=r"its file base-seed0\.predictions\.jsonl is missing"):
        verify(record)


@pytest.mark.parametrize("what", ["metrics", "intervals"])
def test_changed_numbers_are_noticed(write, what):
    record = write()
    content = json.loads(record.path.read_text())
    if what == "metrics":
        content["metrics"]["strict"]["f1"] += 0.1
    else:
        content["intervals"]["strict"]["f1"][0] -= 0.1
    record.path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=rf"{what} do not follow from base-seed0\.predictions\.jsonl"):
        verify(read_record(record.path))


def test_other_data_are_noticed(write, monkeypatch, test_split):
    record = write()
    shorter = Domain(name="toyshop", split="test", sessions=test_split.sessions[:-1])
    monkeypatch.setattr(records, "load_domain", lambda name, split: shorter)
    with pytest.raises(RecordError, match="made from other data"):
        verify(record)


def test_a_session_without_an_answer_is_an_error_and_nothing_is_written(write, answers, tmp_path):
    with pytest.raises(RecordError, match=f"no answer for 1 sessions of toyshop, {answers[0].id} the first"):
        write(answers=answers[1:])
    assert load_all(tmp_path) == [] and list(tmp_path.rglob("*.jsonl")) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"{", "no JSON, or cut off"),
        ("{}".encode("utf-16"), "it is not in UTF-8"),
        (b"[]", "expected an object, found a list"),
        (b'{"profile": "toy"}', "domain is missing, and [0-9]+ more"),
    ],
)
def test_what_is_no_record_names_file_and_remedy(tmp_path, content, why):
    path = tmp_path / "toy" / "toyshop" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=rf"x\.json: not a run record: {why}.*get it anew.*or remove it"):
        load_all(tmp_path)


NEW_VALUES = [
    ("metrics", {}, "metrics.official is missing"),
    ("metrics", {"official": {}, "strict": {}}, "metrics.official.precision is missing"),
    ("metrics.strict.f1", "high", "metrics.strict.f1 is 'high', expected a finite number"),
    ("metrics.strict.f1", True, "metrics.strict.f1 is True, expected a finite number"),
    ("metrics.strict.f1", float("nan"), "metrics.strict.f1 is nan, expected a finite number"),
    ("metrics.strict.f1", float("inf"), "metrics.strict.f1 is inf"),
    ("metrics.strict", [], r"metrics.strict is \[\], expected an object"),
    ("metrics", None, "metrics is None"),
    ("intervals", {}, "intervals.official is missing"),
    ("intervals.strict.f1", 0.5, "intervals.strict.f1 is 0.5, expected a list"),
    ("intervals.strict.f1", [0.5, None], r"intervals.strict.f1\[1\] is None, expected a finite number"),
    ("wall_seconds", float("nan"), "wall_seconds is nan"),
    ("n_sessions", 1.5, "n_sessions is 1.5, expected a whole number"),
    ("n_sessions", "80", "n_sessions is '80'"),
    ("seed", "0", "seed is '0', expected a whole number or null"),
    ("dirty", "no", "dirty is 'no', expected true or false or null"),
    ("student", "smol", "student is 'smol', expected an object or null"),
    ("problems", {"unreadable": "one"}, "problems.unreadable is 'one'"),
    ("predictions", None, "predictions is None, expected text"),
    ("predictions", "../x.jsonl", "'../x.jsonl' is no name of a file beside it"),
    ("predictions_sha256", 0, "predictions_sha256 is 0"),
    ("attachments", {"alpha": {"file": "x"}}, "attachments.alpha.sha256 is missing"),
    ("attachments", ["alpha"], "attachments is .*, expected an object"),
    ("hashes", {}, "hashes is no field of it"),
]


@pytest.mark.parametrize(("name", "value", "why"), NEW_VALUES, ids=[f"{name}={value}" for name, value, _ in NEW_VALUES])
def test_a_wrong_field_is_named(write, tmp_path, name, value, why):
    path = write().path
    content = json.loads(path.read_text())
    *outer, last = name.split(".")
    reduce(dict.__getitem__, outer, content)[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=rf"base-seed0\.json: not a run record: {why}.*or remove it"):
        load_all(tmp_path)


def test_a_measurement_is_looked_at_as_records_are(tmp_path, test_split):
    made = {
        "profile": "toy",
        "name": "conflict-seed0",
        "seed": 0,
        "config": {},
        "config_hash": "a",
        "wall_seconds": 1.0,
    }
    found = write_measurement(tmp_path, train=test_split, student=None, values={"x": [1]}, **made)
    assert load_measurements(tmp_path) == [found]
    content = json.loads(found.path.read_text())
    for wrong, why in ({"values": []}, "values is"), ({"config_hash": None}, "config_hash is None, expected text"):
        found.path.write_text(json.dumps(content | wrong))
        with pytest.raises(RecordError, match=rf"conflict-seed0\.json: not a measurement: {why}"):
            load_measurements(tmp_path)


@pytest.mark.parametrize("name", ["._base-seed0.json", ".x.json", ".ipynb_checkpoints/x.json"])
def test_hidden_files_are_no_records(write, tmp_path, name):
    written = write()
    for hidden in (written.path.parent / name, tmp_path / "toy" / ".hidden" / "x.json"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"\0\5\x16\7")
    (written.path.parent / "folder.json").mkdir()
    assert load_all(tmp_path) == [written]


@pytest.mark.parametrize("copy", ["toy/toyshop/base-seed0 (copy).json", "toy-old/toyshop/base-seed0.json"])
def test_a_copy_of_a_record_does_not_count_twice(write, tmp_path, copy):
    written = write()
    (tmp_path / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(written.path, tmp_path / copy)
    place = re.escape("belongs at toy/toyshop/base-seed0.json: move it there, or out of")
    with pytest.raises(RecordError, match=re.escape(copy) + ": " + place):
        load_all(tmp_path)


def test_a_mark_before_the_text_is_no_harm(write, tmp_path):
    written = write()
    written.path.write_bytes(b"\xef\xbb\xbf" + written.path.read_bytes())
    assert load_all(tmp_path) == [written]


def test_no_folder_means_no_records(tmp_path):
    assert load_all(tmp_path / "nowhere") == []


def test_records_differ_by_their_fields(write):
    assert replace(write(), seed=1) != write()


def test_attachments_are_kept_and_checked(write):
    record = write(attachments={"alpha": [{"id": 1, "alpha": [[0.5, 0.5]]}]})
    assert load_attachment(record, "alpha") == [{"id": 1, "alpha": [[0.5, 0.5]]}]
    with pytest.raises(RecordError, match="no attachment 'samples'; there is: alpha"):
        load_attachment(record, "samples")
    path = record.path.with_name("base-seed0.alpha.jsonl")
    path.write_text(path.read_text().replace("0.5", "0.6"))
    for look in (verify, lambda record: load_attachment(record, "alpha")):
        with pytest.raises(RecordError, match="changed since the record was written"):
            look(record)
    path.unlink()
    with pytest.raises(RecordError, match=r"its file base-seed0\.alpha\.jsonl is missing"):
        verify(record)


def test_all_records_of_this_project_are_well_formed_and_whole():
    found = load_all(ROOT / "results")
    assert found and [damage(record) for record in found if damage(record)] == []
    assert load_measurements(ROOT / "results")


def test_a_study_reads_its_own_records_whatever_lies_beside_them(write, tmp_path, test_split):
    """Hours of work must not end with an error about another profile's file; of its own it must be said."""
    record = write()
    folder = record.path.parent
    for place in ("other/toyshop/base.json", "other/toyshop/measured/x.json", f"{record.profile}/food/base.json"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("{}")
    study = Pipeline(replace(get_profile("toy"), name=record.profile), record.domain, results=tmp_path, progress=False)
    assert study.records() == [record] and study.measurements() == []
    assert load_all(tmp_path, profile=record.profile, domain=record.domain) == [record]
    for malformed in ({}, {"profile": record.profile}, {"domain": "toyshop"}):
        with pytest.raises(RecordError, match="not a run record"):
            load_all(tmp_path, **malformed)
    (folder / "mine.json").write_text("{}")
    with pytest.raises(RecordError, match=r"mine.json: not a run record"):
        study.records()


def test_names_with_marks_of_patterns_are_names(write, tmp_path):
    found = [write(profile=name, run="base") for name in ("[ab]", "a", "*")]
    assert [load_all(tmp_path, profile=record.profile) for record in found] == [[record] for record in found]
