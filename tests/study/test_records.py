import json
from dataclasses import replace

import pytest
import torch

from routedk_lite.answers.decoding import Answer
from routedk_lite.data.domains import load_domain
from routedk_lite.data.metrics import evaluate
from routedk_lite.data.prompts import Problem
from routedk_lite.data.sessions import Domain
from routedk_lite.study import records
from routedk_lite.study.records import (
    RecordError,
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


def test_changed_numbers_are_noticed(write):
    record = write()
    content = json.loads(record.path.read_text())
    content["metrics"]["strict"]["f1"] += 0.1
    record.path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"metrics do not follow from base-seed0\.predictions\.jsonl"):
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


def test_a_malformed_record_names_the_file(tmp_path):
    path = tmp_path / "toy" / "toyshop" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(RecordError, match=r"x\.json: not a run record"):
        load_all(tmp_path)
    path.write_text('{"profile": "toy"}')
    with pytest.raises(RecordError, match="missing"):
        read_record(path)


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
    with pytest.raises(RecordError, match="changed since the record was written"):
        load_attachment(record, "alpha")
