"""How the command ends: failures that a user can mend are one sentence, with the thing, the value and the way out."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, unprivileged
from explored import make_results
from safetensors.torch import load_file

from routedk_lite import errors
from routedk_lite.__main__ import app
from routedk_lite.study.pipeline import Pipeline


@pytest.fixture
def ended(tmp_path, monkeypatch, capfd):
    """Run the command in a folder with all kinds of things in it; its exit code and what it wrote to stderr."""
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blocked").mkdir(mode=0o555)
    (tmp_path / "nowhere").symlink_to("not/there")
    (tmp_path / "latin.yml").write_bytes(b"profile: caf\xe9")
    (tmp_path / "mine.csv").write_text("session,item,title\n1,1,tea\n")
    (tmp_path / "bad.csv").write_text("session,item,title\n1,1,\n2,,\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "replication.md").write_bytes("é".encode("latin-1"))
    (tmp_path / "utf16").mkdir()
    (tmp_path / "utf16" / "rules.json").write_text("{}", encoding="utf-16")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))

    def run(*words, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with unprivileged():
            code = errors.exit_code(app, words)
        return code, capfd.readouterr().err

    return run


KNOWN = "choose one of toy, smol, qwen, t4, paper, control, qwen-1.5b"
SEED = "--seed = {}: must be a whole number from 0 to 4294967294"
PLACES = {
    "": "is empty: give the name of a folder, or leave it out",
    "file": "is a file: give the name of a folder",
    "file/deeper": "file is a file: give the name of a folder",
    "nowhere": "is a link to not/there, which is not there: give the name of a folder",
    "ftp://host/x": "give the name of a folder, or file:///…",
    "~nosuchuser/x": "there is no such home folder; write the whole path",
    "a\0b": "holds a NUL character",
    "x" * 300: "File name too long: give the name of another folder",
}
"""What cannot be a folder, and why."""


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        # unknown names and impossible numbers, in every command that takes them
        ("run --profile nope", f"unknown profile 'nope': {KNOWN}", 1),
        ("run --profile nope --dry-run", f"unknown profile 'nope': {KNOWN}", 1),
        ("export out --profile nope", f"unknown profile 'nope': {KNOWN}", 1),
        ("explorer page.html --profile nope", f"unknown profile 'nope': {KNOWN}", 1),
        ("report --profile nope", f"unknown profile 'nope': {KNOWN}", 1),
        ("results --profile nope", f"unknown profile 'nope': {KNOWN}", 1),
        ("run --domain nope", "domain 'nope' does not go with profile 'toy': choose one of toyshop", 1),
        ("export out --domain food", "domain 'food' does not go with profile 'toy': choose one of toyshop", 1),
        ("explorer page.html --domain nope", "domain 'nope' does not go with profile 'toy'", 1),
        ("results --domain nope", "domain = 'nope': choose one of electronic, clothing, food, toyshop, habits", 1),
        ("distill --domain nope --kind rules", "domain = 'nope': choose one of electronic, clothing, food", 1),
        ("data fetch --domain nope", "unknown public domain 'nope': choose among electronic, clothing, food", 1),
        ("run --only nope", "no stage 'nope': choose among data, student, floor-whole", 1),
        ("run --only base-seed7", "no stage 'base-seed7': choose among data", 1),
        ("run --part nope", "part = 'nope': choose one of method, companion, ablations", 1),
        ("export out --fusion nope", "fusion = 'nope': choose among average, ties, static", 1),
        ("distill --domain food --kind rules --model x", "--model says nothing about --teacher recorded", 1),
        (
            "distill --domain food --kind rules --teacher local --model x --base-url y",
            "--base-url says nothing about --teacher local",
            1,
        ),
        ("run --seed 4294967295", "--seed = 4294967295: must be a whole number from 0 to 4294967294", 1),
        ("distill --domain food --kind nope", "kind = 'nope': choose one of rules, reasoning, answers, patterns", 1),
        ("distill --domain food --kind rules --teacher nope", "teacher = 'nope': choose one of recorded, openai", 1),
        ("distill --domain food --kind rules --extra [1]", "--extra: a list, must be a JSON object", 1),
        ("run --seed -1", SEED.format("-1"), 1),
        ("run --seed abc", SEED.format("'abc'"), 1),
        ("run --seed 1.5", SEED.format("'1.5'"), 1),
        ("run --seed 4294967296", SEED.format("4294967296"), 1),
        ("export out --seed -1", SEED.format("-1"), 1),
        ("explorer page.html --seed nan", SEED.format("'nan'"), 1),
        ("distill --domain food --kind rules --limit 0", "--limit = 0: must be a whole number, 1 or more", 1),
        ("distill --domain food --kind rules --concurrency x", "--concurrency = 'x': must be a whole number, 1", 1),
        ("distill --domain food --kind rules --price-in -5", "--price-in = -5: must be a finite number, 0 or more", 1),
        ("distill --domain food --kind rules --price-out nan", "--price-out = nan: must be a finite number, 0", 1),
        ("nope", "No such command 'nope'. See: routedk --help", 2),
        ("run --nope", "No such option: --nope", 2),
        ("distill --kind rules", "Missing option '--domain'. See: routedk distill --help", 2),
        ("explorer", "Missing argument 'PAGE'. See: routedk explorer --help", 2),
        ("bundle", "Missing argument 'SESSIONS'. See: routedk bundle --help", 2),
        ("bundle empty", "Missing option '--experts'. See: routedk bundle --help", 2),
        ("run --domain ./nope", "domain = './nope': there is no such folder; give one that holds sessions.csv", 1),
        ("run --domain empty", "empty holds no sessions.csv, nor .tsv, .jsonl, .ndjson: put your sessions there", 1),
        ("bundle nope.csv --experts empty", "nope.csv: there is no such file or folder: check the name", 1),
        ("bundle file --experts empty", "file: unknown kind of file: give one that ends with .csv, .tsv", 1),
        ("bundle mine.csv --experts empty", "empty holds no experts (routed.json or adapter_config.json): give", 1),
        ("bundle bad.csv --experts empty", "bad.csv, line 2: title is empty: every item needs one", 1),
        # nothing there
        ("results", "no records in results, which does not exist. Make some: routedk run --profile toy", 1),
        ("results --results empty", "no records in empty. Make some: routedk run --profile toy", 1),
        ("results --profile t4 --domain food", "no records of profile 't4' of domain 'food' in results", 1),
        ("explorer page.html", "results: no explorer-seed0 of profile 'toy' and domain 'toyshop'", 1),
        ("report --claims nope.yml", "nope.yml: cannot be read ([Errno 2] No such file or directory", 1),
        ("report --claims latin.yml", "latin.yml: cannot be read (unacceptable character", 1),
        # what cannot be written
        ("run --only floor-pairs --results blocked/x", "--results = blocked/x cannot be written to (Permission", 1),
        ("run --only floor-pairs --work blocked", "--work = blocked cannot be written to (Permission denied)", 1),
        ("export blocked/x", "folder = blocked/x cannot be written to (Permission denied): choose another folder", 1),
        ("distill --domain toyshop --kind rules --out blocked/x", "--out = blocked/x cannot be written to (Permiss", 1),
        ("distill --domain food --kind rules --out utf16", "utf16/rules.json does not say whose it is: choose", 1),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence(ended, words, said, code):
    found, err = ended(*words.split())
    assert (found, err.count("\n")) == (code, 1), err
    assert err.startswith("error: ") and said in err


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("results", "--results"), "--results"),
        (("run", "--only", "floor-pairs", "--results"), "--results"),
        (("run", "--only", "floor-pairs", "--work"), "--work"),
        (("export",), "folder"),
        (("distill", "--domain", "toyshop", "--kind", "rules", "--out"), "--out"),
        (("report", "--results"), "--results"),
        (("report", "--book"), "--book"),
        (("explorer", "page.html", "--results"), "--results"),
    ],
)
def test_what_cannot_be_a_folder_is_named_with_its_option(ended, words, option, place):
    code, err = ended(*words, place)
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith(f"error: {option} = ") and PLACES[place] in err


def test_the_page_of_the_explorer_is_a_file_that_can_be_written(ended, tmp_path):
    make_results(tmp_path / "results")
    for place, said in {
        "empty": "empty: it is a folder: give the name of a file",
        "file/page.html": "file: it is a file: give the name of a folder",
        "nowhere/page.html": "nowhere: it is a link to not/there, which is not there: mend or remove it",
        "blocked/page.html": "blocked: permission denied: choose another place, or change its permissions",
        f"{'x' * 300}.html": "the name is too long: choose a shorter one",
    }.items():
        code, err = ended("explorer", place)
        assert code == 1 and err.endswith(f"{said}\n") and err.count("\n") == 1, err


def test_the_page_of_the_report_must_be_there_and_in_utf_8(ended):
    for folder, said in {
        "empty": "empty/replication.md: there is no such file or folder: check the name",
        "book": "book/replication.md: byte 1 is not UTF-8: save the file as UTF-8, or make it again",
    }.items():
        code, err = ended("report", "--results", "empty", "--book", folder)
        assert code == 1 and err.splitlines()[1:] == [f"error: {said}"]


def test_a_report_without_records_says_so(ended):
    code, err = ended("report", "--results", "empty")
    assert code == 0 and err.startswith("note: no records of profile 'qwen' in empty. Make some: routedk run --profile")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ROUTEDK_MIRROR": "/nope"}, "cannot fetch /nope/"),
        ({"ROUTEDK_MIRROR": "ftp://host"}, "ROUTEDK_MIRROR = 'ftp://host': give the name of a folder, or file:///…"),
        ({"ROUTEDK_CACHE": "file"}, "the cache file cannot be written to (Not a directory): set ROUTEDK_CACHE to"),
        ({"ROUTEDK_CACHE": "blocked/x"}, "the cache blocked/x cannot be written to (Permission denied): set ROUTEDK_"),
        ({"ROUTEDK_CACHE": "~nosuchuser"}, "ROUTEDK_CACHE = '~nosuchuser': there is no such home folder"),
        ({"ROUTEDK_CACHE": "", "HOME": "/dev/null", "XDG_CACHE_HOME": ""},
         "the cache /dev/null/.cache/routedk-lite c"),
    ],
)  # fmt: skip
def test_a_cache_or_mirror_that_is_none_is_named(ended, environment, said):
    code, err = ended("data", "fetch", **environment)
    assert code == 1 and f"error: {said}" in err and "Traceback" not in err


def test_a_read_only_cache_with_everything_in_it_is_read(ended, tmp_path, mirror):
    words = ("data", "fetch", "--domain", "food", "--no-raw")
    assert ended(*words, ROUTEDK_MIRROR=str(mirror))[0] == 0
    before = sorted((tmp_path / "cache").rglob("*"))
    for path in (tmp_path / "cache", *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert ended(*words, ROUTEDK_MIRROR="/nope")[0] == 0
    assert sorted((tmp_path / "cache").rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full: make room and give the same command again: what is finished is kept"),
        (errno.EDQUOT, "your share of the disk is used up: make room"),
        (errno.EROFS, "the file system is read-only: choose another place"),
        (errno.EIO, "the disk cannot be read or written: check it"),
        (errno.ENOTCONN, "Transport endpoint is not connected: check it, or choose another place"),
    ],
)
def test_a_disk_that_fails_is_named(ended, monkeypatch, number, said):
    def fail(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr("routedk_lite.files.os.replace", fail)
    code, err = ended("distill", "--domain", "toyshop", "--kind", "rules", "--out", "out")
    assert (code, err) == (1, f"error: out/rules.json: {said}{err.partition(said)[2]}") and err.count("\n") == 1


# --- how it may end besides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--debug", "run", "--part", "nope"], ["run", "--part", "nope", "--debug"]])
def test_debug_shows_where_an_error_comes_from(ended, words):
    code, err = ended(*words)
    assert code == 1 and "Traceback" in err and "in of_part" in err
    assert err.endswith("error: part = 'nope': choose one of method, companion, ablations, fusions\n")


def test_a_fault_of_ours_keeps_its_traceback(ended, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(Pipeline, "run", fail)
    with pytest.raises(ZeroDivisionError):
        ended("run")
    code, err = ended("run", "--debug")
    assert code == 1 and "Traceback" in err and err.endswith("error: ZeroDivisionError()\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("32 GB"), "there is not enough memory (32 GB): `routedk doctor` says which profiles fit"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "x cannot be imported (No module named 'x'): install"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"), "if the disk is full, make"),
        (OSError("x does not appear to have\na file named y"), "error: x does not appear to have a file named y\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_errors_of_libraries_are_sentences_too(ended, monkeypatch, error, said):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(Pipeline, "run", fail)
    code, err = ended("run")
    assert code == 1 and said in err and err.count("\n") == 1


def test_ctrl_c_says_that_the_run_goes_on(ended, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "run", stop)
    assert ended("run") == (130, "Stopped. What is finished is kept: the same command goes on from there.\n")


def process(*words, **options):
    command = [sys.executable, "-m", "routedk_lite", *words]
    places = {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | places, **options)


def test_nobody_need_read_to_the_end():
    run = process("results", "--results", str(ROOT / "results"), stdout=subprocess.PIPE)
    run.stdout.close()
    assert run.stderr.read() == "" and run.wait() == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device here")
def test_a_full_disk_behind_the_standard_output_is_named():
    with open("/dev/full", "w") as full:
        run = process("results", "--results", str(ROOT / "results"), stdout=full)
        assert run.stderr.read().startswith("error: the disk is full: make room") and run.wait() == 1


def test_a_terminal_without_greek_letters_still_gets_its_table():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "ascii")
        done = process("results", "--results", str(ROOT / "results"), stdout=subprocess.PIPE)
    out, err = done.communicate()
    assert done.returncode == 0 and "base-seed0" in out and err == ""


def test_results_in_a_folder_that_cannot_be_written_can_be_read(ended, tmp_path):
    folder = tmp_path / "results/control/habits"
    folder.mkdir(parents=True)
    for path in (ROOT / "results/control/habits").glob("floor-*"):
        shutil.copy(path, folder)
    for path in (tmp_path / "results", *(tmp_path / "results").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert ended("results", "--verify") == ended("run", "--profile", "control", "--only", "floor-*") == (0, "")
    assert ended("report")[0] == 0


# --- sentences ----------------------------------------------------------------------------------------------------


def caught(work):
    try:
        work()
    except Exception as error:
        return errors.sentence(error)
    pytest.fail("nothing was raised")


def test_damaged_json_is_named_by_its_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"a": 1,}')

    def read():
        return json.loads(path.read_text(encoding="utf-8"))

    expected = rf"{path}: not JSON \(.*line 1 column .*\): mend it, or remove it and make it again"
    assert re.fullmatch(expected, caught(read))
    path.write_text("")
    assert caught(read).startswith("not JSON (")  # an empty text could be that of any file
    assert caught(lambda: json.loads("[")).startswith("not JSON (")


def test_text_in_another_encoding_is_named_by_its_file(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_bytes(b"id,title\n1,caf\xe9\n")
    assert caught(lambda: path.read_text(encoding="utf-8")) == (
        f"{path}: byte 15 is not UTF-8: save the file as UTF-8, or make it again"
    )
    assert caught(lambda: b"\xff".decode()) == "byte 1 is not UTF-8: save the file as UTF-8, or make it again"


def test_damaged_weights_are_named_by_their_file(tmp_path):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"damaged")

    def load(path):
        load_file(path)

    assert re.match(rf"{path} is damaged \(.+\): fetch or make it again", caught(lambda: load(path)))


def test_a_full_disk_is_known_in_the_words_of_other_languages():
    SafetensorError = type("SafetensorError", (Exception,), {})
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert errors.sentence(error).startswith("the disk is full: make room")


def test_inside_the_cache_another_cache_is_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "data" / ".x.npy.abc"))
    assert errors.sentence(error) == (
        f"{tmp_path}/data: permission denied: choose another place, or change its permissions; or set ROUTEDK_CACHE to "
        "another folder"
    )
