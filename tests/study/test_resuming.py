"""Answers that are kept as they come: after a stop, beside another process, on a full disk."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from full_disk import files_up_to
from hypothesis import given
from hypothesis import strategies as st

from routedk_lite.answers.decoding import Answer, Samples
from routedk_lite.study import kept
from routedk_lite.study.votes import resumed
from routedk_lite.unfinished import ENDING


def answer(id_: int, draw: int = 0) -> Answer:
    """With a log-probability of more digits than are kept."""
    return Answer.of_bundles(id_, [(1, 2)])._replace(text=f"1 2 é {draw}", n_tokens=3, log_prob=-(id_ + draw) / 7)


def samples(id_: int) -> Samples:
    return Samples(id_, answer(id_), tuple(answer(id_, draw % 2) for draw in range(3)))


class Teller:
    """Answers in batches of two, as decoding does: a batch that is partly done is made anew, and its rest is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.batches = stop_after, 0

    def __call__(self, *, sessions, done, on_batch, **how) -> list[Samples]:
        told = []
        for batch in (sessions[k : k + 2] for k in range(0, len(sessions), 2)):
            if any(id_ not in done for id_ in batch):
                if self.batches == self.stop_after:
                    raise KeyboardInterrupt
                self.batches += 1
                told += (found := [samples(id_) for id_ in batch if id_ not in done])
                on_batch(found)
        return told


def study(folder: Path) -> SimpleNamespace:
    profile = SimpleNamespace(prompt=None, decode=None)
    return SimpleNamespace(work=folder, profile=profile, progress=False, split=lambda name: list(range(9)))


@given(st.integers(0, 4), st.data())
def test_wherever_it_was_cut_off_the_rest_is_answered(tmp_path_factory, stop_after, data):
    one, other = study(tmp_path_factory.mktemp("cut")), study(tmp_path_factory.mktemp("whole"))
    with pytest.raises(KeyboardInterrupt):
        resumed(one, "x", Samples, Teller(stop_after))
    partial = one.work / "x.partial.jsonl"
    content = partial.read_bytes()
    partial.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    teller = Teller()
    assert resumed(one, "x", Samples, teller).answers == resumed(other, "x", Samples, Teller()).answers
    assert partial.read_bytes() == (other.work / "x.partial.jsonl").read_bytes()
    assert 5 - stop_after <= teller.batches <= 5
    again = [resumed(s, "x", Samples, Teller(0)).answers for s in (one, other)]
    assert again[0] == again[1], "nothing is asked again"


@pytest.mark.parametrize("killed_at", range(1, 6))
def test_a_kill_while_the_time_is_noted_leaves_nothing_behind(tmp_path, monkeypatch, killed_at):
    """Of the last batch too, after which nothing is left to be answered."""
    noted, real = [], kept.write_json

    def note(path: Path, value: dict) -> None:
        noted.append(value["seconds"])
        if len(noted) == killed_at:  # a kill leaves the file in the making; an error would have removed it
            path.with_name(f".{path.name}{ENDING}").write_text('{"sec')
            raise KeyboardInterrupt
        real(path, value)

    monkeypatch.setattr(kept, "write_json", note)
    with pytest.raises(KeyboardInterrupt):
        resumed(study(tmp_path), "x", Samples, Teller())
    found = resumed(study(tmp_path), "x", Samples, Teller())
    assert [one.id for one in found.answers] == list(range(9))
    assert not [path.name for path in tmp_path.iterdir() if ENDING in path.name]
    note = json.loads((tmp_path / "x.partial.seconds.json").read_text())
    assert note["seconds"] == round(found.seconds, 3) and note["peak_mb"] > (0 if torch.cuda.is_available() else 50)
    assert len(noted) == 6, "every batch once, and once more the one whose note was cut off"


def test_two_who_want_the_same_answers_ask_once(tmp_path):
    """The second one comes while the first is asking, waits, and finds everything answered."""
    asking, second_came, tellers, found = threading.Event(), threading.Event(), [Teller(), Teller()], []

    def ask_slowly(**how):
        asking.set()
        second_came.wait()
        return tellers[0](**how)

    first = threading.Thread(target=lambda: found.append(resumed(study(tmp_path), "x", Samples, ask_slowly).answers))
    second = threading.Thread(target=lambda: found.append(resumed(study(tmp_path), "x", Samples, tellers[1]).answers))
    first.start()
    asking.wait()
    second.start()
    second_came.set()
    first.join()
    second.join()
    assert [teller.batches for teller in tellers] == [5, 0]
    assert len(found) == 2 and found[0] == found[1]


def test_a_full_disk_names_the_file_and_loses_nothing_whole(tmp_path):
    with files_up_to(1500), pytest.raises(OSError, match=r"File too large: '.*x\.partial\.jsonl'"):
        resumed(study(tmp_path), "x", Samples, Teller())
    teller = Teller()
    assert len(resumed(study(tmp_path), "x", Samples, teller).answers) == 9 and 0 < teller.batches < 5
    rows = (tmp_path / "x.partial.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == list(range(9))
