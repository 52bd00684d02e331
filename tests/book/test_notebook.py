import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import torch

from routedk_lite.book import notebook
from routedk_lite.book.notebook import setup
from routedk_lite.book.requirements import install_missing, missing_requirements, remove_refused
from routedk_lite.config import get_profile


@pytest.fixture
def installed(monkeypatch):
    """A machine: what the package declares, and the versions that are installed."""

    def machine(declared, versions):
        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, "requires", lambda name: declared)
        monkeypatch.setattr(metadata, "version", version)

    return machine


@pytest.fixture
def pip(monkeypatch):
    """Records pip's arguments and the constraints it was given, and installs nothing."""
    calls = []

    def run(command, **options):
        constraints = Path(command[command.index("--constraint") + 1]).read_text()
        calls.append((command[command.index("--constraint") + 2 :], constraints))
        return types.SimpleNamespace(returncode=run.code, stderr="no such version")

    run.code = 0
    monkeypatch.setattr(subprocess, "run", run)
    calls_and_code = types.SimpleNamespace(calls=calls, run=run)
    return calls_and_code


DECLARED = ["torch>=2.6", "numpy>=2.0", "peft>=0.18", "gguf>=0.17", 'bitsandbytes>=0.48; extra == "gpu"']


def test_only_what_is_missing_or_too_old_is_installed_and_torch_stays(installed, pip, capsys):
    installed(DECLARED, {"torch": "2.6.0+cu124", "numpy": "2.1.0", "peft": "0.15.0"})
    assert missing_requirements() == ["peft>=0.18", "gguf>=0.17"]
    assert install_missing(["gpu"]) == ["peft>=0.18", "gguf>=0.17", "bitsandbytes>=0.48"]
    ((wanted, constraints),) = pip.calls
    assert wanted == ["peft>=0.18", "gguf>=0.17", "bitsandbytes>=0.48"]
    assert constraints == "torch==2.6.0+cu124\nnumpy==2.1.0\n"
    assert "Installing peft>=0.18" in capsys.readouterr().out


def test_a_package_that_was_loaded_in_its_old_version_needs_a_restart(installed, pip, capsys, monkeypatch):
    installed(["peft>=0.18"], {"peft": "0.15.0"})
    monkeypatch.setitem(sys.modules, "peft", types.ModuleType("peft"))
    install_missing()
    assert "peft was loaded already: restart the kernel" in capsys.readouterr().out


@pytest.mark.parametrize("have", [{"numpy": "2.1.0"}, {"numpy": "2.1.0", "torch": "2.1.0"}])
def test_torch_is_never_installed_or_replaced(have, installed, pip):
    installed(DECLARED, have)
    with pytest.raises(RuntimeError, match="torch>=2.6 needed here: install it yourself"):
        install_missing()
    assert not pip.calls


def test_a_complete_machine_and_an_uninstalled_checkout_are_left_alone(installed, pip, monkeypatch):
    installed(["torch>=2.6"], {"torch": "2.13.0"})
    assert install_missing() == []

    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    assert install_missing() == [] and not pip.calls


def test_a_failure_of_pip_is_told(installed, pip):
    installed(["peft>=0.18"], {})
    pip.run.code = 1
    with pytest.raises(RuntimeError, match="pip could not install peft>=0.18: no such version"):
        install_missing()


@pytest.fixture
def old_torchao(monkeypatch):
    """A machine with a torchao that PEFT does not work beside, and a pip that takes it away."""
    from peft import import_utils

    there, removed = {"torchao"}, []

    def ask():
        if there:
            raise ImportError("Found an incompatible version of torchao. Found version 0.10.0")

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return "0.10.0"

    def run(command, **options):
        there.discard(command[-1])
        removed.append(command[-1])
        return types.SimpleNamespace(returncode=run.code, stderr="read-only file system")

    run.code = 0
    monkeypatch.setattr(import_utils, "is_torchao_available", ask)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(subprocess, "run", run)
    return types.SimpleNamespace(removed=removed, run=run)


def test_what_peft_refuses_to_work_beside_is_removed_on_colab_alone(old_torchao, capsys, monkeypatch):
    assert remove_refused(allowed=False) == [] and old_torchao.removed == []
    assert "PEFT will not work beside torchao 0.10.0" in (said := capsys.readouterr().out)
    assert "pip uninstall torchao" in said
    assert remove_refused(allowed=True) == old_torchao.removed == ["torchao"]
    said = capsys.readouterr().out
    assert "Removed torchao 0.10.0" in said and "restart" not in said and said.count("\n") == 1
    assert remove_refused(allowed=True) == []  # nothing is left to do


def test_a_failure_to_remove_it_is_told(old_torchao):
    old_torchao.run.code = 1
    with pytest.raises(RuntimeError, match="could not remove torchao 0.10.0: read-only file system"):
        remove_refused(allowed=True)


def test_a_removed_package_that_was_loaded_needs_a_restart(old_torchao, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    remove_refused(allowed=True)
    assert "restart the kernel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("memory", "profile", "says"),
    [
        (None, "toy", "This runtime suits that. For a GPU: Runtime"),
        (None, "smol", "also suits profile = 'toy' or 'qwen' above"),
        (15, "toy", "also suits profile = 't4' above. It is too small"),
        (15, "t4", "This runtime suits that"),
        (40, "t4", "also suits profile = 'paper' above"),
    ],
)
def test_colab_is_told_what_its_runtime_is_good_for(memory, profile, says, monkeypatch):
    card = types.SimpleNamespace(total_memory=(memory or 0) * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: card)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=16 * 2**30))
    assert says in notebook._on_colab("cuda" if memory else "cpu", profile)


def test_colab_is_not_offered_what_its_memory_does_not_hold(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=int(12.7 * 2**30)))
    said = notebook._on_colab("cpu", "smol")
    assert "'toy'" in said and "qwen" not in said


def test_the_first_cells_form_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEDK_PROFILE", "smol")
    monkeypatch.setenv("ROUTEDK_WORK", str(tmp_path))
    assert setup("toy", quiet=True).profile.name == "toy"
    assert setup("", quiet=True).profile.name == "smol"


def test_the_set_up_says_what_a_chapter_runs_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROUTEDK_PROFILE", "toy")
    monkeypatch.setenv("ROUTEDK_WORK", str(tmp_path))
    chapter = setup()
    said = capsys.readouterr().out
    assert chapter.profile.name == "toy" and chapter.work == tmp_path
    assert "profile toy" in said and "CPU" in said and "wants a GPU" not in said


@pytest.mark.parametrize(("colab", "way"), [(True, "Change runtime type"), (False, "run it where there is one")])
def test_without_a_gpu_the_way_out_is_named(colab, way, monkeypatch, capsys):
    monkeypatch.setenv("ROUTEDK_PROFILE", "t4")
    monkeypatch.setattr(notebook, "in_colab", lambda: colab)
    monkeypatch.setattr(notebook, "install_missing", lambda extras: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    setup()
    said = capsys.readouterr().out
    assert way in said and 'profile = "smol"' in said


@pytest.mark.parametrize(
    ("name", "capability", "says"),
    [("Tesla T4", (7, 5), "float32 (it only emulates bfloat16)"), ("NVIDIA A100-SXM4-40GB", (8, 0), "bfloat16")],
)
def test_a_t4_is_told_from_an_a100(name, capability, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    card = types.SimpleNamespace(total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: card)
    assert notebook._machine("cuda") == f"{name}, 15 GB, {says}"


def test_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("ROUTEDK_PROFILE", "huge")
    with pytest.raises(ValueError, match="ROUTEDK_PROFILE: unknown profile 'huge': choose one of toy"):
        setup()


def test_places_are_read_as_users_write_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROUTEDK_PROFILE", "")
    monkeypatch.setenv("ROUTEDK_WORK", "~/work")
    chapter = setup(quiet=True)
    assert chapter.work == tmp_path / "work" and chapter.profile.name == "toy"
    (tmp_path / "work").touch()
    with pytest.raises(ValueError, match="ROUTEDK_WORK = .*/work is a file: give the name of a folder"):
        setup(quiet=True)


def test_colab_is_recognised(monkeypatch, tmp_path):
    assert not notebook.in_colab()
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "colab" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "google", raising=False)
    assert notebook.in_colab()


@pytest.mark.parametrize(
    "ships, cached, data, says",
    [
        (False, True, True, "No recorded experts of SmolLM2 ship"),
        (True, False, True, "routedk doctor"),
        (True, True, False, "routedk doctor"),
        (True, True, True, ""),
    ],
)
def test_shipped_experts_run_where_everything_is_at_hand(tmp_path, monkeypatch, capsys, ships, cached, data, says):
    folder = tmp_path / "smol" / "clothing" / "routed-seed0"
    if ships:
        folder.mkdir(parents=True)
        (folder / "routed.json").write_text("{}")
    monkeypatch.setattr("routedk_lite.student.backbone.is_cached", lambda student: cached)
    chapter = notebook.Chapter(get_profile("toy"), "cpu", tmp_path, tmp_path, data)
    assert chapter.ready_to_route() == (None if says else ("clothing", folder))
    assert says in capsys.readouterr().out
