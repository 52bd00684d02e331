import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import unprivileged
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from routedk_lite import files, unfinished
from routedk_lite.locks import locked


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "record.json"
    files.write_json(path, {"good": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"bad": object()})
    assert '"good": 1' in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_atomic_folder_keeps_the_old_folder_on_failure(tmp_path):
    target = tmp_path / "adapter"
    with files.atomic_folder(target) as work:
        (work / "a").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_folder(target, ours=["a"]) as work:
        (work / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("move", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_or_ctrl_c_at_either_move_loses_no_folder(tmp_path, monkeypatch, error, move, when):
    """What stands there then is the old folder or the new one, whole."""
    target, moves, replace = tmp_path / "adapter", [], os.replace
    with files.atomic_folder(target) as work:
        (work / "a").write_text("old")

    def stopped(source, place):
        moves.append(place)
        if len(moves) != move:
            return replace(source, place)
        if when == "after":
            replace(source, place)
        raise error

    monkeypatch.setattr(files.os, "replace", stopped)
    with pytest.raises(error), files.atomic_folder(target, ours=["a"]) as work:
        (work / "a").write_text("new")
    assert (target / "a").read_text() == ("new" if (move, when) == (2, "after") else "old")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_json_hash_ignores_the_order_of_keys():
    assert files.sha256_json({"a": 1, "b": [2]}) == files.sha256_json({"b": [2], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


# --- nothing of a user's is ever deleted ---

OURS = ("model.json", "*.safetensors")


def write(folder, text="new", **options):
    with files.atomic_folder(folder, ours=OURS, **options) as work:
        (work / "model.json").write_text(text)


def test_a_folder_of_ours_is_replaced_and_an_empty_one_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        write(folder)
        (folder / "a.safetensors").touch()
        write(folder, "newer")
        assert [p.name for p in folder.iterdir()] == ["model.json"] and (folder / "model.json").read_text() == "newer"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "new"]


def test_a_folder_that_has_a_name_of_ours_may_hold_something_else(tmp_path):
    ours = ["a.json", "notes/*/b.json"]
    for name in ("a.json", "notes/x/b.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("ours")
    (tmp_path / "notes" / "empty").mkdir()
    assert files.foreign_files(tmp_path, ours) == []
    for name in ("notes/thesis.txt", "notes/x/y/b.json", "notes/notes/x/b.json", "notes/x/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()
    expected = ["a.json", "notes/notes/x/b.json", "notes/thesis.txt", "notes/x/.hidden", "notes/x/y/b.json"]
    assert files.foreign_files(tmp_path, ours) == expected


@pytest.mark.parametrize("foreign", ["thesis.txt", ".hidden", "tokenizer.json"])
def test_a_folder_with_anything_else_in_it_is_refused_before_any_work(tmp_path, foreign):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / foreign).write_text("dear to me")
    with pytest.raises(files.OccupiedError, match=rf"mine holds {foreign}, which is not ours to replace"):
        write(tmp_path / "mine")
    assert (tmp_path / "mine" / foreign).read_text() == "dear to me"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_what_appears_while_the_work_is_done_is_kept_too(tmp_path):
    with (
        pytest.raises(files.OccupiedError, match="holds late.txt"),
        files.atomic_folder(tmp_path / "out", ours=OURS) as work,
    ):
        (work / "model.json").touch()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "late.txt").write_text("late")
    assert (tmp_path / "out" / "late.txt").read_text() == "late"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_force_replaces_a_folder_but_never_the_one_that_somebody_works_in(tmp_path, monkeypatch):
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "old.txt").touch()
    monkeypatch.chdir(tmp_path / "mine" / "deep")
    for folder in (".", "..", tmp_path / "mine"):
        with pytest.raises(files.OccupiedError, match="the folder that you work in, or one above it"):
            write(folder, force=True)
    monkeypatch.chdir(tmp_path)
    write("mine", force=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["model.json"]


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(files.OccupiedError, match="out is a file: give the name of a folder"):
        write(tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "a file"


def test_no_write_follows_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.json").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    write(tmp_path / "link")
    with files.atomic_write(tmp_path / "file.json") as file:
        file.write("x")
    (tmp_path / "file.json").unlink()
    (tmp_path / "file.json").symlink_to(tmp_path / "elsewhere" / "model.json")
    with files.atomic_write(tmp_path / "file.json") as file:
        file.write("ours")
    assert (tmp_path / "elsewhere" / "model.json").read_text() == "theirs"
    assert (tmp_path / "file.json").read_text() == "ours" and (tmp_path / "link" / "model.json").read_text() == "new"


@pytest.mark.parametrize("system", ["linux", "another"])
def test_threads_that_write_at_the_same_time_leave_the_umask_as_it_is(tmp_path, monkeypatch, system):
    if system == "another":
        monkeypatch.setattr(unfinished, "_STATUS", tmp_path / "none")
    change, seen = os.umask, []

    def slow(value):  # as if another thread were always let in between the two calls
        before = change(value)
        seen.append(value)
        time.sleep(0.005)
        return before

    before = change(0o027)
    monkeypatch.setattr(files.os, "umask", slow)
    try:
        writers = [
            threading.Thread(target=lambda k=k: files.write_json(tmp_path / f"{k}.json", {"k": k})) for k in range(8)
        ]
        for step in (threading.Thread.start, threading.Thread.join):
            for writer in writers:
                step(writer)
    finally:
        left = change(before)
    assert left == 0o027 and 0 not in seen
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.json")} == {0o640}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with files.atomic_folder(tmp_path / "out") as work:
            (work / "inner").mkdir(mode=0o700)
            (work / "inner" / "private").touch(mode=0o600)
        with files.written_beside(tmp_path / "beside", last="z") as work:
            (work / "z").touch(mode=0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "out", tmp_path / "out" / "inner"):
        assert path.stat().st_mode & 0o777 == 0o777 & ~umask
    for path in (tmp_path / "out" / "inner" / "private", tmp_path / "beside" / "z"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_files_are_written_beside_others_and_the_one_that_names_them_comes_last(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("kept")
    moved, replace = [], os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: moved.append(Path(b).name) or replace(a, b))
    with files.written_beside(tmp_path, last="routed.json") as work:
        for name in ("routed.json", "a.safetensors", "z.safetensors"):
            (work / name).write_text(name)
    assert moved == ["a.safetensors", "z.safetensors", "routed.json"]
    assert {p.name for p in tmp_path.iterdir()} == {*moved, "tokenizer.json"}
    assert (tmp_path / "tokenizer.json").read_text() == "kept"


# --- paths that users name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("x/y", "x/y"),
        ("~/x", "/home/me/x"),
        ("file:///x%20y", "/x y"),
        ("file://localhost/x", "/x"),
        ("a:b", "a:b"),  # a colon alone makes no address
        ("x y", "x y"),
    ],
)
def test_a_path_may_be_written_as_users_write_it(monkeypatch, value, path):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.user_path(value, "--out") == Path(path)
    monkeypatch.setenv("ROUTEDK_CACHE", value)
    assert files.cache_dir("data") == Path(path, "data")


@given(st.text())
def test_a_path_is_understood_or_refused_by_name(value):
    try:
        found = files.user_path(value, "--out")
    except ValueError as error:
        assert str(error).startswith(f"--out = {value!r}")
    else:
        assert "\0" not in str(found) and not str(found).startswith("~/")


def test_without_a_home_the_cache_must_be_named(monkeypatch):
    monkeypatch.delenv("ROUTEDK_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    with pytest.raises(ValueError, match="ROUTEDK_CACHE is not set, and there is no home folder"):
        files.cache_dir()


@pytest.mark.parametrize("write", [locked, files.atomic_write, files.atomic_folder])
@pytest.mark.parametrize("place", ["read-only", "file", "file/deeper", "link", "x" * 300])
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path, monkeypatch, write, place):
    for name in ("read-only", "elsewhere"):
        (tmp_path / name).mkdir(mode=0o555)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere/at/all")
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / place))
    words = rf"the cache {tmp_path}/{place} cannot be written to \(.+\): set ROUTEDK_CACHE to a folder"
    with unprivileged(), pytest.raises(files.DownloadError, match=words), write(files.cache_dir("students", "x")):
        pass
    with unprivileged(), pytest.raises(OSError, match="denied"), write(tmp_path / "elsewhere" / "y"):
        pass  # what lies elsewhere is no matter of the cache


@pytest.mark.parametrize("error", [OSError(code, "no locks here") for code in (errno.ENOLCK, errno.EOPNOTSUPP)])
def test_where_the_file_system_has_no_locks_two_still_take_turns(tmp_path, monkeypatch, error):
    def flock(file, operation):
        raise error

    monkeypatch.setattr("fcntl.flock", flock)
    inside = []

    def make(name):
        with locked(tmp_path / "folder"):
            inside.append(name)
            time.sleep(0.1)
            inside.append(name)

    threads = [threading.Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert inside in ([*"aabb"], [*"bbaa"])


def test_an_error_inside_the_lock_lets_go_of_it(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), locked(tmp_path / "x"):
            raise RuntimeError


def test_what_a_file_browser_leaves_is_nobodys(tmp_path):
    target = tmp_path / "mine"
    (target / "notes").mkdir(parents=True)
    for name in (".DS_Store", "notes/.DS_Store", "Thumbs.db", "desktop.ini", "notes/b.txt"):
        (target / name).write_text("")
    assert files.foreign_files(target, ["notes/b.txt"]) == []
    with files.atomic_folder(target, ours=["notes/b.txt"]) as work:
        (work / "a").write_text("new")
    assert [path.name for path in target.iterdir()] == ["a"]


@pytest.mark.parametrize(("pauses", "moved"), [((0, 0), True), ((0,), False), ((), False)])
def test_what_another_program_holds_for_a_moment_is_moved_later(tmp_path, monkeypatch, pauses, moved):
    tries, replace = [], os.replace

    def held(a, b):
        tries.append(a)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "held", str(a))
        replace(a, b)

    monkeypatch.setattr(unfinished, "_PAUSES", pauses)
    monkeypatch.setattr(files.os, "replace", held)
    if moved:
        files.write_json(tmp_path / "x.json", {})
        assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    else:
        with pytest.raises(PermissionError):
            files.write_json(tmp_path / "x.json", {})
        assert len(tries) == 1 + len(pauses)


def test_tensors_come_in_the_same_order_each_time(tmp_path):
    names = [f"layers.{i}.w" for i in range(30)]
    save_file({name: torch.ones(1) for name in names}, tmp_path / "a.safetensors")
    assert list(files.read_tensors(tmp_path / "a.safetensors")) == sorted(names)


def test_tensors_are_not_mapped_from_their_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.arange(6.0).reshape(2, 3)}, path)
    found = files.read_tensors(path)["w"]
    content = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(bytes(len(content)))
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(FileNotFoundError):
        files.read_tensors(tmp_path / "b.safetensors")
