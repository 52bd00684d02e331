import hashlib
import http.server
import os
import threading
from pathlib import Path

import pytest

from routedk_lite import files

CONTENT = bytes(range(256)) * 5000
RIGHT = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def server():
    """A local web server whose behaviour a test can set; it notes the ranges it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state = self.server
            state.ranges.append(self.headers.get("Range"))
            if state.failures:
                self.send_response(state.failures.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if state.resumes else 0
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else len(body)
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.failures, httpd.cuts, httpd.ranges, httpd.resumes = [], [], [], True
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/file.bin"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)


def test_fetch_copies_verifies_and_reports_progress(source, tmp_path):
    seen = []
    target = files.fetch(str(source), tmp_path / "cache" / "x.bin", sha256=RIGHT, progress=seen.append)
    assert target.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


def test_fetch_leaves_a_right_file_alone(source, tmp_path):
    target = files.fetch(str(source), tmp_path / "x.bin", sha256=RIGHT)
    source.unlink()
    assert files.fetch(str(source), target, sha256=RIGHT) == target


def test_wrong_bytes_are_refused_and_not_kept(source, tmp_path):
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(files.DownloadError, match=r"source\.bin has SHA-256 .* expected"):
        files.fetch(str(source), tmp_path / "new" / "x.bin", sha256=RIGHT)
    assert [p.name for p in (tmp_path / "new").iterdir() if not p.name.endswith(".lock")] == []


def test_a_damaged_cached_file_is_replaced(source, tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"damaged")
    files.fetch(str(source), target, sha256=RIGHT)
    assert target.read_bytes() == CONTENT


def test_missing_source_names_it_and_the_way_out(tmp_path):
    with pytest.raises(files.DownloadError, match="ROUTEDK_MIRROR"):
        files.fetch(str(tmp_path / "nowhere"), tmp_path / "x.bin", sha256=RIGHT)


def test_a_broken_transfer_is_continued(server, tmp_path):
    server.cuts = [700_000]
    files.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    first, second = server.ranges
    assert first is None
    assert 600_000 < int(second.removeprefix("bytes=").removesuffix("-")) <= 700_000


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.cuts, server.resumes = [700_000], False
    files.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_server_errors_are_retried_but_a_missing_page_is_not(server, tmp_path):
    server.failures = [503, 503]
    files.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert len(server.ranges) == 3
    server.failures = [404]
    with pytest.raises(files.DownloadError, match="404"):
        files.fetch(server.url, tmp_path / "y.bin", sha256=RIGHT)
    assert len(server.ranges) == 4


def test_no_network_is_one_clear_sentence_and_keeps_what_arrived(server, tmp_path):
    server.cuts = [700_000] + [0] * 10
    with pytest.raises(files.DownloadError, match="Check the network"):
        files.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert not (tmp_path / "x.bin").exists()
    assert 600_000 < (tmp_path / "x.bin.part").stat().st_size <= 700_000


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
