"""The shipped models are those of the records: real SmolLM2 experts give the recorded weights again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from routedk_lite.config import get_profile
from routedk_lite.data.domains import load_domain
from routedk_lite.fusion.routed import RoutedModel
from routedk_lite.fusion.routing import trace_alpha
from routedk_lite.fusion.saved import saved_adapters
from routedk_lite.student.backbone import load_student
from routedk_lite.study.records import load_all, load_attachment

SHIPPED = sorted(ROOT.glob("results/*/*/routed-seed*"))
SESSIONS = 4
MEGABYTES = 15
"""What the experts and the router of one domain may weigh."""


def name_of(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def record_of(folder: Path):
    """The recorded run of the dynamic fusion beside a shipped model."""
    seed = folder.name.removeprefix("routed-")
    records = load_all(ROOT / "results")
    (found,) = (r for r in records if r.path.parent == folder.parent and r.run == f"fusion-dynamic-{seed}")
    return found


def test_a_domain_is_shipped() -> None:
    assert "smol/electronic/routed-seed0" in map(name_of, SHIPPED)


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_shipped_experts_are_those_of_the_record_and_light(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MEGABYTES * 1e6
    assert {adapter.name: adapter.sha256 for adapter in saved_adapters(folder)} == record_of(folder).adapter_sha256


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_a_shipped_model_gives_its_recorded_weights(folder: Path, smol_student, mirror) -> None:
    record, profile = record_of(folder), get_profile("smol")
    assert record.profile == profile.name and profile.student == smol_student
    student = load_student(profile, device="cpu")
    model = RoutedModel.from_pretrained(folder, student.model, student=student.info.id)
    sessions = load_domain(record.domain, "test").sessions[:SESSIONS]
    alpha = trace_alpha(model, student.tokenizer, sessions, prompt=profile.prompt, progress=False)
    recorded = {row["id"]: row["alpha"] for row in load_attachment(record, "alpha")}
    # Other processors round bfloat16 products otherwise.
    assert alpha == pytest.approx(np.array([recorded[session.id] for session in sessions]), abs=0.03)
