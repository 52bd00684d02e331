"""The settings of a routed model in a folder: what is wrong with them is said with the file and the way out."""

from __future__ import annotations

import json

import pytest
import torch
from adapted import make_adapter
from safetensors.torch import load_file, save_file

from routedk_lite.files import UnreadableError, sha256_file
from routedk_lite.fusion.fusion import Static
from routedk_lite.fusion.layers import RoutedLinear
from routedk_lite.fusion.routed import RoutedModel, saved_settings


@pytest.fixture
def saved(tiny_llama, tiny_student, tmp_path):
    """The folder of a routed model."""
    adapter = make_adapter(tiny_llama, tmp_path / "expert", r=2, targets=["q_proj"], seed=0)
    model = RoutedModel(tiny_student.model, [adapter], Static())
    model.save_pretrained(tmp_path / "saved")
    model.unload()
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) // 2], "not the settings of a routed model: no JSON, or cut off"),
        (lambda text: "", "it is empty"),
        (lambda text: text.encode("utf-16"), "it is not in UTF-8"),
        (lambda text: f"[{text}]", "expected an object, found a list"),
        (lambda text: "{}", "fusion is missing"),
        (lambda text: json.dumps(json.loads(text) | {"sha256": None}), "sha256 is None"),
        (lambda text: json.dumps(json.loads(text) | {"experts": {}}), "experts is {}"),
        (lambda text: json.dumps(json.loads(text) | {"experts": [{"name": "a"}]}), "experts holds {'name': 'a'}"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(saved, change, why):
    path = saved / "routed.json"
    changed = change(path.read_text())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(UnreadableError, match=rf"routed\.json: .*{why}.*get (it|the folder) anew"):
        saved_settings(saved)


@pytest.mark.parametrize("name", ["experts.safetensors", "fusion.safetensors"])
def test_the_files_beside_it_are_those_that_it_names(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"{name} is not the file that was saved with routed\.json: get both anew"):
        saved_settings(saved)
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"saved holds routed\.json, but no {name}: get both anew"):
        saved_settings(saved)
    (saved / name).write_bytes(content)
    settings = json.loads((saved / "routed.json").read_text())
    del settings["sha256"][name]
    (saved / "routed.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="is not the file"):
        saved_settings(saved)


FIRST = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda scales: scales.pop(FIRST), rf"experts\.safetensors names 0\.{FIRST}\.a, which routed\.json has not"),
        (lambda scales: scales.update(x=1.0), r"routed\.json names 0\.x\.a, which experts\.safetensors has not"),
        (lambda scales: scales.update({FIRST: "2"}), "the scales of 'expert' are not a finite number"),
        (lambda scales: scales.update({FIRST: float("nan")}), "the scales of 'expert' are not a finite number"),
        (lambda scales: scales.update({FIRST: None}), "the scales of 'expert' are not a finite number"),
    ],
)
def test_scales_and_matrices_belong_together(saved, tiny_student, change, why):
    settings = json.loads((saved / "routed.json").read_text())
    change(settings["experts"][0]["scales"])
    (saved / "routed.json").write_text(json.dumps(settings))
    with pytest.raises(UnreadableError, match=rf"{why}.*: get (both|the folder) anew"):
        RoutedModel.from_pretrained(saved, tiny_student.model)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda theta: {"theta": theta * float("nan")}, "holds values that are not finite"),
        (lambda theta: {"theta": theta[:1]}, r"holds theta \(1, 1\), which is not of the fusion in routed\.json"),
        (lambda theta: {"weight": theta}, r"holds weight \(2, 1\), which is not of the fusion in routed\.json"),
    ],
)
def test_what_a_fusion_has_learned_is_its_own_and_finite(saved, tiny_student, change, why):
    path, settings = saved / "fusion.safetensors", json.loads((saved / "routed.json").read_text())
    save_file(change(load_file(path)["theta"]), path)
    settings["sha256"][path.name] = sha256_file(path)
    (saved / "routed.json").write_text(json.dumps(settings))
    with pytest.raises(UnreadableError, match=rf"fusion\.safetensors {why}"):
        RoutedModel.from_pretrained(saved, tiny_student.model)
    assert not any(isinstance(module, RoutedLinear) for module in tiny_student.model.modules())
    assert isinstance(tiny_student.model(torch.ones(1, 3, dtype=torch.long)).logits, torch.Tensor)
