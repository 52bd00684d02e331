"""What a kill leaves half written is taken up by the next who writes the same, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from full_disk import files_up_to

from routedk_lite import files, unfinished

SCRIPT = """
import os, signal, sys
from pathlib import Path
from routedk_lite import files

top, moment = Path(sys.argv[1]), sys.argv[2]
kill, replace = lambda: os.kill(os.getpid(), signal.SIGKILL), os.replace

def killed_after_moving(a, b):
    replace(a, b)
    kill()

if moment.startswith("moving"):
    os.replace = killed_after_moving
if moment in ("file", "moving file"):
    with files.atomic_write(top / "x.json") as file:
        file.write("half")
        file.flush()
        moment == "file" and kill()
if moment in ("folder", "moving folder"):
    with files.atomic_folder(top / "x", ours=["a"]) as work:
        (work / "a").write_text("half")
        moment == "folder" and kill()
if moment in ("beside", "moving beside"):
    with files.written_beside(top / "x", last="z") as work:
        for name in ("a", "z"):
            (work / name).write_text("half")
        moment == "beside" and kill()
"""


def killed(top: Path, moment: str) -> list[str]:
    """Run the script until it kills itself; what is there then."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(top), moment], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    return names(top)


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_a_file(tmp_path):
    files.write_json(tmp_path / "x.json", {"old": 1})
    for _ in range(2):
        assert killed(tmp_path, "file") == [".x.json.unfinished", "x.json"], "however often: one file"
    assert files.read_json(tmp_path / "x.json", "x") == {"old": 1}
    files.write_json(tmp_path / "x.json", {"new": 1})
    assert names(tmp_path) == ["x.json"] and files.read_json(tmp_path / "x.json", "x") == {"new": 1}
    assert killed(tmp_path, "moving file") == ["x.json"]


def write(top: Path, text: str) -> None:
    with files.atomic_folder(top / "x", ours=["a"]) as work:
        (work / "a").write_text(text)


@pytest.mark.parametrize("old", [False, True])
def test_a_folder(tmp_path, old):
    if old:
        write(tmp_path, "old")
    assert ".x.unfinished/new/a" in killed(tmp_path, "folder")
    assert not old or (tmp_path / "x" / "a").read_text() == "old"
    write(tmp_path, "new")
    assert names(tmp_path) == ["x", "x/a"] and (tmp_path / "x" / "a").read_text() == "new"


def test_a_folder_that_was_moved_away_for_a_new_one_comes_back(tmp_path):
    write(tmp_path, "old")
    assert "x" not in killed(tmp_path, "moving folder")
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "x", ours=["a"]):
        raise RuntimeError
    assert names(tmp_path) == ["x", "x/a"] and (tmp_path / "x" / "a").read_text() == "old"


def test_files_beside_others(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "theirs").touch()
    for moment in ("beside", "moving beside"):
        assert any("unfinished" in name for name in killed(tmp_path, moment))
        assert files.foreign_files(tmp_path / "x", ["a", "z"]) == ["theirs"]
        with files.written_beside(tmp_path / "x", last="z") as work:
            (work / "z").write_text("new")
        assert "unfinished" not in " ".join(names(tmp_path)) and (tmp_path / "x" / "theirs").exists()


def test_what_others_are_writing_and_what_only_looks_alike_stays(tmp_path):
    alike = [".x.json.unfinished.txt", ".y.json.unfinished", ".x.json.abcdefgh", "x.json.unfinished"]
    for name in alike:
        (tmp_path / name).write_text("dear to me")
    with files.atomic_write(tmp_path / "x.json") as first:
        first.write("first")
        files.write_json(tmp_path / "x.json", "second")
    assert (tmp_path / "x.json").read_text() == "first", "who ends last has the last word"
    writing = [files.atomic_folder(tmp_path / "z", ours=["a", "b"]) for _ in range(2)]
    with writing[0] as one, writing[1] as other:
        (one / "a").touch()
        (other / "b").touch()
    assert names(tmp_path) == sorted([*alike, "x.json", "z", "z/a"])
    assert all((tmp_path / name).read_text() == "dear to me" for name in alike)


def test_a_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "theirs").write_text("dear to me")
    (tmp_path / ".x.json.unfinished").symlink_to(tmp_path / "theirs")
    files.write_json(tmp_path / "x.json", 1)
    assert (tmp_path / "theirs").read_text() == "dear to me" and (tmp_path / "x.json").read_text() == "1\n"


def test_without_locks_every_write_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "fcntl", None)
    write(tmp_path, "new")
    files.write_json(tmp_path / "y.json", 1)
    assert names(tmp_path) == ["x", "x/a", "y.json"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    files.write_json(tmp_path / "x.json", "old")
    with files_up_to(100), pytest.raises(OSError, match=r"File too large: '.*x\.json'"):
        files.write_json(tmp_path / "x.json", "new" * 100_000)
    assert names(tmp_path) == ["x.json"] and (tmp_path / "x.json").read_text() == '"old"\n'
    assert os.stat(tmp_path / "x.json").st_mode & 0o777 == 0o666 & ~unfinished.umask()
