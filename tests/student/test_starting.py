from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from routedk_lite.student.experts import train_expert
from routedk_lite.student.starting import Start

STILL = 1e-12
"""A learning rate at which nothing moves."""


def weights(folder):
    return load_file(Path(folder) / "adapter_model.safetensors")


@pytest.fixture
def train(tiny_student, tiny_profile, sessions, tmp_path):
    def run(folder, *, start=None, **changes):
        config = replace(tiny_profile.train, epochs=1, **changes)
        return train_expert(tiny_student, sessions[:8], tmp_path / folder, config=config, start=start, progress=False)

    return run


def start_at(folder, digest="one"):
    return Start(digest, lambda: folder)


def test_training_starts_from_the_weights_of_another_adapter_and_leaves_them_alone(train, tiny_student, sessions):
    ids = tiny_student.tokenizer("Lens cap", return_tensors="pt")["input_ids"]
    bare = tiny_student.model(ids).logits
    first = train("first").folder
    before = weights(first)
    stood = weights(train("stood", start=start_at(first), learning_rate=STILL).folder)
    moved = weights(train("moved", start=start_at(first)).folder)
    fresh = weights(train("fresh", learning_rate=STILL).folder)
    assert stood.keys() == before.keys()
    for name in before:
        assert stood[name].allclose(before[name], atol=1e-6)
    assert any(not moved[name].allclose(before[name], atol=1e-3) for name in before)
    assert all(fresh[name].abs().max() < 1e-6 for name in fresh if "lora_B" in name), "without a start, B is zero"
    assert all(weights(first)[name].equal(before[name]) for name in before)
    assert tiny_student.model(ids).logits.equal(bare)


def test_an_expert_is_known_by_where_it_started_and_asks_for_it_only_to_train(train):
    first = train("first").folder
    done = train("expert", start=start_at(first, "one"))

    def never():
        raise AssertionError("nothing is to be trained")

    assert train("expert", start=Start("one", never)).history == done.history
    with pytest.raises(AssertionError, match="nothing is to be trained"):
        train("expert", start=Start("two", never))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 3, "lora_alpha": 6}, "choose the same rank"),
        ({"lora_alpha": 7}, "scaled by 8, the expert's by 3.5"),
        ({"first_layer": 2}, "only the start has"),
        ({"target_modules": ("q_proj",)}, "only the start has"),
    ],
)
def test_a_start_with_another_shape_is_refused_and_the_student_is_free_again(train, changes, words):
    first = train("first").folder
    with pytest.raises(ValueError, match=words):
        train("expert", start=start_at(first), **changes)
    train("expert")


def test_a_start_that_lacks_modules_is_refused(train):
    first = train("first", target_modules=("q_proj",)).folder
    with pytest.raises(ValueError, match="only the expert has"):
        train("expert", start=start_at(first))


def test_a_start_that_is_no_adapter_is_refused(train, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors"):
        train("expert", start=start_at(tmp_path))
