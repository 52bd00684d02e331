"""The trials of written answers: lists of short titles, and the letters that a reader of no titles expects."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from conftest import load_script

from routedk_lite.answers.partitions import bundles_of, partitions
from routedk_lite.config import PairConfig, PromptConfig, get_profile
from routedk_lite.data.formats import FORMATS
from routedk_lite.data.sessions import Session
from routedk_lite.student.examples import encode_example

TITLES = ("Norva linen kitchen apron", "Norva linen kitchen towel", "Orbis | watch", "Tea pot")


@pytest.fixture(scope="module")
def trials():
    return load_script("writing", "benchmarks")


@pytest.mark.parametrize(
    ("text", "bundles"),
    [
        ("Norva linen kitchen | Norva linen kitchen\nOrbis watch | Tea pot", ({1, 2}, {3, 4})),  # alike: the next one
        ("Tea pot | Norva linen kitchen", ({1, 4},)),
        ("Tea pot | Norva linen | Orbis watch", ({3, 4},)),  # half a beginning names nothing
        ("Tea pot\nTea pot | Kettle", ()),
        ("Tea pot | Orbis watch\nOrbis watch | Tea pot", ({3, 4},)),
    ],
)
def test_lists_of_short_titles_are_read(trials, text, bundles):
    assert trials.read_titles(text, TITLES) == tuple(map(frozenset, bundles))


@pytest.mark.parametrize("bundles", [[[1, 2], [3, 4]], [[1, 3, 4]], [[1, 2, 3, 4]], []])
def test_what_is_written_in_short_titles_is_read_again(trials, bundles):
    text = trials.write_titles(bundles, TITLES)
    assert trials.read_titles(text, TITLES) == tuple(map(frozenset, bundles))


def test_a_student_of_short_titles_learns_them(trials, tiny_student, monkeypatch):
    monkeypatch.setitem(FORMATS, "titles", trials.TITLES)
    session = Session(id=1, items=TITLES, titles=TITLES, bundles=(frozenset({1, 4}),))
    prompt = PromptConfig(fmt="titles", max_title_words=2)
    example = encode_example(session, tiny_student.tokenizer, prompt, max_length=500)
    answer = tiny_student.tokenizer.decode(example.input_ids[example.n_prompt :], skip_special_tokens=True)
    assert answer.strip() == "Norva linen | Tea pot"  # as its prompt shows them


def test_letters_expected_without_titles_are_a_distribution(trials):
    def session(bundles):
        return Session(id=1, items=tuple("abcd"), titles=tuple("abcd"), bundles=bundles)

    counts = trials.LetterCounts([session((frozenset({1, 2}), frozenset({3, 4})))] * 20)
    possible = [(), *(tuple(bundles_of(labels)) for labels in partitions(4).labels)]
    chances = {found: math.exp(-counts.nats(session(found))) for found in possible}
    assert 0.5 < sum(chances.values()) <= 1  # letters that stand alone, which no annotation has, get the rest
    assert max(chances, key=chances.get) != ()
    two_pairs = [found for found in chances if sorted(map(len, found)) == [2, 2]]
    assert sum(chances[found] for found in two_pairs) > 0.5 * sum(chances.values())


def test_a_trial_that_is_asked_for_again_does_not_train_again(trials, tmp_path):
    toy = replace(get_profile("toy"), pairs=PairConfig(layer=2))
    made = [trials.trial("one-numbers", toy, "toyshop", 0, 1, 8, tmp_path) for _ in range(2)]
    folders = [path.parent for path in tmp_path.rglob("training.json")]
    assert [folder.relative_to(tmp_path).parts for folder in folders] == [("toy", "toyshop", "one-numbers-seed0")]
    trained = json.loads((folders[0] / "training.json").read_text())["seconds"]
    assert [row["epochs"][0]["minutes"] for row in made] == [round(trained / 60, 1)] * 2
    assert made[0] == made[1]
