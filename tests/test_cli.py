import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT, load_script
from explored import make_results
from typer.testing import CliRunner

from routedk_lite.__main__ import app
from routedk_lite.config import PROFILES, Profile, StudentConfig, get_profile, known_profiles
from routedk_lite.data.sessions import DOMAINS
from routedk_lite.report import doctor

run = CliRunner().invoke


def command(*words, cwd=ROOT, said="", **environment):
    return subprocess.run(
        [sys.executable, "-m", "routedk_lite", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=said,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def test_help_lists_the_commands():
    text = run(app, ["--help"]).output
    assert all(name in text for name in ("run", "results", "doctor", "data"))


def test_help_names_every_profile_and_those_that_need_a_domain():
    words = " ".join(run(app, ["run", "--help"], env={"COLUMNS": "400"}).output.split())
    assert ", ".join(known_profiles()) in words and all(name in words for name in DOMAINS)
    words = " ".join(run(app, ["bundle", "--help"], env={"COLUMNS": "400"}).output.split())
    (listed,) = re.findall(r"bundles from pairs \((.*?)\)", words)
    assert listed.split(", ") == [name for name, one in known_profiles().items() if one.answers == "pairs"]


def test_an_expected_failure_is_one_sentence():
    done = command("run", "--profile", "huge")
    assert done.returncode == 1
    known = "toy, smol, qwen, t4, paper, control, qwen-1.5b"
    assert done.stderr.strip() == f"error: unknown profile 'huge': choose one of {known}"
    done = command("data", "fetch", ROUTEDK_MIRROR="/nonexistent", ROUTEDK_CACHE="/nonexistent-cache")
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_profile_can_be_planned_anywhere(profile, tmp_path):
    out = run(
        app,
        ["run", "--profile", profile, "--dry-run", "--results", str(tmp_path)],
        env={"ROUTEDK_CACHE": str(tmp_path)},
    )
    assert out.exit_code == 0
    assert "computed estimates" in out.output and "base-seed0" in out.output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_chosen_stages_plans_these_alone(tmp_path):
    words = ["run", "--profile", "toy", "--only", "fusion-*", "--dry-run", "--results", str(tmp_path)]
    out = run(app, words).output
    assert "plan of the chosen stages" in out and "fusion-dynamic-seed0" in out and "student" in out
    assert "base-seed0" not in out
    refused = run(app, [*words, "--only", "fusoin-*"])
    assert "no stage 'fusoin-*'" in str(refused.exception)


def test_doctor_has_a_verdict_for_every_profile():
    out = run(app, ["doctor"]).output
    assert all(re.search(rf"^ *{name} ", out, re.MULTILINE) for name in known_profiles())
    assert "Python 3." in out and "compute type" in out


@pytest.mark.parametrize(
    ("name", "four_bit", "has", "said"),
    [
        ("smol", False, 7.7, "yes"),
        ("smol", False, 6.5, "no: 6 GB of memory, a machine with 8 needed"),
        ("qwen-1.5b", False, 15.4, "yes"),
        ("qwen-1.5b", False, 11, "no: 11 GB of memory, a machine with 16 needed"),
        ("t4", True, 14.6, "yes"),
        ("paper", True, 22.1, "yes"),
        ("paper", True, 15, "no: 15 GB of GPU memory, a machine with 24 needed"),
        ("mine", True, 4, "yes"),
        ("mine", True, 0, "no: no GPU"),
        ("mine", False, 1, "yes"),
    ],
)
def test_doctor_goes_by_what_a_profile_says_that_it_needs(monkeypatch, name, four_bit, has, said):
    """Also of a profile of one's own, whose name it has never heard."""
    monkeypatch.setattr(doctor, "is_cached", lambda student: True)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: four_bit and has > 0)
    memory = SimpleNamespace(total_memory=has * 2**30, total=has * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: memory)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    if name == "mine":
        profile = Profile(name=name, student=StudentConfig(source="hub", id="x", load_in_4bit=four_bit))
    else:
        profile = get_profile(name)
        assert f"{profile.memory_gb:g} GB" in profile.needs
    assert doctor.verdict(profile) == said


@pytest.mark.parametrize(
    ("model", "source"), [("qwen-1.5b", "gguf"), ("control", "package"), ("smol", "wheel"), ("a/b", "hub")]
)
def test_a_local_teacher_may_be_any_profiles_student(monkeypatch, model, source):
    monkeypatch.setattr("routedk_lite.student.backbone.load_student", lambda profile: profile.student)
    monkeypatch.setattr("routedk_lite.student.local_teacher.LocalTeacher", lambda student: student)
    asked = []
    monkeypatch.setattr("routedk_lite.teacher.distillation.estimate", lambda plan, teacher: asked.append(teacher))
    words = ["distill", "--domain", "toyshop", "--kind", "rules", "--teacher", "local", "--model", model, "--dry-run"]
    run(app, words)
    assert asked[0].source == source


@pytest.mark.parametrize(("apple", "said"), [(True, "GPU: Apple's, which is not used"), (False, "GPU: none")])
def test_doctor_says_that_apples_gpu_is_not_used(monkeypatch, apple, said):
    monkeypatch.setattr(doctor, "hardware", lambda: {"cpu": "M3", "cores": 8, "memory_gb": 16})
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: apple)
    assert said in run(app, ["doctor"]).output.splitlines()


def test_doctor_says_that_a_cache_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    out = run(app, ["doctor"], env={"ROUTEDK_CACHE": str(tmp_path / "file")}).output
    assert "file, to be read only: ROUTEDK_CACHE = " in out and "is a file: give the name of a folder" in out


def test_results_without_records_say_how_to_make_some(tmp_path):
    out = run(app, ["results", "--results", str(tmp_path)])
    assert out.exit_code == 1 and "routedk run" in out.output


def test_the_committed_records_agree_with_their_predictions(mirror):
    out = run(app, ["results", "--verify"])
    assert out.exit_code == 0, out.output
    assert "agree with their predictions" in out.output


def test_an_explorer_becomes_a_page(tmp_path):
    make_results(tmp_path)
    out = run(app, ["explorer", str(tmp_path / "page.html"), "--results", str(tmp_path)])
    assert out.exit_code == 0 and "page.html: " in out.output and " kB" in out.output
    assert "<title>Router explorer: toyshop, toy student</title>" in (tmp_path / "page.html").read_text()
    refused = run(app, ["explorer", str(tmp_path / "other.html"), "--results", str(tmp_path / "empty")])
    assert "no explorer-seed0 of profile 'toy' and domain 'toyshop'" in str(refused.exception)


def test_data_commands(mirror):
    assert "files have the right SHA-256" in run(app, ["data", "verify"]).output
    out = run(app, ["data", "stats"]).output
    assert "623 / 90 / 180" in out and "1,750" in out


@pytest.mark.parametrize(
    ("script", "page", "shows"),
    [
        ("recipe_page", "book/recipe.md", "pseudo-sessions alone"),
        ("performance_page", "book/performance.md", "routed step / one LoRA step"),
    ],
)
def test_pages_show_what_the_records_say(script, page, shows):
    filler = load_script(script)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert filler.filled(text) == text, f"run: python scripts/{script}.py"
    assert shows in text


def test_export_never_deletes_what_it_did_not_write(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear to me")
    here = command("export", ".", cwd=tmp_path)
    assert here.returncode == 1 and "the folder that you work in" in here.stderr
    done = command("export", str(tmp_path))
    assert done.returncode == 1 and f"{tmp_path} holds thesis.txt, which is not ours to replace" in done.stderr
    asked = command("export", str(tmp_path), "--force", said="n\n")
    assert asked.returncode == 1 and "would be deleted:\n  thesis.txt" in asked.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
