from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from routedk_lite.answers.answering import profile_reader
from routedk_lite.config import PROFILES, TrainConfig, digest
from routedk_lite.data import domains
from routedk_lite.data.sessions import PUBLIC_DOMAINS
from routedk_lite.files import sha256_file, sha256_folder
from routedk_lite.fusion.fusion import Average
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.student.experts import load_expert
from routedk_lite.student_config import PairConfig
from routedk_lite.study import experiments, joint
from routedk_lite.study.pipeline import Pipeline
from routedk_lite.study.records import read_record


@pytest.fixture
def study(tiny_profile, tmp_path, monkeypatch):
    """A study whose public domains are three handfuls of toy sessions."""

    def small(name, split):
        domain = domains.load_domain("toyshop", split)
        at = 8 * PUBLIC_DOMAINS.index(name) if name in PUBLIC_DOMAINS else 24
        return replace(domain, name=name, sessions=domain.sessions[at : at + 8])

    for module in ("study.study", "study.records", "study.joint"):
        monkeypatch.setattr(f"routedk_lite.{module}.load_domain", small)
    for module in ("study.pipeline", "study.estimate"):
        monkeypatch.setattr(f"routedk_lite.{module}.domain_is_cached", lambda name: True)
    train = replace(tiny_profile.train, max_length=4000, epochs=1, joint_epochs=1, pair_weight=1.0)
    profile = replace(tiny_profile, train=train, pairs=PairConfig(layer=1), domains=PUBLIC_DOMAINS)

    def make(domain, seed=0):
        where = {"results": tmp_path / "results", "work": tmp_path / "runs"}
        return Pipeline(profile, domain, seed, progress=False, **where)

    return make


def test_all_domains_share_one_joint_adapter_and_each_seed_has_its_own(study):
    food, clothing = study("food"), study("clothing")
    folder = joint.train_joint(food, 0).folder
    first = sha256_folder(folder)
    assert joint.train_joint(clothing, 0).folder == folder and sha256_folder(folder) == first
    assert joint.joint_start(food, 0).digest == joint.joint_start(clothing, 0).digest
    assert joint.joint_start(food, 0).digest != joint.joint_start(food, 1).digest
    expert = experiments.train(clothing, "base").folder
    assert expert.parent.name == "clothing" and sha256_folder(folder) == first
    start, end = (load_file(Path(f) / "adapter_model.safetensors") for f in (folder, expert))
    far = sum(float((end[name] - start[name]).norm()) for name in start)
    other = load_file(Path(joint.train_joint(food, 1).folder) / "adapter_model.safetensors")
    assert far < sum(float((end[name] - other[name]).norm()) for name in start), "it started from its own seed's"


def test_the_joint_adapter_is_the_same_whichever_domain_asks_first(study, tmp_path):
    weights = []
    for domain in ("food", "clothing"):
        first = study(domain)
        first.work = tmp_path / f"{domain} first" / domain
        weights.append(sha256_file(joint.train_joint(first, 0).folder / "adapter_model.safetensors"))
    assert weights[0] == weights[1]


def test_the_joint_adapter_is_a_run_of_its_own_that_comes_before_the_experts(study):
    food = study("food")
    stages = {stage.name: stage for stage in food.stages}
    names = list(stages)
    assert names.index("joint-seed0") < names.index("base-seed0")
    before = {name: [s.name for s in food.before(stages[name])] for name in names}
    assert before["joint-seed0"] == before["floor-random"] == ["data", "student"]
    assert before["base-seed0"] == ["data", "student", "joint-seed0"]
    assert {"joint-seed0", "base-seed0"} <= set(before["fusion-average-seed0"])
    assert stages["joint-seed0"].sessions == 3 and "clothing" in stages["data"].about
    stages["joint-seed0"].run()
    record = read_record(food.results / food.profile.name / "food" / "joint-seed0.json")
    assert record.config["train"]["joint_epochs"] == 1 and record.metrics and stages["joint-seed0"].is_done()


def test_without_joint_epochs_there_is_no_joint_adapter_and_no_digest_changes(study):
    food = study("food")
    alone = Pipeline(replace(food.profile, train=replace(food.profile.train, joint_epochs=0)), "food", progress=False)
    assert "joint-seed0" not in [stage.name for stage in alone.stages]
    assert joint.joint_start(alone, 0) is None
    plain = PROFILES["smol"].train
    assert digest(plain) == digest(replace(plain, joint_epochs=0)) != digest(replace(plain, joint_epochs=1))


@pytest.mark.parametrize(("field", "value"), [("joint_epochs", -1), ("joint_learning_rate", 0.0)])
def test_joint_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})


def test_pairs_are_read_from_the_student_as_it_is_even_where_the_joint_adapter_is_asked_first(study):
    food = study("food")
    centre = food.reader.centre
    alone = study("food")
    (stage,) = (stage for stage in alone.stages if stage.name == "joint-seed0")
    stage.run()
    assert torch.equal(alone.reader.centre, centre)


def test_no_reader_is_made_on_a_student_that_carries_an_expert(study):
    food = study("food")
    folder = joint.train_joint(food, 0).folder
    for put_on in (load_expert, lambda student, folder: RoutedModel(student.model, [folder], Average())):
        model = put_on(food.student, folder)
        try:
            with pytest.raises(ValueError, match="carries an expert: make the reader before"):
                profile_reader(food.profile, food.student, food.split("train"))
        finally:
            model.unload()
    assert torch.equal(profile_reader(food.profile, food.student, food.split("train")).centre, food.reader.centre)
